//! What a request asks for: from its method, path and body.

use std::fmt;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::answer::Answer;
use super::body::{BYTES_MAX, CODE_BYTES_MAX};
use super::path::decode;
use crate::control::BackendChange;

/// As in a configuration.
const WEIGHT_MAX: u32 = 65535;

const PATHS: &str = "there are GET /status, and POST /reload, /policies/NAME, /policies/NAME/rollback and \
                     /upstreams/NAME/backends/BACKEND";
const BACKEND_BODY: &str =
    r#"send {"state": "drain"}, {"state": "down"}, {"state": "ready"} or {"weight": 5}"#;

/// Where a request goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Endpoint {
    Status,
    Reload,
    Policy(String),
    Rollback(String),
    Backend { upstream: String, backend: String },
}

/// What a request is to change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Reload,
    Push {
        policy: String,
        code: Vec<u8>,
    },
    Rollback {
        policy: String,
    },
    Backend {
        upstream: String,
        backend: String,
        change: BackendChange,
    },
}

impl Endpoint {
    pub(super) fn find(method: &Method, path: &str) -> Result<Endpoint, Answer> {
        let unknown = || {
            let text = format!("there is nothing at {path}");
            Answer::error(StatusCode::NOT_FOUND, &text, Some(PATHS))
        };
        let mut segments = path.strip_prefix('/').unwrap_or_default().split('/');
        let name = |segment| decode(segment).ok_or_else(unknown);
        let all: [Option<&str>; 5] = std::array::from_fn(|_| segments.next());
        let endpoint = match all {
            [Some("status"), None, ..] => Endpoint::Status,
            [Some("reload"), None, ..] => Endpoint::Reload,
            [Some("policies"), Some(policy), None, ..] => Endpoint::Policy(name(policy)?),
            [Some("policies"), Some(policy), Some("rollback"), None, _] => {
                Endpoint::Rollback(name(policy)?)
            }
            [
                Some("upstreams"),
                Some(upstream),
                Some("backends"),
                Some(backend),
                None,
            ] => Endpoint::Backend {
                upstream: name(upstream)?,
                backend: name(backend)?,
            },
            _ => return Err(unknown()),
        };
        let (wanted, allow) = match endpoint {
            Endpoint::Status => (Method::GET, "GET"),
            _ => (Method::POST, "POST"),
        };
        if *method == wanted {
            Ok(endpoint)
        } else {
            Err(Answer::wrong_method(path, allow))
        }
    }

    /// How large a body may be that comes with it.
    pub(super) fn body_bytes_max(&self) -> usize {
        match self {
            Endpoint::Policy(_) => CODE_BYTES_MAX,
            _ => BYTES_MAX,
        }
    }

    /// With its body; `None` where nothing is to change.
    pub(super) fn change(self, body: Vec<u8>) -> Result<Option<Change>, Answer> {
        Ok(Some(match self {
            Endpoint::Status => return Ok(None),
            Endpoint::Reload => Change::Reload,
            Endpoint::Policy(policy) => Change::Push { policy, code: body },
            Endpoint::Rollback(policy) => Change::Rollback { policy },
            Endpoint::Backend { upstream, backend } => Change::Backend {
                upstream,
                backend,
                change: backend_change(&body)?,
            },
        }))
    }
}

/// The body of a request about a backend.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendBody {
    state: Option<BackendState>,
    weight: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackendState {
    Drain,
    Down,
    Ready,
}

fn backend_change(body: &[u8]) -> Result<BackendChange, Answer> {
    let refused = |text: &str| Answer::error(StatusCode::BAD_REQUEST, text, Some(BACKEND_BODY));
    let body: BackendBody = serde_json::from_slice(body)
        .map_err(|error| refused(&format!("the body says nothing about a backend: {error}")))?;
    match (body.state, body.weight) {
        (Some(BackendState::Drain), None) => Ok(BackendChange::Drain),
        (Some(BackendState::Down), None) => Ok(BackendChange::Down),
        (Some(BackendState::Ready), None) => Ok(BackendChange::Ready),
        (None, Some(weight)) if weight <= WEIGHT_MAX => Ok(BackendChange::Weight(weight)),
        (None, Some(_)) => Err(refused(&format!("a weight is at most {WEIGHT_MAX}"))),
        (None, None) => Err(refused("the body names neither a state nor a weight")),
        (Some(_), Some(_)) => Err(refused("one change at a time: a state or a weight")),
    }
}

impl fmt::Display for Change {
    /// For the audit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Reload => f.write_str("reload"),
            Change::Push { policy, code } => write!(f, "push of {policy}, {} bytes", code.len()),
            Change::Rollback { policy } => write!(f, "rollback of {policy}"),
            Change::Backend {
                upstream,
                backend,
                change,
            } => {
                let what = match change {
                    BackendChange::Drain => "drain".to_owned(),
                    BackendChange::Down => "down".to_owned(),
                    BackendChange::Ready => "ready".to_owned(),
                    BackendChange::Weight(weight) => format!("weight {weight}"),
                };
                write!(f, "{what} for {backend} of {upstream}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str) -> Result<Endpoint, u16> {
        let method = method.parse().unwrap();
        let status = |answer: Answer| answer.into_response().status().as_u16();
        Endpoint::find(&method, path).map_err(status)
    }

    #[test]
    fn each_path_has_its_method() {
        let backend = Endpoint::Backend {
            upstream: "app".to_owned(),
            backend: "zone a/[::1]:80".to_owned(),
        };
        for (method, path, endpoint) in [
            ("GET", "/status", Endpoint::Status),
            ("POST", "/reload", Endpoint::Reload),
            ("POST", "/policies/a", Endpoint::Policy("a".to_owned())),
            (
                "POST",
                "/policies/a/rollback",
                Endpoint::Rollback("a".to_owned()),
            ),
            (
                "POST",
                "/upstreams/app/backends/zone%20a%2F%5B::1%5D:80",
                backend,
            ),
        ] {
            assert_eq!(find(method, path), Ok(endpoint), "{path}");
            let other = if method == "GET" { "POST" } else { "GET" };
            for wrong in [other, "PUT", "DELETE", "OPTIONS", "HEAD"] {
                assert_eq!(find(wrong, path), Err(405), "{wrong} {path}");
            }
        }
        for path in [
            "",
            "*",
            "/",
            "//status",
            "/status/",
            "/Status",
            "/policies",
            "/policies/",
            "/policies//rollback",
            "/policies/%0a",
            "/policies/a/rollback/",
            "/policies/a/b",
            "/upstreams/app/backends",
            "/upstreams/app/backends/",
            "/upstreams/app/backends/a/b",
            "/upstreams/app/servers/a",
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(find(method, path), Err(404), "{path}");
            }
        }
    }

    #[test]
    fn a_backend_is_told_one_thing() {
        let read = |body: &str| backend_change(body.as_bytes()).ok();
        for (body, change) in [
            (r#"{"state": "drain"}"#, BackendChange::Drain),
            (r#"{"state": "down"}"#, BackendChange::Down),
            (r#"{"state": "ready"}"#, BackendChange::Ready),
            (r#"{"weight": 0}"#, BackendChange::Weight(0)),
            (r#"{"weight": 65535}"#, BackendChange::Weight(65535)),
        ] {
            assert_eq!(read(body), Some(change), "{body}");
        }
        for body in [
            "",
            "{}",
            "drain",
            r#""drain""#,
            r#"{"state": "up"}"#,
            r#"{"state": 1}"#,
            r#"{"weight": -1}"#,
            r#"{"weight": 65536}"#,
            r#"{"weight": 1.5}"#,
            r#"{"weight": "5"}"#,
            r#"{"state": "drain", "weight": 5}"#,
            r#"{"state": "drain", "grace": "1s"}"#,
            r#"{"state": "drain"} x"#,
        ] {
            assert_eq!(read(body), None, "{body}");
        }
    }

    #[test]
    fn only_code_may_be_large() {
        let bytes = |path| find("POST", path).unwrap().body_bytes_max();
        assert_eq!(bytes("/policies/a"), 4 << 20);
        assert_eq!(bytes("/policies/a/rollback"), 16 << 10);
        assert_eq!(bytes("/upstreams/a/backends/b"), 16 << 10);
    }
}
