//! Picks a backend that takes no requests, where there is one.

use waypost_plugin::{BackendState, Backends, Pick, Policy, Request, export_policy};

struct ForwardsToDown;

impl Policy for ForwardsToDown {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(ForwardsToDown)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let asked = request.header("x-misbehave").is_some();
        let wanted = |state| {
            if asked {
                state != BackendState::Up
            } else {
                state == BackendState::Up
            }
        };
        match backends.iter().find(|backend| wanted(backend.state)) {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(ForwardsToDown);
