//! HTTP/1 messages as they were on the wire: nothing joined, folded or put in another case.

use std::fmt;

/// A start line and the fields below it.
#[derive(Clone)]
pub struct Head {
    /// Without the line break.
    pub start: String,
    /// As sent, in the order sent; values without the white space around them.
    pub fields: Vec<(String, String)>,
    /// Every byte, with the empty line at the end.
    pub raw: Vec<u8>,
}

/// How the end of a body is found (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    Chunked,
    Length(u64),
    UntilClose,
}

/// What an origin was sent.
#[derive(Clone)]
pub struct Request {
    pub head: Head,
    /// Without its framing.
    pub body: Vec<u8>,
    /// The chunked coding's own bytes; empty where the body was not chunked.
    pub chunks: Vec<u8>,
    /// The body came to its end.
    pub whole: bool,
    /// Which of the origin's connections it came over, from 0.
    pub connection: usize,
}

/// What a client was sent.
#[derive(Clone)]
pub struct Response {
    pub head: Head,
    /// Without its framing.
    pub body: Vec<u8>,
    /// The chunked coding's own bytes; empty where the body was not chunked.
    pub chunks: Vec<u8>,
    pub framing: Framing,
    /// The body came to its end.
    pub whole: bool,
}

impl Head {
    pub(crate) fn parse(raw: Vec<u8>) -> Head {
        // One character per byte: whatever was sent can be compared.
        let text: String = raw.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .map(|line| {
                let (name, value) = line
                    .split_once(':')
                    .unwrap_or_else(|| panic!("a field line without a colon: {line:?}"));
                (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
            })
            .collect();
        Head { start, fields, raw }
    }

    /// All values of a name, in their order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a name that occurs at most once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} occurs {} times", values.len());
        values.first().copied()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The names of all fields in lower case, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .fields
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort_unstable();
        names
    }

    fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    /// Of a request.
    pub fn method(&self) -> &str {
        self.word(0)
    }

    /// Of a request.
    pub fn target(&self) -> &str {
        self.word(1)
    }

    /// Of a response.
    pub fn status(&self) -> u16 {
        self.word(1)
            .parse()
            .unwrap_or_else(|_| panic!("no status line: {:?}", self.start))
    }

    fn declared(&self) -> Option<Framing> {
        if let Some(coding) = self.field("transfer-encoding") {
            assert_eq!(coding, "chunked", "the only coding in use");
            assert!(
                !self.has("content-length"),
                "framed twice: {:?}",
                self.fields
            );
            return Some(Framing::Chunked);
        }
        let length = self.field("content-length")?;
        Some(Framing::Length(length.parse().unwrap_or_else(|_| {
            panic!("not a content-length: {length:?}")
        })))
    }

    pub(crate) fn request_framing(&self) -> Framing {
        self.declared().unwrap_or(Framing::Length(0))
    }

    pub fn response_framing(&self, to_head: bool) -> Framing {
        let status = self.status();
        if to_head || status < 200 || status == 204 || status == 304 {
            return Framing::Length(0);
        }
        self.declared().unwrap_or(Framing::UntilClose)
    }
}

impl Request {
    pub fn method(&self) -> &str {
        self.head.method()
    }

    pub fn target(&self) -> &str {
        self.head.target()
    }

    /// See [`Head::field`].
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// See [`Head::field`].
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// Which [`Origin`](crate::Origin) answered, where one did.
    pub fn origin(&self) -> &str {
        self.field("x-origin").unwrap_or("none")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

// === for the messages of tests that fail ===

/// As much as a person wants to read.
fn excerpt(bytes: &[u8]) -> String {
    const LENGTH: usize = 300;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LENGTH)]);
    match bytes.len().checked_sub(LENGTH) {
        Some(more) if more > 0 => format!("{text:?} and {more} bytes more"),
        _ => format!("{text:?}"),
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&excerpt(&self.raw))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { head, whole, .. } = self;
        write!(f, "{head:?} with {} (whole: {whole})", excerpt(&self.body))
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Response { head, whole, .. } = self;
        write!(f, "{head:?} with {} (whole: {whole})", excerpt(&self.body))
    }
}
