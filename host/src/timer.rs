//! One timer for all that a connection's task waits for.
//!
//! A request has several deadlines (idle, head, body, response), and nearly all of them are met. Arming a timer for
//! each costs more than the rest of their handling, so a connection has a single one that is never set back: it fires
//! at the earliest deadline it was ever asked for, and whoever is polled then looks at the clock again. Until it fires,
//! asking for a later deadline looks neither at the clock nor at the runtime's timers.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// To be polled by one task only.
#[derive(Debug)]
pub(crate) struct Timer {
    /// When it will wake the task that polled it last.
    armed: Cell<Option<Instant>>,
    sleep: RefCell<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn new() -> Timer {
        Timer {
            armed: Cell::new(None),
            sleep: RefCell::new(Box::pin(sleep_until(Instant::now()))),
        }
    }

    /// Ready once `deadline` is past; otherwise the task is woken by then.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let armed = self.armed.get().is_some_and(|armed| armed <= deadline);
        if armed && !self.sleep.borrow().is_elapsed() {
            return Poll::Pending;
        }
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        let mut sleep = self.sleep.borrow_mut();
        loop {
            if sleep.is_elapsed() || sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            match sleep.as_mut().poll(cx) {
                Poll::Pending => {
                    self.armed.set(Some(sleep.deadline()));
                    return Poll::Pending;
                }
                Poll::Ready(()) if Instant::now() >= deadline => return Poll::Ready(()),
                // It was set for an earlier deadline, of somebody who no longer waits.
                Poll::Ready(()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn poll_once(timer: &Timer, deadline: Instant) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(timer.poll(cx, deadline))).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_that_moved_does_not_end_a_later_one() {
        let timer = Timer::new();
        let start = Instant::now();
        let early = start + Duration::from_secs(1);
        let late = start + Duration::from_secs(5);
        assert!(poll_once(&timer, early).await.is_pending());
        poll_fn(|cx| timer.poll(cx, late)).await;
        assert_eq!(Instant::now(), late);
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_deadline_is_not_missed() {
        let timer = Timer::new();
        let start = Instant::now();
        let late = start + Duration::from_secs(5);
        let early = start + Duration::from_secs(1);
        assert!(poll_once(&timer, late).await.is_pending());
        poll_fn(|cx| timer.poll(cx, early)).await;
        assert!(
            Instant::now() < start + Duration::from_millis(1_100),
            "{:?}",
            start.elapsed()
        );
        assert!(
            poll_fn(|cx| Poll::Ready(timer.poll(cx, start)))
                .await
                .is_ready()
        );
    }
}
