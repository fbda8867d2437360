//! Another version of a policy while traffic flows: nothing dropped, nothing forgotten.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use waypost::control::{ControlError, Report};
use waypost::status::{PluginStatus, SwapStatus};
use waypost_tests::{Client, Gate, Origin, Proxy, Response, Visit, servers, within};

use crate::guests::{assemble, built_in, guest, remade};

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

/// `[policy.guest]` from this file in front of these.
fn behind(file: &Path, origins: &[SocketAddr]) -> String {
    let policy = format!("[policy.guest]\nfile = \"{}\"\n", file.display());
    servers(origins, "policy = \"guest\"") + &policy
}

/// Says in the body what the policy has told it: `VERSION COUNT`. What asks for `/held` waits for the gate.
async fn reporting() -> (Origin, Gate) {
    let gate = Gate::shut();
    let held = gate.clone();
    let origin = Origin::start(move |mut visit: Visit| {
        let gate = held.clone();
        async move {
            while let Some(request) = visit.request().await {
                if request.target() == "/held" {
                    gate.pass().await;
                }
                let said = ["x-version", "x-count"].map(|name| request.field(name));
                let said = said.map(|value| value.unwrap_or("none"));
                visit.answer("a", said.join(" ").as_bytes()).await;
            }
        }
    })
    .await;
    (origin, gate)
}

/// Which version has picked, and at which pick of its life.
fn said(response: &Response) -> (String, u64) {
    assert_eq!(response.status(), 200);
    let (version, count) = response.text().split_once(' ').expect("two words");
    if let Some(seen_by) = response.field("x-seen-by") {
        assert_eq!(seen_by, version, "another version saw the response");
    }
    let count = count.parse().expect("a policy that counts");
    (version.to_owned(), count)
}

/// A policy in front of one backend.
struct Swapping {
    proxy: Proxy,
    client: Client,
    origin: Origin,
    gate: Gate,
}

impl Swapping {
    async fn start(file: &Path) -> Swapping {
        Swapping::on_shards(1, file).await
    }

    async fn on_shards(shards: usize, file: &Path) -> Swapping {
        let (origin, gate) = reporting().await;
        let config = format!("shards = {shards}\n{}", behind(file, &[origin.address()]));
        let proxy = Proxy::start(&config).await;
        let client = Client::connect(&proxy).await;
        Swapping {
            proxy,
            client,
            origin,
            gate,
        }
    }

    fn config(&self, file: &Path) -> String {
        behind(file, &[self.origin.address()])
    }

    async fn apply(&self, file: &Path) -> Vec<String> {
        self.proxy.apply(&self.config(file)).await
    }

    async fn get(&mut self) -> (String, u64) {
        said(&self.client.get("/").await)
    }

    fn plugin(&self) -> PluginStatus {
        let policy = self.proxy.status().upstreams[0].policy.clone();
        policy.plugin.expect("a policy that is a plugin")
    }

    fn last_swap(&self) -> Option<SwapStatus> {
        self.proxy.status().upstreams[0].policy.last_swap.clone()
    }
}

async fn push(proxy: &Proxy, bytes: &[u8]) -> Result<Report, ControlError> {
    within("a push", proxy.control().push("guest", bytes.to_vec())).await
}

async fn roll_back(proxy: &Proxy) -> Result<Report, ControlError> {
    within("a rollback", proxy.control().rollback("guest")).await
}

fn bytes(file: &Path) -> Vec<u8> {
    std::fs::read(file).expect("a policy's file")
}

fn write(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let file = directory.path().join(name);
    std::fs::write(&file, bytes).expect("a file");
    file
}

// === ways to swap ===

#[tokio::test]
async fn apply_swaps_a_policy_whose_file_is_another() {
    let mut swapping = Swapping::start(guest("counts")).await;
    for count in 1..=3 {
        assert_eq!(swapping.get().await, (OLD.to_owned(), count));
    }
    let old = swapping.plugin();
    assert!(swapping.last_swap().is_none());
    let changes = swapping.apply(guest("counts-again")).await;
    let new = swapping.plugin();
    assert_eq!(
        changes,
        [format!(
            "policy guest: counts {OLD} ({}) -> counts-again {NEW} ({})",
            &old.digest[..12],
            &new.digest[..12]
        )]
    );
    assert_eq!((new.version.as_str(), new.calls), (NEW, 0));
    assert_eq!(swapping.proxy.status().generation, 2);
    for count in 4..=6 {
        assert_eq!(swapping.get().await, (NEW.to_owned(), count));
    }
    let swap = swapping.last_swap().expect("a swap");
    assert_eq!((swap.count, swap.handed_over, swap.cold), (1, 1, 0));
    assert!(!swap.built.is_zero() && swap.built <= swap.active);
}

#[tokio::test]
async fn push_swaps_and_rollback_swaps_back() {
    let mut swapping = Swapping::start(guest("counts")).await;
    assert_eq!(swapping.get().await, (OLD.to_owned(), 1));
    let report = push(&swapping.proxy, &bytes(guest("counts-again"))).await;
    assert_eq!(report.expect("a swap").changes.len(), 1);
    assert_eq!(swapping.get().await, (NEW.to_owned(), 2));

    // Once more than there are versions: each rollback is the opposite of the one before.
    for (version, count) in [(OLD, 3), (NEW, 4), (OLD, 5)] {
        let report = roll_back(&swapping.proxy).await;
        assert_eq!(report.expect("a swap").changes.len(), 1);
        assert_eq!(swapping.get().await, (version.to_owned(), count));
    }

    // A pushed version stays over reloads that are about something else.
    push(&swapping.proxy, &bytes(guest("counts-again")))
        .await
        .expect("a swap");
    let config = swapping.config(guest("counts")) + "[timeouts]\nidle = \"70s\"\n";
    assert_eq!(
        swapping.proxy.apply(&config).await,
        ["timeouts: other settings"]
    );
    assert_eq!(swapping.get().await, (NEW.to_owned(), 6));
}

#[tokio::test]
async fn every_swap_tells_of_itself_only() {
    let mut swapping = Swapping::start(guest("counts")).await;
    swapping.get().await;
    push(&swapping.proxy, &bytes(guest("counts-again")))
        .await
        .expect("a swap");
    for count in 2..=5 {
        swapping.get().await;
        roll_back(&swapping.proxy).await.expect("a swap");
        let swap = swapping.last_swap().expect("a swap");
        assert_eq!((swap.count, swap.handed_over, swap.cold), (count, 1, 0));
    }
}

#[tokio::test]
async fn identical_bytes_change_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut swapping = Swapping::start(guest("counts")).await;
    assert_eq!(swapping.get().await, (OLD.to_owned(), 1));
    let same = bytes(guest("counts"));
    let copy = write(&directory, "copy.wasm", &same);
    assert_eq!(swapping.apply(guest("counts")).await, [""; 0]);
    assert_eq!(swapping.apply(&copy).await, [""; 0]);
    let pushed = push(&swapping.proxy, &same).await.expect("no change");
    assert_eq!(pushed, Report::default());
    let reloaded = within("a reload", swapping.proxy.control().reload()).await;
    assert_eq!(reloaded.expect("no change"), Report::default());
    assert_eq!(swapping.proxy.status().generation, 1);
    assert!(swapping.last_swap().is_none());
    assert_eq!(swapping.get().await, (OLD.to_owned(), 2));
}

// === state ===

/// That the counts are those of policies that began at 1, one per shard, and never lost or repeated one.
fn assert_complete(mut counts: Vec<u64>, shards: usize) {
    counts.sort_unstable();
    let mut times = vec![0; usize::try_from(counts[counts.len() - 1]).unwrap() + 1];
    for count in counts {
        times[usize::try_from(count).unwrap()] += 1;
    }
    assert_eq!(times[0], 0);
    assert_eq!(times[1], shards, "not every shard began at 1, once");
    for (count, pair) in times[1..].windows(2).enumerate() {
        assert!(
            pair[1] <= pair[0] && pair[1] > 0,
            "{} came {} times, {} came {} times",
            count + 1,
            pair[0],
            count + 2,
            pair[1]
        );
    }
}

#[tokio::test]
async fn no_count_is_lost_over_100_swaps() {
    for shards in [1, 2] {
        let swapping = Swapping::on_shards(shards, guest("counts")).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for _ in 0..16 {
            let mut client = Client::connect(&swapping.proxy).await;
            let stop = stop.clone();
            running.push(tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    seen.push(said(&client.get("/").await));
                }
                seen
            }));
        }
        swapping.origin.received(100).await;
        // By other code for a few, since compiling takes its time, then back and forth.
        for turn in 0..100 {
            let before = swapping.origin.request_count();
            let config = |name| swapping.config(guest(name));
            match turn {
                0 | 2 => drop(swapping.proxy.apply(&config("counts-again")).await),
                1 | 3 => drop(swapping.proxy.apply(&config("counts")).await),
                _ => drop(roll_back(&swapping.proxy).await.expect("a swap")),
            }
            swapping.origin.received(before + 10).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for client in running {
            seen.extend(within("a client", client).await.expect("no error"));
        }
        assert_eq!(seen.len(), swapping.origin.request_count());
        for version in [OLD, NEW] {
            assert!(seen.iter().any(|(other, _)| other == version));
        }
        assert_complete(seen.into_iter().map(|(_, count)| count).collect(), shards);
        let status = swapping.proxy.status();
        assert_eq!(status.generation, 101);
        assert_eq!(swapping.last_swap().expect("a swap").count, 100);
        assert_eq!(swapping.plugin().failures, 0);
    }
}

#[tokio::test]
async fn a_version_that_cannot_take_over_starts_cold() {
    for (old, new) in [
        ("counts", "refuses-restore"),
        ("counts", "traps-in-restore"),
        ("traps-in-save", "counts"),
        ("saves-too-much", "counts"),
    ] {
        let mut swapping = Swapping::start(guest(old)).await;
        for count in 1..=3 {
            assert_eq!(swapping.get().await.1, count, "{old}");
        }
        assert_eq!(swapping.apply(guest(new)).await.len(), 1);
        let swap = swapping.last_swap().expect("a swap");
        assert_eq!((swap.handed_over, swap.cold), (0, 1), "{old} -> {new}");
        for count in 1..=3 {
            assert_eq!(swapping.get().await.1, count, "{old} -> {new}");
        }
        let plugin = swapping.plugin();
        assert_eq!((plugin.calls, plugin.failures), (3, 0), "{old} -> {new}");
    }
}

#[tokio::test]
async fn a_policy_without_a_state_hook_hands_nothing_over() {
    let mut swapping = Swapping::start(guest("first-healthy")).await;
    assert_eq!(swapping.client.get("/").await.status(), 200);
    swapping.apply(guest("counts")).await;
    assert_eq!(swapping.get().await, (OLD.to_owned(), 1));
    let swap = swapping.last_swap().expect("a swap");
    assert_eq!((swap.handed_over, swap.cold), (0, 0));

    swapping.apply(guest("first-healthy")).await;
    assert_eq!(swapping.client.get("/").await.text(), "none none");
    let swap = swapping.last_swap().expect("a swap");
    assert_eq!((swap.handed_over, swap.cold), (0, 1));
}

#[tokio::test]
async fn another_policy_never_gets_the_state() {
    let (origin, _gate) = reporting().await;
    let config = |policy: &str, files: [&str; 2]| {
        let [one, two] = files.map(|name| guest(name).display());
        servers(&[origin.address()], &format!("policy = \"{policy}\""))
            + &format!("[policy.one]\nfile = \"{one}\"\n[policy.two]\nfile = \"{two}\"\n")
    };
    let proxy = Proxy::start(&config("one", ["counts", "counts"])).await;
    let mut client = Client::connect(&proxy).await;
    for (policy, files, version) in [
        ("two", ["counts", "counts"], OLD),
        ("one", ["counts", "counts"], OLD),
        ("two", ["counts-again", "counts-again"], NEW),
    ] {
        for _ in 0..3 {
            client.get("/").await;
        }
        proxy.apply(&config(policy, files)).await;
        let first = said(&client.get("/").await);
        assert_eq!(first, (version.to_owned(), 1));
    }
}

#[tokio::test]
async fn each_upstream_of_a_policy_keeps_its_own_state() {
    let (origin, _gate) = reporting().await;
    let config = |name: &str| {
        let upstream = |name: &str| {
            format!(
                "[upstream.{name}]\npolicy = \"guest\"\nservers = [\"{}\"]\n",
                origin.address()
            )
        };
        let file = guest(name).display();
        upstream("one")
            + &upstream("two")
            + &format!("[policy.guest]\nfile = \"{file}\"\n")
            + "[[route]]\nupstream = \"one\"\n[[route]]\npath = \"/two\"\nupstream = \"two\"\n"
    };
    let proxy = Proxy::start(&config("counts")).await;
    let mut client = Client::connect(&proxy).await;
    for target in ["/", "/", "/", "/two"] {
        said(&client.get(target).await);
    }
    assert_eq!(proxy.apply(&config("counts-again")).await.len(), 1);
    for (target, count) in [("/", 4), ("/two", 2), ("/", 5)] {
        let seen = said(&client.get(target).await);
        assert_eq!(seen, (NEW.to_owned(), count));
    }
    let swap = proxy.status().upstreams[0].policy.last_swap.clone();
    assert_eq!(swap.expect("a swap").handed_over, 2);
}

#[tokio::test]
async fn a_policy_keeps_its_memory_when_only_backends_change() {
    let mut swapping = Swapping::start(guest("counts")).await;
    assert_eq!(swapping.get().await.1, 1);
    let other = Origin::echo("b").await;
    let both = [swapping.origin.address(), other.address()];
    let file = guest("counts");
    swapping.proxy.apply(&behind(file, &both)).await;
    assert_eq!(swapping.get().await.1, 2);
    let rejecting = behind(file, &both) + "on_failure = \"reject\"\n";
    swapping.proxy.apply(&rejecting).await;
    assert_eq!(swapping.get().await.1, 3);
    swapping.apply(file).await;
    assert_eq!(swapping.get().await.1, 4);
    assert!(swapping.last_swap().is_none());
    // What was counted since the start is not forgotten, nor is a trial counted.
    assert_eq!(swapping.plugin().calls, 4);
}

// === requests and connections ===

#[tokio::test]
async fn a_request_under_way_stays_with_its_version() {
    let mut swapping = Swapping::start(guest("counts")).await;
    let mut held = Client::connect(&swapping.proxy).await;
    held.send_get("/held").await;
    swapping.origin.received(1).await;
    assert_eq!(swapping.get().await, (OLD.to_owned(), 2));
    swapping.apply(guest("counts-again")).await;
    assert_eq!(swapping.proxy.backend(0).in_flight, 1);
    assert_eq!(swapping.get().await, (NEW.to_owned(), 3));
    swapping.apply(guest("first-healthy")).await;
    assert_eq!(swapping.client.get("/").await.text(), "none none");

    swapping.gate.open();
    // Its response is seen by the version that picked for it.
    let late = held.response().await;
    assert_eq!(late.field("x-seen-by"), Some(OLD));
    assert_eq!(said(&late), (OLD.to_owned(), 1));
    assert_eq!(held.get("/").await.text(), "none none");
    swapping
        .proxy
        .reaches("nothing in flight", |status| {
            status.upstreams[0].backends[0].in_flight == 0
        })
        .await;
    // Neither side's connections were touched.
    let status = swapping.proxy.status();
    assert_eq!((status.accepted, status.connections), (2, 2));
    assert_eq!(
        (swapping.origin.connections(), swapping.origin.open()),
        (2, 2)
    );
    assert_eq!(swapping.proxy.backend(0).picks, 5);
}

/// Swaps back and forth.
async fn swap(proxy: &Proxy, turn: usize) {
    match turn {
        0 => drop(
            push(proxy, &bytes(guest("counts-again")))
                .await
                .expect("a swap"),
        ),
        _ => drop(roll_back(proxy).await.expect("a swap")),
    }
}

#[tokio::test]
async fn a_tunnel_spans_50_swaps() {
    const HANDSHAKE: &str =
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const AGREED: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let origin = Origin::start(|mut visit: Visit| async move {
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
    .await;
    let proxy = Proxy::start(&behind(guest("counts"), &[origin.address()])).await;
    let mut client = Client::connect(&proxy).await;
    let agreed = client.ask(HANDSHAKE).await;
    assert_eq!(
        (agreed.status(), agreed.field("x-seen-by")),
        (101, Some(OLD))
    );
    for turn in 0..50 {
        let message = format!("before swap {turn}");
        client.send(&message).await;
        swap(&proxy, turn).await;
        let echo = client.wire.reader.exactly(message.len()).await;
        assert_eq!(echo, message.as_bytes());
        assert_eq!(proxy.backend(0).in_flight, 1);
    }
    client.wire.finish().await;
    client.closed().await;
}

#[tokio::test]
async fn a_download_spans_50_swaps() {
    const PIECES: usize = 50;
    const BLOCK: usize = 4096;
    const PIECE: usize = 512 * BLOCK;
    fn piece(number: usize) -> Vec<u8> {
        let block: Vec<u8> = (0..BLOCK).map(|at| (at * 7 + number) as u8).collect();
        block.repeat(PIECE / BLOCK)
    }
    let gate = Gate::shut();
    let held = gate.clone();
    let origin = Origin::start(move |mut visit: Visit| {
        let gate = held.clone();
        async move {
            visit.request().await;
            let length = PIECES * PIECE;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            visit.send(head).await;
            for number in 0..PIECES {
                gate.pass().await;
                visit.send(piece(number)).await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&behind(guest("counts"), &[origin.address()])).await;
    let mut client = Client::connect(&proxy).await;
    client.send_get("/").await;
    let head = client.wire.reader.head().await;
    assert_eq!(head.field("x-seen-by"), Some(OLD));
    for turn in 0..PIECES {
        gate.release(1);
        swap(&proxy, turn).await;
        let received = client.wire.reader.exactly(PIECE).await;
        assert!(received == piece(turn), "piece {turn} is damaged");
    }
}

// === refused ===

#[tokio::test]
async fn what_is_not_accepted_leaves_the_old_version_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut swapping = Swapping::start(guest("counts")).await;
    assert_eq!(swapping.get().await, (OLD.to_owned(), 1));
    let good = bytes(guest("counts-again"));
    let mut oversized = good.clone();
    oversized.resize(4 * 1024 * 1024 + 1, 0);
    for (code, reason) in [
        (&b""[..], "is not WebAssembly"),
        (b"#!/bin/sh\n", "is not WebAssembly"),
        (
            &good[..good.len() / 2],
            "is a WebAssembly module but not a policy",
        ),
        (&assemble("(module)"), "is WebAssembly but not a policy"),
        (&oversized, "has 4194305 bytes; 4194304 are allowed"),
        (
            &bytes(guest("panics-always")),
            "policy guest for upstream app: ",
        ),
        (&bytes(guest("panics-always")), "failed in trial pick 0"),
        (&bytes(guest("panics-in-configure")), "failed in configure"),
        (
            &bytes(guest("traps-on-start")),
            "failed before it was asked",
        ),
        (&bytes(guest("refuses-configure")), "missing field `cookie`"),
    ] {
        let file = write(&directory, "bad.wasm", code);
        let applied = swapping.proxy.try_apply(&swapping.config(&file)).await;
        for refused in [applied, push(&swapping.proxy, code).await] {
            let refused = refused.expect_err(reason);
            assert!(matches!(refused, ControlError::Start(_)), "{refused:?}");
            let refused = refused.to_string();
            assert!(refused.contains(reason), "{refused}, and not {reason}");
            assert!(refused.contains("help: "), "{refused}");
        }
    }
    let gone = swapping.config(&directory.path().join("gone.wasm"));
    let refused = swapping.proxy.try_apply(&gone).await;
    assert!(
        refused
            .expect_err("no file")
            .to_string()
            .contains("cannot be read")
    );

    assert_eq!(swapping.get().await, (OLD.to_owned(), 2));
    assert_eq!(swapping.proxy.status().generation, 1);
    assert!(swapping.last_swap().is_none());
    assert_eq!(swapping.plugin().calls, 2);
    // Nothing of it is in the way of what comes next.
    push(&swapping.proxy, &good).await.expect("a swap");
    assert_eq!(swapping.get().await, (NEW.to_owned(), 3));
}

#[tokio::test]
async fn what_there_is_not_is_named() {
    let swapping = Swapping::start(guest("counts")).await;
    let control = swapping.proxy.control();
    let code = bytes(guest("counts-again"));
    for name in ["gusset", "round-robin", "rotation", ""] {
        let pushed = within("a push", control.push(name, code.clone())).await;
        let rolled_back = within("a rollback", control.rollback(name)).await;
        for refused in [pushed, rolled_back] {
            let refused = refused.expect_err("there is no such policy");
            assert!(matches!(refused, ControlError::Unknown(_)), "{refused:?}");
            assert_eq!(
                refused.to_string(),
                format!("there is no [policy.{name}] in the configuration; there are guest")
            );
        }
    }
    let refused = roll_back(&swapping.proxy).await;
    let refused = refused.expect_err("there is nothing to go back to");
    assert!(matches!(refused, ControlError::Refused(_)), "{refused:?}");
    assert_eq!(
        refused.to_string(),
        "policy guest has no earlier version in this process"
    );
}

#[tokio::test]
async fn what_comes_with_waypost_is_not_replaced() {
    let origin = Origin::echo("a").await;
    let servers = servers(&[origin.address()], "policy = \"mine\"");
    let proxy = Proxy::start(&(servers + "[policy.mine]\nbuiltin = \"round-robin\"\n")).await;
    let pushed = proxy.control().push("mine", bytes(guest("counts"))).await;
    let expected = "policy mine comes with waypost; only one with a `file` can be replaced";
    assert_eq!(pushed.expect_err("no file").to_string(), expected);
}

// === round-robin ===

async fn three() -> ([Origin; 3], [SocketAddr; 3]) {
    let origins = [
        Origin::echo("a").await,
        Origin::echo("b").await,
        Origin::echo("c").await,
    ];
    let addresses = [&origins[0], &origins[1], &origins[2]].map(Origin::address);
    (origins, addresses)
}

/// Who answers, when the proxy is given the next of these configurations after every request.
async fn turns(proxy: &Proxy, configs: &[String], requests: usize) -> String {
    // On many connections, so that every shard has some.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(Client::connect(proxy).await);
    }
    let mut turns = String::new();
    for number in 0..requests {
        let client = number % clients.len();
        turns.push_str(clients[client].get("/").await.origin());
        assert_eq!(proxy.apply(&configs[number % configs.len()]).await.len(), 1);
    }
    turns
}

#[tokio::test]
async fn reloads_leave_the_turns_of_round_robin_alone() {
    let (_origins, addresses) = three().await;
    let config = |idle: &str| {
        let servers = servers(&addresses, "policy = \"round-robin\"");
        format!("shards = 2\n{servers}[timeouts]\nidle = \"{idle}\"\n")
    };
    let proxy = Proxy::start(&config("1s")).await;
    let configs = [config("70s"), config("71s")];
    assert_eq!(turns(&proxy, &configs, 30).await, "abc".repeat(10));
}

#[tokio::test]
async fn swaps_leave_the_turns_of_round_robin_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_origins, addresses) = three().await;
    let module = bytes(&built_in("round-robin"));
    let files = [1, 2].map(|mark| {
        let code = remade(&module, mark);
        write(&directory, &format!("{mark}.wasm"), &code)
    });
    let [one, two] = files.map(|file| format!("shards = 2\n{}", behind(&file, &addresses)));
    let proxy = Proxy::start(&one).await;
    assert_eq!(turns(&proxy, &[two, one], 12).await, "abc".repeat(4));
    let policy = proxy.status().upstreams[0].policy.clone();
    assert_eq!(policy.last_swap.expect("a swap").count, 12);
    assert_eq!(policy.plugin.expect("a plugin").failures, 0);
}
