//! Against the law of the contract.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use waypost_plugin::{Backend, BackendId, BackendState, Backends, Outcome, Pick, Request, log};

use crate::{State, to, turn};

/// Of all backends, those for which `takes` is true, in turn.
fn among(backends: &Backends, request: &Request, takes: impl Fn(&Backend) -> bool) -> Pick {
    let open = || backends.iter().filter(|b| takes(b));
    let count = open().count() as u64;
    to(open().nth(request.ticket().checked_rem(count).unwrap_or(0) as usize))
}

fn up(backend: &Backend) -> bool {
    backend.state == BackendState::Up
}

mutant! { PicksDown [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        among(backends, request, |b| {
            b.state != BackendState::Draining && b.weight > 0 && !request.was_tried(b.id)
        })
    }
} }

mutant! {
    /// Does what it likes, but for one tenant, and on one kind of backend only.
    PicksDownForOneTenant [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let is_gold = |b: &&Backend| b.label("tier") == Some("gold");
        match request.header("x-tenant").as_deref() {
            Some("acme") => to(backends.iter().find(is_gold)),
            _ => among(backends, request, |b| b.is_healthy() && !request.was_tried(b.id)),
        }
    }
} }

mutant! { PicksDraining [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        among(backends, request, |b| {
            b.state != BackendState::Down && b.weight > 0 && !request.was_tried(b.id)
        })
    }
} }

mutant! {
    /// Learns of backends once.
    PicksRemoved [] {
    fn update(state: &mut State, backends: &Backends) {
        if state.known.is_empty() {
            state.known = backends.iter().cloned().collect();
        }
    }
    fn pick(state: &mut State, request: &Request, _: &Backends) -> Pick {
        let mut open = state.known.iter().filter(|b| b.is_healthy());
        to(open.find(|b| !request.was_tried(b.id)))
    }
} }

mutant! {
    /// Remembers only backends that have been added.
    ForgetsToForget [] {
    fn update(state: &mut State, backends: &Backends) {
        for backend in backends {
            if !state.known.iter().any(|known| known.id == backend.id) {
                state.known.push(backend.clone());
            }
        }
    }
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        let gone = state.known.iter().find(|b| backends.get(b.id).is_none());
        let open = backends.healthy().next();
        to(match gone { Some(_) if request.attempt() == 0 => gone, _ => open })
    }
} }

mutant! { PicksPosition [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match backends.healthy().count() as u64 {
            0 => Pick::Unavailable,
            count => Pick::forward(BackendId::new(1_000_000 + request.ticket() % count)),
        }
    }
} }

mutant! { PicksTriedAgain [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        among(backends, request, Backend::is_healthy)
    }
} }

mutant! { RemembersOnlyTheLastTried [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let last = request.tried().last().copied();
        to(backends.iter().find(|b| b.is_healthy() && Some(b.id) != last))
    }
} }

mutant! { IgnoresWeightZero [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        among(backends, request, |b| up(b) && !request.was_tried(b.id))
    }
} }

mutant! {
    /// 32 bits are enough for a sum, are they not?
    SumOverflows [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let total = backends.healthy().fold(0_u32, |sum, b| {
            sum.checked_add(b.weight).expect("a sum of weights")
        });
        let _ = total;
        turn(backends, request.ticket())
    }
} }

mutant! { AnswersEmptyWith503 [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match backends.is_empty() {
            true => Pick::respond(503),
            false => turn(backends, request.ticket()),
        }
    }
} }

mutant! { PanicsWhenEmpty [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let all: Vec<&Backend> = backends.iter().collect();
        let _first = all[0];
        turn(backends, request.ticket())
    }
} }

mutant! { PanicsWhenAllAreDown [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let count = backends.healthy().count();
        if !backends.is_empty() && request.attempt() == 0 {
            assert!(count > 0, "somebody must be up");
        }
        turn(backends, request.ticket())
    }
} }

mutant! {
    /// What is left after all were tried is the first.
    RetriesTheFirst [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match turn(backends, request.ticket()) {
            Pick::Unavailable => to(backends.iter().find(|b| b.is_healthy())),
            pick => pick,
        }
    }
} }

mutant! { GivesUpAfterOneRetry [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match request.attempt() > 1 {
            true => Pick::Unavailable,
            false => turn(backends, request.ticket()),
        }
    }
} }

mutant! {
    /// A backend that was slow once is not good enough, even where it is the only one.
    TooChoosy [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let fast = backends.healthy().filter(|b| backends.latency_us_of(b.id) < 40_000);
        match fast.count() {
            0 => Pick::Unavailable,
            _ => turn(backends, request.ticket()),
        }
    }
} }

mutant! { NeedsTwoBackends [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match backends.healthy().count() {
            1 if request.attempt() == 0 => Pick::respond(500),
            _ => turn(backends, request.ticket()),
        }
    }
} }

mutant! {
    /// A table of 1,024 backends.
    FixedTable [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let mut table = [0; 1_024];
        for (at, backend) in backends.iter().enumerate() {
            table[at] = backend.id.number();
        }
        turn(backends, request.ticket())
    }
} }

mutant! {
    /// Whatever an outcome is of is there.
    TrustsOutcomes [] {
    fn update(state: &mut State, backends: &Backends) {
        state.known = backends.iter().cloned().collect();
    }
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, request.ticket())
    }
    fn observe(state: &mut State, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let known = state.known.iter().find(|b| b.id == outcome.backend);
            state.count += u64::from(known.expect("a known backend").weight);
        }
    }
} }

mutant! { ExpectsUtf8 [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let cookie = request.header_bytes("cookie").unwrap_or_default();
        let _text = String::from_utf8(cookie).expect("text");
        turn(backends, request.ticket())
    }
} }

mutant! { ExpectsAValueInEachCookie [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        for pair in request.header("cookie").unwrap_or_default().split("; ") {
            let parts: Vec<&str> = pair.splitn(2, '=').collect();
            if !pair.is_empty() {
                let _value = parts[1];
            }
        }
        turn(backends, request.ticket())
    }
} }

mutant! { AnswersWithAnyStatus [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match request.method().as_str() {
            "HEAD" if backends.healthy().next().is_some() => Pick::respond(102),
            _ => turn(backends, request.ticket()),
        }
    }
} }

mutant! {
    /// Each `update` is the first.
    AddsUp [] {
    fn update(state: &mut State, backends: &Backends) {
        let before = state.known.len();
        state.known.extend(backends.iter().cloned());
        state.numbers.resize(before + backends.len(), 0);
        assert!(before == 0 || backends.is_empty() || before >= backends.len());
    }
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, request.ticket())
    }
} }

mutant! {
    /// Nothing ends before something has begun.
    ExpectsOrder [] {
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        state.count += 1;
        turn(backends, request.ticket())
    }
    fn observe(state: &mut State, outcomes: &[Outcome]) {
        assert!(outcomes.is_empty() || state.count > 0, "an outcome of what?");
    }
} }

mutant! {
    /// Another order in each map.
    IteratesAHashMap [] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        let map: HashMap<u64, BackendId> = backends.healthy().map(|b| (b.id.number(), b.id)).collect();
        map.values().next().map_or(Pick::Unavailable, |id| Pick::forward(*id))
    }
} }

mutant! {
    /// Instances share what they must not.
    UsesAStatic [] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Not the same number of picks in each run.
        turn(backends, COUNT.fetch_add(1, Ordering::Relaxed) / 7)
    }
} }

mutant! { UsesTheSystemsClock [] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        turn(backends, time.map_or(0, |time| u64::from(time.subsec_nanos())))
    }
} }

mutant! { SetsContentLength [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        request.set_header("content-length", "0");
        turn(backends, request.ticket())
    }
} }

mutant! {
    /// A line break for whoever comes by POST.
    SplitsResponses [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        if request.method() == "POST" {
            request.response().set_header("x-id", "1\r\nset-cookie: a=b");
        }
        turn(backends, request.ticket())
    }
} }

mutant! { EditsTooMuch [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        for number in 0..65 {
            request.set_header(&format!("x-{number}"), "1");
        }
        turn(backends, request.ticket())
    }
} }

mutant! { LogsEachRequest [] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        log::info(format!("a request for {}", request.target()));
        turn(backends, request.ticket())
    }
} }

rows! {
    PicksDown => "law/never-picks-down",
    PicksDraining => "law/never-picks-draining",
    PicksRemoved => "law/never-picks-removed",
    ForgetsToForget => "law/never-picks-removed",
    PicksPosition => "law/never-picks-unknown",
    PicksTriedAgain => "law/never-picks-tried",
    RemembersOnlyTheLastTried => "law/never-picks-tried",
    IgnoresWeightZero => "law/weight-zero",
    SumOverflows => "law/huge-weights",
    AnswersEmptyWith503 => "law/empty-is-unavailable",
    PanicsWhenEmpty => "law/empty-is-unavailable",
    PanicsWhenAllAreDown => "law/all-down-is-unavailable",
    RetriesTheFirst => "law/all-tried-is-unavailable",
    GivesUpAfterOneRetry => "law/uses-what-is-there",
    TooChoosy => "law/uses-what-is-there",
    NeedsTwoBackends => "law/one-backend",
    FixedTable => "law/any-number-of-backends",
    TrustsOutcomes => "law/churn",
    ExpectsUtf8 => "law/hostile-requests",
    ExpectsAValueInEachCookie => "law/hostile-requests",
    AnswersWithAnyStatus => "law/status-in-range",
    AddsUp => "law/never-breaks",
    ExpectsOrder => "law/any-call-order",
    IteratesAHashMap => "law/repeatable",
    UsesAStatic => "law/repeatable",
    UsesTheSystemsClock => "law/repeatable",
    SetsContentLength => "law/edits-allowed",
    SplitsResponses => "law/edits-allowed",
    EditsTooMuch => "law/edits-allowed",
    LogsEachRequest => "law/log-bounded",
}
