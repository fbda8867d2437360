//! Against `balanced`.

use waypost_plugin::{Backends, Counter, Pick, Request, random_below};

use crate::{State, hash, to, turn};

mutant! { IgnoresWeights [Balanced] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let count = backends.healthy().count() as u64;
        to(backends.healthy().nth(request.ticket().checked_rem(count).unwrap_or(0) as usize))
    }
} }

mutant! { SticksToTheFirst [Balanced] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        to(backends.healthy().next())
    }
} }

mutant! {
    /// Below the length less one.
    StarvesTheLast [Balanced] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let total: u64 = backends.healthy().map(|b| u64::from(b.weight)).sum();
        turn(backends, request.ticket() % total.saturating_sub(1).max(1))
    }
} }

mutant! {
    /// Each weight one too high.
    WeightsOffByOne [Balanced] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let total: u64 = backends.healthy().map(|b| u64::from(b.weight) + 1).sum();
        let mut place = request.ticket().checked_rem(total).unwrap_or(0);
        to(backends.healthy().find(|b| {
            let weight = u64::from(b.weight) + 1;
            let found = place < weight;
            place = place.saturating_sub(weight);
            found
        }))
    }
} }

mutant! {
    /// Each shard begins at the first backend, and knows nothing of the others.
    CountsByItself [Balanced] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick {
        state.count += 1;
        turn(backends, state.count - 1)
    }
} }

mutant! {
    /// The weights of the first day.
    KeepsOldWeights [Balanced] {
    fn update(state: &mut State, backends: &Backends) {
        for backend in backends {
            match state.homes.contains_key(&backend.name) {
                true => {}
                false => {
                    state.homes.insert(backend.name.clone(), backend.id);
                    state.known.push(backend.clone());
                }
            }
        }
    }
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        let weight = |name: &str| {
            let known = state.known.iter().find(|b| b.name == name);
            u64::from(known.map_or(0, |b| b.weight))
        };
        let total: u64 = backends.healthy().map(|b| weight(&b.name)).sum();
        let mut place = request.ticket().checked_rem(total).unwrap_or(0);
        to(backends.healthy().find(|b| {
            let weight = weight(&b.name);
            let found = place < weight;
            place = place.saturating_sub(weight);
            found
        }).or(backends.healthy().next()))
    }
} }

mutant! {
    /// All of one, then all of the next: right shares, in bursts.
    InBursts [Balanced] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, request.ticket())
    }
} }

mutant! {
    /// Three times the same, where once would do.
    ThreeInARow [Balanced] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, request.ticket() / 3)
    }
} }

mutant! {
    /// Lots, with the first twice in the hat.
    BiasedLots [Balanced] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        let total: u64 = backends.healthy().map(|b| u64::from(b.weight)).sum();
        turn(backends, random_below(total + total / 2).saturating_sub(total / 2))
    }
} }

mutant! {
    /// Not all of the lots are drawn from.
    StarvesByLot [Balanced] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        let total: u64 = backends.healthy().map(|b| u64::from(b.weight)).sum();
        turn(backends, random_below(total.saturating_sub(1).max(1)))
    }
} }

mutant! {
    /// By the client's address: even, on a good day.
    HashesInstead [Balanced] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, hash(&request.client_address()))
    }
} }

mutant! {
    /// Counts what the others count in another slot.
    OneCounterForEachShard [Balanced] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick {
        const SHARDS: Counter = Counter::new(0);
        if state.count == 0 {
            state.count = 1 + SHARDS.add(1).cast_unsigned();
        }
        let own = Counter::new(state.count as u32 % 32 + 1);
        turn(backends, own.add(1).cast_unsigned())
    }
} }

rows! {
    IgnoresWeights => "balanced/shares",
    SticksToTheFirst => "balanced/no-starvation",
    StarvesTheLast => "balanced/shares",
    WeightsOffByOne => "balanced/shares",
    CountsByItself => "balanced/shares-over-shards",
    KeepsOldWeights => "balanced/shares-after-change",
    InBursts => "balanced/smooth",
    ThreeInARow => "balanced/smooth",
    BiasedLots => "balanced/shares",
    StarvesByLot => "balanced/no-starvation",
    HashesInstead => "balanced/shares",
    OneCounterForEachShard => "balanced/shares-over-shards",
}
