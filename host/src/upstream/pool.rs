//! Idle connections of one shard to its backends: the one used last is used next.

use std::cell::RefCell;
use std::collections::HashMap;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Link;
use super::{Backend, BackendId};
use crate::config::Keepalive;

/// Connections without an exchange, by backend.
#[derive(Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<BackendId, Vec<Idle>>>,
}

struct Idle {
    link: Link,
    until: Instant,
}

impl Pool {
    /// An idle connection that is still open; `verify` as for [`Link::is_idle`].
    pub(crate) fn take(
        &self,
        cx: &mut Context<'_>,
        backend: &Backend,
        verify: bool,
        now: Instant,
    ) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        let links = idle.get_mut(&backend.id)?;
        while let Some(Idle { link, until }) = links.pop() {
            // The others are older still.
            if until <= now {
                links.clear();
                return None;
            }
            if link.is_idle(cx, verify) {
                return Some(link);
            }
        }
        None
    }

    /// Keeps a connection for the next exchange, within the limits.
    pub(crate) fn put(&self, backend: &Backend, link: Link, settings: &Keepalive, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let links = idle.entry(backend.id).or_default();
        if links.len() < settings.connections {
            links.push(Idle {
                link,
                until: now + settings.timeout,
            });
        }
    }

    /// Drops what the backend has closed or nobody used in time, and what belongs to backends that are gone.
    pub(crate) fn sweep(&self, is_known: impl Fn(BackendId) -> bool) {
        let now = Instant::now();
        // Nobody waits for these connections: they are looked at again with the next sweep or the next use.
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain(|id, links| {
            links.retain(|idle| idle.until > now && idle.link.is_idle(&mut cx, false));
            !links.is_empty() && is_known(*id)
        });
    }
}

/// How often idle connections are looked through.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
