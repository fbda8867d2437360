//! A shard: one thread, one runtime, and everything on it that carries traffic.
//!
//! Shards share nothing but the snapshot and the atomic numbers in it. What is `Rc` here never leaves its thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::connection;
use crate::policy::slot::Slot;
use crate::snapshot::Snapshot;
use crate::upstream::pool::{self, Pool};

/// Deep enough for hyper, the proxy and a policy's own stack below them.
pub(crate) const STACK_BYTES: usize = 2 * 1024 * 1024;

/// One thread's share of the server.
pub(crate) struct Shard {
    pub(crate) pool: Pool,
    view: RefCell<Rc<View>>,
    draining: Cell<bool>,
    /// The connections and tunnels that are open, and whom to wake when the drain begins.
    open: RefCell<HashMap<u64, Option<Waker>>>,
    next_key: Cell<u64>,
    /// Other tasks to wake when the drain begins.
    others: RefCell<Vec<Waker>>,
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
}

/// What a shard is told to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
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
    pub(crate) listeners: Vec<StdListener>,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) stats: Arc<ShardStats>,
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
    let shard = Rc::new(Shard {
        pool: Pool::default(),
        view: RefCell::new(Rc::new(view)),
        draining: Cell::new(false),
        open: RefCell::default(),
        next_key: Cell::new(0),
        others: RefCell::default(),
        emptied: RefCell::default(),
        stats: start.stats,
    });
    for listener in start.listeners {
        listener.set_nonblocking(true)?;
        spawn_local(accept(shard.clone(), TcpListener::from_std(listener)?));
    }
    spawn_local(sweep(shard.clone()));
    loop {
        tokio::select! {
            changed = start.snapshots.changed() => match changed {
                Ok(()) => {
                    let snapshot = start.snapshots.borrow_and_update().clone();
                    shard.view.replace(Rc::new(View::new(snapshot)));
                }
                // The server is gone, and with it the reason to go on.
                Err(_) => return Ok(()),
            },
            order = start.orders.recv() => match order {
                Some(Order::Drain) => shard.drain(),
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

async fn accept(shard: Rc<Shard>, listener: TcpListener) {
    /// Without descriptors or memory there is nothing to do but wait for some to be given back.
    const PAUSE: Duration = Duration::from_millis(50);
    let mut told = false;
    loop {
        let accepted = poll_fn(|cx| match listener.poll_accept(cx) {
            // What was waiting when the drain began is served; after that the door is shut.
            Poll::Pending if shard.draining.get() => Poll::Ready(None),
            Poll::Pending => {
                if !told {
                    told = true;
                    shard.wake_on_drain(cx);
                }
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

    /// For a task that is no connection.
    fn wake_on_drain(&self, cx: &Context<'_>) {
        self.others.borrow_mut().push(cx.waker().clone());
    }

    fn drain(&self) {
        self.draining.set(true);
        let wakers: Vec<Waker> = self
            .open
            .borrow_mut()
            .values_mut()
            .filter_map(Option::take)
            .collect();
        wakers
            .into_iter()
            .chain(self.others.take())
            .for_each(Waker::wake);
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

    /// Connections accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}
