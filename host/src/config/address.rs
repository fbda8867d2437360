//! Addresses: where to listen and where the backends are.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::diagnostic::{Complaint, quoted};

const LISTEN_HELP: &str = "write IP:PORT, for example \"0.0.0.0:8080\" or \"[::1]:8080\"; \":8080\" is all IPv4 addresses";
const BACKEND_HELP: &str =
    "write HOST:PORT, for example \"127.0.0.1:3000\", \"[::1]:3000\" or \"app.internal:3000\"";

/// Its own colons leave open where the port begins.
const BARE_IPV6: &str = "an IPv6 address needs brackets, and a port behind them";

/// Reads the address of a listener: `0.0.0.0:8080`, `[::1]:80`, `:8080` (all IPv4 addresses). Port 0 lets the system choose.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Complaint> {
    let refused = |label: &str| {
        Complaint::new("is not an address to listen on")
            .label(label)
            .help(LISTEN_HELP)
    };
    refuse_schemes(text, "is not an address to listen on")?;
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(refused(BARE_IPV6));
    }
    let (host, port) = split(text).map_err(|label| {
        let bare_port = text.parse::<u16>().is_ok();
        if bare_port {
            refused("no `:`").help(format!("write \":{text}\""))
        } else {
            refused(label)
        }
    })?;
    let port = port_number(port, 0).map_err(refused)?;
    match host {
        "" => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
        "*" => Err(refused("`*` is not understood").help(format!(
            "write \":{port}\" or, for IPv6 as well, \"[::]:{port}\""
        ))),
        "localhost" => Err(refused("this is a name").help(format!("write \"127.0.0.1:{port}\""))),
        _ => Err(refused(
            "what stands in front of the port is not an IP address",
        )),
    }
}

/// A backend's `host:port`, checked.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct BackendAddress {
    /// In lower case; IP addresses in their one spelling: so that equal places are equal here.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Reads the address of a backend: an IP address or DNS name, and a port from 1 to 65535.
pub(super) fn backend(text: &str) -> Result<BackendAddress, Complaint> {
    let refused = |label: &str| {
        Complaint::new("is not the address of a server")
            .label(label)
            .help(BACKEND_HELP)
    };
    refuse_schemes(text, "is not the address of a server")?;
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(refused(BARE_IPV6));
    }
    let (host, port) = split(text).map_err(refused)?;
    if port.contains('/') {
        return Err(refused("there is a path behind the port")
            .help("leave out the path: requests keep the path they came with"));
    }
    let port = port_number(port, 1).map_err(refused)?;
    Ok(BackendAddress {
        host: backend_host(host).map_err(refused)?,
        port,
    })
}

fn backend_host(host: &str) -> Result<String, &'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Option<Ipv6Addr> =
            inner.strip_suffix(']').and_then(|inner| inner.parse().ok());
        return address
            .map(|address| address.to_string())
            .ok_or("not an IPv6 address in brackets");
    }
    if host.is_empty() {
        return Err("no host in front of the port");
    }
    if host.contains(':') {
        return Err(BARE_IPV6);
    }
    let last_label = host.rsplit('.').next().unwrap_or_default();
    if last_label.bytes().all(|byte| byte.is_ascii_digit()) {
        let address: Option<Ipv4Addr> = host.parse().ok();
        return address
            .map(|address| address.to_string())
            .ok_or("not an IPv4 address");
    }
    dns_name(host)
}

/// Checks a DNS name and returns it in lower case.
pub(super) fn dns_name(name: &str) -> Result<String, &'static str> {
    if name.is_empty() {
        return Err("empty");
    }
    if !name.is_ascii() {
        return Err("write a name with other letters than a-z in its xn-- form");
    }
    if name.len() > 253 {
        return Err("longer than the 253 characters of a DNS name");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.bytes().all(|byte| allowed(byte) || byte == b'.') {
        return Err("a character that cannot stand in a host name");
    }
    if name
        .split('.')
        .any(|label| label.is_empty() || label.len() > 63)
    {
        return Err("a part between two dots is empty or longer than 63 characters");
    }
    Ok(name.to_ascii_lowercase())
}

/// Addresses copied from a browser or from nginx.
fn refuse_schemes(text: &str, what: &str) -> Result<(), Complaint> {
    let lower = text.to_ascii_lowercase();
    for scheme in ["http://", "https://", "tcp://", "ws://", "wss://"] {
        if lower.starts_with(scheme) {
            let rest = text
                .get(scheme.len()..)
                .unwrap_or_default()
                .trim_end_matches('/');
            let tls = if matches!(scheme, "https://" | "wss://") {
                "; TLS is not supported yet"
            } else {
                ""
            };
            let complaint = Complaint::new(what).label(format!("this begins with `{scheme}`"));
            return Err(complaint.help(format!("leave out `{scheme}`: {}{tls}", quoted(rest))));
        }
    }
    if lower.starts_with("unix:") || text.starts_with('/') {
        let complaint = Complaint::new(what).label("this is a Unix socket");
        return Err(complaint.help("Unix sockets are not supported yet: use HOST:PORT"));
    }
    Ok(())
}

/// Host and port around the last colon that is not inside brackets.
fn split(text: &str) -> Result<(&str, &str), &'static str> {
    if text.is_empty() {
        return Err("empty");
    }
    if text.chars().any(char::is_whitespace) {
        return Err("there is white space in it");
    }
    if text.ends_with(']') {
        return Err("no port");
    }
    text.rsplit_once(':').ok_or("no port")
}

fn port_number(text: &str, least: u16) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|port| *port >= least);
    port.ok_or("the port must be a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners() {
        let read = [
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            (":8080", "0.0.0.0:8080"),
            ("[::1]:80", "[::1]:80"),
            ("[::]:80", "[::]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ];
        for (text, expected) in read {
            assert_eq!(listen(text).unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            ":",
            "8080",
            "*:80",
            "localhost:80",
            "0.0.0.0",
            ":+80",
            ":65536",
            "::1:80",
            "[::1]",
            "http://0.0.0.0:80",
            "unix:/x",
            "/x",
            "1.2.3.4 :80",
        ] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn backends() {
        let read = [
            ("127.0.0.1:3000", "127.0.0.1", 3000),
            ("[::1]:3000", "::1", 3000),
            ("[0:0::1]:3000", "::1", 3000),
            ("App.Internal:80", "app.internal", 80),
            ("my_app:65535", "my_app", 65535),
            ("a1:1", "a1", 1),
        ];
        for (text, host, port) in read {
            assert_eq!(
                backend(text).unwrap(),
                BackendAddress {
                    host: host.to_owned(),
                    port
                },
                "{text}"
            );
        }
        let refused = [
            "",
            ":",
            ":3000",
            "app",
            "app:",
            "app:0",
            "app:65536",
            "app:-1",
            "app:+1",
            "app:http",
            "http://app:80",
            "HTTPS://app:443/",
            "unix:/run/app.sock",
            "/run/app.sock",
            "::1",
            "::1:3000",
            "[::1]",
            "[::1",
            "[app]:80",
            "300.1.1.1:80",
            "127.1:80",
            "app:80/path",
            "a b:80",
            "a..b:80",
            "*:80",
            "äpp:80",
            ".:80",
            "app .:80",
        ];
        for text in refused {
            assert!(backend(text).is_err(), "{text}");
        }
        let longest = format!("{}.{}:80", "a".repeat(63), "b".repeat(63));
        assert!(backend(&longest).is_ok());
        assert!(backend(&format!("{}:80", "a".repeat(64))).is_err());
    }
}
