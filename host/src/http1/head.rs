//! Heads of requests and responses (RFC 9112, 2 to 5), taken apart strictly.

use http::{Method, StatusCode};

use super::{Buffers, Fields, Span};

/// What a peer speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// A request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// As it came; see [`Target`].
    pub(crate) target: Span,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

/// A response's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) version: Version,
    pub(crate) status: StatusCode,
    pub(crate) reason: Span,
    pub(crate) fields: Fields,
}

/// The forms of a request target (RFC 9112, 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    /// Path and query.
    Origin(Span),
    /// The authority, and path and query, which may be without a path.
    Absolute(Span, Span),
    Asterisk,
}

/// Why a head is not one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeadError {
    /// Says what is wrong with it.
    Malformed(&'static str),
    /// More bytes than allowed, before the first line was at its end.
    LongLine,
    /// More bytes or lines than allowed.
    Large,
}

/// What a head may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    pub(crate) lines: usize,
}

/// Looks for the end of a head, and remembers how far it has looked.
#[derive(Debug, Default)]
pub(crate) struct Search {
    seen: usize,
    lines: usize,
}

impl Search {
    /// The length of the head at the beginning of `data`, with its empty line; `None` where more has to come.
    ///
    /// # Errors
    /// A line that ends in LF alone, or more than allowed.
    pub(crate) fn find(
        &mut self,
        data: &[u8],
        limits: HeadLimits,
    ) -> Result<Option<usize>, HeadError> {
        loop {
            let rest = data.get(self.seen..).unwrap_or_default();
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                self.seen = data.len();
                break;
            };
            let line = self.seen..self.seen + length + 1;
            self.seen = line.end;
            let before = data.get(..line.end).unwrap_or_default();
            if !before.ends_with(b"\r\n") {
                return Err(HeadError::Malformed("a line does not end in CR LF"));
            }
            if before.ends_with(b"\r\n\r\n") {
                return if line.end > limits.bytes {
                    Err(HeadError::Large)
                } else {
                    Ok(Some(line.end))
                };
            }
            self.lines += 1;
        }
        match data.len() > limits.bytes {
            true if self.lines == 0 => Err(HeadError::LongLine),
            true => Err(HeadError::Large),
            false => Ok(None),
        }
    }
}

/// Takes a request's head apart. `head` is what [`Search::find`] has found.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn request(
    head: &[u8],
    limits: HeadLimits,
    buffers: &Buffers,
) -> Result<RequestHead, HeadError> {
    let mut parser = Parser {
        fields: buffers.take_fields().with_text(head),
        at: 0,
    };
    match parser.request(limits) {
        Ok((method, target, version)) => Ok(RequestHead {
            method,
            target,
            version,
            fields: parser.fields,
        }),
        Err(error) => {
            buffers.give_fields(parser.fields);
            Err(error)
        }
    }
}

/// Takes a response's head apart. `head` is what [`Search::find`] has found.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn response(
    head: &[u8],
    limits: HeadLimits,
    buffers: &Buffers,
) -> Result<ResponseHead, HeadError> {
    let mut parser = Parser {
        fields: buffers.take_fields().with_text(head),
        at: 0,
    };
    match parser.response(limits) {
        Ok((version, status, reason)) => Ok(ResponseHead {
            version,
            status,
            reason,
            fields: parser.fields,
        }),
        Err(error) => {
            buffers.give_fields(parser.fields);
            Err(error)
        }
    }
}

/// The trailer lines of a chunked body, with their empty line.
///
/// # Errors
/// As for a head.
pub(crate) fn trailers(text: &[u8]) -> Result<Fields, HeadError> {
    let mut parser = Parser {
        fields: Fields::default().with_text(text),
        at: 0,
    };
    parser.lines(usize::MAX)?;
    Ok(parser.fields)
}

/// Goes over the text of a head once.
struct Parser {
    fields: Fields,
    at: usize,
}

impl Parser {
    fn request(&mut self, limits: HeadLimits) -> Result<(Method, Span, Version), HeadError> {
        let method = self.run(is_token);
        let method = Method::from_bytes(method.of(self.fields.text()));
        let method = method.map_err(|_| HeadError::Malformed("the method is not valid"))?;
        self.expect(b" ", "the request line is not valid")?;
        let target = self.run(is_target);
        if target.len() == 0 {
            return Err(HeadError::Malformed("the request target is not valid"));
        }
        self.expect(b" ", "the request target is not valid")?;
        let version = self.version()?;
        self.expect(b"\r\n", "the request line is not valid")?;
        self.lines(limits.lines)?;
        Ok((method, target, version))
    }

    fn response(&mut self, limits: HeadLimits) -> Result<(Version, StatusCode, Span), HeadError> {
        const WRONG: &str = "the status line is not valid";
        let version = self.version()?;
        self.expect(b" ", WRONG)?;
        let code = self.run(|byte| byte.is_ascii_digit());
        let code = StatusCode::from_bytes(code.of(self.fields.text()));
        let status = code.map_err(|_| HeadError::Malformed(WRONG))?;
        // Some leave the space away where no reason follows.
        let reason = if self.rest().starts_with(b" ") {
            self.at += 1;
            self.run(is_text)
        } else {
            Span::default()
        };
        self.expect(b"\r\n", WRONG)?;
        self.lines(limits.lines)?;
        Ok((version, status, reason))
    }

    fn version(&mut self) -> Result<Version, HeadError> {
        const WRONG: &str = "only HTTP/1.1 and HTTP/1.0 are understood";
        self.expect(b"HTTP/1.", WRONG)?;
        let version = match self.rest().first() {
            Some(b'1') => Version::Http11,
            Some(b'0') => Version::Http10,
            _ => return Err(HeadError::Malformed(WRONG)),
        };
        self.at += 1;
        Ok(version)
    }

    /// Field lines up to the empty one.
    fn lines(&mut self, max: usize) -> Result<(), HeadError> {
        while !self.rest().starts_with(b"\r\n") {
            if self.fields.len() == max {
                return Err(HeadError::Large);
            }
            // A line that continues the one before begins with a space, which no name does.
            let name = self.run(is_token);
            if name.len() == 0 {
                return Err(HeadError::Malformed("a field name is not valid"));
            }
            self.expect(b":", "a field name is not valid")?;
            let value = self.run(is_text);
            self.expect(b"\r\n", "a field value is not valid")?;
            self.fields.push(name, self.trim(value), self.at);
        }
        Ok(())
    }

    fn rest(&self) -> &[u8] {
        self.fields.text().get(self.at..).unwrap_or_default()
    }

    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> Span {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !belongs(*byte));
        let length = length.unwrap_or(rest.len());
        let start = self.at;
        self.at += length;
        Span::new(start, self.at)
    }

    fn expect(&mut self, text: &[u8], otherwise: &'static str) -> Result<(), HeadError> {
        if !self.rest().starts_with(text) {
            return Err(HeadError::Malformed(otherwise));
        }
        self.at += text.len();
        Ok(())
    }

    /// Without spaces and tabs at both ends.
    fn trim(&self, span: Span) -> Span {
        let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let text = span.of(self.fields.text());
        let leading = text.iter().take_while(|byte| is_space(byte)).count();
        let trailing = text.iter().rev().take_while(|byte| is_space(byte)).count();
        let length = text.len().saturating_sub(leading + trailing);
        span.from(leading).until(length)
    }
}

/// RFC 9110, 5.6.2: what names are made of.
pub(super) fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'!'
            | b'#'..=b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'..=b'`'
            | b'|'
            | b'~'
    )
}

/// RFC 9110, 5.5: what values are made of.
pub(super) fn is_text(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

/// Visible ASCII but for what begins a fragment, which no request has (RFC 9112, 3.2).
fn is_target(byte: u8) -> bool {
    (0x21..0x7f).contains(&byte) && byte != b'#'
}

impl RequestHead {
    /// The target's form; `None` where it has none that a gateway can forward.
    pub(crate) fn form(&self) -> Option<Target> {
        let text = self.target.of(self.fields.text());
        match text {
            [b'/', ..] => return Some(Target::Origin(self.target)),
            b"*" => return Some(Target::Asterisk),
            _ => {}
        }
        let scheme = text.iter().position(|byte| *byte == b':')?;
        let name = text.get(..scheme)?;
        let known = [&b"http"[..], b"https"];
        if !known.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return None;
        }
        let after = self.target.from(scheme + 3);
        if text.get(scheme..scheme + 3)? != b"://" {
            return None;
        }
        let rest = after.of(self.fields.text());
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
        let end = end.unwrap_or(rest.len());
        Some(Target::Absolute(after.until(end), after.from(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 200,
        lines: 3,
    };

    fn parse(text: &str) -> Result<(String, Vec<(String, String)>), HeadError> {
        let text = text.as_bytes();
        let length = Search::default().find(text, LIMITS)?.expect("a whole head");
        assert_eq!(length, text.len(), "{text:?}");
        let head = request(text, LIMITS, &Buffers::default())?;
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let start = format!(
            "{} {} {:?}",
            head.method,
            head.fields.str(head.target),
            head.version
        );
        let lines = head.fields.iter();
        let lines = lines.map(|(name, value)| (string(name), string(value)));
        Ok((start, lines.collect()))
    }

    #[test]
    fn a_request_head_is_taken_apart() {
        let (start, lines) =
            parse("GET /a?b HTTP/1.1\r\nHost: \t a b \t\r\nX-\u{7e}:\r\nx:\u{e9}:\r\n\r\n")
                .unwrap();
        assert_eq!(start, "GET /a?b Http11");
        let expected = [("Host", "a b"), ("X-~", ""), ("x", "\u{e9}:")];
        assert_eq!(
            lines,
            expected.map(|(name, value)| (name.into(), value.into()))
        );
        assert_eq!(
            parse("M * HTTP/1.0\r\n\r\n").unwrap().0,
            "M * Http10".to_owned()
        );
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_refused() {
        for text in [
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /\t HTTP/1.1\r\n\r\n",
            "GET /# HTTP/1.1\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            " / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
            "GET / HTTP/1.1\n\r\n\r\n",
            "GET / HTTP/1.1\r\n A: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n\r\n",
            "GET / HTTP/1.1\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA(: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
            "GET / HTTP/1.1\r\nA: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nA: \u{1}\r\n\r\n",
            "GET / HTTP/1.1\r\nA: \u{7f}\r\n\r\n",
        ] {
            let parsed = parse(text);
            assert!(
                matches!(parsed, Err(HeadError::Malformed(_))),
                "{text:?} {parsed:?}"
            );
        }
    }

    #[test]
    fn limits_are_kept() {
        let line = |length| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(length));
        assert!(parse(&line(200 - 18)).is_ok());
        assert_eq!(parse(&line(200 - 17)), Err(HeadError::Large));
        let mut search = Search::default();
        let long = [b'a'; 201];
        assert_eq!(search.find(&long[..200], LIMITS), Ok(None));
        assert_eq!(search.find(&long, LIMITS), Err(HeadError::LongLine));
        let lines = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(parse(&lines(3)).is_ok());
        assert_eq!(parse(&lines(4)), Err(HeadError::Large));
    }

    #[test]
    fn the_end_is_found_however_the_head_is_split() {
        let text = b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody\r\n\r\n";
        let end = text.len() - 8;
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut search = Search::default();
                let mut found = None;
                for length in [first, second, text.len()] {
                    if found.is_none() {
                        found = search.find(&text[..length], LIMITS).unwrap();
                    }
                }
                assert_eq!(found, Some(end), "{first} {second}");
            }
        }
    }

    fn status(text: &str) -> Result<(u16, String), HeadError> {
        let head = response(text.as_bytes(), LIMITS, &Buffers::default())?;
        Ok((
            head.status.as_u16(),
            head.fields.str(head.reason).to_owned(),
        ))
    }

    #[test]
    fn a_status_line_is_taken_apart() {
        assert_eq!(
            status("HTTP/1.1 404 Not Found\r\n\r\n"),
            Ok((404, "Not Found".into()))
        );
        assert_eq!(status("HTTP/1.0 200 \r\n\r\n"), Ok((200, String::new())));
        assert_eq!(status("HTTP/1.1 200\r\n\r\n"), Ok((200, String::new())));
        for text in [
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
        ] {
            assert!(
                matches!(status(text), Err(HeadError::Malformed(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn targets_have_a_form() {
        let form = |target: &str| {
            let text = format!("GET {target} HTTP/1.1\r\n\r\n");
            let head = request(text.as_bytes(), LIMITS, &Buffers::default()).unwrap();
            head.form().map(|form| match form {
                Target::Origin(path) => ("", head.fields.str(path).to_owned()),
                Target::Absolute(authority, path) => (
                    "absolute",
                    format!("{} {}", head.fields.str(authority), head.fields.str(path)),
                ),
                Target::Asterisk => ("*", String::new()),
            })
        };
        assert_eq!(form("/a?b"), Some(("", "/a?b".into())));
        assert_eq!(form("*"), Some(("*", String::new())));
        assert_eq!(
            form("HTTP://a:1/b?c"),
            Some(("absolute", "a:1 /b?c".into()))
        );
        assert_eq!(form("https://a"), Some(("absolute", "a ".into())));
        assert_eq!(form("http://a?b"), Some(("absolute", "a ?b".into())));
        for target in ["a", "a:80", "ftp://a/", "http:/a", "http:", "**", "?"] {
            assert_eq!(form(target), None, "{target}");
        }
    }
}
