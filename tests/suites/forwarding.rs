//! Messages on their way: framing, streaming, order, connections kept and closed.

use tokio::io::AsyncWriteExt as _;
use waypost_tests::{Client, Framing, Gate, Origin, Proxy, Visit, Wire, servers, until};

// === bodies ===

#[tokio::test]
async fn request_bodies_reach_the_backend_in_their_framing() {
    const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
    let rows = [
        ("GET", "", "", None, "", ""),
        ("POST", "", "", None, "", ""),
        ("POST", "Content-Length: 0\r\n", "", Some("0"), "", ""),
        (
            "POST",
            "Content-Length: 5\r\n",
            "hello",
            Some("5"),
            "hello",
            "",
        ),
        (
            "GET",
            "Content-Length: 5\r\n",
            "hello",
            Some("5"),
            "hello",
            "",
        ),
        (
            "DELETE",
            "Content-Length: 5\r\n",
            "hello",
            Some("5"),
            "hello",
            "",
        ),
        (
            "POST",
            "Transfer-Encoding: chunked\r\n",
            CHUNKS,
            None,
            "hello",
            CHUNKS,
        ),
        (
            "POST",
            "Transfer-Encoding: Chunked\r\n",
            CHUNKS,
            None,
            "hello",
            CHUNKS,
        ),
        // What chunks are made of concerns one connection only.
        (
            "POST",
            "Transfer-Encoding: chunked\r\n",
            "5;a=b\r\nhello\r\n00\r\n\r\n",
            None,
            "hello",
            CHUNKS,
        ),
        (
            "POST",
            "Transfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
            None,
            "",
            "0\r\n\r\n",
        ),
        // Undeclared trailers go no further.
        (
            "POST",
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nHost: b\r\n\r\n",
            None,
            "hello",
            CHUNKS,
        ),
    ];
    for (method, fields, sent, length, body, chunks) in rows {
        let origin = Origin::echo("a").await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        let head = format!("{method} / HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
        let response = client.ask(format!("{head}{sent}")).await;
        assert_eq!(response.status(), 200, "{head}");
        assert_eq!(response.text(), body, "{head}");
        let request = origin.only_request();
        assert_eq!(request.head.start, format!("{method} / HTTP/1.1"));
        assert_eq!(request.field("content-length"), length, "{head}");
        assert_eq!(String::from_utf8_lossy(&request.body), body, "{head}");
        assert_eq!(
            String::from_utf8_lossy(&request.chunks),
            chunks,
            "{head}{sent}"
        );
    }
}

#[tokio::test]
async fn responses_reach_the_client_in_their_framing() {
    let rows = [
        (
            "Content-Length: 5\r\n\r\nhello",
            Framing::Length(5),
            "hello",
        ),
        ("Content-Length: 0\r\n\r\n", Framing::Length(0), ""),
        (
            "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n",
            Framing::Chunked,
            "hello",
        ),
        // Its end is known only by the close: a client that keeps its connection must learn of it otherwise.
        ("\r\nhello", Framing::Chunked, "hello"),
    ];
    for (sent, framing, body) in rows {
        let origin = Origin::respond_and_close(format!("HTTP/1.1 200 OK\r\n{sent}")).await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        for _ in 0..2 {
            let response = client.get("/").await;
            assert_eq!(
                (response.status(), response.framing),
                (200, framing),
                "{sent}"
            );
            assert_eq!(response.text(), body, "{sent}");
            let chunks = String::from_utf8_lossy(&response.chunks);
            assert!(
                !chunks.contains(';') && !chunks.contains("X-Sum"),
                "{chunks}"
            );
        }
    }
}

/// What a head announces goes on, but for what a recipient would take for more than a trailer.
#[tokio::test]
async fn trailers_that_are_announced_go_on() {
    const TRAILER: &str = "Trailer: X-Sum, Host, Content-Length\r\n";
    const BODY: &str =
        "5\r\nhello\r\n0\r\nX-Sum: 1\r\nHost: b\r\nContent-Length: 1\r\nX-Other: 2\r\n\r\n";
    const PASSED: &str = "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    let origin = Origin::respond(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{TRAILER}\r\n{BODY}"
    ))
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for (te, chunks) in [
        ("TE: trailers\r\n", PASSED),
        ("", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let response = client
            .ask(format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{te}{TRAILER}Transfer-Encoding: chunked\r\n\r\n{BODY}"
            ))
            .await;
        assert_eq!(String::from_utf8_lossy(&response.chunks), chunks);
    }
    for request in origin.requests() {
        assert_eq!(String::from_utf8_lossy(&request.chunks), PASSED);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let rows = [
        ("HEAD", "200 OK\r\nContent-Length: 5\r\n\r\n", Some("5")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HEAD", "200 OK\r\nConnection: keep-alive\r\n\r\n", None),
        ("GET", "204 No Content\r\n\r\n", None),
        (
            "GET",
            "304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            // Allowed to go (RFC 9110, 8.6); what matters is that nobody waits for five bytes.
            None,
        ),
        ("GET", "304 Not Modified\r\nETag: \"a\"\r\n\r\n", None),
    ];
    for (method, answer, length) in rows {
        let origin = Origin::respond(format!("HTTP/1.1 {answer}")).await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        for _ in 0..2 {
            client
                .send(format!("{method} / HTTP/1.1\r\nHost: test\r\n\r\n"))
                .await;
            let response = client.response_to_head().await;
            assert_eq!(response.status().to_string(), answer[..3], "{answer}");
            assert_eq!(response.field("content-length"), length, "{answer}");
        }
        // Nothing came after the heads, or the second would not have been one.
        assert_eq!(origin.connections(), 1, "{answer}");
        client.wire.finish().await;
        client.closed().await;
    }
}

#[tokio::test]
async fn bytes_that_do_not_belong_to_an_answer_reach_nobody() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let rows = [
        (
            "HEAD",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{EVIL}",
                EVIL.len()
            ),
        ),
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\n\r\n{EVIL}")),
        (
            "GET",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{EVIL}"),
        ),
        (
            "GET",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{EVIL}"),
        ),
    ];
    for (method, answer) in rows {
        let origin = Origin::start({
            let answer = answer.clone();
            move |mut visit: Visit| {
                let answer = answer.clone();
                async move {
                    visit.request().await;
                    if visit.connection == 0 {
                        visit.send(answer).await;
                        visit.closed().await;
                    } else {
                        visit.answer("a", b"good").await;
                    }
                }
            }
        })
        .await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await;
        let first = client.wire.reader.response(method == "HEAD").await;
        assert_eq!(first.body, b"", "{answer}");
        assert_eq!(client.get("/").await.text(), "good", "{answer}");
        assert_eq!(origin.connections(), 2, "{answer}");
    }
}

/// Bodies that are not what their framing says. Of each, `hello` is the most that can be passed on.
const BROKEN: [(&str, &str); 6] = [
    ("Content-Length: 10", "hello"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhel"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhello\r\nnonsense\r\n"),
    ("Transfer-Encoding: chunked", "5\r\nhelloworld\r\n0\r\n\r\n"),
];

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_complete() {
    for (framing, sent) in BROKEN {
        let gate = Gate::shut();
        let held = gate.clone();
        let origin = Origin::start(move |mut visit: Visit| {
            let gate = held.clone();
            async move {
                visit.request().await;
                visit
                    .send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))
                    .await;
                gate.pass().await;
                visit.send(sent).await;
            }
        })
        .await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        client.send_get("/").await;
        let head = client.wire.reader.head().await;
        assert_eq!(
            (
                head.status(),
                head.response_framing(false) == Framing::Chunked
            ),
            (200, framing.ends_with("chunked"))
        );
        gate.open();
        let (body, _) = client.wire.reader.rest().await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(
            ["", "hello", "5\r\nhello\r\n", "3\r\nhel\r\n"].contains(&body.as_str()),
            "{sent}: {body:?}"
        );
        proxy
            .reaches("nothing in flight", |status| {
                status.upstreams[0].backends[0].in_flight == 0
            })
            .await;
    }
}

/// A client that hears nothing at all may think that nothing was done, and ask again.
#[tokio::test]
async fn a_body_that_breaks_off_at_once_leaves_its_head() {
    for (framing, sent) in BROKEN {
        let origin =
            Origin::respond_and_close(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{sent}")).await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        client.send_get("/").await;
        let response = client.broken_response().await;
        assert_eq!(response.status(), 200, "{sent}");
        assert!(
            b"hello".starts_with(response.body.as_slice()),
            "{sent}: {response:?}"
        );
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_never_looks_complete() {
    for sent in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let origin = Origin::silent().await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: test\r\n{sent}"))
            .await;
        // The head has to be there before the client leaves, or there would be nothing to break off.
        until("the connection to the backend", || {
            origin.connections() == 1
        })
        .await;
        drop(client);
        origin.received(1).await;
        assert!(!origin.only_request().whole, "{sent}");
        proxy
            .reaches("nothing in flight", |status| {
                status.upstreams[0].backends[0].in_flight == 0
            })
            .await;
    }
}

// === streaming ===

/// Passes a request's body back, in its own framing, while it comes.
async fn mirror(mut visit: Visit) {
    let Some(head) = visit.head().await else {
        return;
    };
    let framing = match head.field("content-length") {
        Some(length) => format!("Content-Length: {length}"),
        None => "Transfer-Encoding: chunked".to_owned(),
    };
    visit
        .send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))
        .await;
    loop {
        let piece = visit.wire.reader.some().await;
        if piece.is_empty() {
            return;
        }
        visit.send(piece).await;
    }
}

#[tokio::test]
async fn large_bodies_go_both_ways_at_once() {
    // Of an odd length, so that no two pieces of a buffer's size are the same.
    let piece: Vec<u8> = (0..1_000_003_u32)
        .map(|at| b'a' + (at % 23) as u8)
        .collect();
    let body = piece.repeat(20);
    let sized = format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    let chunked = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
    let rows = [
        (
            Framing::Length(body.len() as u64),
            [sized, body.clone()].concat(),
        ),
        (
            Framing::Chunked,
            [chunked, chunk.repeat(20), b"0\r\n\r\n".to_vec()].concat(),
        ),
    ];
    for (framing, sent) in rows {
        let origin = Origin::start(mirror).await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        client.send("POST / HTTP/1.1\r\nHost: test\r\n").await;
        let Wire { reader, writer } = &mut client.wire;
        let (written, response) = tokio::join!(writer.write_all(&sent), reader.response(false));
        written.expect("the proxy takes the body");
        assert_eq!((response.framing, response.whole), (framing, true));
        assert!(response.body == body, "the body came back changed");
    }
}

// === HTTP/1.0 ===

#[tokio::test]
async fn a_1_0_client_is_answered_in_1_0() {
    const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let rows = [
        ("", SIZED, Framing::Length(5), false),
        (
            "Connection: keep-alive\r\n",
            SIZED,
            Framing::Length(5),
            true,
        ),
        ("", CHUNKED, Framing::UntilClose, false),
        (
            "Connection: keep-alive\r\n",
            CHUNKED,
            Framing::UntilClose,
            false,
        ),
    ];
    for (fields, answer, framing, keeps) in rows {
        let origin = Origin::respond(answer).await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        let request = format!("GET / HTTP/1.0\r\nHost: test\r\n{fields}\r\n");
        let response = client.ask(&request).await;
        assert_eq!(
            (response.framing, response.text()),
            (framing, "hello"),
            "{request}{answer}"
        );
        assert_eq!(origin.only_request().head.start, "GET / HTTP/1.1");
        if keeps {
            assert_eq!(response.field("connection"), Some("keep-alive"));
            assert_eq!(client.ask(&request).await.text(), "hello");
        } else {
            client.closed().await;
        }
    }
}

// === targets and fields ===

#[tokio::test]
async fn targets_are_forwarded_byte_for_byte() {
    let rows = [
        ("/", "/", "test"),
        ("/a%2Fb/../c?x=%20&y", "/a%2Fb/../c?x=%20&y", "test"),
        ("//double//./slashes/", "//double//./slashes/", "test"),
        ("/?", "/?", "test"),
        ("/a?b?c=/d", "/a?b?c=/d", "test"),
        ("/%zz%", "/%zz%", "test"),
        ("/;p=1,2:3@4!$&'()*+=~", "/;p=1,2:3@4!$&'()*+=~", "test"),
        ("http://other.example/x?y", "/x?y", "other.example"),
        (
            "http://other.example:81/x/../y",
            "/x/../y",
            "other.example:81",
        ),
        ("http://other.example", "/", "other.example"),
        ("http://other.example?x=1", "/?x=1", "other.example"),
    ];
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for (sent, target, host) in rows {
        assert_eq!(client.get(sent).await.status(), 200, "{sent}");
        let request = origin.requests().pop().expect("a request");
        assert_eq!(
            (request.target(), request.field("host")),
            (target, Some(host)),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn the_target_asterisk_is_answered_by_the_proxy() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let response = client.ask("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!((response.status(), response.body.len()), (200, 0));
    assert_eq!(
        response.field("allow"),
        Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    );
    assert_eq!(origin.connections(), 0);
    // The connection goes on, and OPTIONS of anything else is the backend's.
    assert_eq!(
        client
            .ask("OPTIONS /x HTTP/1.1\r\nHost: test\r\n\r\n")
            .await
            .origin(),
        "a"
    );
}

#[tokio::test]
async fn lines_of_one_name_stay_apart_and_in_order() {
    let origin = Origin::respond(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nX-A: 1\r\nSet-Cookie: b=2, c\r\nX-A: 2, 3\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let response = client
        .ask("GET / HTTP/1.1\r\nHost: test\r\nX-B: 1\r\nCookie: a=1\r\nX-C: x\r\nX-B: 2, 3\r\nX-B:\r\nCookie: b=2\r\n\r\n")
        .await;
    assert_eq!(response.head.all("set-cookie"), ["a=1; Path=/", "b=2, c"]);
    assert_eq!(response.head.all("x-a"), ["1", "2, 3"]);
    let request = origin.only_request();
    assert_eq!(request.head.all("x-b"), ["1", "2, 3", ""]);
    assert_eq!(request.head.all("cookie"), ["a=1", "b=2"]);
}

// === connections ===

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let post = |number: usize| {
        let body = format!("body {number}");
        let length = body.len();
        format!("POST /{number} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let get = |number: usize| format!("GET /{number} HTTP/1.1\r\nHost: test\r\n\r\n");
    let requests: String = (0..20)
        .map(|number| {
            if number % 3 == 0 {
                post(number)
            } else {
                get(number)
            }
        })
        .collect();
    client.send(requests).await;
    for number in 0..20 {
        let body = if number % 3 == 0 {
            format!("body {number}")
        } else {
            String::new()
        };
        assert_eq!(client.response().await.text(), body);
    }
    let targets: Vec<String> = origin
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    let expected: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
    assert_eq!(targets, expected);
}

#[tokio::test]
async fn a_request_that_fails_does_not_disturb_those_behind_it() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::start(&format!(
        "{}[[route]]\npath = \"/here\"\nupstream = \"app\"\n",
        servers(&[origin.address()], "")
    ))
    .await;
    let mut client = Client::connect(&proxy).await;
    client
        .send("GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\nGET /here HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status(), 404);
    assert_eq!(client.response().await.origin(), "a");
}

#[tokio::test]
async fn connections_to_a_backend_are_used_again() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    for _ in 0..3 {
        let mut client = Client::connect(&proxy).await;
        for _ in 0..5 {
            assert_eq!(client.get("/").await.status(), 200);
            assert_eq!(client.post("/", b"hello").await.text(), "hello");
        }
    }
    assert_eq!((origin.request_count(), origin.connections()), (30, 1));
}

#[tokio::test]
async fn a_body_that_has_ended_frees_its_connection_at_once() {
    // The last chunk comes on its own, after the client has all it wants.
    let origin = Origin::respond(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
    proxy
        .reaches("nothing in flight", |status| {
            status.upstreams[0].backends[0].in_flight == 0
        })
        .await;
}

#[tokio::test]
async fn no_more_connections_are_kept_than_configured() {
    for (connections, kept) in [(0, 0), (1, 1), (2, 2)] {
        let (origin, gate) = Origin::gated("a").await;
        let keys = format!("[upstream.app.keepalive]\nconnections = {connections}");
        let proxy = Proxy::start(&servers(&[origin.address()], &keys)).await;
        let mut clients = Vec::new();
        for count in 1..=3 {
            let mut client = Client::connect(&proxy).await;
            client.send_get("/").await;
            origin.received(count).await;
            clients.push(client);
        }
        gate.open();
        for client in &mut clients {
            assert_eq!(client.response().await.status(), 200);
        }
        until("the others to be closed", || origin.open() == kept).await;
        assert_eq!(origin.connections(), 3);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_in_time() {
    let origin = Origin::echo("a").await;
    let keys = "[upstream.app.keepalive]\ntimeout = \"50ms\"";
    let proxy = Proxy::start(&servers(&[origin.address()], keys)).await;
    let mut client = Client::connect(&proxy).await;
    client.get("/").await;
    until("the connection to be closed", || origin.open() == 0).await;
    assert_eq!(client.get("/").await.status(), 200);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_backend_that_wants_to_close_is_not_used_again() {
    let rows = [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ];
    for answer in rows {
        let origin = Origin::respond(answer).await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        for count in 1..=3 {
            let response = client.get("/").await;
            // Of another connection than the client's.
            assert!(!response.head.has("connection"), "{response:?}");
            assert_eq!(response.head.start, "HTTP/1.1 200 OK");
            assert_eq!(origin.connections(), count, "{answer}");
        }
        until("all to be closed", || origin.open() == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_wants_to_close_is_left() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    let response = client
        .ask("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(response.field("connection"), Some("close"));
    client.closed().await;
    // The backend's connection has nothing to do with it.
    assert_eq!((origin.connections(), origin.open()), (1, 1));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let (begun, silent) = ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "");
    for sent in [silent, begun] {
        let origin = Origin::start(move |mut visit: Visit| async move {
            visit.request().await;
            visit.send(sent).await;
            visit.closed().await;
        })
        .await;
        let proxy = Proxy::before(&[&origin]).await;
        let mut client = Client::connect(&proxy).await;
        client.send_get("/").await;
        origin.received(1).await;
        assert_eq!(proxy.backend(0).in_flight, 1);
        if !sent.is_empty() {
            client.wire.reader.head().await;
        }
        drop(client);
        until("the backend to be left", || origin.open() == 0).await;
        proxy
            .reaches("nothing in flight", |status| {
                status.upstreams[0].backends[0].in_flight == 0
            })
            .await;
        assert_eq!(
            proxy.backend(0).failures,
            0,
            "the backend has done nothing wrong"
        );
    }
}
