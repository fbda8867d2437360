//! Another configuration while traffic flows: in one step, or not at all.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use waypost::config::ServerState;
use waypost::control::{BackendChange, ControlError, Report};
use waypost::status::{BackendStatus, PolicyStatus};
use waypost_tests::{Client, Origin, Proxy, servers, settled, until, within};

use crate::guests::guest;

/// Long enough for several looks at a policy's file.
const LOOKS: Duration = Duration::from_millis(800);

/// As `servers`, with something to say of each.
fn detailed(servers: &[(SocketAddr, &str)]) -> String {
    let list: Vec<String> = servers
        .iter()
        .map(|(address, keys)| format!("{{ address = \"{address}\", {keys} }}"))
        .collect();
    let list = list.join(", ");
    format!("[upstream.app]\npolicy = \"round-robin\"\nservers = [{list}]\n")
}

/// A port where nobody listens.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket")
}

async fn refuses(address: SocketAddr) -> bool {
    Client::try_connect_to(address).await.is_err()
}

// === in one step ===

#[tokio::test]
async fn no_request_sees_parts_of_two_configurations() {
    let [a, b] = [Origin::echo("a").await, Origin::echo("b").await];
    let config = |origin: &Origin, pass_host: bool, idle: &str| {
        format!(
            "shards = 2\n{}[[route]]\nupstream = \"app\"\npass_host = {pass_host}\n\
             [timeouts]\nidle = \"{idle}\"\n",
            servers(&[origin.address()], "")
        )
    };
    let configs = [config(&a, true, "70s"), config(&b, false, "71s")];
    let proxy = Proxy::start(&configs[0]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(&proxy).await;
        let stop = stop.clone();
        running.push(tokio::spawn(async move {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.get("/").await.status(), 200);
                answered += 1;
            }
            answered
        }));
    }
    for turn in 1..=100 {
        let count = || a.request_count() + b.request_count();
        let before = count();
        until("more requests", || count() > before + 10).await;
        let changes = proxy.apply(&configs[turn % 2]).await;
        assert_eq!(changes.len(), 4, "{changes:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for client in running {
        answered += within("a client", client).await.expect("no error");
    }
    assert_eq!(answered, a.request_count() + b.request_count());
    let own = b.address().to_string();
    for (origin, host) in [(&a, "test"), (&b, own.as_str())] {
        let requests = origin.take_requests();
        assert!(
            requests
                .iter()
                .all(|request| request.field("host") == Some(host))
        );
    }
    assert_eq!(proxy.status().generation, 101);
    assert_eq!(proxy.status().accepted, 8);
}

#[tokio::test]
async fn everything_that_changes_is_told_and_takes_effect() {
    let [a, b] = [Origin::echo("a").await, Origin::echo("b").await];
    let proxy = Proxy::start(&detailed(&[(a.address(), "name = \"one\"")])).await;
    let mut client = Client::connect(&proxy).await;
    let long = format!("/{}", "x".repeat(100));
    assert_eq!(client.get(&long).await.status(), 200);

    let more = detailed(&[
        (a.address(), "name = \"one\", weight = 3"),
        (b.address(), "name = \"two\""),
    ]);
    let route = "[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/api\"\nupstream = \"new\"\n";
    let changes = proxy
        .apply(&format!(
            "shards = 3\n{more}retries = 0\n[upstream.new]\npolicy = \"rotation\"\nservers = [\"{}\"]\n{route}\
             [limits]\nrequest_target = \"64B\"\n[timeouts]\nresponse = \"50s\"\n[shutdown]\ngrace = \"1s\"\n\
             [forwarded]\ntrusted = [\"127.0.0.1\"]\n",
            b.address()
        ))
        .await;
    assert_eq!(
        changes,
        [
            "routes: 2 in place of 1",
            "upstream app, backend one: weight 1 -> 3",
            "upstream app, backend two: new",
            "upstream app: other settings",
            "upstream new: new",
            "forwarded: other settings",
            "timeouts: other settings",
            "limits: other settings",
            "shutdown: other settings",
            "shards: 3 need a restart; there are 1 until then",
        ]
    );
    assert_eq!(client.get(&long).await.status(), 414);
    let mut client = Client::connect(&proxy).await;
    let mut turns = String::new();
    for _ in 0..8 {
        turns.push_str(client.get("/").await.origin());
    }
    assert_eq!(turns.matches('a').count(), 6, "{turns}");
    a.take_requests();
    assert_eq!(client.get("/api").await.origin(), "b");
    let ask = "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n";
    for _ in 0..4 {
        client.ask(ask).await;
    }
    let request = &a.requests()[0];
    assert_eq!(
        request.field("x-forwarded-for"),
        Some("10.0.0.1, 127.0.0.1")
    );

    let changes = proxy
        .apply(&detailed(&[(b.address(), "name = \"two\"")]))
        .await;
    for gone in [
        "routes: 1 in place of 2",
        "upstream app, backend one: gone",
        "upstream new: gone",
    ] {
        assert!(changes.iter().any(|change| change == gone), "{changes:?}");
    }
    assert_eq!(client.get("/api").await.origin(), "b");
}

#[tokio::test]
async fn a_backend_that_stays_keeps_its_id_its_numbers_and_its_connections() {
    let [a, b] = [Origin::echo("a").await, Origin::echo("b").await];
    let one = |keys: &str| detailed(&[(a.address(), keys)]);
    let proxy = Proxy::start(&one("weight = 1")).await;
    let mut client = Client::connect(&proxy).await;
    let id = proxy.backend(0).id;
    for (picks, config) in [
        one("weight = 2"),
        one("name = \"one\", weight = 2"),
        one("labels = { zone = \"x\" }") + "retries = 3\n",
        one("weight = 1").replace("round-robin", "least-conn"),
        one("weight = 1").replace("round-robin", "rotation"),
        detailed(&[
            (b.address(), "state = \"down\""),
            (a.address(), "weight = 1"),
        ]),
        one("weight = 1"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(client.get("/").await.origin(), "a");
        assert!(!proxy.apply(&config).await.is_empty());
        let status = proxy.status();
        let mut backends = status.upstreams[0].backends.iter();
        let backend = backends.find(|backend| backend.address == a.address().to_string());
        let backend = backend.expect("it stays");
        assert_eq!((backend.id, backend.picks), (id, picks as u64 + 1));
        assert!(backend.latency.is_some());
    }
    assert_eq!(client.get("/").await.origin(), "a");
    assert_eq!((a.connections(), a.open()), (1, 1));
    assert_eq!(
        (proxy.status().accepted, proxy.status().connections),
        (1, 1)
    );
}

#[tokio::test]
async fn a_backend_that_is_removed_finishes_what_it_has() {
    let (old, gate) = Origin::gated("old").await;
    let new = Origin::echo("new").await;
    let proxy = Proxy::before(&[&old]).await;
    let mut held = Client::connect(&proxy).await;
    held.send_get("/").await;
    old.received(1).await;
    let id = proxy.backend(0).id;
    proxy.apply(&servers(&[new.address()], "")).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.origin(), "new");
    }
    let status = proxy.status();
    assert_eq!(status.upstreams[0].backends.len(), 1);
    assert_ne!(status.upstreams[0].backends[0].id, id);
    gate.open();
    let late = held.response().await;
    assert_eq!((late.status(), late.origin()), (200, "old"));
    assert_eq!(held.get("/").await.origin(), "new");
    // Nothing is kept of a backend that is gone.
    until("its connection to be closed", || old.open() == 0).await;
    assert_eq!(old.request_count(), 1);

    // One that comes back is another one.
    proxy.apply(&servers(&[old.address()], "")).await;
    assert_ne!(proxy.backend(0).id, id);
    assert_eq!(proxy.backend(0).picks, 0);
}

#[tokio::test]
async fn requests_in_flight_are_counted_without_a_jump() {
    let (origin, gate) = Origin::gated("a").await;
    let policy = |name: &str| {
        let file = guest(name).display();
        servers(&[origin.address()], "policy = \"guest\"")
            + &format!("[policy.guest]\nfile = \"{file}\"\n")
    };
    let proxy = Proxy::start(&policy("counts")).await;
    let mut held = Vec::new();
    for count in 1..=3 {
        let mut client = Client::connect(&proxy).await;
        client.send_get("/").await;
        origin.received(count).await;
        held.push(client);
    }
    for config in [
        policy("counts-again"),
        policy("counts-again") + "on_failure = \"reject\"\n",
        servers(&[origin.address()], ""),
        servers(&[origin.address()], "retries = 0"),
        detailed(&[(origin.address(), "weight = 7, name = \"seven\"")]),
        detailed(&[(origin.address(), "state = \"draining\"")]),
        policy("counts"),
    ] {
        assert!(!proxy.apply(&config).await.is_empty());
        assert_eq!(proxy.backend(0).in_flight, 3);
    }
    gate.open();
    for mut client in held {
        assert_eq!(client.response().await.status(), 200);
    }
    proxy
        .reaches("nothing in flight", |status| {
            status.upstreams[0].backends[0].in_flight == 0
        })
        .await;
    assert_eq!(proxy.backend(0).picks, 3);
}

#[tokio::test]
async fn an_upstream_that_is_removed_finishes_what_it_has() {
    let (old, gate) = Origin::gated("old").await;
    let new = Origin::echo("new").await;
    let proxy = Proxy::before(&[&old]).await;
    let mut held = Client::connect(&proxy).await;
    held.send_get("/").await;
    old.received(1).await;
    let upstream = servers(&[new.address()], "").replace("upstream.app", "upstream.other");
    let route = "[[route]]\npath = \"/other\"\nupstream = \"other\"\n";
    proxy.apply(&(upstream + route)).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.get("/").await.status(), 404);
    assert_eq!(client.get("/other").await.origin(), "new");
    gate.open();
    assert_eq!(held.response().await.origin(), "old");
    assert_eq!(held.get("/").await.status(), 404);
    until("its connection to be closed", || old.open() == 0).await;
}

// === listeners ===

/// This proxy's own listener, which is always there, and these.
fn listening(origin: &Origin, more: &[SocketAddr]) -> String {
    let mut text = servers(&[origin.address()], "") + "[[listen]]\naddress = \"127.0.0.1:0\"\n";
    for address in more {
        let _ = writeln!(text, "[[listen]]\naddress = \"{address}\"");
    }
    "shards = 2\n".to_owned() + &text
}

#[tokio::test]
async fn listeners_come_and_go_without_touching_the_others() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::start(&listening(&origin, &[])).await;
    let first = proxy.address();
    let mut stays = Client::connect(&proxy).await;
    assert_eq!(stays.get("/").await.status(), 200);

    let [second, third] = [free_port(), free_port()];
    assert!(refuses(second).await);
    let changes = proxy.apply(&listening(&origin, &[second, third])).await;
    assert_eq!(
        changes,
        [second, third].map(|address| format!("listen {address}: new"))
    );
    assert_eq!(proxy.status().listeners, [first, second, third]);
    // On many connections, so that every shard has some.
    let mut open = Vec::new();
    for address in [second, third].repeat(8) {
        let mut client = Client::try_connect_to(address).await.expect("it listens");
        assert_eq!(client.get("/").await.status(), 200);
        open.push(client);
    }

    let changes = proxy.apply(&listening(&origin, &[third])).await;
    assert_eq!(changes, [format!("listen {second}: gone")]);
    assert_eq!(proxy.status().listeners, [first, third]);
    // The orders to the shards may still be on their way.
    let mut attempts = 0;
    while !refuses(second).await {
        attempts += 1;
        assert!(attempts < 1000, "{second} still takes connections");
    }
    for client in open.iter_mut().chain([&mut stays]) {
        assert_eq!(client.get("/").await.status(), 200);
    }
    let mut client = Client::try_connect_to(third).await.expect("it listens");
    assert_eq!(client.get("/").await.status(), 200);

    // The port is free for others, and for this one again.
    drop(TcpListener::bind(second).expect("a free port"));
    proxy.apply(&listening(&origin, &[second])).await;
    let mut client = Client::try_connect_to(second).await.expect("it listens");
    assert_eq!(client.get("/").await.status(), 200);
    assert_eq!(stays.get("/").await.status(), 200);
}

#[tokio::test]
async fn a_listener_moves_from_one_address_to_all_and_back() {
    let origin = Origin::echo("a").await;
    let proxy = Proxy::start(&listening(&origin, &[])).await;
    let one = free_port();
    let all = SocketAddr::from(([0, 0, 0, 0], one.port()));
    for more in [&[one][..], &[all], &[all, one], &[one]] {
        proxy.apply(&listening(&origin, more)).await;
        let expected = [&[proxy.address()], more].concat();
        assert_eq!(proxy.status().listeners, expected);
        let mut answered = 0;
        while answered < 8 {
            // One that the system had given to a socket that closes is reset, before it could ask anything.
            if let Ok(mut client) = Client::try_connect_to(one).await {
                assert_eq!(client.get("/").await.status(), 200);
                answered += 1;
            }
        }
    }
}

#[tokio::test]
async fn what_needs_a_restart_is_told() {
    let origin = Origin::echo("a").await;
    let config = servers(&[origin.address()], "");
    let proxy = Proxy::start(&config).await;
    let changes = proxy
        .apply(&(config.clone() + "[admin]\nsocket = \"elsewhere.sock\"\n"))
        .await;
    let expected = "admin: other settings need a restart; those of the start stay until then";
    assert_eq!(changes, [expected]);
    assert_eq!(proxy.apply(&config).await, [expected]);
    assert!(proxy.apply(&config).await.is_empty());
}

#[tokio::test]
async fn a_policy_that_nobody_uses_yet_comes_and_goes_and_takes_code() {
    let origin = Origin::echo("a").await;
    let config = servers(&[origin.address()], "");
    let proxy = Proxy::start(&config).await;
    let spare = format!(
        "{config}[policy.spare]\nfile = \"{}\"\n",
        guest("first-healthy").display()
    );
    let changes = proxy.apply(&spare).await;
    assert!(
        matches!(&changes[..], [change] if change.starts_with("policy spare: new, first-healthy 0.1.0 (")),
        "{changes:?}"
    );
    let code = std::fs::read(guest("counts")).expect("a policy");
    let pushed = proxy.control().push("spare", code).await.expect("a push");
    assert!(
        matches!(&pushed.changes[..], [change] if change.contains(" -> counts ")),
        "{pushed:?}"
    );
    assert_eq!(proxy.apply(&config).await, ["policy spare: gone"]);
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_everything_as_it_was() {
    let [a, b] = [Origin::echo("a").await, Origin::echo("b").await];
    let proxy = Proxy::start(&listening(&a, &[])).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.get("/").await.origin(), "a");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (free, taken) = (free_port(), other.local_addr().expect("a bound socket"));
    let refused = proxy.try_apply(&listening(&b, &[free, taken])).await;
    let refused = refused.expect_err("a port that is taken");
    assert!(matches!(refused, ControlError::Start(_)), "{refused:?}");
    let refused = refused.to_string();
    assert!(
        refused.contains(&format!("cannot listen on {taken}")),
        "{refused}"
    );
    assert!(
        refused.contains("help: another program listens there"),
        "{refused}"
    );
    assert!(refuses(free).await);
    let status = proxy.status();
    assert_eq!(
        (status.generation, status.listeners),
        (1, vec![proxy.address()])
    );
    assert_eq!(client.get("/").await.origin(), "a");

    drop(other);
    proxy.apply(&listening(&b, &[free, taken])).await;
    assert_eq!(client.get("/").await.origin(), "b");
}

// === what a person says of a backend ===

/// Two backends called `first` and `second`.
struct Pair {
    proxy: Proxy,
    client: Client,
    origins: [Origin; 2],
}

impl Pair {
    async fn start() -> Pair {
        let origins = [Origin::echo("a").await, Origin::echo("b").await];
        let proxy = Proxy::start(&Pair::config(&origins, "up")).await;
        let client = Client::connect(&proxy).await;
        Pair {
            proxy,
            client,
            origins,
        }
    }

    fn config(origins: &[Origin; 2], state: &str) -> String {
        let [a, b] = origins;
        detailed(&[
            (
                a.address(),
                &format!("name = \"first\", state = \"{state}\""),
            ),
            (b.address(), "name = \"second\""),
        ])
    }

    async fn set(
        &self,
        upstream: &str,
        backend: &str,
        change: BackendChange,
    ) -> Result<Report, ControlError> {
        let control = self.proxy.control();
        within("a change", control.set_backend(upstream, backend, change)).await
    }

    async fn say(&self, backend: &str, change: BackendChange) -> Vec<String> {
        let said = self.set("app", backend, change).await;
        said.unwrap_or_else(|error| panic!("{error}")).changes
    }

    /// Who answers so many requests.
    async fn turns(&mut self, requests: usize) -> String {
        let mut turns = String::new();
        for _ in 0..requests {
            turns.push_str(self.client.get("/").await.origin());
        }
        turns
    }

    fn overridden(&self) -> [Option<String>; 2] {
        [0, 1].map(|index| self.proxy.backend(index).overridden)
    }
}

#[tokio::test]
async fn a_backend_is_drained_and_made_ready_by_name_or_address() {
    let mut pair = Pair::start().await;
    assert_eq!(pair.turns(4).await, "abab");
    let address = pair.origins[0].address().to_string();
    for name in ["first", address.as_str()] {
        for (change, state, word) in [
            (BackendChange::Drain, ServerState::Draining, "draining"),
            (BackendChange::Down, ServerState::Down, "down"),
        ] {
            let changes = pair.say(name, change).await;
            assert_eq!(
                changes,
                [format!("upstream app, backend first: up -> {word}")]
            );
            assert_eq!(pair.proxy.backend(0).state, state);
            assert_eq!(pair.overridden(), [Some(word.to_owned()), None]);
            assert_eq!(pair.turns(3).await, "bbb");
            // To say it again changes nothing.
            assert_eq!(pair.say(name, change).await, [""; 0]);
            let changes = pair.say(name, BackendChange::Ready).await;
            assert_eq!(
                changes,
                [format!("upstream app, backend first: {word} -> up")]
            );
            assert_eq!(pair.overridden(), [None, None]);
            assert!(pair.turns(4).await.contains('a'));
        }
    }
}

#[tokio::test]
async fn a_weight_is_set_beside_a_state() {
    let mut pair = Pair::start().await;
    let changes = pair.say("second", BackendChange::Weight(3)).await;
    assert_eq!(changes, ["upstream app, backend second: weight 1 -> 3"]);
    assert_eq!(pair.turns(8).await.matches('b').count(), 6);
    pair.say("second", BackendChange::Drain).await;
    assert_eq!(
        pair.overridden(),
        [None, Some("draining, weight 3".to_owned())]
    );
    assert_eq!(pair.turns(2).await, "aa");
    pair.say("second", BackendChange::Ready).await;
    assert_eq!(pair.proxy.backend(1).weight, 1);
    pair.say("second", BackendChange::Weight(0)).await;
    assert_eq!(pair.turns(2).await, "aa");
}

#[tokio::test]
async fn what_was_said_is_kept_over_reloads() {
    let mut pair = Pair::start().await;
    pair.say("first", BackendChange::Drain).await;
    let config = Pair::config(&pair.origins, "up");
    assert_eq!(pair.proxy.apply(&config).await, [""; 0]);
    let changes = pair.proxy.apply(&(config.clone() + "retries = 2\n")).await;
    assert_eq!(changes, ["upstream app: other settings"]);
    assert_eq!(pair.overridden(), [Some("draining".to_owned()), None]);
    assert_eq!(pair.turns(2).await, "bb");
    let id = pair.proxy.backend(0).id;
    pair.say("first", BackendChange::Ready).await;
    assert_eq!(pair.proxy.backend(0).id, id);
    assert!(pair.turns(2).await.contains('a'));
}

#[tokio::test]
async fn status_shows_what_was_said_even_where_it_changes_nothing() {
    let pair = Pair::start().await;
    assert_eq!(pair.say("first", BackendChange::Weight(1)).await, [""; 0]);
    assert_eq!(pair.overridden(), [Some("weight 1".to_owned()), None]);
    pair.say("first", BackendChange::Ready).await;
    assert_eq!(pair.overridden(), [None, None]);

    // Now the configuration says what the person has said before.
    pair.say("first", BackendChange::Drain).await;
    pair.proxy
        .apply(&Pair::config(&pair.origins, "draining"))
        .await;
    assert_eq!(pair.say("first", BackendChange::Ready).await, [""; 0]);
    assert_eq!(pair.overridden(), [None, None]);
    assert_eq!(pair.proxy.backend(0).state, ServerState::Draining);
}

#[tokio::test]
async fn what_there_is_not_cannot_be_changed() {
    let pair = Pair::start().await;
    for (upstream, backend, told) in [
        ("ap", "first", "there is no upstream ap; there are app"),
        (
            "app",
            "third",
            "upstream app has no backend third; it has first, second",
        ),
        (
            "app",
            "",
            "upstream app has no backend ; it has first, second",
        ),
    ] {
        let refused = pair.set(upstream, backend, BackendChange::Down).await;
        let refused = refused.expect_err("there is no such backend");
        assert!(matches!(refused, ControlError::Unknown(_)), "{refused:?}");
        assert_eq!(refused.to_string(), told);
    }
    assert_eq!(pair.proxy.status().generation, 1);
}

#[tokio::test]
async fn a_backend_is_drained_although_a_policy_s_file_is_broken() {
    let watched = Watched::start("counts").await;
    std::fs::write(&watched.file, "half a po").expect("a file");
    let address = watched.origin.address().to_string();
    let control = watched.proxy.control();
    let drained = control.set_backend("app", &address, BackendChange::Drain);
    let report = within("a change", drained).await;
    report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(watched.proxy.backend(0).state, ServerState::Draining);
}

// === files of policies ===

/// A policy's file that is watched.
struct Watched {
    proxy: Proxy,
    client: Client,
    origin: Origin,
    directory: TempDir,
    file: PathBuf,
}

impl Watched {
    async fn start(name: &str) -> Watched {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("policy.wasm");
        std::fs::copy(guest(name), &file).expect("a copy");
        Watched::on(directory, file).await
    }

    async fn on(directory: TempDir, file: PathBuf) -> Watched {
        let origin = Origin::echo("a").await;
        let proxy = Proxy::start(&Watched::config(&origin, &file)).await;
        let client = Client::connect(&proxy).await;
        let mut watched = Watched {
            proxy,
            client,
            origin,
            directory,
            file,
        };
        watched.request().await;
        watched
    }

    fn config(origin: &Origin, file: &Path) -> String {
        servers(&[origin.address()], "policy = \"guest\"")
            + &format!("[policy.guest]\nfile = \"{}\"\n", file.display())
    }

    /// Another file in the same directory.
    fn beside(&self, name: &str) -> PathBuf {
        let file = self.directory.path().join("other.wasm");
        std::fs::copy(guest(name), &file).expect("a copy");
        file
    }

    fn policy(&self) -> PolicyStatus {
        self.proxy.status().upstreams[0].policy.clone()
    }

    /// The policy in force, and how many picks it knows of.
    async fn request(&mut self) -> (String, String) {
        assert_eq!(self.client.get("/").await.status(), 200);
        let requests = self.origin.take_requests();
        let count = requests[0].field("x-count").unwrap_or("none").to_owned();
        (self.name(), count)
    }

    fn name(&self) -> String {
        self.policy().plugin.expect("a plugin").name
    }

    async fn becomes(&self, name: &str) {
        until(&format!("{name} to be active"), || self.name() == name).await;
    }

    /// Gives the watcher the time to see what there is to see.
    async fn unmoved(&self) {
        let generation = self.proxy.status().generation;
        let read = || self.proxy.status().generation;
        assert_eq!(settled("the watcher", LOOKS, read).await, generation);
    }
}

#[tokio::test]
async fn a_file_renamed_over_the_old_one_is_taken_in() {
    let mut watched = Watched::start("counts").await;
    std::fs::rename(watched.beside("counts-again"), &watched.file).expect("a rename");
    watched.becomes("counts-again").await;
    assert_eq!(watched.request().await.1, "2");
    std::fs::rename(watched.beside("counts"), &watched.file).expect("a rename");
    watched.becomes("counts").await;
    assert_eq!(watched.request().await.1, "3");
    assert_eq!(watched.proxy.status().generation, 3);
}

#[tokio::test]
async fn a_link_that_points_elsewhere_is_taken_in() {
    // As orchestrators do it: the file is a link into a directory that is a link.
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    for name in ["counts", "counts-again"] {
        std::fs::create_dir(path(name)).expect("a directory");
        std::fs::copy(guest(name), path(name).join("policy.wasm")).expect("a copy");
    }
    let link = std::os::unix::fs::symlink::<PathBuf, PathBuf>;
    link("counts".into(), path("data")).expect("a link");
    link("data/policy.wasm".into(), path("policy.wasm")).expect("a link");
    link("counts-again".into(), path("new")).expect("a link");
    let (from, to, file) = (path("new"), path("data"), path("policy.wasm"));
    let mut watched = Watched::on(directory, file).await;
    std::fs::rename(from, to).expect("a rename");
    watched.becomes("counts-again").await;
    assert_eq!(watched.request().await.1, "2");
}

#[tokio::test]
async fn a_file_written_in_place_is_taken_in() {
    let mut watched = Watched::start("counts").await;
    let code = std::fs::read(guest("counts-again")).expect("a guest");
    std::fs::write(&watched.file, code).expect("a file");
    watched.becomes("counts-again").await;
    assert_eq!(watched.request().await.1, "2");
    // The same bytes again are nothing new.
    let code = std::fs::read(&watched.file).expect("a file");
    std::fs::write(&watched.file, code).expect("a file");
    watched.unmoved().await;
    assert_eq!(watched.proxy.status().generation, 2);
}

#[tokio::test]
async fn half_a_file_never_becomes_active() {
    let mut watched = Watched::start("counts").await;
    let code = std::fs::read(guest("counts-again")).expect("a guest");
    for length in [0, 4, 8, code.len() / 2, code.len() - 1] {
        std::fs::write(&watched.file, &code[..length]).expect("a file");
        watched.unmoved().await;
    }
    assert_eq!(
        watched.request().await,
        ("counts".to_owned(), "2".to_owned())
    );
    std::fs::write(&watched.file, &code).expect("a file");
    watched.becomes("counts-again").await;
    assert_eq!(watched.request().await.1, "3");
}

#[tokio::test]
async fn a_file_that_is_deleted_is_missed_by_nobody() {
    let mut watched = Watched::start("counts").await;
    std::fs::remove_file(&watched.file).expect("a file");
    watched.unmoved().await;
    assert_eq!(
        watched.request().await,
        ("counts".to_owned(), "2".to_owned())
    );
    std::fs::copy(guest("counts-again"), &watched.file).expect("a copy");
    watched.becomes("counts-again").await;
    assert_eq!(watched.request().await.1, "3");
}

#[tokio::test]
async fn a_file_is_watched_where_the_configuration_has_moved_it() {
    let watched = Watched::start("counts").await;
    // The same code at another path changes nothing but the path.
    let moved = watched.beside("counts");
    watched
        .proxy
        .apply(&Watched::config(&watched.origin, &moved))
        .await;
    watched.unmoved().await;
    std::fs::copy(guest("counts-again"), &moved).expect("a copy");
    watched.becomes("counts-again").await;
    std::fs::copy(guest("refuses-restore"), &watched.file).expect("a copy");
    watched.unmoved().await;
}

// === the configuration's file ===

#[tokio::test]
async fn a_configuration_cut_off_anywhere_is_refused_or_is_a_shorter_one() {
    let origin = Origin::echo("a").await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("waypost.toml");
    let (address, policy) = (origin.address(), guest("counts").display().to_string());
    let text = format!(
        r#"# Wär' dies abgeschnitten, so bliebe alles, wie es war.
shards = 2
[[listen]]
address = "127.0.0.1:0"
[[route]]
upstream = "app"
[upstream.app]
policy = "rotation"
servers = ["{address}"]
retries = 12
max_fails = 10
fail_timeout = "10s"
connect_timeout = "15s"
response_timeout = "160s"
idle_timeout = "160s"
[upstream.app.keepalive]
connections = 64
timeout = "60s"
[upstream.other]
policy = "rotation"
retries = 1
servers = [
    {{ address = "{address}", name = "première", weight = 10, state = "up", labels = {{ zone = "ä" }} }},
    {{ address = "127.0.0.1:9", name = "second", weight = 20, state = "draining" }},
]
[policy.guest]
file = "{policy}"
deadline = "50ms"
memory = "16MiB"
on_failure = "reject"
config = {{}}
[policy.guest.quarantine]
failures = 50
window = "100s"
retry = "100s"
[[route]]
host = "example.com"
path = "/api"
upstream = "other"
upgrades = ["websocket"]
pass_host = false
[[route]]
host = "*.example.com"
path = "/"
upstream = "other"
[forwarded]
trusted = ["10.0.0.0/8", "192.168.0.0/16", "::1"]
[timeouts]
request_head = "300s"
request_body = "600s"
response = "600s"
idle = "750s"
[limits]
request_target = "80KiB"
head = "640KiB"
fields = 1000
request_body = "10MiB"
[shutdown]
grace = "30s"
"#
    );
    // Comments, until it is as long as it is to be.
    let text = text + &"# ... und weiter.\n".repeat(50);
    let text = text.get(..2048).expect("2 KB");
    std::fs::write(&file, text).expect("a file");
    let proxy = Proxy::start_from(&file).await;
    let control = proxy.control();
    let mut client = Client::connect(&proxy).await;
    let (mut taken, mut refused) = (0, 0);
    for length in 0..text.len() {
        std::fs::write(&file, &text.as_bytes()[..length]).expect("a file");
        let before = proxy.status().generation;
        match within("a reload", control.reload()).await {
            Ok(_) => taken += 1,
            Err(error) => {
                refused += 1;
                assert!(matches!(error, ControlError::Config(_)), "{error:?}");
                assert!(error.to_string().contains("waypost.toml"), "{error}");
                assert_eq!(proxy.status().generation, before);
            }
        }
        let response = client.get("/").await;
        assert_eq!((response.status(), response.origin()), (200, "a"));
    }
    assert!(taken > 100 && refused > 1000, "{taken} and {refused}");
    std::fs::write(&file, text).expect("a file");
    within("a reload", control.reload())
        .await
        .expect("it is whole");
    let status = proxy.status();
    assert_eq!(status.upstreams.len(), 2);
    assert_eq!((status.accepted, origin.connections()), (1, 1));
    let BackendStatus { picks, name, .. } = &status.upstreams[0].backends[0];
    assert_eq!((*picks, name), (text.len() as u64, &address.to_string()));
}
