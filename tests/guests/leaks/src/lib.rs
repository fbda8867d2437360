//! Remembers every client that ever came.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Leaks {
    clients: Vec<String>,
}

impl Policy for Leaks {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Leaks {
            clients: Vec::new(),
        })
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        self.clients.push(request.client_address());
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Leaks);
