//! Refuses every configuration, with a reason.

use serde::Deserialize;
use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    cookie: String,
}

struct RefusesConfigure;

impl Policy for RefusesConfigure {
    type Config = Settings;

    fn configure(config: Settings) -> Result<Self, String> {
        Err(format!("there is no cookie called {:?}", config.cookie))
    }

    fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
        Pick::unavailable()
    }
}

export_policy!(RefusesConfigure);
