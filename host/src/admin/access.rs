//! Who may ask over TCP: callers that know the token, and no browser.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN};

use super::answer::Answer;
use super::token::Token;

/// Between two lines of the log about callers that were turned away: anybody can be one, as often as they like.
const WARN_INTERVAL: Duration = Duration::from_secs(1);

/// What a caller has to show.
pub(super) struct Access {
    token: Token,
    /// Where we listen.
    address: IpAddr,
    warned: Mutex<Option<Instant>>,
}

impl Access {
    pub(super) fn new(token: Token, address: IpAddr) -> Access {
        Access {
            token,
            address,
            warned: Mutex::default(),
        }
    }

    /// Whether this caller may ask; else what it is told.
    pub(super) fn admit(&self, headers: &HeaderMap, who: &str) -> Result<(), Answer> {
        let problem = if headers.contains_key(ORIGIN) {
            // Pages of the web get their visitors' browsers to send requests to wherever those can reach.
            (StatusCode::FORBIDDEN, "browsers may not ask")
        } else if !self.is_ours(headers.get(HOST)) {
            // Nor by a name of theirs that resolves to our address.
            let problem = "the Host of a request must be our address or localhost";
            (StatusCode::FORBIDDEN, problem)
        } else if !self.has_token(headers) {
            (StatusCode::UNAUTHORIZED, "the token is missing or wrong")
        } else {
            return Ok(());
        };
        self.warn(who, problem.1);
        let help = match problem.0 {
            StatusCode::UNAUTHORIZED => Some("send `Authorization: Bearer TOKEN`"),
            _ => None,
        };
        Err(Answer::error(problem.0, problem.1, help))
    }

    /// The port is nobody's business: behind a tunnel it is another.
    fn is_ours(&self, host: Option<&HeaderValue>) -> bool {
        let Some(host) = host.and_then(|host| host.to_str().ok()) else {
            return false;
        };
        let name = match host.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some((name, port)) if !port.ends_with(']') => name,
            _ => host,
        };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let Ok(address) = name.parse::<IpAddr>() else {
            return false;
        };
        // Where every address is listened on, any may be ours; what matters is that it is no name.
        address == self.address || address.is_loopback() || self.address.is_unspecified()
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let credentials = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some((scheme, given)) = credentials.and_then(|text| text.split_at_checked(7)) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && self.token.is(given)
    }

    fn warn(&self, who: &str, problem: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::warn!(target: "audit", "audit: request by {who}: refused: {problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(listening: &str, fields: &[(&str, &str)]) -> Option<u16> {
        let token = Token::parse("0123456789abcdef").unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let access = Access::new(token, listening.parse().unwrap());
        let refused = access.admit(&headers, "a test").err();
        refused.map(|answer| answer.into_response().status().as_u16())
    }

    #[test]
    fn only_the_token_opens() {
        let with = |value| {
            status(
                "127.0.0.1",
                &[("host", "localhost"), ("authorization", value)],
            )
        };
        assert_eq!(with("Bearer 0123456789abcdef"), None);
        assert_eq!(with("bearer 0123456789abcdef"), None);
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert_eq!(with(wrong), Some(401), "{wrong:?}");
        }
        assert_eq!(status("127.0.0.1", &[("host", "localhost")]), Some(401));
    }

    #[test]
    fn browsers_are_turned_away_with_the_token_too() {
        let with = |listening, host| {
            let authorization = ("authorization", "Bearer 0123456789abcdef");
            status(listening, &[("host", host), authorization])
        };
        for (listening, host) in [
            ("127.0.0.1", "127.0.0.1:9000"),
            ("127.0.0.1", "LocalHost:9001"),
            ("127.0.0.1", "[::1]:9000"),
            ("10.1.2.3", "10.1.2.3"),
            ("fd00::1", "[fd00::1]:9000"),
            ("0.0.0.0", "10.1.2.3:9000"),
        ] {
            assert_eq!(with(listening, host), None, "{host}");
        }
        for (listening, host) in [
            ("127.0.0.1", "rebound.example:9000"),
            ("127.0.0.1", "localhost.example"),
            ("127.0.0.1", "10.1.2.3:9000"),
            ("0.0.0.0", "rebound.example"),
            ("0.0.0.0", ""),
        ] {
            assert_eq!(with(listening, host), Some(403), "{host}");
        }
        let mut fields = vec![
            ("host", "localhost"),
            ("authorization", "Bearer 0123456789abcdef"),
        ];
        assert_eq!(status("127.0.0.1", &fields), None);
        fields.push(("origin", "http://localhost"));
        assert_eq!(status("127.0.0.1", &fields), Some(403));
        let nameless = [("authorization", "Bearer 0123456789abcdef")];
        assert_eq!(status("127.0.0.1", &nameless), Some(403));
    }
}
