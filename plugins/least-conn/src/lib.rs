//! The backend with the fewest requests under way for its weight, over all shards.
//!
//! The host counts what is under way at each backend on all shards, so one list per pick is all it takes. Backends that
//! are equally loaded take turns by a counter that the shards share: two shards that decide at the same moment on the
//! same numbers do not send both requests to the same idle backend.

use std::borrow::Cow;

use waypost_plugin::{
    Backend, BackendId, Backends, Counter, Pick, Policy, Promise, Request, export_policy,
};

/// Ties decided so far, on all shards.
const TIES: Counter = Counter::new(0);

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The policy.
#[derive(Debug, Default)]
pub struct LeastConn {
    /// All backends, in the order of the live numbers.
    ids: Vec<BackendId>,
    /// Their weights, 0 for those that take no requests: nothing is ever lower than a load for a weight of 0.
    weights: Vec<u32>,
    /// Whether those that are not 0 are all the same.
    even: bool,
}

impl Policy for LeastConn {
    type Config = ();
    const PROMISES: &'static [Promise] = &[Promise::LeastLoaded];

    fn configure(_: ()) -> Result<Self, String> {
        Ok(LeastConn::default())
    }

    fn update(&mut self, backends: &Backends) {
        let weight = |backend: &Backend| {
            if backend.is_healthy() {
                backend.weight
            } else {
                0
            }
        };
        self.ids = backends.iter().map(|backend| backend.id).collect();
        self.weights = backends.iter().map(weight).collect();
        let mut above_0 = self.weights.iter().filter(|weight| **weight > 0);
        let first = above_0.next();
        self.even = above_0.all(|weight| Some(weight) == first);
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let mut weights = Cow::from(&self.weights);
        for position in request
            .tried()
            .into_iter()
            .filter_map(|id| backends.position(id))
        {
            if let Some(weight) = weights.to_mut().get_mut(position) {
                *weight = 0;
            }
        }
        let loads = backends.in_flight();
        let position = if self.even {
            least_of_even(&loads, &weights)
        } else {
            least(&loads, &weights)
        };
        position
            .and_then(|position| self.ids.get(position).copied())
            .map_or(Pick::Unavailable, Pick::Forward)
    }
}

export_policy!(LeastConn);

#[cfg(test)]
waypost_conformance::conforms!(LeastConn);

/// The position of the lowest load where all weights above 0 are the same; among several, the one whose turn it is.
///
/// What [`least`] would find, for the common case and in two thirds of the time: no branches, and nothing to multiply.
fn least_of_even(loads: &[u32], weights: &[u32]) -> Option<usize> {
    const CLOSED: u32 = u32::MAX;
    let all = || {
        let pairs = loads.iter().zip(weights);
        pairs.map(|(&load, &weight)| {
            if weight == 0 {
                CLOSED
            } else {
                load.min(CLOSED - 1)
            }
        })
    };
    let (mut least, mut count) = (CLOSED, 0_u32);
    for load in all() {
        count = if load < least {
            1
        } else {
            count + u32::from(load == least)
        };
        least = least.min(load);
    }
    if least == CLOSED {
        return None;
    }
    let turn = if count > 1 {
        ticket() % u64::from(count)
    } else {
        0
    };
    let mut tied = all().enumerate().filter(|(_, load)| *load == least);
    tied.nth(turn as usize).map(|(position, _)| position)
}

/// The position of the lowest load for its weight; among several, the one whose turn it is.
fn least(loads: &[u32], weights: &[u32]) -> Option<usize> {
    let all = || loads.iter().copied().zip(weights.iter().copied());
    // load / weight of one against that of another, without a division.
    let times = |load: u32, weight: u32| u64::from(load) * u64::from(weight);

    let (mut least_load, mut its_weight) = (1, 0);
    let (mut count, mut sum, mut uneven) = (0_u64, 0_u64, false);
    for (load, weight) in all() {
        let (this, that) = (times(load, its_weight), times(least_load, weight));
        if this > that || weight == 0 {
            continue;
        }
        if this < that {
            (least_load, its_weight) = (load, weight);
            (count, sum, uneven) = (0, 0, false);
        }
        count += 1;
        sum += u64::from(weight);
        uneven |= weight != its_weight;
    }

    // Equal weights take turns. Unequal ones get their shares by steps of the golden ratio, which spread any number
    // of tickets evenly and put no two in a row close to one another.
    let mut place = match count {
        0 | 1 => 0,
        _ if uneven => scaled(ticket().wrapping_mul(GOLDEN), sum),
        _ => ticket() % count,
    };
    all().position(|(load, weight)| {
        if weight == 0 || times(load, its_weight) != times(least_load, weight) {
            return false;
        }
        let share = if uneven { u64::from(weight) } else { 1 };
        let found = place < share;
        place = place.saturating_sub(share);
        found
    })
}

/// Only a tie costs this call to the host.
fn ticket() -> u64 {
    TIES.add(1).cast_unsigned()
}

/// `fraction`, as so many parts of 2^64, of `whole`.
fn scaled(fraction: u64, whole: u64) -> u64 {
    ((u128::from(fraction) * u128::from(whole)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use waypost_plugin::testing::{Harness, TestRequest, backend};

    use super::*;

    fn pick(shard: &mut Harness<LeastConn>) -> String {
        let picked = shard.pick(&TestRequest::get("/"));
        picked.backend().unwrap_or("-").to_owned()
    }

    /// Picks and keeps the request under way, as the host does.
    fn hold(shard: &mut Harness<LeastConn>) -> String {
        let name = pick(shard);
        shard.begin(&name);
        name
    }

    #[test]
    fn picks_the_lowest_load_for_the_weight() {
        for (backends, expected) in [
            (&[("a", 1, 3), ("b", 1, 2), ("c", 1, 4)][..], "b"),
            (&[("a", 1, 1), ("b", 4, 3)], "b"),
            (&[("a", 1, 1), ("b", 4, 5)], "a"),
            (&[("a", 0, 0), ("b", 1, 9)], "b"),
            (&[("a", 0, 0)], "-"),
            (
                &[("a", u32::MAX, u32::MAX), ("b", u32::MAX - 1, u32::MAX)],
                "a",
            ),
            (&[], "-"),
        ] {
            let mut shard = Harness::<LeastConn>::new("{}").with_backends(
                backends
                    .iter()
                    .map(|&(name, weight, _)| backend(name).weight(weight)),
            );
            for (name, _, requests) in backends {
                shard.set_in_flight(name, *requests);
            }
            assert_eq!(pick(&mut shard), expected, "{backends:?}");
        }
    }

    #[test]
    fn leaves_out_what_takes_no_requests() {
        let mut shard = Harness::<LeastConn>::new("{}").with_backends([
            backend("a").down(),
            backend("b").draining(),
            backend("c"),
        ]);
        shard.set_in_flight("c", 100);
        assert_eq!(pick(&mut shard), "c");
        shard.set_backends([backend("b")]);
        assert_eq!(pick(&mut shard), "b");
    }

    #[test]
    fn shards_that_decide_at_once_do_not_pile_up() {
        let mut first =
            Harness::<LeastConn>::new("{}").with_backends(["a", "b", "c", "d"].map(backend));
        let mut shards = [
            first.another_shard(),
            first.another_shard(),
            first.another_shard(),
        ];
        // None of the four sees what the others have just picked.
        let mut names: Vec<_> = shards.iter_mut().map(pick).collect();
        names.push(pick(&mut first));
        names.sort();
        assert_eq!(names, ["a", "b", "c", "d"]);
    }

    #[test]
    fn idle_backends_share_by_weight() {
        let mut shard = Harness::<LeastConn>::new("{}").with_backends([
            backend("a").weight(3),
            backend("b"),
            backend("c"),
        ]);
        let mut counts = BTreeMap::new();
        for _ in 0..1000 {
            *counts.entry(pick(&mut shard)).or_insert(0) += 1;
        }
        assert!((598..=602).contains(&counts["a"]), "{counts:?}");
        assert!((198..=202).contains(&counts["b"]), "{counts:?}");
    }

    #[test]
    fn requests_that_stay_are_spread_by_weight_over_all_shards() {
        let mut first = Harness::<LeastConn>::new("{}").with_backends([
            backend("a"),
            backend("b").weight(2),
            backend("c").weight(5),
        ]);
        let mut second = first.another_shard();
        let mut counts = BTreeMap::new();
        for i in 0..80 {
            let shard = if i % 3 == 0 { &mut first } else { &mut second };
            *counts.entry(hold(shard)).or_insert(0) += 1;
        }
        assert_eq!(
            counts,
            BTreeMap::from([("a".into(), 10), ("b".into(), 20), ("c".into(), 50)])
        );
    }

    #[test]
    fn a_retry_goes_to_one_that_was_not_tried() {
        let mut shard = Harness::<LeastConn>::new("{}").with_backends([backend("a"), backend("b")]);
        shard.set_in_flight("b", 7);
        let (a, b) = (shard.id("a"), shard.id("b"));
        assert_eq!(
            shard.pick(&TestRequest::get("/").tried([a])).backend(),
            Some("b")
        );
        assert_eq!(
            shard.pick(&TestRequest::get("/").tried([a, b])).pick,
            Pick::unavailable()
        );
    }

    /// Both ways to look for the least find the same, but for whose turn it is in a tie.
    #[test]
    fn the_common_case_is_no_special_case() {
        for loads in [
            [3, 1, 2, 5],
            [0, 9, 0, 4],
            [7, 7, 7, 7],
            [2, 1, 0, 0],
            [1, 1, 1, 0],
        ] {
            for closed in 0..16_u32 {
                let weights = [0, 1, 2, 3].map(|bit| if closed >> bit & 1 == 1 { 0 } else { 3 });
                let load = |position: Option<usize>| position.map(|position| loads[position]);
                let even = least_of_even(&loads, &weights);
                assert!(even.is_none_or(|position| weights[position] > 0));
                assert_eq!(
                    load(even),
                    load(least(&loads, &weights)),
                    "{loads:?} {weights:?}"
                );
            }
        }
    }

    #[test]
    fn leaves_the_counter_alone_without_a_tie() {
        let mut shard = Harness::<LeastConn>::new("{}").with_backends([backend("a"), backend("b")]);
        shard.set_in_flight("b", 1);
        pick(&mut shard);
        assert_eq!(shard.counter(0), 0);
    }
}
