//! Requests of the demo's own: so many as fast as they are answered, or a few all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::origins::GREETING;

/// Keep-alive connections that [`drive`] uses at once.
pub(super) const CONNECTIONS: u32 = 16;
/// Requests a second of [`trickle`]: enough for the numbers to move, little beside what a user sends.
pub(super) const TRICKLE_PER_SECOND: u32 = 50;
/// Connections of [`trickle`]: enough that a slow origin holds up no other request.
const TRICKLE_CONNECTIONS: u32 = 8;
/// Until a request counts as failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The origins answer with less.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
    pub(super) elapsed: Duration,
}

/// Requests under way. Dropping it stops them.
pub(super) struct Driver {
    workers: JoinSet<Tally>,
    started: Instant,
}

/// Sends `requests` requests, each as soon as one of the connections is free for it.
pub(super) fn drive(address: SocketAddr, requests: u64) -> Driver {
    let mut workers = JoinSet::new();
    let next = Arc::new(AtomicU64::new(0));
    for _ in 0..CONNECTIONS {
        let next = next.clone();
        workers.spawn(async move {
            let mut client = Client::new(address);
            let mut tally = Tally::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return tally;
                }
                tally.note(client.get(number).await);
            }
        });
    }
    Driver {
        workers,
        started: Instant::now(),
    }
}

impl Driver {
    /// Waits for the last response.
    pub(super) async fn finish(&mut self) -> Tally {
        let mut total = Tally::default();
        while let Some(tally) = self.workers.join_next().await {
            match tally {
                Ok(tally) => total.add(tally),
                Err(error) => total.note(Err(error.into())),
            }
        }
        total.elapsed = self.started.elapsed();
        total
    }
}

/// Sends a request now and then until the result is dropped. What becomes of them is in the table.
pub(super) fn trickle(address: SocketAddr) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    let period = Duration::from_secs(1) * TRICKLE_CONNECTIONS / TRICKLE_PER_SECOND;
    for worker in 0..TRICKLE_CONNECTIONS {
        // Each at its own moment of the period.
        let start = tokio::time::Instant::now() + period * worker / TRICKLE_CONNECTIONS;
        workers.spawn(async move {
            let mut client = Client::new(address);
            let mut ticks = tokio::time::interval_at(start, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0.. {
                ticks.tick().await;
                let _ = client.get(number).await;
            }
        });
    }
    workers
}

impl Tally {
    fn note(&mut self, result: anyhow::Result<()>) {
        self.sent += 1;
        if let Err(error) = result {
            self.failed += 1;
            self.first_failure
                .get_or_insert_with(|| format!("{error:#}"));
        }
    }

    fn add(&mut self, other: Tally) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

/// A client with one connection, made again whenever it has ended.
struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        Client {
            address,
            sender: None,
        }
    }

    /// Sends a request and checks what comes back.
    async fn get(&mut self, number: u64) -> anyhow::Result<()> {
        // Kept for the next request only if nothing goes wrong with this one.
        let sender = self.sender.take();
        let exchange = tokio::time::timeout(TIMEOUT, exchange(self.address, sender, number));
        let sender = exchange
            .await
            .with_context(|| format!("no response within {TIMEOUT:?}"))??;
        self.sender = Some(sender);
        Ok(())
    }
}

async fn exchange(
    address: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
    number: u64,
) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let mut sender = match still_open(sender).await {
        Some(sender) => sender,
        None => connect(address).await?,
    };
    let request = Request::get(format!("/demo/{number}"))
        .header(HOST, address.to_string())
        .body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => bail!("the response ended early: {error}"),
    };
    ensure!(status == StatusCode::OK, "status {status}");
    ensure!(
        body.starts_with(GREETING.as_bytes()),
        "a response that no origin sent"
    );
    Ok(sender)
}

async fn still_open(
    sender: Option<SendRequest<Empty<Bytes>>>,
) -> Option<SendRequest<Empty<Bytes>>> {
    let mut sender = sender?;
    sender.ready().await.ok()?;
    Some(sender)
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await.context("no connection")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender; what goes wrong with it, a request notices.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::super::origins::Origins;
    use super::*;

    #[tokio::test]
    async fn every_request_is_sent_once_and_checked() {
        let origins = Origins::start().unwrap();
        let address = origins.all().next().unwrap().address;
        let tally = drive(address, 100).finish().await;
        assert_eq!((tally.sent, tally.failed), (100, 0), "{tally:?}");
    }

    #[tokio::test]
    async fn failures_are_counted_and_the_first_is_kept() {
        let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let tally = drive(address, 20).finish().await;
        assert_eq!((tally.sent, tally.failed), (20, 20));
        let first = tally.first_failure.unwrap();
        assert!(first.starts_with("no connection: "), "{first}");
    }
}
