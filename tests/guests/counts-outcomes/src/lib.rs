//! Hears of outcomes and tells the next request what it has heard: `RESPONSES/FAILURES`.

use waypost_plugin::{Backends, Ending, Outcome, Pick, Policy, Request, export_policy};

#[derive(Default)]
struct CountsOutcomes {
    responses: u32,
    failures: u32,
}

impl Policy for CountsOutcomes {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(CountsOutcomes::default())
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        request.set_header("x-heard", format!("{}/{}", self.responses, self.failures));
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }

    fn observe(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match outcome.ending {
                Ending::Status(_) => self.responses += 1,
                Ending::Failed(_) => self.failures += 1,
            }
        }
    }
}

export_policy!(CountsOutcomes, outcomes);
