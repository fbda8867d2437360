//! Drain, and the death and replacement of shards.

use std::time::Duration;

use tokio::net::TcpStream;
use waypost_tests::{Client, Origin, PATIENCE, Proxy, Visit, servers, until, within};

// === drain ===

#[tokio::test]
async fn a_drain_lets_requests_finish() {
    for shards in [1, 2] {
        let (origin, gate) = Origin::gated("a").await;
        let mut proxy = Proxy::start(&format!(
            "shards = {shards}\n{}",
            servers(&[origin.address()], "")
        ))
        .await;
        let mut busy = Vec::new();
        for count in 1..=6 {
            let mut client = Client::connect(&proxy).await;
            client.send_get("/").await;
            origin.received(count).await;
            busy.push(client);
        }
        let mut idle = Client::connect(&proxy).await;
        let mut kept = Client::connect(&proxy).await;
        gate.release(1);
        // Whoever is first in the queue of the gate.
        kept.send_get("/").await;
        origin.received(7).await;
        proxy
            .reaches("six in flight", |status| {
                status.upstreams[0].backends[0].in_flight == 6
            })
            .await;
        let finish = async {
            // That those without a request are closed shows that the drain has begun.
            idle.closed().await;
            gate.open();
            for client in busy.iter_mut().chain([&mut kept]) {
                let response = client.response().await;
                assert_eq!((response.status(), response.origin()), (200, "a"));
                client.closed().await;
            }
        };
        let (ended, ()) = tokio::join!(proxy.shutdown(PATIENCE), finish);
        assert!(ended, "all was over, and the proxy did not notice");
        assert_eq!(proxy.status().connections, 0);
    }
}

#[tokio::test]
async fn a_drain_closes_connections_between_requests() {
    let origin = Origin::echo("a").await;
    let mut proxy = Proxy::before(&[&origin]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.get("/").await.status(), 200);
        clients.push(client);
    }
    assert!(proxy.shutdown(PATIENCE).await);
    for client in &mut clients {
        client.closed().await;
    }
    until("the backend to be left", || origin.open() == 0).await;
}

#[tokio::test]
async fn a_drain_tells_the_client_that_its_response_is_the_last() {
    let (origin, gate) = Origin::gated("a").await;
    let mut proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let mut idle = Client::connect(&proxy).await;
    client.send_get("/").await;
    origin.received(1).await;
    let finish = async {
        idle.closed().await;
        gate.open();
        let response = client.response().await;
        assert_eq!(response.field("connection"), Some("close"));
        client.closed().await;
    };
    assert!(tokio::join!(proxy.shutdown(PATIENCE), finish).0);
}

#[tokio::test]
async fn a_drain_takes_no_new_connections() {
    let (origin, gate) = Origin::gated("a").await;
    let mut proxy = Proxy::before(&[&origin]).await;
    let address = proxy.address();
    let mut client = Client::connect(&proxy).await;
    let mut idle = Client::connect(&proxy).await;
    client.send_get("/").await;
    origin.received(1).await;
    let finish = async {
        idle.closed().await;
        // One request is still under way, for as long as its grace lasts. Nobody else may wait for that.
        within("a new connection to be turned away", async {
            loop {
                match TcpStream::connect(address).await {
                    Err(_) => return,
                    Ok(stream) => {
                        let mut late = waypost_tests::Wire::new(stream);
                        late.reader.rest().await;
                    }
                }
            }
        })
        .await;
        gate.open();
        assert_eq!(client.response().await.status(), 200);
    };
    assert!(tokio::join!(proxy.shutdown(PATIENCE * 2), finish).0);
}

#[tokio::test]
async fn a_drain_lets_bodies_finish() {
    let (gate, held) = {
        let gate = waypost_tests::Gate::shut();
        (gate.clone(), gate)
    };
    let origin = Origin::start(move |mut visit: Visit| {
        let held = held.clone();
        async move {
            visit.request().await;
            visit
                .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                .await;
            held.pass().await;
            visit.send("world").await;
        }
    })
    .await;
    let mut proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let mut idle = Client::connect(&proxy).await;
    client.send_get("/").await;
    let head = client.wire.reader.head().await;
    assert_eq!(head.status(), 200);
    let finish = async {
        idle.closed().await;
        gate.open();
        assert_eq!(client.wire.reader.exactly(10).await, b"helloworld");
        client.closed().await;
    };
    assert!(tokio::join!(proxy.shutdown(PATIENCE), finish).0);
}

#[tokio::test]
async fn a_tunnel_is_under_way_until_it_ends() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        visit.closed().await;
    })
    .await;
    let mut proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let upgrade =
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(client.ask(upgrade).await.status(), 101);
    assert!(!proxy.shutdown(Duration::from_millis(100)).await);
    drop(client);
    assert!(proxy.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn a_shard_that_dies_does_not_hold_up_the_drain() {
    let origin = Origin::echo("a").await;
    for _ in 0..10 {
        let mut proxy =
            Proxy::start(&format!("shards = 2\n{}", servers(&[origin.address()], ""))).await;
        // Both orders go to the shard that dies of the first; its successor has to hear of the second.
        proxy.crash_shard(0);
        assert!(proxy.shutdown(PATIENCE).await);
    }
}

#[tokio::test]
async fn a_grace_that_runs_out_is_reported() {
    let origin = Origin::silent().await;
    let mut proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    client.send_get("/").await;
    origin.received(1).await;
    assert!(!proxy.shutdown(Duration::from_millis(100)).await);
    assert_eq!(proxy.backend(0).in_flight, 1);
    drop(proxy);
    client.ended().await;
    until("the backend to be left", || origin.open() == 0).await;
}

#[tokio::test]
async fn without_anything_under_way_a_drain_needs_no_grace() {
    let origin = Origin::echo("a").await;
    for shards in [1, 3] {
        let mut proxy = Proxy::start(&format!(
            "shards = {shards}\n{}",
            servers(&[origin.address()], "")
        ))
        .await;
        assert!(within("the drain", proxy.shutdown(Duration::from_secs(3600))).await);
    }
}

#[tokio::test]
async fn a_dropped_proxy_frees_its_port() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let address = proxy.address();
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.get("/").await.status(), 200);
    drop(proxy);
    client.ended().await;
    within("the port to be free", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

// === shards ===

#[tokio::test]
async fn connections_are_spread_over_the_shards_and_one_of_them_may_die() {
    const CLIENTS: usize = 64;
    let origin = Origin::echo("a").await;
    let proxy = Proxy::start(&format!("shards = 2\n{}", servers(&[origin.address()], ""))).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.get("/").await.status(), 200);
        clients.push(client);
    }
    assert_eq!(proxy.status().connections, CLIENTS as u64);
    proxy.crash_shard(1);
    proxy
        .reaches("the shard to be replaced", |status| {
            status.shards_replaced == 1
        })
        .await;
    proxy
        .reaches("its connections to be gone", |status| {
            status.connections < CLIENTS as u64
        })
        .await;
    let survivors = proxy.status().connections as usize;
    let mut served = 0;
    for client in &mut clients {
        let _ = client
            .wire
            .try_send("GET /again HTTP/1.1\r\nHost: test\r\n\r\n")
            .await;
        if client.wire.reader.try_head().await.is_ok() {
            served += 1;
        }
    }
    assert_eq!(served, survivors);
    // By chance one in 2^63 would have them all on one shard.
    assert!((1..CLIENTS).contains(&served), "{served} of {CLIENTS}");
    // Both serve again, the old one and the new one.
    for _ in 0..CLIENTS {
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.get("/").await.status(), 200);
    }
    let status = proxy.status();
    assert_eq!((status.shards, status.shards_replaced), (2, 1));
}

#[tokio::test]
async fn a_shard_that_dies_leaves_nothing_in_flight() {
    let origin = Origin::silent().await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut clients = Vec::new();
    for count in 1..=8 {
        let mut client = Client::connect(&proxy).await;
        client.send_get("/").await;
        origin.received(count).await;
        clients.push(client);
    }
    assert_eq!(proxy.backend(0).in_flight, 8);
    proxy.crash_shard(0);
    for client in &mut clients {
        client.ended().await;
    }
    proxy
        .reaches("nothing in flight", |status| {
            status.upstreams[0].backends[0].in_flight == 0
        })
        .await;
    until("the backend to be left", || origin.open() == 0).await;
    proxy
        .reaches("the shard to be replaced", |status| {
            status.shards_replaced == 1
        })
        .await;
    assert_eq!(proxy.status().connections, 0);
}

#[tokio::test]
async fn nobody_is_refused_while_a_shard_is_replaced() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    for crashes in 1..=5 {
        proxy.crash_shard(0);
        // Whoever comes now waits in the queue of the sockets, which outlive the shard.
        let mut clients = Vec::new();
        for _ in 0..10 {
            let client = Client::try_connect(&proxy).await;
            clients.push(client.expect("a place in the queue"));
        }
        proxy
            .reaches("the shard to be replaced", |status| {
                status.shards_replaced == crashes
            })
            .await;
        let mut served = 0;
        for client in &mut clients {
            let get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
            let _ = client.wire.try_send(get).await;
            served += u64::from(client.wire.reader.try_head().await.is_ok());
        }
        // The dead shard may have taken some in before it came to its order; all others have found the new one.
        assert_eq!(served, proxy.status().accepted);
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.get("/").await.status(), 200);
    }
}

#[tokio::test]
async fn a_replaced_shard_drains_like_any_other() {
    let (origin, gate) = Origin::gated("a").await;
    let mut proxy =
        Proxy::start(&format!("shards = 2\n{}", servers(&[origin.address()], ""))).await;
    proxy.crash_shard(0);
    proxy.crash_shard(1);
    proxy
        .reaches("the shards to be replaced", |status| {
            status.shards_replaced == 2
        })
        .await;
    let mut client = Client::connect(&proxy).await;
    let mut idle = Client::connect(&proxy).await;
    client.send_get("/").await;
    origin.received(1).await;
    let finish = async {
        idle.closed().await;
        gate.open();
        assert_eq!(client.response().await.status(), 200);
    };
    assert!(tokio::join!(proxy.shutdown(PATIENCE), finish).0);
}
