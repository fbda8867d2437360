//! Traps when it is instantiated, before anything is asked of it.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct TrapsOnStart;

/// What runs first in a module of this name.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    core::arch::wasm32::unreachable()
}

impl Policy for TrapsOnStart {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(TrapsOnStart)
    }

    fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
        Pick::unavailable()
    }
}

export_policy!(TrapsOnStart);
