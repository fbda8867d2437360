//! All that a shard needs to serve a request, as one immutable whole.
//!
//! Routes, backends and policies are only ever replaced together: no request sees the route of one configuration and
//! the backends of another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, OnFailure};
use crate::plugin::{Engine, LoadError, Plugin};
use crate::policy::slot::Balancer;
use crate::route::RouteTable;
use crate::upstream::{Backend, Upstream};

/// A configuration in force.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Config,
    pub(crate) routes: RouteTable,
    /// In the order of `config.upstreams`.
    pub(crate) balancers: Vec<Arc<Balancer>>,
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
    /// Loads and tries every policy and resolves every backend's name.
    ///
    /// # Errors
    /// The first name that does not resolve, or all policies that do not load.
    pub(crate) async fn build(config: Config, engine: &Engine) -> Result<Snapshot, BuildError> {
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        for settings in &config.upstreams {
            upstreams.push(Arc::new(resolve(settings).await?));
        }
        let mut errors = Vec::new();
        let plugins: Vec<Option<Arc<Plugin>>> = config
            .policies
            .iter()
            .map(|settings| {
                Plugin::load(engine, settings).unwrap_or_else(|error| {
                    errors.push(PolicyError::new(&settings.name, None, &error));
                    None
                })
            })
            .collect();
        let mut balancers = Vec::with_capacity(upstreams.len());
        for upstream in upstreams {
            let index = upstream.settings.policy;
            let plugin = plugins.get(index).cloned().flatten();
            let on_failure = config
                .policies
                .get(index)
                .map_or(OnFailure::Fallback, |policy| policy.on_failure);
            if let Some(plugin) = &plugin
                && let Err(error) = plugin.probe(&upstream)
            {
                let name = upstream.settings.name.clone();
                errors.push(PolicyError::new(&plugin.name, Some(name), &error));
            }
            balancers.push(Arc::new(Balancer::new(upstream, plugin, on_failure)));
        }
        if !errors.is_empty() {
            return Err(BuildError::Policies(errors));
        }
        Ok(Snapshot {
            routes: RouteTable::new(&config.routes),
            balancers,
            config,
        })
    }
}

impl PolicyError {
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

async fn resolve(settings: &config::Upstream) -> Result<Upstream, BuildError> {
    let mut backends = Vec::with_capacity(settings.servers.len());
    for server in &settings.servers {
        let addresses = lookup(&server.address)
            .await
            .map_err(|error| BuildError::Resolve {
                upstream: settings.name.clone(),
                address: server.address.clone(),
                error,
            })?;
        backends.push(Arc::new(Backend::new(server.clone(), addresses)));
    }
    Ok(Upstream::new(settings.clone(), backends))
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
