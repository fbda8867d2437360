//! Never comes back from the pick of a request that asks for it.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Loops;

impl Policy for Loops {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Loops)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            loop {
                std::hint::black_box(());
            }
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Loops);
