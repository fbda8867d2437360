//! Every backend in turn, by weight, exact over all shards.
//!
//! Each pick has a ticket, numbered over all shards, and the ticket says where to look in a schedule that each shard
//! computes for itself and alike. In any stretch of requests each backend gets its share of them, spread
//! as evenly as can be; backends of equal weight never differ by more than one request between two changes of
//! the set.

use std::{cmp::Reverse, collections::BinaryHeap};

use waypost_plugin::{BackendId, Backends, Pick, Policy, Promise, Request, export_policy};

/// The longest schedule, in picks. Weights whose sum, divided by what they have in common, is higher are scaled down
/// to about this, each keeping at least 1: four bytes of memory for each pick, and shares exact to 0.01 %
/// for a hundred backends.
const PERIOD_MAX: u64 = 65_536;

/// The policy.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// The backends that take requests.
    ids: Vec<BackendId>,
    /// Whose turn it is, as positions in `ids`, over and over. Empty if all weights are equal: then it is the order of
    /// `ids` itself.
    schedule: Vec<u32>,
}

impl Policy for RoundRobin {
    type Config = ();
    const PROMISES: &'static [Promise] = &[Promise::Balanced];

    fn configure(_: ()) -> Result<Self, String> {
        Ok(RoundRobin::default())
    }

    fn update(&mut self, backends: &Backends) {
        let (ids, weights): (_, Vec<u32>) = backends
            .healthy()
            .map(|backend| (backend.id, backend.weight))
            .unzip();
        self.ids = ids;
        self.schedule = schedule(&reduced(&weights));
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        // Without this a retry could look for a backend that is not there; after it, one is found within a period.
        if request.attempt() > 0 && backends.healthy().next().is_none() {
            return Pick::unavailable();
        }
        let period = self.period();
        if period == 0 {
            return Pick::unavailable();
        }
        let start = request.ticket() % period;
        (start..period)
            .chain(0..start)
            .filter_map(|turn| self.at(turn))
            .find(|&id| !request.was_tried(id))
            .map_or(Pick::Unavailable, Pick::Forward)
    }
}

export_policy!(RoundRobin);

#[cfg(test)]
waypost_conformance::conforms!(RoundRobin);

impl RoundRobin {
    fn period(&self) -> u64 {
        let turns = if self.schedule.is_empty() {
            self.ids.len()
        } else {
            self.schedule.len()
        };
        turns as u64
    }

    fn at(&self, turn: u64) -> Option<BackendId> {
        let turn = usize::try_from(turn).ok()?;
        let position = match self.schedule.get(turn) {
            Some(&position) => position as usize,
            None => turn,
        };
        self.ids.get(position).copied()
    }
}

/// The weights without what they have in common, and scaled down if their sum is still over [`PERIOD_MAX`].
fn reduced(weights: &[u32]) -> Vec<u64> {
    let common = weights
        .iter()
        .fold(0, |common, &weight| gcd(common, weight))
        .max(1);
    let sum: u64 = weights
        .iter()
        .map(|&weight| u64::from(weight / common))
        .sum();
    weights
        .iter()
        .map(|&weight| {
            let weight = u64::from(weight / common);
            if sum <= PERIOD_MAX {
                weight
            } else {
                (weight * PERIOD_MAX / sum).max(1)
            }
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whose turn it is for each ticket of a period, as positions in `weights`; empty if all weights are equal.
///
/// Backends of one weight form a class that takes regular turns among itself, so the schedule only has to merge
/// classes. The t-th of a class's n turns belongs into the t-th of n equal parts of the period: it is ready from
/// the part's first ticket on and due at its end, and of those that are ready the one that is due first is taken. That
/// keeps every class within one turn of its share (Baruah, Cohen, Plaxton and Varvel, "Proportionate Progress",
/// 1996), and no backend has more than one turn in a row beyond what the weights force: 10 for weights
/// 30, 1, 1 and 1, where nginx's smooth weighted round-robin gives 16.
fn schedule(weights: &[u64]) -> Vec<u32> {
    let mut by_weight: Vec<(u64, u32)> = weights.iter().copied().zip(0..).collect();
    by_weight.sort_by_key(|&(weight, _)| weight);
    let mut classes: Vec<Class<'_>> = by_weight
        .chunk_by(|a, b| a.0 == b.0)
        .map(Class::new)
        .collect();
    if classes.len() < 2 {
        return Vec::new();
    }
    // Of two that are due together the larger class goes first.
    classes.sort_by_key(|class| Reverse(class.turns));
    let period = weights.iter().sum();
    let mut schedule = Vec::new();
    let mut waiting: BinaryHeap<_> = (0..classes.len()).map(|at| Reverse((0, at))).collect();
    let mut ready = BinaryHeap::new();
    for ticket in 0..period {
        while let Some(&Reverse((from, at))) = waiting.peek()
            && from <= ticket
        {
            waiting.pop();
            ready.extend(
                classes
                    .get(at)
                    .map(|class| Reverse((class.due(period), at))),
            );
        }
        if let Some(Reverse((_, at))) = ready.pop()
            && let Some(class) = classes.get_mut(at)
        {
            schedule.extend(class.take_turn());
            if class.taken < class.turns {
                waiting.push(Reverse((class.ready(period), at)));
            }
        }
    }
    schedule
}

/// Backends of one weight.
struct Class<'a> {
    members: &'a [(u64, u32)],
    turns: u64,
    taken: u64,
}

impl<'a> Class<'a> {
    fn new(members: &'a [(u64, u32)]) -> Self {
        Class {
            members,
            turns: members.iter().map(|&(weight, _)| weight).sum(),
            taken: 0,
        }
    }

    /// The first ticket that the next turn may have.
    fn ready(&self, period: u64) -> u64 {
        self.taken * period / self.turns
    }

    /// The ticket before which the next turn must be.
    fn due(&self, period: u64) -> u64 {
        ((self.taken + 1) * period).div_ceil(self.turns)
    }

    /// Whose turn it is, as a position.
    fn take_turn(&mut self) -> Option<u32> {
        let turn = self.taken % self.members.len() as u64;
        let &(_, position) = self.members.get(turn as usize)?;
        self.taken += 1;
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use waypost_plugin::testing::{Harness, TestBackend, TestRequest, backend};

    use super::*;

    fn shards(
        count: usize,
        backends: impl IntoIterator<Item = TestBackend>,
    ) -> Vec<Harness<RoundRobin>> {
        let first = Harness::new("{}").with_backends(backends);
        let mut shards: Vec<_> = (1..count).map(|_| first.another_shard()).collect();
        shards.push(first);
        shards
    }

    /// `requests` picks, handed to the shards by a rule that favours some of them.
    fn picks(shards: &mut [Harness<RoundRobin>], requests: usize) -> String {
        let request = TestRequest::get("/");
        let count = shards.len();
        (0..requests)
            .map(
                |i| match shards[i * i % 7 % count].pick(&request).backend() {
                    Some(name) => name.to_owned(),
                    None => "-".to_owned(),
                },
            )
            .collect()
    }

    #[test]
    fn takes_turns_over_all_shards() {
        let mut shards = shards(3, ["a", "b", "c"].map(backend));
        assert_eq!(picks(&mut shards, 9), "abcabcabc");
    }

    #[test]
    fn spreads_weights_evenly() {
        for (weights, expected) in [
            (vec![("a", 5), ("b", 1), ("c", 1)], "aabaaac"),
            (vec![("a", 2), ("b", 1)], "aab"),
            (vec![("a", 1), ("b", 3)], "bbba"),
            (vec![("a", 100), ("b", 100)], "abab"),
            (vec![("a", 4), ("b", 2)], "aab"),
            (vec![("a", 0), ("b", 2)], "bb"),
        ] {
            let mut shards = shards(
                2,
                weights
                    .iter()
                    .map(|&(name, weight)| backend(name).weight(weight)),
            );
            assert_eq!(
                picks(&mut shards, expected.len() * 2),
                expected.repeat(2),
                "{weights:?}"
            );
        }
    }

    #[test]
    fn leaves_out_what_takes_no_requests() {
        let mut shards = shards(
            2,
            [
                backend("a"),
                backend("b").down(),
                backend("c").draining(),
                backend("d").weight(0),
            ],
        );
        assert_eq!(picks(&mut shards, 3), "aaa");
        shards[0].set_backends([backend("a").down(), backend("b")]);
        assert_eq!(picks(&mut shards, 3), "bbb");
        shards[0].set_backends([]);
        assert_eq!(picks(&mut shards, 3), "---");
    }

    #[test]
    fn a_retry_goes_to_the_next_that_was_not_tried() {
        let mut harness = Harness::<RoundRobin>::new("{}").with_backends([
            backend("a").weight(3),
            backend("b"),
            backend("c"),
        ]);
        let (a, b, c) = (harness.id("a"), harness.id("b"), harness.id("c"));
        for ticket in 0..5 {
            for (tried, allowed) in [
                (vec![a], &["b", "c"][..]),
                (vec![a, b], &["c"]),
                (vec![b], &["a", "c"]),
            ] {
                harness.set_ticket(ticket);
                let picked = harness.pick(&TestRequest::get("/").tried(tried));
                assert!(
                    picked.backend().is_some_and(|name| allowed.contains(&name)),
                    "{picked:?}"
                );
            }
            let picked = harness.pick(&TestRequest::get("/").tried([c, b, a]));
            assert_eq!(picked.pick, Pick::unavailable());
        }
    }

    #[test]
    fn survives_the_end_of_the_counter() {
        let mut shards = shards(1, ["a", "b", "c", "d"].map(backend));
        shards[0].set_ticket(u64::MAX - 1);
        assert_eq!(picks(&mut shards, 4), "cdab");
    }

    /// Weights, and the most turns in a row that one of them has, over the end of the period too.
    const UNEVEN: [(&[u64], usize); 7] = [
        (&[1, 2, 3], 1),
        (&[7, 1, 1, 1], 3),
        (&[10, 9, 1], 1),
        (&[3, 3, 2, 2, 2, 50], 5),
        (&[5, 1, 1], 3),
        (&[3, 2, 10], 2),
        (&[30, 1, 1, 1], 10),
    ];

    #[test]
    fn no_backend_is_ever_a_request_from_its_share() {
        for (weights, _) in UNEVEN {
            let period: u64 = weights.iter().sum();
            let mut seen = vec![0.0; weights.len()];
            for (turn, taken) in schedule(weights).into_iter().zip(1..) {
                seen[turn as usize] += 1.0;
                for (&weight, &seen) in weights.iter().zip(&seen) {
                    let share = weight as f64 * f64::from(taken) / period as f64;
                    assert!((seen - share).abs() < 1.0, "{weights:?} {taken}");
                }
            }
        }
    }

    #[test]
    fn turns_in_a_row_are_those_that_the_weights_force() {
        for (weights, longest) in UNEVEN {
            let twice = schedule(weights).repeat(2);
            let runs = twice.chunk_by(|one, next| one == next).map(<[u32]>::len);
            assert_eq!(runs.max(), Some(longest), "{weights:?}");
        }
    }

    #[test]
    fn every_weight_has_its_tickets() {
        for weights in [
            vec![1, 2, 3],
            vec![5, 1, 1],
            vec![8, 3, 8, 1],
            vec![1, 1000],
        ] {
            let turns = schedule(&weights);
            for (position, &weight) in weights.iter().enumerate() {
                let tickets = turns
                    .iter()
                    .filter(|turn| **turn as usize == position)
                    .count();
                assert_eq!(tickets as u64, weight, "{weights:?}");
            }
        }
    }

    #[test]
    fn scales_down_weights_that_share_nothing() {
        assert_eq!(reduced(&[6, 4]), [3, 2]);
        assert_eq!(reduced(&[65_535, 1]), [65_535, 1]);
        assert_eq!(reduced(&[u32::MAX, u32::MAX - 1, 1]), [32_768, 32_767, 1]);
        assert_eq!(reduced(&[]), [0; 0]);
    }
}
