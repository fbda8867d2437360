//! A running server that is asked and told things, through its admin socket: by the commands for it, and by whoever
//! should not.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use waypost_tests::{Origin, servers};

use crate::guests::guest;
use crate::process::{Ended, Program, connect, waypost};

const LISTEN_AND_ROUTE: &str =
    "shards = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n";
const SOCKET: &str = "[admin]\nsocket = \"admin.sock\"\n";

/// A configuration whose listener keeps its port when it is read again.
fn config(origins: &[&Origin], listener: &str, more: &str) -> String {
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
    let start = LISTEN_AND_ROUTE.replace("127.0.0.1:0", listener);
    format!("{start}{}{more}", servers(&addresses, ""))
}

fn with_policy(origin: &Origin, file: &Path) -> String {
    format!(
        "{LISTEN_AND_ROUTE}{}[policy.own]\nfile = \"{}\"\n{SOCKET}",
        servers(&[origin.address()], "policy = \"own\""),
        file.display()
    )
}

async fn run(directory: &Path, line: &str) -> Ended {
    let words: Vec<&str> = line.split(' ').collect();
    Program::run(&mut waypost(directory, &words)).await
}

/// What a command prints that succeeds.
async fn said(directory: &Path, line: &str) -> String {
    let ended = run(directory, line).await;
    assert_eq!(
        (ended.status, ended.stderr.as_str()),
        (Some(0), ""),
        "{line}: {ended:?}"
    );
    ended.stdout
}

async fn status(directory: &Path) -> serde_json::Value {
    let text = said(directory, "status --json").await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn the_status_is_shown_to_people_and_programs() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let origin = Origin::echo("a").await;
    let text = config(&[&origin], "127.0.0.1:0", SOCKET);
    let (program, address) = Program::serve(directory, &text).await;
    let mut client = connect(address).await;
    assert_eq!(client.get("/").await.status(), 200);

    let status = status(directory).await;
    assert_eq!(status["pid"], program.id());
    assert_eq!(status["listeners"][0], address.to_string());
    assert_eq!(status["connections"], 1);
    assert_eq!(status["routes"][0]["upstream"], "app");
    let backend = &status["upstreams"][0]["backends"][0];
    assert_eq!(backend["address"], origin.address().to_string());
    assert_eq!(
        (&backend["state"], &backend["picks"]),
        (&"up".into(), &1.into())
    );
    assert!(
        backend["latency_us"]["p50"]
            .as_f64()
            .is_some_and(|us| us > 0.0)
    );

    let shown = said(directory, "status").await;
    for part in [
        format!("pid {}, up ", program.id()),
        format!("\nlistening on {address}\n"),
        "\nroute */ to app\n".to_owned(),
        "\nupstream app, policy rotation\n".to_owned(),
        format!("\n  {}  -        up          1 ", origin.address()),
    ] {
        assert!(shown.contains(&part), "{part:?} in\n{shown}");
    }
    program.signal("TERM");
    let ended = program.ended().await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(!directory.join("admin.sock").exists());
}

#[tokio::test]
async fn a_backend_is_taken_out_and_in_by_hand() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let (one, two) = (Origin::echo("one").await, Origin::echo("two").await);
    let text = config(&[&one, &two], "127.0.0.1:0", SOCKET);
    let (mut program, address) = Program::serve(directory, &text).await;
    let mut client = connect(address).await;

    for (what, state) in [("drain", "draining"), ("down", "down")] {
        let line = format!("backend {what} app {}", one.address());
        assert!(said(directory, &line).await.contains(state));
        program
            .stderr
            .until(&format!("{what} for {}", one.address()))
            .await;
        let backend = status(directory).await["upstreams"][0]["backends"][0].clone();
        assert_eq!(backend["state"], state);
        assert_eq!(backend["overridden"], state);
        for _ in 0..4 {
            assert_eq!(client.get("/").await.origin(), "two");
        }
    }
    assert_eq!(
        said(directory, "reload").await,
        "nothing has changed\n",
        "it is kept over reloads"
    );
    let line = format!("backend ready app {}", one.address());
    assert!(said(directory, &line).await.contains("up"));
    let origins = [client.get("/").await, client.get("/").await];
    let mut origins = origins.each_ref().map(|answer| answer.origin());
    origins.sort_unstable();
    assert_eq!(origins, ["one", "two"]);

    let line = format!("backend weight app {} 7", one.address());
    assert!(said(directory, &line).await.contains("weight 1 -> 7"));
    let backend = status(directory).await["upstreams"][0]["backends"][0].clone();
    assert_eq!(backend["weight"], 7);

    for line in ["backend down app nobody", "backend down nothing first"] {
        let ended = run(directory, line).await;
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
    let shown = said(directory, "status").await;
    let by_hand = format!("\n  {} by hand: weight 7\n", one.address());
    assert!(shown.contains(&by_hand), "{shown}");
}

#[tokio::test]
async fn a_reload_says_what_has_changed_or_why_nothing_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let file = directory.join("waypost.toml");
    let (one, two) = (Origin::echo("one").await, Origin::echo("two").await);
    let (mut program, address) =
        Program::serve(directory, &config(&[&one], "127.0.0.1:0", SOCKET)).await;
    let mut client = connect(address).await;
    assert_eq!(client.get("/").await.origin(), "one");
    assert_eq!(said(directory, "reload").await, "nothing has changed\n");
    program.stderr.until("reload by uid ").await;

    let listener = "127.0.0.1:0";
    fs::write(&file, config(&[&two], listener, SOCKET)).expect("a file");
    let changes = said(directory, "reload").await;
    assert!(changes.contains(&one.address().to_string()), "{changes}");
    assert_eq!(client.get("/").await.origin(), "two");

    // As `check` would say it.
    let nowhere = config(&[&two], listener, SOCKET).replace("\"rotation\"", "\"rotaton\"");
    let missing = with_policy(&two, Path::new("none.wasm"));
    for wrong in ["x = 1\n".to_owned(), nowhere, missing] {
        fs::write(&file, wrong).expect("a file");
        let check = run(directory, "check waypost.toml").await;
        let reload = run(directory, "reload --admin admin.sock").await;
        assert_eq!(reload.status, Some(78), "{reload:?}");
        assert_eq!((reload.stdout, reload.stderr), (check.stdout, check.stderr));
        program.stderr.until("refused").await;
        assert_eq!(client.get("/").await.origin(), "two");
    }
}

#[tokio::test]
async fn a_hangup_is_a_reload() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let file = directory.join("waypost.toml");
    let (one, two) = (Origin::echo("one").await, Origin::echo("two").await);
    let (mut program, address) =
        Program::serve(directory, &config(&[&one], "127.0.0.1:0", "")).await;
    let mut client = connect(address).await;
    program.signal("HUP");
    program
        .stderr
        .until("reload by SIGHUP: nothing has changed")
        .await;
    fs::write(&file, config(&[&two], "127.0.0.1:0", "")).expect("a file");
    program.signal("HUP");
    program.stderr.until("reload by SIGHUP: upstream app").await;
    assert_eq!(client.get("/").await.origin(), "two");
    fs::write(&file, "x = 1\n").expect("a file");
    program.signal("HUP");
    program.stderr.until("reload by SIGHUP: refused").await;
    program.stderr.until("error: unknown key `x`").await;
    assert_eq!(client.get("/").await.origin(), "two");
    program.signal("TERM");
    assert_eq!(program.ended().await.status, Some(0));
}

#[tokio::test]
async fn a_policy_is_pushed_and_rolled_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let origin = Origin::echo("a").await;
    let text = with_policy(&origin, guest("first-healthy"));
    let (mut program, address) = Program::serve(directory, &text).await;
    let mut client = connect(address).await;
    let digest = async || {
        let status = status(directory).await;
        status["upstreams"][0]["policy"]["plugin"]["digest"].clone()
    };
    let first = digest().await;

    let other = crate::guests::built_in("round-robin");
    let line = format!("policy push own {}", other.display());
    let pushed = said(directory, &line).await;
    assert!(pushed.starts_with("policy own: "), "{pushed}");
    assert!(pushed.contains("the next start takes the policy's file again"));
    let second = digest().await;
    assert_ne!(first, second);
    let again = said(directory, &line).await;
    assert!(again.starts_with("nothing has changed\n"), "{again}");
    program.stderr.until("push of own, ").await;
    assert_eq!(client.get("/").await.status(), 200);

    fs::write(directory.join("bad.wasm"), "no code at all").expect("a file");
    let ended = run(directory, "policy push own bad.wasm").await;
    assert_eq!(ended.status, Some(78), "{ended:?}");
    assert!(ended.stderr.starts_with("error: policy own: "), "{ended:?}");
    assert_eq!(digest().await, second);

    assert!(said(directory, "policy rollback own").await.contains("->"));
    assert_eq!(digest().await, first);
    assert_eq!(client.get("/").await.status(), 200);

    let ended = run(directory, "policy rollback other").await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    fs::write(directory.join("large.wasm"), vec![0; (4 << 20) + 1]).expect("a file");
    let ended = run(directory, "policy push own large.wasm").await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("at most 4 MiB"), "{ended:?}");
}

/// Clients reach what is behind the proxy, and nothing of the proxy.
#[tokio::test]
async fn the_ports_of_clients_are_no_admin() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let origin = Origin::echo("a").await;
    let text = config(&[&origin], "127.0.0.1:0", SOCKET);
    let (_program, address) = Program::serve(directory, &text).await;
    let mut client = connect(address).await;
    for target in ["/status", "/reload", "/policies/own/rollback"] {
        assert_eq!(client.get(target).await.origin(), "a");
        assert_eq!(client.post(target, b"").await.origin(), "a");
    }
    assert_eq!(origin.requests().len(), 6);
    let mode = fs::metadata(directory.join("admin.sock")).expect("a socket");
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn over_tcp_a_token_is_needed() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let secret = |name: &str, text: &str, mode| {
        let file = directory.join(name);
        fs::write(&file, text).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a file of ours");
    };
    secret("token", "0123456789abcdef\n", 0o644);
    secret("wrong", "0123456789abcdeF\n", 0o600);
    let origin = Origin::echo("a").await;
    let tcp = "[admin.tcp]\naddress = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
    let text = config(&[&origin], "127.0.0.1:0", tcp);

    fs::write(directory.join("waypost.toml"), &text).expect("a file");
    for line in ["check", "run"] {
        let ended = run(directory, line).await;
        assert_eq!(ended.status, Some(78), "{ended:?}");
        for part in [
            "is open to every user",
            "waypost.toml:12:14",
            "chmod o= token",
        ] {
            assert!(ended.stderr.contains(part), "{}", ended.stderr);
        }
    }
    secret("token", "0123456789abcdef\n", 0o600);
    fs::write(directory.join("waypost.toml"), &text).expect("a file");
    let mut program = Program::start(&mut waypost(directory, &["run"]));
    let line = program.stderr.until("admin at http://").await;
    let url = line.rsplit(' ').next().expect("a word");
    program.stderr.until("serving on ").await;

    let line = format!("reload --admin {url} --token-file token");
    assert_eq!(said(directory, &line).await, "nothing has changed\n");
    let line = format!("reload --admin {url} --token-file wrong");
    let ended = run(directory, &line).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("the token is missing or wrong"),
        "{ended:?}"
    );
    program.stderr.until("refused: the token is missing").await;
}

#[tokio::test]
async fn a_socket_has_one_server_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let origin = Origin::echo("a").await;
    let text = config(&[&origin], "127.0.0.1:0", SOCKET);
    let (program, _) = Program::serve(directory, &text).await;
    let ended = run(directory, "run").await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("another server listens there"),
        "{ended:?}"
    );
    assert!(said(directory, "status").await.contains("listening on"));

    program.signal("KILL");
    assert_eq!(program.ended().await.status, None);
    let ended = run(directory, "status").await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("has ended: start it again"),
        "{ended:?}"
    );
    let (_program, _) = Program::serve(directory, &text).await;
    assert!(said(directory, "status").await.contains("listening on"));
}
