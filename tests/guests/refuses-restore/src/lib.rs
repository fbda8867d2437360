//! Takes a state over, and then says that it cannot use it.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Default)]
struct RefusesRestore {
    count: u64,
}

impl Policy for RefusesRestore {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(RefusesRestore::default())
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
        Err("this is of another time".to_owned())
    }
}

export_policy!(RefusesRestore, state);
