//! Against `least-loaded`.

use waypost_plugin::{Backend, Backends, Pick, Request, random_below};

use crate::{State, least, to, turn};

mutant! {
    /// Fewest under way, whatever the weight.
    IgnoresWeights [LeastLoaded] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        to(backends.healthy().min_by_key(|b| backends.in_flight_of(b.id)))
    }
} }

mutant! {
    /// The first of those that are equally loaded.
    TiesToTheFirst [LeastLoaded] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        least(backends, 0)
    }
} }

mutant! { PicksTheMostLoaded [LeastLoaded] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        to(backends.healthy().max_by_key(|b| backends.in_flight_of(b.id)))
    }
} }

mutant! {
    /// Asks for loads once in sixteen picks.
    LooksSeldom [LeastLoaded] {
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        if state.count.is_multiple_of(16) || state.numbers.len() != backends.len() {
            state.numbers = backends.in_flight();
        }
        state.count += 1;
        let load = |b: &Backend| {
            let place = backends.position(b.id).unwrap_or(0);
            u64::from(state.numbers[place]) * 1_000 / u64::from(b.weight)
        };
        let least = backends.healthy().map(load).min().unwrap_or(0);
        let tied = backends.healthy().filter(|b| load(b) == least);
        let count = tied.clone().count() as u64;
        to(tied.clone().nth(request.ticket().checked_rem(count).unwrap_or(0) as usize))
    }
} }

mutant! {
    /// Sends everything to whoever has just come.
    HerdsOnJoin [LeastLoaded] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let newest = backends.healthy().max_by_key(|b| b.id);
        match newest {
            Some(newest) if backends.healthy().any(|b| backends.in_flight_of(b.id) > 8) => {
                Pick::forward(newest.id)
            }
            _ => least(backends, request.ticket()),
        }
    }
} }

mutant! {
    /// Two at random, the better of them: near enough?
    TwoChoices [LeastLoaded] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        let count = backends.healthy().count() as u64;
        let any = || backends.healthy().nth(random_below(count) as usize);
        to(any().into_iter().chain(any()).min_by_key(|b| backends.in_flight_of(b.id)))
    }
} }

mutant! {
    /// Round robin under another name.
    TakesTurns [LeastLoaded] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, request.ticket())
    }
} }

mutant! {
    /// Whoever was slow once stays out.
    NeverForgives [LeastLoaded] {
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        for backend in backends.healthy().filter(|b| backends.latency_us_of(b.id) > 30_000) {
            state.homes.insert(backend.name.clone(), backend.id);
        }
        let good = |b: &&Backend| !state.homes.contains_key(&b.name);
        let best = backends.healthy().filter(good).min_by_key(|b| backends.in_flight_of(b.id));
        match best {
            Some(backend) => Pick::forward(backend.id),
            None => least(backends, request.ticket()),
        }
    }
} }

mutant! {
    /// Who answers fastest must be best, even where nothing ever comes of it.
    TrustsTheFast [LeastLoaded] {
    fn update(state: &mut State, backends: &Backends) {
        if state.known.len() < backends.len() {
            state.known = backends.iter().cloned().collect();
        }
    }
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        // It remembers backends that were up when there were as many.
        let idle = state.known.iter().find(|b| {
            backends.get(b.id).is_some() && backends.in_flight_of(b.id) == 0 && !request.was_tried(b.id)
        });
        match idle {
            Some(idle) => Pick::forward(idle.id),
            None => least(backends, request.ticket()),
        }
    }
} }

rows! {
    IgnoresWeights => "least-loaded/minimal",
    TiesToTheFirst => "least-loaded/ties-spread",
    PicksTheMostLoaded => "least-loaded/minimal",
    LooksSeldom => "least-loaded/minimal",
    HerdsOnJoin => "least-loaded/no-herd-on-join",
    TwoChoices => "least-loaded/minimal",
    TakesTurns => "least-loaded/sheds-slow",
    NeverForgives => "least-loaded/sheds-slow",
    TrustsTheFast => "least-loaded/no-herd-on-failing",
}
