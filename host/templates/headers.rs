//! Requests with `x-canary: 1` go to the backends that are labelled `track = "canary"`, all others to the rest, each in
//! turn; backends learn who decided, and clients do not learn what software answers them.

use waypost_plugin::{
    Backend, BackendId, Backends, Counter, Pick, Policy, Promise, Request, Response, export_policy,
};

/// Whose turn it is, over all shards: one counter for the canaries, one for the rest.
const TURNS: [Counter; 2] = [Counter::new(0), Counter::new(1)];

/// The policy.
pub struct YourPolicy;

impl Policy for YourPolicy {
    type Config = ();
    const PROMISES: &'static [Promise] = &[Promise::RewritesHeaders];

    fn configure(_: ()) -> Result<Self, String> {
        Ok(YourPolicy)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let wanted = request.header("x-canary").as_deref() == Some("1");
        let canary = |backend: &&Backend| backend.label("track") == Some("canary");
        let mut choices: Vec<&Backend> = backends
            .healthy()
            .filter(|backend| canary(backend) == wanted)
            .collect();
        // Better a backend of the other kind than none.
        if choices.is_empty() {
            choices = backends.healthy().collect();
        }
        let turn = TURNS[usize::from(wanted)].turn(choices.len());
        let Some(backend) = choices.get(turn) else {
            return Pick::unavailable();
        };
        let track = if canary(backend) { "canary" } else { "stable" };
        request.set_header("x-track", track);
        Pick::forward(backend.id)
    }

    fn respond(&mut self, _: BackendId, response: &Response) {
        response.remove_header("server");
    }
}

export_policy!(YourPolicy, responses);

#[cfg(test)]
mod tests {
    use waypost_plugin::testing::{Harness, TestRequest, TestResponse, backend};

    use super::*;

    fn harness() -> Harness<YourPolicy> {
        Harness::new("{}").with_backends([
            backend("a"),
            backend("b"),
            backend("new").label("track", "canary"),
        ])
    }

    #[test]
    fn the_field_decides() {
        let mut harness = harness();
        let picked = harness.pick(&TestRequest::get("/").header("x-canary", "1"));
        assert_eq!(picked.backend(), Some("new"));
        assert_eq!(picked.request_header("x-track").as_deref(), Some("canary"));
        for expected in ["a", "b", "a"] {
            let picked = harness.pick(&TestRequest::get("/"));
            assert_eq!(picked.backend(), Some(expected));
            assert_eq!(picked.request_header("x-track").as_deref(), Some("stable"));
        }
    }

    #[test]
    fn the_server_is_not_named() {
        let response = TestResponse::new(200).header("server", "Apache");
        let responded = harness().respond("a", &response);
        assert_eq!(responded.response_header("server"), None);
    }
}
