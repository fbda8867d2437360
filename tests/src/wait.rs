//! Waiting, always for something and never forever.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen. Far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// The future's value; a panic that names `what` where it takes longer than [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Returns once `condition` holds; a panic that names `what` where it does not within [`PATIENCE`].
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The value of `read` once it is above zero and has not changed for `quiet`: for what stops without telling.
pub async fn settled(what: &str, quiet: Duration, mut read: impl FnMut() -> u64) -> u64 {
    let start = Instant::now();
    let (mut last, mut since) = (read(), Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = read();
        if now != last {
            (last, since) = (now, Instant::now());
        } else if last > 0 && since.elapsed() >= quiet {
            return last;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} for {what} to settle, at {now}"
        );
    }
}
