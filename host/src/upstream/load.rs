//! Requests under way, side by side in memory: a policy that compares a thousand backends reads a few kilobytes in a row
//! and not a thousand places, none of which is in a cache any more when the next request comes.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many lie side by side.
const BLOCK: usize = 64;

/// A backend's requests under way, over all shards. Clones are the same number.
#[derive(Clone)]
pub(crate) struct Load {
    block: Arc<[AtomicU32; BLOCK]>,
    place: usize,
}

impl Load {
    /// A number next to the one that was made before: those of one upstream are made in a row.
    pub(crate) fn new() -> Load {
        static NEXT: Mutex<Option<Load>> = Mutex::new(None);
        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        let load = next.take().unwrap_or_else(|| Load {
            block: Arc::new([const { AtomicU32::new(0) }; BLOCK]),
            place: 0,
        });
        *next = (load.place + 1 < BLOCK).then(|| Load {
            block: load.block.clone(),
            place: load.place + 1,
        });
        load
    }

    pub(crate) fn get(&self) -> u32 {
        self.number()
            .map_or(0, |number| number.load(Ordering::Relaxed))
    }

    /// For those who make up what happens.
    pub(crate) fn set(&self, requests: u32) {
        if let Some(number) = self.number() {
            number.store(requests, Ordering::Relaxed);
        }
    }

    pub(crate) fn begin(&self) {
        if let Some(number) = self.number() {
            number.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self) {
        if let Some(number) = self.number() {
            number.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Always there: a place is below [`BLOCK`].
    fn number(&self) -> Option<&AtomicU32> {
        self.block.get(self.place)
    }
}

impl Default for Load {
    fn default() -> Load {
        Load::new()
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_number() {
        let loads: Vec<Load> = (0..BLOCK * 3).map(|_| Load::new()).collect();
        for (load, requests) in loads.iter().zip(0..) {
            load.set(requests);
        }
        for (load, requests) in loads.iter().zip(0..) {
            let same = load.clone();
            same.begin();
            assert_eq!(load.get(), requests + 1);
            load.end();
            assert_eq!(same.get(), requests);
        }
    }
}
