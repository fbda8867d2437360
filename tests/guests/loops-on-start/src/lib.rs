//! Never comes back from its instantiation.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct LoopsOnStart;

/// What runs first in a module of this name.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    loop {
        std::hint::black_box(());
    }
}

impl Policy for LoopsOnStart {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(LoopsOnStart)
    }

    fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
        Pick::unavailable()
    }
}

export_policy!(LoopsOnStart);
