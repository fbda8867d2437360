//! Takes far longer for each pick than it needs to, and not so long that anybody stops it.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Burns;

impl Policy for Burns {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Burns)
    }

    fn pick(&mut self, _request: &Request, backends: &Backends) -> Pick {
        let sum = (0..300_000_u32).fold(0, |sum, number| std::hint::black_box(sum ^ number));
        std::hint::black_box(sum);
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Burns);
