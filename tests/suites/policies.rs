//! The policies for more than shares: keys, cookies, canaries. As plugins, through the real proxy, over several shards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use waypost::Server;
use waypost::config::{Config, ServerState};
use waypost_tests::{Client, Gate, Origin, Proxy, Refusing, Response};

use crate::guests::{built_in, remade};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

async fn origins(count: usize) -> Vec<Origin> {
    let mut origins = Vec::new();
    for name in NAMES.into_iter().take(count) {
        origins.push(Origin::echo(name).await);
    }
    origins
}

/// Backends as their names, whose addresses differ from one run to the next.
fn servers(origins: &[Origin]) -> Vec<(&'static str, SocketAddr, &'static str)> {
    let servers = NAMES.into_iter().zip(origins);
    servers
        .map(|(name, origin)| (name, origin.address(), ""))
        .collect()
}

/// A configuration of two shards with a policy before these, each with what else is said of it.
fn config(policy: &str, servers: &[(&str, SocketAddr, &str)]) -> String {
    let list: Vec<String> = servers
        .iter()
        .map(|(name, address, keys)| {
            format!("{{ name = \"{name}\", address = \"{address}\", {keys} }}")
        })
        .collect();
    format!(
        "shards = 2\n[upstream.app]\npolicy = \"mine\"\nservers = [{}]\n[policy.mine]\n{policy}\n",
        list.join(", ")
    )
}

fn with_settings(policy: &str, settings: &str) -> String {
    format!("builtin = \"{policy}\"\nconfig = {{ {settings} }}")
}

/// On so many that every shard has some.
async fn clients(proxy: &Proxy) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(proxy).await);
    }
    clients
}

/// A GET with these field lines.
async fn get(client: &mut Client, target: &str, lines: &[String]) -> Response {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let response = client
        .ask(format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"
        ))
        .await;
    assert_eq!(response.status(), 200);
    response
}

/// That the policy itself has decided everything.
fn assert_without_failure(proxy: &Proxy) {
    let policy = proxy.status().upstreams[0].policy.clone();
    assert_eq!(policy.plugin.expect("a plugin").failures, 0);
}

// === consistent-hash ===

const BY_USER: &str = "key = { header = \"x-user\" }";

/// Who serves each of some users, which must be the same on all connections.
async fn by_user(proxy: &Proxy) -> Vec<String> {
    let mut clients = clients(proxy).await;
    let mut owners = Vec::new();
    for user in 0..60 {
        let line = [format!("X-User: user-{user}")];
        let mut seen = BTreeSet::new();
        for turn in 0..3 {
            let client = &mut clients[(user + 3 * turn) % 8];
            seen.insert(get(client, "/", &line).await.origin().to_owned());
        }
        assert_eq!(seen.len(), 1, "user {user}: {seen:?}");
        owners.extend(seen);
    }
    assert_without_failure(proxy);
    owners
}

#[tokio::test]
async fn a_key_has_one_backend_on_every_shard_and_host() {
    let policy = with_settings("consistent-hash", BY_USER);
    let (here, there) = (origins(4).await, origins(4).await);
    let one = Proxy::start(&config(&policy, &servers(&here))).await;
    // Other addresses and another order.
    let mut backwards = servers(&there);
    backwards.reverse();
    let other = Proxy::start(&config(&policy, &backwards)).await;
    let owners = by_user(&one).await;
    assert_eq!(owners, by_user(&other).await);
    assert_eq!(BTreeSet::from_iter(&owners).len(), 4);
}

#[tokio::test]
async fn a_backend_that_goes_takes_only_its_own_keys_along() {
    let policy = with_settings("consistent-hash", BY_USER);
    let origins = origins(4).await;
    let all = servers(&origins);
    let proxy = Proxy::start(&config(&policy, &all)).await;
    let before = by_user(&proxy).await;
    let mut after = Vec::new();
    for keys in ["state = \"down\"", "state = \"draining\"", "weight = 0"] {
        let mut some = all.clone();
        some[2].2 = keys;
        proxy.apply(&config(&policy, &some)).await;
        after.push(by_user(&proxy).await);
    }
    let mut some = all.clone();
    some.remove(2);
    proxy.apply(&config(&policy, &some)).await;
    after.push(by_user(&proxy).await);
    for owners in &after {
        assert_eq!(owners, &after[0]);
    }
    for (before, after) in before.iter().zip(&after[0]) {
        assert_eq!(before == after, before != "c");
    }
    proxy.apply(&config(&policy, &all)).await;
    assert_eq!(by_user(&proxy).await, before);
}

#[tokio::test]
async fn keys_of_a_backend_that_refuses_go_where_they_would_go_without_it() {
    let policy = with_settings("consistent-hash", BY_USER);
    let origins = origins(3).await;
    let refusing = Refusing::new();
    let mut all = servers(&origins);
    let without = Proxy::start(&config(&policy, &all)).await;
    all.push(("refusing", refusing.address(), ""));
    let proxy = Proxy::start(&config(&policy, &all)).await;
    // The first of its users are retried; then it is left out.
    assert_eq!(by_user(&proxy).await, by_user(&without).await);
    assert_eq!(proxy.backend(3).state, ServerState::Down);
}

#[tokio::test]
async fn requests_without_the_key_are_spread() {
    let policy = with_settings("consistent-hash", BY_USER);
    let origins = origins(4).await;
    let proxy = Proxy::start(&config(&policy, &servers(&origins))).await;
    for client in &mut clients(&proxy).await {
        for _ in 0..5 {
            get(client, "/", &[]).await;
        }
    }
    for origin in &origins {
        let count = origin.request_count();
        assert!((7..=13).contains(&count), "{count} of 40");
    }
    assert_without_failure(&proxy);
}

#[tokio::test]
async fn paths_and_cookies_are_keys_too() {
    let origins = origins(4).await;
    for (key, change) in [("\"path\"", "/"), ("{ cookie = \"sid\" }", "?")] {
        let policy = with_settings("consistent-hash", &format!("key = {key}"));
        let proxy = Proxy::start(&config(&policy, &servers(&origins))).await;
        let mut clients = clients(&proxy).await;
        let mut owners = BTreeSet::new();
        for turn in 0..40 {
            let target = format!("/item{change}{turn}");
            let line = [format!("Cookie: x=y; sid=s-{}", turn % 2)];
            owners.insert(
                get(&mut clients[turn % 8], &target, &line)
                    .await
                    .origin()
                    .to_owned(),
            );
        }
        match change {
            "/" => assert_eq!(owners.len(), 4, "{key}"),
            _ => assert!(owners.len() <= 2, "{key}: {owners:?}"),
        }
        assert_without_failure(&proxy);
    }
}

#[tokio::test]
async fn a_hot_key_overflows_where_loads_are_bounded() {
    for (bound, most) in [("", 16), (", balance_factor = 1.25", 5)] {
        let (mut origins, mut gates) = (Vec::new(), Vec::<Gate>::new());
        for name in NAMES {
            let (origin, gate) = Origin::gated(name).await;
            origins.push(origin);
            gates.push(gate);
        }
        let policy = with_settings("consistent-hash", &format!("{BY_USER}{bound}"));
        let proxy = Proxy::start(&config(&policy, &servers(&origins))).await;
        let loads = || -> Vec<u32> {
            let backends = proxy.status().upstreams[0].backends.clone();
            backends.iter().map(|backend| backend.in_flight).collect()
        };
        let mut held = Vec::new();
        for count in 1..=16 {
            let mut client = Client::connect(&proxy).await;
            client
                .send("GET / HTTP/1.1\r\nHost: test\r\nX-User: hot\r\n\r\n")
                .await;
            proxy
                .reaches("one more in flight", |_| {
                    loads().iter().sum::<u32>() == count
                })
                .await;
            held.push(client);
        }
        assert_eq!(loads().into_iter().max(), Some(most), "{:?}", loads());
        gates.iter().for_each(Gate::open);
        for client in &mut held {
            assert_eq!(client.response().await.status(), 200);
        }
        assert_without_failure(&proxy);
    }
}

#[tokio::test]
async fn every_policy_is_ready_in_time_for_ten_thousand_backends() {
    let list: Vec<String> = (0..10_000)
        .map(|i| format!("\"127.1.{}.{}:80\"", i / 250, i % 250))
        .collect();
    for policy in ["consistent-hash", "sticky-cookie", "header-canary"] {
        let text = format!(
            "cache = false\n[[listen]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n\
             [upstream.app]\npolicy = \"{policy}\"\nservers = [{}]\n",
            list.join(", ")
        );
        let config = Config::parse("test.toml".as_ref(), &text).expect("a configuration");
        // Tries the policy under the limits of time and memory that it has in use.
        if let Err(error) = Server::check(config).await {
            panic!("{policy}: {error}");
        }
    }
}

// === sticky-cookie ===

/// The one cookie of ours that a response sets, as `NAME=VALUE`.
fn cookie(response: &Response) -> Option<String> {
    let all = response.head.all("set-cookie");
    let mut ours = all.iter().filter(|cookie| cookie.starts_with("srv="));
    let cookie = ours.next()?;
    assert_eq!(ours.next(), None, "{all:?}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"));
    cookie.split_once(';').map(|(pair, _)| pair.to_owned())
}

const STICKY: &str = "cookie = \"srv\", secret = \"a line that only the test knows\"";

/// The cookie of each backend, from clients that arrive.
async fn cookies(proxy: &Proxy) -> BTreeMap<String, String> {
    let mut cookies = BTreeMap::new();
    for client in &mut clients(proxy).await {
        for _ in 0..2 {
            let response = get(client, "/", &[]).await;
            let name = response.origin().to_owned();
            let cookie = cookie(&response).expect("a cookie for a new client");
            let before = cookies.insert(name, cookie.clone());
            assert!(before.is_none_or(|before| before == cookie));
        }
    }
    cookies
}

/// Asks with a cookie on every connection: who answers, which must be the same for all, and the cookies that are set.
async fn with_cookie(proxy: &Proxy, cookie_there: &str) -> (String, Vec<String>) {
    let mut seen = BTreeSet::new();
    let mut set = Vec::new();
    for client in &mut clients(proxy).await {
        let line = [format!("Cookie: theme=dark; {cookie_there}")];
        let response = get(client, "/", &line).await;
        seen.insert(response.origin().to_owned());
        set.extend(cookie(&response));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    (seen.pop_first().unwrap_or_default(), set)
}

#[tokio::test]
async fn a_client_stays_with_its_backend_on_every_shard() {
    let policy = with_settings("sticky-cookie", STICKY);
    let origins = origins(3).await;
    let proxy = Proxy::start(&config(&policy, &servers(&origins))).await;
    let cookies = cookies(&proxy).await;
    assert_eq!(cookies.len(), 3, "new clients are spread: {cookies:?}");
    for (name, cookie) in &cookies {
        assert_eq!(
            with_cookie(&proxy, cookie).await,
            (name.clone(), Vec::new())
        );
    }
    // The application sees the cookie like any other.
    let last = origins[0].requests().pop().expect("a request");
    assert!(last.field("cookie").is_some());
    assert_without_failure(&proxy);
}

#[tokio::test]
async fn cookies_of_the_application_stay() {
    let origin = Origin::respond(
        "HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nset-cookie: theme=dark; Path=/\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let policy = with_settings("sticky-cookie", STICKY);
    let proxy = Proxy::start(&config(&policy, &[("a", origin.address(), "")])).await;
    let mut client = Client::connect(&proxy).await;
    let response = get(&mut client, "/", &[]).await;
    let all = response.head.all("set-cookie");
    assert_eq!(all[..2], ["session=1", "theme=dark; Path=/"]);
    assert_eq!(all.len(), 3);
    let ours = cookie(&response).expect("a cookie");
    let response = get(&mut client, "/", &[format!("Cookie: {ours}")]).await;
    assert_eq!(response.head.all("set-cookie").len(), 2);
}

#[tokio::test]
async fn clients_move_when_their_backend_takes_nothing() {
    let policy = with_settings("sticky-cookie", STICKY);
    let origins = origins(2).await;
    let all = servers(&origins);
    let proxy = Proxy::start(&config(&policy, &all)).await;
    let cookies = cookies(&proxy).await;
    for keys in ["state = \"draining\"", "state = \"down\"", "weight = 0"] {
        let mut some = all.clone();
        some[0].2 = keys;
        proxy.apply(&config(&policy, &some)).await;
        let (name, set) = with_cookie(&proxy, &cookies["a"]).await;
        assert_eq!(name, "b", "{keys}");
        assert_eq!(set, vec![cookies["b"].clone(); 8], "{keys}");
        assert_eq!(with_cookie(&proxy, &cookies["b"]).await.1, [""; 0]);
    }
    assert_without_failure(&proxy);
}

#[tokio::test]
async fn a_client_whose_backend_refuses_gets_a_cookie_for_another() {
    let policy = with_settings("sticky-cookie", STICKY);
    let origins = origins(2).await;
    let all = servers(&origins);
    let proxy = Proxy::start(&config(&policy, &all)).await;
    let cookies = cookies(&proxy).await;
    // The same names, but nobody is at home at `a`.
    let refusing = Refusing::new();
    let mut some = all.clone();
    some[0].1 = refusing.address();
    proxy.apply(&config(&policy, &some)).await;
    let mut client = Client::connect(&proxy).await;
    let response = get(&mut client, "/", &[format!("Cookie: {}", cookies["a"])]).await;
    assert_eq!(response.origin(), "b");
    assert_eq!(cookie(&response).as_ref(), Some(&cookies["b"]));
    assert_eq!(proxy.backend(0).failures, 1);
}

#[tokio::test]
async fn cookies_outlive_a_swap_a_reload_and_the_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let module = std::fs::read(built_in("sticky-cookie")).expect("the built-in policy");
    let policies = [1, 2].map(|mark| {
        let file = directory.path().join(format!("{mark}.wasm"));
        std::fs::write(&file, remade(&module, mark)).expect("a file");
        format!("file = \"{}\"\nconfig = {{ {STICKY} }}", file.display())
    });
    let origins = origins(3).await;
    let all = servers(&origins);
    let proxy = Proxy::start(&config(&policies[0], &all)).await;
    let before = cookies(&proxy).await;
    for policy in [&policies[1], &policies[0]] {
        assert_eq!(proxy.apply(&config(policy, &all)).await.len(), 1);
        for (name, cookie) in &before {
            let stayed = (name.clone(), Vec::new());
            assert_eq!(with_cookie(&proxy, cookie).await, stayed);
        }
    }
    let another = with_settings("sticky-cookie", STICKY);
    let another = Proxy::start(&config(&another, &all)).await;
    assert_eq!(cookies(&another).await, before);
    assert_without_failure(&proxy);
}

#[tokio::test]
async fn a_cookie_cannot_be_made_up() {
    let origins = origins(2).await;
    let all = servers(&origins);
    let open = with_settings("sticky-cookie", "cookie = \"srv\"");
    let open = Proxy::start(&config(&open, &all)).await;
    let known = cookies(&open).await;
    let policy = with_settings("sticky-cookie", STICKY);
    let proxy = Proxy::start(&config(&policy, &all)).await;
    let own = cookies(&proxy).await;
    for made_up in [known["a"].as_str(), "srv=a", "srv="] {
        assert!(own.values().all(|cookie| cookie != made_up));
        let mut client = Client::connect(&proxy).await;
        let response = get(&mut client, "/", &[format!("Cookie: {made_up}")]).await;
        let name = response.origin();
        assert_eq!(cookie(&response).as_ref(), own.get(name), "{made_up}");
    }
}

// === header-canary ===

const EDITS: &str = "canary = { request = { set = { x-release = \"2\" }, remove = [\"x-debug\"] }, \
                     response = { set = { x-release = \"2\" }, remove = [\"x-origin-version\"] } }, \
                     stable = { request = { remove = [\"x-release\"] } }";

fn with_canary(origins: &[Origin]) -> Vec<(&'static str, SocketAddr, &'static str)> {
    let mut servers = servers(origins);
    if let Some(last) = servers.last_mut() {
        last.2 = "labels = { version = \"canary\" }";
    }
    servers
}

#[tokio::test]
async fn a_share_goes_to_the_canary_exactly_also_at_once() {
    let origins = origins(3).await;
    let policy = with_settings("header-canary", &format!("percent = 12.5, {EDITS}"));
    let proxy = Proxy::start(&config(&policy, &with_canary(&origins))).await;
    let tasks: Vec<_> = clients(&proxy)
        .await
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                for _ in 0..50 {
                    let lines = ["X-Debug: 1".to_owned(), "X-Release: 9".to_owned()];
                    let response = get(&mut client, "/", &lines).await;
                    let is_canary = response.origin() == "c";
                    assert_eq!(response.field("x-release"), is_canary.then_some("2"));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client that is served");
    }
    assert_eq!(origins[2].request_count(), 50);
    let stable = [origins[0].request_count(), origins[1].request_count()];
    assert_eq!(stable.iter().sum::<usize>(), 350);
    for request in origins[2].requests() {
        assert_eq!(request.field("x-release"), Some("2"));
        assert!(!request.head.has("x-debug"));
    }
    for request in origins[0].requests() {
        assert!(!request.head.has("x-release"));
        assert_eq!(request.field("x-debug"), Some("1"));
    }
    assert_without_failure(&proxy);
}

#[tokio::test]
async fn who_asks_for_the_canary_gets_it_and_a_key_stays() {
    let origins = origins(3).await;
    let settings = "percent = 30, key = { cookie = \"sid\" }, always = [{ header = \"x-canary\" }], \
                    never = [{ cookie = \"old\", value = \"1\" }]";
    let policy = with_settings("header-canary", settings);
    let proxy = Proxy::start(&config(&policy, &with_canary(&origins))).await;
    let mut clients = clients(&proxy).await;
    let mut canaries = 0;
    for user in 0..60 {
        let mut sides = BTreeSet::new();
        for turn in 0..3 {
            let client = &mut clients[(user + turn) % 8];
            let line = [format!("Cookie: sid=user-{user}")];
            sides.insert(get(client, "/", &line).await.origin() == "c");
            let line = [line[0].clone(), "X-Canary: please".to_owned()];
            assert_eq!(get(client, "/", &line).await.origin(), "c");
            let line = [format!("{}; old=1", line[0])];
            assert_ne!(get(client, "/", &line).await.origin(), "c");
        }
        assert_eq!(sides.len(), 1, "user {user}");
        canaries += usize::from(sides.contains(&true));
    }
    assert!((9..=27).contains(&canaries), "{canaries} of 60");
    assert_without_failure(&proxy);
}

#[tokio::test]
async fn a_side_that_is_down_is_taken_over_by_the_other() {
    let origins = origins(3).await;
    let all = with_canary(&origins);
    for (percent, closed, expected) in [(100, 2..3, "ab"), (0, 0..2, "c")] {
        let policy = with_settings("header-canary", &format!("percent = {percent}, {EDITS}"));
        let proxy = Proxy::start(&config(&policy, &all)).await;
        let down = format!("{}, state = \"down\"", all[2].2);
        let mut some = all.clone();
        for server in &mut some[closed] {
            server.2 = if server.2.is_empty() {
                "state = \"down\""
            } else {
                &down
            };
        }
        proxy.apply(&config(&policy, &some)).await;
        for client in &mut clients(&proxy).await {
            let response = get(client, "/", &[]).await;
            assert!(expected.contains(response.origin()), "{percent}");
            let is_canary = response.origin() == "c";
            assert_eq!(response.field("x-release"), is_canary.then_some("2"));
        }
        assert_without_failure(&proxy);
    }
}

#[tokio::test]
async fn a_canary_that_refuses_costs_nobody_a_response() {
    let origins = origins(2).await;
    let refusing = Refusing::new();
    let mut all = servers(&origins);
    all.push((
        "new",
        refusing.address(),
        "labels = { version = \"canary\" }",
    ));
    let policy = with_settings("header-canary", &format!("percent = 50, {EDITS}"));
    let proxy = Proxy::start(&config(&policy, &all)).await;
    for client in &mut clients(&proxy).await {
        for _ in 0..4 {
            let response = get(client, "/", &[]).await;
            assert!("ab".contains(response.origin()));
            assert_eq!(response.field("x-release"), None);
        }
    }
    assert_eq!(proxy.backend(2).state, ServerState::Down);
    assert_without_failure(&proxy);
}
