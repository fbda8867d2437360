//! A client stays with its backend by a cookie.
//!
//! A client without the cookie goes to the backend with the fewest requests under way for its weight, and the response
//! gives it a cookie that names this backend. With it, the client comes back to the same one for as long as that one is
//! up: for sessions that live in the memory of the application.
//!
//! # Settings
//!
//! ```toml
//! [policy.sticky]
//! builtin = "sticky-cookie"
//! config  = { cookie = "srv", max_age = "12h", secret = "a long line that only the proxies know" }
//! ```
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `cookie` | `"waypost"` | the cookie's name |
//! | `secret` | none | at least 16 characters; makes the value one that only those who know it can compute. The same on all proxies that share clients |
//! | `max_age` | none | how long the client keeps the cookie: `"30m"`, `"12h"`, `"7d"`. None: until the browser is closed |
//! | `path` | `"/"` | where the client sends it |
//! | `domain` | none | to which hosts beside this one: `"example.com"` for all below it |
//! | `secure` | where the client speaks TLS to this proxy | `true`, `false`: whether the client sends it over TLS only |
//! | `http_only` | `true` | not for scripts |
//! | `same_site` | `"lax"` | `"strict"`, `"lax"`, `"none"` (wants `secure = true`), or `"unset"` to leave it to the client |
//!
//! # What it promises
//!
//! - *Sticky.* A request with a cookie of ours goes to the backend that the cookie names, while that is up, has a weight
//!   and was not tried for this request already.
//! - The cookie is set where it is missing, is not one of ours, or names a backend that cannot take the request, and only
//!   then. `max_age` counts from there: it is not renewed with each response.
//! - A client whose backend is down, draining, of weight 0 or gone is treated as new: it goes elsewhere, with a cookie for
//!   there, and does not come back by itself. The same for a request whose first attempt failed. **A drain moves clients
//!   at once**, unlike HAProxy's or nginx's, where sessions stay until they end: the contract lets no policy send a
//!   request to a backend that is not up. What is under way is finished.
//! - The value says nothing about the backend: it is made of its name by HMAC-SHA256, 128 bits of it. Without a `secret`
//!   who knows or guesses the name (of a server without a `name` it is the address) can compute it, and so choose a
//!   backend; with one, only a value that was once handed out can be used. A value is not tied to a client.
//! - Two upstreams that a client meets under one host want different `cookie` names, or each takes the other's away.
//! - It keeps no state: values depend on names and the secret only. They outlive swaps, reloads and restarts, and all
//!   proxies with the same names and secret understand one another's. A secret that changes makes all clients new.
//! - Nothing else is touched: one `Set-Cookie` is added to a response, beside those of the backend. A cache that stores such a
//!   response shares it among clients: let responses that may be stored say `Cache-Control: no-cache="set-cookie"`.

mod id;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use waypost_plugin::{
    Backend, BackendId, Backends, Counter, FieldName, LeastLoaded, Pick, Policy, Promise, Request,
    export_policy,
};

use crate::id::{Id, Mint};

/// New clients that could have gone to several backends, on all shards.
const TIES: Counter = Counter::new(0);

const SECRET_CHARS_MIN: usize = 16;

/// As long as browsers keep any cookie.
const MAX_AGE_DAYS: u64 = 400;

/// The policy's `config` table.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    cookie: FieldName,
    secret: Option<String>,
    max_age: Option<String>,
    path: String,
    domain: Option<String>,
    secure: Option<bool>,
    http_only: bool,
    same_site: SameSite,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum SameSite {
    Strict,
    Lax,
    None,
    Unset,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cookie: FieldName::from_static("waypost"),
            secret: None,
            max_age: None,
            path: "/".to_owned(),
            domain: None,
            secure: None,
            http_only: true,
            same_site: SameSite::Lax,
        }
    }
}

/// The policy.
#[derive(Debug)]
pub struct StickyCookie {
    cookie: String,
    /// What stands behind the value in `Set-Cookie`.
    attributes: String,
    /// Whether `Secure` comes after it; `None` where the request says.
    secure: Option<bool>,
    mint: Mint,
    /// All backends there are, in their order.
    known: Vec<Known>,
    /// Where each stands in `known`, in the order of what cookies say.
    by_id: Vec<(Id, usize)>,
    least_loaded: LeastLoaded,
}

/// A backend as cookies name it.
#[derive(Clone, Debug)]
struct Known {
    backend: BackendId,
    name: String,
    id: Id,
    /// What `Set-Cookie` says, but for `Secure`.
    cookie: String,
}

impl Policy for StickyCookie {
    type Config = Settings;
    const PROMISES: &'static [Promise] = &[Promise::Sticky];

    fn configure(settings: Settings) -> Result<Self, String> {
        let secret = settings.secret.as_deref();
        if secret.is_some_and(|secret| secret.chars().count() < SECRET_CHARS_MIN) {
            return Err(format!(
                "secret must have at least {SECRET_CHARS_MIN} characters"
            ));
        }
        Ok(StickyCookie {
            attributes: attributes(&settings)?,
            secure: settings.secure,
            cookie: settings.cookie.to_string(),
            mint: Mint::new(secret.unwrap_or_default().as_bytes()),
            known: Vec::new(),
            by_id: Vec::new(),
            least_loaded: LeastLoaded::default(),
        })
    }

    fn update(&mut self, backends: &Backends) {
        // Most changes are of a state, and a cookie takes some thousand instructions.
        let mut before: BTreeMap<BackendId, Known> = std::mem::take(&mut self.known)
            .into_iter()
            .map(|known| (known.backend, known))
            .collect();
        self.known = backends
            .iter()
            .map(|backend| {
                let known = before.remove(&backend.id);
                known
                    .filter(|known| known.name == backend.name)
                    .unwrap_or_else(|| self.introduce(backend))
            })
            .collect();
        let ids = self.known.iter().map(|known| known.id);
        self.by_id = ids.zip(0..).collect();
        self.by_id.sort_unstable();
        self.least_loaded = LeastLoaded::among(backends, |_| true);
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if let Some(backend) = self.named(request, backends) {
            return Pick::forward(backend.id);
        }
        let Some(backend) = self.least_loaded.pick(request, backends, TIES) else {
            return Pick::unavailable();
        };
        let known = backends
            .position(backend)
            .and_then(|position| self.known.get(position));
        if let Some(Known { cookie, .. }) = known {
            // Beside those of the application. One of this name that the client has is replaced by it.
            let response = request.response();
            if self.secure.unwrap_or_else(|| request.scheme() == "https") {
                response.append_header("set-cookie", format!("{cookie}; Secure"));
            } else {
                response.append_header("set-cookie", cookie);
            }
        }
        Pick::forward(backend)
    }
}

export_policy!(StickyCookie);

#[cfg(test)]
waypost_conformance::conforms!(StickyCookie);

impl StickyCookie {
    /// The backend that the request's cookie names, if the request may go there.
    fn named<'a>(&self, request: &Request, backends: &'a Backends) -> Option<&'a Backend> {
        let id = Id::parse(&request.cookie(&self.cookie)?)?;
        let at = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let (_, position) = self.by_id.get(at)?;
        let backend = backends.get(self.known.get(*position)?.backend)?;
        (backend.is_healthy() && !request.was_tried(backend.id)).then_some(backend)
    }

    fn introduce(&self, backend: &Backend) -> Known {
        let id = self.mint.id(&backend.name);
        Known {
            backend: backend.id,
            name: backend.name.clone(),
            id,
            cookie: format!("{}={id}{}", self.cookie, self.attributes),
        }
    }
}

/// What stands behind the value (RFC 6265, 4.1.1; `SameSite` as in its successor).
fn attributes(settings: &Settings) -> Result<String, String> {
    let mut text = String::new();
    if !settings.path.starts_with('/') || !is_attribute(&settings.path) {
        return Err(format!(
            "path must begin with / and have neither ; nor control characters: {:?}",
            settings.path
        ));
    }
    let _ = write!(text, "; Path={}", settings.path);
    if let Some(domain) = &settings.domain {
        if domain.is_empty() || !domain.bytes().all(is_of_a_host) {
            return Err(format!("domain is not a host name: {domain:?}"));
        }
        let _ = write!(text, "; Domain={domain}");
    }
    if let Some(max_age) = &settings.max_age {
        let _ = write!(text, "; Max-Age={}", seconds(max_age)?);
    }
    if settings.http_only {
        text.push_str("; HttpOnly");
    }
    match settings.same_site {
        SameSite::Strict => text.push_str("; SameSite=Strict"),
        SameSite::Lax => text.push_str("; SameSite=Lax"),
        SameSite::None if settings.secure == Some(true) => text.push_str("; SameSite=None"),
        SameSite::None => {
            return Err(
                "same_site = \"none\" wants secure = true: browsers refuse it without".into(),
            );
        }
        SameSite::Unset => {}
    }
    Ok(text)
}

fn is_attribute(text: &str) -> bool {
    text.bytes()
        .all(|byte| (b' '..0x7f).contains(&byte) && byte != b';')
}

fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-'
}

/// `"12h"` in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let refused = || {
        format!(
            "max_age must be from \"1s\" to \"{MAX_AGE_DAYS}d\", a whole number with one of the units s, m, h, d: {text:?}"
        )
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(refused()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    seconds
        .filter(|seconds| (1..=MAX_AGE_DAYS * 86_400).contains(seconds))
        .ok_or_else(refused)
}

#[cfg(test)]
mod tests;
