//! What a server is doing, as plain data: for `waypost status`, the demo's table, `check` and tests.
//!
//! As JSON, the names of the fields are those of the structures; what has a unit says so in its name.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::config::{self, Config, ServerState};
use crate::snapshot::Snapshot;
use crate::upstream::BackendId;

mod json;
pub(crate) mod text;

/// A server at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    #[serde(rename = "uptime_seconds", serialize_with = "json::seconds")]
    pub uptime: Duration,
    /// Of the configuration in force: goes up by one with each change.
    pub generation: u64,
    pub listeners: Vec<SocketAddr>,
    pub shards: usize,
    /// Shards that died and were replaced since the start.
    pub shards_replaced: u64,
    /// Open now, tunnels included.
    pub connections: u64,
    /// Accepted since the start.
    pub accepted: u64,
    pub routes: Vec<RouteStatus>,
    pub upstreams: Vec<UpstreamStatus>,
}

/// Which requests go to which upstream.
#[derive(Clone, Debug, Serialize)]
pub struct RouteStatus {
    /// As in a configuration; `*` is any.
    pub host: String,
    pub path: String,
    pub upstream: String,
}

/// An upstream and the policy that balances it.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamStatus {
    pub name: String,
    pub policy: PolicyStatus,
    pub backends: Vec<BackendStatus>,
}

/// A policy, and what its calls cost.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyStatus {
    /// What the configuration calls it.
    pub name: String,
    /// What it says of itself; `None` for `rotation`, which is no plugin.
    pub plugin: Option<PluginStatus>,
    /// The last time other code took its place.
    pub last_swap: Option<SwapStatus>,
    /// The version that was taken out because it kept failing, and why.
    pub quarantine: Option<String>,
}

/// A replacement of a policy's code.
#[derive(Clone, Debug, Serialize)]
pub struct SwapStatus {
    /// Replacements since the start, this one included.
    pub count: u64,
    /// From the beginning until the code was compiled and tried.
    #[serde(rename = "built_seconds", serialize_with = "json::seconds")]
    pub built: Duration,
    /// From the beginning until every shard had it.
    #[serde(rename = "active_seconds", serialize_with = "json::seconds")]
    pub active: Duration,
    /// The longest that a shard served nothing while it switched.
    #[serde(rename = "pause_us", serialize_with = "json::micros")]
    pub pause: Duration,
    /// Instances that took over their predecessor's state, and those that could not.
    pub handed_over: u64,
    pub cold: u64,
}

/// A policy that is a WebAssembly plugin.
#[derive(Clone, Debug, Serialize)]
pub struct PluginStatus {
    pub name: String,
    pub version: String,
    pub promises: Vec<String>,
    /// SHA-256 of its bytes in hex.
    pub digest: String,
    /// Picks asked of it, over all upstreams that use it.
    pub calls: u64,
    pub failures: u64,
    /// Mean time of a pick with everything around it, from one in 64.
    #[serde(rename = "mean_call_us", serialize_with = "json::optional_us")]
    pub mean_call: Option<Duration>,
}

/// A backend and its numbers over all shards.
#[derive(Clone, Debug, Serialize)]
pub struct BackendStatus {
    #[serde(serialize_with = "json::id")]
    pub id: BackendId,
    pub name: String,
    pub address: String,
    pub weight: u32,
    #[serde(serialize_with = "json::state")]
    pub state: ServerState,
    pub in_flight: u32,
    /// Attempts made on it.
    pub picks: u64,
    /// Attempts without a response.
    pub failures: u64,
    /// Median and 99th percentile of the time to the response head; `None` before the first response.
    #[serde(rename = "latency_us", serialize_with = "json::latency")]
    pub latency: Option<[Duration; 2]>,
    /// What was said of it since the start, in place of what is configured.
    pub overridden: Option<String>,
}

impl fmt::Display for PolicyStatus {
    /// `sticky (cookie-hash 1.2.0)`, or `round-robin 0.1.0` where it is called what it calls itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.plugin {
            Some(plugin) if plugin.name == self.name => {
                write!(f, "{} {}", self.name, plugin.version)
            }
            Some(plugin) => write!(f, "{} ({} {})", self.name, plugin.name, plugin.version),
            None => f.write_str(&self.name),
        }
    }
}

impl Status {
    pub(crate) fn of_snapshot(snapshot: &Snapshot) -> Status {
        let upstreams = snapshot
            .balancers
            .iter()
            .map(|balancer| UpstreamStatus {
                name: balancer.upstream.settings.name.clone(),
                policy: PolicyStatus {
                    name: snapshot
                        .config
                        .policies
                        .get(balancer.upstream.settings.policy)
                        .map(|policy| policy.name.clone())
                        .unwrap_or_default(),
                    plugin: balancer.plugin.as_ref().map(|plugin| PluginStatus {
                        name: plugin.about.name.clone(),
                        version: plugin.about.version.clone(),
                        promises: plugin.about.promises.clone(),
                        digest: plugin.digest.clone(),
                        calls: plugin.stats.calls(),
                        failures: plugin.stats.failures(),
                        mean_call: plugin.stats.mean_call(),
                    }),
                    last_swap: None,
                    quarantine: None,
                },
                backends: balancer
                    .upstream
                    .backends
                    .iter()
                    .map(|backend| BackendStatus {
                        id: backend.id,
                        name: backend.settings.name.clone(),
                        address: backend.settings.address.clone(),
                        weight: backend.settings.weight,
                        state: backend.state(),
                        in_flight: backend.live.in_flight(),
                        picks: backend.live.picks(),
                        failures: backend.live.failures(),
                        latency: backend.live.latency.quantiles([0.5, 0.99]),
                        overridden: None,
                    })
                    .collect(),
            })
            .collect();
        Status {
            generation: snapshot.generation,
            routes: RouteStatus::all(&snapshot.config),
            upstreams,
            ..Status::default()
        }
    }
}

impl RouteStatus {
    fn all(config: &Config) -> Vec<RouteStatus> {
        let upstream = |index| config.upstreams.get(index);
        let route = |route: &config::Route| RouteStatus {
            host: route.host.to_string(),
            path: route.path.clone(),
            upstream: upstream(route.upstream)
                .map(|upstream| upstream.name.clone())
                .unwrap_or_default(),
        };
        config.routes.iter().map(route).collect()
    }
}
