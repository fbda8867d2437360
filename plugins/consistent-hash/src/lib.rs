//! The same backend for the same key, on every host alike, whoever else comes or goes.
//!
//! The key is a part of the request: the client's address, the path, a header field or a cookie. What it is good for:
//! caches behind the proxy, each with its own part of the content; sessions in the memory of the application, without
//! cookies; shards that keep their users' data.
//!
//! # Settings
//!
//! ```toml
//! [policy.by-user]
//! builtin = "consistent-hash"
//! config  = { key = { header = "x-user" }, fallback = "client-address", balance_factor = 1.25 }
//! ```
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `key` | `"client-address"` | `{ header = "NAME" }`, `{ cookie = "NAME" }`, `"path"` (without the query) or `"client-address"` |
//! | `fallback` | none | the same choice, for requests that have no `key`, or an empty one |
//! | `balance_factor` | none | 1 to 1000; a backend with more than this many times its share of all requests under way takes no more of them |
//!
//! Requests that have neither go to the backend with the fewest requests under way for its weight; they do not all end
//! up on one.
//!
//! # What it promises
//!
//! - *Consistent.* When one of n backends of equal weight leaves, goes down or drains, its keys move, about 1/n of all,
//!   and no other. When one joins, keys move to it and nowhere else. The same for a weight that changes.
//! - The mapping depends on nothing but the names and weights of the backends that are up. Hosts that know them by the
//!   same names agree, whatever their order, ids and history. A server without a `name` is known by its address.
//! - A retry goes where the key would go if the backend that failed were gone: to where all its requests go once it is
//!   marked down. (Where one backend outweighs all others together, a retry may go to another one of them.)
//! - With `balance_factor`, no backend is given a request while it has more than this factor times its share of what
//!   is under way on all shards, rounded up. What is too much goes where it would go if the backend were gone, and so on.
//!   It is off unless asked for, because it breaks the first promise wherever it acts: with few requests under way, two
//!   at once for one key are already too many for one backend of ten. 1.25 is a good value where a key can become
//!   hot.
//!
//! # How
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar 1998) over a table of 65,536 slots, which is computed when the
//! backends change, in some milliseconds for any number of them; see `table.rs`. A pick is one look into it. The other
//! ways that were weighed: a ring (Karger et al. 1997) is as stable, but is less even with hundreds of points for each
//! backend than this is with some hundred slots. Maglev's table (Eisenbud et al., NSDI 2016) is perfectly even, but
//! moves keys between backends that stay: with 65,537 entries and one backend of 100 gone, 1.6 times the keys that must
//! move, and of 1,000, 6.7 times. Bounded loads are those of Mirrokni, Thorup and Zadimoghaddam (2016), with the
//! next backend of rendezvous hashing where theirs has the next on the ring.

mod table;

use serde::Deserialize;
use waypost_plugin::{
    Backend, BackendId, Backends, Counter, Key, LeastLoaded, Pick, Policy, Promise, Request,
    export_policy, stable_hash,
};

use crate::table::{Member, Table};

/// Requests without a key that could have gone to several, on all shards.
const TIES: Counter = Counter::new(0);

/// Slots that are looked at for a backend that may take a request, before all backends are.
const PROBES: usize = 32;

const FACTOR_MAX: f64 = 1000.0;

/// The policy's `config` table.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    key: Key,
    fallback: Option<Key>,
    balance_factor: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            key: Key::ClientAddress,
            fallback: None,
            balance_factor: None,
        }
    }
}

/// The policy.
#[derive(Debug)]
pub struct ConsistentHash {
    settings: Settings,
    /// The backends that take requests.
    takers: Vec<Taker>,
    table: Table,
    /// The weight of all of them.
    whole: f64,
    /// For requests without a key.
    least_loaded: LeastLoaded,
}

/// A backend that takes requests.
#[derive(Clone, Debug, PartialEq)]
struct Taker {
    id: BackendId,
    name: String,
    weight: u32,
    /// Its place in lists of live numbers.
    position: usize,
}

impl Policy for ConsistentHash {
    type Config = Settings;
    const PROMISES: &'static [Promise] = &[Promise::Consistent];

    fn configure(settings: Settings) -> Result<Self, String> {
        if let Some(factor) = settings.balance_factor
            && !(1.0..=FACTOR_MAX).contains(&factor)
        {
            return Err(format!(
                "balance_factor must be between 1 and {FACTOR_MAX}, not {factor}"
            ));
        }
        Ok(ConsistentHash {
            settings,
            takers: Vec::new(),
            table: Table::default(),
            whole: 0.0,
            least_loaded: LeastLoaded::default(),
        })
    }

    fn update(&mut self, backends: &Backends) {
        let taker = |(position, backend): (usize, &Backend)| Taker {
            id: backend.id,
            name: backend.name.clone(),
            weight: backend.weight,
            position,
        };
        let takers: Vec<Taker> = backends
            .iter()
            .enumerate()
            .filter(|(_, backend)| backend.is_healthy())
            .map(taker)
            .collect();
        let members = |takers: &[Taker]| -> Vec<(String, u32)> {
            let member = |taker: &Taker| (taker.name.clone(), taker.weight);
            takers.iter().map(member).collect()
        };
        // The table is dear, and a change may have been one of labels only, or of one that was down anyway.
        if members(&takers) != members(&self.takers) {
            let members: Vec<Member<'_>> = takers
                .iter()
                .map(|taker| Member {
                    name: &taker.name,
                    weight: taker.weight,
                })
                .collect();
            self.table = Table::new(&members);
        }
        self.whole = takers.iter().map(|taker| f64::from(taker.weight)).sum();
        self.takers = takers;
        self.least_loaded = LeastLoaded::among(backends, |_| true);
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let Some(key) = self.key(request) else {
            let least = self.least_loaded.pick(request, backends, TIES);
            return least.map_or(Pick::Unavailable, Pick::forward);
        };
        let hash = stable_hash(&key);
        let owner = self.table.owner(hash).and_then(|at| self.takers.get(at));
        let Some(owner) = owner else {
            return Pick::unavailable();
        };
        let bound = self
            .settings
            .balance_factor
            .and_then(|factor| Bound::unless_idle(owner, factor, self.whole, backends));
        let may = |taker: &Taker| !request.was_tried(taker.id);
        let may_and_should =
            |taker: &Taker| may(taker) && bound.as_ref().is_none_or(|bound| bound.admits(taker));
        self.first(hash, may_and_should)
            .or_else(|| self.first(hash, may))
            .map_or(Pick::Unavailable, |taker| Pick::forward(taker.id))
    }
}

export_policy!(ConsistentHash);

#[cfg(test)]
waypost_conformance::conforms!(ConsistentHash);

impl ConsistentHash {
    fn key(&self, request: &Request) -> Option<Vec<u8>> {
        let Settings { key, fallback, .. } = &self.settings;
        key.read(request)
            .or_else(|| fallback.as_ref()?.read(request))
    }

    /// The first backend that will do, in the order of this key: its owner, the one after it, owners of other slots that
    /// the key leads to, any.
    fn first(&self, hash: u64, will_do: impl Fn(&Taker) -> bool) -> Option<&Taker> {
        let taker =
            |position: Option<usize>| self.takers.get(position?).filter(|taker| will_do(taker));
        if let Some(found) =
            taker(self.table.owner(hash)).or_else(|| taker(self.table.successor(hash)))
        {
            return Some(found);
        }
        let mut probe = hash;
        let mut probes = (0..PROBES).map(|_| {
            probe = stable_hash(&probe.to_le_bytes());
            probe
        });
        probes
            .find_map(|probe| taker(self.table.owner(probe)))
            .or_else(|| {
                let start = (hash % self.takers.len().max(1) as u64) as usize;
                let (before, after) = self.takers.split_at_checked(start)?;
                after.iter().chain(before).find(|taker| will_do(taker))
            })
    }
}

/// How many requests each backend may have under way.
struct Bound {
    loads: Vec<u32>,
    /// Requests for each 1 of weight.
    per_weight: f64,
}

impl Bound {
    /// `None` where the owner may take one more whatever the others have: it has nothing to do. That costs the host
    /// less to say than what all of them have.
    fn unless_idle(owner: &Taker, factor: f64, whole: f64, backends: &Backends) -> Option<Self> {
        if backends.in_flight_of(owner.id) == 0 {
            return None;
        }
        let loads = backends.in_flight();
        // With the one that is to be placed.
        let all = 1.0 + loads.iter().map(|load| f64::from(*load)).sum::<f64>();
        let per_weight = factor * all / whole;
        Some(Bound { loads, per_weight })
    }

    fn admits(&self, taker: &Taker) -> bool {
        let load = self.loads.get(taker.position).copied().unwrap_or(0);
        f64::from(load) + 1.0 <= (self.per_weight * f64::from(taker.weight)).ceil()
    }
}

#[cfg(test)]
mod tests;
