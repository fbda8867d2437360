//! `waypost check`: would it start?

use std::io::{self, Write as _};

use super::failure::{Failure, colored};
use super::loaded::Loaded;
use super::{block_on, counted};
use crate::admin;
use crate::config::{Config, ConfigError, Finding};
use crate::server::Server;
use crate::status::Status;

/// Does all that a start would except listen; says in one line what was found.
pub(super) fn run(loaded: &Loaded) -> Result<String, Failure> {
    let checked = block_on(async {
        Server::check(loaded.config.clone())
            .await
            .map_err(|error| Failure::start(&error, loaded))
    })?;
    admin::check(&loaded.config.admin).map_err(|error| Failure::admin(&error, loaded))?;
    let unused = unused(&loaded.config);
    if !unused.is_empty() {
        let warnings = ConfigError::from_findings(loaded.file.as_deref(), unused).into_warnings();
        // Whoever closed it does not want to know.
        let _ = writeln!(io::stderr(), "{}", warnings.render(colored()));
    }
    let file = loaded.file.as_deref().unwrap_or("arguments".as_ref());
    Ok(format!(
        "{}: ok: {}",
        file.display(),
        summary(&loaded.config, &checked)
    ))
}

/// What is defined and never comes to carry a request: most likely a name was meant elsewhere.
fn unused(config: &Config) -> Vec<Finding> {
    let routed = |index| config.routes.iter().any(|route| route.upstream == index);
    let named = |index| {
        let mut upstreams = config.upstreams.iter();
        upstreams.any(|upstream| upstream.policy == index)
    };
    let upstreams = (0..).zip(&config.upstreams);
    let upstreams = upstreams.filter(|(index, _)| !routed(*index));
    let upstreams = upstreams.map(|(_, upstream)| Finding {
        title: format!("no route uses upstream {}", upstream.name),
        help: Some(format!(
            "write `upstream = \"{}\"` in a [[route]], or leave it out",
            upstream.name
        )),
        place: vec!["upstream".into(), upstream.name.as_str().into()],
    });
    let policies = (0..).zip(&config.policies);
    let policies = policies.filter(|(index, _)| !named(*index));
    let policies = policies.map(|(_, policy)| Finding {
        title: format!(
            "no upstream uses policy {}: it was loaded, and not tried",
            policy.name
        ),
        help: Some(format!(
            "write `policy = \"{}\"` in an [upstream], or leave it out",
            policy.name
        )),
        place: vec!["policy".into(), policy.name.as_str().into()],
    });
    upstreams.chain(policies).collect()
}

fn summary(config: &Config, status: &Status) -> String {
    let servers = config
        .upstreams
        .iter()
        .map(|upstream| upstream.servers.len());
    let policies = config.policies.iter().map(|policy| {
        let mut used = status.upstreams.iter().map(|upstream| &upstream.policy);
        match used.find(|used| used.name == policy.name) {
            Some(used) => used.to_string(),
            None => format!("{} (not used)", policy.name),
        }
    });
    format!(
        "{}, {}, {}, {}, policies: {}",
        counted(config.listeners.len(), "listener"),
        counted(config.routes.len(), "route"),
        counted(config.upstreams.len(), "upstream"),
        counted(servers.sum(), "server"),
        policies.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::status::{PluginStatus, PolicyStatus, UpstreamStatus};

    #[test]
    fn the_summary_counts_everything_and_names_every_policy() {
        let text = "\
[[listen]]
address = \":8080\"
[policy.sticky]
file = \"sticky.wasm\"
[policy.spare]
file = \"spare.wasm\"
[upstream.app]
policy = \"sticky\"
servers = [\"127.0.0.1:3000\", \"127.0.0.1:3001\"]
[upstream.files]
policy = \"rotation\"
servers = [\"127.0.0.1:4000\"]
[[route]]
upstream = \"app\"
";
        let config = Config::parse(Path::new("a.toml"), text).unwrap();
        let upstream = |name: &str, policy: &str, plugin| UpstreamStatus {
            name: name.to_owned(),
            policy: PolicyStatus {
                name: policy.to_owned(),
                plugin,
                last_swap: None,
                quarantine: None,
            },
            backends: Vec::new(),
        };
        let plugin = PluginStatus {
            name: "cookie-hash".to_owned(),
            version: "1.2.0".to_owned(),
            promises: Vec::new(),
            digest: String::new(),
            calls: 0,
            failures: 0,
            mean_call: None,
        };
        let status = Status {
            upstreams: vec![
                upstream("app", "sticky", Some(plugin)),
                upstream("files", "rotation", None),
            ],
            ..Status::default()
        };
        assert_eq!(
            summary(&config, &status),
            "1 listener, 1 route, 2 upstreams, 3 servers, \
             policies: sticky (cookie-hash 1.2.0), spare (not used), rotation"
        );
    }
}
