//! Against `sticky`.

use waypost_plugin::{Backends, Pick, Request};

use crate::{State, hash, least, preferred, to, turn};

const GOOD: &str = "; Path=/; HttpOnly; SameSite=Lax";

/// Stays by a cookie with the backend's name in it, and else picks anew.
fn by_cookie(
    request: &Request,
    backends: &Backends,
    attributes: &str,
    anew: impl FnOnce() -> Pick,
) -> Pick {
    let wanted = request.cookie("sid");
    if let Some(home) = backends
        .healthy()
        .find(|b| Some(&b.name) == wanted.as_ref())
    {
        return Pick::forward(home.id);
    }
    let pick = anew();
    if let Pick::Forward(id) = pick
        && let Some(backend) = backends.get(id)
    {
        let secure = if request.scheme() == "https" {
            "; Secure"
        } else {
            ""
        };
        let cookie = format!("sid={}{attributes}{secure}", backend.name);
        request.response().append_header("set-cookie", cookie);
    }
    pick
}

mutant! { ForgetsTheCookie [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let pick = turn(backends, request.ticket());
        request.response().append_header("set-cookie", format!("sid=b0{GOOD}"));
        pick
    }
} }

mutant! {
    /// By position, which changes with the set.
    CookieHasThePosition [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let wanted = request.cookie("sid").and_then(|text| text.parse::<usize>().ok());
        let healthy = || backends.healthy();
        if let Some(home) = wanted.and_then(|place| healthy().nth(place)) {
            return Pick::forward(home.id);
        }
        let count = healthy().count() as u64;
        let place = request.ticket().checked_rem(count).unwrap_or(0);
        let secure = if request.scheme() == "https" { "; Secure" } else { "" };
        request.response().append_header("set-cookie", format!("sid={place}{GOOD}{secure}"));
        to(healthy().nth(place as usize))
    }
} }

mutant! {
    /// A table of clients on each shard.
    RemembersOnOneShard [Sticky] {
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        let client = request.client_address();
        let home = state.homes.get(&client).and_then(|id| backends.get(*id));
        if let Some(home) = home.filter(|b| b.is_healthy() && !request.was_tried(b.id)) {
            return Pick::forward(home.id);
        }
        let pick = least(backends, hash(&client) % 97 + state.count);
        state.count += 1;
        if let Pick::Forward(id) = pick {
            state.homes.insert(client, id);
        }
        pick
    }
} }

mutant! {
    /// The client's cookie, and the load as well.
    LeavesTheBusy [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let busy = request.cookie("sid").and_then(|name| {
            backends.healthy().find(|b| b.name == name && backends.in_flight_of(b.id) > 20)
        });
        match busy {
            Some(_) => least(backends, request.ticket()),
            None => by_cookie(request, backends, GOOD, || least(backends, request.ticket())),
        }
    }
} }

mutant! {
    /// A hash modulo the number of backends.
    HashesModulo [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let count = backends.healthy().count() as u64;
        let place = hash(&request.client_address()).checked_rem(count).unwrap_or(0);
        to(backends.healthy().nth(place as usize))
    }
} }

mutant! {
    /// Once its backend is gone, a client never gets a new cookie.
    NeverSettlesAgain [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match request.cookie("sid") {
            Some(name) => match backends.healthy().find(|b| b.name == name) {
                Some(home) => Pick::forward(home.id),
                None => turn(backends, request.ticket()),
            },
            None => by_cookie(request, backends, GOOD, || turn(backends, request.ticket())),
        }
    }
} }

mutant! { AllClientsToOne [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        by_cookie(request, backends, GOOD, || to(backends.healthy().next()))
    }
} }

mutant! {
    /// Cookies that only this instance can read.
    NewSecretWithEachInstance [Sticky] {
    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick {
        if state.count == 0 {
            // The same for all that begin together.
            state.count = waypost_plugin::Counter::new(1).add(1).cast_unsigned() / 3 + 1;
        }
        let wanted = request.cookie("sid");
        let name = |b: &waypost_plugin::Backend| format!("{:x}", hash(&format!("{}{}", b.name, state.count)));
        if let Some(home) = backends.healthy().find(|b| Some(name(b)) == wanted) {
            return Pick::forward(home.id);
        }
        let pick = turn(backends, request.ticket());
        if let Pick::Forward(id) = pick && let Some(backend) = backends.get(id) {
            let secure = if request.scheme() == "https" { "; Secure" } else { "" };
            let cookie = format!("sid={}{GOOD}{secure}", name(backend));
            request.response().append_header("set-cookie", cookie);
        }
        pick
    }
} }

mutant! { NoPath [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        by_cookie(request, backends, "; HttpOnly; SameSite=Lax", || turn(backends, request.ticket()))
    }
} }

mutant! { OpenToScripts [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        by_cookie(request, backends, "; Path=/; SameSite=Lax", || turn(backends, request.ticket()))
    }
} }

mutant! { CookieWithSpaces [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        if request.cookie("sid").is_none() {
            request.response().append_header("set-cookie", format!("sid=a b,c{GOOD}; Secure"));
        }
        to(preferred(backends, &request.client_address()))
    }
} }

mutant! {
    /// What is in the cookie is where it goes.
    BelievesTheCookie [Sticky] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        match request.cookie("sid").and_then(|text| text.parse().ok()) {
            Some(id) if request.attempt() == 0 => Pick::forward(waypost_plugin::BackendId::new(id)),
            _ => {
                let pick = turn(backends, request.ticket());
                if let Pick::Forward(id) = pick {
                    let cookie = format!("sid={id}{GOOD}; Secure");
                    request.response().append_header("set-cookie", cookie);
                }
                pick
            }
        }
    }
} }

rows! {
    ForgetsTheCookie => "sticky/same-backend",
    CookieHasThePosition => "sticky/moves-only-when-it-must",
    RemembersOnOneShard => "sticky/same-backend",
    LeavesTheBusy => "sticky/same-backend",
    HashesModulo => "sticky/moves-only-when-it-must",
    NeverSettlesAgain => "sticky/settles-elsewhere",
    AllClientsToOne => "sticky/spreads",
    NewSecretWithEachInstance => "sticky/survives-swap",
    NoPath => "sticky/cookie-attributes",
    OpenToScripts => "sticky/cookie-attributes",
    CookieWithSpaces => "sticky/cookie-attributes",
    BelievesTheCookie => "sticky/forged-cookie",
}
