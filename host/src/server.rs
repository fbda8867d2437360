//! The server: listeners, shards and the tasks that look after them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Config;
use crate::control::{Control, Watch};
use crate::shard::{self, Order, ShardStats};
use crate::snapshot::{BuildError, Ground, Snapshot};
use crate::status::Status;

/// Connections that may wait to be accepted; the system caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A running server. Dropping it stops it at once; [`Server::shutdown`] lets requests under way finish.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    control: Control,
    keeper: tokio::task::JoinHandle<()>,
    supervisor: tokio::task::JoinHandle<()>,
    health: tokio::task::JoinHandle<()>,
    ended: watch::Receiver<usize>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    listeners: Mutex<Vec<Listening>>,
    draining: AtomicBool,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// Told by each shard that has switched to another snapshot.
    switched: Arc<Notify>,
    shards: Vec<ShardHandle>,
    replaced: AtomicU64,
    obituaries: mpsc::UnboundedSender<usize>,
    started: Instant,
}

/// A listener with one socket per shard: the sockets outlive the shards that use them, so that nobody is turned away
/// while one is replaced.
#[derive(Debug)]
struct Listening {
    configured: SocketAddr,
    /// With the real port where 0 is configured.
    bound: SocketAddr,
    sockets: Vec<TcpListener>,
}

#[derive(Debug)]
struct ShardHandle {
    orders: Mutex<mpsc::UnboundedSender<Order>>,
    stats: Mutex<Arc<ShardStats>>,
}

/// Why a server does not start.
#[derive(Debug)]
pub enum StartError {
    /// A policy does not load or a name does not resolve.
    Build(BuildError),
    /// An address cannot be listened on.
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    /// This machine lacks what a server needs.
    System(anyhow::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Build(error) => error.fmt(f),
            StartError::System(error) => write!(f, "{error:#}"),
            StartError::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error}")?;
                listen_remedy(error).map_or(Ok(()), |remedy| write!(f, "\n  = help: {remedy}"))
            }
        }
    }
}

/// What to do where an address cannot be listened on.
pub(crate) fn listen_remedy(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Some("another program listens there; stop it or choose another port")
        }
        io::ErrorKind::PermissionDenied => Some(
            "ports below 1024 need a privilege; choose a higher port, or grant CAP_NET_BIND_SERVICE",
        ),
        io::ErrorKind::AddrNotAvailable => {
            Some("this machine has no such address; 0.0.0.0 means every address it has")
        }
        _ => None,
    }
}

impl std::error::Error for StartError {}

impl Server {
    /// Loads the policies, opens the listeners and starts the shards. Needs a tokio runtime to look after them.
    ///
    /// # Errors
    /// Nothing is left running where it fails; see [`StartError`].
    pub async fn start(config: Config) -> Result<Server, StartError> {
        Server::start_from(None, config).await
    }

    /// As [`Server::start`], for a configuration that can be read again from this file.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_from(file: Option<PathBuf>, config: Config) -> Result<Server, StartError> {
        let listeners = open_all(&config, Vec::new(), config.shards)?;
        let watch = Watch::new(&config);
        let ground = Ground::new().map_err(StartError::System)?;
        let (engine, alarm) = (ground.engine.clone(), ground.alarm.clone());
        let snapshot = Snapshot::build(config.clone(), ground)
            .await
            .map_err(StartError::Build)?;
        let (shared, ends) =
            Shared::run(listeners, snapshot).map_err(|error| StartError::System(error.into()))?;
        let (ended_sender, ended) = watch::channel(0);
        let supervisor = tokio::spawn(supervise(shared.clone(), ends, ended_sender));
        let health = tokio::spawn(look_after_backends(shared.snapshots.subscribe()));
        let control = Control::new(shared.clone(), engine, alarm, file, config);
        let keeper = tokio::spawn(control.clone().keep(watch));
        Ok(Server {
            shared,
            control,
            keeper,
            supervisor,
            health,
            ended,
        })
    }

    /// Does all that [`Server::start`] does but listen and serve.
    ///
    /// # Errors
    /// As [`Server::start`], but for addresses in use.
    pub async fn check(config: Config) -> Result<Status, StartError> {
        let ground = Ground::new().map_err(StartError::System)?;
        let snapshot = Snapshot::build(config, ground)
            .await
            .map_err(StartError::Build)?;
        Ok(Status::of_snapshot(&snapshot))
    }

    /// What can be done to the server while it runs.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The addresses listened on, with the real port where 0 was configured; in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.addresses()
    }

    /// What the server is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.control.status()
    }

    /// Accepts nothing new and waits for what is under way, at most for `grace`. True where everything had ended.
    pub async fn shutdown(&mut self, grace: Duration) -> bool {
        self.shared.draining.store(true, Ordering::Release);
        // Each shard closes its own hold on the sockets once it has served what was waiting there.
        lock(&self.shared.listeners).clear();
        self.shared.order_all(|| Order::Drain);
        let shards = self.shared.shards.len();
        let all_ended = self.ended.wait_for(|ended| *ended >= shards);
        tokio::time::timeout(grace, all_ended)
            .await
            .is_ok_and(|ended| ended.is_ok())
    }

    /// Has one shard's thread panic. For tests of what follows.
    #[doc(hidden)]
    pub fn crash_shard(&self, index: usize) {
        if let Some(shard) = self.shared.shards.get(index) {
            let _ = lock(&shard.orders).send(Order::Crash);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.health.abort();
        self.keeper.abort();
        self.shared.order_all(|| Order::Stop);
    }
}

impl ShardHandle {
    fn new() -> ShardHandle {
        // Replaced as soon as the shard starts.
        let (orders, _) = mpsc::unbounded_channel();
        ShardHandle {
            orders: Mutex::new(orders),
            stats: Mutex::default(),
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn run(
        listeners: Vec<Listening>,
        snapshot: Snapshot,
    ) -> io::Result<(Arc<Shared>, mpsc::UnboundedReceiver<usize>)> {
        let count = snapshot.config.shards;
        let (snapshots, _) = watch::channel(Arc::new(snapshot));
        let (obituaries, ends) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            listeners: Mutex::new(listeners),
            draining: AtomicBool::new(false),
            snapshots,
            switched: Arc::default(),
            shards: (0..count).map(|_| ShardHandle::new()).collect(),
            replaced: AtomicU64::new(0),
            obituaries,
            started: Instant::now(),
        });
        for index in 0..count {
            shared.spawn_shard(index)?;
        }
        Ok((shared, ends))
    }

    /// What is in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    pub(crate) fn status(&self) -> Status {
        let mut status = Status::of_snapshot(&self.snapshots.borrow());
        status.listeners = self.addresses();
        status.uptime = self.started.elapsed();
        status.shards = self.shards.len();
        status.shards_replaced = self.replaced.load(Ordering::Relaxed);
        for shard in &self.shards {
            let stats = lock(&shard.stats);
            status.connections += stats.connections();
            status.accepted += stats.accepted();
        }
        status
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.listeners)
            .iter()
            .map(|listening| listening.bound)
            .collect()
    }

    /// Puts a snapshot into force: opens the listeners that are new, has every shard switch, shuts those that are gone.
    ///
    /// # Errors
    /// Where a new address cannot be listened on; then nothing has changed.
    pub(crate) async fn publish(&self, snapshot: Snapshot) -> Result<(), StartError> {
        let generation = snapshot.generation;
        let open = lock(&self.listeners)
            .iter()
            .map(|listening| listening.configured)
            .collect();
        let mut opened = open_all(&snapshot.config, open, self.shards.len())?;
        let wanted: Vec<SocketAddr> = snapshot
            .config
            .listeners
            .iter()
            .map(|listener| listener.address)
            .collect();
        self.snapshots.send_replace(Arc::new(snapshot));
        self.wait_for(generation).await;
        if self.draining.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut listeners = lock(&self.listeners);
        let mut old = std::mem::take(&mut *listeners);
        for address in wanted {
            if let Some(at) = old
                .iter()
                .position(|listening| listening.configured == address)
            {
                listeners.push(old.remove(at));
            } else if let Some(at) = opened
                .iter()
                .position(|listening| listening.configured == address)
            {
                let listening = opened.remove(at);
                self.hand_out(&listening);
                listeners.push(listening);
            }
        }
        for gone in old {
            self.order_all(|| Order::Close(gone.bound));
        }
        Ok(())
    }

    fn hand_out(&self, listening: &Listening) {
        for (shard, socket) in self.shards.iter().zip(&listening.sockets) {
            match socket.try_clone() {
                Ok(socket) => {
                    let _ = lock(&shard.orders).send(Order::Open(listening.bound, socket));
                }
                Err(error) => {
                    tracing::error!(address = %listening.bound, %error, "shard cannot listen")
                }
            }
        }
    }

    /// Waits until every shard serves new requests by this generation, or for a shard's death and new start.
    async fn wait_for(&self, generation: u64) {
        /// A shard that takes longer is stuck in a way that is not for a reload to mend.
        const PATIENCE: Duration = Duration::from_secs(5);
        let reached = async {
            while self
                .shards
                .iter()
                .any(|shard| lock(&shard.stats).generation() < generation)
            {
                self.switched.notified().await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            tracing::warn!(
                "not every shard has switched to the new configuration within {PATIENCE:?}"
            );
        }
    }

    /// The longest that a shard served nothing while it switched to the snapshot in force.
    pub(crate) fn longest_pause(&self) -> Duration {
        let pauses = self.shards.iter().map(|shard| lock(&shard.stats).pause());
        pauses.max().unwrap_or_default()
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for shard in &self.shards {
            // A shard that has ended needs no orders.
            let _ = lock(&shard.orders).send(order());
        }
    }

    /// Starts the shard at `index`, or its successor.
    fn spawn_shard(&self, index: usize) -> io::Result<()> {
        let listeners = lock(&self.listeners)
            .iter()
            .filter_map(|listening| Some((listening.bound, listening.sockets.get(index)?)))
            .map(|(bound, socket)| Ok((bound, socket.try_clone()?)))
            .collect::<io::Result<Vec<_>>>()?;
        let (orders, received) = mpsc::unbounded_channel();
        let stats = Arc::new(ShardStats::default());
        let start = shard::Start {
            listeners,
            snapshots: self.snapshots.subscribe(),
            orders: received,
            stats: stats.clone(),
            switched: self.switched.clone(),
        };
        let obituary = Obituary {
            index,
            sender: self.obituaries.clone(),
        };
        // Before it runs: who waits for it to switch must find its numbers, and not those of its predecessor.
        if let Some(handle) = self.shards.get(index) {
            *lock(&handle.orders) = orders;
            *lock(&handle.stats) = stats;
        }
        thread::Builder::new()
            .name(format!("waypost-shard-{index}"))
            .stack_size(shard::STACK_BYTES)
            .spawn(move || {
                let _obituary = obituary;
                if let Err(error) = shard::run(start) {
                    tracing::error!(shard = index, %error, "shard could not run");
                }
            })?;
        // The order may have gone to the predecessor; as the sockets are taken away before, one of the two comes.
        if self.draining.load(Ordering::Acquire)
            && let Some(handle) = self.shards.get(index)
        {
            let _ = lock(&handle.orders).send(Order::Drain);
        }
        Ok(())
    }
}

/// Reports the end of a shard's thread, however it ended.
struct Obituary {
    index: usize,
    sender: mpsc::UnboundedSender<usize>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(
                shard = self.index,
                "shard died; its connections are lost, and it is replaced"
            );
            let _ = self.sender.send(self.index);
        } else {
            let _ = self.sender.send(usize::MAX);
        }
    }
}

/// Replaces shards that died and counts those that ended as they were told.
async fn supervise(
    shared: Arc<Shared>,
    mut ends: mpsc::UnboundedReceiver<usize>,
    ended: watch::Sender<usize>,
) {
    while let Some(index) = ends.recv().await {
        if index == usize::MAX {
            ended.send_modify(|ended| *ended += 1);
            continue;
        }
        shared.replaced.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = shared.spawn_shard(index) {
            tracing::error!(shard = index, %error, "shard cannot be replaced");
        }
    }
}

/// Lets backends back in when their time out is over.
async fn look_after_backends(mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    /// Short beside any sensible `fail_timeout`.
    const INTERVAL: Duration = Duration::from_millis(100);
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let snapshot = snapshots.borrow_and_update().clone();
        for balancer in &snapshot.balancers {
            balancer.upstream.recover(Instant::now());
        }
    }
}

// === listening ===

/// Opens the listeners of a configuration that are not open yet.
fn open_all(
    config: &Config,
    open: Vec<SocketAddr>,
    shards: usize,
) -> Result<Vec<Listening>, StartError> {
    let mut ours = open.clone();
    let mut unclaimed = open;
    let mut opened = Vec::new();
    for listener in &config.listeners {
        let address = listener.address;
        if let Some(at) = unclaimed.iter().position(|open| *open == address) {
            unclaimed.remove(at);
            continue;
        }
        let listening = Listening::open(address, shards, &ours);
        opened.push(listening.map_err(|error| StartError::Listen { address, error })?);
        ours.push(address);
    }
    Ok(opened)
}

impl Listening {
    /// One socket per shard on the same address: the system spreads connections over them, and no shard waits for
    /// another to accept. `ours` are the addresses that this process listens on.
    fn open(configured: SocketAddr, shards: usize, ours: &[SocketAddr]) -> io::Result<Listening> {
        let mut bound = configured;
        // Sockets that share a port also share it with a second server: see that there is none before sharing it. Our
        // own on `127.0.0.1` is none to one on `0.0.0.0`, whichever comes first.
        if !ours.iter().any(|ours| overlap(*ours, configured)) {
            let probe = socket(configured, false)?;
            if let (Some(address), 0) = (probe.local_addr()?.as_socket(), configured.port()) {
                bound = address;
            }
        }
        let sockets = (0..shards)
            .map(|_| socket(bound, true).map(TcpListener::from))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Listening {
            configured,
            bound,
            sockets,
        })
    }
}

/// Whether one of two addresses is every address of the machine and the other one of them, with the same port.
fn overlap(one: SocketAddr, two: SocketAddr) -> bool {
    one.port() == two.port()
        && one.port() != 0
        && one.is_ipv4() == two.is_ipv4()
        && one.ip().is_unspecified() != two.ip().is_unspecified()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Otherwise `[::]` would take IPv4 as well, or not, as the system is configured.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
