//! Policies with nothing wrong: what the suite holds against them is a mistake of the suite.

use waypost_conformance::{native::Native, subject::Subject};
use waypost_plugin::{Backend, BackendId, Backends, Pick, Request, Response, random_below};

use crate::{Of, State, hash, least, preferred, to, turn};

mutant! { Rendezvous [Consistent, Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        to(preferred(backends, &request.client_address()))
    }
} }

mutant! {
    /// The same, by a field, and no backend above one and a quarter of the mean.
    Bounded [Consistent] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let key = request.header("x-user").unwrap_or_else(|| request.path());
        let loads = || backends.healthy().map(|b| u64::from(backends.in_flight_of(b.id)));
        let count = loads().count() as u64;
        let limit = (loads().sum::<u64>() + 1) * 5 / 4 / count.max(1) + 1;
        let free = |b: &&Backend| u64::from(backends.in_flight_of(b.id)) < limit;
        let rank = |b: &&Backend| hash(&format!("{key}@{}", b.name));
        to(backends.healthy().filter(free).max_by_key(rank).or_else(|| preferred(backends, &key)))
    }
} }

mutant! { Cookie [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let opaque = |b: &Backend| format!("{:x}", hash(&b.name));
        let wanted = request.cookie("sid");
        if let Some(home) = backends.healthy().find(|b| Some(opaque(b)) == wanted) {
            return Pick::forward(home.id);
        }
        let pick = least(backends, request.ticket());
        if let Pick::Forward(id) = pick && let Some(backend) = backends.get(id) {
            let secure = if request.scheme() == "https" { "; Secure" } else { "" };
            let cookie = format!("sid={}; Path=/; HttpOnly; SameSite=Lax{secure}", opaque(backend));
            request.response().append_header("set-cookie", cookie);
        }
        pick
    }
} }

mutant! {
    /// Draws lots by weight.
    Lots [Balanced] {
    fn pick(_: &mut State, _: &Request, backends: &Backends) -> Pick {
        let total: u64 = backends.healthy().map(|b| u64::from(b.weight)).sum();
        turn(backends, random_below(total))
    }
} }

mutant! {
    /// Counts, and hands the count over.
    Counting [] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick {
        state.count = state.count.wrapping_add(1);
        turn(backends, state.count)
    }
    fn save(state: &State) -> Vec<u8> {
        [&b"1:"[..], state.count.to_string().as_bytes()].concat()
    }
    fn restore(state: &mut State, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not text")?;
        let count = text.strip_prefix("1:").ok_or("another version's")?;
        state.count = count.parse().map_err(|_| "not a number")?;
        Ok(())
    }
} }

mutant! { Rewrites [RewritesHeaders] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-canary").is_some() {
            request.remove_header("x-canary");
        }
        request.set_header("x-proxy", "waypost");
        turn(backends, request.ticket())
    }
    fn respond(_: &mut State, backend: BackendId, response: &Response) {
        response.remove_header("server");
        response.set_header("x-backend", backend.to_string());
    }
} }

pub(crate) fn all() -> Vec<Box<dyn Subject>> {
    fn right<M: crate::Mutant>(name: &str) -> Box<dyn Subject> {
        Box::new(Native::<Of<M>>::new(name, "1.0.0"))
    }
    vec![
        Box::new(Native::<round_robin::RoundRobin>::new(
            "round-robin",
            "1.0.0",
        )),
        Box::new(Native::<least_conn::LeastConn>::new("least-conn", "1.0.0")),
        right::<Rendezvous>("rendezvous"),
        right::<Bounded>("bounded"),
        right::<Cookie>("cookie"),
        right::<Lots>("lots"),
        right::<Counting>("counting"),
        right::<Rewrites>("rewrites"),
    ]
}
