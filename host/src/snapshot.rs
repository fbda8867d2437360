//! All that a shard needs to serve a request, as one immutable whole.
//!
//! Routes, backends and policies are only ever replaced together: no request sees the route of one configuration and
//! the backends of another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::{self, Config, OnFailure, PolicySource};
use crate::plugin::{Engine, LoadError, Plugin};
use crate::policy::slot::Balancer;
use crate::route::RouteTable;
use crate::upstream::{Backend, Upstream};

/// A configuration in force.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Goes up by one with each.
    pub(crate) generation: u64,
    pub(crate) config: Config,
    pub(crate) routes: RouteTable,
    /// In the order of `config.upstreams`.
    pub(crate) balancers: Vec<Arc<Balancer>>,
    /// In the order of `config.policies`; `None` is `rotation`, or a policy that may not be asked any more.
    pub(crate) plugins: Vec<Option<Arc<Plugin>>>,
    /// Where each upstream is in `balancers`.
    pub(crate) by_name: HashMap<String, usize>,
}

/// What a snapshot is built from, beside its configuration.
pub(crate) struct Ground {
    pub(crate) engine: Engine,
    /// What is in force: what stays the same goes on in the next snapshot.
    pub(crate) previous: Option<Arc<Snapshot>>,
    /// Whether the policies' files are read again. Otherwise those that stay go on with the code they have: what is
    /// wrong with a file must not be in the way of another change.
    pub(crate) rereads: bool,
    /// Whether names that are known are resolved again.
    pub(crate) resolves: bool,
    /// Code that is to run in place of what the configuration names, by policy.
    pub(crate) choices: HashMap<String, Choice>,
    /// Rung when a policy has failed too often.
    pub(crate) alarm: Arc<Notify>,
}

impl Ground {
    /// For the first snapshot of a process.
    pub(crate) fn new() -> anyhow::Result<Ground> {
        Ok(Ground {
            engine: Engine::new()?,
            previous: None,
            rereads: true,
            resolves: true,
            choices: HashMap::new(),
            alarm: Arc::default(),
        })
    }
}

/// What runs in place of the code that the configuration names.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// Code that was pushed.
    Pushed(Arc<[u8]>),
    /// A version that was in force before.
    Earlier(Arc<Plugin>),
    /// None: what `on_failure` says, until the policy is tried again.
    Nothing,
}

/// Why a configuration cannot come into force although it is well-formed.
#[derive(Debug)]
pub enum BuildError {
    /// Policies do not load or fail their trial; all of them are named.
    Policies(Vec<PolicyError>),
    /// A backend's name does not resolve.
    Resolve {
        upstream: String,
        address: String,
        error: std::io::Error,
    },
}

/// A policy that cannot be used.
#[derive(Debug)]
pub struct PolicyError {
    /// What the configuration calls it.
    pub policy: String,
    /// The upstream it failed on, where it got that far.
    pub upstream: Option<String>,
    /// Where it comes from, and what is wrong.
    pub problem: String,
    pub remedy: String,
    /// The key of its table in the configuration that is to blame.
    pub(crate) key: &'static str,
}

impl BuildError {
    pub(crate) const RESOLVE_REMEDY: &'static str = "check the name, or give an IP address";
}

impl std::fmt::Display for PolicyError {
    /// What is wrong, without the remedy.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "policy {}", self.policy)?;
        if let Some(upstream) = &self.upstream {
            write!(f, " for upstream {upstream}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BuildError::Policies(errors) => {
                let shown: Vec<String> = errors
                    .iter()
                    .map(|error| format!("{error}\n  = help: {}", error.remedy))
                    .collect();
                f.write_str(&shown.join("\n\n"))
            }
            BuildError::Resolve {
                upstream,
                address,
                error,
            } => write!(
                f,
                "upstream {upstream}: {address} does not resolve: {error}\n  = help: {}",
                BuildError::RESOLVE_REMEDY
            ),
        }
    }
}

impl std::error::Error for BuildError {}

impl Snapshot {
    /// Loads and tries every policy and resolves every backend's name. What is the same as before goes on.
    ///
    /// # Errors
    /// The first name that does not resolve, or all policies that do not load.
    pub(crate) async fn build(config: Config, mut ground: Ground) -> Result<Snapshot, BuildError> {
        ground.engine = ground.engine.caching(&config.cache);
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        for settings in &config.upstreams {
            upstreams.push(resolve(settings, &ground).await?);
        }
        // Compiling takes longer than anything else that this thread does.
        let assembled = tokio::task::spawn_blocking(move || assemble(config, upstreams, &ground));
        assembled.await.unwrap_or_else(|error| {
            let problem = format!("the loader broke down: {error}");
            Err(BuildError::Policies(vec![PolicyError::breakdown(problem)]))
        })
    }

    /// The plugin that a policy's name stands for now.
    pub(crate) fn plugin(&self, policy: &str) -> Option<&Arc<Plugin>> {
        let index = self
            .config
            .policies
            .iter()
            .position(|settings| settings.name == policy)?;
        self.plugins.get(index)?.as_ref()
    }

    pub(crate) fn balancer(&self, upstream: &str) -> Option<&Arc<Balancer>> {
        self.balancers.get(*self.by_name.get(upstream)?)
    }
}

/// Loads the policies, tries each on the upstreams that use it, and puts everything together.
fn assemble(
    config: Config,
    upstreams: Vec<Arc<Upstream>>,
    ground: &Ground,
) -> Result<Snapshot, BuildError> {
    let mut errors = Vec::new();
    let plugins: Vec<Option<Arc<Plugin>>> = config
        .policies
        .iter()
        .map(|settings| {
            load(settings, ground).unwrap_or_else(|error| {
                errors.push(PolicyError::new(&settings.name, None, &error));
                None
            })
        })
        .collect();
    let previous = ground.previous.as_deref();
    let mut balancers = Vec::with_capacity(upstreams.len());
    for upstream in upstreams {
        let index = upstream.settings.policy;
        let plugin = plugins.get(index).cloned().flatten();
        let on_failure = match config.policies.get(index) {
            Some(policy) if policy.source != PolicySource::Rotation => policy.on_failure,
            Some(_) | None => OnFailure::Fallback,
        };
        let name = upstream.settings.name.clone();
        let next = Balancer::new(upstream, plugin, on_failure, ground.alarm.clone());
        if let Some(same) = previous.and_then(|previous| previous.balancer(&name))
            && same.is_like(&next)
        {
            balancers.push(same.clone());
            continue;
        }
        if let Some(plugin) = &next.plugin
            && let Err(error) = plugin.probe(&next.upstream)
        {
            errors.push(PolicyError::new(&plugin.name, Some(name), &error));
        }
        balancers.push(Arc::new(next));
    }
    if !errors.is_empty() {
        return Err(BuildError::Policies(errors));
    }
    let names = config
        .upstreams
        .iter()
        .map(|upstream| upstream.name.clone());
    Ok(Snapshot {
        generation: previous.map_or(1, |previous| previous.generation + 1),
        routes: RouteTable::new(&config.routes),
        by_name: names.zip(0..).collect(),
        balancers,
        plugins,
        config,
    })
}

fn load(settings: &config::Policy, ground: &Ground) -> Result<Option<Arc<Plugin>>, LoadError> {
    let previous = ground.previous.as_deref();
    let previous = previous.and_then(|previous| previous.plugin(&settings.name));
    match ground.choices.get(&settings.name) {
        Some(Choice::Nothing) => Ok(None),
        // The code of then, with the settings of now.
        Some(Choice::Earlier(plugin)) => {
            let made = previous.filter(|previous| previous.digest == plugin.digest);
            let same = made.or(Some(plugin));
            Plugin::load(&ground.engine, settings, Some(&plugin.bytes), same)
        }
        Some(Choice::Pushed(bytes)) => {
            Plugin::load(&ground.engine, settings, Some(bytes), previous)
        }
        None if !ground.rereads && previous.is_some_and(|plugin| plugin.is_for(settings)) => {
            Ok(previous.cloned())
        }
        None => Plugin::load(&ground.engine, settings, None, previous),
    }
}

impl PolicyError {
    /// Something that should not be possible.
    fn breakdown(problem: String) -> PolicyError {
        PolicyError {
            policy: String::new(),
            upstream: None,
            problem,
            remedy: "please report it, with the policy's file".to_owned(),
            key: "file",
        }
    }

    fn new(policy: &str, upstream: Option<String>, error: &LoadError) -> PolicyError {
        PolicyError {
            policy: policy.to_owned(),
            upstream,
            problem: error.message(),
            remedy: error.remedy().to_owned(),
            key: error.key(),
        }
    }
}

/// An upstream with the addresses of its backends; the one that is in force where nothing has changed.
async fn resolve(
    settings: &config::Upstream,
    ground: &Ground,
) -> Result<Arc<Upstream>, BuildError> {
    let previous = ground
        .previous
        .as_ref()
        .and_then(|previous| previous.balancer(&settings.name))
        .map(|balancer| &balancer.upstream);
    let mut backends = Vec::with_capacity(settings.servers.len());
    for server in &settings.servers {
        let known = previous.and_then(|previous| previous.backend_at(&server.address));
        let addresses = match known {
            Some(known) if !ground.resolves => known.addresses.clone(),
            Some(_) | None => {
                lookup(&server.address)
                    .await
                    .map_err(|error| BuildError::Resolve {
                        upstream: settings.name.clone(),
                        address: server.address.clone(),
                        error,
                    })?
            }
        };
        backends.push(match known {
            Some(same) if same.settings == *server && same.is_at(&addresses) => same.clone(),
            Some(known) => Arc::new(known.successor(server.clone(), addresses)),
            None => Arc::new(Backend::new(server.clone(), addresses)),
        });
    }
    Ok(match previous {
        Some(same) if same.is_like(settings, &backends) => same.clone(),
        Some(previous) => Arc::new(previous.successor(settings.clone(), backends)),
        None => Arc::new(Upstream::new(settings.clone(), backends)),
    })
}

async fn lookup(address: &str) -> std::io::Result<Vec<SocketAddr>> {
    /// A resolver that does not answer must not hold up a start for long.
    const TIMEOUT: Duration = Duration::from_secs(10);
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host(address)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|_| std::io::ErrorKind::TimedOut)??.collect();
    if addresses.is_empty() {
        Err(std::io::Error::other("the name has no address"))
    } else {
        Ok(addresses)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Server;

    /// An upstream with one backend, as if its name had been resolved to this address.
    pub(crate) fn found_at(address: &str) -> Arc<Snapshot> {
        let server = Server::new("localhost:81".to_owned());
        let backend = Backend::new(server.clone(), vec![address.parse().unwrap()]);
        let settings = config::Upstream::new("app", 0, vec![server]);
        let upstream = Arc::new(Upstream::new(settings.clone(), vec![Arc::new(backend)]));
        let config = Config {
            upstreams: vec![settings],
            policies: config::Policy::built_in(config::ROTATION)
                .into_iter()
                .collect(),
            ..Config::empty()
        };
        let ground = Ground::new().unwrap();
        Arc::new(assemble(config, vec![upstream], &ground).unwrap())
    }

    #[tokio::test]
    async fn known_names_are_resolved_again_only_on_demand() {
        for (resolves, expected) in [(false, "192.0.2.7:81"), (true, "127.0.0.1:81")] {
            let previous = found_at("192.0.2.7:81");
            let ground = Ground {
                previous: Some(previous.clone()),
                resolves,
                ..Ground::new().unwrap()
            };
            let next = Snapshot::build(previous.config.clone(), ground)
                .await
                .unwrap();
            let [before, after] =
                [&previous, &next].map(|snapshot| &snapshot.balancers[0].upstream.backends[0]);
            assert!(
                after.addresses.contains(&expected.parse().unwrap()),
                "{:?}",
                after.addresses
            );
            assert_eq!(before.id, after.id);
        }
    }
}
