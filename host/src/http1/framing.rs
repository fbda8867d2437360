//! Where a body ends (RFC 9112, 6 and 7).

use http::{Method, StatusCode};

use super::head::{is_text, is_token};
use super::{Fields, Name, RequestHead, ResponseHead, Version};

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    Length(u64),
    Chunked,
    /// By the end of the connection: responses only.
    UntilClose,
}

/// Bytes of chunk extensions, and of trailers, of one body.
const EXTENSIONS_MAX: usize = 16 * 1024;
const TRAILERS_MAX: usize = 16 * 1024;

/// The framing of a request.
///
/// # Errors
/// What is wrong with it; the connection cannot go on then.
pub(crate) fn of_request(head: &RequestHead) -> Result<Framing, &'static str> {
    let length = head.fields.has(Name::ContentLength);
    match coding(&head.fields)? {
        true if length => Err("a body is framed by a length or by chunks, not by both"),
        true if head.version == Version::Http10 => Err("HTTP/1.0 has no Transfer-Encoding"),
        true => Ok(Framing::Chunked),
        false => Ok(content_length(&head.fields)?.map_or(Framing::Empty, Framing::Length)),
    }
}

/// The framing of a response to a request with `method`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn of_response(head: &ResponseHead, method: &Method) -> Result<Framing, &'static str> {
    let chunked = coding(&head.fields)?;
    if chunked && head.version == Version::Http10 {
        return Err("HTTP/1.0 has no Transfer-Encoding");
    }
    let length = content_length(&head.fields)?;
    let bodyless = matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    Ok(match length {
        _ if bodyless || *method == Method::HEAD || head.status.is_informational() => {
            Framing::Empty
        }
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    })
}

/// Whether the body is chunked. Any other coding could only be passed on by guessing where the body ends.
fn coding(fields: &Fields) -> Result<bool, &'static str> {
    let mut codings = fields.all(Name::TransferEncoding);
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err("Transfer-Encoding can only be chunked"),
    }
}

fn content_length(fields: &Fields) -> Result<Option<u64>, &'static str> {
    let mut lengths = fields.all(Name::ContentLength);
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(length), None) => number(length)
            .map(Some)
            .ok_or("Content-Length is no number"),
        _ => Err("Content-Length is there more than once"),
    }
}

/// Digits only, and not more than fits into 63 bits.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = str::from_utf8(text).ok()?.parse::<u64>().ok()?;
    (i64::try_from(number).is_ok()).then_some(number)
}

/// Finds the content in what a peer sends.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    extensions: usize,
    /// The trailer lines, with the empty one; only what ends a chunked body and has any.
    pub(crate) trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Done,
    Sized(u64),
    UntilClose,
    Chunked(Chunk),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chunk {
    /// Before the first digit of a size.
    Start,
    Size(u64),
    /// Behind a semicolon; the name of an extension has to follow.
    Extension(u64),
    ExtensionRest(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
}

/// What is at the beginning of some bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    /// So many bytes that are not content.
    Frame(usize),
    /// So many bytes of content.
    Content(usize),
}

/// The chunks are not what they have to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadChunk;

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Decoder {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Sized(length),
            Framing::Chunked => State::Chunked(Chunk::Start),
            Framing::UntilClose => State::UntilClose,
        };
        Decoder {
            state,
            extensions: 0,
            trailers: Vec::new(),
        }
    }

    /// The message has come to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The peer says nothing more; true where that is the end of the body.
    pub(crate) fn close(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// What `data` begins with. It is taken as used: the next call is with what is behind it.
    ///
    /// # Errors
    /// Chunks that are none; the body has no known end then.
    pub(crate) fn next(&mut self, data: &[u8]) -> Result<Piece, BadChunk> {
        match self.state {
            State::Done => Ok(Piece::Frame(0)),
            State::UntilClose => Ok(Piece::Content(data.len())),
            State::Sized(rest) => {
                let (count, left) = take(rest, data.len());
                self.state = if left == 0 {
                    State::Done
                } else {
                    State::Sized(left)
                };
                Ok(Piece::Content(count))
            }
            State::Chunked(Chunk::Data(rest)) => {
                let (count, left) = take(rest, data.len());
                self.state = State::Chunked(match left {
                    0 => Chunk::DataCr,
                    left => Chunk::Data(left),
                });
                Ok(Piece::Content(count))
            }
            State::Chunked(mut chunk) => {
                for (at, byte) in data.iter().enumerate() {
                    chunk = self.step(chunk, *byte)?;
                    self.state = State::Chunked(chunk);
                    match chunk {
                        Chunk::Data(_) => return Ok(Piece::Frame(at + 1)),
                        Chunk::Trailers if self.has_ended() => {
                            self.state = State::Done;
                            return Ok(Piece::Frame(at + 1));
                        }
                        _ => {}
                    }
                }
                Ok(Piece::Frame(data.len()))
            }
        }
    }

    fn step(&mut self, chunk: Chunk, byte: u8) -> Result<Chunk, BadChunk> {
        match (chunk, byte) {
            (Chunk::Start, byte) => Ok(Chunk::Size(digit(byte)?)),
            (Chunk::Size(size), b'\r') => Ok(Chunk::SizeLf(size)),
            (Chunk::Size(size), b';') => Ok(Chunk::Extension(size)),
            (Chunk::Size(size), byte) => {
                // What does not fit into 60 bits is no size.
                if size >> 56 != 0 {
                    return Err(BadChunk);
                }
                Ok(Chunk::Size((size << 4) | digit(byte)?))
            }
            (Chunk::Extension(size), byte) if is_token(byte) => Ok(Chunk::ExtensionRest(size)),
            (Chunk::ExtensionRest(size), b'\r') => Ok(Chunk::SizeLf(size)),
            (Chunk::ExtensionRest(size), byte) if is_text(byte) => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS_MAX {
                    return Err(BadChunk);
                }
                Ok(Chunk::ExtensionRest(size))
            }
            (Chunk::SizeLf(0), b'\n') => Ok(Chunk::Trailers),
            (Chunk::SizeLf(size), b'\n') => Ok(Chunk::Data(size)),
            (Chunk::DataCr, b'\r') => Ok(Chunk::DataLf),
            (Chunk::DataLf, b'\n') => Ok(Chunk::Start),
            (Chunk::Trailers, byte) => {
                self.trailers.push(byte);
                let wrong = byte == b'\n' && !self.trailers.ends_with(b"\r\n");
                if wrong || self.trailers.len() > TRAILERS_MAX {
                    return Err(BadChunk);
                }
                Ok(Chunk::Trailers)
            }
            _ => Err(BadChunk),
        }
    }

    fn has_ended(&self) -> bool {
        self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n")
    }
}

fn digit(byte: u8) -> Result<u64, BadChunk> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(BadChunk)
}

/// How much of `rest` is there, and how much is to come.
fn take(rest: u64, there: usize) -> (usize, u64) {
    let count = usize::try_from(rest).map_or(there, |rest| rest.min(there));
    (count, rest - count as u64)
}

/// Writes the line that begins a chunk of `length` bytes.
pub(crate) fn write_chunk_size(out: &mut Vec<u8>, length: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut shift = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1) * 4;
    while shift > 0 {
        shift -= 4;
        out.extend(DIGITS.get((length >> shift) & 0xf));
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Buffers;
    use crate::http1::head::{self, HeadLimits};

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1000,
        lines: 10,
    };

    fn request(version: &str, lines: &str) -> Result<Framing, &'static str> {
        let text = format!("POST / HTTP/{version}\r\n{lines}\r\n");
        let head = head::request(text.as_bytes(), LIMITS, &Buffers::default());
        of_request(&head.expect("a head"))
    }

    #[test]
    fn a_request_is_framed_in_one_way() {
        assert_eq!(request("1.1", ""), Ok(Framing::Empty));
        assert_eq!(
            request("1.1", "Content-Length: 5\r\n"),
            Ok(Framing::Length(5))
        );
        assert_eq!(
            request("1.0", "Content-Length: 05\r\n"),
            Ok(Framing::Length(5))
        );
        assert_eq!(
            request("1.1", "Transfer-Encoding: CHUNKED\r\n"),
            Ok(Framing::Chunked)
        );
        for (version, lines) in [
            ("1.0", "Transfer-Encoding: chunked\r\n"),
            ("1.1", "Transfer-Encoding: gzip, chunked\r\n"),
            ("1.1", "Transfer-Encoding: chunked, chunked\r\n"),
            ("1.1", "Transfer-Encoding: ,chunked\r\n"),
            ("1.1", "Transfer-Encoding: identity\r\n"),
            ("1.1", "Transfer-Encoding:\r\n"),
            (
                "1.1",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            ),
            ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            ("1.1", "Content-Length: 5\r\nContent-Length: 5\r\n"),
            ("1.1", "Content-Length: 5, 5\r\n"),
            ("1.1", "Content-Length: +5\r\n"),
            ("1.1", "Content-Length: 0x5\r\n"),
            ("1.1", "Content-Length:\r\n"),
            ("1.1", "Content-Length: 9223372036854775808\r\n"),
        ] {
            assert!(request(version, lines).is_err(), "{lines}");
        }
    }

    #[test]
    fn a_response_is_framed_by_its_request_its_status_and_its_fields() {
        let framing = |method: Method, start: &str, lines: &str| {
            let text = format!("HTTP/{start} x\r\n{lines}\r\n");
            let head = head::response(text.as_bytes(), LIMITS, &Buffers::default());
            of_response(&head.expect("a head"), &method)
        };
        let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
        let both = format!("{length}{chunked}");
        for (method, start, lines, expected) in [
            (Method::GET, "1.1 200", length, Framing::Length(5)),
            (Method::GET, "1.1 200", chunked, Framing::Chunked),
            (Method::GET, "1.1 200", &both, Framing::Chunked),
            (Method::GET, "1.1 200", "", Framing::UntilClose),
            (Method::GET, "1.0 200", "", Framing::UntilClose),
            (Method::HEAD, "1.1 200", length, Framing::Empty),
            (Method::HEAD, "1.1 200", chunked, Framing::Empty),
            (Method::GET, "1.1 204", "", Framing::Empty),
            (Method::GET, "1.1 304", length, Framing::Empty),
            (Method::GET, "1.1 103", "", Framing::Empty),
        ] {
            assert_eq!(
                framing(method, start, lines),
                Ok(expected),
                "{start} {lines}"
            );
        }
        assert!(framing(Method::GET, "1.0 200", chunked).is_err());
        assert!(
            framing(
                Method::GET,
                "1.1 200",
                "Content-Length: 5\r\nContent-Length: 6\r\n"
            )
            .is_err()
        );
    }

    /// Content, trailers, what is left, and whether it has ended.
    type Decoded = (Vec<u8>, Vec<u8>, Vec<u8>, bool);

    /// What comes of these bytes, fed in pieces that end at these places.
    fn decode(data: &[u8], cuts: &[usize]) -> Result<Decoded, BadChunk> {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut content = Vec::new();
        let mut from = 0;
        for end in cuts.iter().copied().chain([data.len()]) {
            while from < end && !decoder.is_done() {
                match decoder.next(&data[from..end])? {
                    Piece::Frame(count) => from += count,
                    Piece::Content(count) => {
                        content.extend_from_slice(&data[from..from + count]);
                        from += count;
                    }
                }
            }
        }
        let rest = data[from..].to_vec();
        Ok((content, decoder.trailers.clone(), rest, decoder.is_done()))
    }

    #[test]
    fn chunks_are_decoded_however_they_are_split() {
        for (data, content, trailers, rest, done) in [
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", "\r\n", "GET", true),
            (
                "2;a=\"b\";c\r\nhe\r\n0003\r\nllo\r\n000\r\n\r\n",
                "hello",
                "\r\n",
                "",
                true,
            ),
            (
                "A\r\n0123456789\r\n0\r\nX: y\r\n\r\n!",
                "0123456789",
                "X: y\r\n\r\n",
                "!",
                true,
            ),
            ("5\r\nhello\r\n0\r\n", "hello", "", "", false),
            ("5\r\nhel", "hel", "", "", false),
        ] {
            let expected = Ok((content.into(), trailers.into(), rest.into(), done));
            let data = data.as_bytes();
            for first in 0..=data.len() {
                for second in first..=data.len() {
                    assert_eq!(decode(data, &[first, second]), expected, "{first} {second}");
                }
            }
            let every: Vec<usize> = (0..data.len()).collect();
            assert_eq!(decode(data, &every), expected);
        }
    }

    #[test]
    fn chunks_that_are_none_are_refused_however_they_are_split() {
        for data in [
            "+5\r\nhello\r\n0\r\n\r\n",
            "-1\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5 ;a\r\nhello\r\n",
            "5;\r\nhello\r\n",
            "5;a\nhello\r\n",
            "5;a\0\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "\r\nhello\r\n",
            "g\r\n",
            "ffffffffffffffff\r\n",
            "5\r\nhelloworld\r\n0\r\n\r\n",
            "5\nhello\n0\n\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "5\rhello\r\n",
            "0\r\nX: y\n\r\n",
        ] {
            let data = data.as_bytes();
            for cut in 0..=data.len() {
                assert_eq!(decode(data, &[cut]), Err(BadChunk), "{data:?} {cut}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_limited() {
        let long = "a".repeat(EXTENSIONS_MAX + 2);
        for data in [format!("1;{long}\r\n"), format!("0\r\nX: {long}\r\n\r\n")] {
            assert_eq!(decode(data.as_bytes(), &[]), Err(BadChunk));
        }
    }

    #[test]
    fn sizes_are_written_in_hex() {
        for (length, text) in [
            (0, "0\r\n"),
            (10, "a\r\n"),
            (0x12f, "12f\r\n"),
            (0x8000, "8000\r\n"),
        ] {
            let mut out = Vec::new();
            write_chunk_size(&mut out, length);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
