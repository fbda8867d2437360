//! A cookie keeps a client with its backend for as long as that is up; new clients take turns.

use serde::Deserialize;
use waypost_plugin::{
    Backend, BackendId, Backends, Counter, Pick, Policy, Promise, Request, export_policy,
};

/// Whose turn it is among the new clients, over all shards.
const NEW: Counter = Counter::new(0);

/// The `config` table.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The cookie's name.
    cookie: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cookie: "backend".into(),
        }
    }
}

/// The policy.
pub struct YourPolicy {
    cookie: String,
    /// What the cookie says of each backend.
    marks: Vec<(String, BackendId)>,
}

impl Policy for YourPolicy {
    type Config = Settings;
    const PROMISES: &'static [Promise] = &[Promise::Sticky];

    fn configure(config: Settings) -> Result<Self, String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if config.cookie.is_empty() || !config.cookie.bytes().all(token) {
            return Err("cookie: write a name of letters, digits, `-`, `_` and `.`".into());
        }
        Ok(YourPolicy {
            cookie: config.cookie,
            marks: Vec::new(),
        })
    }

    fn update(&mut self, backends: &Backends) {
        let marked = backends
            .iter()
            .map(|backend| (mark(&backend.name), backend.id));
        self.marks = marked.collect();
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let wanted = request.cookie(&self.cookie);
        let wanted = wanted.and_then(|mark| self.marks.iter().find(|(known, _)| *known == mark));
        if let Some((_, id)) = wanted
            && backends.healthy().any(|backend| backend.id == *id)
        {
            return Pick::forward(*id);
        }
        let choices: Vec<&Backend> = backends.healthy().collect();
        let Some(backend) = choices.get(NEW.turn(choices.len())) else {
            return Pick::unavailable();
        };
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Lax",
            self.cookie,
            mark(&backend.name)
        );
        request.response().append_header("set-cookie", cookie);
        Pick::forward(backend.id)
    }
}

export_policy!(YourPolicy);

/// The same for the same name on every machine, and no name that a client would read (FNV-1a).
fn mark(name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use waypost_plugin::testing::{Harness, TestRequest, backend};

    use super::*;

    #[test]
    fn a_client_stays_where_it_was() {
        let mut harness = Harness::<YourPolicy>::new(r#"{ "cookie": "sid" }"#)
            .with_backends([backend("a"), backend("b")]);
        assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("a"));
        let first = harness.pick(&TestRequest::get("/"));
        assert_eq!(first.backend(), Some("b"));
        let cookie = first.response_header("set-cookie").unwrap();
        let (cookie, attributes) = cookie.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax");

        let again = harness.pick(&TestRequest::get("/").header("cookie", cookie));
        assert_eq!(again.backend(), Some("b"));
        assert_eq!(again.response_header("set-cookie"), None);

        harness.set_backends([backend("a"), backend("b").down()]);
        let moved = harness.pick(&TestRequest::get("/").header("cookie", cookie));
        assert_eq!(moved.backend(), Some("a"));
        assert!(moved.response_header("set-cookie").is_some());
    }

    #[test]
    fn a_name_that_is_no_name_is_refused() {
        for wrong in [
            r#"{ "cookie": "" }"#,
            r#"{ "cookie": "a b" }"#,
            r#"{ "x": 1 }"#,
        ] {
            assert!(Harness::<YourPolicy>::try_new(wrong).is_err(), "{wrong}");
        }
    }
}
