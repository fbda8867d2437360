//! Picks a backend that has left, for a request that asks for it.

use waypost_plugin::{BackendId, Backends, Pick, Policy, Request, export_policy};

#[derive(Default)]
struct ForwardsToDeparted {
    /// All that there ever were.
    seen: Vec<BackendId>,
}

impl Policy for ForwardsToDeparted {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(ForwardsToDeparted::default())
    }

    fn update(&mut self, backends: &Backends) {
        self.seen.extend(backends.iter().map(|backend| backend.id));
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let departed = self.seen.iter().find(|id| backends.get(**id).is_none());
        if let (Some(_), Some(id)) = (request.header("x-misbehave"), departed) {
            return Pick::forward(*id);
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(ForwardsToDeparted);
