//! What is said back: one place where outcomes become statuses.

use std::path::Path;

use http::StatusCode;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{HeaderMap, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::failure;
use crate::config::{Config, ConfigError};
use crate::control::{ControlError, Report};
use crate::server::StartError;
use crate::status::{Status, text};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

/// A response before it is one.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    /// Of a 405.
    allow: Option<&'static str>,
}

/// The status with what it does not know itself.
#[derive(Serialize)]
struct Page<'a> {
    version: &'static str,
    pid: u32,
    #[serde(flatten)]
    status: &'a Status,
}

impl Answer {
    /// JSON, for programs; text for who asks for nothing else.
    pub(super) fn status(status: &Status, headers: &HeaderMap) -> Answer {
        let version = env!("CARGO_PKG_VERSION");
        let wants_text = headers.get(ACCEPT).is_some_and(|accept| accept == TEXT);
        if wants_text {
            let body = format!(
                "waypost {version}, pid {}, {}",
                std::process::id(),
                text::render(status)
            );
            return Answer::new(StatusCode::OK, TEXT, body.into());
        }
        let page = Page {
            version,
            pid: std::process::id(),
            status,
        };
        match serde_json::to_vec_pretty(&page) {
            Ok(mut body) => {
                body.push(b'\n');
                Answer::new(StatusCode::OK, JSON, body)
            }
            // Numbers that are not finite, keys that are no strings: there are none.
            Err(_) => Answer::broke_down(),
        }
    }

    pub(super) fn changes(report: &Report) -> Answer {
        Answer::json(StatusCode::OK, &json!({ "changes": report.changes }))
    }

    pub(super) fn error(status: StatusCode, error: &str, help: Option<&str>) -> Answer {
        Answer::json(status, &json!({ "error": error, "help": help }))
    }

    /// `file` as of [`message`].
    pub(super) fn refused(error: &ControlError, file: Option<&Path>) -> Answer {
        Answer::error(status_of(error), &message(error, file), None)
    }

    pub(super) fn wrong_method(path: &str, allow: &'static str) -> Answer {
        let text = format!("{path} takes {allow} only");
        Answer {
            allow: Some(allow),
            ..Answer::error(StatusCode::METHOD_NOT_ALLOWED, &text, None)
        }
    }

    pub(super) fn broke_down() -> Answer {
        let help = "this is a mistake in waypost: please report it, with what the log says";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Answer::error(status, "the change broke down", Some(help))
    }

    fn json(status: StatusCode, value: &Value) -> Answer {
        Answer::new(status, JSON, format!("{value}\n").into())
    }

    fn new(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
        Answer {
            status,
            content_type,
            body,
            allow: None,
        }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            http::HeaderValue::from_static(self.content_type),
        );
        headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, http::HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn status_of(error: &ControlError) -> StatusCode {
    match error {
        ControlError::Config(_) | ControlError::Start(StartError::Build(_)) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ControlError::Start(StartError::Listen { .. } | StartError::System(_)) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ControlError::Unknown(_) => StatusCode::NOT_FOUND,
        ControlError::Refused(_) => StatusCode::CONFLICT,
    }
}

/// All that there is to say about a refused change, as `waypost check` says it. `file` is the configuration that was
/// to come into force, where it was one that was at fault.
pub(crate) fn message(error: &ControlError, file: Option<&Path>) -> String {
    match error {
        ControlError::Config(error) => error.to_string(),
        ControlError::Start(error) => explain(error, file).to_string(),
        ControlError::Unknown(text) | ControlError::Refused(text) => text.clone(),
    }
}

/// Points into the file as it is now: it was read a moment ago.
fn explain(error: &StartError, file: Option<&Path>) -> ConfigError {
    match file.map(|file| (file, Config::load(file))) {
        Some((file, Ok(config))) => failure::explain(error, Some(file), Some(&config)),
        _ => failure::explain(error, None, None),
    }
}

/// For a line of the log.
pub(super) fn first_line(error: &ControlError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BuildError;

    fn parts(answer: Answer) -> (u16, Value) {
        let status = answer.status.as_u16();
        (status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[test]
    fn each_outcome_has_its_status() {
        let wrong = Config::parse(Path::new("a.toml"), "x = 1").unwrap_err();
        let build = BuildError::Policies(vec![]);
        let listen = StartError::Listen {
            address: "127.0.0.1:80".parse().unwrap(),
            error: std::io::ErrorKind::AddrInUse.into(),
        };
        for (error, status) in [
            (ControlError::Config(wrong), 422),
            (ControlError::Start(StartError::Build(build)), 422),
            (ControlError::Start(listen), 503),
            (ControlError::Unknown("no".to_owned()), 404),
            (ControlError::Refused("no".to_owned()), 409),
        ] {
            assert_eq!(parts(Answer::refused(&error, None)).0, status, "{error}");
        }
    }

    #[test]
    fn a_mistake_is_shown_as_by_check() {
        let error = Config::parse(Path::new("a.toml"), "x = 1").unwrap_err();
        let shown = error.to_string();
        let (_, json) = parts(Answer::refused(&ControlError::Config(error), None));
        assert_eq!(json, json!({ "error": shown, "help": null }));
    }

    #[test]
    fn the_status_is_json_unless_text_is_asked_for() {
        let status = Status::default();
        let (code, json) = parts(Answer::status(&status, &HeaderMap::new()));
        assert_eq!((code, &json["version"]), (200, &"0.1.0".into()));
        assert_eq!(json["uptime_seconds"], 0.0);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, http::HeaderValue::from_static(TEXT));
        let answer = Answer::status(&status, &headers);
        assert!(answer.body.starts_with(b"waypost 0.1.0, pid "));
    }
}
