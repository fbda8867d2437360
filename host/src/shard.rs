//! A shard: one thread, one runtime, and everything on it that carries traffic.
//!
//! Shards share nothing but the snapshot and the atomic numbers in it. What is `Rc` here never leaves its thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;

use crate::answer::DateCache;
use crate::connection;
use crate::http1::Buffers;
use crate::policy::slot::Slot;
use crate::snapshot::Snapshot;
use crate::upstream::pool::{self, Pool};

/// Deep enough for the proxy and a policy's own stack below them.
pub(crate) const STACK_BYTES: usize = 2 * 1024 * 1024;

/// One thread's share of the server.
pub(crate) struct Shard {
    pub(crate) pool: Pool,
    pub(crate) buffers: Buffers,
    pub(crate) dates: DateCache,
    view: RefCell<Rc<View>>,
    draining: Cell<bool>,
    /// The connections and tunnels that are open, and whom to wake when the drain begins.
    open: RefCell<HashMap<u64, Option<Waker>>>,
    next_key: Cell<u64>,
    doors: RefCell<HashMap<SocketAddr, Rc<Door>>>,
    /// Woken when the last connection has ended.
    emptied: RefCell<Option<Waker>>,
    stats: Arc<ShardStats>,
}

/// A snapshot with this shard's policies for it. Whoever holds it keeps its generation.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    slots: Vec<Rc<Slot>>,
}

/// A shard's numbers, for those on other threads.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    connections: AtomicU64,
    accepted: AtomicU64,
    /// Of the snapshot that new requests see.
    generation: AtomicU64,
    /// Nanoseconds that the switch to it took, in which nothing else was served.
    pause: AtomicU64,
}

/// What a shard is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Accept connections here as well.
    Open(SocketAddr, StdListener),
    /// Accept nothing more here; the connections that are open stay.
    Close(SocketAddr),
    /// Accept nothing new, let what is under way finish, then end.
    Drain,
    /// End at once.
    Stop,
    /// Panic, to see that nothing else is harmed.
    #[doc(hidden)]
    Crash,
}

/// What a shard is started with.
pub(crate) struct Start {
    pub(crate) listeners: Vec<(SocketAddr, StdListener)>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) stats: Arc<ShardStats>,
    /// Told whenever this shard has switched to another snapshot.
    pub(crate) switched: Arc<Notify>,
}

/// Runs a shard on this thread until it is told to end.
///
/// # Errors
/// Where the runtime cannot be made or a listener not be used.
pub(crate) fn run(start: Start) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(start))
}

async fn serve(mut start: Start) -> io::Result<()> {
    let view = View::new(start.snapshots.borrow_and_update().clone());
    let generation = view.snapshot.generation;
    start.stats.generation.store(generation, Ordering::Release);
    start.switched.notify_one();
    let shard = Rc::new(Shard {
        pool: Pool::default(),
        buffers: Buffers::default(),
        dates: DateCache::default(),
        view: RefCell::new(Rc::new(view)),
        draining: Cell::new(false),
        open: RefCell::default(),
        next_key: Cell::new(0),
        doors: RefCell::default(),
        emptied: RefCell::default(),
        stats: start.stats,
    });
    for (address, listener) in start.listeners {
        shard.open_door(address, listener)?;
    }
    spawn_local(sweep(shard.clone()));
    loop {
        tokio::select! {
            changed = start.snapshots.changed() => match changed {
                Ok(()) => {
                    let begun = Instant::now();
                    let snapshot = start.snapshots.borrow_and_update().clone();
                    let next = View::succeed(snapshot, &shard.view());
                    let pause = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    shard.stats.pause.store(pause, Ordering::Relaxed);
                    shard.stats.generation.store(next.snapshot.generation, Ordering::Release);
                    shard.view.replace(Rc::new(next));
                    start.switched.notify_one();
                }
                // The server is gone, and with it the reason to go on.
                Err(_) => return Ok(()),
            },
            order = start.orders.recv() => match order {
                Some(Order::Drain) => shard.drain(),
                Some(Order::Open(address, listener)) => {
                    if let Err(error) = shard.open_door(address, listener) {
                        tracing::error!(%address, %error, "shard cannot listen");
                    }
                }
                Some(Order::Close(address)) => shard.close_door(address),
                Some(Order::Crash) => crash(),
                Some(Order::Stop) | None => return Ok(()),
            },
            () = shard.drained() => return Ok(()),
        }
    }
}

#[allow(clippy::panic, reason = "what is asked for is a thread that dies")]
fn crash() -> ! {
    panic!("this shard was told to crash")
}

/// Where a shard accepts connections, until it is shut.
#[derive(Default)]
struct Door {
    shut: Cell<bool>,
    keeper: RefCell<Option<Waker>>,
}

impl Door {
    fn shut(&self) {
        self.shut.set(true);
        if let Some(keeper) = self.keeper.take() {
            keeper.wake();
        }
    }
}

async fn accept(shard: Rc<Shard>, door: Rc<Door>, listener: TcpListener) {
    /// Without descriptors or memory there is nothing to do but wait for some to be given back.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        let accepted = poll_fn(|cx| match listener.poll_accept(cx) {
            // What was waiting when the door was shut is still served.
            Poll::Pending if door.shut.get() => Poll::Ready(None),
            Poll::Pending => {
                door.keeper.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
        })
        .await;
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => {
                shard.stats.accepted.fetch_add(1, Ordering::Relaxed);
                let ticket = shard.admit();
                let shard = shard.clone();
                spawn_local(async move {
                    connection::serve(&ticket, shard, stream, peer).await;
                });
            }
            // The client gave up before we came to it.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept connections; trying again in {PAUSE:?}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn sweep(shard: Rc<Shard>) {
    let mut interval = tokio::time::interval(pool::SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        let view = shard.view();
        shard.pool.sweep(|id| {
            view.slots
                .iter()
                .any(|slot| slot.balancer.upstream.backend(id).is_some())
        });
    }
}

impl View {
    fn new(snapshot: Arc<Snapshot>) -> View {
        let slots = snapshot
            .balancers
            .iter()
            .map(|balancer| Rc::new(Slot::new(balancer.clone())))
            .collect();
        View { snapshot, slots }
    }

    /// The view that takes the place of `previous`: policies that stay go on, replaced ones hand over their state.
    fn succeed(snapshot: Arc<Snapshot>, previous: &View) -> View {
        let slots = snapshot
            .balancers
            .iter()
            .map(
                |balancer| match previous.slot_of(&balancer.upstream.settings.name) {
                    Some(slot) if Arc::ptr_eq(&slot.balancer, balancer) => slot.clone(),
                    Some(slot) => Rc::new(slot.successor(balancer.clone())),
                    None => Rc::new(Slot::new(balancer.clone())),
                },
            )
            .collect();
        View { snapshot, slots }
    }

    fn slot_of(&self, upstream: &str) -> Option<&Rc<Slot>> {
        self.slots.get(*self.snapshot.by_name.get(upstream)?)
    }

    /// This shard's policy for the upstream at `index`.
    pub(crate) fn slot(&self, index: usize) -> Option<&Rc<Slot>> {
        self.slots.get(index)
    }
}

impl Shard {
    pub(crate) fn view(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    fn admit(self: &Rc<Self>) -> Ticket {
        let key = self.next_key.get();
        self.next_key.set(key.wrapping_add(1));
        self.open.borrow_mut().insert(key, None);
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        Ticket {
            shard: self.clone(),
            key,
        }
    }

    fn open_door(self: &Rc<Self>, address: SocketAddr, listener: StdListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let door = Rc::new(Door::default());
        let listener = TcpListener::from_std(listener)?;
        spawn_local(accept(self.clone(), door.clone(), listener));
        self.doors.borrow_mut().insert(address, door);
        Ok(())
    }

    fn close_door(&self, address: SocketAddr) {
        if let Some(door) = self.doors.borrow_mut().remove(&address) {
            door.shut();
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        for (_, door) in self.doors.take() {
            door.shut();
        }
        let wakers: Vec<Waker> = self
            .open
            .borrow_mut()
            .values_mut()
            .filter_map(Option::take)
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends once the drain has begun and the last connection is gone.
    async fn drained(&self) {
        poll_fn(|cx| {
            if self.draining.get() && self.open.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.emptied.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// An open connection or tunnel.
pub(crate) struct Ticket {
    shard: Rc<Shard>,
    key: u64,
}

impl Ticket {
    /// Has the task woken when the drain begins.
    pub(crate) fn wake_on_drain(&self, cx: &Context<'_>) {
        if let Some(waker) = self.shard.open.borrow_mut().get_mut(&self.key) {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shard.open.borrow_mut().remove(&self.key);
        self.shard.stats.connections.fetch_sub(1, Ordering::Relaxed);
        if self.shard.draining.get()
            && self.shard.open.borrow().is_empty()
            && let Some(waker) = self.shard.emptied.take()
        {
            waker.wake();
        }
    }
}

impl ShardStats {
    /// Connections and tunnels that are open.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The generation of the snapshot that new requests see.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How long the shard served nothing while it switched to that generation.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_nanos(self.pause.load(Ordering::Relaxed))
    }

    /// Connections accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}
