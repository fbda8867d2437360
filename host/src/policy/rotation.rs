//! The host's own policy: every backend that is up in turn. A failed plugin falls back to it, and `policy =
//! "rotation"` uses it alone.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Exchange, Verdict};
use crate::upstream::Upstream;

/// A turn shared by all shards.
///
/// The pick's ticket would not do: a policy that fails at every second request would always leave the same backends
/// to take over.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    turn: AtomicUsize,
}

impl Rotation {
    /// The next backend that is up and was not tried.
    pub(crate) fn pick(&self, upstream: &Upstream, exchange: &Exchange) -> Verdict {
        let candidates = || {
            let available = upstream.available();
            available.filter(|backend| !exchange.tried.contains(&backend.id))
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
