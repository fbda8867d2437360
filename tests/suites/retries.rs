//! Failed attempts: who is tried next, and who is left out.

use waypost::config::ServerState;
use waypost_tests::{Client, Gate, Origin, Proxy, Refusing, Unreachable, Visit, servers, until};

/// Rotation asks the first server first, and nobody is left out.
const PATIENT: &str = "max_fails = 0";

// === another backend ===

#[tokio::test]
async fn idempotent_requests_go_to_another_backend() {
    let refusing = Refusing::new();
    let resetting = Origin::resetting().await;
    for failing in [refusing.address(), resetting.address()] {
        let good = Origin::echo("good").await;
        let proxy = Proxy::start(&servers(&[failing, good.address()], PATIENT)).await;
        let mut client = Client::connect(&proxy).await;
        for (count, method) in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
            .into_iter()
            .enumerate()
        {
            // Every other request would go to the good one at once.
            for _ in 0..2 {
                client
                    .send(format!(
                        "{method} /{count} HTTP/1.1\r\nHost: test\r\nX-A: b\r\n\r\n"
                    ))
                    .await;
                let response = client.wire.reader.response(method == "HEAD").await;
                assert_eq!(
                    (response.status(), response.origin()),
                    (200, "good"),
                    "{method}"
                );
            }
        }
        assert_eq!(good.request_count(), 10);
        // What comes the second time is what came first.
        for request in good.requests() {
            assert_eq!(
                (request.field("host"), request.field("x-a")),
                (Some("test"), Some("b"))
            );
            assert_eq!(request.head.all("via"), ["1.1 waypost"]);
        }
        assert_eq!(
            (proxy.backend(0).in_flight, proxy.backend(1).in_flight),
            (0, 0)
        );
        assert_eq!(proxy.backend(1).failures, 0);
        assert_eq!(proxy.backend(0).failures, proxy.backend(0).picks);
    }
}

/// What must not be sent twice.
const ONCE: [&str; 6] = [
    "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    "PATCH / HTTP/1.1\r\nHost: test\r\n\r\n",
    // A body cannot be sent twice, as it is not kept.
    "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
];

#[tokio::test]
async fn what_must_not_be_done_twice_is_done_once() {
    for request in ONCE {
        let (failing, good) = (Origin::resetting().await, Origin::echo("good").await);
        let proxy = Proxy::start(&servers(&[failing.address(), good.address()], PATIENT)).await;
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.ask(request).await.status(), 502, "{request}");
        assert_eq!(
            (failing.request_count(), good.request_count()),
            (1, 0),
            "{request}"
        );
    }
}

#[tokio::test]
async fn what_was_never_sent_goes_to_another_backend() {
    let (refusing, unreachable) = (Refusing::new(), Unreachable::new().await);
    for failing in [refusing.address(), unreachable.address()] {
        for request in ONCE {
            let good = Origin::echo("good").await;
            let settings = "max_fails = 0\nconnect_timeout = \"100ms\"";
            let proxy = Proxy::start(&servers(&[failing, good.address()], settings)).await;
            let mut client = Client::connect(&proxy).await;
            let response = client.ask(request).await;
            assert_eq!(
                (response.status(), response.origin()),
                (200, "good"),
                "{request}"
            );
            assert_eq!(good.request_count(), 1);
            let has_body = request.contains("hello");
            assert_eq!(good.requests()[0].body == b"hello", has_body, "{request}");
        }
    }
}

#[tokio::test]
async fn no_more_backends_are_tried_than_configured() {
    for retries in 0..4 {
        let failing = [
            Origin::resetting().await,
            Origin::resetting().await,
            Origin::resetting().await,
        ];
        let addresses = failing.each_ref().map(Origin::address);
        let keys = format!("{PATIENT}\nretries = {retries}");
        let proxy = Proxy::start(&servers(&addresses, &keys)).await;
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.get("/").await.status(), 502, "{retries} retries");
        let asked: usize = failing.iter().map(Origin::request_count).sum();
        assert_eq!(asked, 3.min(retries + 1), "{retries} retries");
    }
}

#[tokio::test]
async fn no_backend_is_tried_twice() {
    let (one, two) = (Origin::resetting().await, Origin::resetting().await);
    let proxy = Proxy::start(&servers(
        &[one.address(), two.address()],
        "max_fails = 0\nretries = 5",
    ))
    .await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.get("/").await.status(), 502);
    assert_eq!((one.request_count(), two.request_count()), (1, 1));
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    let gate = Gate::shut();
    let cut = Origin::start({
        let gate = gate.clone();
        move |mut visit: Visit| {
            let gate = gate.clone();
            async move {
                visit.request().await;
                visit
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                    .await;
                gate.pass().await;
            }
        }
    })
    .await;
    let good = Origin::echo("good").await;
    let proxy = Proxy::start(&servers(&[cut.address(), good.address()], PATIENT)).await;
    let mut client = Client::connect(&proxy).await;
    client.send_get("/").await;
    assert_eq!(client.wire.reader.head().await.status(), 200);
    gate.open();
    assert_eq!(client.wire.reader.rest().await.0, b"hello");
    assert_eq!(good.connections(), 0);
}

#[tokio::test]
async fn a_backend_that_takes_too_long_is_not_replaced_by_another() {
    let (silent, good) = (Origin::silent().await, Origin::echo("good").await);
    let keys = "max_fails = 0\nresponse_timeout = \"100ms\"";
    let proxy = Proxy::start(&servers(&[silent.address(), good.address()], keys)).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.get("/").await.status(), 504);
    assert_eq!(good.connections(), 0);
}

// === connections that were closed while idle ===

/// Answers one request per connection and closes it without having said so.
async fn closing() -> Origin {
    Origin::start(|mut visit: Visit| async move {
        if let Some(request) = visit.request().await {
            visit.answer("closing", &request.body).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_connection_closed_between_requests_is_no_failure() {
    let origin = closing().await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for count in 1..=4 {
        assert_eq!(client.get("/").await.status(), 200);
        until("the backend to close", || origin.open() == 0).await;
        assert_eq!(
            (origin.request_count(), origin.connections()),
            (count, count)
        );
    }
    assert_eq!(
        (proxy.backend(0).failures, proxy.backend(0).state),
        (0, ServerState::Up)
    );
}

#[tokio::test]
async fn a_post_does_not_meet_a_connection_that_was_closed() {
    let origin = closing().await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    for count in 1..=4 {
        let body = format!("body {count}");
        assert_eq!(client.post("/", body.as_bytes()).await.text(), body);
        until("the backend to close", || origin.open() == 0).await;
        assert_eq!(
            (origin.request_count(), origin.connections()),
            (count, count)
        );
    }
    assert_eq!(proxy.backend(0).failures, 0);
}

/// Answers the first request of each connection and closes it, or resets it, when the second one comes.
async fn closing_under_the_second(reset: bool) -> Origin {
    Origin::start(move |mut visit: Visit| async move {
        if let Some(request) = visit.request().await {
            visit.answer("closing", &request.body).await;
            if visit.request().await.is_some() && reset {
                visit.reset();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_connection_closed_under_a_request_is_replaced_by_a_new_one() {
    for reset in [false, true] {
        let origin = closing_under_the_second(reset).await;
        let proxy = Proxy::start(&servers(&[origin.address()], "retries = 0")).await;
        let mut client = Client::connect(&proxy).await;
        for _ in 0..4 {
            assert_eq!(client.get("/").await.status(), 200);
        }
        // One by one: the second of a connection comes again as the first of the next.
        assert_eq!((origin.connections(), origin.request_count()), (4, 7));
        assert_eq!((proxy.backend(0).failures, proxy.backend(0).picks), (0, 4));
    }
}

#[tokio::test]
async fn a_post_on_a_connection_closed_under_it_is_not_sent_again() {
    let origin = closing_under_the_second(true).await;
    let proxy = Proxy::before(&[&origin]).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.post("/", b"one").await.status(), 200);
    assert_eq!(client.post("/", b"two").await.status(), 502);
    assert_eq!((origin.connections(), origin.request_count()), (1, 2));
}

// === who is left out ===

#[tokio::test]
async fn the_only_backend_is_never_left_out() {
    let refusing = Refusing::new();
    let proxy = Proxy::start(&servers(&[refusing.address()], "max_fails = 1")).await;
    let mut client = Client::connect(&proxy).await;
    for count in 1..=5 {
        assert_eq!(client.get("/").await.status(), 502);
        assert_eq!(
            (proxy.backend(0).picks, proxy.backend(0).state),
            (count, ServerState::Up)
        );
    }
    let origin = refusing.into_echo("back");
    assert_eq!(client.get("/").await.origin(), "back");
    drop(origin);
}

#[tokio::test]
async fn the_last_backend_is_never_left_out() {
    let (one, two) = (Refusing::new(), Refusing::new());
    let proxy = Proxy::start(&servers(&[one.address(), two.address()], "max_fails = 1")).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status(), 502);
    }
    assert_eq!(
        (proxy.backend(0).state, proxy.backend(1).state),
        (ServerState::Down, ServerState::Up)
    );
    assert_eq!((proxy.backend(0).picks, proxy.backend(1).picks), (1, 5));
}

#[tokio::test]
async fn a_backend_that_keeps_failing_is_left_out_for_a_while() {
    let refusing = Refusing::new();
    let good = Origin::echo("good").await;
    let addresses = [refusing.address(), good.address()];
    let proxy = Proxy::start(&servers(&addresses, "max_fails = 2\nfail_timeout = \"1s\"")).await;
    let mut client = Client::connect(&proxy).await;
    while proxy.backend(0).state == ServerState::Up {
        assert_eq!(client.get("/").await.origin(), "good");
        assert!(proxy.backend(0).failures <= 2);
    }
    assert_eq!((proxy.backend(0).picks, proxy.backend(0).failures), (2, 2));
    for _ in 0..20 {
        assert_eq!(client.get("/").await.origin(), "good");
        assert_eq!(proxy.backend(0).picks, 2);
    }
    // It comes back by itself, and with a clean sheet.
    let back = refusing.into_echo("back");
    proxy
        .reaches("the backend to be tried again", |status| {
            status.upstreams[0].backends[0].state == ServerState::Up
        })
        .await;
    let mut origins = Vec::new();
    for _ in 0..4 {
        origins.push(client.get("/").await.origin().to_owned());
    }
    assert_eq!(
        origins.iter().filter(|name| *name == "back").count(),
        2,
        "{origins:?}"
    );
    drop(back);
}

#[tokio::test]
async fn failures_far_apart_leave_nobody_out() {
    let refusing = Refusing::new();
    let good = Origin::echo("good").await;
    let addresses = [refusing.address(), good.address()];
    // Hardly any two failures fall into one millisecond, and three do not.
    let proxy = Proxy::start(&servers(
        &addresses,
        "max_fails = 100\nfail_timeout = \"1ms\"",
    ))
    .await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..250 {
        assert_eq!(client.get("/").await.origin(), "good");
    }
    assert_eq!(proxy.backend(0).failures, proxy.backend(0).picks);
    assert!(proxy.backend(0).picks > 100, "{:?}", proxy.backend(0));
}
