//! What is different between two snapshots, in words.

use std::sync::Arc;

use crate::config::{self, Config, OnFailure, PolicySource, Server};
use crate::snapshot::Snapshot;

/// A line for each thing that is different.
pub(super) fn between(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    listeners(&old.config, &new.config, &mut lines);
    if named_routes(&old.config) != named_routes(&new.config) {
        lines.push(format!(
            "routes: {} in place of {}",
            new.config.routes.len(),
            old.config.routes.len()
        ));
    }
    upstreams(&old.config, &new.config, &mut lines);
    addresses(old, new, &mut lines);
    policies(old, new, &mut lines);
    let sections = [
        ("forwarded", old.config.forwarded != new.config.forwarded),
        ("timeouts", old.config.timeouts != new.config.timeouts),
        ("limits", old.config.limits != new.config.limits),
        (
            "shutdown",
            old.config.shutdown_grace != new.config.shutdown_grace,
        ),
        ("policies", other_rules(&old.config, &new.config)),
    ];
    let changed = sections.iter().filter(|(_, differs)| *differs);
    lines.extend(changed.map(|(name, _)| format!("{name}: other settings")));
    lines
}

/// The policies that have other code, or another configuration, than before.
pub(super) fn swapped(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let names = new.config.policies.iter().map(|policy| policy.name.clone());
    names
        .filter(|name| {
            old.config
                .policies
                .iter()
                .any(|policy| policy.name == *name)
        })
        .filter(|name| match (old.plugin(name), new.plugin(name)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (old, new) => old.is_some() != new.is_some(),
        })
        .collect()
}

/// Policies with code of their own that have come or gone, and those whose code is other code.
fn policies(old: &Snapshot, new: &Snapshot, lines: &mut Vec<String>) {
    let own = |config: &Config| -> Vec<String> {
        let is_own = |policy: &&config::Policy| matches!(policy.source, PolicySource::File(_));
        let own = config.policies.iter().filter(is_own);
        own.map(|policy| policy.name.clone()).collect()
    };
    let (before, after) = (own(&old.config), own(&new.config));
    for policy in after.iter().filter(|policy| !before.contains(policy)) {
        lines.push(format!("policy {policy}: new, {}", code(new, policy)));
    }
    for policy in before.iter().filter(|policy| !after.contains(policy)) {
        lines.push(format!("policy {policy}: gone"));
    }
    for policy in swapped(old, new) {
        let (before, after) = (code(old, &policy), code(new, &policy));
        lines.push(if before == after {
            format!("policy {policy}: {after} with other settings")
        } else {
            format!("policy {policy}: {before} -> {after}")
        });
    }
}

/// What a policy's name stands for.
fn code(snapshot: &Snapshot, policy: &str) -> String {
    if let Some(plugin) = snapshot.plugin(policy) {
        let digest: String = plugin.digest.chars().take(12).collect();
        return format!("{} {} ({digest})", plugin.about.name, plugin.about.version);
    }
    let mut policies = snapshot.config.policies.iter();
    let settings = policies.find(|settings| settings.name == policy);
    match settings.map(|settings| settings.on_failure) {
        Some(OnFailure::Reject) => "503".to_owned(),
        Some(OnFailure::Fallback) | None => "rotation".to_owned(),
    }
}

/// Backends whose names stand for other addresses than before.
fn addresses(old: &Snapshot, new: &Snapshot, lines: &mut Vec<String>) {
    for upstream in new.balancers.iter().map(|balancer| &balancer.upstream) {
        let name = &upstream.settings.name;
        let before = old.balancer(name).map(|balancer| &balancer.upstream);
        for backend in &upstream.backends {
            let known = before.and_then(|before| before.backend_at(&backend.settings.address));
            if known.is_some_and(|known| !known.is_at(&backend.addresses)) {
                let addresses: Vec<String> =
                    backend.addresses.iter().map(ToString::to_string).collect();
                lines.push(format!(
                    "upstream {name}, backend {}: now at {}",
                    backend.settings.name,
                    addresses.join(", ")
                ));
            }
        }
    }
}

fn listeners(old: &Config, new: &Config, lines: &mut Vec<String>) {
    let gone = old
        .listeners
        .iter()
        .filter(|listener| !new.listeners.contains(listener));
    let come = new
        .listeners
        .iter()
        .filter(|listener| !old.listeners.contains(listener));
    lines.extend(come.map(|listener| format!("listen {}: new", listener.address)));
    lines.extend(gone.map(|listener| format!("listen {}: gone", listener.address)));
}

/// Routes with the name of their upstream in place of its index, which may shift.
fn named_routes(config: &Config) -> Vec<(config::Route, Option<&str>)> {
    let named = |route: &config::Route| {
        let upstream = config
            .upstreams
            .get(route.upstream)
            .map(|upstream| upstream.name.as_str());
        (
            config::Route {
                upstream: 0,
                ..route.clone()
            },
            upstream,
        )
    };
    config.routes.iter().map(named).collect()
}

fn upstreams(old: &Config, new: &Config, lines: &mut Vec<String>) {
    for upstream in &new.upstreams {
        match old
            .upstreams
            .iter()
            .find(|candidate| candidate.name == upstream.name)
        {
            None => lines.push(format!("upstream {}: new", upstream.name)),
            Some(before) => {
                servers(before, upstream, lines);
                let rest = |upstream: &config::Upstream| config::Upstream {
                    policy: 0,
                    servers: Vec::new(),
                    ..upstream.clone()
                };
                if rest(before) != rest(upstream) {
                    lines.push(format!("upstream {}: other settings", upstream.name));
                }
                let policy = |config: &Config, index: usize| {
                    config.policies.get(index).map(|policy| policy.name.clone())
                };
                let (one, two) = (policy(old, before.policy), policy(new, upstream.policy));
                if one != two {
                    lines.push(format!(
                        "upstream {}: policy {}",
                        upstream.name,
                        two.unwrap_or_default()
                    ));
                }
            }
        }
    }
    let gone = old.upstreams.iter().filter(|upstream| {
        !new.upstreams
            .iter()
            .any(|other| other.name == upstream.name)
    });
    lines.extend(gone.map(|upstream| format!("upstream {}: gone", upstream.name)));
}

fn servers(old: &config::Upstream, new: &config::Upstream, lines: &mut Vec<String>) {
    let same = |one: &Server, two: &Server| one.address == two.address;
    for server in &new.servers {
        let before = old.servers.iter().find(|before| same(before, server));
        let title = format!("upstream {}, backend {}", new.name, server.name);
        match before {
            None => lines.push(format!("{title}: new")),
            Some(before) if before != server => {
                lines.push(format!("{title}: {}", difference(before, server)))
            }
            Some(_) => {}
        }
    }
    let gone = old
        .servers
        .iter()
        .filter(|server| !new.servers.iter().any(|other| same(server, other)));
    lines
        .extend(gone.map(|server| format!("upstream {}, backend {}: gone", new.name, server.name)));
}

fn difference(old: &Server, new: &Server) -> String {
    let mut words = Vec::new();
    if old.weight != new.weight {
        words.push(format!("weight {} -> {}", old.weight, new.weight));
    }
    if old.state != new.state {
        words.push(format!("{} -> {}", old.state, new.state));
    }
    if old.name != new.name || old.labels != new.labels {
        words.push("another name or other labels".to_owned());
    }
    words.join(", ")
}

/// Whether something else is said of a policy beside its code and configuration.
fn other_rules(old: &Config, new: &Config) -> bool {
    new.policies.iter().any(|policy| {
        let before = old
            .policies
            .iter()
            .find(|before| before.name == policy.name);
        before.is_some_and(|before| before.on_failure != policy.on_failure)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::found_at;

    #[test]
    fn other_addresses_of_a_name_are_a_change() {
        let [old, new] = ["192.0.2.7:81", "192.0.2.8:81"].map(found_at);
        let line = "upstream app, backend localhost:81: now at 192.0.2.8:81";
        assert_eq!(between(&old, &new), [line]);
        assert!(between(&old, &old).is_empty());
    }
}
