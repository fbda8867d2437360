//! What is sent through a proxy: how many connections, and the bytes of one exchange.

use crate::http::Expected;

/// From here on nobody compares the bytes of a body, only its length: reading them would be most of the work.
pub(crate) const COMPARED_BYTES_MAX: usize = 64 * 1024;

/// All there is to know about the load.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Connections that carry requests.
    pub(crate) connections: usize,
    /// Connections that have carried one and stay open.
    pub(crate) idle: usize,
    /// Requests a second, sent when they are due; absent: each as soon as the one before is answered.
    pub(crate) rate: Option<f64>,
    /// Whether a connection carries more than one request.
    pub(crate) reuse: bool,
    pub(crate) exchange: Exchange,
    /// Fields that have to arrive at the origin, in lower case.
    pub(crate) required: Vec<&'static str>,
}

/// The bytes of one request and of its response.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    pub(crate) request_body: usize,
    pub(crate) response: Vec<u8>,
    pub(crate) response_body: usize,
    pub(crate) status: u16,
    /// What goes back and forth once the connection has been switched to another protocol.
    pub(crate) message: Option<Vec<u8>>,
}

impl Exchange {
    /// A request with so much of a body, and a response with so much.
    pub(crate) fn http(request_body: usize, response_body: usize, reuse: bool) -> Exchange {
        let method = if request_body == 0 { "GET" } else { "POST" };
        let mut request = format!("{method} /bench HTTP/1.1\r\n{REQUEST_FIELDS}");
        if request_body > 0 {
            request += &format!("Content-Length: {request_body}\r\n");
        }
        if !reuse {
            request += "Connection: close\r\n";
        }
        request += "\r\n";
        let mut response = format!("HTTP/1.1 200 OK\r\n{RESPONSE_FIELDS}").into_bytes();
        response.extend(format!("Content-Length: {response_body}\r\n\r\n").bytes());
        response.extend(pattern(response_body));
        Exchange {
            request: request.bytes().chain(pattern(request_body)).collect(),
            request_body,
            response,
            response_body,
            status: 200,
            message: None,
        }
    }

    /// A WebSocket connection over which messages of so many bytes are echoed.
    pub(crate) fn web_socket(message: usize) -> Exchange {
        let request = format!(
            "GET /echo HTTP/1.1\r\n{REQUEST_FIELDS}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        // The answer to that key is the one in RFC 6455, 1.3.
        let response = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        Exchange {
            request: request.into_bytes(),
            request_body: 0,
            response: response.as_bytes().to_vec(),
            response_body: 0,
            status: 101,
            message: Some(pattern(message).collect()),
        }
    }

    /// What a client has to get.
    pub(crate) fn expected(&self) -> Expected<'_> {
        let begin = self.response.len() - self.response_body;
        Expected {
            status: self.status,
            body: self.response.get(begin..).unwrap_or_default(),
        }
    }
}

const REQUEST_FIELDS: &str = "Host: bench.example\r\n\
     User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
     Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: en-GB,en;q=0.5\r\n\
     X-Tenant: blue\r\nX-Plan: gold\r\n";
const RESPONSE_FIELDS: &str = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n\
     Cache-Control: no-store\r\nX-Request-Cost: 17\r\n";

/// Bytes among which a piece that is missing or repeated shows.
fn pattern(length: usize) -> impl Iterator<Item = u8> {
    (0..length).map(|position| b'a' + ((position ^ (position >> 8)) % 23) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Arrived, RequestReader, ResponseReader, field};

    #[test]
    fn the_two_sides_understand_one_another() {
        for (request, response) in [(0, 0), (0, 1024), (64 * 1024, 10)] {
            let exchange = Exchange::http(request, response, true);
            let mut reader = RequestReader::default();
            let mut host = false;
            let arrived = reader.take(&exchange.request, exchange.request_body, |head| {
                host = field(head, b"host") == Some(&b"bench.example"[..]);
            });
            assert_eq!(arrived, Ok(Arrived::Whole));
            assert!(host);
            let mut reader = ResponseReader::default();
            assert_eq!(
                reader.take(&exchange.response, &exchange.expected()),
                Ok(true)
            );
        }
        let switch = Exchange::web_socket(100);
        let mut reader = ResponseReader::default();
        assert_eq!(reader.take(&switch.response, &switch.expected()), Ok(true));
    }
}
