//! Response heads on their way to a client.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};

use crate::headers::Persistence;
use crate::http1::fields::write_line;
use crate::http1::{Name, RequestHead, Version};

/// What a request says about the answer to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// The client would go on with the connection.
    pub(crate) keeps: bool,
    /// The client knows what to do with trailers.
    pub(crate) trailers: bool,
}

impl Terms {
    /// For an answer to what was no request.
    pub(crate) const NONE: Terms = Terms {
        version: Version::Http11,
        is_head: false,
        keeps: false,
        trailers: false,
    };

    pub(crate) fn of(head: &RequestHead) -> Terms {
        let said = Persistence::of(&head.fields);
        let mut codings = head.fields.elements(Name::Te);
        Terms {
            version: head.version,
            is_head: head.method == Method::HEAD,
            keeps: match head.version {
                Version::Http11 => !said.close,
                Version::Http10 => said.keep_alive && !said.close,
            },
            trailers: codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
        }
    }

    /// Says what becomes of the connection where that is not what the client expects of its version.
    pub(crate) fn write_connection(self, out: &mut Vec<u8>, keeps: bool) {
        match (self.version, keeps) {
            (Version::Http11, true) => {}
            (_, false) => write_line(out, b"connection", b"close"),
            (Version::Http10, true) => write_line(out, b"connection", b"keep-alive"),
        }
    }
}

/// Writes the status line, in the client's version; the usual words where there are no `reason`s of the backend's own.
pub(crate) fn write_status(
    out: &mut Vec<u8>,
    terms: Terms,
    status: StatusCode,
    reason: Option<&[u8]>,
) {
    out.extend_from_slice(match terms.version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let usual = || status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(reason.unwrap_or_else(usual));
    out.extend_from_slice(b"\r\n");
}

/// The date of this second, written once in it.
#[derive(Debug, Default)]
pub(crate) struct DateCache(RefCell<(u64, String)>);

impl DateCache {
    /// As in a `Date` field, for what a backend has not dated (RFC 9110, 6.6.1).
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&str) -> T) -> T {
        let now = SystemTime::now();
        let second = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut cached = self.0.borrow_mut();
        let (of, text) = &mut *cached;
        if *of != second || text.is_empty() {
            *of = second;
            text.clear();
            text.push_str(&httpdate::fmt_http_date(now));
        }
        use_it(text)
    }
}

/// Writes a `Content-Length`.
pub(crate) fn write_length(out: &mut Vec<u8>, length: u64) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "content-length: {length}\r\n");
}
