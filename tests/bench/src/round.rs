//! One contender, started, loaded and measured once.

use std::time::Duration;

use anyhow::Context as _;

use crate::engine::Engine;
use crate::machine::{LOAD_CPU, PROXY_CPU, Ticks, Usage, seconds};
use crate::peer::{Peer, Programs, Setup};
use crate::traffic::Traffic;

/// Above this share of its CPU the load may be what limits the throughput.
const LOAD_BUSY_MAX: f64 = 0.95;
/// Above this share of time that the machine's host took for others, nothing is said.
const STEAL_MAX: f64 = 0.02;
/// Above this share of its CPU, what other programs did there would count as the proxy's.
const STRANGERS_MAX: f64 = 0.03;
/// Above this share of the responses, connections to the origins are not kept.
const FRESH_MAX: f64 = 0.01;
/// New connections to servers that the slowest makes in a second, and some.
const VISITS_PER_SECOND: f64 = 3000.0;
/// Below this share of the rate, more requests were waiting all the time.
const KEPT_UP: f64 = 0.97;
/// How often a round is repeated because something else was going on.
const REPEATS: usize = 2;
/// Of the throughput at which the load was at its limit, what it is repeated at.
const PACE: f64 = 0.7;
/// Until a proxy answers its first request.
const START: Duration = Duration::from_secs(60);

/// A proxy and what it has to do.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) label: String,
    pub(crate) peer: Peer,
    pub(crate) programs: Programs,
    pub(crate) backends: usize,
    pub(crate) routes: usize,
    pub(crate) traffic: Traffic,
}

/// For how long a round goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What came of a round.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub(crate) struct Sample {
    /// Why it does not count.
    pub(crate) void: Option<String>,
    /// Requests were sent at this rate a second, because without one the load was at its limit.
    pub(crate) paced: Option<f64>,
    pub(crate) responses: u64,
    pub(crate) body_bytes: u64,
    pub(crate) responses_per_second: f64,
    /// Of the proxy's CPU, whoever spent it.
    pub(crate) cpu_microseconds_per_response: f64,
    /// Of the proxy's processes alone.
    pub(crate) process_microseconds_per_response: f64,
    pub(crate) proxy_cpu_busy: f64,
    pub(crate) load_cpu_busy: f64,
    pub(crate) steal: f64,
    /// Of the proxy's CPU, what programs took that have nothing to do with the bench.
    pub(crate) strangers: f64,
    pub p50_microseconds: f64,
    pub p99_microseconds: f64,
    pub p999_microseconds: f64,
    pub(crate) upstream_connections: u64,
    pub(crate) resident_mebibytes: f64,
    /// From the start of the process to the first response.
    pub(crate) start_milliseconds: f64,
}

impl Case {
    /// One round. It is repeated if something else was going on, and at a rate if the load was at its limit.
    pub(crate) fn round(&self, length: Length) -> anyhow::Result<Sample> {
        let mut case = self.clone();
        let mut paced = None;
        let mut sample = case.measure(length)?;
        for _ in 0..REPEATS {
            if sample.load_cpu_busy > LOAD_BUSY_MAX {
                paced = Some((sample.responses_per_second * PACE).round());
                case.traffic.rate = paced;
            } else if sample.steal <= STEAL_MAX && sample.strangers <= STRANGERS_MAX {
                break;
            }
            sample = case.measure(length)?;
        }
        sample.paced = paced;
        Ok(sample)
    }

    /// Starts the proxy, lets it warm up and measures it.
    pub(crate) fn measure(&self, length: Length) -> anyhow::Result<Sample> {
        let mut traffic = self.traffic.clone();
        traffic.required = self.peer.duties();
        let mut engine = Engine::new(traffic)?;
        let setup = Setup {
            origins: engine.port(),
            backends: self.backends,
            routes: self.routes,
        };
        let mut proxy = self.peer.start(&setup, &self.programs)?;
        engine
            .wait_for(proxy.address, START, || proxy.is_alive())
            .with_context(|| format!("does not answer. Its last words: {}", proxy.log()))?;
        let start = proxy.started.elapsed();
        engine.start()?;
        // Until every server has been connected to.
        let first_visits = Duration::from_secs_f64(self.backends as f64 / VISITS_PER_SECOND);
        engine.run(length.warm_up + first_visits)?;
        engine.reset();

        let cpus = || -> anyhow::Result<_> { Ok((Ticks::now(PROXY_CPU)?, Ticks::now(LOAD_CPU)?)) };
        let (proxy_then, load_then) = cpus()?;
        let process_then = Usage::of(proxy.process());
        let fresh_then = engine.upstream_connections();
        let begin = std::time::Instant::now();
        engine.run(length.measured)?;
        let elapsed = begin.elapsed();
        let (proxy_now, load_now) = cpus()?;
        let process = Usage::of(proxy.process());

        let counts = engine.counts();
        let (proxy_ticks, load_ticks) = (proxy_now.since(proxy_then), load_now.since(load_then));
        let process_ticks = process.ticks.saturating_sub(process_then.ticks);
        let per_response = |ticks| seconds(ticks) * 1e6 / counts.responses.max(1) as f64;
        let strangers =
            proxy_ticks.tasks.saturating_sub(process_ticks) as f64 / proxy_ticks.all.max(1) as f64;
        let quantile = |share| counts.latency.quantile(share).as_secs_f64() * 1e6;
        let fresh = engine.upstream_connections() - fresh_then;
        let mut sample = Sample {
            void: None,
            paced: None,
            responses: counts.responses,
            body_bytes: counts.body_bytes,
            responses_per_second: counts.responses as f64 / elapsed.as_secs_f64(),
            cpu_microseconds_per_response: per_response(proxy_ticks.busy),
            process_microseconds_per_response: per_response(process_ticks),
            proxy_cpu_busy: proxy_ticks.busy_share(),
            load_cpu_busy: load_ticks.busy_share(),
            steal: proxy_ticks.steal_share().max(load_ticks.steal_share()),
            strangers,
            p50_microseconds: quantile(0.5),
            p99_microseconds: quantile(0.99),
            p999_microseconds: quantile(0.999),
            upstream_connections: engine.upstream_connections(),
            resident_mebibytes: process.resident_bytes as f64 / f64::from(1 << 20),
            start_milliseconds: start.as_secs_f64() * 1e3,
        };
        sample.void = match () {
            () if counts.errors > 0 => {
                let first = counts.first_error.unwrap_or_default();
                Some(format!(
                    "{} errors, the first: {first}\n{}",
                    counts.errors,
                    proxy.log()
                ))
            }
            () if counts.responses == 0 => Some("no responses".to_owned()),
            () if !engine.missing().is_empty() => Some(format!(
                "does less than the others: {} missing",
                engine.missing().join(", ")
            )),
            () if self.traffic.reuse && fresh as f64 > FRESH_MAX * counts.responses as f64 => {
                Some(format!("{fresh} new connections to the origins"))
            }
            () if self
                .traffic
                .rate
                .is_some_and(|rate| sample.responses_per_second < rate * KEPT_UP) =>
            {
                Some("could not keep up with the rate".to_owned())
            }
            () if sample.load_cpu_busy > LOAD_BUSY_MAX => Some(format!(
                "the load was at its limit ({:.0} %)",
                sample.load_cpu_busy * 100.0
            )),
            () if sample.steal > STEAL_MAX => Some(format!("{:.1} % steal", sample.steal * 100.0)),
            () if strangers > STRANGERS_MAX => Some(format!(
                "other programs took {:.0} % of a CPU",
                strangers * 100.0
            )),
            () => None,
        };
        // Clients first: a proxy that drains would wait for them.
        drop(engine);
        drop(proxy);
        Ok(sample)
    }
}
