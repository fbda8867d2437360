//! A host of somebody else's making: the conformance suite sets what time it is and what is random, and hears what a
//! policy asks, does and says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bindings::host::Level;
use super::state::{EditKind, Side};

/// Stands in for the clock, the random numbers and the log of all instances of an upstream.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    now: AtomicU64,
    random: AtomicU64,
    notes: Mutex<Notes>,
}

/// What a policy did since the notes were last taken.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Level and text.
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) refused: Vec<Refused>,
    /// Request fields that were asked for.
    pub(crate) fields: Vec<String>,
    pub(crate) asked_live: bool,
    pub(crate) asked_random: bool,
    pub(crate) asked_clock: bool,
}

/// An edit that was not allowed.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) side: Side,
    pub(crate) kind: EditKind,
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
}

impl Stage {
    pub(crate) fn set_now(&self, ns: u64) {
        self.now.store(ns, Ordering::Relaxed);
    }

    pub(crate) fn set_random(&self, seed: u64) {
        self.random.store(seed, Ordering::Relaxed);
    }

    /// Takes the notes, and begins new ones.
    pub(crate) fn take(&self) -> Notes {
        std::mem::take(&mut self.notes())
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> u64 {
        self.notes().asked_clock = true;
        self.now.load(Ordering::Relaxed)
    }

    /// SplitMix64, as in the SDK's simulated host: the same seed gives the same picks there and here.
    pub(super) fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        self.notes().asked_random = true;
        let mut z = self
            .random
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
