//! The program as people meet it: what it says about bad input, how it ends, what the demo prints.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use waypost_tests::{Origin, servers};

use crate::guests::{assemble, guest};
use crate::process::{Program, connect, waypost, waypost_at, waypost_file};

// === what it says ===

/// Each folder of `golden/commands` is a case: `args` has the arguments, one a line; `stdout`, `stderr` and `status` are
/// what must come of them. All else is put into the directory in which the program runs:
///
/// - `NAME.wat` as the module or component `NAME`;
/// - `NAME.guest` as the guest that it names, cut or filled to the number of bytes that it may give as well;
/// - `{port}` in text becomes a port of 127.0.0.1 that is taken.
///
/// `UPDATE_GOLDEN=1` writes what comes out instead of comparing it.
#[tokio::test]
async fn every_case_ends_as_written_down() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/commands");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| !value.is_empty());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken
        .local_addr()
        .expect("a bound socket")
        .port()
        .to_string();
    let mut wrong = Vec::new();
    for case in entries(&cases) {
        let directory = tempfile::tempdir().expect("a directory");
        lay_out(&case, directory.path(), &port);
        let arguments = read(&case.join("args")).replace("{port}", &port);
        let arguments: Vec<&str> = arguments.lines().collect();
        let ended = Program::run(&mut waypost(directory.path(), &arguments)).await;
        if ended.broke_down() {
            wrong.push(format!("--- {}\n{}", case.display(), ended.stderr));
            continue;
        }

        let status = ended
            .status
            .map_or("a signal".to_owned(), |code| code.to_string());
        let shown = |text: &str| {
            without_times(text)
                .replace(&*directory.path().to_string_lossy(), "{dir}")
                .replace(&port, "{port}")
        };
        for (name, actual) in [
            ("status", status + "\n"),
            ("stdout", shown(&ended.stdout)),
            ("stderr", shown(&ended.stderr)),
        ] {
            let golden = case.join(name);
            if update {
                write_or_remove(&golden, &actual);
            } else if read(&golden) != actual {
                let expected = read(&golden);
                wrong.push(format!(
                    "--- {} should be\n{expected}--- and is\n{actual}",
                    golden.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The log's lines begin with a time, such as `2026-11-21T01:53:06.290620Z`.
fn without_times(text: &str) -> String {
    let line = |line: &str| match line.split_once("Z ") {
        Some((time, rest)) if time.len() == 26 && !time.contains(' ') => format!("{{time}} {rest}"),
        _ => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// What is not there is empty.
fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn write_or_remove(file: &Path, text: &str) {
    if text.is_empty() {
        let _ = fs::remove_file(file);
    } else {
        fs::write(file, text).expect("a golden file");
    }
}

/// Puts a case's files where the program finds them.
fn lay_out(case: &Path, directory: &Path, port: &str) {
    for source in entries(case) {
        let name = source.file_name().expect("a name").to_string_lossy();
        let bytes = || fs::read(&source).expect("a file");
        let text = || String::from_utf8(bytes()).expect("text");
        match name.rsplit_once('.') {
            _ if ["args", "stdout", "stderr", "status"].contains(&&*name) => {}
            _ if source.is_dir() => fs::create_dir(directory.join(&*name)).expect("a directory"),
            Some((name, "wat")) => {
                fs::write(directory.join(name), assemble(&text())).expect("a file");
            }
            Some((name, "guest")) => {
                fs::write(directory.join(name), guest_bytes(&text())).expect("a file");
            }
            Some((_, "toml")) => {
                let text = text().replace("{port}", port);
                fs::write(directory.join(&*name), text).expect("a file");
            }
            _ => fs::write(directory.join(&*name), bytes()).expect("a file"),
        }
    }
}

fn guest_bytes(description: &str) -> Vec<u8> {
    let mut words = description.split_whitespace();
    let name = words.next().expect("the name of a guest");
    let mut bytes = fs::read(guest(name)).expect("a guest");
    if let Some(length) = words.next() {
        bytes.resize(length.parse().expect("a number of bytes"), 0);
    }
    bytes
}

/// What the administrator may do is no test of what others may not: as root, this runs the program as nobody.
fn as_somebody_else(directory: &Path, arguments: &[&str]) -> Command {
    let uid = Command::new("id")
        .arg("-u")
        .output()
        .expect("the id program");
    if uid.stdout != b"0\n" {
        return waypost(directory, arguments);
    }
    const NOBODY: u32 = 65534;
    // The program itself may be where nobody can get at it.
    let file = directory.join("waypost-under-test");
    fs::copy(waypost_file(), &file).expect("a copy of the program");
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory, everybody).expect("a directory of ours");
    let mut command = waypost_at(&file, directory, arguments);
    command.uid(NOBODY).gid(NOBODY);
    command
}

#[tokio::test]
async fn a_port_that_takes_a_privilege_is_refused() {
    const PORT: u16 = 80;
    let first_free = read(Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
    if first_free
        .trim()
        .parse::<u16>()
        .is_ok_and(|first| first <= PORT)
    {
        println!("skipped: everybody may listen on port {PORT} here");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = ["proxy", "--from", "127.0.0.1:80", "--to", "127.0.0.1:9"];
    let ended = Program::run(&mut as_somebody_else(directory.path(), &arguments)).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "error: cannot listen on 127.0.0.1:80: Permission denied (os error 13)\n \
         |\n \
         = help: ports below 1024 need a privilege; choose a higher port, or grant CAP_NET_BIND_SERVICE\n"
    );
}

#[tokio::test]
async fn a_policy_that_may_not_be_read_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("policy.wasm");
    fs::copy(guest("first-healthy"), &file).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("a file of ours");
    let arguments = [
        "proxy",
        "--from",
        "127.0.0.1:0",
        "--to",
        "127.0.0.1:9",
        "--policy",
        "policy.wasm",
    ];
    let ended = Program::run(&mut as_somebody_else(directory.path(), &arguments)).await;
    assert_eq!(ended.status, Some(78), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "error: policy policy: policy.wasm: cannot be read: Permission denied (os error 13)\n \
         |\n \
         = help: let the user that runs waypost read it\n"
    );
}

/// What the resolver says differs between machines.
#[tokio::test]
async fn a_name_that_does_not_resolve_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = [
        "proxy",
        "--from",
        "127.0.0.1:0",
        "--to",
        "nowhere.invalid:80",
    ];
    let ended = Program::run(&mut waypost(directory.path(), &arguments)).await;
    assert_eq!(ended.status, Some(78), "{ended:?}");
    for part in [
        "error: upstream proxy: nowhere.invalid:80 does not resolve: ",
        "= help: check the name, or give an IP address",
    ] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

// === how it ends ===

const LISTEN_AND_ROUTE: &str =
    "shards = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n";

fn config(origin: &Origin, keys: &str) -> String {
    format!(
        "{LISTEN_AND_ROUTE}{}{keys}",
        servers(&[origin.address()], "")
    )
}

#[tokio::test]
async fn a_signal_drains_and_ends_with_success() {
    for signal in ["TERM", "QUIT", "INT"] {
        let directory = tempfile::tempdir().expect("a directory");
        let (origin, gate) = Origin::gated("a").await;
        let (mut program, address) = Program::serve(directory.path(), &config(&origin, "")).await;
        let mut idle = connect(address).await;
        let mut busy = connect(address).await;
        busy.send_get("/").await;
        origin.received(1).await;

        program.signal(signal);
        program
            .stderr
            .until(&format!("SIG{signal}: draining"))
            .await;
        idle.closed().await;
        gate.open();
        assert_eq!(busy.response().await.status(), 200);
        let ended = program.ended().await;
        assert_eq!(
            (ended.status, ended.stdout.as_str()),
            (Some(0), ""),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::silent().await;
    let config = config(&origin, "[shutdown]\ngrace = \"1h\"\n");
    let (mut program, address) = Program::serve(directory.path(), &config).await;
    let mut client = connect(address).await;
    client.send_get("/").await;
    origin.received(1).await;

    program.signal("TERM");
    program.stderr.until("draining: 1 connection").await;
    program.signal("TERM");
    let ended = program.ended().await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("1 connection cut off"), "{ended:?}");
    client.ended().await;
}

#[tokio::test]
async fn a_drain_ends_with_its_grace() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::silent().await;
    let config = config(&origin, "[shutdown]\ngrace = \"50ms\"\n");
    let (program, address) = Program::serve(directory.path(), &config).await;
    let mut client = connect(address).await;
    client.send_get("/").await;
    origin.received(1).await;

    program.signal("TERM");
    let ended = program.ended().await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("1 connection cut off"), "{ended:?}");
}

#[tokio::test]
async fn a_hangup_ends_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::echo("a").await;
    let (mut program, address) = Program::serve(directory.path(), &config(&origin, "")).await;
    let mut client = connect(address).await;
    assert_eq!(client.get("/").await.status(), 200);
    program.signal("HUP");
    program.stderr.until("SIGHUP").await;
    assert_eq!(client.get("/").await.status(), 200);
    program.signal("TERM");
    assert_eq!(program.ended().await.status, Some(0));
}

/// A server that has just been there leaves connections behind that still wait for their end.
#[tokio::test]
async fn the_port_is_free_again_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::echo("a").await;
    let mut config = config(&origin, "");
    for _ in 0..2 {
        let (program, address) = Program::serve(directory.path(), &config).await;
        let mut client = connect(address).await;
        assert_eq!(client.get("/").await.status(), 200);
        program.signal("TERM");
        assert_eq!(program.ended().await.status, Some(0));
        config = config.replace("127.0.0.1:0\"", &format!("{address}\""));
    }
}

// === what it logs ===

#[tokio::test]
async fn a_policy_cannot_flood_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::echo("a").await;
    let config = format!(
        "{LISTEN_AND_ROUTE}{}[policy.guest]\nfile = \"{}\"\ndeadline = \"1s\"\n",
        servers(&[origin.address()], "policy = \"guest\""),
        guest("floods-log").display()
    );
    let (program, address) = Program::serve(directory.path(), &config).await;
    let mut client = connect(address).await;
    let start = std::time::Instant::now();
    for _ in 0..20 {
        let flood = "GET / HTTP/1.1\r\nHost: test\r\nX-Misbehave: 1\r\n\r\n";
        assert_eq!(client.ask(flood).await.status(), 200);
    }
    let seconds = start.elapsed().as_secs() as usize + 2;
    program.signal("TERM");
    let ended = program.ended().await;
    let kept = ended.stderr.matches("of the flood").count();
    assert!(
        (1..=5 * seconds).contains(&kept),
        "{kept} lines in {seconds} s"
    );
}

/// The line of the host, and, where the policy panics, the words of the panic: none of them for each request.
#[tokio::test]
async fn a_policy_that_fails_all_the_time_is_a_few_lines_in_the_log() {
    for (name, complaint) in [
        (
            "forwards-nowhere",
            "picked backend 18446744073709551615, which is not among those that are up",
        ),
        ("panics", "policy trapped: panicked at "),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let origin = Origin::echo("a").await;
        let config = format!(
            "{LISTEN_AND_ROUTE}{}[policy.guest]\nfile = \"{}\"\n",
            servers(&[origin.address()], "policy = \"guest\""),
            guest(name).display()
        );
        let (program, address) = Program::serve(directory.path(), &config).await;
        let mut client = connect(address).await;
        let start = std::time::Instant::now();
        for _ in 0..50 {
            let cue = "GET / HTTP/1.1\r\nHost: test\r\nX-Misbehave: 1\r\n\r\n";
            assert_eq!(client.ask(cue).await.status(), 200);
        }
        let seconds = start.elapsed().as_secs() as usize;
        program.signal("TERM");
        let ended = program.ended().await;
        // The host's is one in five seconds and one when the policy is taken out, the policy's own are five a second.
        let lines = ended.stderr.matches(complaint).count();
        assert!((1..=2 + seconds / 5).contains(&lines), "{}", ended.stderr);
        let own = ended.stderr.matches("ERROR panicked at ").count();
        assert!(own <= 5 * (seconds + 2), "{own} lines: {}", ended.stderr);
    }
}

// === the demo ===

#[tokio::test]
async fn the_demo_sends_its_requests_and_prints_a_table() {
    const REQUESTS: u64 = 500;
    let own = guest("first-healthy").to_string_lossy();
    for (policy, named) in [
        (None, "policy round-robin 0.1.0: 500 calls"),
        (Some("least-conn"), "policy least-conn 0.1.0: 500 calls"),
        (Some("rotation"), "policy rotation: the host's own"),
        (Some(&*own), "first-healthy 0.1.0): 500 calls"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut arguments = vec!["demo", "--requests", "500"];
        arguments.extend(policy.iter().flat_map(|policy| ["--policy", policy]));
        let ended = Program::run(&mut waypost(directory.path(), &arguments)).await;
        assert_eq!(
            (ended.status, ended.stderr.as_str()),
            (Some(0), ""),
            "{ended:?}"
        );
        assert!(ended.stdout.contains(named), "{}", ended.stdout);
        let picks = picks(&ended.stdout);
        assert_eq!(picks.len(), 3, "{}", ended.stdout);
        assert_eq!(picks.iter().sum::<u64>(), REQUESTS, "{}", ended.stdout);
        if policy.is_none() {
            let spread = picks.iter().max().zip(picks.iter().min());
            assert!(
                spread.is_some_and(|(most, least)| most - least <= 1),
                "{picks:?}"
            );
        }
    }
}

/// The second column of the table, whose rows have a share in per cent.
fn picks(output: &str) -> Vec<u64> {
    output
        .lines()
        .filter(|line| line.contains(" %"))
        .map(|row| {
            let word = row.split_whitespace().nth(1).expect("a second column");
            word.parse().expect("a number of picks")
        })
        .collect()
}

#[tokio::test]
async fn the_demo_runs_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut program = Program::start(&mut waypost(directory.path(), &["demo", "--idle"]));
    let line = program.stdout.until("Waypost listens on http://").await;
    let address = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|address| address.parse().ok())
        .expect("an address");
    let mut client = connect(address).await;
    for _ in 0..3 {
        assert_eq!(client.get("/any/path").await.status(), 200);
    }
    program.signal("INT");
    let ended = program.ended().await;
    assert_eq!(
        (ended.status, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    assert!(ended.stdout.ends_with("Stopped.\n"), "{}", ended.stdout);
}
