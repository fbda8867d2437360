//! Behaves: the policy of the README, always the first backend that takes requests.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct FirstHealthy;

impl Policy for FirstHealthy {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(FirstHealthy)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        match backends.healthy().next() {
            Some(backend) => {
                request.set_header("x-picked", &backend.name);
                Pick::forward(backend.id)
            }
            None => Pick::unavailable(),
        }
    }
}

export_policy!(FirstHealthy);
