//! Edits a request that asks for it, and the response to come, and panics before the edits are due.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct EditsThenPanics;

impl Policy for EditsThenPanics {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(EditsThenPanics)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        request.set_header("x-edited", "by the policy");
        request.remove_header("x-original");
        request.response().set_header("x-edited", "by the policy");
        assert!(request.header("x-misbehave").is_none(), "after the edits");
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(EditsThenPanics);
