//! Which backend has which part of all keys: weighted rendezvous hashing, computed ahead for every slot of a table.
//!
//! Keys are hashed to one of [`SLOTS`] slots. For each slot every backend has a time at which it would reach it, and
//! the first to do so has the slot. Where the times of a backend are as those of a Poisson process of its weight, its
//! chance to be first is its share of the weights, and that is what makes removing a backend move nothing but its own
//! slots: the times of the others do not depend on it.
//!
//! Asking every backend for its time at every slot would take slots times backends. Instead each backend visits slots at
//! random (by a generator that its name seeds), one every 1/weight, and the first visit to a slot is its time there. What
//! is left after some ln(slots) visits per slot is nothing, however many backends there are.

use std::mem;

use waypost_plugin::stable_hash;

/// Parts that all keys are divided into. A share is exact to 0.9 % of itself for ten backends of equal weight, to
/// 2.4 % for a hundred, 8 % for a thousand, 28 % for ten thousand (standard deviations): as sqrt(backends / 2 SLOTS).
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 16;

/// Visits per slot after which a slot that nobody has visited is one in 3 * 10^6: ln(SLOTS) and 4 more.
const VISITS: f64 = 15.0;

/// The low bits of a visit, which say whose it is. More backends than these can tell apart are left out.
const RANK_BITS: u32 = 20;
const RANK_MASK: u64 = (1 << RANK_BITS) - 1;

/// Later than any visit.
const NEVER: u64 = u64::MAX;

/// A backend as the table knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    pub(crate) weight: u32,
}

/// Who has each slot, and who would have it without them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Positions in the members, twice per slot; `u32::MAX` where nobody came second.
    slots: Vec<[u32; 2]>,
}

impl Table {
    /// The table of these members, whose order does not matter. Those without weight have no share.
    pub(crate) fn new(members: &[Member<'_>]) -> Self {
        let mut walks: Vec<(u64, u32)> = members
            .iter()
            .zip(0..)
            .filter(|(member, _)| member.weight > 0)
            .map(|(member, position)| (stable_hash(member.name.as_bytes()), position))
            .collect();
        // Ties go by rank, so the order must be one of names. No two names of an upstream are the same.
        let name = |position: u32| members.get(position as usize).map(|member| member.name);
        walks.sort_unstable_by(|one, other| (one.0, name(one.1)).cmp(&(other.0, name(other.1))));
        walks.truncate(1 << RANK_BITS);
        if walks.is_empty() {
            return Table::default();
        }
        let weight = |position: u32| {
            let member = members.get(position as usize);
            f64::from(member.map_or(0, |member| member.weight))
        };
        let whole: f64 = walks.iter().map(|&(_, position)| weight(position)).sum();
        let mut horizon = VISITS * SLOTS as f64 / whole;
        loop {
            let mut first = vec![[NEVER; 2]; SLOTS];
            for (&(seed, position), rank) in walks.iter().zip(0..) {
                walk(seed, weight(position), rank, horizon, &mut first);
            }
            // Nobody's first visit depends on where the walks end, so walking further only adds what is missing.
            if first.iter().all(|visits| visits[0] != NEVER) {
                let owner = |visit: u64| {
                    let walk = walks.get((visit & RANK_MASK) as usize);
                    walk.filter(|_| visit != NEVER)
                        .map_or(u32::MAX, |&(_, position)| position)
                };
                let slots = first.iter().map(|visits| visits.map(owner)).collect();
                return Table { slots };
            }
            horizon *= 2.0;
        }
    }

    /// The position of the member that has a key, by the key's hash; `None` where there is none at all.
    pub(crate) fn owner(&self, hash: u64) -> Option<usize> {
        self.at(hash, 0)
    }

    /// The position of the one that would have the key if its owner were not there; `None` where the table does not
    /// say.
    pub(crate) fn successor(&self, hash: u64) -> Option<usize> {
        self.at(hash, 1)
    }

    fn at(&self, hash: u64, place: usize) -> Option<usize> {
        let slot = self.slots.get((hash >> (64 - SLOT_BITS)) as usize)?;
        slot.get(place)
            .filter(|position| **position != u32::MAX)
            .map(|position| *position as usize)
    }
}

/// Notes the two earliest visitors of each slot, when their visits are those of this walk.
///
/// A visit is its time with the lowest bits of the fraction given to the visitor's rank: it is compared, kept and moved as
/// one number.
fn walk(seed: u64, weight: f64, rank: u64, horizon: f64, first: &mut [[u64; 2]]) {
    let pace = 1.0 / weight;
    let mut random = seed;
    // So that not all of one weight come at the same moments.
    let mut time = pace * ((stable_hash(&seed.to_le_bytes()) >> 32) as f64 / 4_294_967_296.0);
    while time < horizon {
        let mut drawn = next(&mut random);
        for _ in 0..64 / SLOT_BITS {
            let visit = time.to_bits() & !RANK_MASK | rank;
            if let Some([earliest, second]) = first.get_mut(drawn as usize % SLOTS)
                && visit < *second
                && *earliest & RANK_MASK != rank
            {
                *second = visit;
                if *second < *earliest {
                    mem::swap(earliest, second);
                }
            }
            drawn >>= SLOT_BITS;
            time += pace;
        }
    }
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
