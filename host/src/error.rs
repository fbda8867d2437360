//! What a client is told when there is no response to pass on: one table from cause to status.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::body::ResponseBody;
use crate::body::UploadFault;
use crate::connection::ExchangeGuard;
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
    fn closes(self) -> bool {
        matches!(
            self,
            ProxyError::BadRequest(_)
                | ProxyError::TargetTooLong
                | ProxyError::Method
                | ProxyError::Upload(_)
        )
    }

    pub(crate) fn response(self, exchange: ExchangeGuard) -> Response<ResponseBody> {
        let (status, words) = self.answer();
        let text = match words {
            "" => Bytes::new(),
            words => Bytes::from(format!("{} {words}\n", status.as_u16())),
        };
        let has_text = !text.is_empty();
        let mut response = Response::new(ResponseBody::own(text, exchange));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if has_text {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from_static(RETRY_AFTER_SECONDS),
            );
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
