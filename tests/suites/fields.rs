//! Header fields: what is taken off, put on and passed through; `Expect`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use waypost_tests::{Client, Origin, Proxy, Request, Visit, servers};

/// What the backend gets where the client sends these lines.
async fn forwarded(config: &str, head: &str) -> Request {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::start(&format!("{}{config}", servers(&[origin.address()], ""))).await;
    let mut client = Client::connect(&proxy).await;
    let response = client.ask(format!("{head}\r\n")).await;
    assert_eq!(response.status(), 200, "{head}");
    origin.only_request()
}

/// What every backend gets, beside the fields that the client has sent.
const OURS: [&str; 5] = [
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

fn with_ours(names: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = names
        .iter()
        .chain(&OURS)
        .map(|name| (*name).to_owned())
        .collect();
    all.sort_unstable();
    all
}

// === hop by hop ===

#[tokio::test]
async fn a_request_loses_what_concerns_one_connection_only() {
    let request = forwarded(
        "",
        "GET / HTTP/1.1\r\nHost: test\r\nAccept: */*\r\nConnection: keep-alive, X-One\r\nconnection: x-two ,,X-Three\r\n\
         X-One: 1\r\nX-Two: 2\r\nX-Two: 2\r\nX-Three: 3\r\nX-Four: 4\r\nKeep-Alive: timeout=5\r\nTE: trailers, gzip\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic eDp5\r\nProxy-Authenticate: Basic\r\nUser-Agent: x\r\n",
    )
    .await;
    assert_eq!(
        request.head.names(),
        with_ours(&["accept", "host", "user-agent", "x-four"])
    );
}

#[tokio::test]
async fn a_response_loses_what_concerns_one_connection_only() {
    let origin = Origin::respond(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-One\r\nConnection: x-two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\
         Server: x\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let response = Client::connect(&proxy).await.get("/").await;
    assert_eq!(
        response.head.names(),
        ["content-length", "date", "server", "x-three"]
    );
    assert_eq!(
        response.field("date"),
        Some("Sun, 06 Nov 1994 08:49:37 GMT")
    );
    assert_eq!(response.field("server"), Some("x"));
}

#[tokio::test]
async fn connection_cannot_name_away_what_a_message_needs() {
    let request = forwarded(
        "",
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close, host, content-length, transfer-encoding\r\n\
         Connection: cookie, authorization\r\nCookie: a=b\r\nAuthorization: c\r\nContent-Length: 0\r\n",
    )
    .await;
    assert_eq!(
        request.head.names(),
        with_ours(&["authorization", "content-length", "cookie", "host"])
    );
}

#[tokio::test]
async fn connection_cannot_name_away_what_the_proxy_adds() {
    let request = forwarded(
        "",
        "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 1.2.3.4\r\n\
         Connection: close, x-forwarded-for, x-forwarded-host, x-forwarded-proto, x-real-ip, via\r\n",
    )
    .await;
    assert_eq!(request.head.names(), with_ours(&["host"]));
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn values_arrive_as_they_were_sent() {
    let request = forwarded(
        "",
        "GET / HTTP/1.1\r\nHost: test\r\nX-Utf8: caf\u{e9}\r\nX-Tab: a\tb\r\nX-Quoted: \"a, b\"; c\r\nX-Spaces:   a  b \t\r\nX-Empty:\r\n",
    )
    .await;
    // The harness has one character per byte.
    assert_eq!(request.field("x-utf8"), Some("caf\u{c3}\u{a9}"));
    assert_eq!(request.field("x-tab"), Some("a\tb"));
    assert_eq!(request.field("x-quoted"), Some("\"a, b\"; c"));
    assert_eq!(request.field("x-spaces"), Some("a  b"));
    assert_eq!(request.field("x-empty"), Some(""));
}

// === where a request came from ===

const CLAIMS: &str = "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: claimed\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n";

#[tokio::test]
async fn a_client_cannot_say_where_it_came_from() {
    for config in [
        "",
        "[forwarded]\ntrusted = [\"10.0.0.0/8\", \"127.0.0.2\", \"::1\"]\n",
    ] {
        let request = forwarded(config, CLAIMS).await;
        assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.field("x-forwarded-proto"), Some("http"));
        assert_eq!(request.field("x-forwarded-host"), Some("test"));
        assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
        assert_eq!(request.field("forwarded"), None);
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added_to() {
    let trusted = "[forwarded]\ntrusted = [\"10.0.0.0/8\", \"127.0.0.0/8\"]\n";
    let request = forwarded(trusted, CLAIMS).await;
    assert_eq!(
        request.field("x-forwarded-for"),
        Some("1.2.3.4, 5.6.7.8, 127.0.0.1")
    );
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-forwarded-host"), Some("claimed"));
    assert_eq!(request.field("x-real-ip"), Some("1.2.3.4"));
    assert_eq!(request.field("forwarded"), Some("for=1.2.3.4"));
    // What it does not say is filled in.
    let request = forwarded(trusted, "GET / HTTP/1.1\r\nHost: test\r\n").await;
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert_eq!(request.field("x-forwarded-host"), Some("test"));
    assert_eq!(request.field("x-real-ip"), Some("127.0.0.1"));
}

#[tokio::test]
async fn via_grows_by_one() {
    let rows: [(&str, &[&str]); 4] = [
        ("GET / HTTP/1.1\r\nHost: test\r\n", &["1.1 waypost"]),
        ("GET / HTTP/1.0\r\nHost: test\r\n", &["1.0 waypost"]),
        (
            "GET / HTTP/1.1\r\nHost: test\r\nVia: 1.0 edge, 1.1 other\r\nVia: 1.1 last\r\n",
            &["1.0 edge, 1.1 other", "1.1 last", "1.1 waypost"],
        ),
        // Once is a way back to us that may end; see the suite of statuses for twice.
        (
            "GET / HTTP/1.1\r\nHost: test\r\nVia: 1.1 waypost\r\n",
            &["1.1 waypost", "1.1 waypost"],
        ),
    ];
    for (head, via) in rows {
        assert_eq!(forwarded("", head).await.head.all("via"), via, "{head}");
    }
}

// === host ===

#[tokio::test]
async fn the_clients_host_is_passed_on() {
    for host in [
        "example.com",
        "Example.COM:8080",
        "example.com:",
        "[::1]:80",
        "10.0.0.1",
        "a_b.example",
    ] {
        let request = forwarded("", &format!("GET / HTTP/1.1\r\nHost: {host}\r\n")).await;
        assert_eq!(request.field("host"), Some(host));
        assert_eq!(request.field("x-forwarded-host"), Some(host));
    }
}

#[tokio::test]
async fn the_backends_own_address_is_its_host_where_configured() {
    let origin = Origin::echo("a").await;
    let route = "[[route]]\nupstream = \"app\"\npass_host = false\n";
    let proxy = Proxy::start(&format!("{}{route}", servers(&[origin.address()], ""))).await;
    let mut client = Client::connect(&proxy).await;
    client.get("/").await;
    let request = origin.only_request();
    assert_eq!(
        request.field("host"),
        Some(origin.address().to_string().as_str())
    );
    assert_eq!(request.field("x-forwarded-host"), Some("test"));
}

#[tokio::test]
async fn a_1_0_request_without_host_gets_the_backends() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask("GET / HTTP/1.0\r\n\r\n").await.status(), 200);
    let request = origin.only_request();
    assert_eq!(
        request.field("host"),
        Some(origin.address().to_string().as_str())
    );
}

// === Expect ===

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[tokio::test]
async fn the_backends_go_ahead_is_passed_on() {
    let said = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let said = said.clone();
        move |mut visit: Visit| {
            let said = said.clone();
            async move {
                let head = visit.head().await.expect("a request");
                assert_eq!(head.field("expect"), Some("100-continue"));
                said.store(true, Ordering::SeqCst);
                visit.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                let body = visit.wire.reader.exactly(5).await;
                visit.answer("a", &body).await;
                visit.closed().await;
            }
        }
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(
        client.ask(EXPECTING).await.head.start,
        "HTTP/1.1 100 Continue"
    );
    assert!(
        said.load(Ordering::SeqCst),
        "the proxy spoke before the backend"
    );
    assert_eq!(client.ask("hello").await.text(), "hello");
}

#[tokio::test]
async fn the_backends_refusal_is_passed_on_and_no_body_sent() {
    for status in [
        "417 Expectation Failed",
        "413 Content Too Large",
        "401 Unauthorized",
    ] {
        let origin = Origin::start(move |mut visit: Visit| async move {
            visit.head().await;
            visit
                .send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"))
                .await;
            assert_eq!(
                visit.wire.reader.rest().await.0,
                b"",
                "a body that nobody wanted"
            );
        })
        .await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        // The first thing that the client hears: no 100 before it.
        let response = client.ask(EXPECTING).await;
        assert_eq!(response.head.start, format!("HTTP/1.1 {status}"));
        assert_eq!(response.text(), "no");
        // Whether the body comes now nobody knows.
        client.wire.finish().await;
        client.closed().await;
    }
}

#[tokio::test]
async fn a_backend_that_knows_no_expectations_gets_the_body_after_a_while() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(EXPECTING).await.status(), 100);
    assert_eq!(client.ask("hello").await.text(), "hello");
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_served() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = visit.wire.reader.exactly(5).await;
        visit.answer("a", &body).await;
        visit.closed().await;
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let mut response = client.ask(format!("{EXPECTING}hello")).await;
    if response.status() == 100 {
        response = client.response().await;
    }
    assert_eq!(response.text(), "hello");
}

#[tokio::test]
async fn a_1_0_client_hears_no_interim_response() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let response = client
        .ask("POST / HTTP/1.0\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert_eq!((response.status(), response.text()), (200, "hello"));
    assert_eq!(origin.only_request().field("expect"), None);
}

// === informational responses ===

#[tokio::test]
async fn informational_responses_are_passed_on() {
    let origin = Origin::respond(
        "HTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-one\r\nX-One: 1\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..2 {
        client.send_get("/").await;
        assert_eq!(client.response().await.status(), 102);
        let hints = client.response().await;
        assert_eq!(hints.head.start, "HTTP/1.1 103 Early Hints");
        assert_eq!(hints.head.names(), ["link"]);
        let last = client.response().await;
        assert_eq!((last.status(), last.text()), (200, "ok"));
    }
    assert_eq!(origin.connections(), 1);
    let response = client.ask("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    assert_eq!((response.status(), response.text()), (200, "ok"));
}

#[tokio::test]
async fn a_go_ahead_that_nobody_waits_for_is_not_passed_on() {
    let origin = Origin::respond(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert_eq!((response.status(), response.text()), (200, "ok"));
    }
}
