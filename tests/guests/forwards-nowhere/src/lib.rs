//! Picks a backend that nobody has heard of.

use waypost_plugin::{BackendId, Backends, Pick, Policy, Request, export_policy};

struct ForwardsNowhere;

impl Policy for ForwardsNowhere {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(ForwardsNowhere)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            return Pick::forward(BackendId::new(u64::MAX));
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(ForwardsNowhere);
