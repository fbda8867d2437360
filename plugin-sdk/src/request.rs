//! The request that is being decided on, and the response that it gets.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{
    BackendId,
    abi::{self, Refusal},
    log,
};

/// The request that [`pick`](crate::Policy::pick) decides on, as the client sent it.
///
/// Every reader is a call to the host that copies what it returns, so read what is needed once. Edits are made when
/// `pick` returns; if it fails, none is made. Readers do not see edits.
///
/// The editing methods return whether the edit will be made. It is refused, with a warning in the log, if the field
/// is the host's business (framing, hop-by-hop and forwarding fields), if the name or the value is not what HTTP
/// allows, or if there are more than 64 edits or 16 KiB of them in one call.
#[derive(Debug)]
pub struct Request {
    attempt: Rc<Attempt>,
    response: Response,
}

impl Request {
    pub(crate) fn new(attempt: Rc<Attempt>) -> Self {
        Request {
            attempt,
            response: Response::new(),
        }
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> String {
        abi::method()
    }

    /// `http` or `https`: how the client spoke to the proxy.
    pub fn scheme(&self) -> String {
        abi::scheme()
    }

    /// Host and port as the client named them, such as `example.com:8080`.
    pub fn authority(&self) -> String {
        abi::authority()
    }

    /// Path and query, byte for byte, such as `/search?q=rust`.
    pub fn target(&self) -> String {
        abi::target()
    }

    /// The target up to the `?`, not decoded.
    pub fn path(&self) -> String {
        let mut target = abi::target();
        if let Some(end) = target.find('?') {
            target.truncate(end);
        }
        target
    }

    /// The target after the `?`, not decoded; `None` if there is no `?`.
    pub fn query(&self) -> Option<String> {
        let target = abi::target();
        target.split_once('?').map(|(_, query)| query.to_owned())
    }

    /// The value of the first field line of that name, in any case, or `None` if there is none.
    ///
    /// Bytes that are not UTF-8 become U+FFFD, so that a field that is there never looks absent;
    /// [`header_bytes`](Self::header_bytes) has them as they are.
    pub fn header(&self, name: &str) -> Option<String> {
        abi::header(Head::Request, name).map(text)
    }

    /// The value of the first field line of that name, in any case, byte for byte.
    pub fn header_bytes(&self, name: &str) -> Option<Vec<u8>> {
        abi::header(Head::Request, name)
    }

    /// All field lines in their order, names in lower case. Much dearer than asking for one or two by name.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        abi::headers(Head::Request)
    }

    /// The value of the cookie of that name, without the quotes around it if it has any; `None` if there is none.
    pub fn cookie(&self, name: &str) -> Option<String> {
        cookie(&self.header("cookie")?, name).map(str::to_owned)
    }

    /// The client's address without port: the peer of the connection, or what a trusted proxy says it was.
    pub fn client_address(&self) -> String {
        abi::client_address()
    }

    /// The number of this pick among all picks of the upstream, over all shards: no two picks have the same, and none
    /// is left out. Counts from 0 and goes on when a policy is replaced. What takes turns by it is exact over all
    /// shards without any of them waiting for another.
    ///
    /// It is for a policy that decides every request by it. Where only some of the requests take turns, the numbers
    /// they see have gaps, and a [`Counter`](crate::Counter) of their own is what keeps their turns even.
    pub fn ticket(&self) -> u64 {
        self.attempt.ticket.get()
    }

    /// 0 for the first pick of a request, 1 for the pick after one failed attempt, and so on.
    pub fn attempt(&self) -> u32 {
        self.attempt.number()
    }

    /// The backends that were tried for this request and failed, which must not be picked again. Empty, and no host
    /// call, on the first attempt.
    pub fn tried(&self) -> Vec<BackendId> {
        if self.attempt.number() == 0 {
            Vec::new()
        } else {
            self.attempt.tried.borrow().clone()
        }
    }

    /// Whether this backend was tried for this request and failed. No host call on the first attempt.
    pub fn was_tried(&self, backend: BackendId) -> bool {
        self.attempt.was_tried(backend)
    }

    /// Replaces all field lines of that name by one. Returns whether the edit will be made.
    pub fn set_header(&self, name: &str, value: impl AsRef<[u8]>) -> bool {
        edit(Head::Request, Edit::Set, name, value.as_ref())
    }

    /// Adds a field line after those there are. Returns whether the edit will be made.
    pub fn append_header(&self, name: &str, value: impl AsRef<[u8]>) -> bool {
        edit(Head::Request, Edit::Append, name, value.as_ref())
    }

    /// Removes all field lines of that name, if there are any. Returns whether the edit will be made.
    pub fn remove_header(&self, name: &str) -> bool {
        edit(Head::Request, Edit::Remove, name, &[])
    }

    /// The response that will come, for edits that can be decided on now. It cannot be read yet: its status is 0 and
    /// it has no fields.
    pub fn response(&self) -> &Response {
        &self.response
    }
}

/// The response to a request: in [`respond`](crate::Policy::respond) the one that came, in
/// [`Request::response`] the one that will.
///
/// Edits work as those of a [`Request`].
#[derive(Debug)]
pub struct Response {
    _made_here: (),
}

impl Response {
    pub(crate) fn new() -> Self {
        Response { _made_here: () }
    }

    /// The status, such as 200; 0 before there is a response.
    pub fn status(&self) -> u16 {
        abi::status()
    }

    /// The value of the first field line of that name, in any case, or `None` if there is none. Bytes that are not
    /// UTF-8 become U+FFFD.
    pub fn header(&self, name: &str) -> Option<String> {
        abi::header(Head::Response, name).map(text)
    }

    /// The value of the first field line of that name, in any case, byte for byte.
    pub fn header_bytes(&self, name: &str) -> Option<Vec<u8>> {
        abi::header(Head::Response, name)
    }

    /// All field lines in their order, names in lower case.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        abi::headers(Head::Response)
    }

    /// Replaces all field lines of that name by one. Returns whether the edit will be made.
    pub fn set_header(&self, name: &str, value: impl AsRef<[u8]>) -> bool {
        edit(Head::Response, Edit::Set, name, value.as_ref())
    }

    /// Adds a field line after those there are. Returns whether the edit will be made.
    pub fn append_header(&self, name: &str, value: impl AsRef<[u8]>) -> bool {
        edit(Head::Response, Edit::Append, name, value.as_ref())
    }

    /// Removes all field lines of that name, if there are any. Returns whether the edit will be made.
    pub fn remove_header(&self, name: &str) -> bool {
        edit(Head::Response, Edit::Remove, name, &[])
    }
}

/// Which of the two heads an edit is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(
    target_arch = "wasm32",
    allow(unreachable_pub, reason = "public in `testing`, which is native only")
)]
pub enum Head {
    /// That of the request, before it goes to the backend.
    Request,
    /// That of the response, before it goes to the client.
    Response,
}

/// What an edit does with a field.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(
    target_arch = "wasm32",
    allow(unreachable_pub, reason = "public in `testing`, which is native only")
)]
pub enum Edit {
    /// Replaces all lines of that name by one.
    Set,
    /// Adds a line after those there are.
    Append,
    /// Removes all lines of that name.
    Remove,
}

/// Which attempt at the current request this is; shared by [`Request`] and [`Backends`](crate::Backends). Outside of
/// `pick` it is the first one.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    number: Cell<u32>,
    ticket: Cell<u64>,
    /// Filled where `number` is above 0, stale otherwise.
    tried: RefCell<Vec<BackendId>>,
}

impl Attempt {
    /// A pick begins. Only a retry costs a call to the host.
    pub(crate) fn begin(&self, number: u32, ticket: u64) {
        self.number.set(number);
        self.ticket.set(ticket);
        if number > 0 {
            self.tried
                .replace(abi::tried().into_iter().map(BackendId::new).collect());
        }
    }

    /// No request is being decided on any more.
    pub(crate) fn end(&self) {
        self.number.set(0);
    }

    pub(crate) fn number(&self) -> u32 {
        self.number.get()
    }

    pub(crate) fn was_tried(&self, backend: BackendId) -> bool {
        self.number() > 0 && self.tried.borrow().contains(&backend)
    }
}

fn edit(head: Head, edit: Edit, name: &str, value: &[u8]) -> bool {
    let Err(refusal) = abi::edit(head, edit, name, value) else {
        return true;
    };
    let why = match refusal {
        Refusal::Forbidden => "the field is the host's business",
        Refusal::InvalidName => "not a field name",
        Refusal::InvalidValue => "bytes that a field value may not hold",
        Refusal::TooMany => "too many edits in one call",
    };
    log::warn(format!("edit of header field {name:?} refused: {why}"));
    false
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Finds a cookie in the value of a `cookie` field (RFC 6265, 4.2.1), lenient about spaces.
fn cookie<'a>(field: &'a str, name: &str) -> Option<&'a str> {
    field.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        if key.trim() != name {
            return None;
        }
        let value = value.trim();
        Some(
            value
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .unwrap_or(value),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cookies() {
        for (field, name, expected) in [
            ("sid=a", "sid", Some("a")),
            ("x=1; sid=a; y=2", "sid", Some("a")),
            ("x=1;sid=a", "sid", Some("a")),
            ("sid=\"a b\"", "sid", Some("a b")),
            ("sid=\"", "sid", Some("\"")),
            ("sid=", "sid", Some("")),
            ("sid=a=b", "sid", Some("a=b")),
            ("sid=first; sid=second", "sid", Some("first")),
            ("xsid=a", "sid", None),
            ("SID=a", "sid", None),
            ("sid", "sid", None),
            ("", "sid", None),
        ] {
            assert_eq!(cookie(field, name), expected, "{field}");
        }
    }

    #[test]
    fn keeps_a_value_that_is_not_utf8_visible() {
        assert_eq!(text(b"caf\xe9".to_vec()), "caf\u{fffd}");
        assert_eq!(text("café".into()), "café");
    }
}
