//! What tells one client from another, in the eyes of a policy: found out from outside.

use waypost_plugin::testing::{Edit, Head, HeaderEdit};

use crate::case::{Trial, Trouble};
use crate::play::{Play, fleet};
use crate::subject::{Broken, Picked, Request, Response};
use crate::traffic::address;

/// What a policy goes by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Key {
    /// A cookie that it sets itself.
    OwnCookie,
    /// A cookie that somebody else sets, of this name.
    Cookie(String),
    /// The value of a field.
    Field(String),
    /// The client's address.
    Client,
    /// The path.
    Path,
}

/// Values that are tried of each candidate.
const VALUES: u64 = 24;

impl Key {
    /// Finds out by varying one thing at a time.
    pub(crate) fn discover(trial: &Trial<'_>) -> Result<Key, Trouble> {
        let mut play = trial.play(1)?;
        play.set(&fleet(12));
        let first = play.ask(0, &Request::get("/").from(&address(1)))?;
        let responded = show(&mut play, &first)?;
        if first.edits.iter().chain(&responded).any(is_set_cookie) {
            return Ok(Key::OwnCookie);
        }
        let mut candidates: Vec<Key> = Vec::new();
        for name in &first.asked.fields {
            match name.as_str() {
                "cookie" => candidates.extend(words(trial.config).into_iter().map(Key::Cookie)),
                other => candidates.push(Key::Field(other.to_owned())),
            }
        }
        candidates.extend([Key::Client, Key::Path]);
        for key in candidates {
            let mut seen = Vec::new();
            let mut alike = 0;
            for value in 0..VALUES {
                let request = key.request(value, 0);
                let (one, two) = (play.ask(0, &request)?, play.ask(0, &request)?);
                alike += u64::from(one.verdict == two.verdict);
                seen.extend(one.backend());
            }
            seen.sort_unstable();
            seen.dedup();
            // That not all are alike is for the cases to say.
            if alike * 4 >= VALUES * 3 && seen.len() > 2 {
                return Ok(key);
            }
        }
        Err(Trouble::Unclear(
            "what it goes by was not found: neither a cookie of its own, nor the client's address, the path, or a field that it reads; --config JSON may have to say".into(),
        ))
    }

    /// A request of the client of this number; all else differs from one request to the next.
    pub(crate) fn request(&self, client: u64, number: u64) -> Request {
        let mut request = Request::get("/").field("accept", "*/*");
        if !matches!(self, Key::Client) {
            // Cookies and fields are the client's wherever it is.
            request.client = address(77 + number);
        }
        if !matches!(self, Key::Path) {
            request.target = format!("/page/{number}");
        }
        match self {
            Key::OwnCookie => request,
            Key::Cookie(name) => {
                request.field("cookie", format!("theme=dark; {name}=client-{client}"))
            }
            Key::Field(name) => request.field(name, format!("client-{client}")),
            Key::Client => request.from(&address(client)),
            Key::Path => Request {
                target: format!("/client/{client}"),
                ..request
            },
        }
    }
}

/// Names of cookies: whatever the settings have, and what is usual.
fn words(config: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(
        &serde_json::from_str(config).unwrap_or_default(),
        &mut found,
    );
    found.extend(["sid", "session", "route", "waypost"].map(String::from));
    found
}

fn collect(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => {
            found.push(text.clone());
            // As in "cookie:sid".
            found.extend(text.split([':', '=']).nth(1).map(str::to_owned));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        serde_json::Value::Object(map) => map.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn is_set_cookie(edit: &HeaderEdit) -> bool {
    edit.head == Head::Response && edit.edit != Edit::Remove && edit.name == "set-cookie"
}

/// Shows the policy an ordinary response of what it picked.
fn show(play: &mut Play<'_>, picked: &Picked) -> Result<Vec<HeaderEdit>, Broken> {
    match picked.backend() {
        Some(backend) => Ok(play.respond(0, backend, &Response::new(200))?.edits),
        None => Ok(Vec::new()),
    }
}

/// A client, with what it keeps between requests.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    key: Key,
    number: u64,
    requests: u64,
    jar: Vec<(String, String)>,
    /// `Set-Cookie` lines as they came.
    pub(crate) lines: Vec<String>,
}

impl Browser {
    pub(crate) fn new(key: &Key, number: u64) -> Self {
        Browser {
            key: key.clone(),
            number,
            requests: 0,
            jar: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// The next request.
    pub(crate) fn request(&mut self) -> Request {
        self.requests += 1;
        let request = self
            .key
            .request(self.number, self.number * 1_000 + self.requests);
        if self.jar.is_empty() {
            return request;
        }
        let cookies = self
            .jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        request.field("cookie", cookies.collect::<Vec<_>>().join("; "))
    }

    /// Sends the next request, takes the cookies that come back, and leaves it under way.
    pub(crate) fn send(&mut self, play: &mut Play<'_>, shard: usize) -> Result<Picked, Broken> {
        let request = self.request();
        let picked = play.send(shard, request)?;
        let mut edits = picked.edits.clone();
        if let Some(backend) = picked.backend()
            && play.world.backend(backend).is_some()
        {
            edits.extend(play.respond(shard, backend, &Response::new(200))?.edits);
        }
        for edit in edits.iter().filter(|edit| is_set_cookie(edit)) {
            self.take(&String::from_utf8_lossy(&edit.value));
        }
        Ok(picked)
    }

    fn take(&mut self, line: &str) {
        self.lines.push(line.to_owned());
        let mut parts = line.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        self.jar.retain(|(other, _)| other != name);
        let expired = parts.any(|part| part.eq_ignore_ascii_case("max-age=0"));
        if !expired {
            self.jar.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The value of its first cookie, to be tampered with.
    pub(crate) fn cookie(&mut self) -> Option<&mut String> {
        self.jar.first_mut().map(|(_, value)| value)
    }
}
