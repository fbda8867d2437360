//! Panics in every pick.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct PanicsAlways;

impl Policy for PanicsAlways {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(PanicsAlways)
    }

    fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
        panic!("no idea")
    }
}

export_policy!(PanicsAlways);
