//! Calls itself until the stack is used up.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Recurses;

#[expect(unconditional_recursion, reason = "it is what this guest is for")]
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    std::hint::black_box(deeper)(depth + 1) + depth
}

impl Policy for Recurses {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Recurses)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            std::hint::black_box(deeper(1));
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Recurses);
