//! Policies that misbehave: refused before they carry traffic, or contained while they do.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use waypost::Server;
use waypost::config::Config;
use waypost::status::PluginStatus;
use waypost_tests::{Client, Origin, Proxy, Refusing, Response, servers, within};

use crate::guests::{assemble, component, guest};

/// What a guest takes for its cue.
const MISBEHAVE: &str = "GET / HTTP/1.1\r\nHost: test\r\nX-Misbehave: 1\r\n\r\n";

/// `[policy.guest]`, with whatever else the test says of it.
fn policy(file: &Path, keys: &str) -> String {
    // What is looked at here is each failure, and not what becomes of a policy after too many.
    let file = file.display();
    format!("[policy.guest]\nfile = \"{file}\"\nquarantine = {{ failures = 0 }}\n{keys}\n")
}

/// `[upstream.app]` with these servers and that policy.
fn behind(file: &Path, keys: &str, origins: &[SocketAddr]) -> String {
    servers(origins, "policy = \"guest\"") + &policy(file, keys)
}

/// The numbers of the policy of the first upstream.
fn plugin(proxy: &Proxy) -> PluginStatus {
    let policy = proxy.status().upstreams[0].policy.clone();
    policy.plugin.expect("a policy that is a plugin")
}

/// Why a configuration with this policy does not come into force.
async fn refusal(file: &Path, keys: &str) -> String {
    let text = String::from("cache = false\n")
        + &behind(file, keys, &[([127, 0, 0, 1], 9).into()])
        + "[[listen]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n";
    let config = || Config::parse(Path::new("test.toml"), &text).expect("a good configuration");
    let refused = within("the check", Server::check(config())).await;
    let refused = refused.expect_err("a refusal").to_string();
    let started = within("the start", Server::start(config())).await;
    assert_eq!(started.expect_err("a refusal").to_string(), refused);
    assert!(refused.contains(&*file.to_string_lossy()), "{refused}");
    assert!(refused.contains("help: "), "{refused}");
    refused
}

// === refused ===

#[tokio::test]
async fn a_policy_that_fails_its_trial_is_refused() {
    for (name, keys, reason) in [
        (
            "traps-on-start",
            "",
            "failed before it was asked anything: trapped",
        ),
        (
            "loops-on-start",
            "",
            "failed before it was asked anything: took longer than its deadline",
        ),
        ("panics-in-configure", "", "failed in configure: trapped"),
        (
            "refuses-configure",
            "config = { cookie = \"sid\" }",
            "there is no cookie called \"sid\"",
        ),
        (
            "refuses-configure",
            "config = { cookie = 1 }",
            "config.cookie: invalid type: integer `1`, expected a string",
        ),
        ("refuses-configure", "", "config: missing field `cookie`"),
        (
            "first-healthy",
            "config = { cookie = \"sid\" }",
            "this policy takes no settings",
        ),
        ("panics-always", "", "failed in trial pick 0: trapped"),
    ] {
        let refusal = refusal(guest(name), keys).await;
        assert!(refusal.contains(reason), "{name}: {refusal}");
    }
}

#[tokio::test]
async fn what_is_not_a_policy_is_refused() {
    let whole = std::fs::read(guest("first-healthy")).expect("a guest");
    let mut oversized = whole.clone();
    oversized.resize(4 * 1024 * 1024 + 1, 0);
    let half = &whole[..whole.len() / 2];
    // An import of each kind that policies built for something else have.
    let preview_1 = assemble(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#,
    );
    let preview_2 = assemble(r#"(component (import "wasi:cli/stdout@0.2.0" (instance)))"#);
    let foreign = assemble(r#"(component (import "example:database/query@1.0.0" (instance)))"#);
    let unnamed = assemble(r#"(component (import "database" (func)))"#);
    let about = |version: &str| {
        format!(r#"(instance $about) (export "waypost:policy/about@{version}" (instance $about))"#)
    };
    let balance = |version: &str| {
        format!(
            r#"(instance $balance) (export "waypost:policy/balance@{version}" (instance $balance))"#
        )
    };
    let exporting = |exports: &[String]| assemble(&format!("(component {})", exports.concat()));

    for (bytes, reason) in [
        (&b""[..], "is not WebAssembly"),
        (b"#!/bin/sh\n", "is not WebAssembly"),
        (&whole[..4], "is not WebAssembly"),
        (&whole[..8], "is WebAssembly but not a policy"),
        (half, "is a WebAssembly module but not a policy"),
        (&oversized, "has 4194305 bytes; 4194304 are allowed"),
        (&assemble("(module)"), "is WebAssembly but not a policy"),
        (
            &assemble(r#"(module (func (export "main")))"#),
            "is WebAssembly but not a policy",
        ),
        (&preview_1, "is a WebAssembly module but not a policy"),
        (&preview_2, "asks for wasi:cli/stdout@0.2.0"),
        (&foreign, "asks for example:database/query@1.0.0"),
        (&unnamed, "asks for database"),
        (
            &exporting(&[]),
            "is WebAssembly but not a policy: it does not export waypost:policy/about",
        ),
        (
            &assemble(
                r#"(component (instance $i) (export "example:other/world@1.0.0" (instance $i)))"#,
            ),
            "is WebAssembly but not a policy: it does not export waypost:policy/about",
        ),
        (
            &exporting(&[about("0.1.0")]),
            "is WebAssembly but not a policy: it does not export waypost:policy/balance",
        ),
        (
            &exporting(&[about("0.2.0"), balance("0.2.0")]),
            "is built for version 0.2.0 of the contract; this host speaks 0.1.0",
        ),
        (
            &assemble(r#"(component (import "waypost:policy/host@0.7.1" (instance)))"#),
            "is built for version 0.7.1 of the contract; this host speaks 0.1.0",
        ),
        (
            &exporting(&[about("0.1.0"), balance("0.1.0")]),
            "does not have the shape of a policy",
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("policy.wasm");
        std::fs::write(&file, bytes).expect("a file");
        let refusal = refusal(&file, "").await;
        assert!(refusal.contains(reason), "wanted {reason}, got {refusal}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let refusals = [
        refusal(&directory.path().join("policy.wasm"), "").await,
        refusal(directory.path(), "").await,
    ];
    assert!(refusals[0].contains("cannot be read: "), "{}", refusals[0]);
    assert!(refusals[1].contains("is not a file"), "{}", refusals[1]);
}

// === contained ===

/// Two servers that work and one that is down, behind a policy that fails when asked to.
struct Failing {
    proxy: Proxy,
    client: Client,
    origins: [Origin; 2],
    failures: u64,
}

impl Failing {
    async fn start(name: &str, keys: &str) -> Failing {
        let origins = [Origin::echo("a").await, Origin::echo("b").await];
        let [a, b] = [&origins[0], &origins[1]].map(Origin::address);
        let down = Refusing::new();
        let upstream = format!(
            "[upstream.app]\npolicy = \"guest\"\nservers = [\"{a}\", \"{b}\", \
             {{ address = \"{}\", state = \"down\" }}]\n",
            down.address()
        );
        let proxy = Proxy::start(&(upstream + &policy(guest(name), keys))).await;
        let client = Client::connect(&proxy).await;
        Failing {
            proxy,
            client,
            origins,
            failures: 0,
        }
    }

    /// Has the policy fail once.
    async fn fail(&mut self) -> Response {
        let response = self.client.ask(MISBEHAVE).await;
        self.failures += 1;
        assert_eq!(plugin(&self.proxy).failures, self.failures);
        response
    }

    /// A request that the policy has nothing against.
    async fn succeed(&mut self) {
        let response = self.client.get("/").await;
        assert_eq!((response.status(), response.origin()), (200, "a"));
        assert_eq!(plugin(&self.proxy).failures, self.failures);
    }
}

/// Each request is answered by the next server in rotation, and the policy is as good as new after it.
async fn falls_back(name: &str) {
    let mut failing = Failing::start(name, "").await;
    failing.succeed().await;
    let mut answered = Vec::new();
    for _ in 0..4 {
        let response = failing.fail().await;
        assert_eq!(response.status(), 200);
        answered.push(response.origin().to_owned());
    }
    assert!(
        answered == ["a", "b", "a", "b"] || answered == ["b", "a", "b", "a"],
        "{answered:?}"
    );
    for _ in 0..2 {
        failing.succeed().await;
        assert_eq!(failing.fail().await.status(), 200);
    }
    failing.succeed().await;
}

/// Each request is answered with 503, and no server hears of it.
async fn rejects(name: &str) {
    let mut failing = Failing::start(name, "on_failure = \"reject\"").await;
    for _ in 0..2 {
        let response = failing.fail().await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.field("retry-after"), Some("1"));
        let requests = failing.origins.each_ref().map(Origin::request_count);
        assert_eq!(requests, [(failing.failures - 1) as usize, 0]);
        failing.succeed().await;
    }
}

/// A test of both for each guest: the list of all that pass their trial and fail when they are asked to.
macro_rules! contained {
    ($($test:ident: $guest:literal,)*) => {$(
        mod $test {
            #[tokio::test]
            async fn falls_back() {
                super::falls_back($guest).await;
            }

            #[tokio::test]
            async fn rejects() {
                super::rejects($guest).await;
            }
        }
    )*};
}

contained! {
    a_panic: "panics",
    an_endless_loop: "loops",
    an_endless_loop_of_bulk_operations: "fills",
    a_stack_overflow: "recurses",
    a_memory_bomb: "bombs",
    a_backend_that_does_not_exist: "forwards-nowhere",
    a_backend_that_is_down: "forwards-to-down",
    edits_before_a_panic: "edits-then-panics",
}

#[tokio::test]
async fn a_backend_that_has_left_is_not_to_be_had() {
    let origins = [Origin::echo("a").await, Origin::echo("b").await];
    let [a, b] = [&origins[0], &origins[1]].map(Origin::address);
    let config = |addresses: &[_]| behind(guest("forwards-to-departed"), "", addresses);
    let proxy = Proxy::start(&config(&[a, b])).await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.ask(MISBEHAVE).await.origin(), "a");
    proxy.apply(&config(&[b])).await;
    origins[0].take_requests();
    assert_eq!(client.ask(MISBEHAVE).await.origin(), "b");
    assert_eq!(plugin(&proxy).failures, 1);
    assert_eq!(origins[0].request_count(), 0);
}

#[tokio::test]
async fn memory_stops_at_its_cap_and_a_policy_that_copes_is_left_alone() {
    for (keys, expected) in [("", 8..16), ("memory = \"4MiB\"", 1..4)] {
        let origin = Origin::echo("a").await;
        let proxy = Proxy::start(&behind(guest("hogs"), keys, &[origin.address()])).await;
        let mut client = Client::connect(&proxy).await;
        for _ in 0..3 {
            assert_eq!(client.ask(MISBEHAVE).await.status(), 200);
        }
        assert_eq!(plugin(&proxy).failures, 0);
        for request in origin.requests() {
            let hoard = request.field("x-hoard-mib").expect("a number");
            let hoard: u32 = hoard.parse().expect("a number");
            assert!(expected.contains(&hoard), "{hoard} MiB with {keys:?}");
        }
    }
}

#[tokio::test]
async fn an_instance_that_failed_is_replaced_by_a_fresh_one() {
    let origin = Origin::echo("a").await;
    let keys = "config = { n = 5 }";
    let config = behind(guest("panics-at-nth"), keys, &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..20 {
        assert_eq!(client.ask(MISBEHAVE).await.status(), 200);
    }
    let requests = origin.requests();
    let seen: Vec<&str> = requests
        .iter()
        .map(|request| request.field("x-seen").unwrap_or("fell back"))
        .collect();
    assert_eq!(seen, ["1", "2", "3", "4", "fell back"].repeat(4));
    assert_eq!(plugin(&proxy).failures, 4);
}

#[tokio::test]
async fn a_failed_call_leaves_the_request_as_it_came() {
    const REQUEST: &str = "POST /a?b=c HTTP/1.1\r\nHost: test\r\nX-Misbehave: 1\r\nX-Original: 1\r\n\
                           x-EDITED: by the client\r\nContent-Length: 4\r\n\r\nbody";
    let origin = Origin::echo("a").await;
    let edited = Proxy::start(&behind(guest("edits-then-panics"), "", &[origin.address()])).await;
    let plain = Proxy::before(&[&origin]).await;
    let mut answers = Vec::new();
    for proxy in [&edited, &plain] {
        answers.push(Client::connect(proxy).await.ask(REQUEST).await);
    }
    assert_eq!(plugin(&edited).failures, 1);
    let requests = origin.requests();
    assert_eq!(requests[0].head.raw, requests[1].head.raw);
    assert_eq!(requests[0].body, b"body");
    assert_eq!(answers[0].head.names(), answers[1].head.names());
    assert_eq!(answers[0].body, b"body");
}

#[tokio::test]
async fn a_looping_policy_does_not_harm_another_route() {
    const LOOPS: u64 = 20;
    const OTHERS: u64 = 100;
    let origins = [Origin::echo("a").await, Origin::echo("b").await];
    let addresses = [&origins[0], &origins[1]].map(Origin::address);
    // One shard: both routes are served by one thread.
    let config = behind(guest("loops"), "", &addresses)
        + &servers(&addresses, "policy = \"round-robin\"")
            .replace("upstream.app", "upstream.other")
        + "[[route]]\nupstream = \"app\"\n[[route]]\npath = \"/other\"\nupstream = \"other\"\n";
    let proxy = Proxy::start(&config).await;

    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut looping = Client::connect(&proxy).await;
        clients.push(tokio::spawn(async move {
            for _ in 0..LOOPS {
                assert_eq!(looping.ask(MISBEHAVE).await.status(), 200);
            }
        }));
        let mut other = Client::connect(&proxy).await;
        clients.push(tokio::spawn(async move {
            for _ in 0..OTHERS {
                assert_eq!(other.get("/other").await.status(), 200);
            }
        }));
    }
    for client in clients {
        client.await.expect("a client without complaints");
    }
    assert_eq!(plugin(&proxy).failures, 4 * LOOPS);
    let other = &proxy.status().upstreams[1];
    let failures = other.policy.plugin.as_ref().map(|plugin| plugin.failures);
    assert_eq!(failures, Some(0));
    let picks: Vec<u64> = other.backends.iter().map(|backend| backend.picks).collect();
    assert_eq!(picks, [2 * OTHERS, 2 * OTHERS]);
}

/// Threads that do nothing, without a pause, until this is dropped.
struct BusyMachine(Arc<AtomicBool>);

impl BusyMachine {
    fn start() -> BusyMachine {
        let over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..2 * cores {
            let over = over.clone();
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        BusyMachine(over)
    }
}

impl Drop for BusyMachine {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A call is cut off for the time that it takes, not for the time that others take from it.
#[tokio::test]
async fn a_busy_machine_is_not_held_against_a_policy() {
    let origin = Origin::echo("a").await;
    // Refused, and so each a line for the log as well: calls that take their time.
    let request = edits(&[("remove", "connection", ""); 50]);
    let keys = format!("[policy.guest.config]\nrequest = {request}\n");
    let config = behind(guest("edits-headers"), &keys, &[origin.address()]);
    let _busy = BusyMachine::start();
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status(), 200);
    }
    assert_eq!(plugin(&proxy).failures, 0);
}

/// Policies may answer by themselves, but not with anything that is no final status.
#[tokio::test]
async fn a_status_that_no_response_can_have_is_a_failure() {
    let origin = Origin::echo("a").await;
    let config = behind(guest("responds"), "", &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    let ask = |status: u32| format!("GET / HTTP/1.1\r\nHost: test\r\nX-Status: {status}\r\n\r\n");
    for status in [200, 204, 301, 404, 503, 599] {
        let response = client.ask(ask(status)).await;
        assert_eq!(u32::from(response.status()), status);
        assert_eq!(
            (response.origin(), response.body.as_slice()),
            ("none", &b""[..])
        );
    }
    assert_eq!((plugin(&proxy).failures, origin.request_count()), (0, 0));
    for (failures, status) in [0, 99, 100, 101, 199, 600, 1000, 65535]
        .into_iter()
        .enumerate()
    {
        let response = client.ask(ask(status)).await;
        assert_eq!(
            (response.status(), response.origin()),
            (200, "a"),
            "{status}"
        );
        assert_eq!(plugin(&proxy).failures, failures as u64 + 1, "{status}");
    }
}

/// The contract says of backends that were tried in vain: they must not be picked again.
#[tokio::test]
async fn a_backend_that_was_tried_in_vain_is_not_tried_again() {
    let refusing = Refusing::new();
    let origin = Origin::echo("b").await;
    let addresses = [refusing.address(), origin.address()];
    let config = servers(&addresses, "policy = \"guest\"\nmax_fails = 0")
        + &policy(guest("forwards-again"), "");
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for failures in 1..=3 {
        let response = client.get("/").await;
        assert_eq!((response.status(), response.origin()), (200, "b"));
        assert_eq!(plugin(&proxy).failures, failures);
    }
}

/// What a policy says of itself goes into logs and onto terminals.
#[tokio::test]
async fn a_name_is_one_line_of_text() {
    let origin = Origin::echo("a").await;
    let config = behind(guest("lies-about-itself"), "", &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    assert_eq!(Client::connect(&proxy).await.get("/").await.status(), 200);
    let plugin = plugin(&proxy);
    for text in [&plugin.name, &plugin.version] {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

// === edits ===

/// One line of a list of edits in a configuration.
fn edits(list: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("[");
    for (edit, name, value) in list {
        let quoted = |text: &str| {
            format!("{text:?}")
                .replace("\\0", "\\u0000")
                .replace("\\u{1}", "\\u0001")
        };
        let (name, value) = (quoted(name), quoted(value));
        let _ = match *edit {
            "remove" => write!(text, "{{ remove = {name} }}, "),
            edit => write!(text, "{{ {edit} = [{name}, {value}] }}, "),
        };
    }
    text + "]"
}

#[tokio::test]
async fn edits_that_are_allowed_are_made() {
    let origin = Origin::respond(
        "HTTP/1.1 200 OK\r\nServer: secret\r\nX-Old: 1\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let request = edits(&[
        ("set", "x-new", "1"),
        ("set", "X-Old", " 2 "),
        ("append", "x-list", "b"),
        ("append", "x-list", "c"),
        ("remove", "x-gone", ""),
        ("remove", "x-never-there", ""),
        ("set", "host", "other.example:81"),
        ("set", "x-text", "caf\u{e9}"),
        ("set", "x-empty", ""),
    ]);
    let response = edits(&[
        ("set", "x-new", "1"),
        ("set", "X-Old", "2"),
        ("append", "set-cookie", "a=1"),
        ("append", "set-cookie", "b=2"),
        ("remove", "server", ""),
    ]);
    let keys = format!("[policy.guest.config]\nrequest = {request}\nresponse = {response}\n");
    let proxy = Proxy::start(&behind(guest("edits-headers"), &keys, &[origin.address()])).await;
    let mut client = Client::connect(&proxy).await;
    let response = client
        .ask("GET / HTTP/1.1\r\nHost: test\r\nX-Old: 1\r\nX-List: a\r\nX-Gone: 1\r\nX-Gone: 2\r\n\r\n")
        .await;

    let request = origin.only_request();
    assert_eq!(request.field("x-accepted"), Some("y".repeat(14).as_str()));
    assert_eq!(request.field("x-new"), Some("1"));
    assert_eq!(request.field("x-old"), Some("2"));
    assert_eq!(request.head.all("x-list"), ["a", "b", "c"]);
    assert_eq!(request.field("x-gone"), None);
    assert_eq!(request.field("host"), Some("other.example:81"));
    // As on the wire: one character per byte.
    assert_eq!(request.field("x-text"), Some("caf\u{c3}\u{a9}"));
    assert_eq!(request.field("x-empty"), Some(""));

    assert_eq!((response.status(), response.text()), (200, "ok"));
    assert_eq!(response.field("x-new"), Some("1"));
    assert_eq!(response.field("x-old"), Some("2"));
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.field("server"), None);
}

#[tokio::test]
async fn edits_that_are_not_allowed_change_nothing() {
    const VALUE: &str = "5";
    let names = [
        // Framing and hop-by-hop fields.
        "content-length",
        "Transfer-Encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
        "expect",
        // Fields by which we say where a request came from.
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "X-Forwarded-Host",
        "x-real-ip",
        // What is no name at all.
        "",
        " ",
        "a b",
        "a:",
        ":path",
        "a\r\nb",
        "a\0",
        "caf\u{e9}",
    ];
    let mut list = Vec::new();
    for name in names {
        list.extend([
            ("set", name, VALUE),
            ("append", name, VALUE),
            ("remove", name, ""),
        ]);
    }
    list.extend([
        ("append", "host", "other.example"),
        ("remove", "host", ""),
        ("set", "host", "user@other.example"),
        ("set", "host", "a b"),
        ("set", "x-value", "a\r\nx-smuggled: 1"),
        ("set", "x-value", "a\nx-smuggled: 1"),
        ("append", "x-value", "a\rb"),
        ("append", "x-value", "a\0b"),
        ("append", "x-value", "a\u{1}b"),
    ]);
    let keys = format!(
        "[policy.guest.config]\nrequest = {}\nresponse = {}\n",
        edits(&list),
        edits(&list)
    );
    let origin = Origin::echo("a").await;
    let edited = Proxy::start(&behind(guest("edits-headers"), &keys, &[origin.address()])).await;
    let plain = Proxy::before(&[&origin]).await;
    let mut answers = Vec::new();
    for proxy in [&edited, &plain] {
        let mut client = Client::connect(proxy).await;
        let request = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
                       4\r\nbody\r\n0\r\n\r\n";
        answers.push(client.ask(request).await);
        // The connections are as good as before, on both sides.
        assert_eq!(client.get("/").await.status(), 200);
    }
    let requests = origin.requests();
    let accepted = requests[0].field("x-accepted").expect("a verdict on each");
    assert_eq!(accepted, "n".repeat(2 * list.len()));
    let mut names = requests[0].head.names();
    names.retain(|name| name != "x-accepted");
    assert_eq!(names, requests[2].head.names());
    for name in names {
        assert_eq!(
            requests[0].head.all(&name),
            requests[2].head.all(&name),
            "{name}"
        );
    }
    for (request, answer) in [&requests[0], &requests[2]].into_iter().zip(&answers) {
        assert_eq!(
            (request.body.as_slice(), request.whole),
            (&b"body"[..], true)
        );
        assert_eq!(answer.text(), "body");
    }
    assert_eq!(answers[0].head.names(), answers[1].head.names());
    assert_eq!(plugin(&edited).failures, 0);
}

#[tokio::test]
async fn edits_have_limits() {
    let many: Vec<String> = (0..70).map(|number| format!("x-many-{number}")).collect();
    let many: Vec<_> = many
        .iter()
        .map(|name| ("set", name.as_str(), "1"))
        .collect();
    let long = "x".repeat(9 * 1024);
    let long = [
        ("set", "x-long-0", long.as_str()),
        ("set", "x-long-1", &long),
    ];
    for (list, prefix, expected) in [(&many[..], "x-many-", 64), (&long[..], "x-long-", 1)] {
        let origin = Origin::echo("a").await;
        let keys = format!("[policy.guest.config]\nrequest = {}\n", edits(list));
        let proxy = Proxy::start(&behind(guest("edits-headers"), &keys, &[origin.address()])).await;
        assert_eq!(Client::connect(&proxy).await.get("/").await.status(), 200);
        let names = origin.only_request().head.names();
        let made = names.iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!(made, expected);
        assert_eq!(plugin(&proxy).failures, 0);
    }
}

#[tokio::test]
async fn the_edits_of_an_attempt_that_failed_are_forgotten() {
    let refusing = Refusing::new();
    let origin = Origin::echo("b").await;
    let keys = format!(
        "[policy.guest.config]\nrequest = {}\nresponse = {}\n",
        edits(&[("append", "x-attempt", "1")]),
        edits(&[("append", "x-attempt", "1")])
    );
    let addresses = [refusing.address(), origin.address()];
    let proxy = Proxy::start(&behind(guest("edits-headers"), &keys, &addresses)).await;
    let response = Client::connect(&proxy).await.get("/").await;
    assert_eq!((response.status(), response.origin()), (200, "b"));
    assert_eq!(response.head.all("x-attempt"), ["1"]);
    assert_eq!(origin.only_request().head.all("x-attempt"), ["1"]);
    assert_eq!(proxy.backend(0).failures, 1);
}

// === hooks ===

#[tokio::test]
async fn the_policy_of_the_readme_works_as_module_and_as_component() {
    let directory = tempfile::tempdir().expect("a directory");
    let wrapped = directory.path().join("first-healthy.wasm");
    std::fs::write(&wrapped, component("first-healthy")).expect("a file");
    for file in [guest("first-healthy"), &wrapped] {
        let origins = [Origin::echo("a").await, Origin::echo("b").await];
        let [a, b] = [&origins[0], &origins[1]].map(Origin::address);
        let upstream = format!(
            "[upstream.app]\npolicy = \"guest\"\n\
             servers = [{{ address = \"{a}\", name = \"anna\" }}, \"{b}\"]\n"
        );
        let proxy = Proxy::start(&(upstream + &policy(file, ""))).await;
        let mut client = Client::connect(&proxy).await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.origin(), "a");
        }
        for request in origins[0].requests() {
            assert_eq!(request.field("x-picked"), Some("anna"));
        }
        let plugin = plugin(&proxy);
        assert_eq!(
            (plugin.name.as_str(), plugin.version.as_str()),
            ("first-healthy", "0.1.0")
        );
        assert_eq!((plugin.calls, plugin.failures), (3, 0));
    }
}

#[tokio::test]
async fn a_policy_hears_of_outcomes() {
    let heard = |origin: &Origin| {
        let requests = origin.requests();
        let last = requests.last().and_then(|request| request.field("x-heard"));
        let (responses, failures) = last
            .expect("a report")
            .split_once('/')
            .expect("two numbers");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        (number(responses), number(failures))
    };

    let origin = Origin::echo("a").await;
    let config = behind(guest("counts-outcomes"), "", &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    // They come in batches, but they come, and none twice.
    for sent in 0..100 {
        client.get("/").await;
        let (responses, failures) = heard(&origin);
        assert!(
            responses <= sent && responses + 32 > sent,
            "{responses} of {sent}"
        );
        assert_eq!(failures, 0);
    }

    let origin = Origin::resetting().await;
    let config = behind(guest("counts-outcomes"), "", &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for sent in 0..100 {
        assert_eq!(client.post("/", b"").await.status(), 502);
        let (responses, failures) = heard(&origin);
        assert!(
            failures <= sent && failures + 32 > sent,
            "{failures} of {sent}"
        );
        assert_eq!(responses, 0);
    }
}

#[tokio::test]
async fn a_policy_that_fails_on_outcomes_does_not_fail_requests() {
    let origin = Origin::echo("a").await;
    let config = behind(guest("panics-in-observe"), "", &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.status(), 200);
    }
    let failures = plugin(&proxy).failures;
    assert!((1..=100).contains(&failures), "{failures}");
}

#[tokio::test]
async fn a_policy_rewrites_responses() {
    const FINE: &str = "HTTP/1.1 404 Not Found\r\nX-Powered-By: Express\r\nSet-Cookie: a=1\r\n\
                        Content-Length: 2\r\n\r\nok";
    let origin = Origin::respond(FINE).await;
    let config = behind(guest("rewrites-responses"), "", &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert_eq!((response.status(), response.text()), (404, "ok"));
        assert_eq!(response.field("x-status"), Some("404"));
        assert_eq!(
            response.field("x-backend"),
            Some(proxy.backend(0).id.0.to_string().as_str())
        );
        assert_eq!(response.head.all("set-cookie"), ["a=1", "sid=1; Path=/"]);
        assert!(!response.head.has("x-powered-by"));
        assert_eq!(response.field("content-length"), Some("2"));
    }
    assert_eq!(plugin(&proxy).failures, 0);
}

#[tokio::test]
async fn a_policy_that_fails_on_a_response_leaves_it_as_it_came() {
    const CUE: &str = "HTTP/1.1 200 OK\r\nX-Misbehave: 1\r\nX-Powered-By: Express\r\n\
                       Content-Length: 2\r\n\r\nok";
    let origin = Origin::respond(CUE).await;
    let config = behind(guest("rewrites-responses"), "", &[origin.address()]);
    let proxy = Proxy::start(&config).await;
    let mut client = Client::connect(&proxy).await;
    for failures in 1..=3 {
        let response = client.get("/").await;
        assert_eq!((response.status(), response.text()), (200, "ok"));
        let mut names = response.head.names();
        // Added by the proxy where the origin has none.
        names.retain(|name| name != "date");
        assert_eq!(names, ["content-length", "x-misbehave", "x-powered-by"]);
        assert_eq!(plugin(&proxy).failures, failures);
    }
}
