//! An attempt on a backend, from the pick to the end of the response's body: what counts it, times it and reports it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::policy::slot::Slot;
use crate::upstream::{Backend, Ending, Failure, Outcome};

/// An attempt under way. Counts as in flight until it is dropped, also when the client has left.
pub(crate) struct Flight {
    slot: Rc<Slot>,
    pub(crate) backend: Arc<Backend>,
    attempt: u32,
    started: Instant,
    latency: Option<Duration>,
    ending: Ending,
    /// Of body, received from the backend.
    pub(crate) bytes: u64,
}

impl Flight {
    pub(crate) fn start(
        slot: Rc<Slot>,
        backend: Arc<Backend>,
        attempt: u32,
        now: Instant,
    ) -> Flight {
        backend.live.begin();
        // Unless something else is said, the client has left before there was a response.
        let ending = Ending::Failed(Failure::ClientGone);
        Flight {
            slot,
            backend,
            attempt,
            started: now,
            latency: None,
            ending,
            bytes: 0,
        }
    }

    pub(crate) fn answered(&mut self, status: StatusCode, now: Instant) {
        let latency = now.saturating_duration_since(self.started);
        self.latency = Some(latency);
        self.ending = Ending::Status(status.as_u16());
        self.backend.live.latency.note_response(latency);
    }

    /// Takes note of how it ended, where that is not a whole response.
    pub(crate) fn end(&mut self, ending: Ending) {
        self.ending = ending;
    }

    /// The attempt had no response that could be passed on.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.ending = Ending::Failed(failure);
        self.backend.live.note_failure();
        self.backend.live.latency.note_error();
        let upstream = &self.slot.balancer.upstream;
        if self.backend.live.complaints.admit() {
            tracing::warn!(
                upstream = upstream.settings.name,
                backend = self.backend.settings.name,
                total = self.backend.live.failures(),
                "{failure}"
            );
        }
        upstream.note_failure(&self.backend);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.backend.live.end();
        self.slot.note_outcome(Outcome {
            backend: self.backend.id,
            attempt: self.attempt,
            ending: self.ending,
            latency: self.latency.unwrap_or_else(|| self.started.elapsed()),
            bytes: self.bytes,
        });
    }
}
