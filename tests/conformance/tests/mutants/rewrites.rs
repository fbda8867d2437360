//! Against `rewrites-headers`.

use waypost_plugin::{BackendId, Backends, Pick, Request, Response};

use crate::{State, turn};

mutant! { AppendsAgain [RewritesHeaders] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        request.append_header("x-seen-by", "a");
        turn(backends, request.ticket())
    }
} }

mutant! {
    /// One more with each pass.
    CountsHops [RewritesHeaders] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        let hops: u64 = request.header("x-hops").and_then(|text| text.parse().ok()).unwrap_or(0);
        request.set_header("x-hops", (hops + 1).to_string());
        turn(backends, request.ticket())
    }
} }

mutant! { AppendsToResponses [RewritesHeaders] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, request.ticket())
    }
    fn respond(_: &mut State, _: BackendId, response: &Response) {
        response.append_header("x-served", "1");
    }
} }

mutant! { RemovesAllThatBeginWithX [RewritesHeaders] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        for (name, _) in request.headers() {
            if name.starts_with("x-") && !name.starts_with("x-forwarded") {
                request.remove_header(&name);
            }
        }
        request.set_header("x-clean", "1");
        turn(backends, request.ticket())
    }
} }

mutant! { TidiesResponses [RewritesHeaders] {
    fn pick(_: &mut State, request: &Request, backends: &Backends) -> Pick {
        turn(backends, request.ticket())
    }
    fn respond(_: &mut State, _: BackendId, response: &Response) {
        for (name, value) in response.headers() {
            let upper = String::from_utf8_lossy(&value).to_uppercase();
            response.set_header(&name, format!("{upper}."));
        }
    }
} }

rows! {
    AppendsAgain => "rewrites-headers/idempotent-requests",
    CountsHops => "rewrites-headers/idempotent-requests",
    AppendsToResponses => "rewrites-headers/idempotent-responses",
    RemovesAllThatBeginWithX => "rewrites-headers/nothing-else",
    TidiesResponses => "rewrites-headers/idempotent-responses",
}
