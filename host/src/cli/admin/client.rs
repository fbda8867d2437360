//! A client of the admin socket: finds it, asks one question, reads the answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Which;
use crate::admin::token::{self, Token};
use crate::cli::failure::Failure;
use crate::cli::loaded::DEFAULT_FILE;
use crate::config::Admin;

/// Where a server is that no configuration speaks of.
const DEFAULT_SOCKET: &str = "/run/waypost/admin.sock";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an answer. Policies take their time to compile, names theirs to resolve.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of an answer: far more than the status of ten thousand backends.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a server takes questions.
#[derive(Debug)]
pub(super) enum Door {
    Socket(PathBuf),
    /// `host:port`
    Tcp(String, Token),
}

/// A request.
#[derive(Debug)]
pub(super) struct Question {
    method: Method,
    path: String,
    accept: &'static str,
    body: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    text: String,
}

#[derive(Deserialize)]
struct Changes {
    changes: Vec<String>,
}

/// What an answer says that is none.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    help: Option<String>,
}

impl Question {
    pub(super) fn get(path: impl Into<String>, accept: &'static str) -> Question {
        Question {
            method: Method::GET,
            path: path.into(),
            accept,
            body: Vec::new(),
        }
    }

    pub(super) fn post(path: impl Into<String>) -> Question {
        Question {
            method: Method::POST,
            ..Question::get(path, "application/json")
        }
    }

    pub(super) fn with(self, body: Vec<u8>) -> Question {
        Question { body, ..self }
    }
}

// === finding it ===

impl Door {
    /// By what was said on the command line, or else by the configuration, or else where it usually is.
    pub(super) fn find(which: &Which) -> Result<Door, Failure> {
        if let Some(admin) = &which.admin {
            return Door::named(admin, which.token_file.as_deref());
        }
        if let Some(file) = &which.config {
            return Door::configured(&Admin::load(file)?)?.ok_or_else(|| {
                let title = format!("{} has no [admin]", file.display());
                let help = "name the socket with --admin, or add:\n\n[admin]\nsocket = \"/run/waypost/admin.sock\"";
                Failure::config(title, Some(help))
            });
        }
        let file = Path::new(DEFAULT_FILE);
        let configured = if file.exists() {
            Door::configured(&Admin::load(file)?)?
        } else {
            None
        };
        Ok(configured.unwrap_or_else(|| Door::Socket(DEFAULT_SOCKET.into())))
    }

    fn named(admin: &str, token_file: Option<&Path>) -> Result<Door, Failure> {
        if let Some(authority) = admin.strip_prefix("http://") {
            let authority = authority.trim_end_matches('/');
            let Some(token_file) = token_file else {
                let help = "name the file with the server's token with --token-file";
                return Err(Failure::usage(format!("{admin} needs a token"), Some(help)));
            };
            return Ok(Door::Tcp(authority.to_owned(), read_token(token_file)?));
        }
        if admin.contains("://") {
            let help = "write the path of a socket, or http://HOST:PORT; from another machine, go through SSH";
            return Err(Failure::usage(
                format!("{admin} is not understood"),
                Some(help),
            ));
        }
        if token_file.is_some() {
            let title = "a socket needs no token: its file's permissions say who may use it";
            return Err(Failure::usage(title, Some("leave out --token-file")));
        }
        Ok(Door::Socket(admin.into()))
    }

    /// The socket where there is one, as it needs no token.
    fn configured(admin: &Admin) -> Result<Option<Door>, Failure> {
        match admin {
            Admin {
                socket: Some(path), ..
            } => Ok(Some(Door::Socket(path.clone()))),
            Admin { tcp: Some(tcp), .. } => {
                let authority = reachable(tcp.address).to_string();
                Ok(Some(Door::Tcp(authority, read_token(&tcp.token_file)?)))
            }
            _ => Ok(None),
        }
    }
}

/// An address that can be connected to, for one that is listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    token::read(file).map_err(|error| Failure::runtime(error.to_string(), Some(&error.remedy)))
}

// === asking ===

impl Door {
    pub(super) async fn ask(&self, question: Question) -> Result<Reply, Failure> {
        let connected = match self {
            Door::Socket(path) => within(UnixStream::connect(path)).await.map(Stream::Socket),
            Door::Tcp(authority, _) => within(TcpStream::connect(authority)).await.map(Stream::Tcp),
        };
        let asked = async {
            match connected.map_err(|error| self.unreachable(&error))? {
                Stream::Socket(stream) => self.ask_over(stream, question).await,
                Stream::Tcp(stream) => self.ask_over(stream, question).await,
            }
        };
        timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| {
            let title = format!("{self} has not answered within {ANSWER_TIMEOUT:?}");
            Err(Failure::runtime(title, None))
        })
    }

    async fn ask_over<S>(&self, stream: S, question: Question) -> Result<Reply, Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = |error: &dyn std::fmt::Display| {
            let title = format!("{self} does not answer as waypost does: {error}");
            let help = "is it the admin socket of a waypost of this version?";
            Failure::runtime(title, Some(help))
        };
        let request = self.request(question).map_err(|error| broken(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // It ends with the answer; what goes wrong with it, the answer tells.
        tokio::spawn(connection);
        let response = sender.send_request(request).await;
        let (head, body) = response.map_err(|error| broken(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| broken(&error))?.to_bytes();
        Ok(Reply {
            status: head.status,
            text: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    fn request(&self, question: Question) -> http::Result<Request<Full<Bytes>>> {
        let request = Request::builder()
            .method(question.method)
            .uri(question.path)
            .header(ACCEPT, question.accept);
        let request = match self {
            Door::Socket(_) => request.header(HOST, "localhost"),
            Door::Tcp(authority, token) => request
                .header(HOST, authority)
                .header(AUTHORIZATION, token.credentials()),
        };
        request.body(Full::from(question.body))
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let help = match (self, error.kind()) {
            (Door::Socket(_), io::ErrorKind::NotFound) => {
                "is waypost running, with this socket in [admin] of its configuration? --admin names another"
            }
            (Door::Socket(_), io::ErrorKind::PermissionDenied) => {
                "only the user that runs waypost may use it: try sudo"
            }
            (Door::Socket(_), io::ErrorKind::ConnectionRefused) => {
                "the server that made it has ended: start it again"
            }
            (Door::Tcp(..), io::ErrorKind::ConnectionRefused) => {
                "is waypost running, with this address in [admin.tcp] of its configuration?"
            }
            _ => "check the address",
        };
        Failure::runtime(format!("cannot reach {self}: {error}"), Some(help))
    }
}

enum Stream {
    Socket(UnixStream),
    Tcp(TcpStream),
}

async fn within<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl std::fmt::Display for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Door::Socket(path) => write!(f, "the admin socket {}", path.display()),
            Door::Tcp(authority, _) => write!(f, "http://{authority}"),
        }
    }
}

// === what it says ===

impl Reply {
    /// The answer; a failure where the server has refused the question.
    pub(super) fn accepted(self) -> Result<String, Failure> {
        if self.status.is_success() {
            return Ok(self.text);
        }
        let Ok(Refusal { error, help }) = serde_json::from_str(&self.text) else {
            let title = format!("the server answered {}", self.status);
            return Err(Failure::runtime(title, None));
        };
        // Mistakes in a configuration come drawn, as only the server has seen the file.
        if error.starts_with("error: ") {
            let by_config = self.status == StatusCode::UNPROCESSABLE_ENTITY;
            return Err(Failure::refused(error, by_config));
        }
        Err(Failure::runtime(error, help.as_deref()))
    }

    /// What is different now.
    pub(super) fn changes(self) -> Result<Vec<String>, Failure> {
        let text = self.accepted()?;
        let changes: Changes = serde_json::from_str(&text).map_err(|error| {
            let title = format!("the answer is not understood: {error}");
            Failure::runtime(title, None)
        })?;
        Ok(changes.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(admin: &str, token_file: Option<&Path>) -> Option<String> {
        let door = Door::named(admin, token_file).ok()?;
        Some(door.to_string())
    }

    #[test]
    fn sockets_and_urls_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "0123456789abcdef").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&token, private).unwrap();
        let socket = Some("the admin socket a/b.sock".to_owned());
        assert_eq!(door("a/b.sock", None), socket);
        assert_eq!(door("a/b.sock", Some(&token)), None);
        let tcp = Some("http://localhost:9000".to_owned());
        assert_eq!(door("http://localhost:9000/", Some(&token)), tcp);
        assert_eq!(door("http://localhost:9000", None), None);
        assert_eq!(door("https://localhost:9000", Some(&token)), None);
    }

    #[test]
    fn every_address_is_reached_on_this_machine() {
        for (listening, reached) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("10.1.2.3:9000", "10.1.2.3:9000"),
        ] {
            let address = reachable(listening.parse().unwrap());
            assert_eq!(address.to_string(), reached);
        }
    }

    #[test]
    fn an_answer_is_changes_or_a_failure() {
        let changes = |status, text: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let text = text.to_owned();
            Reply { status, text }.changes().ok()
        };
        let two = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(changes(200, r#"{"changes":["a","b"]}"#), two);
        assert_eq!(changes(200, r#"{"changes":[]}"#), Some(vec![]));
        assert_eq!(changes(200, "<html>"), None);
        assert_eq!(changes(404, r#"{"error":"no","help":null}"#), None);
        assert_eq!(changes(502, "<html>"), None);
    }
}
