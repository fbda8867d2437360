//! An upstream: the backends behind a name, and the live numbers that every shard and every policy sees.
//!
//! What is configured is immutable and travels in the snapshot; what changes by the request is atomic and shared.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::{self, ServerState};
use crate::plugin::Stage;

pub(crate) mod connect;
pub(crate) mod health;
pub(crate) mod latency;
pub(crate) mod pool;

use self::health::Health;
use self::latency::Latency;

/// Counters that a policy shares between its instances on all shards.
pub(crate) const COUNTERS: usize = 64;

/// A backend's name for the life of the process, never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(pub u64);

impl BackendId {
    /// A name that no backend had before.
    pub(crate) fn next() -> BackendId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        BackendId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The backends that serve one name.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Tells this set of backends from every other, before and after.
    pub(crate) edition: u64,
    pub(crate) settings: config::Upstream,
    /// In the order of the configuration.
    pub(crate) backends: Vec<Arc<Backend>>,
    /// Where each is in `backends`.
    by_id: HashMap<BackendId, usize>,
    pub(crate) shared: Arc<Shared>,
    /// Only a policy's trial: no request ever gets here.
    pub(crate) is_rehearsal: bool,
    /// Only the conformance suite's.
    pub(crate) stage: Option<Arc<Stage>>,
}

/// What outlives a change of the configuration.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Goes up whenever a backend's state changes, so that each shard tells its policy before the next pick.
    membership: AtomicU64,
    /// Picks so far.
    tickets: AtomicU64,
    counters: [AtomicI64; COUNTERS],
}

/// One server of an upstream.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) id: BackendId,
    pub(crate) settings: config::Server,
    /// What the configured address resolved to; tried in order.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) live: Arc<Live>,
}

/// A backend's numbers, over all shards.
#[derive(Debug, Default)]
pub(crate) struct Live {
    in_flight: AtomicU32,
    picks: AtomicU64,
    failures: AtomicU64,
    /// Lets one line about failures through at a time.
    pub(crate) complaints: health::Complaints,
    pub(crate) latency: Latency,
    pub(crate) health: Health,
}

/// How an attempt to forward a request ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// A response with this status.
    Status(u16),
    Failed(Failure),
}

/// Why an attempt had no response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection ended before the response head.
    Reset,
    /// No connection or no response head in time.
    Timeout,
    /// What came back was not HTTP.
    Protocol,
    /// The client left, or sent a body that could not be forwarded.
    ClientGone,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Connect => "no connection to the backend",
            Failure::Reset => "the backend closed the connection before it answered",
            Failure::Timeout => "the backend did not answer in time",
            Failure::Protocol => "the backend's answer is not one that can be passed on",
            Failure::ClientGone => "the client left",
        })
    }
}

/// What a policy hears of an earlier pick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) backend: BackendId,
    pub(crate) attempt: u32,
    pub(crate) ending: Ending,
    pub(crate) latency: Duration,
    pub(crate) bytes: u64,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(settings: config::Upstream, backends: Vec<Arc<Backend>>) -> Upstream {
        Upstream::with_shared(settings, backends, Arc::default())
    }

    /// The upstream after a change of its configuration. Backends that stay have their successors in `backends`;
    /// tickets and counters go on.
    pub(crate) fn successor(
        &self,
        settings: config::Upstream,
        backends: Vec<Arc<Backend>>,
    ) -> Upstream {
        Upstream::with_shared(settings, backends, self.shared.clone())
    }

    fn with_shared(
        settings: config::Upstream,
        backends: Vec<Arc<Backend>>,
        shared: Arc<Shared>,
    ) -> Upstream {
        static EDITIONS: AtomicU64 = AtomicU64::new(1);
        let by_id = backends
            .iter()
            .enumerate()
            .map(|(index, backend)| (backend.id, index))
            .collect();
        Upstream {
            edition: EDITIONS.fetch_add(1, Ordering::Relaxed),
            settings,
            backends,
            by_id,
            shared,
            is_rehearsal: false,
            stage: None,
        }
    }

    /// The same backends with numbers of their own, to try a policy on.
    pub(crate) fn rehearsal(&self) -> Upstream {
        let copy = |backend: &Arc<Backend>| {
            Arc::new(Backend::new(
                backend.settings.clone(),
                backend.addresses.clone(),
            ))
        };
        Upstream {
            is_rehearsal: true,
            ..Upstream::new(
                self.settings.clone(),
                self.backends.iter().map(copy).collect(),
            )
        }
    }

    /// One to try policies on, of so many backends that do not exist.
    pub(crate) fn made_up(backends: usize) -> Upstream {
        let servers: Vec<_> = (1..=backends)
            .map(|index| config::Server::new(format!("backend-{index}:80")))
            .collect();
        let backend = |server: &config::Server| Arc::new(Backend::new(server.clone(), Vec::new()));
        let backends = servers.iter().map(backend).collect();
        Upstream::new(config::Upstream::new("made-up", 0, servers), backends)
    }

    /// The same, where somebody else makes up the time and what is random.
    pub(crate) fn on(self, stage: Arc<Stage>) -> Upstream {
        Upstream {
            stage: Some(stage),
            ..self
        }
    }

    /// The backends that a policy or the rotation may pick now.
    pub(crate) fn available(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends
            .iter()
            .filter(|backend| backend.state() == ServerState::Up && backend.settings.weight > 0)
    }

    pub(crate) fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        self.backends.get(*self.by_id.get(&id)?)
    }

    pub(crate) fn backend_at(&self, address: &str) -> Option<&Arc<Backend>> {
        let mut backends = self.backends.iter();
        backends.find(|backend| backend.settings.address == address)
    }

    /// Whether it has these settings and exactly these backends.
    pub(crate) fn is_like(&self, settings: &config::Upstream, backends: &[Arc<Backend>]) -> bool {
        self.settings == *settings
            && self.backends.len() == backends.len()
            && self
                .backends
                .iter()
                .zip(backends)
                .all(|(one, two)| Arc::ptr_eq(one, two))
    }

    /// Takes note of a failed attempt; the backend may be down from here on.
    ///
    /// The last backend that is up stays up: with nobody left to take over, trying it is better than refusing.
    pub(crate) fn note_failure(&self, backend: &Backend) {
        if self.settings.max_fails == 0 {
            return;
        }
        let now = Instant::now();
        let tripped = backend.live.health.note_failure(
            now,
            self.settings.max_fails,
            self.settings.fail_timeout,
        );
        let others_up = self.available().any(|other| other.id != backend.id);
        if tripped && others_up && backend.live.health.eject(now + self.settings.fail_timeout) {
            tracing::warn!(
                upstream = self.settings.name,
                backend = backend.settings.name,
                "backend is down for {:?} after {} failed attempt(s)",
                self.settings.fail_timeout,
                self.settings.max_fails,
            );
            self.shared.membership_changed();
        }
    }

    /// Lets backends back in whose time out is over.
    pub(crate) fn recover(&self, now: Instant) {
        for backend in &self.backends {
            if backend.live.health.recover(now) {
                tracing::info!(
                    upstream = self.settings.name,
                    backend = backend.settings.name,
                    "backend is tried again"
                );
                self.shared.membership_changed();
            }
        }
    }
}

// === impl Shared ===

impl Default for Shared {
    fn default() -> Self {
        Shared {
            membership: AtomicU64::new(1),
            tickets: AtomicU64::new(0),
            counters: [const { AtomicI64::new(0) }; COUNTERS],
        }
    }
}

impl Shared {
    /// A number that changes whenever the state of a backend does.
    pub(crate) fn membership(&self) -> u64 {
        self.membership.load(Ordering::Acquire)
    }

    pub(crate) fn membership_changed(&self) {
        self.membership.fetch_add(1, Ordering::Release);
    }

    /// Sets the number of the next pick, for those who make up what happens.
    pub(crate) fn set_ticket(&self, ticket: u64) {
        self.tickets.store(ticket, Ordering::Relaxed);
    }

    /// Numbers a pick.
    pub(crate) fn draw_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds to a counter and returns its value before; `None` where there is no such slot.
    pub(crate) fn counter_add(&self, slot: u32, delta: i64) -> Option<i64> {
        let counter = self.counters.get(usize::try_from(slot).ok()?)?;
        Some(counter.fetch_add(delta, Ordering::Relaxed))
    }
}

// === impl Backend ===

impl Backend {
    /// Whether these are its addresses, in whichever order they were found.
    pub(crate) fn is_at(&self, addresses: &[SocketAddr]) -> bool {
        let sorted = |addresses: &[SocketAddr]| {
            let mut addresses = addresses.to_vec();
            addresses.sort_unstable();
            addresses
        };
        sorted(&self.addresses) == sorted(addresses)
    }

    pub(crate) fn new(settings: config::Server, addresses: Vec<SocketAddr>) -> Backend {
        Backend {
            id: BackendId::next(),
            settings,
            addresses,
            live: Arc::default(),
        }
    }

    /// The backend after a change of its configuration: the same name, numbers and pooled connections.
    pub(crate) fn successor(
        &self,
        settings: config::Server,
        addresses: Vec<SocketAddr>,
    ) -> Backend {
        Backend {
            id: self.id,
            settings,
            addresses,
            live: self.live.clone(),
        }
    }

    /// What is configured, unless failures have taken the backend out.
    pub(crate) fn state(&self) -> ServerState {
        match self.settings.state {
            ServerState::Up if self.live.health.is_ejected() => ServerState::Down,
            configured => configured,
        }
    }
}

// === impl Live ===

impl Live {
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn picks(&self) -> u64 {
        self.picks.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets how many requests are under way, for those who make up what happens.
    pub(crate) fn set_in_flight(&self, requests: u32) {
        self.in_flight.store(requests, Ordering::Relaxed);
    }

    pub(crate) fn begin(&self) {
        self.picks.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
