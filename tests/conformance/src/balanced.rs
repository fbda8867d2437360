//! `balanced`: over any stretch of requests each backend's share follows its weight.

use waypost_plugin::Ending;

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::play::{Play, Spec};
use crate::report::Verdict;
use crate::shrink;
use crate::subject::Request;
use crate::traffic::address;

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "balanced/shares",
        doc: "Each backend's share matches its weight: to one request in whole rounds, or by chi-square where it draws lots.",
        run: shares,
    },
    Case {
        id: "balanced/shares-over-shards",
        doc: "The same over several shards, whichever of them gets how many requests.",
        run: shares_over_shards,
    },
    Case {
        id: "balanced/shares-after-change",
        doc: "The same after weights and backends have changed.",
        run: shares_after_change,
    },
    Case {
        id: "balanced/no-starvation",
        doc: "However low its weight, a backend gets its turn within two rounds.",
        run: no_starvation,
    },
    Case {
        id: "balanced/smooth",
        doc: "No backend gets more requests in a row than its weight forces, or two more where weights differ.",
        run: smooth,
    },
];

/// What is sent, and by whom it is balanced.
#[derive(Clone, Debug)]
struct Load {
    /// Before these there are others.
    before: Vec<u32>,
    weights: Vec<u32>,
    shards: usize,
    rounds: u64,
}

impl Load {
    fn smaller(&self) -> Vec<Load> {
        let mut found = Vec::new();
        for weights in fewer(&self.weights) {
            found.push(Load {
                weights,
                ..self.clone()
            });
        }
        if !self.before.is_empty() {
            let before = fewer(&self.before);
            found.extend(before.into_iter().map(|before| Load {
                before,
                ..self.clone()
            }));
        }
        if self.shards > 1 {
            found.push(Load {
                shards: self.shards - 1,
                ..self.clone()
            });
        }
        if self.rounds > 1 {
            found.push(Load {
                rounds: self.rounds / 2,
                ..self.clone()
            });
        }
        found
    }

    fn show(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.before.is_empty() {
            lines.push(format!("backends of weights {:?} at first", self.before));
        }
        lines.push(format!("backends of weights {:?}", self.weights));
        let (shards, rounds) = (self.shards, self.rounds);
        let requests = rounds * total(&self.weights);
        lines.push(format!(
            "{requests} requests ({rounds} rounds) of as many clients, over {shards} shard(s)"
        ));
        lines
    }

    /// Which backends got the requests, in order, and whether that was left to chance.
    fn picks(&self, trial: &Trial<'_>) -> Result<(Vec<usize>, bool), Trouble> {
        let mut play = trial.play(self.shards)?;
        let mut number = 0;
        if !self.before.is_empty() {
            play.set(&fleet(&self.before));
            for _ in 0..total(&self.before) {
                one(&mut play, self.shards, &mut number)?;
            }
        }
        play.set(&fleet(&self.weights));
        let mut picks = Vec::new();
        let mut chance = false;
        for _ in 0..self.rounds * total(&self.weights) {
            let (pick, random) = one(&mut play, self.shards, &mut number)?;
            chance |= random;
            picks.push(pick);
        }
        Ok((picks, chance))
    }
}

fn total(weights: &[u32]) -> u64 {
    weights.iter().copied().map(u64::from).sum()
}

fn fleet(weights: &[u32]) -> Vec<Spec> {
    let specs = weights.iter().zip(0..);
    specs
        .map(|(weight, name)| Spec::up(name).weighing(*weight))
        .collect()
}

/// Weights that are fewer or lower; never none.
fn fewer(weights: &[u32]) -> Vec<Vec<u32>> {
    let mut found = shrink::shorter(weights);
    found.retain(|weights| !weights.is_empty());
    for (at, weight) in weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 1)
    {
        let mut lower = weights.to_vec();
        lower[at] = weight / 2;
        found.push(lower);
    }
    found
}

/// The place of the backend that gets the next request, and whether the policy drew lots.
fn one(play: &mut Play<'_>, shards: usize, number: &mut u64) -> Result<(usize, bool), Trouble> {
    // Some shards get more than others, and none of them regularly.
    let shard = (*number * *number % 7) as usize % shards;
    let request = Request::get(&format!("/{number}")).from(&address(*number));
    *number += 1;
    let picked = play.send(shard, request)?;
    play.end(0, Ending::Status(200), 1_000);
    let place = picked.backend().and_then(|id| {
        let mut backends = play.world.backends.iter();
        backends.position(|backend| backend.id == id)
    });
    match place {
        Some(place) => Ok((place, picked.asked.random)),
        None => Err(Trouble::Unclear(format!(
            "it answered {:?} instead of picking a backend",
            picked.verdict
        ))),
    }
}

fn counted(picks: &[usize], backends: usize) -> Vec<u64> {
    let mut counts = vec![0; backends];
    for pick in picks {
        counts[*pick] += 1;
    }
    counts
}

fn compare(load: &Load, picks: &[usize], chance: bool, slack: f64) -> Result<(), Trouble> {
    let counts = counted(picks, load.weights.len());
    let sum = total(&load.weights) as f64;
    let expected = |weight: u32| f64::from(weight) * picks.len() as f64 / sum;
    if chance {
        let terms = counts.iter().zip(&load.weights).map(|(count, weight)| {
            let expected = expected(*weight);
            (*count as f64 - expected).powi(2) / expected
        });
        let (found, limit) = (terms.sum::<f64>(), chi_square(load.weights.len() - 1));
        return match found > limit {
            true => Err(Trouble::Wrong(format!(
                "got shares {counts:?}: chi-square is {found:.1}, and above {limit:.1} once in a million"
            ))),
            false => Ok(()),
        };
    }
    let far = counts
        .iter()
        .zip(&load.weights)
        .position(|(count, weight)| (*count as f64 - expected(*weight)).abs() > slack);
    match far {
        Some(at) => Err(Trouble::Wrong(format!(
            "b{at} got {} of {} requests where its weight makes {:.1}; all: {counts:?}",
            counts[at],
            picks.len(),
            expected(load.weights[at])
        ))),
        None => Ok(()),
    }
}

/// What chi-square exceeds once in a million times (Wilson and Hilferty).
fn chi_square(freedom: usize) -> f64 {
    const Z: f64 = 4.753;
    if freedom == 0 {
        return 0.5;
    }
    let freedom = freedom as f64;
    let share = 2.0 / (9.0 * freedom);
    freedom * (1.0 - share + Z * share.sqrt()).powi(3)
}

/// Some loads of this many shards, with and without others before.
fn loads(trial: &mut Trial<'_>, shards: u64, before: bool) -> Vec<Load> {
    let fixed: [&[u32]; 6] = [
        &[1, 1],
        &[1, 1, 1, 1, 1],
        &[5, 1, 1],
        &[3, 2, 1],
        &[1, 9],
        &[2, 2, 4],
    ];
    let random = &mut trial.random;
    let mut weights: Vec<Vec<u32>> = fixed.iter().map(|weights| weights.to_vec()).collect();
    for _ in 0..6 {
        let count = random.between(2, 9);
        weights.push((0..count).map(|_| random.between(1, 12) as u32).collect());
    }
    weights
        .into_iter()
        .map(|weights| {
            let count = random.between(1, 5);
            let others = (0..count).map(|_| random.between(1, 5) as u32).collect();
            let least = 200 / total(&weights) + 1;
            Load {
                before: if before { others } else { Vec::new() },
                weights,
                shards: if shards == 1 {
                    1
                } else {
                    random.between(2, shards) as usize
                },
                rounds: random.between(least, 2 * least),
            }
        })
        .collect()
}

fn each(
    trial: &Trial<'_>,
    loads: Vec<Load>,
    check: impl Fn(&Load) -> Result<(), Trouble>,
) -> Verdict {
    for load in loads {
        let breaking = Breaking::Elsewhere;
        let verdict = trial.falsify(load, Load::smaller, breaking, &check, Load::show);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

fn shares(trial: &mut Trial<'_>) -> Verdict {
    let loads = loads(trial, 1, false);
    each(trial, loads, |load| {
        let (picks, chance) = load.picks(trial)?;
        compare(load, &picks, chance, 1.0)
    })
}

fn shares_over_shards(trial: &mut Trial<'_>) -> Verdict {
    let loads = loads(trial, 5, false);
    each(trial, loads, |load| {
        let (picks, chance) = load.picks(trial)?;
        compare(load, &picks, chance, 1.0)
    })
}

fn shares_after_change(trial: &mut Trial<'_>) -> Verdict {
    let loads = loads(trial, 2, true);
    each(trial, loads, |load| {
        let (picks, chance) = load.picks(trial)?;
        // A round need not begin with the change.
        compare(load, &picks, chance, 2.0)
    })
}

fn no_starvation(trial: &mut Trial<'_>) -> Verdict {
    let loads = loads(trial, 3, false);
    each(trial, loads, |load| {
        let (picks, chance) = load.picks(trial)?;
        // By chance alone: left out of so many rounds once in e^20.
        let rounds = if chance { 20 } else { 2 };
        let window = (rounds * total(&load.weights)) as usize;
        for (at, _) in load.weights.iter().enumerate() {
            let hungry = picks.windows(window).any(|window| !window.contains(&at));
            if hungry {
                return Err(Trouble::Wrong(format!(
                    "b{at} got none of {window} requests in a row"
                )));
            }
        }
        Ok(())
    })
}

fn smooth(trial: &mut Trial<'_>) -> Verdict {
    let loads = loads(trial, 1, false);
    each(trial, loads, |load| {
        let (picks, chance) = load.picks(trial)?;
        if chance {
            return Err(Trouble::NotApplicable("it draws lots".into()));
        }
        let sum = total(&load.weights);
        let even = load.weights.iter().all(|weight| *weight == load.weights[0]);
        for run in picks.chunk_by(|one, next| one == next) {
            let weight = u64::from(load.weights[run[0]]);
            let others = sum - weight;
            if others == 0 {
                continue;
            }
            // A schedule that is always within a request of its shares may still put two next to each other, the
            // first as late and the second as early as can be.
            let limit = weight.div_ceil(others) + u64::from(!even);
            if run.len() as u64 > limit {
                return Err(Trouble::Wrong(format!(
                    "b{} got {} requests in a row; no more than {limit} are smooth for its weight",
                    run[0],
                    run.len()
                )));
            }
        }
        Ok(())
    })
}
