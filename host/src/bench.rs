//! What a pick costs, the crossing into the policy and back included: `waypost plugin bench`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{self, Server};
use crate::plugin::{Engine, Plugin};
use crate::policy::Verdict;
use crate::policy::slot::{Balancer, Slot, rehearsal};
use crate::upstream::{Backend, BackendId, Upstream};

/// Picks that are timed together: long beside the clock's own cost, short beside a time slice.
const BATCH: u32 = 500;
/// Batches that are timed, after as many that are not.
const BATCHES: usize = 200;
/// Requests under way at any time, so that load-aware policies have something to compare.
const IN_FLIGHT: usize = 64;

/// The cost of one pick with so many backends, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PickCost {
    /// Backends of the upstream, all up, of equal weight.
    pub backends: usize,
    /// Half of the batches cost less.
    pub median: f64,
    /// A tenth of the batches cost less, a tenth more: what to expect from one run to the next.
    pub spread: [f64; 2],
}

/// Times picks of a policy for upstreams of the given sizes.
///
/// # Errors
/// Where the policy does not load or does not stand a trial.
pub fn picks(settings: &config::Policy, sizes: &[usize]) -> anyhow::Result<Vec<PickCost>> {
    let engine = Engine::new()?;
    let plugin = Plugin::load(&engine, settings, None, None)?;
    let mut costs = Vec::with_capacity(sizes.len());
    for size in sizes {
        if let Some(plugin) = &plugin {
            plugin.probe(&upstream(*size))?;
        }
        costs.push(time_picks(plugin.clone(), settings, *size));
        let failures = plugin.as_ref().map_or(0, |plugin| plugin.stats.failures());
        anyhow::ensure!(
            failures == 0,
            "policy {} failed {failures} times with {size} backends: what was timed is what took its place",
            settings.name
        );
    }
    Ok(costs)
}

fn time_picks(plugin: Option<Arc<Plugin>>, settings: &config::Policy, backends: usize) -> PickCost {
    let upstream = Arc::new(upstream(backends));
    let balancer = Balancer::new(
        upstream.clone(),
        plugin,
        settings.on_failure,
        Arc::default(),
    );
    let slot = Slot::new(Arc::new(balancer));
    let mut under_way = VecDeque::with_capacity(IN_FLIGHT + 1);
    let mut samples: Vec<f64> = (0..2 * BATCHES)
        .map(|_| time_batch(&slot, &upstream, &mut under_way))
        .collect();
    let mut timed = samples.split_off(BATCHES);
    timed.sort_by(f64::total_cmp);
    let at = |share: usize| timed.get(timed.len() * share / 10).copied().unwrap_or(0.0);
    PickCost {
        backends,
        median: at(5),
        spread: [at(1), at(9)],
    }
}

/// Nanoseconds per pick of one batch.
fn time_batch(slot: &Slot, upstream: &Upstream, under_way: &mut VecDeque<BackendId>) -> f64 {
    let mut exchange = rehearsal(0);
    let start = Instant::now();
    for _ in 0..BATCH {
        let verdict;
        (exchange, verdict) = slot.pick(exchange);
        exchange.request_edits.clear();
        exchange.response_edits.clear();
        if let Verdict::Forward(id) = verdict
            && let Some(backend) = upstream.backend(id)
        {
            backend.live.begin();
            under_way.push_back(id);
        }
        if under_way.len() > IN_FLIGHT {
            let ended = under_way.pop_front().and_then(|id| upstream.backend(id));
            ended.inspect(|backend| backend.live.end());
        }
    }
    start.elapsed().as_nanos() as f64 / f64::from(BATCH)
}

fn upstream(backends: usize) -> Upstream {
    let servers: Vec<Server> = (0..backends)
        .map(|index| Server::new(format!("backend-{index}:80")))
        .collect();
    let backends = servers
        .iter()
        .map(|server| Arc::new(Backend::new(server.clone(), Vec::new())))
        .collect();
    Upstream::new(config::Upstream::new("bench", 0, servers), backends)
}
