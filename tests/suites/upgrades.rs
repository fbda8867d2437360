//! Tunnels, and what must not become one.

use waypost_tests::{Client, End, Origin, Proxy, Visit, servers, until};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Key: x\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: y\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno";
/// A request that hides behind one for an upgrade.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: test\r\nProxy-Authorization: x\r\n\r\n";

/// A backend that agrees and then sends back every byte, until the other side ends.
async fn echoing() -> Origin {
    Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit.send(AGREED).await;
        loop {
            let piece = visit.wire.reader.some().await;
            if piece.is_empty() {
                return;
            }
            visit.send(piece).await;
        }
    })
    .await
}

async fn nothing_in_flight(proxy: &Proxy) {
    proxy
        .reaches("nothing in flight", |status| {
            status.upstreams[0].backends[0].in_flight == 0
        })
        .await;
}

// === tunnels ===

#[tokio::test]
async fn an_agreed_upgrade_becomes_a_tunnel() {
    let origin = echoing().await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let agreed = client.ask(HANDSHAKE).await;
    assert_eq!(agreed.head.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(
        agreed
            .field("connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("upgrade")
    );
    assert_eq!(agreed.field("upgrade"), Some("websocket"));
    assert_eq!(agreed.field("sec-websocket-accept"), Some("y"));
    assert!(!agreed.head.has("content-length") && !agreed.head.has("transfer-encoding"));
    for message in ["one", "two", "GET / HTTP/1.1\r\n\r\n", "\0\u{ff}"] {
        client.send(message).await;
        assert_eq!(
            client.wire.reader.exactly(message.len()).await,
            message.as_bytes()
        );
    }
    assert_eq!(proxy.backend(0).in_flight, 1);
    let request = origin.only_request();
    assert_eq!(
        request
            .field("connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("upgrade")
    );
    assert_eq!(
        request
            .field("upgrade")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("websocket")
    );
    assert_eq!(request.field("sec-websocket-key"), Some("x"));
    assert_eq!(request.field("via"), Some("1.1 waypost"));
    drop(client);
    until("the backend to be left", || origin.open() == 0).await;
    nothing_in_flight(&proxy).await;
    assert_eq!(proxy.backend(0).failures, 0);
}

#[tokio::test]
async fn bytes_that_come_early_are_not_lost() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit.send(format!("{AGREED}early from the backend")).await;
        let early = visit
            .wire
            .reader
            .exactly("early from the client".len())
            .await;
        visit.send(early).await;
        visit.closed().await;
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let agreed = client
        .ask(format!("{HANDSHAKE}early from the client"))
        .await;
    assert_eq!(agreed.status(), 101);
    let expected = "early from the backendearly from the client";
    let received = client.wire.reader.exactly(expected.len()).await;
    assert_eq!(String::from_utf8_lossy(&received), expected);
}

#[tokio::test]
async fn large_messages_go_both_ways_at_once() {
    use tokio::io::AsyncWriteExt as _;

    let origin = echoing().await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(HANDSHAKE).await.status(), 101);
    let sent: Vec<u8> = (0..1_000_003_u32)
        .map(|at| (at % 251) as u8)
        .collect::<Vec<u8>>()
        .repeat(8);
    let wire = &mut client.wire;
    let (written, received) = tokio::join!(
        wire.writer.write_all(&sent),
        wire.reader.exactly(sent.len())
    );
    written.expect("the proxy takes what is sent");
    assert!(received == sent, "the bytes came back changed");
}

#[tokio::test]
async fn a_half_close_by_the_client_is_passed_on() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit.send(AGREED).await;
        assert_eq!(
            visit.wire.reader.rest().await,
            (b"hello".to_vec(), End::Closed)
        );
        visit.send("and goodbye").await;
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(HANDSHAKE).await.status(), 101);
    client.send("hello").await;
    client.wire.finish().await;
    assert_eq!(
        client.wire.reader.rest().await,
        (b"and goodbye".to_vec(), End::Closed)
    );
    nothing_in_flight(&proxy).await;
}

#[tokio::test]
async fn a_half_close_by_the_backend_is_passed_on() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit.send(AGREED).await;
        visit.send("hello").await;
        visit.wire.finish().await;
        assert_eq!(
            visit.wire.reader.rest().await,
            (b"and goodbye".to_vec(), End::Closed)
        );
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(HANDSHAKE).await.status(), 101);
    assert_eq!(
        client.wire.reader.rest().await,
        (b"hello".to_vec(), End::Closed)
    );
    client.send("and goodbye").await;
    client.wire.finish().await;
    until("the backend to be done", || origin.open() == 0).await;
    nothing_in_flight(&proxy).await;
}

#[tokio::test]
async fn a_backend_that_breaks_ends_the_tunnel() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit.send(AGREED).await;
        visit.wire.reader.exactly(5).await;
        visit.reset();
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(HANDSHAKE).await.status(), 101);
    client.send("hello").await;
    client.ended().await;
    nothing_in_flight(&proxy).await;
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed() {
    let origin = echoing().await;
    let proxy = Proxy::start(&servers(&[origin.address()], "idle_timeout = \"200ms\"")).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(HANDSHAKE).await.status(), 101);
    client.send("hello").await;
    assert_eq!(client.wire.reader.exactly(5).await, b"hello");
    client.ended().await;
    until("the backend to be left", || origin.open() == 0).await;
    nothing_in_flight(&proxy).await;
}

#[tokio::test]
async fn a_tunnels_connection_is_not_used_again() {
    let origin = echoing().await;
    let proxy = Proxy::before(&[&origin]).await;
    for count in 1..=3 {
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.ask(HANDSHAKE).await.status(), 101);
        assert_eq!(origin.connections(), count);
    }
    until("the backend to be left", || origin.open() == 0).await;
}

#[tokio::test]
async fn any_configured_protocol_is_tunnelled() {
    let origin = Origin::start(|mut visit: Visit| async move {
        let head = visit.head().await.expect("a request");
        assert_eq!(head.field("upgrade"), Some("chat"));
        visit.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nhello").await;
    })
    .await;
    let route = "[[route]]\nupstream = \"app\"\nupgrades = [\"chat\"]\n";
    let proxy = Proxy::start(&format!("{}{route}", servers(&[origin.address()], ""))).await;
    let mut client = Client::connect(&proxy).await;
    let agreed = client
        .ask("GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n")
        .await;
    assert_eq!(agreed.status(), 101);
    assert_eq!(client.wire.reader.exactly(5).await, b"hello");
}

// === what is none ===

/// The case of CVE-2026-2833: what follows a request for an upgrade is the next request until the backend has agreed.
#[tokio::test]
async fn without_a_101_the_next_bytes_are_a_request() {
    let origin = Origin::respond(REFUSED).await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    client.send(format!("{HANDSHAKE}{SECOND}")).await;
    assert_eq!(client.response().await.text(), "no");
    assert_eq!(client.response().await.text(), "no");
    let requests = origin.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].target(), "/chat");
    assert_eq!(
        requests[0]
            .field("upgrade")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("websocket")
    );
    // It went through the proxy like any other, not around it.
    assert_eq!(requests[1].target(), "/second");
    assert_eq!(requests[1].field("via"), Some("1.1 waypost"));
    assert!(!requests[1].head.has("proxy-authorization") && !requests[1].head.has("upgrade"));
}

#[tokio::test]
async fn what_is_not_listed_is_not_forwarded() {
    let rows = [
        (
            "",
            "1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
        ),
        (
            "",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        ),
        (
            "",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        ),
        (
            "",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket/13\r\n",
        ),
        ("", "1.1", "Upgrade: websocket\r\n"),
        ("", "1.1", "Connection: Upgrade\r\n"),
        (
            "",
            "1.0",
            "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
        ),
        (
            "upgrades = []",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        ),
        (
            "upgrades = [\"chat\"]",
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        ),
    ];
    for (keys, version, fields) in rows {
        let origin = Origin::respond(REFUSED).await;
        let route = format!("[[route]]\nupstream = \"app\"\n{keys}\n");
        let proxy = Proxy::start(&format!("{}{route}", servers(&[origin.address()], ""))).await;
        let mut client = Client::connect(&proxy).await;
        let response = client
            .ask(format!(
                "GET / HTTP/{version}\r\nHost: test\r\n{fields}\r\n"
            ))
            .await;
        assert_eq!(response.text(), "no", "{fields}");
        let request = origin.only_request();
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(request.field(name), None, "{fields}");
        }
        // The connection is as it was.
        assert_eq!(client.get("/").await.text(), "no", "{fields}");
        assert_eq!(origin.connections(), 1, "{fields}");
    }
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_an_error() {
    let rows = [
        ("GET / HTTP/1.1\r\nHost: test\r\n\r\n", AGREED),
        (
            "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            AGREED,
        ),
        (
            HANDSHAKE,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        ),
        (HANDSHAKE, "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ];
    for (request, answer) in rows {
        let origin = Origin::respond(format!("{answer}secret")).await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        let response = client.ask(request).await;
        assert_eq!(response.status(), 502, "{request}{answer}");
        assert!(!response.text().contains("secret"));
        until("the backend to be left", || origin.open() == 0).await;
        nothing_in_flight(&proxy).await;
        // Only the exchange has failed.
        assert_eq!(client.get("/").await.status(), 502);
    }
}
