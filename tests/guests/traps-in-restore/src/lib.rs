//! Panics when it has taken half a state over.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Default)]
struct TrapsInRestore {
    count: u64,
}

impl Policy for TrapsInRestore {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(TrapsInRestore::default())
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

    fn restore(&mut self, _: &[u8]) -> Result<(), String> {
        self.count = 1_000_000;
        panic!("in the middle of a restore");
    }
}

export_policy!(TrapsInRestore, state);
