//! Picks the first backend that is up, also when it was just tried in vain for this very request.

use waypost_plugin::{BackendState, Backends, Pick, Policy, Request, export_policy};

struct ForwardsAgain;

impl Policy for ForwardsAgain {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(ForwardsAgain)
    }

    fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
        match backends
            .iter()
            .find(|backend| backend.state == BackendState::Up)
        {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(ForwardsAgain);
