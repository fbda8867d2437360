//! Answers by itself with the status that a request asks for, whatever that is.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Responds;

impl Policy for Responds {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Responds)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let wanted = request
            .header("x-status")
            .and_then(|status| status.parse().ok());
        match (wanted, backends.healthy().next()) {
            (Some(status), _) => Pick::respond(status),
            (None, Some(backend)) => Pick::forward(backend.id),
            (None, None) => Pick::unavailable(),
        }
    }
}

export_policy!(Responds);
