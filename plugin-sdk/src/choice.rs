//! Ways to choose that policies are made of.

use std::borrow::Cow;

use crate::{Backend, BackendId, Backends, Counter, Request};

/// 2^64 divided by the golden ratio: its multiples, modulo 2^64, fall as evenly as can be, however many there are.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Chooses the backend with the fewest requests under way for its weight, over all shards, among some backends or all.
///
/// Make it in [`update`](crate::Policy::update), where the backends are known, and ask it in
/// [`pick`](crate::Policy::pick).
///
/// ```
/// use waypost_plugin::{Backends, Counter, LeastLoaded, Pick, Policy, Request};
///
/// /// Backends in zone `a` if there are any, else all.
/// #[derive(Default)]
/// struct Nearest {
///     near: LeastLoaded,
///     all: LeastLoaded,
/// }
///
/// impl Policy for Nearest {
///     type Config = ();
///
///     fn configure(_: ()) -> Result<Self, String> {
///         Ok(Nearest::default())
///     }
///
///     fn update(&mut self, backends: &Backends) {
///         self.near = LeastLoaded::among(backends, |backend| backend.label("zone") == Some("a"));
///         self.all = LeastLoaded::among(backends, |_| true);
///     }
///
///     fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
///         const NEAR: Counter = Counter::new(0);
///         const ALL: Counter = Counter::new(1);
///         let near = self.near.pick(request, backends, NEAR);
///         let picked = near.or_else(|| self.all.pick(request, backends, ALL));
///         picked.map_or(Pick::Unavailable, Pick::forward)
///     }
/// }
/// # use waypost_plugin::testing::{Harness, TestRequest, backend};
/// # let mut harness = Harness::<Nearest>::new("{}")
/// #     .with_backends([backend("a").label("zone", "a"), backend("b")]);
/// # harness.set_in_flight("a", 9);
/// # assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("a"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct LeastLoaded {
    /// All backends, in the order of the live numbers.
    ids: Vec<BackendId>,
    /// Their weights, 0 for those that are not to be chosen: nothing is ever lower than a load for a weight of 0.
    weights: Vec<u32>,
    /// Whether those that are not 0 are all the same.
    even: bool,
}

impl LeastLoaded {
    /// Chooses among the backends that take requests and that `is_wanted`.
    pub fn among(backends: &Backends, is_wanted: impl Fn(&Backend) -> bool) -> Self {
        let weight = |backend: &Backend| {
            if backend.is_healthy() && is_wanted(backend) {
                backend.weight
            } else {
                0
            }
        };
        let weights: Vec<u32> = backends.iter().map(weight).collect();
        let mut above_0 = weights.iter().filter(|weight| **weight > 0);
        let first = above_0.next();
        let even = above_0.all(|weight| Some(weight) == first);
        LeastLoaded {
            ids: backends.iter().map(|backend| backend.id).collect(),
            weights,
            even,
        }
    }

    /// The least loaded one that was not tried for this request; `None` where there is none.
    ///
    /// Those that are equally loaded share by weight, in turns that `ties` counts for all shards: shards that decide at
    /// the same moment on the same numbers do not all take the same idle backend. Costs one call to the host, and one
    /// more for a tie.
    pub fn pick(&self, request: &Request, backends: &Backends, ties: Counter) -> Option<BackendId> {
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
        // Only a tie costs this call to the host.
        let turn = || ties.add(1).cast_unsigned();
        let position = if self.even {
            least_of_even(&loads, &weights, turn)
        } else {
            least(&loads, &weights, turn)
        };
        self.ids.get(position?).copied()
    }
}

/// The position of the lowest load where all weights above 0 are the same; among several, the one whose turn it is.
///
/// What [`least`] would find, for the common case and in two thirds of the time: no branches, and nothing to multiply.
fn least_of_even(loads: &[u32], weights: &[u32], turn: impl FnOnce() -> u64) -> Option<usize> {
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
        turn() % u64::from(count)
    } else {
        0
    };
    let mut tied = all().enumerate().filter(|(_, load)| *load == least);
    tied.nth(turn as usize).map(|(position, _)| position)
}

/// The position of the lowest load for its weight; among several, the one whose turn it is.
fn least(loads: &[u32], weights: &[u32], turn: impl FnOnce() -> u64) -> Option<usize> {
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
        _ if uneven => scaled(turn().wrapping_mul(GOLDEN), sum),
        _ => turn() % count,
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

/// `fraction`, as so many parts of 2^64, of `whole`.
fn scaled(fraction: u64, whole: u64) -> u64 {
    ((u128::from(fraction) * u128::from(whole)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Pick, Policy,
        testing::{Harness, TestRequest, backend},
    };

    struct Least(LeastLoaded);

    impl Policy for Least {
        type Config = ();

        fn configure(_: ()) -> Result<Self, String> {
            Ok(Least(LeastLoaded::default()))
        }

        fn update(&mut self, backends: &Backends) {
            self.0 = LeastLoaded::among(backends, |backend| backend.name != "never");
        }

        fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
            let picked = self.0.pick(request, backends, Counter::new(3));
            picked.map_or(Pick::Unavailable, Pick::forward)
        }
    }

    #[test]
    fn takes_the_lowest_load_for_the_weight() {
        for (backends, expected) in [
            (&[("a", 1, 3), ("b", 1, 2), ("never", 1, 0)][..], Some("b")),
            (&[("a", 1, 1), ("b", 4, 3)], Some("b")),
            (&[("a", 1, 1), ("b", 4, 5)], Some("a")),
            (&[("a", 0, 0), ("b", 1, 9)], Some("b")),
            (
                &[("a", u32::MAX, u32::MAX), ("b", u32::MAX - 1, u32::MAX)],
                Some("a"),
            ),
            (&[("never", 1, 0)], None),
            (&[], None),
        ] {
            let mut harness = Harness::<Least>::new("{}").with_backends(
                backends
                    .iter()
                    .map(|&(name, weight, _)| backend(name).weight(weight)),
            );
            for (name, _, requests) in backends {
                harness.set_in_flight(name, *requests);
            }
            let picked = harness.pick(&TestRequest::get("/"));
            assert_eq!(picked.backend(), expected, "{backends:?}");
            assert_eq!(harness.counter(3), 0, "no tie, no turn");
        }
    }

    #[test]
    fn leaves_out_what_takes_nothing_and_what_was_tried() {
        let mut harness = Harness::<Least>::new("{}").with_backends([
            backend("a").down(),
            backend("b").draining(),
            backend("c"),
            backend("d"),
        ]);
        harness.set_in_flight("c", 9);
        harness.set_in_flight("d", 8);
        let (c, d) = (harness.id("c"), harness.id("d"));
        let request = TestRequest::get("/");
        assert_eq!(harness.pick(&request).backend(), Some("d"));
        assert_eq!(
            harness.pick(&request.clone().tried([d])).backend(),
            Some("c")
        );
        assert_eq!(
            harness.pick(&request.tried([d, c])).pick,
            Pick::unavailable()
        );
    }

    #[test]
    fn ties_share_by_weight_over_all_shards() {
        let mut first = Harness::<Least>::new("{}").with_backends([
            backend("a").weight(3),
            backend("b"),
            backend("c"),
        ]);
        let mut second = first.another_shard();
        let mut counts = BTreeMap::new();
        for i in 0..1000 {
            let shard = if i % 3 == 0 { &mut first } else { &mut second };
            let picked = shard.pick(&TestRequest::get("/"));
            *counts
                .entry(picked.backend().unwrap().to_owned())
                .or_insert(0) += 1;
        }
        for (name, share) in [("a", 600_i32), ("b", 200), ("c", 200)] {
            assert!((counts[name] - share).abs() <= 3, "{counts:?}");
        }
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
                let even = least_of_even(&loads, &weights, || 1);
                assert!(even.is_none_or(|position| weights[position] > 0));
                assert_eq!(
                    load(even),
                    load(least(&loads, &weights, || 1)),
                    "{loads:?} {weights:?}"
                );
            }
        }
    }
}
