//! Writes a line to the log for every letter of a novel.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy, log};

struct FloodsLog;

impl Policy for FloodsLog {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(FloodsLog)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            for line in 0..2_000 {
                log::info(format!("line {line} of the flood: {}", "x".repeat(200)));
            }
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(FloodsLog);
