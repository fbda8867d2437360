//! The law, continued: what one instance hands to the next.

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::law::{lawful, same};
use crate::play::{Played, Step, fleet};
use crate::random::Random;
use crate::report::Verdict;
use crate::shrink;
use crate::traffic::Mix;

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "law/same-after-swap",
        doc: "At whatever point its state is saved and restored, the picks and edits stay the same.",
        run: same_after_swap,
    },
    Case {
        id: "law/restore-garbage",
        doc: "State that is garbage is refused, or it starts cold.",
        run: garbage,
    },
    Case {
        id: "law/restore-truncated",
        doc: "State that was cut off is refused, or it starts cold.",
        run: truncated,
    },
    Case {
        id: "law/restore-altered",
        doc: "State of another version, with bytes changed or added, is refused, or it starts cold.",
        run: altered,
    },
];

/// Why there is nothing to hand over, if so.
fn stateless(trial: &Trial<'_>) -> Option<Verdict> {
    if trial.subject.about().has_state == Some(false) {
        return Some(Verdict::not_applicable("it has no `state` hook"));
    }
    match saved(trial, &[Step::Set(fleet(3))]) {
        Ok(state) if state.is_empty() => Some(Verdict::not_applicable("it saves nothing")),
        _ => None,
    }
}

/// What an instance saves at the end of a script.
fn saved(trial: &Trial<'_>, script: &[Step]) -> Result<Vec<u8>, Trouble> {
    let mut play = trial.play(Mix::ORDINARY.shards)?;
    match play.follow(script, &mut |_, _, _| Ok(())) {
        Played::Broke(broken) => Err(Trouble::Broke(broken)),
        Played::Through(_) | Played::Wrong(_) => Ok(play.save(0)?.unwrap_or_default()),
    }
}

fn same_after_swap(trial: &mut Trial<'_>) -> Verdict {
    if let Some(verdict) = stateless(trial) {
        return verdict;
    }
    for _ in 0..20 {
        let mix = Mix {
            swaps: true,
            ..Mix::ORDINARY
        };
        let script = mix.script(&mut trial.random, trial.words);
        let check = |script: &Vec<Step>| {
            let undisturbed: Vec<Step> = script
                .iter()
                .map(|step| match step {
                    Step::Swap(shard) => Step::Hear(*shard),
                    other => other.clone(),
                })
                .collect();
            same(trial, &undisturbed, script, "with the state handed over")
        };
        let show = |script: &Vec<Step>| script.iter().map(Step::to_string).collect();
        let breaking = Breaking::IsCrash;
        if let Some(verdict) = trial.falsify(script, shrink::script, breaking, check, show) {
            return verdict;
        }
    }
    Verdict::Pass
}

/// Hands a new instance a state, and sees whether it keeps to the law.
fn takes(trial: &Trial<'_>, state: &[u8]) -> Result<(), Trouble> {
    let mut play = trial.play(1)?;
    play.replace(0, Some(state))?;
    let mut random = Random::for_purpose(trial.seed, "after a restore");
    let mix = Mix {
        steps: 25,
        shards: 1,
        ..Mix::ORDINARY
    };
    match play.follow(&mix.script(&mut random, trial.words), &mut lawful) {
        Played::Through(_) => Ok(()),
        Played::Wrong(what) => Err(Trouble::Wrong(format!("{what}, with what it restored"))),
        Played::Broke(broken) => Err(Trouble::Broke(broken)),
    }
}

fn all_are_taken(trial: &Trial<'_>, states: Vec<Vec<u8>>) -> Verdict {
    for state in states {
        let smaller = |state: &Vec<u8>| match state.len() {
            0..=4_096 => shrink::shorter(state),
            long => vec![state[..long / 2].to_vec()],
        };
        let show = |state: &Vec<u8>| {
            const SHOWN: usize = 100;
            let bytes = &state[..state.len().min(SHOWN)];
            vec![
                format!(
                    "restore, {} bytes: {:?}",
                    state.len(),
                    bytes.escape_ascii().to_string()
                ),
                "then some ordinary traffic".into(),
            ]
        };
        let check = |state: &Vec<u8>| takes(trial, state);
        let verdict = trial.falsify(state, smaller, Breaking::IsWrong, check, show);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

fn garbage(trial: &mut Trial<'_>) -> Verdict {
    if let Some(verdict) = stateless(trial) {
        return verdict;
    }
    let mut states: Vec<Vec<u8>> = [
        &b""[..],
        b"\0",
        b"{}",
        b"[]",
        b"null",
        b"{\"version\":99,\"entries\":[[]]}",
        b"18446744073709551615",
        b"-1",
        b"1 2 3",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\x7f",
    ]
    .map(<[u8]>::to_vec)
    .into();
    for length in [1, 2, 3, 4, 7, 8, 9, 12, 16, 24, 64, 1_000, 100_000] {
        states.push((0..length).map(|_| trial.random.next() as u8).collect());
        states.push(vec![0xff; length]);
        states.push(vec![0; length]);
    }
    all_are_taken(trial, states)
}

/// States as they really are, after more and more traffic.
fn real_states(trial: &mut Trial<'_>) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut states = Vec::new();
    for steps in [3, 30, 100] {
        let mix = Mix {
            steps,
            ..Mix::ORDINARY
        };
        let script = mix.script(&mut trial.random, trial.words);
        states.push(saved(trial, &script)?);
    }
    Ok(states)
}

fn truncated(trial: &mut Trial<'_>) -> Verdict {
    if let Some(verdict) = stateless(trial) {
        return verdict;
    }
    let Ok(states) = real_states(trial) else {
        return Verdict::inconclusive(
            "the policy breaks before it has a state: see law/never-breaks",
        );
    };
    let mut cut = Vec::new();
    for state in states {
        let ends = 0..state.len();
        let step = (state.len() / 60).max(1);
        cut.extend(ends.step_by(step).map(|end| state[..end].to_vec()));
    }
    all_are_taken(trial, cut)
}

fn altered(trial: &mut Trial<'_>) -> Verdict {
    if let Some(verdict) = stateless(trial) {
        return verdict;
    }
    let Ok(states) = real_states(trial) else {
        return Verdict::inconclusive(
            "the policy breaks before it has a state: see law/never-breaks",
        );
    };
    let mut changed = Vec::new();
    for state in states.into_iter().filter(|state| !state.is_empty()) {
        for _ in 0..30 {
            let mut other = state.clone();
            let at = trial.random.index(other.len());
            other[at] = trial.random.next() as u8;
            changed.push(other);
        }
        // Versions stand at the beginning.
        for first in [0, 1, 2, 3, b'0', b'1', b'2', 0x7f, 0xff] {
            let mut other = state.clone();
            other[0] = first;
            changed.push(other);
        }
        changed.push([&state[..], &[0; 8]].concat());
        changed.push([&state[..], &state].concat());
    }
    all_are_taken(trial, changed)
}
