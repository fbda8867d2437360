//! Panics when it is to hand its state over.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Default)]
struct TrapsInSave {
    count: u64,
}

impl Policy for TrapsInSave {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(TrapsInSave::default())
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
        panic!("in the middle of a save");
    }
}

export_policy!(TrapsInSave, state);
