//! A thousand swaps under load, with figures:
//!
//! ```sh
//! cargo test --release -p waypost-tests --test suites soak::a_thousand -- --ignored --nocapture
//! ```
//!
//! And what a policy that never comes back, asked 200 times a second, costs the users of another route:
//!
//! ```sh
//! cargo test --release -p waypost-tests --test suites soak::a_looping -- --ignored --nocapture
//! ```
//!
//! `WAYPOST_SOAK_SWAPS` and `WAYPOST_SOAK_REQUESTS` make it longer or shorter, `WAYPOST_SOAK_PAUSE_MS` has each client wait
//! between two requests. All traffic stays on this machine, and clients and backends share its processors with the proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use waypost_tests::{Client, PATIENCE, Proxy, servers, within};

use crate::guests::{built_in, guest, remade};

const CLIENTS: usize = 16;
const BACKENDS: usize = 3;
const REQUEST: &[u8] = b"GET /soak HTTP/1.1\r\nHost: test\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// When everything has grown to its size.
const EARLY: usize = 100;
/// What the memory after swap 100 and that after the last may differ by.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

struct Plan {
    swaps: usize,
    /// In the phase with swaps; as many again without.
    requests: u64,
    pause: Duration,
    /// Nothing else runs in this process.
    alone: bool,
}

// === load ===

/// Which phase a request belongs to.
const WARM_UP: usize = 0;
const CALM: usize = 1;
const SWAPPING: usize = 2;

/// What the clients and whoever watches them share.
#[derive(Default)]
struct Board {
    phase: AtomicUsize,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// What one client has seen: answers by phase, as a histogram that takes no more memory the longer it is used.
struct Tally {
    times: [Vec<u32>; 3],
    errors: Vec<String>,
}

impl Tally {
    const STEP_US: usize = 5;
    const STEPS: usize = 40_000;

    fn new() -> Tally {
        Tally {
            times: std::array::from_fn(|_| vec![0; Tally::STEPS]),
            errors: Vec::new(),
        }
    }

    fn note(&mut self, phase: usize, took: Duration) {
        let step = usize::try_from(took.as_micros()).unwrap_or(usize::MAX) / Tally::STEP_US;
        self.times[phase][step.min(Tally::STEPS - 1)] += 1;
    }

    fn merge(&mut self, other: Tally) {
        for (mine, theirs) in self.times.iter_mut().zip(other.times) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
        self.errors.extend(other.errors);
    }

    fn count(&self, phase: usize) -> u64 {
        self.times[phase]
            .iter()
            .map(|count| u64::from(*count))
            .sum()
    }

    /// In microseconds.
    fn quantile(&self, phase: usize, share: f64) -> usize {
        let wanted = (self.count(phase) as f64 * share) as u64;
        let mut seen = 0;
        let step = self.times[phase].iter().position(|count| {
            seen += u64::from(*count);
            seen > wanted
        });
        step.unwrap_or(0) * Tally::STEP_US
    }
}

/// Backends, on a thread of their own for as long as the process runs.
fn backends() -> Vec<SocketAddr> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        single_threaded(async move {
            let mut all = JoinSet::new();
            for _ in 0..BACKENDS {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("a bound socket");
                sender.send(address).expect("somebody waits");
                all.spawn(async move {
                    loop {
                        let (stream, _) = listener.accept().await.expect("a connection");
                        tokio::spawn(answer(stream));
                    }
                });
            }
            all.join_all().await;
        });
    });
    receiver.into_iter().take(BACKENDS).collect()
}

fn single_threaded(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future);
}

/// Connections to backends that are open.
static POOLED: AtomicUsize = AtomicUsize::new(0);

async fn answer(mut stream: TcpStream) {
    POOLED.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    let mut length = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[length..]).await {
        length += read;
        if buffer[..length].ends_with(b"\r\n\r\n") {
            length = 0;
            if stream.write_all(RESPONSE).await.is_err() {
                break;
            }
        }
    }
    POOLED.fetch_sub(1, Ordering::Relaxed);
}

/// Clients that ask one request after the other, each on one connection, until they are to stop.
fn clients(address: SocketAddr, board: &Arc<Board>, pause: Duration) -> JoinHandle<Tally> {
    let board = board.clone();
    std::thread::spawn(move || {
        let mut total = Tally::new();
        single_threaded(async {
            let mut all = JoinSet::new();
            for _ in 0..CLIENTS {
                all.spawn(client(address, board.clone(), pause));
            }
            while let Some(tally) = all.join_next().await {
                total.merge(tally.expect("a client"));
            }
        });
        total
    })
}

async fn client(address: SocketAddr, board: Arc<Board>, pause: Duration) -> Tally {
    let mut tally = Tally::new();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an open socket");
    while !board.stop.load(Ordering::Relaxed) {
        let phase = board.phase.load(Ordering::Relaxed);
        let start = Instant::now();
        let asked = tokio::time::timeout(PATIENCE, ask(&mut stream)).await;
        if let Err(error) = asked.unwrap_or_else(|_| Err("no answer".to_owned())) {
            tally.errors.push(error);
            return tally;
        }
        tally.note(phase, start.elapsed());
        board.answered.fetch_add(1, Ordering::Relaxed);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    tally
}

async fn ask(stream: &mut TcpStream) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    stream.write_all(REQUEST).await.map_err(failed)?;
    let mut buffer = [0; 4096];
    let mut length = 0;
    while !buffer[..length].ends_with(b"\r\n\r\nok") {
        match stream.read(&mut buffer[length..]).await.map_err(failed)? {
            0 => return Err("the connection was closed".to_owned()),
            read => length += read,
        }
    }
    match buffer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&buffer[..length]).into_owned()),
    }
}

impl Board {
    async fn answers(&self, more: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        self.reaches(goal).await;
    }

    async fn reaches(&self, goal: u64) {
        let mut last = (0, Instant::now());
        loop {
            let now = self.answered.load(Ordering::Relaxed);
            if now >= goal {
                return;
            }
            if now != last.0 {
                last = (now, Instant::now());
            }
            assert!(last.1.elapsed() < PATIENCE, "nothing is answered any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

// === what the process uses ===

#[derive(Clone, Copy, Debug)]
struct Usage {
    memory_kib: u64,
    threads: u64,
    /// Without connections to backends, of which there are as many as were once needed at the same time.
    descriptors: usize,
}

impl Usage {
    fn now() -> Usage {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Usage {
            memory_kib: number("VmRSS:"),
            threads: number("Threads:"),
            // Both ends of a connection are in this process.
            descriptors: std::fs::read_dir("/proc/self/fd")
                .map_or(0, Iterator::count)
                .saturating_sub(2 * POOLED.load(Ordering::Relaxed)),
        }
    }
}

/// In milliseconds.
fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = (times.len() as f64 * share) as usize;
    times
        .get(at)
        .or(times.last())
        .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

// === the soak ===

async fn soak(plan: Plan) {
    let module = std::fs::read(built_in("round-robin")).expect("the built-in policy");
    let policy = format!(
        "policy = \"guest\"\n[policy.guest]\nfile = \"{}\"",
        built_in("round-robin").display()
    );
    let cache = tempfile::tempdir().expect("a directory");
    let settings = format!("shards = 2\ncache = \"{}\"\n", cache.path().display());
    let proxy = Proxy::start(&(settings + &servers(&backends(), &policy))).await;
    let board = Arc::new(Board::default());
    board.phase.store(WARM_UP, Ordering::Relaxed);
    let running = clients(proxy.address(), &board, plan.pause);
    board.answers(plan.requests / 10).await;
    board.phase.store(CALM, Ordering::Relaxed);
    let calm = Instant::now();
    board.answers(plan.requests / 2).await;
    let calm = calm.elapsed();

    board.phase.store(SWAPPING, Ordering::Relaxed);
    let (start, before) = (Instant::now(), board.answered.load(Ordering::Relaxed));
    let known = [0, 1].map(|mark| remade(&module, mark));
    let (mut fresh_times, mut known_times, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut early, mut late) = (Usage::now(), Usage::now());
    for swap in 1..=plan.swaps {
        // Spread over the requests, as far as that is possible.
        let due = plan.requests * swap as u64 / plan.swaps as u64;
        board.reaches(before + due).await;
        let is_fresh = swap % 2 == 0;
        let code = match is_fresh {
            true => remade(&module, u32::try_from(swap).expect("a small number") + 2),
            false => known[swap / 2 % 2].clone(),
        };
        let pushed = Instant::now();
        let report = within("a push", proxy.control().push("guest", code)).await;
        let took = pushed.elapsed();
        let swap_status = proxy.status().upstreams[0].policy.last_swap.clone();
        pauses.push(swap_status.expect("a swap").pause);
        assert_eq!(report.expect("a swap").changes.len(), 1);
        match is_fresh {
            true => fresh_times.push(took),
            false => known_times.push(took),
        }
        if swap == EARLY.min(plan.swaps / 2) {
            early = Usage::now();
        }
        late = Usage::now();
    }
    let swapping = start.elapsed();
    board.phase.store(CALM, Ordering::Relaxed);
    board.answers(plan.requests / 2).await;
    let status = proxy.status();
    board.stop.store(true, Ordering::Relaxed);
    let tally = running.join().expect("the clients");

    println!(
        "{} swaps, {CLIENTS} connections, {BACKENDS} backends, 2 shards",
        plan.swaps
    );
    println!("                        without       with swaps");
    let rate = |phase: usize, time: Duration| tally.count(phase) as f64 / time.as_secs_f64();
    println!(
        "requests          {:>13} {:>16}",
        tally.count(CALM),
        tally.count(SWAPPING)
    );
    println!(
        "requests a second {:>13} {:>16.0}",
        "",
        rate(SWAPPING, swapping)
    );
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let [calm, swaps] = [CALM, SWAPPING].map(|phase| tally.quantile(phase, share));
        let ratio = swaps as f64 / calm.max(1) as f64;
        println!("latency {name:<6} us {calm:>13} {swaps:>16}   x {ratio:.2}");
    }
    println!("                            p50              p99");
    for (name, times) in [("fresh", &mut fresh_times), ("known", &mut known_times)] {
        let [half, most] = [0.5, 0.99].map(|share| quantile(times, share));
        println!("upload {name}, ms   {half:>13.1} {most:>16.1}");
    }
    let [half, most] = [0.5, 0.99].map(|share| quantile(&mut pauses, share));
    println!("pause of a shard, ms{half:>12.3} {most:>16.3}");
    let early_on = format!("after {}", EARLY.min(plan.swaps / 2));
    println!(
        "                  {early_on:>13} {:>16}",
        format!("after {}", plan.swaps)
    );
    println!(
        "memory, KiB       {:>13} {:>16}",
        early.memory_kib, late.memory_kib
    );
    println!(
        "threads           {:>13} {:>16}",
        early.threads, late.threads
    );
    println!(
        "descriptors       {:>13} {:>16}",
        early.descriptors, late.descriptors
    );
    println!(
        "before the swaps: {:.0} requests a second",
        plan.requests as f64 / 2.0 / calm.as_secs_f64()
    );

    assert_eq!(tally.errors, [""; 0]);
    assert!(tally.count(SWAPPING) >= plan.requests);
    assert_eq!(
        (status.accepted, status.connections),
        (CLIENTS as u64, CLIENTS as u64)
    );
    // One for the start and one for each swap.
    assert_eq!(status.generation, plan.swaps as u64 + 1);
    let upstream = &proxy.status().upstreams[0];
    let picks: Vec<u64> = upstream
        .backends
        .iter()
        .map(|backend| backend.picks)
        .collect();
    let answered = board.answered.load(Ordering::Relaxed);
    println!("answered {answered}, picks {picks:?}");
    assert_eq!(picks.iter().sum::<u64>(), answered);
    let spread = picks.iter().max().unwrap() - picks.iter().min().unwrap();
    assert!(spread <= 1, "{picks:?}");
    assert_eq!(
        upstream
            .backends
            .iter()
            .map(|backend| backend.failures)
            .sum::<u64>(),
        0
    );
    if plan.alone {
        let growth = late.memory_kib.saturating_sub(early.memory_kib);
        assert!(growth <= GROWTH_KIB_MAX, "{growth} KiB more");
        assert_eq!(
            (late.threads, late.descriptors),
            (early.threads, early.descriptors)
        );
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

#[tokio::test]
async fn a_few_swaps() {
    soak(Plan {
        swaps: 20,
        requests: 5_000,
        pause: Duration::ZERO,
        alone: false,
    })
    .await;
}

#[tokio::test]
#[ignore = "takes minutes and the whole machine; see above"]
async fn a_thousand_swaps() {
    soak(Plan {
        swaps: usize::try_from(number("WAYPOST_SOAK_SWAPS", 1_000)).expect("a number"),
        requests: number("WAYPOST_SOAK_REQUESTS", 1_000_000),
        pause: Duration::from_millis(number("WAYPOST_SOAK_PAUSE_MS", 0)),
        alone: true,
    })
    .await;
}

// === a policy that never comes back ===

/// So many requests of it, at a steady rate.
const LOOPS: u32 = 2_000;
const LOOP_EVERY: Duration = Duration::from_millis(5);

#[tokio::test]
#[ignore = "takes half a minute and the whole machine; see above"]
async fn a_looping_policy_and_another_route() {
    let config = format!(
        "shards = 2\n{}[policy.loops]\nfile = \"{}\"\n{}\
         [[route]]\nupstream = \"app\"\n[[route]]\npath = \"/loops\"\nupstream = \"loops\"\n",
        servers(&backends(), "policy = \"round-robin\""),
        guest("loops").display(),
        servers(&backends(), "policy = \"loops\"").replace("upstream.app", "upstream.loops"),
    );
    let proxy = Proxy::start(&config).await;
    let board = Arc::new(Board::default());
    let running = clients(proxy.address(), &board, Duration::from_millis(4));
    board.answers(5_000).await;
    board.phase.store(CALM, Ordering::Relaxed);
    tokio::time::sleep(LOOP_EVERY * LOOPS).await;

    board.phase.store(SWAPPING, Ordering::Relaxed);
    let mut loops = JoinSet::new();
    let mut due = tokio::time::interval(LOOP_EVERY);
    for _ in 0..LOOPS {
        due.tick().await;
        let address = proxy.address();
        loops.spawn(async move {
            let mut client = Client::try_connect_to(address).await.expect("a connection");
            let ask = "GET /loops HTTP/1.1\r\nHost: test\r\nX-Misbehave: yes\r\n\r\n";
            client.ask(ask).await.status()
        });
    }
    let answers = loops.join_all().await;
    board.stop.store(true, Ordering::Relaxed);
    let tally = running.join().expect("the clients");

    let policy = &proxy.status().upstreams[1].policy;
    println!(
        "{LOOPS} requests, one each {LOOP_EVERY:?}; {:?}",
        policy.quarantine
    );
    println!("the other route         without       with loops");
    println!(
        "requests          {:>13} {:>16}",
        tally.count(CALM),
        tally.count(SWAPPING)
    );
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let [calm, loops] = [CALM, SWAPPING].map(|phase| tally.quantile(phase, share));
        let ratio = loops as f64 / calm.max(1) as f64;
        println!("latency {name:<6} us {calm:>13} {loops:>16}   x {ratio:.2}");
    }
    assert_eq!(tally.errors, [""; 0]);
    assert!(answers.iter().all(|status| *status == 200));
    assert!(policy.quarantine.is_some());
}
