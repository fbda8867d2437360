//! What a client is told when there is no response to pass on: one table from cause to status.

use std::io::Write as _;

use http::StatusCode;

use crate::answer::{self, Terms};
use crate::body::UploadFault;
use crate::http1::fields::write_line;
use crate::upstream::Failure;

/// Seconds after which a client may try again where nothing better is known.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why a request was not answered by a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ProxyError {
    /// The request itself is wrong; says how.
    BadRequest(&'static str),
    /// The request target is over its limit.
    TargetTooLong,
    /// A method that a gateway does not forward.
    Method,
    /// The request's head is over its limits.
    HeadTooLarge,
    /// The request's head did not come in time.
    HeadTimeout,
    /// The client has left; there is nobody to tell.
    ClientGone,
    /// The request has passed us before.
    Loop,
    /// No route is configured for this host and path.
    NoRoute,
    /// The policy, or the rotation in its place, had no backend to offer.
    Unavailable,
    /// The policy answered by itself.
    Answered(StatusCode),
    /// The client's body could not be forwarded.
    Upload(UploadFault),
    /// The last attempt on a backend failed.
    Backend(Failure),
}

impl ProxyError {
    /// RFC 9110, 15: the status, and the words for a person who meets it.
    fn answer(self) -> (StatusCode, &'static str) {
        match self {
            ProxyError::BadRequest(reason) => (StatusCode::BAD_REQUEST, reason),
            ProxyError::TargetTooLong => {
                (StatusCode::URI_TOO_LONG, "the request target is too long")
            }
            ProxyError::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the request head is too large",
            ),
            ProxyError::HeadTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "the request head took too long",
            ),
            ProxyError::ClientGone => (StatusCode::BAD_REQUEST, "the client left"),
            ProxyError::Method => (StatusCode::NOT_IMPLEMENTED, "this method is not forwarded"),
            ProxyError::Loop => (
                StatusCode::LOOP_DETECTED,
                "this request has been here before",
            ),
            ProxyError::NoRoute => (StatusCode::NOT_FOUND, "no route for this host and path"),
            ProxyError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "no backend is available"),
            ProxyError::Answered(status) => (status, ""),
            ProxyError::Upload(UploadFault::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request body is too large",
            ),
            ProxyError::Upload(UploadFault::Timeout) => (
                StatusCode::REQUEST_TIMEOUT,
                "the request body took too long",
            ),
            ProxyError::Upload(UploadFault::Broken) => {
                (StatusCode::BAD_REQUEST, "the request body broke off")
            }
            ProxyError::Backend(Failure::Timeout) => {
                (StatusCode::GATEWAY_TIMEOUT, "the backend took too long")
            }
            ProxyError::Backend(Failure::Connect) => {
                (StatusCode::BAD_GATEWAY, "no connection to the backend")
            }
            ProxyError::Backend(Failure::Reset) => {
                (StatusCode::BAD_GATEWAY, "the backend closed the connection")
            }
            ProxyError::Backend(Failure::Protocol | Failure::ClientGone) => (
                StatusCode::BAD_GATEWAY,
                "the backend's answer was not understood",
            ),
        }
    }

    /// Whether the connection cannot be trusted to carry another request.
    pub(crate) fn closes(self) -> bool {
        matches!(
            self,
            ProxyError::BadRequest(_)
                | ProxyError::TargetTooLong
                | ProxyError::HeadTooLarge
                | ProxyError::HeadTimeout
                | ProxyError::ClientGone
                | ProxyError::Method
                | ProxyError::Upload(_)
        )
    }

    /// Writes the whole answer.
    pub(crate) fn write_to(self, out: &mut Vec<u8>, terms: Terms, keeps: bool, date: &str) {
        let (status, words) = self.answer();
        answer::write_status(out, terms, status, None);
        let mut text = Vec::new();
        if !words.is_empty() {
            // Writing to a vector cannot fail.
            let _ = writeln!(text, "{} {words}", status.as_u16());
            write_line(out, b"content-type", b"text/plain; charset=utf-8");
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            write_line(out, b"retry-after", RETRY_AFTER_SECONDS.as_bytes());
        }
        if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
            write_line(out, b"content-length", text.len().to_string().as_bytes());
        } else {
            text.clear();
        }
        write_line(out, b"date", date.as_bytes());
        terms.write_connection(out, keeps);
        out.extend_from_slice(b"\r\n");
        if !terms.is_head {
            out.extend_from_slice(&text);
        }
    }
}
