//! A share of the traffic, or who asks for it, goes to a new version of the application.
//!
//! The servers that run the new version carry a label; they are the *canary*, the others are *stable*. Within each of the
//! two a request goes to the backend with the fewest requests under way for its weight.
//!
//! # Settings
//!
//! ```toml
//! [policy.canary]
//! builtin = "header-canary"
//!
//! [policy.canary.config]
//! label   = { version = "2" }
//! percent = 5
//! key     = { cookie = "sid" }
//! always  = [{ header = "x-canary", value = "always" }, { cookie = "beta" }]
//!
//! [policy.canary.config.canary]
//! request  = { set = { x-release = "2" }, remove = ["x-debug"] }
//! response = { set = { x-release = "2" } }
//! ```
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `label` | `{ version = "canary" }` | the labels by which a server is a canary; it must have them all |
//! | `percent` | `0` | the canary's share, 0 to 100 in steps of 0.0001, of the requests that neither `always` nor `never` decides |
//! | `key` | none | what to decide by, so that a client stays: `{ header = "NAME" }`, `{ cookie = "NAME" }`, `"path"` or `"client-address"`. None: by request, exactly |
//! | `always` | `x-canary: always` | requests with one of these go to the canary: `{ header = "NAME", value = "VALUE" }` or `{ cookie = "NAME", value = "VALUE" }`; without `value`, whatever the value is |
//! | `never` | `x-canary: never` | requests with one of these do not, whatever else they have |
//! | `canary` | no edits | `{ request = { set = { NAME = "VALUE" }, remove = ["NAME"] }, response = { … } }` for requests that go to a canary |
//! | `stable` | no edits | the same for the others |
//!
//! # What it promises
//!
//! - Without `key`, of the requests that are left to `percent` exactly this share is for the canary, over all shards,
//!   and evenly: of 100 requests in a row at 5 percent, 5. Retries do not count.
//! - With `key`, requests with the same key are decided alike, on every host, for as long as `percent` stays; a higher
//!   one adds keys and sends none back. The share is that of the keys, not of the requests. Requests without the key are
//!   decided one by one.
//! - **Where no canary can take a request, stable takes it, and the other way round**: rather the wrong version than
//!   no answer. Its edits are then those of where it goes. A request whose first attempt failed stays on its side if
//!   there is another backend.
//! - *Rewrites headers.* Fields are set and removed as told and nothing else is touched. A field that the client
//!   sends is no proof of anything: set it on both sides, or remove it on the other, if the application trusts it.
//! - It keeps no state but a counter of the host's, so a swap changes nothing.

use std::collections::BTreeMap;

use serde::Deserialize;
use waypost_plugin::{
    Backend, Backends, Counter, FieldName, Key, LeastLoaded, Pick, Policy, Promise, Request,
    export_policy, log, stable_hash,
};

/// Requests that `percent` has decided one by one, on all shards.
const SHARED: Counter = Counter::new(0);

/// Requests that could have gone to several backends, on all shards.
const TIES: Counter = Counter::new(1);

/// The finest share.
const PARTS: u64 = 1_000_000;

/// More than a policy may edit in one call is refused by the host; all edits of a side happen in one call.
const EDITS_MAX: usize = 64;

/// The policy's `config` table.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    label: BTreeMap<String, String>,
    percent: f64,
    key: Option<Key>,
    always: Vec<Mark>,
    never: Vec<Mark>,
    canary: Edits,
    stable: Edits,
}

/// What a request may have that decides it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    header: Option<FieldName>,
    cookie: Option<FieldName>,
    value: Option<String>,
}

/// What becomes of the heads of one side's requests and responses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Edits {
    request: HeadEdits,
    response: HeadEdits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HeadEdits {
    set: BTreeMap<FieldName, String>,
    remove: Vec<FieldName>,
}

impl Default for Settings {
    fn default() -> Self {
        let mark = |value: &str| Mark {
            header: Some(FieldName::from_static("x-canary")),
            cookie: None,
            value: Some(value.to_owned()),
        };
        Settings {
            label: BTreeMap::from([("version".to_owned(), "canary".to_owned())]),
            percent: 0.0,
            key: None,
            always: vec![mark("always")],
            never: vec![mark("never")],
            canary: Edits::default(),
            stable: Edits::default(),
        }
    }
}

/// The policy.
#[derive(Debug)]
pub struct HeaderCanary {
    settings: Settings,
    /// The canary's share in millionths.
    parts: u64,
    canary: LeastLoaded,
    stable: LeastLoaded,
}

impl Policy for HeaderCanary {
    type Config = Settings;
    const PROMISES: &'static [Promise] = &[Promise::RewritesHeaders];

    fn configure(settings: Settings) -> Result<Self, String> {
        if settings.label.is_empty() {
            return Err(
                "label must name at least one label: without, every server is a canary".into(),
            );
        }
        if !(0.0..=100.0).contains(&settings.percent) {
            return Err(format!(
                "percent must be between 0 and 100, not {}",
                settings.percent
            ));
        }
        for (list, marks) in [("always", &settings.always), ("never", &settings.never)] {
            if marks
                .iter()
                .any(|mark| mark.header.is_some() == mark.cookie.is_some())
            {
                return Err(format!(
                    "each entry of {list} must have one of header and cookie, for example {{ header = \"x-canary\" }}"
                ));
            }
        }
        for (side, edits) in [("canary", &settings.canary), ("stable", &settings.stable)] {
            edits.check(side)?;
        }
        Ok(HeaderCanary {
            // At most PARTS.
            parts: (settings.percent / 100.0 * PARTS as f64).round() as u64,
            settings,
            canary: LeastLoaded::default(),
            stable: LeastLoaded::default(),
        })
    }

    fn update(&mut self, backends: &Backends) {
        self.canary = LeastLoaded::among(backends, |backend| self.is_canary(backend));
        self.stable = LeastLoaded::among(backends, |backend| !self.is_canary(backend));
        let canaries = backends.iter().filter(|backend| self.is_canary(backend));
        match canaries.count() {
            0 if !backends.is_empty() => {
                log::warn("no server has the label of the canary: all requests go to the others");
            }
            all if all == backends.len() && all > 0 => {
                log::warn("every server has the label of the canary: it takes all requests");
            }
            _ => {}
        }
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let Settings { canary, stable, .. } = &self.settings;
        let canary = (&self.canary, canary);
        let stable = (&self.stable, stable);
        let sides = if self.is_for_canary(request, backends) {
            [canary, stable]
        } else {
            [stable, canary]
        };
        let picked = sides.into_iter().find_map(|(side, edits)| {
            let backend = side.pick(request, backends, TIES)?;
            Some((backend, edits))
        });
        let Some((backend, edits)) = picked else {
            return Pick::unavailable();
        };
        edits.make(request);
        Pick::forward(backend)
    }
}

export_policy!(HeaderCanary);

#[cfg(test)]
waypost_conformance::conforms!(
    HeaderCanary,
    r#"{"stable":{"request":{"set":{"x-release":"1"}}}}"#
);

impl HeaderCanary {
    fn is_canary(&self, backend: &Backend) -> bool {
        let mut labels = self.settings.label.iter();
        labels.all(|(name, value)| backend.label(name) == Some(value))
    }

    fn is_for_canary(&self, request: &Request, backends: &Backends) -> bool {
        // Decided before, and not to be counted again.
        if let Some(tried) = request.tried().first() {
            return backends
                .get(*tried)
                .is_some_and(|backend| self.is_canary(backend));
        }
        if self.settings.never.iter().any(|mark| mark.is_on(request)) {
            return false;
        }
        if self.settings.always.iter().any(|mark| mark.is_on(request)) {
            return true;
        }
        if self.parts == 0 || self.parts == PARTS {
            return self.parts == PARTS;
        }
        match self.settings.key.as_ref().and_then(|key| key.read(request)) {
            Some(key) => stable_hash(&key) % PARTS < self.parts,
            None => {
                // As many steps over a multiple of PARTS as there are parts, and as far from one another as can be.
                let turn = SHARED.add(1).cast_unsigned() % PARTS;
                turn * self.parts % PARTS + self.parts >= PARTS
            }
        }
    }
}

impl Mark {
    fn is_on(&self, request: &Request) -> bool {
        let found = match (&self.header, &self.cookie) {
            (Some(name), _) => request.header(name.as_str()),
            (None, Some(name)) => request.cookie(name.as_str()),
            (None, None) => None,
        };
        match (&self.value, found) {
            (Some(value), Some(found)) => *value == found,
            (None, found) => found.is_some(),
            (Some(_), None) => false,
        }
    }
}

impl Edits {
    fn check(&self, side: &str) -> Result<(), String> {
        for (head, edits) in [("request", &self.request), ("response", &self.response)] {
            if let Some(name) = edits.names().find(|name| name.is_hosts_own()) {
                return Err(format!(
                    "{side}.{head}: {name} is the host's business, no policy may edit it"
                ));
            }
            let is_set = |name: &FieldName| {
                let mut set = edits.set.keys();
                set.any(|other| other.as_str().eq_ignore_ascii_case(name.as_str()))
            };
            if let Some(name) = edits.remove.iter().find(|name| is_set(name)) {
                return Err(format!("{side}.{head}: {name} is both set and removed"));
            }
            if let Some((name, _)) = edits.set.iter().find(|(_, value)| !is_field_value(value)) {
                return Err(format!(
                    "{side}.{head}: the value of {name} has characters that no field may have"
                ));
            }
        }
        if self.request.names().chain(self.response.names()).count() > EDITS_MAX {
            return Err(format!(
                "{side}: at most {EDITS_MAX} fields can be set and removed"
            ));
        }
        Ok(())
    }

    fn make(&self, request: &Request) {
        for name in &self.request.remove {
            request.remove_header(name.as_str());
        }
        for (name, value) in &self.request.set {
            request.set_header(name.as_str(), value);
        }
        let response = request.response();
        for name in &self.response.remove {
            response.remove_header(name.as_str());
        }
        for (name, value) in &self.response.set {
            response.set_header(name.as_str(), value);
        }
    }
}

impl HeadEdits {
    fn names(&self) -> impl Iterator<Item = &FieldName> {
        self.set.keys().chain(&self.remove)
    }
}

/// RFC 9110, 5.5: no control characters but the tab.
fn is_field_value(value: &str) -> bool {
    let mut bytes = value.bytes();
    bytes.all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

#[cfg(test)]
mod tests;
