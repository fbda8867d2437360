//! When a policy has failed too often to be asked again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::config::Quarantine;
use crate::policy::PolicyFailure;

/// A version's failures, over all shards.
#[derive(Debug)]
pub(crate) struct Record {
    settings: Quarantine,
    /// Read for every pick; the rest only where something failed.
    tripped: AtomicBool,
    recent: Mutex<VecDeque<Instant>>,
    reason: Mutex<String>,
}

impl Record {
    pub(super) fn new(settings: Quarantine) -> Record {
        Record {
            settings,
            tripped: AtomicBool::new(false),
            recent: Mutex::default(),
            reason: Mutex::default(),
        }
    }

    /// Whether the policy is not to be asked any more.
    pub(crate) fn is_tripped(&self) -> bool {
        self.tripped.load(Ordering::Acquire)
    }

    /// Counts a failure; true where it is the one too many.
    pub(crate) fn note_failure(&self, now: Instant, failure: &PolicyFailure) -> bool {
        if self.settings.failures == 0 || self.is_tripped() {
            return false;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let window = self.settings.window;
        recent.push_back(now);
        while recent
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) > window)
        {
            recent.pop_front();
        }
        if recent.len() < usize::try_from(self.settings.failures).unwrap_or(usize::MAX) {
            return false;
        }
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = format!(
            "{} failures within {window:?}; the last: {failure}",
            recent.len()
        );
        !self.tripped.swap(true, Ordering::AcqRel)
    }

    /// Why it was tripped.
    pub(crate) fn reason(&self) -> String {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(failures: u32) -> Record {
        Record::new(Quarantine {
            failures,
            window: Duration::from_secs(10),
            retry: Duration::from_secs(10),
        })
    }

    #[test]
    fn trips_once_at_so_many_failures_within_the_window() {
        let (record, start) = (record(3), Instant::now());
        assert!(!record.note_failure(start, &PolicyFailure::Deadline));
        assert!(!record.note_failure(start + Duration::from_secs(5), &PolicyFailure::Deadline));
        assert!(!record.is_tripped());
        assert!(record.note_failure(
            start + Duration::from_secs(10),
            &PolicyFailure::StackOverflow
        ));
        assert!(record.is_tripped());
        assert!(!record.note_failure(start + Duration::from_secs(10), &PolicyFailure::Deadline));
        assert_eq!(
            record.reason(),
            "3 failures within 10s; the last: ran out of stack"
        );
    }

    #[test]
    fn forgets_failures_that_are_older_than_the_window() {
        let (record, start) = (record(2), Instant::now());
        assert!(!record.note_failure(start, &PolicyFailure::Deadline));
        assert!(!record.note_failure(start + Duration::from_secs(11), &PolicyFailure::Deadline));
        assert!(record.note_failure(start + Duration::from_secs(12), &PolicyFailure::Deadline));
    }

    #[test]
    fn never_trips_where_it_is_switched_off() {
        let record = record(0);
        for _ in 0..100 {
            assert!(!record.note_failure(Instant::now(), &PolicyFailure::Deadline));
        }
    }
}
