//! What a pick costs, the crossing into the policy and back included: `waypost plugin bench`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config;
use crate::inspect::PolicyRefused;
use crate::plugin::{Engine, Plugin};
use crate::policy::slot::{Balancer, Slot, rehearsal};
use crate::policy::{Policy as _, Verdict};
use crate::upstream::{BackendId, Upstream};

/// Picks that are timed together take about this long: much beside the clock's own cost, little beside a time slice.
const BATCH_TIME: Duration = Duration::from_micros(250);
/// So many picks at least, so that one that is dear now and then does not make a batch of its own.
const BATCH_PICKS: std::ops::RangeInclusive<u32> = 20..=1_000;
/// Batches that are timed, after as many that are not.
const BATCHES: usize = 200;
/// What a pick costs also hangs on where in memory an instance happens to lie, which makes a few percent between two of
/// one policy. So many of each are compared.
const PLACES: usize = 16;
/// Requests under way at any time, so that load-aware policies have something to compare.
const IN_FLIGHT: usize = 64;

/// The cost of one pick with so many backends, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PickCost {
    /// Backends of the upstream, all up, of equal weight.
    pub backends: usize,
    /// Half of the batches cost less.
    pub median: f64,
    /// A tenth of the batches cost less, a tenth more: what to expect from one run to the next.
    pub spread: [f64; 2],
    /// What it costs until a new instance can pick: memory, `configure` and `update`, once the code is compiled. `None`
    /// for the host's own rotation, and where it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
}

/// The cost of one pick by two policies, timed in turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub new: PickCost,
    pub old: PickCost,
    /// How much more the new one costs, in percent: the median over several pairs of instances, and for each over pairs
    /// of batches, one right after the other.
    pub difference: f64,
    /// Where that median lies with a probability of 95 %. With 0 in it, nothing is known to differ.
    pub interval: [f64; 2],
}

/// Times policies.
#[derive(Debug)]
pub struct Bench {
    engine: Engine,
}

/// A policy that is to be timed.
#[derive(Debug)]
pub struct Contestant {
    /// `None` is `rotation`.
    plugin: Option<Arc<Plugin>>,
    settings: config::Policy,
}

impl Bench {
    /// # Errors
    /// Where this machine cannot run WebAssembly.
    pub fn new() -> anyhow::Result<Bench> {
        Ok(Bench {
            engine: Engine::new()?,
        })
    }

    /// Loads a policy.
    ///
    /// # Errors
    /// Where it does not load.
    pub fn enter(&self, settings: &config::Policy) -> Result<Contestant, PolicyRefused> {
        Ok(Contestant {
            plugin: Plugin::load(&self.engine, settings, None, None)?,
            settings: settings.clone(),
        })
    }
}

/// Times picks of a policy for an upstream of so many backends.
///
/// # Errors
/// Where the policy does not stand a trial, or fails meanwhile.
pub fn time(contestant: &Contestant, backends: usize) -> Result<PickCost, PolicyRefused> {
    let mut track = contestant.track(backends)?;
    let picks = batch_for(track.cost());
    track.warm_up(picks, BATCHES);
    let samples = (0..BATCHES).map(|_| track.batch(picks)).collect();
    contestant.check(backends)?;
    Ok(PickCost {
        start: contestant.start(backends),
        ..PickCost::of(backends, samples)
    })
}

/// Times picks of two policies in turns, so that whatever else the machine does meets both of them.
///
/// # Errors
/// As [`time`], for either of them.
pub fn compare(
    new: &Contestant,
    old: &Contestant,
    backends: usize,
) -> Result<Comparison, PolicyRefused> {
    let mut places = Vec::with_capacity(PLACES);
    for _ in 0..PLACES {
        let mut tracks = (new.track(backends)?, old.track(backends)?);
        let picks = batch_for(tracks.0.cost().max(tracks.1.cost()));
        tracks.0.warm_up(picks, BATCHES / PLACES);
        tracks.1.warm_up(picks, BATCHES / PLACES);
        let pair = |index: usize| {
            // Who goes first finds the caches as the other left them: each does so half of the time.
            if index.is_multiple_of(2) {
                let new = tracks.0.batch(picks);
                (new, tracks.1.batch(picks))
            } else {
                let old = tracks.1.batch(picks);
                (tracks.0.batch(picks), old)
            }
        };
        places.push((0..BATCHES / PLACES).map(pair).collect());
    }
    new.check(backends)?;
    old.check(backends)?;
    Ok(Comparison::of(backends, &places))
}

impl PickCost {
    fn of(backends: usize, mut samples: Vec<f64>) -> PickCost {
        samples.sort_by(f64::total_cmp);
        let at = |share: usize| at(&samples, samples.len() * share / 10);
        PickCost {
            backends,
            median: at(5),
            spread: [at(1), at(9)],
            start: None,
        }
    }
}

impl Comparison {
    /// Of pairs of samples, the new one's and the old one's, for each pair of instances.
    fn of(backends: usize, places: &[Vec<(f64, f64)>]) -> Comparison {
        let sorted = |mut percent: Vec<f64>| {
            percent.sort_by(f64::total_cmp);
            percent
        };
        let median = |pairs: &Vec<(f64, f64)>| {
            let percent = pairs
                .iter()
                .map(|(new, old)| (new / old.max(f64::MIN_POSITIVE) - 1.0) * 100.0);
            let percent = sorted(percent.collect());
            at(&percent, percent.len() / 2)
        };
        let percent = sorted(places.iter().map(median).collect());
        // How many of n samples lie below their true median is binomial: n/2, give or take 1.96 times sqrt(n)/2.
        let count = percent.len() as f64;
        let below = (count / 2.0 - 0.98 * count.sqrt()).max(1.0) as usize;
        let pairs = || places.iter().flatten();
        Comparison {
            new: PickCost::of(backends, pairs().map(|(new, _)| *new).collect()),
            old: PickCost::of(backends, pairs().map(|(_, old)| *old).collect()),
            difference: at(&percent, percent.len() / 2),
            interval: [
                at(&percent, below - 1),
                at(&percent, percent.len().saturating_sub(below)),
            ],
        }
    }
}

fn at(sorted: &[f64], index: usize) -> f64 {
    sorted.get(index).copied().unwrap_or(0.0)
}

/// How many picks of that cost to time together.
fn batch_for(ns: f64) -> u32 {
    let picks = BATCH_TIME.as_nanos() as f64 / ns.max(1.0);
    (picks as u32).clamp(*BATCH_PICKS.start(), *BATCH_PICKS.end())
}

impl Contestant {
    fn track(&self, backends: usize) -> Result<Track, PolicyRefused> {
        let upstream = Upstream::made_up(backends);
        if let Some(plugin) = &self.plugin {
            plugin.probe(&upstream)?;
        }
        let upstream = Arc::new(upstream);
        let balancer = Balancer::new(
            upstream.clone(),
            self.plugin.clone(),
            self.settings.on_failure,
            Arc::default(),
        );
        Ok(Track {
            slot: Slot::new(Arc::new(balancer)),
            upstream,
            under_way: VecDeque::with_capacity(IN_FLIGHT + 1),
        })
    }

    /// Nanoseconds until a new instance can pick; `None` where there is none, or it fails.
    fn start(&self, backends: usize) -> Option<f64> {
        const STARTS: usize = 50;
        let plugin = self.plugin.as_ref()?;
        let upstream = Arc::new(Upstream::made_up(backends).rehearsal());
        let mut samples = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let start = Instant::now();
            let mut instance = plugin.instantiate(&upstream).ok()?;
            instance.update(&upstream).ok()?;
            samples.push(start.elapsed().as_nanos() as f64);
        }
        samples.sort_by(f64::total_cmp);
        samples.get(STARTS / 2).copied()
    }

    fn check(&self, backends: usize) -> Result<(), PolicyRefused> {
        let failures = self
            .plugin
            .as_ref()
            .map_or(0, |plugin| plugin.stats.failures());
        if failures == 0 {
            return Ok(());
        }
        Err(PolicyRefused {
            problem: format!(
                "policy {} failed {failures} times with {backends} backends: what was timed is what took its place",
                self.settings.name
            ),
            remedy: "the log above says how it failed".to_owned(),
        })
    }
}

/// One policy at work on one upstream.
struct Track {
    slot: Slot,
    upstream: Arc<Upstream>,
    under_way: VecDeque<BackendId>,
}

impl Track {
    /// Nanoseconds per pick, roughly.
    fn cost(&mut self) -> f64 {
        self.batch(*BATCH_PICKS.start());
        self.batch(*BATCH_PICKS.start())
    }

    fn warm_up(&mut self, picks: u32, batches: usize) {
        for _ in 0..batches {
            self.batch(picks);
        }
    }

    /// Nanoseconds per pick over so many of them.
    fn batch(&mut self, picks: u32) -> f64 {
        let mut exchange = rehearsal(0);
        let start = Instant::now();
        for _ in 0..picks {
            let verdict;
            (exchange, verdict) = self.slot.pick(exchange);
            exchange.request_edits.clear();
            exchange.response_edits.clear();
            if let Verdict::Forward(id) = verdict
                && let Some(backend) = self.upstream.backend(id)
            {
                backend.live.begin();
                self.under_way.push_back(id);
            }
            if self.under_way.len() > IN_FLIGHT {
                let ended = self.under_way.pop_front();
                let ended = ended.and_then(|id| self.upstream.backend(id));
                ended.inspect(|backend| backend.live.end());
            }
        }
        start.elapsed().as_nanos() as f64 / f64::from(picks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_that_of_pairs() {
        // The machine gets slower and slower, and the new one is always a tenth faster.
        let pairs: Vec<(f64, f64)> = (1..=200)
            .map(|n| f64::from(n) * 100.0)
            .map(|old| (old * 0.9, old))
            .collect();
        let places: Vec<_> = pairs.chunks(10).map(<[_]>::to_vec).collect();
        let Comparison {
            new,
            old,
            difference,
            interval,
        } = Comparison::of(3, &places);
        assert_eq!((new.backends, old.backends), (3, 3));
        assert_eq!(old.median, 10_100.0);
        for percent in [difference, interval[0], interval[1]] {
            assert!((percent + 10.0).abs() < 1e-9, "{percent}");
        }
    }

    #[test]
    fn an_interval_holds_what_is_not_known() {
        // Sometimes the one is faster, sometimes the other.
        let pairs: Vec<(f64, f64)> = (0..200)
            .map(|n| (100.0 + f64::from(n * 37 % 21) - 10.0, 100.0))
            .collect();
        let places: Vec<_> = pairs.chunks(7).map(<[_]>::to_vec).collect();
        let compared = Comparison::of(3, &places);
        assert!(
            compared.interval[0] < 0.0 && compared.interval[1] > 0.0,
            "{compared:?}"
        );
        assert!(
            compared.interval[0] > -5.0 && compared.interval[1] < 5.0,
            "{compared:?}"
        );
        assert_eq!(Comparison::of(3, &[]).difference, 0.0);
    }

    #[test]
    fn batches_are_short_and_not_too_short() {
        assert_eq!(batch_for(250.0), 1_000);
        assert_eq!(batch_for(2_500.0), 100);
        assert_eq!(batch_for(1e9), 20);
        assert_eq!(batch_for(0.0), 1_000);
    }
}
