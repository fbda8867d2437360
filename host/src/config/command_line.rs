//! The configuration of `waypost proxy`: a listener, servers and a policy, without a file.

use std::path::{Path, PathBuf};

use super::diagnostic::{Complaint, Mistake, list, quoted};
use super::nearest::nearest;
use super::{
    BUILT_IN, Config, ConfigError, HostPattern, Listener, Policy, PolicySource, ROTATION, Route,
    Server, Upstream, address, defaults,
};

/// The name of the one upstream, in logs and metrics.
const UPSTREAM: &str = "proxy";

/// See [`Config::for_proxy`].
pub(super) fn config(
    from: &str,
    to: &[String],
    policy: Option<&str>,
) -> Result<Config, ConfigError> {
    let mut mistakes = Vec::new();
    let mut note =
        |subject: String, complaint: Complaint| mistakes.push(complaint.about_argument(&subject));
    let listener = address::listen(from)
        .map_err(|complaint| note(format!("--from {}", quoted(from)), complaint))
        .ok();
    let policy = policy.unwrap_or(defaults::POLICY);
    let policy = named_policy(policy)
        .map_err(|complaint| note(format!("--policy {}", quoted(policy)), complaint))
        .ok();
    let servers = servers(to, &mut mistakes);
    match (listener, policy) {
        (Some(address), Some(policy)) if mistakes.is_empty() => Ok(Config {
            listeners: vec![Listener { address }],
            routes: vec![Route::new(HostPattern::Any, defaults::PATH, 0)],
            upstreams: vec![Upstream::new(UPSTREAM, 0, servers)],
            policies: vec![policy],
            ..Config::empty()
        }),
        _ => Err(ConfigError::new(None, "", mistakes)),
    }
}

/// See [`Policy::from_argument`].
pub(super) fn policy(text: &str) -> Result<Policy, ConfigError> {
    named_policy(text).map_err(|complaint| {
        let mistake = complaint.about_argument(&quoted(text));
        ConfigError::new(None, "", vec![mistake])
    })
}

/// Each argument may be several addresses with commas between them.
fn servers(to: &[String], mistakes: &mut Vec<Mistake>) -> Vec<Server> {
    let mut seen = Vec::new();
    let mut servers = Vec::new();
    for text in to
        .iter()
        .flat_map(|argument| argument.split(','))
        .map(str::trim)
    {
        // `:3001` is a server on this machine.
        let full = if text.starts_with(':') {
            format!("127.0.0.1{text}")
        } else {
            text.to_owned()
        };
        match address::backend(&full) {
            Ok(place) if seen.contains(&place) => {
                mistakes.push(Mistake::new(format!("--to has {} twice", quoted(text))))
            }
            Ok(place) => {
                seen.push(place);
                servers.push(Server::new(full));
            }
            Err(complaint) => {
                mistakes.push(complaint.about_argument(&format!("--to {}", quoted(text))))
            }
        }
    }
    if to.is_empty() {
        mistakes.push(
            Mistake::new("there is no server")
                .help("name at least one with --to, for example --to 127.0.0.1:3000"),
        );
    }
    servers
}

/// A built-in policy, or a file: whatever has a `/` in it or ends in `.wasm`.
fn named_policy(argument: &str) -> Result<Policy, Complaint> {
    if argument.contains('/') || argument.ends_with(".wasm") {
        let file = PathBuf::from(argument);
        return Ok(Policy::new(&stem(&file), PolicySource::File(file)));
    }
    let known = || BUILT_IN.into_iter().chain([ROTATION]);
    Policy::built_in(argument).ok_or_else(|| {
        let complaint = Complaint::new("is not a policy");
        let complaint = match nearest(argument, known()) {
            Some(nearest) => complaint.label(format!("did you mean {nearest}?")),
            None => complaint,
        };
        complaint.help(format!(
            "write one of {}, or the path of a .wasm file",
            list(known())
        ))
    })
}

/// `sticky` for `plugins/sticky.wasm`: a name as in `[policy.NAME]`.
fn stem(file: &Path) -> String {
    let stem = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let name: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    if name.is_empty() || Policy::built_in(&name).is_some() {
        format!("file-{name}")
    } else {
        name
    }
}
