//! `least-loaded`: the pick has the fewest requests under way for its weight.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use waypost_plugin::{BackendState, Ending, Failure};

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::play::{Play, Rule, Spec, Step, World, fleet};
use crate::report::Verdict;
use crate::shrink;
use crate::subject::{Picked, Request};
use crate::traffic::{Mix, address};

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "least-loaded/minimal",
        doc: "No backend that may take the request has fewer requests under way for its weight.",
        run: minimal,
    },
    Case {
        id: "least-loaded/ties-spread",
        doc: "Backends that are equally loaded share the requests, over all shards.",
        run: ties_spread,
    },
    Case {
        id: "least-loaded/sheds-slow",
        doc: "A backend that becomes slow gets fewer requests, and its share back when it recovers.",
        run: sheds_slow,
    },
    Case {
        id: "least-loaded/no-herd-on-join",
        doc: "A backend that joins is filled up to the level of the others, and no further.",
        run: no_herd_on_join,
    },
    Case {
        id: "least-loaded/no-herd-on-failing",
        doc: "A backend that fails at once, and is taken out for it, does not attract requests.",
        run: no_herd_on_failing,
    },
];

fn least(world: &World, request: &Request, picked: &Picked) -> Result<(), String> {
    let load = |id| {
        let live = world.live.get(&id);
        u64::from(live.map_or(0, |live| live.in_flight))
    };
    let Some(backend) = picked.backend().and_then(|id| world.backend(id)) else {
        return Ok(());
    };
    let (mine, weight) = (load(backend.id), u64::from(backend.weight));
    let lower = world
        .open_to(request)
        .find(|other| load(other.id) * weight < mine * u64::from(other.weight));
    match lower {
        Some(other) => Err(format!(
            "picked {} with {mine} requests under way for weight {weight}, and {} has {} for weight {}",
            backend.name,
            other.name,
            load(other.id),
            other.weight
        )),
        None => Ok(()),
    }
}

fn minimal(trial: &mut Trial<'_>) -> Verdict {
    for _ in 0..15 {
        let mut script = Mix::ORDINARY.script(&mut trial.random, trial.words);
        // Loads that are close to one another say more than those of ordinary traffic.
        for step in script.iter_mut().skip(3).step_by(3) {
            let name = trial.random.below(8) as u16;
            *step = Step::Load(name, trial.random.below(12) as u32);
        }
        let rule = || -> Box<Rule<'_>> { Box::new(least) };
        let verdict = trial.follow(script, Mix::ORDINARY.shards, Breaking::Elsewhere, rule);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

fn ties_spread(trial: &mut Trial<'_>) -> Verdict {
    let fleets = [
        fleet(2),
        fleet(5),
        fleet(20),
        vec![
            Spec::up(0).weighing(3),
            Spec::up(1),
            Spec::up(2).weighing(2),
        ],
    ];
    for (specs, factor) in fleets.into_iter().zip([0, 1, 0, 4]) {
        let check = |specs: &Vec<Spec>| {
            let shards = 3;
            let mut play = trial.play(shards)?;
            play.set(specs);
            for (at, spec) in specs.iter().enumerate() {
                let id = play.world.backends[at].id;
                play.change(id, |live| live.in_flight = spec.weight * factor);
            }
            let total: u32 = specs.iter().map(|spec| spec.weight).sum();
            let requests = 40 * total as usize;
            let mut counts = vec![0_usize; specs.len()];
            for number in 0..requests {
                let request = Request::get("/").from(&address(number as u64));
                let picked = play.ask(number * number % 7 % shards, &request)?;
                let mut backends = play.world.backends.iter();
                let place = backends.position(|backend| Some(backend.id) == picked.backend());
                counts[place.ok_or_else(|| nowhere(&picked))?] += 1;
            }
            for (at, spec) in specs.iter().enumerate() {
                let fair = 40 * spec.weight as usize;
                if counts[at] * 3 < fair || counts[at] > fair * 3 {
                    return Err(Trouble::Wrong(format!(
                        "of {requests} requests, with all backends equally loaded, b{at} got {}; its share is {fair}",
                        counts[at]
                    )));
                }
            }
            Ok(())
        };
        let smaller = |specs: &Vec<Spec>| {
            let mut found = shrink::fleets(specs);
            found.retain(|specs| specs.len() > 1);
            found
        };
        let verdict = trial.falsify(specs, smaller, Breaking::Elsewhere, check, show_fleet);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

fn nowhere(picked: &Picked) -> Trouble {
    Trouble::Unclear(format!(
        "it answered {:?} instead of picking a backend",
        picked.verdict
    ))
}

#[expect(clippy::ptr_arg, reason = "what is shrunk is a `Vec`")]
fn show_fleet(specs: &Vec<Spec>) -> Vec<String> {
    vec![Step::Set(specs.clone()).to_string()]
}

/// Clients that send their next request when the last one is answered.
struct Loop<'s> {
    play: Play<'s>,
    shards: usize,
    /// When requests end, and which: the earliest is the greatest.
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    /// The backend's place and the start of each request under way.
    running: Vec<(u64, usize, u64)>,
    sent: u64,
}

impl<'s> Loop<'s> {
    fn new(trial: &Trial<'s>, backends: usize, shards: usize) -> Result<Self, Trouble> {
        let mut play = trial.play(shards)?;
        play.set(&fleet(backends));
        Ok(Loop {
            play,
            shards,
            ends: BinaryHeap::new(),
            running: Vec::new(),
            sent: 0,
        })
    }

    /// Sends a request, which takes as long as `service` says of the backend's place; returns that.
    fn send(&mut self, service: &dyn Fn(usize) -> u64) -> Result<usize, Trouble> {
        let number = self.sent;
        self.sent += 1;
        let request = Request::get("/").from(&address(number));
        let picked = self.play.send(number as usize % self.shards, request)?;
        let mut backends = self.play.world.backends.iter();
        let place = backends.position(|backend| Some(backend.id) == picked.backend());
        let place = place.ok_or_else(|| nowhere(&picked))?;
        // No two take exactly as long.
        let end = self.play.world.now + service(place) + number % 97;
        self.ends.push(Reverse((end, number)));
        self.running.push((number, place, self.play.world.now));
        Ok(place)
    }

    /// Lets time pass until the next request ends.
    fn next(&mut self) {
        let Some(Reverse((end, number))) = self.ends.pop() else {
            return;
        };
        let now = self.play.world.now;
        self.play.advance(end - now);
        let which = self.running.iter().position(|(other, ..)| *other == number);
        if let Some(which) = which {
            let (_, _, start) = self.running.remove(which);
            let took = (end - start) / 1_000;
            if let Some(flight) = self.play.end(which, Ending::Status(200), took) {
                self.play.change(flight.backend, |live| {
                    let took = i64::try_from(took).unwrap_or(i64::MAX);
                    let average = i64::from(live.latency_us);
                    let next = match average {
                        0 => took,
                        _ => average + (took - average) / 16,
                    };
                    live.latency_us = u32::try_from(next.max(1)).unwrap_or(u32::MAX);
                });
            }
        }
    }

    /// Shares of so many requests, by the backends' places.
    fn shares(
        &mut self,
        requests: usize,
        service: &dyn Fn(usize) -> u64,
    ) -> Result<Vec<usize>, Trouble> {
        let mut counts = vec![0; self.play.world.backends.len()];
        for _ in 0..requests {
            self.next();
            counts[self.send(service)?] += 1;
        }
        Ok(counts)
    }
}

const MS: u64 = 1_000_000;

fn sheds_slow(trial: &mut Trial<'_>) -> Verdict {
    const REQUESTS: usize = 2_000;
    let backends = trial.random.between(3, 8) as usize;
    let slow = trial.random.index(backends);
    let clients = backends * 8;
    let check = |(backends, slow): &(usize, usize)| {
        let mut traffic = Loop::new(trial, *backends, 2)?;
        let even = |_: usize| 10 * MS;
        let uneven = |place: usize| if place == *slow { 200 * MS } else { 10 * MS };
        for _ in 0..clients {
            traffic.send(&even)?;
        }
        traffic.shares(REQUESTS, &even)?;
        // Until it shows.
        traffic.shares(REQUESTS / 4, &uneven)?;
        let fair = REQUESTS / backends;
        let counts = traffic.shares(REQUESTS, &uneven)?;
        if counts[*slow] * 2 > fair {
            return Err(Trouble::Wrong(format!(
                "b{slow} takes 200 ms, the others 10 ms, and got {} of {REQUESTS} requests: {counts:?}",
                counts[*slow]
            )));
        }
        traffic.shares(REQUESTS, &even)?;
        let counts = traffic.shares(REQUESTS, &even)?;
        match counts[*slow] * 2 < fair {
            true => Err(Trouble::Wrong(format!(
                "b{slow} is as fast as the others again, and got {} of {REQUESTS} requests: {counts:?}",
                counts[*slow]
            ))),
            false => Ok(()),
        }
    };
    let show = |(backends, slow): &(usize, usize)| {
        vec![format!(
            "{backends} backends, {clients} clients that each send a request after the other; b{slow} slow for a while"
        )]
    };
    let smaller = |(backends, _): &(usize, usize)| match *backends {
        0..=2 => Vec::new(),
        more => vec![(2, 1), (more - 1, 0)],
    };
    let input = (backends, slow);
    let verdict = trial.falsify(input, smaller, Breaking::Elsewhere, check, show);
    verdict.unwrap_or(Verdict::Pass)
}

fn no_herd_on_join(trial: &mut Trial<'_>) -> Verdict {
    let count = trial.random.between(2, 6) as usize;
    let check = |count: &usize| {
        let shards = 4;
        let mut play = trial.play(shards)?;
        play.set(&fleet(*count));
        let busy = 20;
        for number in 0..*count * busy {
            play.send(
                number % shards,
                Request::get("/").from(&address(number as u64)),
            )?;
        }
        play.set(&fleet(*count + 1));
        let newcomer = play.world.backends[*count].id;
        for number in 0..3 * busy * count {
            play.send(
                number % shards,
                Request::get("/").from(&address(number as u64)),
            )?;
            let load = |id| play.world.live.get(&id).map_or(0, |live| live.in_flight);
            let others = play.world.backends[..*count].iter();
            let most = others.map(|backend| load(backend.id)).max().unwrap_or(0);
            let load = load(newcomer);
            if load > most + 1 {
                return Err(Trouble::Wrong(format!(
                    "b{count} has joined, and has {load} requests under way while no other has more than {most}"
                )));
            }
        }
        Ok(())
    };
    let show = |count: &usize| {
        vec![
            format!("{count} backends with some 20 requests under way each, over 4 shards"),
            format!("b{count} joins; then requests that do not end"),
        ]
    };
    let smaller = |count: &usize| match *count {
        0 | 1 => Vec::new(),
        more => vec![more - 1],
    };
    let verdict = trial.falsify(count, smaller, Breaking::Elsewhere, check, show);
    verdict.unwrap_or(Verdict::Pass)
}

/// As the host does it: one failure takes a backend out for ten seconds.
fn no_herd_on_failing(trial: &mut Trial<'_>) -> Verdict {
    const REQUESTS: usize = 3_000;
    const OUT: u64 = 10_000 * MS;
    let failing = trial.random.index(4);
    let check = |failing: &usize| {
        let mut traffic = Loop::new(trial, 4, 2)?;
        let service = |_: usize| 10 * MS;
        for _ in 0..16 {
            traffic.send(&service)?;
        }
        let mut out_until = 0;
        let mut failures = 0;
        for _ in 0..REQUESTS {
            traffic.next();
            if out_until > 0 && traffic.play.world.now >= out_until {
                out_until = 0;
                traffic.play.set(&fleet(4));
            }
            let place = traffic.send(&service)?;
            if place != *failing {
                continue;
            }
            // It fails before anything else happens, and the request is over.
            failures += 1;
            traffic.running.pop();
            let which = traffic.play.world.under_way.len() - 1;
            traffic
                .play
                .end(which, Ending::Failed(Failure::Connect), 50);
            traffic
                .ends
                .retain(|Reverse((_, number))| *number != traffic.sent - 1);
            out_until = traffic.play.world.now + OUT;
            let mut specs = fleet(4);
            specs[*failing] = specs[*failing].being(BackendState::Down);
            traffic.play.set(&specs);
            traffic.send(&service)?;
        }
        let periods = traffic.play.world.now / OUT + 1;
        match failures > 2 * periods {
            true => Err(Trouble::Wrong(format!(
                "b{failing} fails at once and is down for 10 s each time, and got {failures} requests in {periods} such periods"
            ))),
            false => Ok(()),
        }
    };
    let show = |failing: &usize| {
        vec![format!(
            "4 backends, 16 clients; b{failing} fails at once, and each failure takes it down for 10 s"
        )]
    };
    let verdict = trial.falsify(failing, |_| Vec::new(), Breaking::Elsewhere, check, show);
    verdict.unwrap_or(Verdict::Pass)
}
