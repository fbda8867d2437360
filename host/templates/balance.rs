//! Two backends at random, and of the two the one that has less to do for its weight.
//!
//! Two draws are nearly as good as a look at all of them, cost the same for ten thousand backends as for ten, and do
//! not send everybody to the one that has just become idle.

use waypost_plugin::{Backend, Backends, Pick, Policy, Request, export_policy, random_below};

/// The policy.
pub struct YourPolicy;

impl Policy for YourPolicy {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(YourPolicy)
    }

    fn pick(&mut self, _request: &Request, backends: &Backends) -> Pick {
        // Those that are up, have a weight, and have not been tried for this request.
        let choices: Vec<&Backend> = backends.healthy().collect();
        let Some(one) = draw(&choices) else {
            return Pick::unavailable();
        };
        let other = draw(&choices).unwrap_or(one);
        let load = |backend: &Backend| u64::from(backends.in_flight_of(backend.id)) + 1;
        // load / weight of the one against that of the other, without a division.
        let one_is_lighter =
            load(one) * u64::from(other.weight) <= load(other) * u64::from(one.weight);
        Pick::forward(if one_is_lighter { one.id } else { other.id })
    }
}

export_policy!(YourPolicy);

fn draw<'a>(choices: &[&'a Backend]) -> Option<&'a Backend> {
    let index = random_below(choices.len() as u64);
    choices.get(index as usize).copied()
}

#[cfg(test)]
mod tests {
    use waypost_plugin::testing::{Harness, TestRequest, backend};

    use super::*;

    #[test]
    fn the_busiest_is_picked_by_nobody_but_itself() {
        let mut harness =
            Harness::<YourPolicy>::new("{}").with_backends([backend("a"), backend("b")]);
        harness.set_in_flight("b", 9);
        let picks: Vec<_> = (0..100)
            .map(|_| harness.pick(&TestRequest::get("/")))
            .collect();
        let to_b = picks
            .iter()
            .filter(|picked| picked.backend() == Some("b"))
            .count();
        // Only where both draws are b: a quarter of them.
        assert!((10..40).contains(&to_b), "{to_b}");
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        let mut harness = Harness::<YourPolicy>::new("{}").with_backends([
            backend("a"),
            backend("b"),
            backend("c").down(),
        ]);
        let retry = TestRequest::get("/").tried([harness.id("a")]);
        assert_eq!(harness.pick(&retry).backend(), Some("b"));
        let retry = TestRequest::get("/").tried([harness.id("a"), harness.id("b")]);
        assert_eq!(harness.pick(&retry).pick, Pick::Unavailable);
    }
}
