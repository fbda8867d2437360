//! Allocates without end, and aborts when there is no more.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Bombs;

impl Policy for Bombs {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Bombs)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
            }
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Bombs);
