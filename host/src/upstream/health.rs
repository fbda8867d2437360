//! Passive health: a backend that keeps failing is left alone for a while (nginx: `max_fails`, `fail_timeout`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is known of a backend from the attempts made on it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Read for every pick; the rest only where something failed.
    ejected: AtomicBool,
    record: Mutex<Record>,
}

/// Failures come in crowds; a line every few seconds says as much as all of them.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    /// Whether a line may be logged now.
    pub(crate) fn admit(&self) -> bool {
        const INTERVAL: Duration = Duration::from_secs(5);
        let mut last = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let admitted = last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if admitted {
            *last = Some(now);
        }
        admitted
    }
}

#[derive(Debug, Default)]
struct Record {
    fails: u32,
    /// When the first of `fails` happened.
    since: Option<Instant>,
    ejected_until: Option<Instant>,
}

impl Health {
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    /// Counts a failure at `now`; true where it makes `max_fails` within `window`.
    pub(crate) fn note_failure(&self, now: Instant, max_fails: u32, window: Duration) -> bool {
        let mut record = self.record();
        let expired = record
            .since
            .is_none_or(|since| now.saturating_duration_since(since) > window);
        if expired {
            record.since = Some(now);
            record.fails = 0;
        }
        record.fails = record.fails.saturating_add(1);
        record.fails >= max_fails
    }

    /// Takes the backend out until `until`; false where it was out already.
    pub(crate) fn eject(&self, until: Instant) -> bool {
        let mut record = self.record();
        record.ejected_until = Some(until);
        !self.ejected.swap(true, Ordering::AcqRel)
    }

    /// Takes the backend back in if its time is over; true where that changed something.
    pub(crate) fn recover(&self, now: Instant) -> bool {
        if !self.is_ejected() {
            return false;
        }
        let mut record = self.record();
        if record.ejected_until.is_some_and(|until| now < until) {
            return false;
        }
        *record = Record::default();
        self.ejected.swap(false, Ordering::AcqRel)
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        // A panic while holding the lock leaves plain numbers behind: any of them will do.
        self.record
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn trips_at_max_fails_within_the_window() {
        let health = Health::default();
        let start = Instant::now();
        assert!(!health.note_failure(start, 3, WINDOW));
        assert!(!health.note_failure(start + WINDOW / 2, 3, WINDOW));
        assert!(health.note_failure(start + WINDOW, 3, WINDOW));
    }

    #[test]
    fn forgets_failures_older_than_the_window() {
        let health = Health::default();
        let start = Instant::now();
        assert!(!health.note_failure(start, 2, WINDOW));
        assert!(!health.note_failure(start + WINDOW * 2, 2, WINDOW));
        assert!(health.note_failure(start + WINDOW * 2, 2, WINDOW));
    }

    #[test]
    fn comes_back_when_its_time_is_over_and_only_then() {
        let health = Health::default();
        let start = Instant::now();
        assert!(health.eject(start + WINDOW));
        assert!(!health.eject(start + WINDOW), "it was out already");
        assert!(!health.recover(start));
        assert!(health.is_ejected());
        assert!(health.recover(start + WINDOW));
        assert!(!health.is_ejected());
        assert!(!health.recover(start + WINDOW), "nothing left to change");
    }
}
