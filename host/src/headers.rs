//! Header fields: what is taken off, what is put on, and what a policy may change. Pure functions over a head.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{self, HeaderName, HeaderValue};

use crate::config::Forwarded;
use crate::http1::{Fields, Name, Span, Version};
use crate::policy::Edit;

/// Fields that `Connection` cannot name away: without them a message would be framed or routed differently.
fn is_never_nominated(name: Name) -> bool {
    matches!(
        name,
        Name::Host
            | Name::ContentLength
            | Name::TransferEncoding
            | Name::Cookie
            | Name::Authorization
    )
}

/// Fields that no policy may touch, beside those that concern one connection and those by which we say where a request
/// came from.
fn is_framing(name: Name) -> bool {
    matches!(
        name,
        Name::ContentLength | Name::Expect | Name::Trailer | Name::Via
    )
}

/// Fields by which we say where a request came from.
fn is_forwarding(name: Name) -> bool {
    matches!(
        name,
        Name::XForwardedFor
            | Name::XForwardedProto
            | Name::XForwardedHost
            | Name::XRealIp
            | Name::Forwarded
    )
}

/// What we call ourselves in `Via` (RFC 9110, 7.6.3).
const PSEUDONYM: &str = "waypost";

/// What `Connection` says about the connection itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Persistence {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
}

impl Persistence {
    pub(crate) fn of(fields: &Fields) -> Persistence {
        let mut said = Persistence::default();
        for option in fields.elements(Name::Connection) {
            said.close |= option.eq_ignore_ascii_case(b"close");
            said.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
        said
    }
}

/// Removes the fields that concern one connection only: those of the RFC and those that `Connection` names.
pub(crate) fn remove_hop_by_hop(fields: &mut Fields) {
    for name in nominated(fields) {
        fields
            .retain(|known, other| is_never_nominated(known) || !other.eq_ignore_ascii_case(&name));
    }
    fields.retain(|known, _| !known.is_hop_by_hop());
}

/// What `Connection` names beside what it nearly always does, and what goes anyway.
fn nominated(fields: &Fields) -> Vec<Vec<u8>> {
    let options = fields.elements(Name::Connection);
    options
        .filter(|option| {
            !option.eq_ignore_ascii_case(b"close") && !Name::of(option).is_hop_by_hop()
        })
        .map(<[u8]>::to_vec)
        .collect()
}

/// The one upgrade that a message asks for, in lower case; `None` where it asks for none, or for several.
pub(crate) fn requested_upgrade(fields: &Fields) -> Option<String> {
    let mut values = fields.all(Name::Upgrade);
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let mut options = fields.elements(Name::Connection);
    if !options.any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    let token = str::from_utf8(value).ok()?.trim();
    (!token.is_empty() && !token.contains(',')).then(|| token.to_ascii_lowercase())
}

/// Who sent a request, as far as we know.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// The address as a field value, made once per connection.
    value: String,
    /// The peer is one whose own forwarding fields are believed.
    trusted: bool,
}

impl Client {
    pub(crate) fn new(address: IpAddr, trusted: bool) -> Client {
        let address = address.to_canonical();
        Client {
            address,
            value: address.to_string(),
            trusted,
        }
    }

    /// Where the request began: the peer, or the nearest address in `X-Forwarded-For` that is not a trusted proxy's.
    pub(crate) fn origin(&self, fields: &Fields, forwarded: &Forwarded) -> IpAddr {
        let mut origin = self.address;
        if !self.trusted {
            return origin;
        }
        let lines = fields
            .all(Name::XForwardedFor)
            .rev()
            .filter_map(|value| str::from_utf8(value).ok());
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
    fields: &mut Fields,
    client: &Client,
    authority: Option<Span>,
    version: Version,
) {
    let address = fields.add_text(client.value.as_bytes());
    if client.trusted {
        let chain = joined(fields, Name::XForwardedFor, client.value.as_bytes());
        fields.set("x-forwarded-for", &chain);
        if !fields.has(Name::XForwardedProto) {
            fields.append("x-forwarded-proto", b"http");
        }
        if let Some(authority) = authority.filter(|_| !fields.has(Name::XForwardedHost)) {
            fields.append_at("x-forwarded-host", authority);
        }
        if !fields.has(Name::XRealIp) {
            fields.append_at("x-real-ip", address);
        }
    } else {
        fields.retain(|known, _| !is_forwarding(known));
        fields.append_at("x-forwarded-for", address);
        fields.append("x-forwarded-proto", b"http");
        // Only an HTTP/1.0 client may name no host.
        if let Some(authority) = authority {
            fields.append_at("x-forwarded-host", authority);
        }
        fields.append_at("x-real-ip", address);
    }
    let via: &[u8] = match version {
        Version::Http10 => b"1.0 waypost",
        Version::Http11 => b"1.1 waypost",
    };
    fields.append("via", via);
}

/// All values of a field and one more, as one list.
fn joined(fields: &Fields, name: Name, last: &[u8]) -> Vec<u8> {
    let values: Vec<&[u8]> = fields.all(name).chain([last]).collect();
    values.join(&b", "[..])
}

/// How often this request has passed us already (RFC 9110, 7.6.3).
pub(crate) fn passes(fields: &Fields) -> usize {
    fields
        .all(Name::Via)
        .filter_map(|value| str::from_utf8(value).ok())
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
    if name == header::HOST && !is_authority(value.as_bytes()) {
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
    let known = Name::of(name.as_str().as_bytes());
    if known.is_hop_by_hop()
        || is_framing(known)
        || is_forwarding(known)
        || name.as_str().starts_with("proxy-")
    {
        Err(EditRefused::Forbidden)
    } else {
        Ok(name)
    }
}

fn field_value(value: &[u8]) -> Result<HeaderValue, EditRefused> {
    HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| EditRefused::InvalidValue)
}

/// Host and optional port, without user information (RFC 9110, 4.2.4; RFC 3986, 3.2).
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let (host_is_valid, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let host = text.split(':').next().unwrap_or_default();
            let valid = !host.is_empty() && host.bytes().all(is_host_byte);
            (valid, text.get(host.len()..).unwrap_or_default())
        }
    };
    // What follows the host is nothing, or a port, which may be empty.
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_digit()),
        None => port.is_empty(),
    };
    host_is_valid && port_is_valid
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> Fields {
        Fields::of(lines)
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.names()
    }

    fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
        fields.get(name).map(|value| str::from_utf8(value).unwrap())
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

    fn forwarded(lines: &[(&str, &str)], trusted: bool) -> Fields {
        let mut fields = map(lines);
        let client = Client::new("::ffff:192.0.2.7".parse().unwrap(), trusted);
        let authority = fields.add_text(b"example.com");
        add_forwarded(&mut fields, &client, Some(authority), Version::Http11);
        fields
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
        assert_eq!(value(&headers, "x-forwarded-for"), Some("192.0.2.7"));
        assert_eq!(value(&headers, "x-real-ip"), Some("192.0.2.7"));
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("http"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("example.com"));
        assert_eq!(value(&headers, "via"), Some("1.1 waypost"));
        assert!(!headers.has(Name::Forwarded));
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
        assert_eq!(
            value(&headers, "x-forwarded-for"),
            Some("1.2.3.4, 5.6.7.8, 192.0.2.7")
        );
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("https"));
        assert_eq!(
            headers.all(Name::Via).collect::<Vec<_>>(),
            [b"1.1 edge".as_slice(), b"1.1 waypost"]
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
            assert_eq!(is_authority(text.as_bytes()), valid, "{text:?}");
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
