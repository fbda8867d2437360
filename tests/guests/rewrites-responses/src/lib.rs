//! Rewrites the heads of responses, each in one of the ways there are. Where a response has the field `x-misbehave` it
//! panics instead, after its edits.

use waypost_plugin::{BackendId, Backends, Pick, Policy, Request, Response, export_policy};

struct RewritesResponses;

impl Policy for RewritesResponses {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(RewritesResponses)
    }

    fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }

    fn respond(&mut self, backend: BackendId, response: &Response) {
        response.set_header("x-status", response.status().to_string());
        response.set_header("x-backend", backend.to_string());
        response.append_header("set-cookie", "sid=1; Path=/");
        response.remove_header("x-powered-by");
        response.set_header("content-length", "0");
        response.set_header("transfer-encoding", "chunked");
        assert!(response.header("x-misbehave").is_none(), "after the edits");
    }
}

export_policy!(RewritesResponses, responses);
