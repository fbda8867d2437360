//! Panics when it is configured.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct PanicsInConfigure;

impl Policy for PanicsInConfigure {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        panic!("not with this configuration")
    }

    fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
        Pick::unavailable()
    }
}

export_policy!(PanicsInConfigure);
