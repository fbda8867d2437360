//! Header fields: what is taken off, what is put on, and what a policy may change. Pure functions over a head.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::Forwarded;
use crate::policy::Edit;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that concern one connection only (RFC 9110, 7.6.1 and 11.7), but for `Connection` itself.
const HOP_BY_HOP: [HeaderName; 8] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HTTP2_SETTINGS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Fields that `Connection` cannot name away: without them a message would be framed or routed differently.
const NEVER_NOMINATED: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::COOKIE,
    header::AUTHORIZATION,
];

/// Fields that no policy may touch, beside [`HOP_BY_HOP`] and [`FORWARDED`].
const FRAMING: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TRAILER,
    header::VIA,
];

/// Fields by which we say where a request came from.
const FORWARDED: [HeaderName; 5] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    X_REAL_IP,
    header::FORWARDED,
];

/// What we call ourselves in `Via` (RFC 9110, 7.6.3).
const PSEUDONYM: &str = "waypost";

/// Removes the fields that concern one connection only: those of the RFC and those that `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !NEVER_NOMINATED.contains(name))
        .collect()
}

/// Whether the body's coding is one that we take off and put on again: none, or `chunked` once (RFC 9112, 6.1).
/// Anything else could only be passed on by guessing where the body ends.
pub(crate) fn has_known_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// The one upgrade that a request asks for, in lower case; `None` where it asks for none, or for several.
pub(crate) fn requested_upgrade(headers: &HeaderMap) -> Option<String> {
    let nominated = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let mut values = headers.get_all(header::UPGRADE).iter();
    let (Some(value), None, true) = (values.next(), values.next(), nominated) else {
        return None;
    };
    let token = value.to_str().ok()?.trim();
    (!token.is_empty() && !token.contains(',')).then(|| token.to_ascii_lowercase())
}

/// Who sent a request, as far as we know.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// The address as a field value, made once per connection.
    value: HeaderValue,
    /// The peer is one whose own forwarding fields are believed.
    trusted: bool,
}

impl Client {
    pub(crate) fn new(address: IpAddr, trusted: bool) -> Client {
        let address = address.to_canonical();
        // An address is printed in characters that a field value may hold.
        let value = HeaderValue::from_str(&address.to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        Client {
            address,
            value,
            trusted,
        }
    }

    /// Where the request began: the peer, or the nearest address in `X-Forwarded-For` that is not a trusted proxy's.
    pub(crate) fn origin(&self, headers: &HeaderMap, forwarded: &Forwarded) -> IpAddr {
        let mut origin = self.address;
        if !self.trusted {
            return origin;
        }
        let lines = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .rev()
            .filter_map(|value| value.to_str().ok());
        for hop in lines.flat_map(|value| value.rsplit(',')) {
            let Ok(address) = hop.trim().parse::<IpAddr>() else {
                break;
            };
            origin = address.to_canonical();
            if !forwarded.trusts(origin) {
                break;
            }
        }
        origin
    }
}

/// Says where the request came from: `X-Forwarded-*`, `X-Real-IP`, `Via`. What an untrusted client says is replaced.
pub(crate) fn add_forwarded(
    headers: &mut HeaderMap,
    client: &Client,
    authority: Option<&HeaderValue>,
    version: http::Version,
) {
    if client.trusted {
        let chain = joined(headers, &X_FORWARDED_FOR, &client.value);
        headers.insert(X_FORWARDED_FOR, chain);
        headers
            .entry(X_FORWARDED_PROTO)
            .or_insert(HeaderValue::from_static("http"));
        if let Some(authority) = authority {
            headers
                .entry(X_FORWARDED_HOST)
                .or_insert_with(|| authority.clone());
        }
        headers
            .entry(X_REAL_IP)
            .or_insert_with(|| client.value.clone());
    } else {
        headers.remove(header::FORWARDED);
        headers.insert(X_FORWARDED_FOR, client.value.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        // Only an HTTP/1.0 client may name no host.
        match authority {
            Some(authority) => headers.insert(X_FORWARDED_HOST, authority.clone()),
            None => headers.remove(X_FORWARDED_HOST),
        };
        headers.insert(X_REAL_IP, client.value.clone());
    }
    let via = match version {
        http::Version::HTTP_10 => HeaderValue::from_static("1.0 waypost"),
        _ => HeaderValue::from_static("1.1 waypost"),
    };
    headers.append(header::VIA, via);
}

/// All values of a field and one more, as one list.
fn joined(headers: &HeaderMap, name: &HeaderName, last: &HeaderValue) -> HeaderValue {
    let values: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .chain([last])
        .map(HeaderValue::as_bytes)
        .collect();
    // Every part is a valid value, and so is their list.
    HeaderValue::from_bytes(&values.join(&b", "[..])).unwrap_or_else(|_| last.clone())
}

/// How often this request has passed us already (RFC 9110, 7.6.3).
pub(crate) fn passes(headers: &HeaderMap) -> usize {
    headers
        .get_all(header::VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|hop| hop.split_whitespace().nth(1) == Some(PSEUDONYM))
        .count()
}

// === edits by a policy ===

/// Why a policy may not make an edit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EditRefused {
    Forbidden,
    InvalidName,
    InvalidValue,
}

/// An edit that replaces all lines of a name by one.
pub(crate) fn set(name: &str, value: &[u8]) -> Result<Edit, EditRefused> {
    let name = editable(name)?;
    let value = field_value(value)?;
    if name == header::HOST && !is_authority(&value) {
        return Err(EditRefused::InvalidValue);
    }
    Ok(Edit::Set(name, value))
}

/// An edit that adds a line.
pub(crate) fn append(name: &str, value: &[u8]) -> Result<Edit, EditRefused> {
    let name = editable(name)?;
    if name == header::HOST {
        return Err(EditRefused::Forbidden);
    }
    Ok(Edit::Append(name, field_value(value)?))
}

/// An edit that removes all lines of a name.
pub(crate) fn remove(name: &str) -> Result<Edit, EditRefused> {
    let name = editable(name)?;
    if name == header::HOST {
        return Err(EditRefused::Forbidden);
    }
    Ok(Edit::Remove(name))
}

fn editable(name: &str) -> Result<HeaderName, EditRefused> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| EditRefused::InvalidName)?;
    let ours = [&HOP_BY_HOP[..], &FRAMING, &FORWARDED]
        .iter()
        .any(|names| names.contains(&name));
    if ours || name.as_str().starts_with("proxy-") {
        Err(EditRefused::Forbidden)
    } else {
        Ok(name)
    }
}

fn field_value(value: &[u8]) -> Result<HeaderValue, EditRefused> {
    HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| EditRefused::InvalidValue)
}

/// Host and optional port, without user information (RFC 9110, 4.2.4).
pub(crate) fn is_authority(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    let Ok(authority) = text.parse::<http::uri::Authority>() else {
        return false;
    };
    // What follows the host is nothing, or a port, which may be empty (RFC 3986, 3.2.3).
    let port = text.strip_prefix(authority.host());
    port.is_some_and(|port| match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_digit()),
        None => port.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_fields_and_nominated_ones_go() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-One"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "close"),
            ("http2-settings", "AAA"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["x-three"]);
    }

    #[test]
    fn connection_cannot_name_away_what_frames_or_routes_a_message() {
        let mut headers = map(&[
            ("connection", "host, content-length, cookie, authorization"),
            ("host", "a"),
            ("content-length", "3"),
            ("cookie", "a=b"),
            ("authorization", "x"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(
            names(&headers),
            ["authorization", "content-length", "cookie", "host"]
        );
    }

    #[test]
    fn one_upgrade_is_recognised_and_only_where_connection_names_it() {
        let upgrade = |lines: &[(&str, &str)]| requested_upgrade(&map(lines));
        assert_eq!(
            upgrade(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket")
            ])
            .as_deref(),
            Some("websocket")
        );
        assert_eq!(
            upgrade(&[("connection", "keep-alive"), ("upgrade", "websocket")]),
            None
        );
        assert_eq!(
            upgrade(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]),
            None
        );
        assert_eq!(
            upgrade(&[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("upgrade", "h2c")
            ]),
            None
        );
        assert_eq!(upgrade(&[("connection", "upgrade")]), None);
    }

    fn forwarded(lines: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut headers = map(lines);
        let client = Client::new("::ffff:192.0.2.7".parse().unwrap(), trusted);
        add_forwarded(
            &mut headers,
            &client,
            Some(&HeaderValue::from_static("example.com")),
            http::Version::HTTP_11,
        );
        headers
    }

    #[test]
    fn an_untrusted_client_cannot_say_where_it_came_from() {
        let headers = forwarded(
            &[
                ("x-forwarded-for", "1.2.3.4"),
                ("x-real-ip", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
                ("forwarded", "for=1.2.3.4"),
            ],
            false,
        );
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "example.com");
        assert_eq!(headers["via"], "1.1 waypost");
        assert!(!headers.contains_key("forwarded"));
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_added_to() {
        let headers = forwarded(
            &[
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-for", "5.6.7.8"),
                ("x-forwarded-proto", "https"),
                ("via", "1.1 edge"),
            ],
            true,
        );
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 5.6.7.8, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(
            headers.get_all("via").iter().collect::<Vec<_>>(),
            ["1.1 edge", "1.1 waypost"]
        );
    }

    #[test]
    fn the_client_is_the_peer_unless_a_trusted_one_names_another() {
        let forwarded = Forwarded {
            trusted: vec!["192.0.2.0/24".parse().unwrap()],
        };
        let peer: IpAddr = "192.0.2.7".parse().unwrap();
        let origin = |trusted, chain| {
            Client::new(peer, trusted).origin(&map(&[("x-forwarded-for", chain)]), &forwarded)
        };
        assert_eq!(origin(false, "1.2.3.4, 5.6.7.8"), peer);
        assert_eq!(origin(true, "1.2.3.4, 5.6.7.8").to_string(), "5.6.7.8");
        assert_eq!(
            origin(true, "1.2.3.4, 5.6.7.8, 192.0.2.9").to_string(),
            "5.6.7.8"
        );
        assert_eq!(origin(true, "nonsense"), peer);
    }

    #[test]
    fn our_own_passes_are_counted() {
        assert_eq!(
            passes(&map(&[
                ("via", "1.1 edge, 1.1 waypost"),
                ("via", "1.0 waypost (comment)")
            ])),
            2
        );
        assert_eq!(passes(&map(&[("via", "1.1 waypost.example")])), 0);
    }

    #[test]
    fn a_policy_may_not_touch_framing_hop_by_hop_and_forwarding_fields() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "expect",
            "via",
            "proxy-anything",
            "http2-settings",
            "x-forwarded-for",
            "x-real-ip",
            "forwarded",
        ] {
            assert_eq!(set(name, b"1"), Err(EditRefused::Forbidden), "{name}");
            assert_eq!(append(name, b"1"), Err(EditRefused::Forbidden), "{name}");
            assert_eq!(remove(name), Err(EditRefused::Forbidden), "{name}");
        }
    }

    #[test]
    fn a_policy_cannot_smuggle_bytes_into_a_head() {
        for value in [&b"a\r\nb: c"[..], b"a\nb", b"a\0b", b"\x01", b"\x7f"] {
            assert_eq!(
                set("x-a", value),
                Err(EditRefused::InvalidValue),
                "{value:?}"
            );
        }
        for name in ["", "x a", "x:a", "x\r\na", "\u{fc}"] {
            assert_eq!(set(name, b"1"), Err(EditRefused::InvalidName), "{name:?}");
        }
        assert_eq!(
            set("x-a", b" \xff\t "),
            Ok(Edit::Set(
                HeaderName::from_static("x-a"),
                HeaderValue::from_bytes(b"\xff").unwrap()
            ))
        );
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let rows = [
            ("a", true),
            ("a.example:80", true),
            ("a:", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("192.0.2.1", true),
            ("a:port", false),
            ("user@a", false),
            ("user:80@a", false),
            ("a b", false),
            ("a/b", false),
            ("[::1", false),
            ("", false),
        ];
        for (text, valid) in rows {
            assert_eq!(
                is_authority(&HeaderValue::from_static(text)),
                valid,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_policy_may_name_another_host_but_not_take_it_away() {
        assert!(matches!(
            set("host", b"internal.example:81"),
            Ok(Edit::Set(..))
        ));
        assert_eq!(
            set("host", b"user@internal"),
            Err(EditRefused::InvalidValue)
        );
        assert_eq!(set("host", b"a b"), Err(EditRefused::InvalidValue));
        assert_eq!(append("host", b"a"), Err(EditRefused::Forbidden));
        assert_eq!(remove("host"), Err(EditRefused::Forbidden));
    }
}
