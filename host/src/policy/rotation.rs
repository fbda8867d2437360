//! The host's own policy: every backend that is up in turn. A failed plugin falls back to it, and `policy =
//! "rotation"` uses it alone.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Verdict;
use crate::upstream::{BackendId, Upstream};

/// A turn shared by all shards.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    turn: AtomicUsize,
}

impl Rotation {
    /// The next backend that is up and was not tried.
    pub(crate) fn pick(&self, upstream: &Upstream, tried: &[BackendId]) -> Verdict {
        let candidates = || {
            upstream
                .available()
                .filter(|backend| !tried.contains(&backend.id))
        };
        let count = candidates().count();
        if count == 0 {
            return Verdict::Unavailable;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        candidates()
            .nth(turn)
            .map_or(Verdict::Unavailable, |backend| Verdict::Forward(backend.id))
    }
}
