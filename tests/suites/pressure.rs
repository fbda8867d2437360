//! Readers that are slow: whoever sends to them has to wait, and the proxy holds next to nothing in between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use waypost_tests::{Client, Origin, Proxy, Visit, Wire, settled, until};

const QUIET: Duration = Duration::from_millis(300);

/// Writes until the other side stops reading, or is gone.
async fn flood(mut wire: Wire, written: Arc<AtomicU64>) {
    let piece = vec![b'x'; 16 * 1024];
    while wire.writer.write_all(&piece).await.is_ok() {
        written.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
}

/// What the proxy itself may hold of one body: a few buffers of its largest size (64 KiB). Measured: 80 KB of a response,
/// 230 KB of a request.
const WINDOW: u64 = 512 * 1024;

/// Bytes that the system holds of all connections to these addresses, at both ends. What was written and is not in
/// there is held by whoever is in between.
fn queued(addresses: &[SocketAddr]) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    let ports: Vec<String> = addresses
        .iter()
        .map(|address| format!(":{:04X}", address.port()))
        .collect();
    let concerns = |end: &str| ports.iter().any(|port| end.ends_with(port));
    let mut total = 0;
    for line in table.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        // local, remote, state, queues; 0A is a listener.
        if (concerns(columns[1]) || concerns(columns[2])) && columns[3] != "0A" {
            let queues = columns[4]
                .split(':')
                .map(|queue| u64::from_str_radix(queue, 16).expect("a number"));
            total += queues.sum::<u64>();
        }
    }
    total
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_backend() {
    let written = Arc::new(AtomicU64::new(0));
    let origin = Origin::start({
        let written = written.clone();
        move |mut visit: Visit| {
            let written = written.clone();
            async move {
                visit.request().await;
                visit
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
                    .await;
                flood(visit.wire, written).await;
            }
        }
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    client.send_get("/").await;
    let held = settled("the backend", QUIET, || written.load(Ordering::SeqCst)).await;
    let by_proxy = held.saturating_sub(queued(&[proxy.address(), origin.address()]));
    assert!(
        by_proxy <= WINDOW,
        "{by_proxy} of {held} bytes held by the proxy"
    );
    // And the other way round: reading lets it go on.
    client.wire.reader.exactly(4 * 1024 * 1024).await;
    until("the backend to go on", || {
        written.load(Ordering::SeqCst) > held
    })
    .await;
    drop(client);
    until("the backend to be left", || origin.open() == 0).await;
}

#[tokio::test]
async fn a_backend_that_does_not_read_stops_the_client() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        std::future::pending().await
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10000000000\r\n\r\n")
        .await;
    let written = Arc::new(AtomicU64::new(0));
    let flood = tokio::spawn(flood(client.wire, written.clone()));
    let held = settled("the client", QUIET, || written.load(Ordering::SeqCst)).await;
    let by_proxy = held.saturating_sub(queued(&[proxy.address(), origin.address()]));
    assert!(
        by_proxy <= WINDOW,
        "{by_proxy} of {held} bytes held by the proxy"
    );
    flood.abort();
}
