//! Against `consistent`.

use waypost_plugin::{Backend, Backends, Pick, Request};

use crate::{State, hash, preferred, to};

fn key(request: &Request) -> String {
    request.client_address()
}

mutant! { HashesModulo [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let count = backends.healthy().count() as u64;
        let place = hash(&key(request)).checked_rem(count).unwrap_or(0);
        to(backends.healthy().nth(place as usize))
    }
} }

mutant! {
    /// Ids are different on each host.
    HashesIds [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let key = key(request);
        to(backends.healthy().max_by_key(|b| hash(&format!("{key}@{}", b.id))))
    }
} }

mutant! {
    /// A little luck with each request.
    DrawsLots [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match waypost_plugin::random_below(50) {
            0 => to(backends.healthy().next()),
            _ => to(preferred(backends, &key(request))),
        }
    }
} }

mutant! {
    /// The number of backends is part of the hash: all keys move.
    MovesAllKeys [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let key = format!("{}/{}", key(request), backends.len());
        to(preferred(backends, &key))
    }
} }

mutant! {
    /// The first backend takes over for whoever is gone.
    HalfOfThemToTheFirst [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let key = key(request);
        match hash(&key) % 2 {
            0 => to(backends.healthy().next()),
            _ => to(preferred(backends, &key)),
        }
    }
} }

mutant! {
    /// Where a key was while its backend was down, it stays.
    RemembersDetours [Consistent] {
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        let key = key(request);
        let home = state.homes.get(&key).and_then(|id| backends.get(*id));
        let home = home.filter(|b| b.is_healthy() && !request.was_tried(b.id));
        let found: Option<&Backend> = home.or_else(|| preferred(backends, &key));
        if let Some(found) = found {
            state.homes.insert(key, found.id);
        }
        to(found)
    }
} }

mutant! {
    /// One place on the ring for each: some get next to nothing.
    OnePlaceOnTheRing [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let at = hash(&key(request));
        to(backends.healthy().min_by_key(|b| hash(&b.name).wrapping_sub(at)))
    }
} }

mutant! {
    /// Looks at loads, and does nothing about them.
    LooksAndForgets [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let _loads = backends.in_flight();
        to(preferred(backends, &key(request)))
    }
} }

rows! {
    HashesModulo => "consistent/few-move-on-leave",
    HashesIds => "consistent/same-on-two-hosts",
    DrawsLots => "consistent/repeats",
    MovesAllKeys => "consistent/few-move-on-join",
    HalfOfThemToTheFirst => "consistent/spreads",
    RemembersDetours => "consistent/back-after-down",
    OnePlaceOnTheRing => "consistent/spreads",
    LooksAndForgets => "consistent/bounded-load",
}
