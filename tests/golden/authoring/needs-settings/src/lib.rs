use serde::Deserialize;
use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Deserialize)]
pub struct Settings {
    cookie: String,
}

pub struct Mine(String);

impl Policy for Mine {
    type Config = Settings;

    fn configure(config: Settings) -> Result<Self, String> {
        Ok(Mine(config.cookie))
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let wanted = request.cookie(&self.0);
        match backends.healthy().find(|b| Some(&b.name) == wanted.as_ref()) {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Mine);
