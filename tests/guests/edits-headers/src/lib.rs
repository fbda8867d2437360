//! Makes the edits that its configuration lists, all in every pick, and says which were accepted: one letter for each,
//! `y` or `n`, in the request's field `x-accepted`.

use serde::Deserialize;
use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    request: Vec<Edit>,
    #[serde(default)]
    response: Vec<Edit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Edit {
    Set(String, String),
    Append(String, String),
    Remove(String),
}

struct EditsHeaders(Settings);

impl Policy for EditsHeaders {
    type Config = Settings;

    fn configure(config: Settings) -> Result<Self, String> {
        Ok(EditsHeaders(config))
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let mut accepted = String::new();
        for edit in &self.0.request {
            let made = match edit {
                Edit::Set(name, value) => request.set_header(name, value),
                Edit::Append(name, value) => request.append_header(name, value),
                Edit::Remove(name) => request.remove_header(name),
            };
            accepted.push(if made { 'y' } else { 'n' });
        }
        for edit in &self.0.response {
            let made = match edit {
                Edit::Set(name, value) => request.response().set_header(name, value),
                Edit::Append(name, value) => request.response().append_header(name, value),
                Edit::Remove(name) => request.response().remove_header(name),
            };
            accepted.push(if made { 'y' } else { 'n' });
        }
        request.set_header("x-accepted", accepted);
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(EditsHeaders);
