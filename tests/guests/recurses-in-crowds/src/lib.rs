//! Goes a level deeper for each backend.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct RecursesInCrowds;

impl Policy for RecursesInCrowds {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(RecursesInCrowds)
    }

    fn pick(&mut self, _request: &Request, backends: &Backends) -> Pick {
        std::hint::black_box(deep(backends.len()));
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(RecursesInCrowds);

fn deep(levels: usize) -> usize {
    let space = std::hint::black_box([levels; 64]);
    match levels {
        0 => 0,
        _ => deep(levels - 1) + space[levels % 64],
    }
}
