//! Real applications behind the proxy: Express, Node's `cluster`, `ws`. They are in `../node`; without Node.js or without
//! `npm ci` there, each of these tests says that it is skipped.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use waypost_tests::{Client, Proxy, Response, Wire, servers, until, within};

use crate::process::{Program, connect, signal};

fn node_dir() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "node"].iter().collect()
}

/// Whether the applications can run here. If not, says so where it is seen: what a test prints is not.
fn ready() -> bool {
    const MAJOR_MIN: u32 = 18;
    let version = Command::new("node").arg("--version").output();
    let major: Option<u32> = version.ok().and_then(|output| {
        let version = String::from_utf8(output.stdout).ok()?;
        version.strip_prefix('v')?.split('.').next()?.parse().ok()
    });
    let missing = match major {
        None => "node is missing (Node.js 18 or newer, https://nodejs.org)",
        Some(major) if major < MAJOR_MIN => "node is older than 18",
        Some(_) if !node_dir().join("node_modules/ws").is_dir() => "run npm ci in tests/node",
        Some(_) => return true,
    };
    let test = std::thread::current();
    let name = test.name().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "{name}: skipped: {missing}");
    false
}

/// A program of `../node` and where it listens.
struct App {
    program: Program,
    facts: Value,
}

fn node(file: &str, settings: &Value) -> Command {
    let mut command = Command::new("node");
    command
        .arg(file)
        .arg(settings.to_string())
        .current_dir(node_dir());
    command
}

async fn facts(program: &mut Program) -> Value {
    let line = program.stdout.until("{").await;
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

impl App {
    async fn start(file: &str, settings: Value) -> App {
        let mut program = Program::start(&mut node(file, &settings));
        let facts = facts(&mut program).await;
        App { program, facts }
    }

    fn address(&self) -> SocketAddr {
        let port = self.facts["port"].as_u64().expect("a port");
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")))
    }
}

/// The body as JSON.
fn body(response: &Response) -> Value {
    serde_json::from_str(response.text()).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

fn app_of(response: &Response) -> String {
    body(response)["app"].as_str().expect("a name").to_owned()
}

#[tokio::test]
async fn two_express_applications_alternate_exactly() {
    if !ready() {
        return;
    }
    let a = App::start("app.js", json!({ "name": "a" })).await;
    let b = App::start("app.js", json!({ "name": "b" })).await;
    let addresses = [a.address(), b.address()];
    let config = servers(&addresses, "policy = \"round-robin\"");
    let proxy = Proxy::start(&(String::from("shards = 2\n") + &config)).await;

    // Over one connection and over many, on both shards.
    let mut kept = Client::connect(&proxy).await;
    let mut picked = String::new();
    for turn in 0..40 {
        let mut fresh = Client::connect(&proxy).await;
        let client = if turn % 3 == 0 { &mut fresh } else { &mut kept };
        picked += &app_of(&client.get("/").await);
    }
    assert_eq!(picked, "ab".repeat(20));

    // A route that only one of them has.
    let mut direct = connect(b.address()).await;
    let own = direct.get("/only-a").await;
    for _ in 0..2 {
        assert_eq!(app_of(&kept.get("/only-a").await), "a");
        let passed_on = kept.get("/only-a").await;
        assert_eq!((passed_on.status(), own.status()), (404, 404));
        assert_eq!(passed_on.text(), own.text());
        for name in own.head.names() {
            let hop_by_hop = ["connection", "keep-alive", "date"].contains(&name.as_str());
            if !hop_by_hop {
                assert_eq!(passed_on.head.all(&name), own.head.all(&name), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_slow_instance_gets_fewer_requests() {
    const CLIENTS: usize = 9;
    const REQUESTS: usize = 40;
    if !ready() {
        return;
    }
    let mut apps = Vec::new();
    for (name, delay_ms) in [("fast", 5), ("fast-too", 5), ("slow", 60)] {
        let settings = json!({ "name": name, "delayMs": delay_ms });
        apps.push(App::start("app.js", settings).await);
    }
    let addresses: Vec<SocketAddr> = apps.iter().map(App::address).collect();
    let proxy = Proxy::start(&servers(&addresses, "policy = \"least-conn\"")).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(&proxy).await;
        clients.push(tokio::spawn(async move {
            for _ in 0..REQUESTS {
                assert_eq!(client.get("/").await.status(), 200);
            }
        }));
    }
    for client in clients {
        client.await.expect("a client without complaints");
    }
    let picks = [0, 1, 2].map(|index| proxy.backend(index).picks);
    let [fast, fast_too, slow] = picks;
    assert_eq!(fast + fast_too + slow, (CLIENTS * REQUESTS) as u64);
    assert!(slow > 0 && 2 * slow < fast.min(fast_too), "{picks:?}");
}

/// How many responses had each status, for each client of a cluster whose workers die one after the other.
async fn statuses_while_workers_die(
    scheduling: &str,
    readers: usize,
    writers: usize,
    requests: usize,
    kills: usize,
) -> Vec<BTreeMap<u16, usize>> {
    let mut app = App::start("cluster.js", json!({ "scheduling": scheduling })).await;
    let config = servers(&[app.address()], "response_timeout = \"1s\"");
    let proxy = Proxy::start(&config).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for index in 0..readers + writers {
        let mut client = Client::connect(&proxy).await;
        let answered = answered.clone();
        clients.push(tokio::spawn(async move {
            let mut statuses = BTreeMap::new();
            for _ in 0..requests {
                let response = if index < readers {
                    client.get("/").await
                } else {
                    client.post("/", b"once only").await
                };
                *statuses.entry(response.status()).or_insert(0) += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            statuses
        }));
    }
    let mut probe = Client::connect(&proxy).await;
    for kill in 1..=kills {
        let due = kill * requests * (readers + writers) / (kills + 2);
        let is_due = || answered.load(Ordering::Relaxed) >= due;
        until("requests under way", is_due).await;
        let pid = body(&probe.get("/").await)["pid"].as_u64();
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        signal(pid.expect("a process"), "KILL");
        // Were the next to die before that, nobody would be left, and the port closed.
        let replaced = facts(&mut app.program).await;
        assert_eq!(replaced, json!({ "replaced": kill }));
    }
    let mut statuses = Vec::new();
    for client in clients {
        statuses.push(
            within("a client", client)
                .await
                .expect("a client without complaints"),
        );
    }
    statuses
}

#[tokio::test]
async fn workers_of_a_cluster_die_and_no_client_notices() {
    const READERS: usize = 6;
    const WRITERS: usize = 2;
    const REQUESTS: usize = 300;
    const KILLS: usize = 3;
    if !ready() {
        return;
    }
    for scheduling in ["none", "primary"] {
        let all = statuses_while_workers_die(scheduling, READERS, WRITERS, REQUESTS, KILLS).await;
        let total = |clients: &[BTreeMap<u16, usize>], status: u16| -> usize {
            clients
                .iter()
                .filter_map(|statuses| statuses.get(&status))
                .sum()
        };
        let (readers, writers) = all.split_at(READERS);
        // The primary may hand a connection to a worker that has just died, and then it is never heard of again.
        let lost = total(readers, 504) + total(writers, 504);
        assert!(
            lost <= if scheduling == "none" { 0 } else { KILLS },
            "{all:?}"
        );
        // What can be done again is.
        let done = total(readers, 200) + total(readers, 504);
        assert_eq!(done, READERS * REQUESTS, "{scheduling}: {all:?}");
        // What cannot, and was on its way to the worker, is not: a few requests of a client, while the system closes one
        // connection of the dead after the other.
        let cut_off = total(writers, 502);
        assert!(cut_off <= WRITERS * REQUESTS / 20, "{scheduling}: {all:?}");
        let done = total(writers, 200) + total(writers, 504) + cut_off;
        assert_eq!(done, WRITERS * REQUESTS, "{scheduling}: {all:?}");
    }
}

#[tokio::test]
async fn web_sockets_echo_a_thousand_messages() {
    const MESSAGES: u64 = 1000;
    if !ready() {
        return;
    }
    let app = App::start("echo.js", json!({})).await;
    let proxy = Proxy::start(&servers(&[app.address()], "")).await;
    let url = format!("ws://{}/echo?of=messages", proxy.address());
    let settings = json!({ "url": url, "messages": MESSAGES });
    let mut client = Program::start(&mut node("echo-client.js", &settings));
    let seen = facts(&mut client).await;
    assert_eq!(seen["received"], json!(MESSAGES), "{seen}");
    assert_eq!(seen["wrong"], json!(0));
    assert_eq!(seen["code"], json!(1000));

    // How the request arrived: as with nginx's `proxy_set_header Upgrade $http_upgrade`.
    let request = &seen["request"];
    assert_eq!(request["version"], json!("1.1"));
    assert_eq!(request["url"], json!("/echo?of=messages"));
    let headers = &request["headers"];
    assert_eq!(headers["upgrade"], json!("websocket"));
    assert_eq!(headers["connection"], json!("upgrade"));
    assert_eq!(headers["host"], json!(proxy.address().to_string()));
    assert_eq!(headers["x-real-ip"], json!("127.0.0.1"));
    assert_eq!(headers["x-forwarded-for"], json!("127.0.0.1"));
    assert_eq!(headers["sec-websocket-version"], json!("13"));
}

/// A client whose address is told apart from that of the proxy.
async fn connect_from(address: [u8; 4], proxy: &Proxy) -> Client {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from((address, 0)))
        .expect("an address of this machine");
    let stream = within("a connection", socket.connect(proxy.address())).await;
    Client {
        wire: Wire::new(stream.expect("a listener")),
    }
}

#[tokio::test]
async fn requests_arrive_as_nginx_would_send_them() {
    const REQUEST: &str = "GET /request HTTP/1.1\r\nHost: example.com:8080\r\nConnection: keep-alive, x-hop\r\n\
                           X-Hop: 1\r\nX-Real-IP: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.9\r\n\
                           X-Forwarded-Proto: https\r\nAccept: */*\r\n\r\n";
    if !ready() {
        return;
    }
    let app = App::start("app.js", json!({ "name": "a" })).await;
    let stranger = servers(&[app.address()], "");
    let friend = stranger.clone() + "[forwarded]\ntrusted = [\"127.0.0.2\"]\n";

    // Whoever is not trusted says nothing about addresses.
    let proxy = Proxy::start(&stranger).await;
    let mut client = connect_from([127, 0, 0, 2], &proxy).await;
    let seen = body(&client.ask(REQUEST).await);
    let headers = &seen["headers"];
    assert_eq!(seen["version"], json!("1.1"));
    assert_eq!(headers["host"], json!("example.com:8080"));
    assert_eq!(headers["x-real-ip"], json!("127.0.0.2"));
    assert_eq!(headers["x-forwarded-for"], json!("127.0.0.2"));
    assert_eq!(headers["x-forwarded-proto"], json!("http"));
    assert_eq!(headers["accept"], json!("*/*"));
    assert_eq!([&headers["x-hop"], &headers["upgrade"]], [&Value::Null; 2]);
    // What Express makes of it.
    assert_eq!(seen["ip"], json!("127.0.0.2"));
    assert_eq!(seen["protocol"], json!("http"));
    assert_eq!(seen["hostname"], json!("example.com"));

    // A trusted proxy in front of us is believed and added to: `$proxy_add_x_forwarded_for`.
    let proxy = Proxy::start(&friend).await;
    let mut client = connect_from([127, 0, 0, 2], &proxy).await;
    let seen = body(&client.ask(REQUEST).await);
    let headers = &seen["headers"];
    assert_eq!(headers["x-real-ip"], json!("203.0.113.9"));
    assert_eq!(headers["x-forwarded-for"], json!("203.0.113.9, 127.0.0.2"));
    assert_eq!(headers["x-forwarded-proto"], json!("https"));
    assert_eq!(seen["ip"], json!("203.0.113.9"));
    assert_eq!(seen["protocol"], json!("https"));
}
