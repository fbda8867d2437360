//! Does not come to an end where there are many backends.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct LoopsInCrowds;

impl Policy for LoopsInCrowds {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(LoopsInCrowds)
    }

    fn pick(&mut self, _request: &Request, backends: &Backends) -> Pick {
        while backends.len() > 1_000 {
            std::hint::black_box(backends);
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(LoopsInCrowds);
