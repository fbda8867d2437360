//! What a route matches: a host pattern and a path.

use std::net::Ipv6Addr;

use super::HostPattern;
use super::address::dns_name;
use super::diagnostic::{Complaint, quoted};

/// Reads `example.com`, `*.example.com`, `[::1]` or `*`.
pub(super) fn host(text: &str) -> Result<HostPattern, Complaint> {
    let refused = |label: &str| {
        let help = "write a name such as \"example.com\" or \"*.example.com\"; leave `host` out to match any";
        Complaint::new("is not a host name").label(label).help(help)
    };
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    if text.contains("://") || text.contains('/') {
        return Err(refused("only the name of the host belongs here")
            .help("leave out the scheme and the path; the path goes in `path`"));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let address: Option<Ipv6Addr> =
            inner.strip_suffix(']').and_then(|inner| inner.parse().ok());
        return address
            .map(|address| HostPattern::Exact(format!("[{address}]")))
            .ok_or_else(|| refused("not an IPv6 address in brackets"));
    }
    if let Some((name, _)) = text.rsplit_once(':') {
        return Err(
            refused("a host is matched without its port").help(format!("write {}", quoted(name)))
        );
    }
    // `example.com.` is the same host, and clients mostly leave the last dot out.
    let text = text.strip_suffix('.').unwrap_or(text);
    let (name, wildcard) = text
        .strip_prefix("*.")
        .map_or((text, false), |name| (name, true));
    if name.contains('*') {
        return Err(refused("`*` can only be the first part, in front of a dot"));
    }
    let name = dns_name(name).map_err(refused)?;
    Ok(if wildcard {
        HostPattern::Wildcard(format!(".{name}"))
    } else {
        HostPattern::Exact(name)
    })
}

/// Reads a path prefix. A slash at the end is dropped: `/api/` and `/api` both match `/api`, `/api/` and `/api/x`, and not `/apis`.
pub(super) fn path(text: &str) -> Result<String, Complaint> {
    let refused = |label: &str| Complaint::new("is not a path").label(label);
    if !text.starts_with('/') {
        return Err(refused("no `/` at its beginning")
            .help(format!("write {}", quoted(&format!("/{text}")))));
    }
    if let Some(above) = text.strip_suffix("/*").or_else(|| text.strip_suffix("/**")) {
        let above = if above.is_empty() { "/" } else { above };
        return Err(refused("there are no wildcards in paths").help(format!(
            "write {}: it matches everything below as well",
            quoted(above)
        )));
    }
    if text.contains(['?', '#']) {
        return Err(refused("a query or fragment is no part of the path")
            .help("leave out `?` or `#` and what follows"));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(refused(&format!("{c:?} cannot stand in a request"))
            .help("write it percent-encoded, as clients send it"));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(host("*").unwrap(), HostPattern::Any);
        assert_eq!(
            host("Example.COM").unwrap(),
            HostPattern::Exact("example.com".to_owned())
        );
        assert_eq!(
            host("example.com.").unwrap(),
            HostPattern::Exact("example.com".to_owned())
        );
        assert_eq!(
            host("*.Example.com").unwrap(),
            HostPattern::Wildcard(".example.com".to_owned())
        );
        assert_eq!(
            host("127.0.0.1").unwrap(),
            HostPattern::Exact("127.0.0.1".to_owned())
        );
        assert_eq!(
            host("[0::1]").unwrap(),
            HostPattern::Exact("[::1]".to_owned())
        );
        for text in [
            "",
            ".",
            "*.",
            "*.*",
            "a*.com",
            "www.*",
            "example.com:80",
            "http://example.com",
            "example.com/x",
            "::1",
            "[::1]:80",
            "bücher.de",
            "a b",
            "~^x",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        for (text, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/a/b//", "/a/b"),
            ("/%20", "/%20"),
        ] {
            assert_eq!(path(text).unwrap(), expected, "{text}");
        }
        for text in [
            "", "api", "/*", "/api/*", "/api/**", "/a?b", "/a#b", "/a b", "/ä", "/\u{7f}",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
    }
}
