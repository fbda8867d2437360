//! Runs a policy: what happens around each hook, the same in the sandbox and in tests.

use std::rc::Rc;

use crate::{
    Backend, BackendId, Backends, Config, Outcome, Pick, Policy, Request, Response,
    request::Attempt,
};

/// A configured policy with what it is handed in each call.
pub(crate) struct Runner<P> {
    policy: P,
    attempt: Rc<Attempt>,
    backends: Backends,
    request: Request,
    response: Response,
}

impl<P: Policy> Runner<P> {
    pub(crate) fn configure(json: &str) -> Result<Self, String> {
        let policy = P::configure(parse_config(json)?)?;
        let attempt = Rc::new(Attempt::default());
        Ok(Runner {
            policy,
            backends: Backends::new(Rc::clone(&attempt)),
            request: Request::new(Rc::clone(&attempt)),
            attempt,
            response: Response::new(),
        })
    }

    pub(crate) fn update(&mut self, backends: Vec<Backend>) {
        self.backends.replace(backends);
        self.policy.update(&self.backends);
    }

    pub(crate) fn pick(&mut self, attempt: u32, ticket: u64) -> Pick {
        self.attempt.begin(attempt, ticket);
        let pick = self.policy.pick(&self.request, &self.backends);
        self.attempt.end();
        pick
    }

    pub(crate) fn observe(&mut self, outcomes: &[Outcome]) {
        self.policy.observe(outcomes);
    }

    pub(crate) fn respond(&mut self, backend: BackendId) {
        self.policy.respond(backend, &self.response);
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        self.policy.save()
    }

    pub(crate) fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.policy.restore(state)
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn policy(&self) -> &P {
        &self.policy
    }
}

/// Reads a `config` table. Where there is none the host sends `{}`, which is as good as nothing for a `Config` that
/// wants nothing, such as `()`.
fn parse_config<C: Config>(json: &str) -> Result<C, String> {
    let error =
        match serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json)) {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
    match serde_json::from_str("null") {
        Ok(config) if json.trim() == "{}" => Ok(config),
        Ok(_) if size_of::<C>() == 0 => Err("config: this policy takes no settings".into()),
        _ => {
            let message = error.inner().to_string();
            let message = without_position(&message);
            match error.path().to_string().as_str() {
                "." => Err(format!("config: {message}")),
                path => Err(format!("config.{path}: {message}")),
            }
        }
    }
}

/// The host wrote the JSON from a table of its own, so a line and column in it would only mislead.
fn without_position(message: &str) -> &str {
    message
        .rsplit_once(" at line ")
        .map_or(message, |(message, _)| message)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        cookie: String,
        #[serde(default)]
        ttl_s: u32,
    }

    #[test]
    fn a_policy_without_settings_takes_an_empty_table() {
        assert_eq!(parse_config::<()>("{}"), Ok(()));
        assert_eq!(parse_config::<()>("null"), Ok(()));
        assert_eq!(
            parse_config::<()>(r#"{"x":1}"#).unwrap_err(),
            "config: this policy takes no settings"
        );
    }

    #[test]
    fn says_what_is_wrong_with_the_settings() {
        for (json, expected) in [
            ("{}", "config: missing field `cookie`"),
            (
                r#"{"cookie":1}"#,
                "config.cookie: invalid type: integer `1`, expected a string",
            ),
            (
                r#"{"cookie":"a","tll_s":1}"#,
                "config.tll_s: unknown field `tll_s`, expected `cookie` or `ttl_s`",
            ),
            ("", "config: EOF while parsing a value"),
        ] {
            assert_eq!(parse_config::<Settings>(json).unwrap_err(), expected);
        }
        assert_eq!(
            parse_config(r#"{"cookie":"a"}"#),
            Ok(Settings {
                cookie: "a".into(),
                ttl_s: 0
            })
        );
    }
}
