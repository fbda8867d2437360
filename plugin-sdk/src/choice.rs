//! Ways to choose that policies are made of, for those that choose so only some of the time.

use crate::{Backend, Backends, Counter};

/// 2^64 divided by the golden ratio: its multiples, modulo 2^64, fall as evenly as can be, however many there are.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Backends {
    /// Of the backends that this request may go to ([`healthy`](Self::healthy)) and that `is_wanted`, the one with the
    /// fewest requests under way for its weight, over all shards; `None` where there is none.
    ///
    /// Those that are equally loaded share by weight, in an order that a counter of all shards keeps: shards that decide
    /// at the same moment do not all take the same idle backend. Costs one call to the host, and one more for a tie.
    ///
    /// ```
    /// # use waypost_plugin::{Backends, Counter, Pick, Policy, Request};
    /// # use waypost_plugin::testing::{Harness, TestRequest, backend};
    /// # struct Nearest;
    /// # impl Policy for Nearest {
    /// #     type Config = ();
    /// #     fn configure(_: ()) -> Result<Self, String> { Ok(Nearest) }
    /// // Those in the same zone if there are any, else all.
    /// fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
    ///     const TIES: Counter = Counter::new(0);
    ///     let near = backends.least_loaded(TIES, |backend| backend.label("zone") == Some("a"));
    ///     match near.or_else(|| backends.least_loaded(TIES, |_| true)) {
    ///         Some(backend) => Pick::forward(backend.id),
    ///         None => Pick::unavailable(),
    ///     }
    /// }
    /// # }
    /// # let mut harness = Harness::<Nearest>::new("{}")
    /// #     .with_backends([backend("a").label("zone", "a"), backend("b")]);
    /// # harness.set_in_flight("a", 9);
    /// # assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("a"));
    /// ```
    pub fn least_loaded(
        &self,
        ties: Counter,
        is_wanted: impl Fn(&Backend) -> bool,
    ) -> Option<&Backend> {
        let loads = self.in_flight();
        let candidates = || {
            self.iter()
                .zip(loads.iter().copied())
                .filter(|(backend, _)| self.may_take(backend) && is_wanted(backend))
        };
        let (first, its_load) =
            candidates().reduce(|best, next| if is_less(next, best) { next } else { best })?;
        let tied = || candidates().filter(|&other| !is_less((first, its_load), other));
        let whole: u64 = tied().map(|(backend, _)| u64::from(backend.weight)).sum();
        if whole == u64::from(first.weight) {
            return Some(first);
        }
        let turn = ties.add(1).cast_unsigned().wrapping_mul(GOLDEN);
        let mut place = ((u128::from(turn) * u128::from(whole)) >> 64) as u64;
        tied()
            .find(|(backend, _)| {
                let share = u64::from(backend.weight);
                let found = place < share;
                place = place.saturating_sub(share);
                found
            })
            .map(|(backend, _)| backend)
    }
}

/// Whether a load is less than another, each for its weight, without a division.
fn is_less((backend, load): (&Backend, u32), (other, its_load): (&Backend, u32)) -> bool {
    u64::from(load) * u64::from(other.weight) < u64::from(its_load) * u64::from(backend.weight)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Pick, Policy, Request,
        testing::{Harness, TestRequest, backend},
    };

    struct Least;

    impl Policy for Least {
        type Config = ();

        fn configure(_: ()) -> Result<Self, String> {
            Ok(Least)
        }

        fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
            let wanted = backends.least_loaded(Counter::new(3), |backend| backend.name != "never");
            wanted.map_or(Pick::Unavailable, |backend| Pick::forward(backend.id))
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
}
