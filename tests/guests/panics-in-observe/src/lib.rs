//! Panics when it hears of an outcome.

use waypost_plugin::{Backends, Outcome, Pick, Policy, Request, export_policy};

struct PanicsInObserve;

impl Policy for PanicsInObserve {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(PanicsInObserve)
    }

    fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }

    fn observe(&mut self, _: &[Outcome]) {
        panic!("did not want to know")
    }
}

export_policy!(PanicsInObserve, outcomes);
