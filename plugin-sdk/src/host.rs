//! What a policy may ask of the host beside requests and backends: a log, a clock, randomness, shared counters.

use std::time::Duration;

use crate::abi;

/// Lines in the host's log.
///
/// At most a few lines a second are kept and the rest are counted, so a line per request is of no use. What a policy
/// prints by other means, such as `println!`, goes nowhere.
pub mod log {
    use crate::abi::{self, Level};

    /// Writes a line that matters only to someone debugging the policy.
    pub fn debug(message: impl AsRef<str>) {
        abi::log(Level::Debug, message.as_ref());
    }

    /// Writes a line that tells of normal work.
    pub fn info(message: impl AsRef<str>) {
        abi::log(Level::Info, message.as_ref());
    }

    /// Writes a line that someone should look at.
    pub fn warn(message: impl AsRef<str>) {
        abi::log(Level::Warn, message.as_ref());
    }

    /// Writes a line that tells of something broken.
    pub fn error(message: impl AsRef<str>) {
        abi::log(Level::Error, message.as_ref());
    }
}

/// The time since some fixed point, to the nanosecond; never goes back. Only differences mean anything.
pub fn now() -> Duration {
    Duration::from_nanos(abi::now())
}

/// The next number of the host's seeded generator, uniform over all of `u64`.
pub fn random() -> u64 {
    abi::random()
}

/// A random number below `bound`, or 0 if `bound` is 0. The bias is below one in 2^32 for bounds up to 2^32.
pub fn random_below(bound: u64) -> u64 {
    // Multiply and shift: cheaper than a remainder, and the high bits are the good ones.
    let wide = u128::from(abi::random()) * u128::from(bound);
    u64::try_from(wide >> 64).unwrap_or(u64::MAX)
}

/// How many counters an upstream has: slots 0 to 63.
pub const COUNTER_SLOTS: u32 = 64;

/// A counter that all instances of the policy on all shards of the upstream share.
///
/// Counters start at 0, wrap around, and keep their value when the policy is replaced: two versions that use the same
/// slot should mean the same by it.
///
/// ```
/// use waypost_plugin::Counter;
///
/// const TICKETS: Counter = Counter::new(0);
///
/// let first = TICKETS.add(1);
/// assert_eq!(TICKETS.add(1), first + 1);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Counter {
    slot: u32,
}

impl Counter {
    /// The counter in this slot. Takes no host call; make it a `const`.
    ///
    /// # Panics
    ///
    /// If `slot` is not below [`COUNTER_SLOTS`]: at compile time where the counter is a `const`.
    pub const fn new(slot: u32) -> Self {
        assert!(slot < COUNTER_SLOTS, "counter slots are 0 to 63");
        Counter { slot }
    }

    /// Adds `delta` in one atomic step and returns the value from before. `add(0)` reads.
    pub fn add(&self, delta: i64) -> i64 {
        abi::counter_add(self.slot, delta)
    }

    /// Whose turn it is among `count`, in rotation over all shards: adds 1, and returns a number below `count`; 0 where
    /// `count` is 0.
    pub fn turn(&self, count: usize) -> usize {
        let turn = self.add(1).cast_unsigned();
        // Below `count`, which is a `usize`.
        turn.checked_rem(count as u64).unwrap_or(0) as usize
    }
}
