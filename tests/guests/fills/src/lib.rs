//! Fills memory over and over: each bulk operation is one instruction, which no deadline interrupts.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Fills;

impl Policy for Fills {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Fills)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            let mut memory = vec![0u8; 8 << 20];
            for byte in (0..=u8::MAX).cycle() {
                std::hint::black_box(&mut memory).fill(byte);
            }
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Fills);
