//! What a server is doing, as plain data: for the demo's table, for `check`, for tests.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::ServerState;
use crate::snapshot::Snapshot;
use crate::upstream::BackendId;

/// A server at one moment.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub uptime: Duration,
    pub listeners: Vec<SocketAddr>,
    pub shards: usize,
    /// Shards that died and were replaced since the start.
    pub shards_replaced: u64,
    /// Open now, tunnels included.
    pub connections: u64,
    /// Accepted since the start.
    pub accepted: u64,
    pub upstreams: Vec<UpstreamStatus>,
}

/// An upstream and the policy that balances it.
#[derive(Clone, Debug)]
pub struct UpstreamStatus {
    pub name: String,
    pub policy: PolicyStatus,
    pub backends: Vec<BackendStatus>,
}

/// A policy, and what its calls cost.
#[derive(Clone, Debug)]
pub struct PolicyStatus {
    /// What the configuration calls it.
    pub name: String,
    /// What it says of itself; `None` for `rotation`, which is no plugin.
    pub plugin: Option<PluginStatus>,
}

/// A policy that is a WebAssembly plugin.
#[derive(Clone, Debug)]
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
    pub mean_call: Option<Duration>,
}

/// A backend and its numbers over all shards.
#[derive(Clone, Debug)]
pub struct BackendStatus {
    pub id: BackendId,
    pub name: String,
    pub address: String,
    pub weight: u32,
    pub state: ServerState,
    pub in_flight: u32,
    /// Attempts made on it.
    pub picks: u64,
    /// Attempts without a response.
    pub failures: u64,
    /// Median and 99th percentile of the time to the response head; `None` before the first response.
    pub latency: Option<[Duration; 2]>,
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
                    })
                    .collect(),
            })
            .collect();
        Status {
            upstreams,
            ..Status::default()
        }
    }
}
