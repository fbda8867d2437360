//! Panics at the n-th request that it has seen in its life, not counting those of the trial.

use serde::Deserialize;
use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Deserialize)]
struct Settings {
    n: u32,
}

struct PanicsAtNth {
    n: u32,
    seen: u32,
}

impl Policy for PanicsAtNth {
    type Config = Settings;

    fn configure(config: Settings) -> Result<Self, String> {
        Ok(PanicsAtNth {
            n: config.n,
            seen: 0,
        })
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            self.seen += 1;
            assert!(self.seen < self.n, "this is request {}", self.seen);
            request.set_header("x-seen", self.seen.to_string());
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(PanicsAtNth);
