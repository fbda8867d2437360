//! The time a call may take.
//!
//! Time on the wall would be the wrong measure: on a busy machine a thread may lose the processor for longer than any
//! policy runs. So what is counted is the thread's time on the processor, which is read at ticks of the engine only: a
//! call that ends before its first tick never pays for this, and one that never ends is cut off one or two
//! ticks after its deadline.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Store, UpdateDeadline};

use super::state::Guest;

/// What is left of the running call's time.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    time: Duration,
    /// The thread's time on the processor at the first tick of the call.
    since: Option<Duration>,
}

/// Has a store's calls watched. Each call is to be [armed](arm).
pub(super) fn watch(store: &mut Store<Guest>) {
    store.epoch_deadline_callback(|mut store| {
        Ok(store.data_mut().deadline.at_tick(processor_time()))
    });
}

/// Gives the next call this much time.
pub(super) fn arm(store: &mut Store<Guest>, time: Duration) {
    store.data_mut().deadline = Deadline { time, since: None };
    store.set_epoch_deadline(1);
}

impl Deadline {
    /// Decides at a tick, with the thread's time on the processor.
    fn at_tick(&mut self, now: Duration) -> UpdateDeadline {
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < self.time {
            UpdateDeadline::Continue(1)
        } else {
            UpdateDeadline::Interrupt
        }
    }
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

    const TIME: Duration = Duration::from_millis(5);

    fn goes_on(update: &UpdateDeadline) -> bool {
        matches!(update, UpdateDeadline::Continue(_))
    }

    #[test]
    fn a_guest_that_runs_all_the_time_is_cut_off_when_its_time_is_over() {
        let mut deadline = Deadline {
            time: TIME,
            since: None,
        };
        let start = TIME * 100;
        assert!(goes_on(&deadline.at_tick(start)));
        assert!(goes_on(&deadline.at_tick(start + TIME / 2)));
        assert!(!goes_on(&deadline.at_tick(start + TIME)));
    }

    #[test]
    fn a_guest_whose_thread_does_not_run_keeps_its_time() {
        let mut deadline = Deadline {
            time: TIME,
            since: None,
        };
        for _ in 0..1_000 {
            assert!(goes_on(&deadline.at_tick(TIME)));
        }
        assert!(!goes_on(&deadline.at_tick(TIME * 2)));
    }

    #[test]
    fn the_processor_clock_does_not_go_back() {
        let start = processor_time();
        assert!(processor_time() >= start);
    }
}
