//! Panics in the pick of a request that asks for it; the trial's requests do not.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Panics;

impl Policy for Panics {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Panics)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            panic!("as the request asks");
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Panics);
