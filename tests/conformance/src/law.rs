//! The law of the contract: what every policy keeps to, whatever it promises.

use waypost_plugin::{BackendId, BackendState, Ending, Failure, Outcome, Pick};

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::play::{Play, Played, Rule, Shown, Spec, Step, World, fleet};
use crate::random::Random;
use crate::report::Verdict;
use crate::shrink;
use crate::subject::{Picked, Request, Response, Subject};
use crate::traffic::{Mix, Words, hostile, ordinary};

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "law/never-breaks",
        doc: "No call panics or traps, whatever ordinary traffic does.",
        run: never_breaks,
    },
    Case {
        id: "law/never-picks-down",
        doc: "A backend that is down is never picked.",
        run: |trial| traffic(trial, Mix::ORDINARY, not_down),
    },
    Case {
        id: "law/never-picks-draining",
        doc: "A backend that is draining is never picked.",
        run: |trial| traffic(trial, Mix::ORDINARY, not_draining),
    },
    Case {
        id: "law/never-picks-removed",
        doc: "A backend that is gone is never picked.",
        run: |trial| traffic(trial, Mix::ORDINARY, not_removed),
    },
    Case {
        id: "law/never-picks-unknown",
        doc: "An id that no backend ever had is never picked.",
        run: |trial| traffic(trial, Mix::ORDINARY, not_unknown),
    },
    Case {
        id: "law/never-picks-tried",
        doc: "A retry never goes to a backend that was tried for this request.",
        run: never_tried,
    },
    Case {
        id: "law/weight-zero",
        doc: "A backend of weight 0 is never picked.",
        run: |trial| traffic(trial, Mix::ORDINARY, not_weightless),
    },
    Case {
        id: "law/huge-weights",
        doc: "Weights up to the largest change nothing of the law.",
        run: huge_weights,
    },
    Case {
        id: "law/empty-is-unavailable",
        doc: "Without backends the answer is `unavailable`.",
        run: empty,
    },
    Case {
        id: "law/all-down-is-unavailable",
        doc: "Where no backend takes requests the answer is `unavailable`.",
        run: all_down,
    },
    Case {
        id: "law/all-tried-is-unavailable",
        doc: "Where every backend was tried the answer is `unavailable`.",
        run: all_tried,
    },
    Case {
        id: "law/uses-what-is-there",
        doc: "As long as a backend may take a request, the answer is not `unavailable`.",
        run: uses_what_is_there,
    },
    Case {
        id: "law/one-backend",
        doc: "A single backend that is up gets every request.",
        run: one_backend,
    },
    Case {
        id: "law/any-number-of-backends",
        doc: "1 to 10,000 backends are all the same to it.",
        run: any_number,
    },
    Case {
        id: "law/churn",
        doc: "Backends may come and go between a pick and its outcome.",
        run: churn,
    },
    Case {
        id: "law/hostile-requests",
        doc: "Requests that nobody should send do no harm.",
        run: hostile_requests,
    },
    Case {
        id: "law/status-in-range",
        doc: "A status that it answers with is one of 200 to 599.",
        run: |trial| traffic(trial, Mix::ORDINARY, status_in_range),
    },
    Case {
        id: "law/any-call-order",
        doc: "Hooks may be called in any order that the contract allows, and for backends that are gone.",
        run: any_call_order,
    },
    Case {
        id: "law/repeatable",
        doc: "The same requests, numbers, clock and seed give the same picks and edits.",
        run: repeatable,
    },
];

const RUNS: usize = 12;

type Plain = fn(&World, &Request, &Picked) -> Result<(), String>;

/// Holds the picks of some scripts to a rule.
fn traffic(trial: &mut Trial<'_>, mix: Mix, rule: Plain) -> Verdict {
    traffic_that(trial, mix, Breaking::Elsewhere, rule)
}

fn traffic_that(trial: &mut Trial<'_>, mix: Mix, breaking: Breaking, rule: Plain) -> Verdict {
    for _ in 0..RUNS {
        let script = mix.script(&mut trial.random, trial.words);
        let boxed = || -> Box<Rule<'_>> { Box::new(rule) };
        if let Some(verdict) = trial.follow(script, mix.shards, breaking, boxed) {
            return verdict;
        }
    }
    Verdict::Pass
}

// === rules ===

fn in_state(world: &World, picked: &Picked, state: BackendState, word: &str) -> Result<(), String> {
    let backend = picked.backend().and_then(|id| world.backend(id));
    match backend {
        Some(backend) if backend.state == state => {
            Err(format!("picked {}, which is {word}", backend.name))
        }
        _ => Ok(()),
    }
}

fn not_down(world: &World, _: &Request, picked: &Picked) -> Result<(), String> {
    in_state(world, picked, BackendState::Down, "down")
}

fn not_draining(world: &World, _: &Request, picked: &Picked) -> Result<(), String> {
    in_state(world, picked, BackendState::Draining, "draining")
}

fn not_removed(world: &World, _: &Request, picked: &Picked) -> Result<(), String> {
    match picked.backend() {
        Some(id) if world.backend(id).is_none() && world.knew(id) => {
            Err(format!("picked {}", world.name(id)))
        }
        _ => Ok(()),
    }
}

fn not_unknown(world: &World, _: &Request, picked: &Picked) -> Result<(), String> {
    match picked.backend() {
        Some(id) if !world.knew(id) => Err(format!("picked {}", world.name(id))),
        _ => Ok(()),
    }
}

fn not_tried(world: &World, request: &Request, picked: &Picked) -> Result<(), String> {
    match picked.backend() {
        Some(id) if request.tried.contains(&id) => Err(format!(
            "picked {}, which was tried for this request",
            world.name(id)
        )),
        _ => Ok(()),
    }
}

fn not_weightless(world: &World, _: &Request, picked: &Picked) -> Result<(), String> {
    match picked.backend().and_then(|id| world.backend(id)) {
        Some(backend) if backend.weight == 0 => {
            Err(format!("picked {}, which has weight 0", backend.name))
        }
        _ => Ok(()),
    }
}

fn not_turned_away(world: &World, request: &Request, picked: &Picked) -> Result<(), String> {
    match world.open_to(request).next() {
        Some(open) if picked.verdict == Pick::Unavailable => Err(format!(
            "answered `unavailable`, and {} could take the request",
            open.name
        )),
        _ => Ok(()),
    }
}

fn turned_away(world: &World, request: &Request, picked: &Picked) -> Result<(), String> {
    match (world.open_to(request).next(), picked.verdict) {
        (Some(_), _) | (None, Pick::Unavailable) => Ok(()),
        (None, Pick::Forward(id)) => Err(format!(
            "picked {}, and no backend can take the request",
            world.name(id)
        )),
        (None, Pick::Respond(status)) => Err(format!(
            "answered with {status} instead of `unavailable`, and no backend can take the request"
        )),
    }
}

fn status_in_range(_: &World, _: &Request, picked: &Picked) -> Result<(), String> {
    match picked.verdict {
        Pick::Respond(status) if !(200..600).contains(&status) => {
            Err(format!("answered with status {status}"))
        }
        _ => Ok(()),
    }
}

/// All of them.
pub(crate) fn lawful(world: &World, request: &Request, picked: &Picked) -> Result<(), String> {
    let rules: [Plain; 8] = [
        not_down,
        not_draining,
        not_removed,
        not_unknown,
        not_tried,
        not_weightless,
        not_turned_away,
        status_in_range,
    ];
    rules
        .iter()
        .try_for_each(|rule| rule(world, request, picked))
}

fn anything(_: &World, _: &Request, _: &Picked) -> Result<(), String> {
    Ok(())
}

// === cases ===

fn never_breaks(trial: &mut Trial<'_>) -> Verdict {
    traffic_that(trial, Mix::ORDINARY, Breaking::IsCrash, anything)
}

fn huge_weights(trial: &mut Trial<'_>) -> Verdict {
    for weight in [100, 65_535, u32::MAX] {
        let mix = Mix {
            weight,
            states: false,
            ..Mix::ORDINARY
        };
        let verdict = traffic_that(trial, mix, Breaking::IsWrong, lawful);
        if verdict != Verdict::Pass {
            return verdict;
        }
    }
    // All of them the largest: sums must not wrap.
    let largest: Vec<Spec> = fleet(5)
        .into_iter()
        .map(|spec| spec.weighing(u32::MAX))
        .collect();
    let mut script = vec![Step::Set(largest)];
    script.extend((0..20).map(|shard| Step::Pick(shard % 2, Request::get("/"))));
    let rule = || -> Box<Rule<'_>> { Box::new(lawful) };
    let verdict = trial.follow(script, 2, Breaking::IsWrong, rule);
    verdict.unwrap_or(Verdict::Pass)
}

/// A few picks with these backends, before and after which there are others.
fn around(trial: &mut Trial<'_>, middle: &[Spec], rule: Plain) -> Option<Verdict> {
    let mut script = Vec::new();
    for specs in [middle.to_vec(), fleet(3), middle.to_vec()] {
        script.push(Step::Set(specs));
        script.extend(
            (0..4).map(|shard| Step::Pick(shard % 2, ordinary(&mut trial.random, trial.words))),
        );
    }
    let boxed = || -> Box<Rule<'_>> { Box::new(rule) };
    trial.follow(script, 2, Breaking::IsWrong, boxed)
}

fn empty(trial: &mut Trial<'_>) -> Verdict {
    around(trial, &[], turned_away).unwrap_or(Verdict::Pass)
}

fn all_down(trial: &mut Trial<'_>) -> Verdict {
    let fleets: [&dyn Fn(Spec) -> Spec; 4] = [
        &|spec| spec.being(BackendState::Down),
        &|spec| spec.being(BackendState::Draining),
        &|spec| spec.weighing(0),
        &|spec| match spec.name % 3 {
            0 => spec.being(BackendState::Down),
            1 => spec.being(BackendState::Draining),
            _ => spec.weighing(0),
        },
    ];
    for change in fleets {
        let specs: Vec<Spec> = fleet(4).into_iter().map(change).collect();
        if let Some(verdict) = around(trial, &specs, turned_away) {
            return verdict;
        }
    }
    Verdict::Pass
}

fn all_tried(trial: &mut Trial<'_>) -> Verdict {
    until_all_are_tried(trial, turned_away)
}

fn never_tried(trial: &mut Trial<'_>) -> Verdict {
    match until_all_are_tried(trial, not_tried) {
        Verdict::Pass => traffic(trial, Mix::ORDINARY, not_tried),
        other => other,
    }
}

fn until_all_are_tried(trial: &mut Trial<'_>, rule: Plain) -> Verdict {
    for count in 1..=5 {
        let mut script = vec![Step::Set(fleet(count))];
        for _ in 0..3 {
            script.push(Step::Pick(0, ordinary(&mut trial.random, trial.words)));
            // The retry takes the place of what has failed, until there is nowhere left to go.
            script.extend((0..=count).map(|_| Step::Fail(0, Failure::Connect)));
        }
        let rule = || -> Box<Rule<'_>> { Box::new(rule) };
        if let Some(verdict) = trial.follow(script, 1, Breaking::IsWrong, rule) {
            return verdict;
        }
    }
    Verdict::Pass
}

fn uses_what_is_there(trial: &mut Trial<'_>) -> Verdict {
    // All of them in a bad way: one of them must do.
    let mut script = vec![Step::Set(fleet(3))];
    for name in 0..3 {
        script.push(Step::Vitals(name, u32::MAX, 1_000_000));
        script.push(Step::Load(name, 1_000_000));
    }
    script.extend(
        (0..6).map(|shard| Step::Pick(shard % 2, ordinary(&mut trial.random, trial.words))),
    );
    let rule = || -> Box<Rule<'_>> { Box::new(not_turned_away) };
    let verdict = trial.follow(script, 2, Breaking::Elsewhere, rule);
    verdict.unwrap_or_else(|| traffic(trial, Mix::ORDINARY, not_turned_away))
}

fn one_backend(trial: &mut Trial<'_>) -> Verdict {
    let only = |world: &World, request: &Request, picked: &Picked| {
        let open = world.open_to(request).next().map(|backend| backend.id);
        match (open, picked.verdict) {
            (Some(open), Pick::Forward(id)) if open == id => Ok(()),
            (None, _) => Ok(()),
            (Some(open), verdict) => Err(format!(
                "answered {verdict:?}, and {} is the only one there is",
                world.name(open)
            )),
        }
    };
    let others = [
        vec![Spec::up(0)],
        vec![
            Spec::up(0).being(BackendState::Down),
            Spec::up(1).weighing(7),
        ],
    ];
    for specs in others {
        let mut script = vec![Step::Set(specs)];
        script.extend(
            (0..12).map(|shard| Step::Pick(shard % 3, ordinary(&mut trial.random, trial.words))),
        );
        let rule = || -> Box<Rule<'_>> { Box::new(only) };
        if let Some(verdict) = trial.follow(script, 3, Breaking::IsWrong, rule) {
            return verdict;
        }
    }
    Verdict::Pass
}

fn any_number(trial: &mut Trial<'_>) -> Verdict {
    for count in [1, 2, 3, 7, 64, 1_000, 10_000] {
        let requests: Vec<Request> = (0..20)
            .map(|_| ordinary(&mut trial.random, trial.words))
            .collect();
        let check = |count: &usize| -> Result<(), Trouble> {
            let mut play = trial.play(1)?;
            play.set(&fleet(*count));
            for request in &requests {
                let picked = play.send(0, request.clone())?;
                lawful(&play.world, request, &picked).map_err(Trouble::Wrong)?;
            }
            Ok(())
        };
        let smaller = |count: &usize| match *count {
            0 | 1 => Vec::new(),
            more => vec![more / 2, more - 1],
        };
        let show = |count: &usize| vec![format!("{count} backends of weight 1, 20 requests")];
        let verdict = trial.falsify(count, smaller, Breaking::IsCrash, check, show);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

fn churn(trial: &mut Trial<'_>) -> Verdict {
    for _ in 0..RUNS {
        let mut script = vec![Step::Set(fleet(5))];
        for round in 0..15 {
            let mix = Mix::ORDINARY;
            script.extend(
                (0..3).map(|shard| Step::Pick(shard, ordinary(&mut trial.random, trial.words))),
            );
            // Those that were picked are gone or down before anything comes back from them.
            script.push(Step::Set(mix.fleet(&mut trial.random)));
            script.push(Step::End(0, 200, 1_000));
            script.push(Step::Fail(round, Failure::Reset));
        }
        let rule = || -> Box<Rule<'_>> { Box::new(lawful) };
        if let Some(verdict) = trial.follow(script, 3, Breaking::IsWrong, rule) {
            return verdict;
        }
    }
    Verdict::Pass
}

fn hostile_requests(trial: &mut Trial<'_>) -> Verdict {
    for _ in 0..RUNS {
        let mut script = vec![Step::Set(fleet(4))];
        script.extend(
            (0..20).map(|shard| Step::Pick(shard % 2, hostile(&mut trial.random, trial.words))),
        );
        let rule = || -> Box<Rule<'_>> { Box::new(lawful) };
        if let Some(verdict) = trial.follow(script, 2, Breaking::IsWrong, rule) {
            return verdict;
        }
    }
    Verdict::Pass
}

fn any_call_order(trial: &mut Trial<'_>) -> Verdict {
    for _ in 0..RUNS {
        let calls = (0..40).map(|_| trial.random.below(7)).collect();
        if let Some(verdict) = calls_in_order(trial, calls) {
            return verdict;
        }
    }
    Verdict::Pass
}

fn calls_in_order(trial: &Trial<'_>, calls: Vec<u64>) -> Option<Verdict> {
    let check = |calls: &Vec<u64>| -> Result<(), Trouble> {
        let mut play = trial.play(1)?;
        for call in calls {
            call_by_number(&mut play, *call)?;
        }
        Ok(())
    };
    let show = |calls: &Vec<u64>| {
        calls
            .iter()
            .map(|call| NAMES[*call as usize].into())
            .collect()
    };
    let smaller = |calls: &Vec<u64>| shrink::shorter(calls);
    trial.falsify(calls, smaller, Breaking::IsCrash, check, show)
}

const NAMES: [&str; 7] = [
    "backends: none",
    "backends: b0, b1",
    "observe: nothing",
    "observe: an outcome of a backend that never was, and one of one that may be gone",
    "respond: for a backend that never was",
    "save",
    "pick, and see that it is lawful",
];

fn call_by_number(play: &mut Play<'_>, call: u64) -> Result<(), Trouble> {
    let shard = play.shard(0);
    let nobody = BackendId::new(u64::MAX);
    let outcome = |backend| Outcome {
        backend,
        attempt: 3,
        ending: Ending::Status(200),
        latency_us: 0,
        bytes: 0,
    };
    match call {
        0 => play.set(&[]),
        1 => play.set(&fleet(2)),
        2 => play.host().observe(shard, &[])?,
        3 => {
            let outcomes = [nobody, BackendId::new(1)].map(outcome);
            play.host().observe(shard, &outcomes)?;
        }
        4 => {
            let response = Response::new(200);
            play.respond(0, nobody, &response)?;
        }
        5 => {
            play.save(0)?;
        }
        _ => {
            let request = Request::get("/");
            let picked = play.send(0, request.clone())?;
            lawful(&play.world, &request, &picked).map_err(Trouble::Wrong)?;
        }
    }
    Ok(())
}

fn repeatable(trial: &mut Trial<'_>) -> Verdict {
    for _ in 0..RUNS {
        let script = Mix::ORDINARY.script(&mut trial.random, trial.words);
        let check = |script: &Vec<Step>| same(trial, script, script, "the second time");
        let show = |script: &Vec<Step>| script.iter().map(Step::to_string).collect();
        let breaking = Breaking::Elsewhere;
        if let Some(verdict) = trial.falsify(script, shrink::script, breaking, check, show) {
            return verdict;
        }
    }
    Verdict::Pass
}

/// Whether two scripts come to the same picks and edits.
pub(crate) fn same(
    trial: &Trial<'_>,
    one: &[Step],
    other: &[Step],
    when: &str,
) -> Result<(), Trouble> {
    let follow = |script: &[Step]| -> Result<_, Trouble> {
        let mut play = trial.play(Mix::ORDINARY.shards)?;
        shown(&mut play, script)
    };
    alike(&follow(one)?, &follow(other)?, when)
}

fn shown(play: &mut Play<'_>, script: &[Step]) -> Result<Vec<Shown>, Trouble> {
    match play.follow(script, &mut anything) {
        Played::Through(shown) => Ok(shown),
        Played::Wrong(what) => Err(Trouble::Wrong(what)),
        Played::Broke(broken) => Err(Trouble::Broke(broken)),
    }
}

/// Compares two subjects pick by pick: a policy as native code, and what was built of it.
///
/// # Errors
/// The first difference, with the script that leads to it.
pub fn parity(
    one: &dyn Subject,
    other: &dyn Subject,
    config: &str,
    seed: u64,
) -> Result<(), String> {
    let mut random = Random::for_purpose(seed, "parity");
    let words = Words::default();
    for _ in 0..RUNS {
        let mix = Mix {
            swaps: true,
            ..Mix::ORDINARY
        };
        let script = mix.script(&mut random, &words);
        let follow = |subject| -> Result<_, Trouble> {
            let mut play = Play::new(subject, config, &words, seed, mix.shards)?;
            shown(&mut play, &script)
        };
        let compared = follow(one)
            .and_then(|first| Ok((first, follow(other)?)))
            .and_then(|(first, second)| alike(&first, &second, "with the other"));
        if let Err(trouble) = compared {
            let steps: Vec<String> = script.iter().map(Step::to_string).collect();
            return Err(format!("{trouble:?}\n{}", steps.join("\n")));
        }
    }
    Ok(())
}

fn alike(first: &[Shown], second: &[Shown], when: &str) -> Result<(), Trouble> {
    let differ = first.iter().zip(second).position(|(one, two)| one != two);
    match differ {
        None => Ok(()),
        Some(at) => Err(Trouble::Wrong(format!(
            "pick {at} was {:?} with {} edits, and {when} {:?} with {}",
            first[at].0,
            first[at].1.len(),
            second[at].0,
            second[at].1.len()
        ))),
    }
}
