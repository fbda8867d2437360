//! Hands over twice as much as it may.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Default)]
struct SavesTooMuch {
    count: u64,
}

impl Policy for SavesTooMuch {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(SavesTooMuch::default())
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        self.count += 1;
        request.set_header("x-count", self.count.to_string());
        request.set_header("x-version", env!("CARGO_PKG_NAME"));
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }

    fn save(&self) -> Vec<u8> {
        vec![b'1'; 2 * 1024 * 1024]
    }
}

export_policy!(SavesTooMuch, state);
