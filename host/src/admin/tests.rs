//! The admin server over real sockets, with a target that only takes notes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::config::AdminTcp;

const TOKEN: &str = "0123456789abcdef";

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Target for Notes {
    fn status(&self) -> Status {
        Status::default()
    }

    async fn change(&self, change: Change) -> Result<Report, ControlError> {
        let note = change.to_string();
        self.0.lock().unwrap().push(note.clone());
        if note.starts_with("rollback of unknown") {
            return Err(ControlError::Unknown(
                "there is no policy unknown".to_owned(),
            ));
        }
        assert!(!note.contains("panic"), "as asked");
        tokio::task::yield_now().await;
        Ok(Report {
            changes: vec![note],
        })
    }
}

struct Fixture {
    notes: Notes,
    guard: AdminGuard,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

async fn start() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    fs::write(&token_file, TOKEN).unwrap();
    fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600)).unwrap();
    let socket = directory.path().join("admin.sock");
    let admin = config::Admin {
        socket: Some(socket.clone()),
        tcp: Some(AdminTcp {
            address: "127.0.0.1:0".parse().unwrap(),
            token_file,
        }),
    };
    check(&admin).unwrap();
    let notes = Notes::default();
    let guard = open(&admin, notes.clone(), None).await.unwrap();
    Fixture {
        notes,
        guard,
        socket,
        _directory: directory,
    }
}

/// Sends bytes and reads to the end.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

impl Fixture {
    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> String {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        exchange(stream, &[head.as_bytes(), body].concat()).await
    }

    async fn ask_tcp(&self, fields: &str) -> String {
        let address = self.guard.tcp_address().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /reload HTTP/1.1\r\n{fields}\r\n");
        exchange(stream, head.as_bytes()).await
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.0.lock().unwrap())
    }
}

#[tokio::test]
async fn every_change_is_asked_for_by_its_path() {
    let fixture = start().await;
    for (path, body, note) in [
        ("/reload", "", "reload"),
        ("/policies/sticky", "code", "push of sticky, 4 bytes"),
        ("/policies/sticky/rollback", "", "rollback of sticky"),
        (
            "/upstreams/app/backends/127.0.0.1:3000",
            r#"{"state": "drain"}"#,
            "drain for 127.0.0.1:3000 of app",
        ),
        (
            "/upstreams/app/backends/first",
            r#"{"weight": 5}"#,
            "weight 5 for first of app",
        ),
    ] {
        let answer = fixture.ask("POST", path, body.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let expected = format!("{{\"changes\":[{note:?}]}}\n");
        assert!(answer.ends_with(&expected), "{answer}");
        assert_eq!(fixture.notes(), [note]);
    }
    let answer = fixture.ask("GET", "/status", b"").await;
    assert!(
        answer.contains("content-type: application/json"),
        "{answer}"
    );
    assert!(answer.contains("\"uptime_seconds\": 0.0"), "{answer}");
}

#[tokio::test]
async fn what_is_wrong_changes_nothing() {
    let fixture = start().await;
    let large = vec![0; CODE_BYTES_MAX + 1];
    for (method, path, body, start) in [
        ("GET", "/reload", &b""[..], "HTTP/1.1 405 "),
        ("POST", "/nothing", b"", "HTTP/1.1 404 "),
        ("POST", "/reload", &large[..16385], "HTTP/1.1 413 "),
        ("POST", "/policies/sticky", &large, "HTTP/1.1 413 "),
        ("POST", "/upstreams/app/backends/a", b"{}", "HTTP/1.1 400 "),
    ] {
        let answer = fixture.ask(method, path, body).await;
        assert!(answer.starts_with(start), "{method} {path}: {answer}");
        assert!(answer.contains("{\"error\":\""), "{answer}");
    }
    assert_eq!(fixture.notes(), [""; 0]);
    let answer = fixture.ask("GET", "/reload", b"").await;
    assert!(answer.contains("\r\nallow: POST\r\n"), "{answer}");

    let answer = fixture.ask("POST", "/policies/unknown/rollback", b"").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains("there is no policy unknown"), "{answer}");
    let answer = fixture.ask("POST", "/policies/panic/rollback", b"").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
}

#[tokio::test]
async fn over_tcp_only_the_token_opens() {
    let fixture = start().await;
    let host = "Host: localhost\r\n";
    for (fields, status) in [
        (host.to_owned(), 401),
        (format!("{host}Authorization: Bearer wrong\r\n"), 401),
        (
            format!("{host}Authorization: Bearer {TOKEN}\r\nOrigin: null\r\n"),
            403,
        ),
        (
            format!("Host: evil.example\r\nAuthorization: Bearer {TOKEN}\r\n"),
            403,
        ),
    ] {
        let answer = fixture.ask_tcp(&fields).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert_eq!(fixture.notes(), [""; 0]);
        let asks = answer.contains("\r\nwww-authenticate: Bearer\r\n");
        assert_eq!(asks, status == 401, "{answer}");
    }
    let fields = format!("{host}Authorization: Bearer {TOKEN}\r\n");
    let answer = fixture.ask_tcp(&fields).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(fixture.notes(), ["reload"]);
}

/// Whoever asks need not stay.
#[tokio::test]
async fn a_change_is_made_although_its_caller_leaves() {
    let fixture = start().await;
    let mut stream = UnixStream::connect(&fixture.socket).await.unwrap();
    stream
        .write_all(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    drop(stream);
    while fixture.notes().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_stays_without_asking() {
    let fixture = start().await;
    for sent in [
        "",
        "POST /reload HTTP/1.1\r\n",
        "POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
    ] {
        let stream = UnixStream::connect(&fixture.socket).await.unwrap();
        let answer = exchange(stream, sent.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
    }
    assert_eq!(fixture.notes(), [""; 0]);
}

#[tokio::test]
async fn the_end_of_the_guard_ends_everything() {
    let fixture = start().await;
    let mut idle = UnixStream::connect(&fixture.socket).await.unwrap();
    fixture.ask("GET", "/status", b"").await;
    let address = fixture.guard.tcp_address().unwrap();
    drop(fixture.guard);
    assert!(!fixture.socket.exists());
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).await.unwrap_or_default(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn half_a_start_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let admin = config::Admin {
        socket: Some(directory.path().join("admin.sock")),
        tcp: Some(AdminTcp {
            address: "127.0.0.1:0".parse().unwrap(),
            token_file: directory.path().join("none"),
        }),
    };
    let opened = open(&admin, Notes::default(), None).await;
    assert!(matches!(opened, Err(AdminError::Token(_))));
    assert!(matches!(check(&admin), Err(AdminError::Token(_))));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
