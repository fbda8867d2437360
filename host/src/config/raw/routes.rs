//! `[[route]]`

use std::collections::HashMap;
use std::ops::Range;

use super::super::diagnostic::{Complaint, Mistake, code, list};
use super::super::fields::{Fields, Mistakes, Value};
use super::super::nearest::nearest;
use super::super::values::{boolean, string};
use super::super::{HostPattern, Route, Upstream, defaults, pattern};

pub(super) fn read(
    tables: Vec<Fields<'_>>,
    upstreams: &[Upstream],
    mistakes: &Mistakes,
) -> Vec<Route> {
    if tables.is_empty() {
        let name = upstreams.first().map_or("app", |upstream| &upstream.name);
        let help =
            format!("say which requests go to which upstream:\n\n[[route]]\nupstream = {name:?}");
        mistakes.add(Mistake::new("there is no [[route]]").help(help).absence());
    }
    let mut seen = HashMap::new();
    tables
        .into_iter()
        .map(|fields| route(fields, upstreams, &mut seen))
        .collect()
}

/// Where the routes so far stand.
type Seen = HashMap<(HostPattern, String), Range<usize>>;

fn route(mut fields: Fields<'_>, upstreams: &[Upstream], seen: &mut Seen) -> Route {
    let host = fields.take("host");
    let path = fields.take("path");
    // The header, unless a key says more precisely what makes this route the same as another.
    let place = path.or(host).map_or(fields.span(), |value| value.span());
    let host = host.map(|value| {
        fields.mistakes.note(
            "`host`",
            value.span(),
            string(value).and_then(pattern::host),
        )
    });
    let path = path.map(|value| {
        fields.mistakes.note(
            "`path`",
            value.span(),
            string(value).and_then(pattern::path),
        )
    });
    // The outer `None` is a key left out, the inner one a key that makes no sense.
    let host = host.unwrap_or(Some(HostPattern::Any));
    let path = path.unwrap_or_else(|| Some(defaults::PATH.to_owned()));
    if let (Some(host), Some(path)) = (&host, &path) {
        refuse_duplicate(host, path, place, &fields, seen);
    }
    let upstream = fields.required("upstream", "upstream = \"app\"", |value| {
        resolve(value, upstreams)
    });
    let upgrades = upgrades(&mut fields);
    let pass_host = fields.or("pass_host", defaults::PASS_HOST, boolean);
    fields.finish();
    Route {
        host: host.unwrap_or(HostPattern::Any),
        path: path.unwrap_or_default(),
        upstream: upstream.unwrap_or_default(),
        upgrades,
        pass_host,
    }
}

fn refuse_duplicate(
    host: &HostPattern,
    path: &str,
    place: Range<usize>,
    fields: &Fields<'_>,
    seen: &mut Seen,
) {
    let key = (host.clone(), path.to_owned());
    let Some(first) = seen.get(&key) else {
        seen.insert(key, place);
        return;
    };
    let mistake = Mistake::new(format!(
        "two routes match host {} and path {}",
        code(&host.to_string()),
        code(path)
    ))
    .at(place, "the second one would never be used")
    .also(first.clone(), "the first one")
    .help("remove one of them, or change its `host` or `path`");
    fields.mistakes.add(mistake);
}

/// The index of the upstream that a route names.
fn resolve(value: &Value<'_>, upstreams: &[Upstream]) -> Result<usize, Complaint> {
    let name = string(value)?;
    if let Some(index) = upstreams.iter().position(|upstream| upstream.name == name) {
        return Ok(index);
    }
    let names = || upstreams.iter().map(|upstream| upstream.name.as_str());
    let label = match nearest(name, names()) {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => "no upstream has this name".to_owned(),
    };
    let help = match upstreams {
        [] => "this file has no upstream; write for example:\n\n[upstream.app]\nservers = [\"127.0.0.1:3000\"]".to_owned(),
        _ => format!("this file defines {}", list(names())),
    };
    Err(Complaint::new("names an upstream that is not defined")
        .absence()
        .label(label)
        .help(help))
}

fn upgrades(fields: &mut Fields<'_>) -> Vec<String> {
    let Some(value) = fields.take("upgrades") else {
        return defaults::UPGRADES.map(str::to_owned).to_vec();
    };
    let mut upgrades = Vec::new();
    for entry in fields.list_of("upgrades", value).unwrap_or_default() {
        let token = fields
            .mistakes
            .note("an entry of `upgrades`", entry.span(), upgrade(entry));
        upgrades.extend(token.filter(|token| !upgrades.contains(token)));
    }
    upgrades
}

fn upgrade(value: &Value<'_>) -> Result<String, Complaint> {
    let token = string(value)?.to_ascii_lowercase();
    if token == "h2c" {
        let complaint =
            Complaint::new("is not allowed").label("this would let clients past the routes");
        return Err(complaint.help("inside an h2c tunnel a client could send requests that no route and no policy sees: leave it out"));
    }
    // A protocol of RFC 9110, section 7.8: a token, perhaps with a version.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    if token.is_empty() || !token.chars().all(allowed) {
        return Err(Complaint::new("is not the name of a protocol")
            .help("write what stands in the `Upgrade` field: \"websocket\""));
    }
    Ok(token)
}
