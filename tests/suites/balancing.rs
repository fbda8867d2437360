//! Who gets a request: shares over shards and connections, states, routes. The policies run as plugins.

use std::collections::HashMap;
use std::net::SocketAddr;

use waypost::config::ServerState;
use waypost_tests::{Client, Gate, Origin, Proxy, Refusing};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

async fn origins(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for name in NAMES.into_iter().take(count) {
        origins.push(Origin::echo(name).await);
    }
    origins
}

/// A proxy with a policy before these, with what the test says of each.
async fn balanced(shards: usize, policy: &str, backends: &[(SocketAddr, &str)]) -> Proxy {
    let list: Vec<String> = backends
        .iter()
        .map(|(address, keys)| format!("{{ address = \"{address}\", {keys} }}"))
        .collect();
    Proxy::start(&format!(
        "shards = {shards}\n[upstream.app]\npolicy = \"{policy}\"\nservers = [{}]\n",
        list.join(", ")
    ))
    .await
}

async fn clients(proxy: &Proxy, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(proxy).await);
    }
    clients
}

fn picks(proxy: &Proxy) -> Vec<u64> {
    proxy.status().upstreams[0]
        .backends
        .iter()
        .map(|backend| backend.picks)
        .collect()
}

/// That no pick was made by the rotation that stands in for a policy that fails.
fn assert_by_plugin(proxy: &Proxy) {
    let policy = proxy.status().upstreams[0].policy.clone();
    let plugin = policy.plugin.expect("a policy that is a plugin");
    let picks: u64 = picks(proxy).iter().sum();
    assert_eq!((plugin.calls, plugin.failures), (picks, 0));
}

// === round-robin ===

#[tokio::test]
async fn equal_weights_never_differ_by_more_than_one() {
    for (backends, shards) in [(2, 1), (3, 2), (4, 3)] {
        let origins = origins(backends).await;
        let servers: Vec<(SocketAddr, &str)> = origins
            .iter()
            .map(|origin| (origin.address(), "weight = 1"))
            .collect();
        let proxy = balanced(shards, "round-robin", &servers).await;
        // On many connections, so that every shard has some.
        let mut clients = clients(&proxy, 24).await;
        for _ in 0..5 {
            for client in &mut clients {
                assert_eq!(client.get("/").await.status(), 200);
                let picks = picks(&proxy);
                let spread = picks.iter().max().unwrap() - picks.iter().min().unwrap();
                assert!(spread <= 1, "{picks:?}");
            }
        }
        assert_eq!(picks(&proxy).iter().sum::<u64>(), 120);
        assert_by_plugin(&proxy);
    }
}

#[tokio::test]
async fn equal_weights_are_exact_also_at_once() {
    let origins = origins(3).await;
    let servers: Vec<(SocketAddr, &str)> = origins
        .iter()
        .map(|origin| (origin.address(), "weight = 1"))
        .collect();
    let proxy = balanced(2, "round-robin", &servers).await;
    let tasks: Vec<_> = clients(&proxy, 20)
        .await
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                for _ in 0..30 {
                    assert_eq!(client.get("/").await.status(), 200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client that is served");
    }
    assert_eq!(picks(&proxy), [200, 200, 200]);
    for origin in &origins {
        assert_eq!(origin.request_count(), 200);
    }
    assert_by_plugin(&proxy);
}

#[tokio::test]
async fn weights_are_exact_and_smooth() {
    let origins = origins(3).await;
    let weights = [5, 1, 1];
    let keys = weights.map(|weight| format!("weight = {weight}"));
    let servers: Vec<(SocketAddr, &str)> = origins
        .iter()
        .zip(&keys)
        .map(|(origin, keys)| (origin.address(), keys.as_str()))
        .collect();
    let proxy = balanced(2, "round-robin", &servers).await;
    let mut clients = clients(&proxy, 14).await;
    let mut sequence = Vec::new();
    for _ in 0..5 {
        for client in &mut clients {
            sequence.push(client.get("/").await.origin().to_owned());
        }
    }
    for round in sequence.chunks(7) {
        let count = |name: &str| round.iter().filter(|other| *other == name).count();
        assert_eq!(
            [count("a"), count("b"), count("c")],
            weights,
            "{sequence:?}"
        );
        // Smooth: the light ones do not come one after the other, and the heavy one not five times in a row.
        let round = round.join("");
        assert!(
            !round.contains("bc") && !round.contains("cb") && !round.contains("aaaaa"),
            "{round}"
        );
    }
    assert_eq!(picks(&proxy), [50, 10, 10]);
    assert_by_plugin(&proxy);
}

#[tokio::test]
async fn only_those_in_use_are_picked() {
    for policy in ["round-robin", "least-conn", "rotation"] {
        let origins = origins(4).await;
        let keys = [
            "state = \"draining\"",
            "state = \"up\"",
            "state = \"down\"",
            "state = \"up\"",
        ];
        let servers: Vec<(SocketAddr, &str)> = origins
            .iter()
            .zip(keys)
            .map(|(origin, keys)| (origin.address(), keys))
            .collect();
        let proxy = balanced(2, policy, &servers).await;
        for client in &mut clients(&proxy, 10).await {
            for _ in 0..2 {
                assert_eq!(client.get("/").await.status(), 200);
            }
        }
        assert_eq!(picks(&proxy), [0, 10, 0, 10], "{policy}");
        let states: Vec<ServerState> = proxy.status().upstreams[0]
            .backends
            .iter()
            .map(|backend| backend.state)
            .collect();
        assert_eq!(
            states,
            [
                ServerState::Draining,
                ServerState::Up,
                ServerState::Down,
                ServerState::Up
            ]
        );
    }
}

#[tokio::test]
async fn those_that_fail_are_left_to_the_others() {
    for policy in ["round-robin", "least-conn"] {
        let refusing = Refusing::new();
        let origins = origins(2).await;
        let servers = [
            (origins[0].address(), "weight = 1"),
            (refusing.address(), "weight = 1"),
            (origins[1].address(), "weight = 1"),
        ];
        let proxy = balanced(2, policy, &servers).await;
        let mut clients = clients(&proxy, 12).await;
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(client.get("/").await.status(), 200, "{policy}");
            }
        }
        let picks = picks(&proxy);
        assert_eq!(picks[1], 1, "{policy}: {picks:?}");
        assert_eq!(picks[0] + picks[2], 36, "{policy}: {picks:?}");
        assert!(picks[0].abs_diff(picks[2]) <= 2, "{policy}: {picks:?}");
        assert_eq!(proxy.backend(1).state, ServerState::Down);
    }
}

// === least-conn ===

async fn gated(count: usize) -> (Vec<Origin>, Vec<Gate>) {
    let (mut origins, mut gates) = (Vec::new(), Vec::new());
    for name in NAMES.into_iter().take(count) {
        let (origin, gate) = Origin::gated(name).await;
        origins.push(origin);
        gates.push(gate);
    }
    (origins, gates)
}

fn in_flight(proxy: &Proxy) -> Vec<u32> {
    proxy.status().upstreams[0]
        .backends
        .iter()
        .map(|backend| backend.in_flight)
        .collect()
}

/// Sends a request and waits until it is in flight.
async fn one_more(proxy: &Proxy) -> Client {
    let total = |proxy: &Proxy| in_flight(proxy).iter().sum::<u32>();
    let before = total(proxy);
    let mut client = Client::connect(proxy).await;
    client.send_get("/").await;
    proxy
        .reaches("one more in flight", |_| total(proxy) == before + 1)
        .await;
    client
}

#[tokio::test]
async fn requests_go_where_the_fewest_are() {
    let (origins, gates) = gated(3).await;
    let servers: Vec<(SocketAddr, &str)> = origins
        .iter()
        .map(|origin| (origin.address(), "weight = 1"))
        .collect();
    let proxy = balanced(2, "least-conn", &servers).await;
    // Over two shards: each sees what is in flight on the other.
    let mut held = Vec::new();
    for count in 1..=12_u32 {
        held.push(one_more(&proxy).await);
        let loads = in_flight(&proxy);
        assert!(
            loads
                .iter()
                .all(|load| *load >= count / 3 && *load <= count.div_ceil(3)),
            "{loads:?}"
        );
    }
    assert_eq!(in_flight(&proxy), [4, 4, 4]);
    // One of them gets some done: it alone gets the next ones.
    gates[1].release(3);
    proxy
        .reaches("three to be done", |_| in_flight(&proxy) == [4, 1, 4])
        .await;
    for load in 2..=4 {
        held.push(one_more(&proxy).await);
        assert_eq!(in_flight(&proxy), [4, load, 4]);
    }
    for gate in &gates {
        gate.open();
    }
    for client in &mut held {
        assert_eq!(client.response().await.status(), 200);
    }
    proxy
        .reaches("nothing in flight", |_| in_flight(&proxy) == [0, 0, 0])
        .await;
    assert_by_plugin(&proxy);
}

#[tokio::test]
async fn weights_say_how_many_are_few() {
    let (origins, gates) = gated(3).await;
    let keys = ["weight = 3", "weight = 2", "weight = 1"];
    let servers: Vec<(SocketAddr, &str)> = origins
        .iter()
        .zip(keys)
        .map(|(origin, keys)| (origin.address(), keys))
        .collect();
    let proxy = balanced(2, "least-conn", &servers).await;
    let mut held = Vec::new();
    for _ in 0..18 {
        held.push(one_more(&proxy).await);
    }
    assert_eq!(in_flight(&proxy), [9, 6, 3]);
    for gate in &gates {
        gate.open();
    }
    for client in &mut held {
        client.response().await;
    }
}

#[tokio::test]
async fn those_that_are_equally_idle_take_turns() {
    let origins = origins(3).await;
    let servers: Vec<(SocketAddr, &str)> = origins
        .iter()
        .map(|origin| (origin.address(), "weight = 1"))
        .collect();
    let proxy = balanced(2, "least-conn", &servers).await;
    for client in &mut clients(&proxy, 10).await {
        for _ in 0..3 {
            assert_eq!(client.get("/").await.status(), 200);
        }
    }
    assert_eq!(picks(&proxy), [10, 10, 10]);
}

#[tokio::test]
async fn requests_at_once_do_not_pile_up_on_one() {
    let (origins, gates) = gated(4).await;
    let servers: Vec<(SocketAddr, &str)> = origins
        .iter()
        .map(|origin| (origin.address(), "weight = 1"))
        .collect();
    let proxy = balanced(2, "least-conn", &servers).await;
    let mut clients = clients(&proxy, 40).await;
    for client in &mut clients {
        client.send_get("/").await;
    }
    proxy
        .reaches("all in flight", |_| {
            in_flight(&proxy).iter().sum::<u32>() == 40
        })
        .await;
    // Two shards may decide at the same moment, so it need not be exact.
    let loads = in_flight(&proxy);
    assert!(
        loads.iter().all(|load| (8..=12).contains(load)),
        "{loads:?}"
    );
    for gate in &gates {
        gate.open();
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 200);
    }
}

// === routes ===

#[tokio::test]
async fn the_most_specific_route_wins() {
    let routes = [
        ("exact", "host = \"example.com\""),
        ("exact-api", "host = \"example.com\"\npath = \"/api\""),
        (
            "exact-api-v2",
            "host = \"example.com\"\npath = \"/api/v2/\"",
        ),
        ("wildcard", "host = \"*.example.com\""),
        ("deep", "host = \"*.deep.example.com\""),
        ("any", "path = \"/\""),
        ("any-static", "path = \"/static\""),
    ];
    let rows = [
        ("example.com", "/", "exact"),
        ("Example.COM:8080", "/other", "exact"),
        ("example.com", "/api", "exact-api"),
        ("example.com", "/api/", "exact-api"),
        ("example.com", "/api?x=/v2", "exact-api"),
        ("example.com", "/apis", "exact"),
        ("example.com", "/api/v2", "exact-api-v2"),
        ("example.com", "/api/v2/x", "exact-api-v2"),
        ("example.com", "/api/v22", "exact-api"),
        ("example.com", "/static/x", "exact"),
        ("www.example.com", "/api", "wildcard"),
        ("a.b.example.com", "/", "wildcard"),
        ("a.deep.example.com", "/", "deep"),
        ("deep.example.com", "/", "wildcard"),
        ("notexample.com", "/", "any"),
        ("other", "/static", "any-static"),
        ("other", "/static/a.css", "any-static"),
        ("other", "/statics", "any"),
        ("127.0.0.1:80", "/", "any"),
    ];
    let mut config = String::new();
    let mut origins = HashMap::new();
    for (name, keys) in routes {
        let origin = Origin::echo(name).await;
        let address = origin.address();
        config.push_str(&format!(
            "[upstream.{name}]\npolicy = \"rotation\"\nservers = [\"{address}\"]\n[[route]]\nupstream = \"{name}\"\n{keys}\n"
        ));
        origins.insert(name, origin);
    }
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for (host, target, name) in rows {
        let response = client
            .ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(response.origin(), name, "{host} {target}");
        // What a target names counts, whatever the field says.
        let absolute = format!("GET http://{host}{target} HTTP/1.1\r\nHost: misleading\r\n\r\n");
        assert_eq!(client.ask(absolute).await.origin(), name, "{host} {target}");
    }
}
