//! Policies as WebAssembly components. Nothing outside this module names wasmtime.
//!
//! An *engine* compiles; the *loader* turns bytes into a checked, pre-linked [`Plugin`]; each shard makes an
//! *instance* of it for each upstream; the instance's *guest state* is what the policy can see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod advice;
mod anatomy;
mod aside;
mod bindings;
mod bounds;
mod cache;
mod deadline;
mod description;
mod engine;
mod instance;
mod limits;
mod loader;
mod precompiled;
mod quarantine;
mod stage;
mod state;

pub(crate) use self::advice::doubts;
pub(crate) use self::anatomy::Anatomy;
pub(crate) use self::aside::is_loading;
pub(crate) use self::bindings::host::Level;
pub(crate) use self::engine::Engine;
pub(crate) use self::instance::Instance;
pub(crate) use self::loader::{LoadError, VERSION as CONTRACT_VERSION, digest};
pub(crate) use self::stage::{Refused, Stage};
pub(crate) use self::state::{EditKind, Side};

use crate::policy::CallTimer;

/// A policy's code, checked and linked, with the configuration it was loaded for. Instances are made from it.
pub(crate) struct Plugin {
    /// What the configuration calls it.
    pub(crate) name: String,
    /// What it says of itself.
    pub(crate) about: About,
    /// SHA-256 of the bytes it was loaded from, in hex.
    pub(crate) digest: String,
    source: loader::Source,
    /// What it was loaded from, to be loaded again with other settings.
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) stats: Stats,
    /// Whether it may still be asked.
    pub(crate) record: quarantine::Record,
    log_limit: Arc<Mutex<LogLimit>>,
    code: loader::Code,
    settings: crate::config::Policy,
    /// The policy's configuration as it crosses the boundary.
    config: String,
}

/// What a policy says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) promises: Vec<String>,
}

/// What a policy's calls cost and how they ended, over all shards.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    calls: AtomicU64,
    failures: AtomicU64,
    /// Sum and number of the calls that were timed.
    timed_ns: AtomicU64,
    timed: AtomicU64,
    /// Instances that took over their predecessor's state, and those that could not.
    handed_over: AtomicU64,
    cold_starts: AtomicU64,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// A new instance for one upstream on one shard, configured but without backends.
    pub(crate) fn instantiate(
        self: &Arc<Self>,
        upstream: &Arc<crate::upstream::Upstream>,
    ) -> Result<Instance, crate::policy::PolicyFailure> {
        Instance::start(self.clone(), upstream.clone())
    }

    /// Bytes of what it was compiled to.
    pub(crate) fn code_bytes(&self) -> usize {
        self.code.bytes()
    }
}

/// One pick in this many is timed.
const TIMED_EVERY: u64 = 64;

impl Stats {
    pub(crate) fn start_call(&self) -> CallTimer {
        CallTimer::start(self.calls.fetch_add(1, Ordering::Relaxed), TIMED_EVERY)
    }

    pub(crate) fn end_call(&self, timer: &CallTimer) {
        if let Some(ns) = timer.elapsed_ns() {
            self.timed_ns.fetch_add(ns, Ordering::Relaxed);
            self.timed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn note_failure(&self) -> u64 {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn note_hand_over(&self) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_cold_start(&self) {
        self.cold_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Instances that took over their predecessor's state, and those that could not.
    pub(crate) fn hand_overs(&self) -> (u64, u64) {
        let (over, cold) = (&self.handed_over, &self.cold_starts);
        (over.load(Ordering::Relaxed), cold.load(Ordering::Relaxed))
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Mean time of a pick, the crossing included; `None` before the first timed one.
    pub(crate) fn mean_call(&self) -> Option<Duration> {
        let timed = self.timed.load(Ordering::Relaxed);
        self.timed_ns
            .load(Ordering::Relaxed)
            .checked_div(timed)
            .map(Duration::from_nanos)
    }
}

/// Lets through a few lines a second and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    window: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// What [`LogLimit::admit`] decides.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Admission {
    /// Print the line; this many were kept back before it.
    Print {
        suppressed: u64,
    },
    Suppress,
}

impl LogLimit {
    const LINES_PER_SECOND: u32 = 5;

    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        let expired = self
            .window
            .is_none_or(|start| now.saturating_duration_since(start) >= Duration::from_secs(1));
        if expired {
            self.window = Some(now);
            self.lines = 0;
        }
        if self.lines == Self::LINES_PER_SECOND {
            self.suppressed += 1;
            return Admission::Suppress;
        }
        self.lines += 1;
        Admission::Print {
            suppressed: std::mem::take(&mut self.suppressed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_limit_keeps_a_few_lines_a_second_and_counts_the_rest() {
        let mut limit = LogLimit::default();
        let start = Instant::now();
        for _ in 0..LogLimit::LINES_PER_SECOND {
            assert_eq!(limit.admit(start), Admission::Print { suppressed: 0 });
        }
        assert_eq!(limit.admit(start), Admission::Suppress);
        assert_eq!(
            limit.admit(start + Duration::from_millis(999)),
            Admission::Suppress
        );
        assert_eq!(
            limit.admit(start + Duration::from_secs(1)),
            Admission::Print { suppressed: 2 }
        );
        assert_eq!(
            limit.admit(start + Duration::from_secs(1)),
            Admission::Print { suppressed: 0 }
        );
    }
}
