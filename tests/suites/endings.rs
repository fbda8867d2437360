//! How the program ends under full load, and how it starts again: nothing that was begun is lost by a SIGTERM, and a
//! SIGKILL at any moment leaves nothing behind that a start could stumble over.
//!
//! `WAYPOST_ENDINGS` says how often:
//! `WAYPOST_ENDINGS=100 cargo test --release -p waypost-tests --test suites -- endings --nocapture`

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use waypost_tests::{servers, within};

use crate::guests::{built_in, remade};
use crate::process::{Program, waypost};

const ENDINGS: u32 = 3;
const CLIENTS: usize = 12;
/// Uploads under way, and as many downloads.
const TRANSFERS: usize = 3;
const TRANSFER_BYTES: usize = 512 * 1024;
const PIECE_BYTES: usize = 16 * 1024;

fn endings() -> u32 {
    std::env::var("WAYPOST_ENDINGS").map_or(ENDINGS, |text| text.parse().expect("a number"))
}

/// What clients have seen.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    transferred: AtomicU64,
    /// Connections that were closed after a response and without the next one, which nobody had announced.
    closed: AtomicU64,
}

// === an origin with bodies to speak of ===

async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Answers until the connection or the test is over.
async fn serve(stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = head(&mut stream).await?;
        let mut body = vec![0; length(&head)];
        stream.read_exact(&mut body).await.ok()?;
        let bytes = match head.starts_with("GET /download ") {
            true => TRANSFER_BYTES,
            false => body.len().min(1),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        send(stream.get_mut(), bytes).await?;
    }
}

/// In pieces, with everything else in between.
async fn send(stream: &mut TcpStream, bytes: usize) -> Option<()> {
    let piece = [b'x'; PIECE_BYTES];
    let mut rest = bytes;
    while rest > 0 {
        let size = rest.min(PIECE_BYTES);
        stream.write_all(&piece[..size]).await.ok()?;
        rest -= size;
        tokio::task::yield_now().await;
    }
    Some(())
}

/// A head with its empty line; `None` where the connection ends before its first byte, or within it.
async fn head(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn length(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths
        .next()
        .map_or(0, |(_, value)| value.parse().expect("a length"))
}

// === clients ===

/// Reads a response and its body to the end. `None` where there is nothing of it.
async fn response(stream: &mut BufReader<TcpStream>) -> Option<String> {
    // Anything between nothing and everything is an error.
    let first = stream.fill_buf().await.map_or(0, <[u8]>::len);
    if first == 0 {
        return None;
    }
    let head = head(stream).await.expect("a whole head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = vec![0; length(&head)];
    stream.read_exact(&mut body).await.expect("a whole body");
    Some(head)
}

/// One request after the other, until the program ends.
async fn ask(address: SocketAddr, tally: Arc<Tally>) {
    while let Ok(stream) = TcpStream::connect(address).await {
        let mut stream = BufReader::new(stream);
        let mut is_first = true;
        loop {
            let sent = stream
                .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                .await;
            let Some(head) = response(&mut stream).await else {
                // A new connection may wait to be accepted when the listener closes; the next one is refused.
                if !is_first {
                    tally.closed.fetch_add(1, Ordering::Relaxed);
                }
                break;
            };
            sent.expect("what is answered was sent");
            tally.answered.fetch_add(1, Ordering::Relaxed);
            is_first = false;
            if head.to_ascii_lowercase().contains("connection: close") {
                break;
            }
        }
    }
}

/// An upload or a download that is under way when this returns; the rest of it comes with the future inside.
async fn transfer(address: SocketAddr, is_upload: bool) -> impl Future<Output = ()> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = match is_upload {
        true => format!(
            "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {TRANSFER_BYTES}\r\n\r\n{}",
            "x".repeat(PIECE_BYTES)
        ),
        false => "GET /download HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(),
    };
    stream
        .write_all(request.as_bytes())
        .await
        .expect("a proxy that reads");
    async move {
        if is_upload {
            let sent = send(&mut stream, TRANSFER_BYTES - PIECE_BYTES).await;
            sent.expect("a proxy that goes on reading");
        }
        let head = response(&mut BufReader::new(stream)).await;
        let bytes = head.as_deref().map(length);
        assert_eq!(bytes, Some(if is_upload { 1 } else { TRANSFER_BYTES }));
    }
}

fn config(policy: &Path, origin: SocketAddr) -> String {
    format!(
        "shards = 2\ncache = \"cache\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n{}\
         [policy.own]\nfile = \"{}\"\n[admin]\nsocket = \"admin.sock\"\n",
        servers(&[origin], "policy = \"own\""),
        policy.display()
    )
}

// === SIGTERM ===

#[tokio::test]
async fn a_termination_under_load_loses_nothing() {
    let tally = Arc::new(Tally::default());
    let origin = origin().await;
    let mut slowest = Duration::ZERO;
    for ending in 0..endings() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = config(&built_in("round-robin"), origin);
        let (program, address) = Program::serve(directory.path(), &text).await;
        let before = tally.answered.load(Ordering::Relaxed);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(ask(address, tally.clone()));
        }
        let mut transfers = Vec::new();
        for index in 0..2 * TRANSFERS {
            transfers.push(transfer(address, index % 2 == 0).await);
        }
        // Another moment each time.
        let enough = before + 300 + u64::from(37 * (ending % 16));
        within("requests to be answered", async {
            while tally.answered.load(Ordering::Relaxed) < enough {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let started = Instant::now();
        program.signal("TERM");
        for transfer in transfers {
            clients.spawn(transfer);
        }
        let all = async {
            while let Some(ended) = clients.join_next().await {
                ended.expect("a client without complaints")
            }
        };
        within("every client", all).await;
        let ended = program.ended().await;
        slowest = slowest.max(started.elapsed());
        assert_eq!(ended.status, Some(0), "{ended:?}");
        assert_eq!(tally.closed.load(Ordering::Relaxed), 0);
        tally
            .transferred
            .fetch_add(2 * TRANSFERS as u64, Ordering::Relaxed);
    }
    println!(
        "{} terminations, the longest took {slowest:.0?}; {tally:?}",
        endings()
    );
}

// === SIGKILL ===

/// Kills it while policies are replaced by its file, compiled and cached, and while requests are under way.
#[tokio::test]
async fn after_a_kill_at_any_moment_it_starts_with_the_last_good_set() {
    let tally = Arc::new(Tally::default());
    let origin = origin().await;
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let policy = directory.join("policy.wasm");
    let code = std::fs::read(built_in("round-robin")).expect("a policy");
    let replace = |number: u32| {
        let next = directory.join("next.wasm");
        std::fs::write(&next, remade(&code, number)).expect("a file");
        std::fs::rename(&next, &policy).expect("a renamed file");
    };
    replace(0);
    let mut starts = Vec::new();
    for ending in 0..=endings() {
        let text = config(&policy, origin);
        let started = Instant::now();
        let (program, address) = Program::serve(directory, &text).await;
        let mut stream = BufReader::new(TcpStream::connect(address).await.expect("a connection"));
        let sent = stream
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            .await;
        sent.expect("a proxy that reads");
        response(&mut stream).await.expect("a response");
        starts.push(started.elapsed());
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(ask_until_killed(address, tally.clone()));
        }
        // A new version is on its way, by its file or by hand, when it is killed.
        let mut push = None;
        if ending % 2 == 0 {
            replace(ending + 1);
        } else {
            let pushed = directory.join("pushed.wasm");
            std::fs::write(&pushed, remade(&code, u32::MAX - ending)).expect("a file");
            push = Some(Program::start(&mut waypost(
                directory,
                &["policy", "push", "own", "pushed.wasm"],
            )));
        }
        let enough = tally.answered.load(Ordering::Relaxed) + 50 + u64::from(211 * (ending % 17));
        within("requests to be answered", async {
            while tally.answered.load(Ordering::Relaxed) < enough {
                tokio::task::yield_now().await;
            }
        })
        .await;
        program.signal("KILL");
        let ended = program.ended().await;
        assert_eq!(ended.status, None, "{ended:?}");
        clients.shutdown().await;
        drop(push);
    }
    starts.sort();
    println!(
        "{} kills; from the start to the first response: median {:.0?}, longest {:.0?}",
        endings(),
        starts[starts.len() / 2],
        starts[starts.len() - 1]
    );
}

/// A killed program owes nobody an answer.
async fn ask_until_killed(address: SocketAddr, tally: Arc<Tally>) -> Option<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.ok()?);
    loop {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            .await
            .ok()?;
        head(&mut stream).await?;
        tally.answered.fetch_add(1, Ordering::Relaxed);
    }
}
