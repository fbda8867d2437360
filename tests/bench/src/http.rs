//! As much HTTP/1.1 as it takes to see where a message ends and whether it is the one that was wanted.

use std::borrow::Cow;

/// What a response has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// What is wrong with a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    NotHttp,
    HeadTooLong,
    Status(u16),
    NoLength,
    Length(u64),
    Content,
    Surplus,
}

/// Longer than any head that anybody here sends.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Takes a response as it arrives, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct ResponseReader {
    head: Vec<u8>,
    /// The last head that was right. Most are the same as the one before, and need no second look.
    known: Vec<u8>,
    body_left: Option<usize>,
    closes: bool,
}

impl ResponseReader {
    /// Takes the next bytes. Returns whether the response is complete; the reader is ready for the next one then.
    pub(crate) fn take(&mut self, bytes: &[u8], expected: &Expected<'_>) -> Result<bool, Fault> {
        let Some(left) = self.body_left else {
            return self.take_head(bytes, expected);
        };
        if bytes.len() > left {
            return Err(Fault::Surplus);
        }
        let begin = expected.body.len() - left;
        if expected.body.get(begin..begin + bytes.len()) != Some(bytes) {
            return Err(Fault::Content);
        }
        Ok(self.advance(bytes.len()))
    }

    /// How much of the body is to come, once the head is there.
    pub(crate) fn body_left(&self) -> Option<usize> {
        self.body_left
    }

    /// Passes over bytes of the body that nobody looked at. Returns whether the response is complete.
    pub(crate) fn skip(&mut self, bytes: usize) -> Result<bool, Fault> {
        if self.body_left.is_none_or(|left| bytes > left) {
            return Err(Fault::Surplus);
        }
        Ok(self.advance(bytes))
    }

    /// Whether the last response said that the connection ends with it.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    fn take_head(&mut self, bytes: &[u8], expected: &Expected<'_>) -> Result<bool, Fault> {
        let bytes = &*gathered(&mut self.head, bytes);
        if let Some(body) = after_known(bytes, &self.known) {
            self.body_left = Some(expected.body.len());
            return self.take(body, expected);
        }
        let Some(end) = head_end(bytes) else {
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(Fault::HeadTooLong);
            }
            self.head = bytes.to_vec();
            return Ok(false);
        };
        let (head, body) = bytes.split_at(end);
        self.known = head.to_vec();
        let head = ResponseHead::parse(head)?;
        if head.status != expected.status {
            return Err(Fault::Status(head.status));
        }
        if head.status != 101 {
            let length = head.length.ok_or(Fault::NoLength)?;
            if length != expected.body.len() as u64 {
                return Err(Fault::Length(length));
            }
        }
        self.closes = head.closes;
        self.body_left = Some(expected.body.len());
        self.take(body, expected)
    }

    fn advance(&mut self, bytes: usize) -> bool {
        let left = self.body_left.map_or(0, |left| left - bytes);
        self.body_left = (left > 0).then_some(left);
        left == 0
    }
}

struct ResponseHead {
    status: u16,
    length: Option<u64>,
    closes: bool,
}

impl ResponseHead {
    fn parse(head: &[u8]) -> Result<ResponseHead, Fault> {
        let status = head
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok())
            .ok_or(Fault::NotHttp)?;
        let length = field(head, b"content-length")
            .and_then(|value| str::from_utf8(value).ok()?.parse().ok());
        let closes =
            field(head, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        Ok(ResponseHead {
            status,
            length,
            closes,
        })
    }
}

/// Takes requests as they arrive; their bodies all have the same known length.
#[derive(Debug, Default)]
pub(crate) struct RequestReader {
    head: Vec<u8>,
    /// The last head.
    known: Vec<u8>,
    body_left: Option<usize>,
}

/// What has arrived.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Arrived {
    /// Not all of the request.
    Part,
    /// All of it.
    Whole,
}

impl RequestReader {
    /// Takes the next bytes; `inspect` gets to see the head once it is complete.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        body_length: usize,
        inspect: impl FnOnce(&[u8]),
    ) -> Result<Arrived, Fault> {
        let body = match self.body_left {
            Some(_) => bytes.len(),
            None => {
                let bytes = &*gathered(&mut self.head, bytes);
                let known = after_known(bytes, &self.known).map(|body| bytes.len() - body.len());
                let Some(end) = known.or_else(|| head_end(bytes)) else {
                    if bytes.len() > HEAD_BYTES_MAX {
                        return Err(Fault::HeadTooLong);
                    }
                    self.head = bytes.to_vec();
                    return Ok(Arrived::Part);
                };
                let (head, body) = bytes.split_at(end);
                inspect(head);
                if known.is_none() {
                    self.known = head.to_vec();
                }
                self.body_left = Some(body_length);
                body.len()
            }
        };
        let left = self.body_left.unwrap_or(0);
        let left = left.checked_sub(body).ok_or(Fault::Surplus)?;
        self.body_left = (left > 0).then_some(left);
        Ok(if left == 0 {
            Arrived::Whole
        } else {
            Arrived::Part
        })
    }
}

/// What has begun and what came behind it. Nearly always the whole head is in one piece, which is looked at where it is.
fn gathered<'b>(begun: &mut Vec<u8>, bytes: &'b [u8]) -> Cow<'b, [u8]> {
    if begun.is_empty() {
        return Cow::Borrowed(bytes);
    }
    begun.extend_from_slice(bytes);
    Cow::Owned(std::mem::take(begun))
}

/// What follows a head that is the same as one that has been looked at.
fn after_known<'a>(bytes: &'a [u8], known: &[u8]) -> Option<&'a [u8]> {
    bytes.strip_prefix(known).filter(|_| !known.is_empty())
}

/// Where the head ends that these bytes begin with, its empty line included.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    loop {
        let rest = bytes.get(line..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')? + 1;
        line += length;
        if length == 2 && rest.first() == Some(&b'\r') {
            return Some(line);
        }
    }
}

/// The value of the first field of that name, which is given in lower case.
pub(crate) fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (this, value) = line.split_at_checked(name.len())?;
        if !this.eq_ignore_ascii_case(name) {
            return None;
        }
        Some(value.strip_prefix(b":")?.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected<'static> = Expected {
        status: 200,
        body: b"hello",
    };
    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello";

    fn whole(bytes: &[u8]) -> Result<bool, Fault> {
        ResponseReader::default().take(bytes, &EXPECTED)
    }

    #[test]
    fn a_response_is_recognised_however_it_is_cut() {
        for cut in 1..GOOD.len() {
            let mut reader = ResponseReader::default();
            for _ in 0..2 {
                assert_eq!(reader.take(&GOOD[..cut], &EXPECTED), Ok(false), "{cut}");
                assert_eq!(reader.take(&GOOD[cut..], &EXPECTED), Ok(true), "{cut}");
            }
        }
        let mut reader = ResponseReader::default();
        for byte in &GOOD[..GOOD.len() - 1] {
            assert_eq!(reader.take(&[*byte], &EXPECTED), Ok(false));
        }
        assert_eq!(reader.take(b"o", &EXPECTED), Ok(true));
    }

    #[test]
    fn what_is_not_the_response_is_refused() {
        let rows: [(&[u8], Fault); 7] = [
            (
                b"HTTP/1.1 502 Bad\r\nContent-Length: 5\r\n\r\nhello",
                Fault::Status(502),
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
                Fault::Length(4),
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
                Fault::NoLength,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO",
                Fault::Content,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
                Fault::Surplus,
            ),
            (
                b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                Fault::NotHttp,
            ),
            (b"HTTP/1.1 two OK\r\n\r\n", Fault::NotHttp),
        ];
        for (bytes, fault) in rows {
            assert_eq!(
                whole(bytes),
                Err(fault),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert_eq!(whole(&[b'x'; HEAD_BYTES_MAX + 1]), Err(Fault::HeadTooLong));
    }

    #[test]
    fn bodies_that_are_passed_over_still_have_their_length() {
        let mut reader = ResponseReader::default();
        assert_eq!(reader.take(&GOOD[..GOOD.len() - 4], &EXPECTED), Ok(false));
        assert_eq!(reader.body_left(), Some(4));
        assert_eq!(reader.skip(3), Ok(false));
        assert_eq!(reader.skip(1), Ok(true));
        assert_eq!(reader.skip(1), Err(Fault::Surplus));
    }

    #[test]
    fn the_end_of_a_connection_is_announced() {
        let mut reader = ResponseReader::default();
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length:5\r\nconnection: Close\r\n\r\nhello";
        assert_eq!(reader.take(bytes, &EXPECTED), Ok(true));
        assert!(reader.closes());
    }

    #[test]
    fn a_switch_of_protocols_has_no_length() {
        let expected = Expected {
            status: 101,
            body: b"",
        };
        let bytes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(ResponseReader::default().take(bytes, &expected), Ok(true));
    }

    #[test]
    fn requests_end_with_their_bodies() {
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 1..request.len() {
            let mut reader = RequestReader::default();
            let mut host = None;
            let mut take = |bytes: &[u8]| {
                reader.take(bytes, 5, |head| {
                    host = field(head, b"host").map(<[u8]>::to_vec)
                })
            };
            assert_eq!(take(&request[..cut]), Ok(Arrived::Part), "{cut}");
            assert_eq!(take(&request[cut..]), Ok(Arrived::Whole), "{cut}");
            assert_eq!(host.as_deref(), Some(&b"a"[..]));
        }
        let mut reader = RequestReader::default();
        assert_eq!(reader.take(request, 4, |_| ()), Err(Fault::Surplus));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let head = b"GET / HTTP/1.1\r\nX-Host: a\r\nHOST:  b \r\nHostage: c\r\n\r\n";
        assert_eq!(field(head, b"host"), Some(&b"b"[..]));
        assert_eq!(field(head, b"via"), None);
    }
}
