//! The law, continued: what a policy may use up, and what it may write.

use waypost_plugin::testing::{Edit, HeaderEdit};

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::play::{Rule, Step, World, fleet};
use crate::report::Verdict;
use crate::subject::{Picked, Request, Response};
use crate::traffic::{Mix, address, hostile, ordinary};

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "law/edits-allowed",
        doc: "Only fields that a policy may touch are edited, with valid names and values, and not too many.",
        run: edits_allowed,
    },
    Case {
        id: "law/deadline",
        doc: "No pick takes longer than its deadline, not even with 10,000 backends.",
        run: deadline,
    },
    Case {
        id: "law/fuel",
        doc: "A pick costs a bounded number of instructions: 50,000, and 200 more for each backend.",
        run: fuel,
    },
    Case {
        id: "law/memory",
        doc: "A million requests of a million clients do not make its memory grow.",
        run: memory,
    },
    Case {
        id: "law/log-bounded",
        doc: "Ordinary traffic leaves next to nothing in the log.",
        run: log_bounded,
    },
];

fn edits_allowed(trial: &mut Trial<'_>) -> Verdict {
    let rule = |_: &World, _: &Request, picked: &Picked| none_refused(&picked.refused);
    for _ in 0..6 {
        let mut script = vec![Step::Set(fleet(4))];
        for shard in 0..20 {
            let request = match shard % 4 {
                3 => hostile(&mut trial.random, trial.words),
                _ => ordinary(&mut trial.random, trial.words),
            };
            // A field of that size in, the same field out: over the limit, and nobody's fault.
            if request.fields.iter().all(|(_, value)| value.len() < 2_000) {
                script.push(Step::Pick(shard % 2, request));
            }
        }
        let boxed = || -> Box<Rule<'_>> { Box::new(rule) };
        let verdict = trial.follow(script, 2, Breaking::Elsewhere, boxed);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    let responses = [
        Response::new(200),
        Response::new(502)
            .field("server", "x")
            .field("set-cookie", "a=b"),
        Response::new(304).field("x-odd", b"\xff\xfe"),
    ];
    let check = |response: &Response| -> Result<(), Trouble> {
        let mut play = trial.play(1)?;
        play.set(&fleet(2));
        let picked = play.send(0, Request::get("/"))?;
        if let Some(backend) = picked.backend() {
            let responded = play.respond(0, backend, response)?;
            none_refused(&responded.refused).map_err(Trouble::Wrong)?;
        }
        Ok(())
    };
    for response in responses {
        let show = |response: &Response| vec![format!("a response: {response:?}")];
        let none = |_: &Response| Vec::new();
        let breaking = Breaking::Elsewhere;
        if let Some(verdict) = trial.falsify(response, none, breaking, check, show) {
            return verdict;
        }
    }
    Verdict::Pass
}

fn none_refused(refused: &[HeaderEdit]) -> Result<(), String> {
    let Some(edit) = refused.first() else {
        return Ok(());
    };
    let doing = match edit.edit {
        Edit::Set => "to set",
        Edit::Append => "to append",
        Edit::Remove => "to remove",
    };
    Err(format!(
        "tried {doing} the {:?} field {:?} ({} bytes), which the host refuses",
        edit.head,
        edit.name,
        edit.value.len()
    ))
}

/// Native code cannot be interrupted, and how long it takes says nothing about what is built of it.
fn sandboxed(trial: &Trial<'_>) -> Option<Verdict> {
    trial.subject.metered().err().map(Verdict::not_applicable)
}

fn deadline(trial: &mut Trial<'_>) -> Verdict {
    if let Some(verdict) = sandboxed(trial) {
        return verdict;
    }
    for count in [1, 100, 10_000] {
        let mut script = vec![Step::Set(fleet(count))];
        for shard in 0..12 {
            let request = match shard % 3 {
                2 => hostile(&mut trial.random, trial.words),
                _ => ordinary(&mut trial.random, trial.words),
            };
            script.push(Step::Pick(shard % 2, request));
            if shard % 4 == 3 {
                script.push(Step::Fail(0, waypost_plugin::Failure::Connect));
            }
        }
        let rule = || -> Box<Rule<'_>> { Box::new(|_, _, _| Ok(())) };
        let verdict = trial.follow(script, 2, Breaking::IsDeadline, rule);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    let mix = Mix {
        hostile: true,
        ..Mix::ORDINARY
    };
    let rule = || -> Box<Rule<'_>> { Box::new(|_, _, _| Ok(())) };
    let script = mix.script(&mut trial.random, trial.words);
    let verdict = trial.follow(script, mix.shards, Breaking::IsDeadline, rule);
    verdict.unwrap_or(Verdict::Pass)
}

fn fuel(trial: &mut Trial<'_>) -> Verdict {
    const BASE: u64 = 50_000;
    const PER_BACKEND: u64 = 200;
    let mut measured = Vec::new();
    for (what, count) in [
        ("with 2 backends", 2),
        ("10", 10),
        ("100", 100),
        ("1,000", 1_000),
        ("10,000", 10_000),
    ] {
        let requests: Vec<Request> = (0..20)
            .map(|_| ordinary(&mut trial.random, trial.words))
            .collect();
        let most = |count: usize| -> Result<u64, Trouble> {
            let host = trial.subject.metered().map_err(Trouble::NotApplicable)?;
            let mut play = trial.play_in(host, 1)?;
            play.set(&fleet(count));
            let mut most = 0;
            for request in &requests {
                let picked = play.send(0, request.clone())?;
                most = most.max(picked.fuel.unwrap_or(0));
            }
            Ok(most)
        };
        let check = |count: &usize| {
            let (fuel, limit) = (most(*count)?, BASE + PER_BACKEND * *count as u64);
            match fuel > limit {
                true => Err(Trouble::Wrong(format!(
                    "a pick took {fuel} instructions with {count} backends; {limit} are allowed"
                ))),
                false => Ok(()),
            }
        };
        let smaller = |count: &usize| match *count {
            0 | 1 => Vec::new(),
            more => vec![more / 2, more - 1],
        };
        let show = |count: &usize| vec![format!("{count} backends of weight 1, 20 requests")];
        let verdict = trial.falsify(count, smaller, Breaking::Elsewhere, check, show);
        if let Some(verdict) = verdict {
            return verdict;
        }
        measured.extend(most(count).ok().map(|fuel| (what, fuel)));
    }
    trial.measured = measured;
    Verdict::Pass
}

fn memory(trial: &mut Trial<'_>) -> Verdict {
    const PICKS: u64 = 1_000_000;
    /// By then, what is kept for a while is there.
    const WARM: u64 = 250_000;
    const GROWTH_MAX: usize = 128 * 1024;
    let run = || -> Result<(usize, usize), Trouble> {
        let host = trial.subject.metered().map_err(Trouble::NotApplicable)?;
        let mut play = trial.play_in(host, 1)?;
        play.set(&fleet(10));
        let shard = play.shard(0);
        let mut warm = 0;
        let mut request = Request::get("/")
            .field("cookie", "")
            .field("user-agent", "test/1");
        for number in 0..PICKS {
            if number == WARM {
                warm = play.host().memory(shard).unwrap_or(0);
            }
            request.client = address(number);
            request.target = format!("/{number}");
            request.fields[1].1 = format!("session=s{number}; sid={number}").into_bytes();
            play.send(0, request.clone())?;
            if play.world.under_way.len() > 20 {
                play.end(0, waypost_plugin::Ending::Status(200), 1_000);
            }
            if number % 64 == 0 {
                play.advance(1_000_000);
            }
        }
        Ok((warm, play.host().memory(shard).unwrap_or(0)))
    };
    let check = |(): &()| {
        let (warm, end) = run()?;
        match end > warm + GROWTH_MAX {
            true => Err(Trouble::Wrong(format!(
                "its memory was {} KiB after {WARM} picks and {} KiB after {PICKS}",
                warm / 1024,
                end / 1024
            ))),
            false => Ok(()),
        }
    };
    let show = |(): &()| vec![format!("10 backends, {PICKS} requests of as many clients")];
    let verdict = trial.falsify((), |()| Vec::new(), Breaking::IsCrash, check, show);
    verdict.unwrap_or(Verdict::Pass)
}

fn log_bounded(trial: &mut Trial<'_>) -> Verdict {
    const LINES: usize = 20;
    let requests: Vec<Request> = (0..2_000)
        .map(|_| ordinary(&mut trial.random, trial.words))
        .collect();
    let check = |requests: &Vec<Request>| {
        let mut play = trial.play(1)?;
        play.set(&fleet(5));
        let mut lines = Vec::new();
        for request in requests {
            lines.extend(play.send(0, request.clone())?.log);
            play.end(0, waypost_plugin::Ending::Status(200), 1_000);
        }
        match lines.last() {
            Some(last) if lines.len() > LINES => Err(Trouble::Wrong(format!(
                "wrote {} lines for {} ordinary requests; {LINES} are allowed. The last: {:?}",
                lines.len(),
                requests.len(),
                last.message
            ))),
            _ => Ok(()),
        }
    };
    let smaller = |requests: &Vec<Request>| match requests.len() {
        0..=100 => Vec::new(),
        more => vec![requests[..more / 2].to_vec()],
    };
    let show = |requests: &Vec<Request>| vec![format!("5 backends, {} requests", requests.len())];
    let verdict = trial.falsify(requests, smaller, Breaking::Elsewhere, check, show);
    verdict.unwrap_or(Verdict::Pass)
}
