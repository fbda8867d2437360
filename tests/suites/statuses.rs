//! Every answer that is the proxy's own.

use tokio::io::AsyncWriteExt as _;
use waypost_tests::{
    Client, Origin, Proxy, Refusing, Response, Unreachable, Visit, Wire, servers, until,
};

/// What every answer of the proxy's own looks like.
fn assert_own(response: &Response, status: u16) {
    assert_eq!(response.status(), status, "{response:?}");
    assert_eq!(response.origin(), "none");
    let words = response.text();
    if !words.is_empty() {
        assert!(words.starts_with(&status.to_string()), "{words}");
        assert!(words.ends_with('\n'), "{words}");
        assert_eq!(
            response.field("content-type"),
            Some("text/plain; charset=utf-8")
        );
    }
    assert_eq!(
        response.field("retry-after"),
        (status == 503).then_some("1")
    );
}

/// That each of these is answered with the status and the end of the connection, and that nothing of it reaches the
/// backend, nor anything behind it.
async fn assert_refused<T: AsRef<[u8]>>(config: &str, rows: &[T], status: u16) {
    let mut taken = Vec::new();
    for row in rows.iter().map(AsRef::as_ref) {
        let origin = Origin::echo("a").await;
        let proxy = Proxy::start(&format!("{}{config}", servers(&[origin.address()], ""))).await;
        let mut client = Client::connect(&proxy).await;
        let behind = b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n";
        client.send([row, behind].concat()).await;
        let response = client.response().await;
        if response.status() == status {
            assert_own(&response, status);
            assert_eq!(response.field("connection"), Some("close"), "{response:?}");
            client.closed().await;
            assert_eq!(origin.connections(), 0, "{response:?}");
        } else {
            let sent: String = String::from_utf8_lossy(row).chars().take(150).collect();
            taken.push(format!("{sent:?} was answered with {response:?}"));
        }
    }
    assert!(taken.is_empty(), "expected {status}:\n{}", taken.join("\n"));
}

// === requests that are wrong ===

#[tokio::test]
async fn heads_that_are_wrong_are_refused() {
    let rows = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:port\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://user:word@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        // Lines.
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n",
        "GET / HTTP/1.1\r\n X-A: b\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX(A): b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: \u{1}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: \u{7f}\r\n\r\n",
        // Request lines.
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\tb HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    assert_refused("", &rows, 400).await;
}

#[tokio::test]
async fn targets_outside_ascii_are_refused() {
    let rows = ["/caf\u{e9}", "/?caf\u{e9}"]
        .map(|target| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_refused("", &rows, 400).await;
}

#[tokio::test]
async fn lengths_that_are_wrong_are_refused() {
    let lines = [
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5,5",
        "Content-Length: 5, 6",
        "Content-Length: a",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length: 5.0",
        "Content-Length: 5\r\nContent-Length: 6",
    ];
    let rows = lines.map(|lines| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nhello"));
    assert_refused("", &rows, 400).await;
}

/// Where a coding other than `chunked` is dropped, the backend gets another content than the client has sent.
#[tokio::test]
async fn codings_that_are_wrong_are_refused() {
    let lines = [
        ("1.0", "Transfer-Encoding: chunked"),
        ("1.1", "Transfer-Encoding: gzip"),
        ("1.1", "Transfer-Encoding: identity"),
        ("1.1", "Transfer-Encoding: chunked, gzip"),
        ("1.1", "Transfer-Encoding: xchunked"),
        ("1.1", "Transfer-Encoding:"),
        ("1.1", "Transfer-Encoding: gzip, chunked"),
        ("1.1", "Transfer-Encoding: chunked, chunked"),
        ("1.1", "Transfer-Encoding: ,chunked"),
        ("1.1", "Transfer-Encoding: chunked;a=b"),
        (
            "1.1",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        ),
        (
            "1.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
    ];
    let rows = lines.map(|(version, lines)| {
        format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    });
    assert_refused("", &rows, 400).await;
}

/// RFC 9112, 6.1: it ought to be handled as an error, and the two are what smuggling is made of.
#[tokio::test]
async fn a_body_framed_twice_is_refused() {
    let rows = [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ]
    .map(|lines| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n"));
    assert_refused("", &rows, 400).await;
}

#[tokio::test]
async fn chunks_that_are_wrong_end_the_request() {
    for chunks in [
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n",
        "g\r\n",
        "fffffffffffffffff\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
    ] {
        let origin = Origin::silent().await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let response = client.ask(format!("{head}{chunks}")).await;
        assert_own(&response, 400);
        assert_eq!(response.field("connection"), Some("close"), "{chunks:?}");
        client.wire.finish().await;
        client.closed().await;
        until("the backend to be left", || origin.open() == 0).await;
        assert!(
            origin.requests().iter().all(|request| !request.whole),
            "{chunks:?}"
        );
    }
}

#[tokio::test]
async fn what_a_gateway_does_not_do_is_refused() {
    let rows = [
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    assert_refused("", &rows, 501).await;
}

// === limits ===

#[tokio::test]
async fn long_targets_are_refused() {
    let target = |length: usize| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "a".repeat(length - 1)
        )
    };
    assert_refused("", &[target(8 * 1024 + 1), target(60 * 1024)], 414).await;
    assert_refused("[limits]\nrequest_target = \"100B\"\n", &[target(101)], 414).await;
    // Up to the limit it is nobody's business.
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(target(8 * 1024)).await.status(), 200);
    assert_eq!(origin.only_request().target().len(), 8 * 1024);
}

#[tokio::test]
async fn large_heads_are_refused() {
    let lines = |count: usize| -> String {
        (0..count)
            .map(|number| format!("X-{number}: a\r\n"))
            .collect()
    };
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let long = |length: usize| head(&format!("X-A: {}\r\n", "a".repeat(length)));
    let rows = [head(&lines(100)), long(64 * 1024), long(200 * 1024)];
    assert_refused("", &rows, 431).await;
    assert_refused("[limits]\nfields = 10\n", &[head(&lines(10))], 431).await;
    let rows = [long(8 * 1024), long(70 * 1024)];
    assert_refused("[limits]\nhead = \"8KiB\"\n", &rows, 431).await;
    // Up to the limits it is nobody's business.
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(head(&lines(99))).await.status(), 200);
    let long = "a".repeat(60 * 1024);
    assert_eq!(
        client.ask(head(&format!("X-A: {long}\r\n"))).await.status(),
        200
    );
    assert_eq!(origin.requests()[1].field("x-a"), Some(long.as_str()));
}

const SMALL: &str = "[limits]\nrequest_body = \"1KiB\"\n";

#[tokio::test]
async fn bodies_that_say_to_be_too_large_are_refused_unseen() {
    for expect in ["", "Expect: 100-continue\r\n"] {
        let origin = Origin::silent().await;
        let proxy = Proxy::start(&format!("{}{SMALL}", servers(&[origin.address()], ""))).await;
        let mut client = Client::connect(&proxy).await;
        let response = client
            .ask(format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 1025\r\n\r\n"
            ))
            .await;
        assert_own(&response, 413);
        assert_eq!(response.field("connection"), Some("close"));
        client.wire.finish().await;
        client.closed().await;
        assert_eq!(origin.connections(), 0);
    }
}

#[tokio::test]
async fn bodies_that_turn_out_too_large_are_cut_off() {
    let origin = Origin::silent().await;
    let proxy = Proxy::start(&format!("{}{SMALL}", servers(&[origin.address()], ""))).await;
    let mut client = Client::connect(&proxy).await;
    let chunk = format!("200\r\n{}\r\n", "a".repeat(512));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}{}", chunk.repeat(2))).await;
    until("the connection to the backend", || {
        origin.connections() == 1
    })
    .await;
    client.send(chunk).await;
    let response = client.response().await;
    assert_own(&response, 413);
    assert_eq!(response.field("connection"), Some("close"));
    client.wire.finish().await;
    client.closed().await;
    until("the backend to be left", || origin.open() == 0).await;
    assert!(!origin.only_request().whole);
    assert_eq!(
        proxy.backend(0).failures,
        0,
        "the backend has done nothing wrong"
    );
}

#[tokio::test]
async fn bodies_up_to_the_limit_pass() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::start(&format!("{}{SMALL}", servers(&[origin.address()], ""))).await;
    let mut client = Client::connect(&proxy).await;
    let body = "a".repeat(1024);
    assert_eq!(client.post("/", body.as_bytes()).await.text(), body);
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n{body}\r\n0\r\n\r\n"
    );
    assert_eq!(client.ask(chunked).await.text(), body);
}

/// The client is still sending, and reads only when it is done: a reset would take the answer away from it.
#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    const LENGTH: usize = 10 * 1024 * 1024;
    let framings = [
        (
            format!("Content-Length: {LENGTH}\r\n\r\n"),
            vec![b'a'; LENGTH],
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
            [b"400\r\n", [b'a'; 1024].as_slice(), b"\r\n"]
                .concat()
                .repeat(LENGTH / 1024),
        ),
    ];
    for (fields, body) in framings {
        let origin = Origin::silent().await;
        let proxy = Proxy::start(&format!("{}{SMALL}", servers(&[origin.address()], ""))).await;
        let mut client = Client::connect(&proxy).await;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}"))
            .await;
        client.send(&body).await;
        assert_own(&client.response().await, 413);
        client.ended().await;
    }
}

#[tokio::test]
async fn a_backends_early_answer_reaches_a_client_that_is_still_sending() {
    const LENGTH: usize = 10 * 1024 * 1024;
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.head().await;
        visit
            .send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .await;
        visit.closed().await;
    })
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))
        .await;
    let Wire { reader, writer } = &mut client.wire;
    let body = vec![b'a'; LENGTH];
    // Whether all of it is taken is up to the proxy.
    let (_, response) = tokio::join!(writer.write_all(&body), reader.response(false));
    assert_eq!((response.status(), response.text()), (401, "no"));
    assert!(response.whole);
}

// === no backend for it ===

#[tokio::test]
async fn what_no_route_covers_is_not_found() {
    let origin = Origin::echo("a").await;
    let route = "[[route]]\nhost = \"known\"\npath = \"/api\"\nupstream = \"app\"\n";
    let proxy = Proxy::start(&format!("{}{route}", servers(&[origin.address()], ""))).await;
    let mut client = Client::connect(&proxy).await;
    for (host, target) in [
        ("known", "/"),
        ("known", "/apis"),
        ("other", "/api"),
        ("a.known", "/api"),
    ] {
        let response = client
            .ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_own(&response, 404);
        assert_eq!(response.text(), "404 no route for this host and path\n");
    }
    client.send("HEAD / HTTP/1.1\r\nHost: known\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.status(), 404);
    // The connection goes on.
    assert_eq!(
        client
            .ask("GET /api HTTP/1.1\r\nHost: known\r\n\r\n")
            .await
            .origin(),
        "a"
    );
}

#[tokio::test]
async fn a_loop_is_stopped() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for via in [
        "Via: 1.1 waypost, 1.1 other, 1.0 waypost\r\n",
        "Via: 1.1 waypost\r\nVia: 1.1 waypost (x)\r\n",
    ] {
        let response = client
            .ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{via}\r\n"))
            .await;
        assert_own(&response, 508);
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(client.get("/").await.origin(), "a");
}

#[tokio::test]
async fn a_route_to_ourselves_ends() {
    // A port that is free, then the proxy's.
    let port = Refusing::new();
    let address = port.address();
    drop(port);
    let proxy = Proxy::start(&format!(
        "{}[[listen]]\naddress = \"{address}\"\n",
        servers(&[address], "retries = 0")
    ))
    .await;
    let mut client = Client::connect(&proxy).await;
    assert_own(&client.get("/").await, 508);
}

#[tokio::test]
async fn nobody_to_ask_is_unavailable() {
    let origin = Origin::echo("a").await;
    let server = |state: &str| {
        format!(
            "[upstream.app]\npolicy = \"rotation\"\nservers = [{{ address = \"{}\", {state} }}]\n",
            origin.address()
        )
    };
    for state in ["state = \"down\"", "state = \"draining\"", "weight = 0"] {
        let proxy = Proxy::start(&server(state)).await;
        let mut client = Client::connect(&proxy).await;
        for _ in 0..2 {
            assert_own(&client.get("/").await, 503);
        }
    }
    assert_eq!(origin.connections(), 0);
}

// === backends that fail ===

#[tokio::test]
async fn a_backend_that_refuses_is_a_bad_gateway() {
    let refusing = Refusing::new();
    let proxy = Proxy::start(&servers(&[refusing.address()], "")).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..3 {
        assert_own(&client.get("/").await, 502);
        assert_own(&client.post("/", b"hello").await, 502);
    }
}

#[tokio::test]
async fn answers_that_are_none_are_a_bad_gateway() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nX-Secret: {}\r\n\r\n",
        "a".repeat(70 * 1024)
    );
    let many: String = (0..101)
        .map(|number| format!("X-Secret-{number}: a\r\n"))
        .collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
    let rows = [
        "",
        "secret\r\n\r\n",
        "HTTP/1.1 secret\r\n\r\n",
        "HTTP/1.1 20 secret\r\n\r\n",
        "HTTP/2.0 200 secret\r\n\r\n",
        "SSH-2.0-secret\r\n",
        "HTTP/1.1 200 OK\r\nX-Secret\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Secret: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Secret: \0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Secret: a\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 7\r\n\r\nsecret!",
        "HTTP/1.1 200 OK\r\nContent-Length: +6\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nsecret",
        long.as_str(),
        many.as_str(),
    ];
    for answer in rows {
        let origin = Origin::respond_and_close(answer).await;
        let proxy = Proxy::start(&servers(&[origin.address()], "retries = 0")).await;
        let mut client = Client::connect(&proxy).await;
        for count in 1..=2 {
            let response = client.get("/").await;
            assert_eq!(response.status(), 502, "{:.200}", answer);
            assert_own(&response, 502);
            let raw = String::from_utf8_lossy(&response.head.raw).to_ascii_lowercase();
            assert!(
                !raw.contains("secret") && !response.text().contains("secret"),
                "{answer}"
            );
            assert_eq!(origin.connections(), count, "{answer}");
            assert_eq!(proxy.backend(0).failures, count as u64, "{answer}");
        }
        until("the backend to be left", || origin.open() == 0).await;
    }
}

#[tokio::test]
async fn a_backend_that_resets_is_a_bad_gateway() {
    let origin = Origin::resetting().await;
    let proxy = Proxy::start(&servers(&[origin.address()], "retries = 0")).await;
    let mut client = Client::connect(&proxy).await;
    assert_own(&client.get("/").await, 502);
    assert_own(&client.post("/", b"hello").await, 502);
    assert_eq!(origin.request_count(), 2);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_a_gateway_timeout() {
    let origin = Origin::silent().await;
    let proxy = Proxy::start(&servers(
        &[origin.address()],
        "response_timeout = \"100ms\"",
    ))
    .await;
    let mut client = Client::connect(&proxy).await;
    assert_own(&client.get("/").await, 504);
    assert_own(&client.post("/", b"hello").await, 504);
    until("the backend to be left", || origin.open() == 0).await;
    assert_eq!((origin.request_count(), proxy.backend(0).in_flight), (2, 0));
}

#[tokio::test]
async fn a_backend_that_does_not_accept_is_a_gateway_timeout() {
    let unreachable = Unreachable::new().await;
    let proxy = Proxy::start(&servers(
        &[unreachable.address()],
        "connect_timeout = \"100ms\"",
    ))
    .await;
    let mut client = Client::connect(&proxy).await;
    assert_own(&client.get("/").await, 504);
    assert_eq!(proxy.backend(0).in_flight, 0);
}

#[tokio::test]
async fn a_response_body_that_stalls_is_cut_off() {
    let origin = Origin::start(|mut visit: Visit| async move {
        visit.request().await;
        visit
            .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            .await;
        visit.closed().await;
    })
    .await;
    let proxy = Proxy::start(&servers(&[origin.address()], "idle_timeout = \"100ms\"")).await;
    let mut client = Client::connect(&proxy).await;
    client.send_get("/").await;
    assert_eq!(client.broken_response().await.body, b"hello");
    until("the backend to be left", || origin.open() == 0).await;
    assert_eq!(proxy.backend(0).in_flight, 0);
}

// === clients that are slow ===

#[tokio::test]
async fn a_head_that_does_not_come_times_out() {
    for begun in ["G", "GET / HTTP/1.1\r\nHost: a\r\nX-A"] {
        let origin = Origin::echo("a").await;
        let config = "[timeouts]\nrequest_head = \"100ms\"\n";
        let proxy = Proxy::start(&format!("{}{config}", servers(&[origin.address()], ""))).await;
        let mut client = Client::connect(&proxy).await;
        // Also where it is not the first.
        assert_eq!(client.get("/").await.status(), 200);
        let response = client.ask(begun).await;
        assert_own(&response, 408);
        assert_eq!(response.field("connection"), Some("close"));
        client.closed().await;
    }
}

#[tokio::test]
async fn a_head_that_begins_behind_another_request_times_out() {
    let origin = Origin::echo("a").await;
    let config = "[timeouts]\nrequest_head = \"100ms\"\n";
    let proxy = Proxy::start(&format!("{}{config}", servers(&[origin.address()], ""))).await;
    let mut client = Client::connect(&proxy).await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX-A")
        .await;
    assert_eq!(client.response().await.status(), 200);
    assert_own(&client.response().await, 408);
    client.closed().await;
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_times_out() {
    for begun in [
        "Content-Length: 10\r\n\r\nhello",
        "Content-Length: 10\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        let origin = Origin::silent().await;
        let config = "[timeouts]\nrequest_body = \"100ms\"\n";
        let proxy = Proxy::start(&format!("{}{config}", servers(&[origin.address()], ""))).await;
        let mut client = Client::connect(&proxy).await;
        let response = client
            .ask(format!("POST / HTTP/1.1\r\nHost: a\r\n{begun}"))
            .await;
        assert_own(&response, 408);
        assert_eq!(response.field("connection"), Some("close"), "{begun}");
        client.wire.finish().await;
        client.closed().await;
        until("the backend to be left", || origin.open() == 0).await;
        assert!(
            origin.requests().iter().all(|request| !request.whole),
            "{begun}"
        );
        assert_eq!(
            proxy.backend(0).failures,
            0,
            "the backend has done nothing wrong"
        );
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let origin = Origin::echo("a").await;
    let config = "[timeouts]\nidle = \"100ms\"\n";
    let proxy = Proxy::start(&format!("{}{config}", servers(&[origin.address()], ""))).await;
    let (mut fresh, mut used) = (Client::connect(&proxy).await, Client::connect(&proxy).await);
    assert_eq!(used.get("/").await.status(), 200);
    fresh.closed().await;
    used.closed().await;
    proxy
        .reaches("no connections", |status| status.connections == 0)
        .await;
}
