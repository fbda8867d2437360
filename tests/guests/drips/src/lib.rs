//! Forgets a few bytes of each request, for ever.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Drips;

impl Policy for Drips {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Drips)
    }

    fn pick(&mut self, _request: &Request, backends: &Backends) -> Pick {
        std::mem::forget(std::hint::black_box(Box::new(0_u32)));
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Drips);
