//! What wasmtime generates from the contract. Only chosen names leave this file.

#[allow(
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    elided_lifetimes_in_paths,
    reason = "generated code"
)]
mod generated {
    pub(super) mod policy {
        wasmtime::component::bindgen!({
            world: "policy",
            path: "../plugin-sdk/wit",
            imports: { "waypost:policy/host.counter-add": trappable },
        });
    }

    pub(super) mod outcomes {
        wasmtime::component::bindgen!({ world: "outcomes-hook", path: "../plugin-sdk/wit" });
    }

    pub(super) mod state {
        wasmtime::component::bindgen!({ world: "state-hook", path: "../plugin-sdk/wit" });
    }

    pub(super) mod responses {
        wasmtime::component::bindgen!({ world: "responses-hook", path: "../plugin-sdk/wit" });
    }
}

pub(super) use self::generated::outcomes::exports::waypost::policy::outcomes::{
    Ending, Failure, Outcome,
};
pub(super) use self::generated::outcomes::{OutcomesHook, OutcomesHookIndices};
pub(super) use self::generated::policy::waypost::policy::{
    host, request, response, types, upstream,
};
pub(super) use self::generated::policy::{Policy, PolicyIndices};
pub(super) use self::generated::responses::{ResponsesHook, ResponsesHookIndices};
pub(super) use self::generated::state::{StateHook, StateHookIndices};
