//! The backend with the fewest requests under way for its weight, over all shards.
//!
//! The host counts what is under way at each backend on all shards, so one list per pick is all it takes. Backends that
//! are equally loaded take turns by a counter that the shards share: two shards that decide at the same moment on the
//! same numbers do not send both requests to the same idle backend.

use waypost_plugin::{
    Backends, Counter, LeastLoaded, Pick, Policy, Promise, Request, export_policy,
};

/// Ties decided so far, on all shards.
const TIES: Counter = Counter::new(0);

/// The policy.
#[derive(Debug, Default)]
pub struct LeastConn(LeastLoaded);

impl Policy for LeastConn {
    type Config = ();
    const PROMISES: &'static [Promise] = &[Promise::LeastLoaded];

    fn configure(_: ()) -> Result<Self, String> {
        Ok(LeastConn::default())
    }

    fn update(&mut self, backends: &Backends) {
        self.0 = LeastLoaded::among(backends, |_| true);
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        self.0
            .pick(request, backends, TIES)
            .map_or(Pick::Unavailable, Pick::forward)
    }
}

export_policy!(LeastConn);

#[cfg(test)]
waypost_conformance::conforms!(LeastConn);

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

    #[test]
    fn leaves_the_counter_alone_without_a_tie() {
        let mut shard = Harness::<LeastConn>::new("{}").with_backends([backend("a"), backend("b")]);
        shard.set_in_flight("b", 1);
        pick(&mut shard);
        assert_eq!(shard.counter(0), 0);
    }
}
