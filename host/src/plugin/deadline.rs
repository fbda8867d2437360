//! The time a call may take.
//!
//! Epochs count time on the wall, and on a busy machine a thread may lose the processor for longer than any policy
//! runs. So the deadline comes in two halves: at the end of the first the thread's own clock is read, and the call is
//! cut off after the second only if the guest really had the processor. A call that ends in time never pays for this.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Store, UpdateDeadline};

use super::engine::TICK;
use super::state::Guest;

/// What is left of the running call's time.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    half: Duration,
    /// The thread's time on the processor when the last half began; `None` in the first.
    since: Option<Duration>,
}

/// Has a store's calls watched. Each call is to be [armed](arm).
pub(super) fn watch(store: &mut Store<Guest>) {
    store.epoch_deadline_callback(|mut store| {
        Ok(store.data_mut().deadline.expired(processor_time()))
    });
}

/// Gives the next call this much time.
pub(super) fn arm(store: &mut Store<Guest>, time: Duration) {
    let half = time / 2;
    store.data_mut().deadline = Deadline { half, since: None };
    store.set_epoch_deadline(ticks(half));
}

impl Deadline {
    /// Decides at the end of a half, with the thread's time on the processor.
    fn expired(&mut self, now: Duration) -> UpdateDeadline {
        let since = self.since.replace(now);
        match since.map(|since| now.saturating_sub(since)) {
            // A guest that loops uses nearly all of it; what is lost to others is not its fault.
            Some(used) if used >= self.half / 2 => UpdateDeadline::Interrupt,
            Some(_) | None => UpdateDeadline::Continue(ticks(self.half)),
        }
    }
}

/// As ticks from now. The running one may be nearly over, which only ever shortens the first half; the second begins
/// with a tick, and rounding up makes good what the first lost.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX / 2)
}

/// How long this thread has had the processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(2);

    fn goes_on(update: &UpdateDeadline) -> bool {
        matches!(update, UpdateDeadline::Continue(_))
    }

    #[test]
    fn a_guest_that_runs_all_the_time_is_cut_off_after_the_second_half() {
        let mut deadline = Deadline {
            half: HALF,
            since: None,
        };
        assert!(goes_on(&deadline.expired(HALF)));
        assert!(!goes_on(&deadline.expired(HALF * 2)));
    }

    #[test]
    fn a_guest_whose_thread_did_not_run_gets_its_time() {
        let mut deadline = Deadline {
            half: HALF,
            since: None,
        };
        assert!(goes_on(&deadline.expired(HALF)));
        assert!(goes_on(&deadline.expired(HALF + HALF / 4)));
        assert!(goes_on(&deadline.expired(HALF + HALF / 3)));
        assert!(!goes_on(&deadline.expired(HALF * 2)));
    }

    #[test]
    fn the_processor_clock_does_not_go_back() {
        let start = processor_time();
        assert!(processor_time() >= start);
    }
}
