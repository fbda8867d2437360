//! The trait that a policy implements, and what it answers.

use serde::de::DeserializeOwned;

use crate::{BackendId, Backends, Outcome, Request, Response, hooks};

/// A policy: picks the backend for each request of one upstream.
///
/// [`configure`](Policy::configure) and [`pick`](Policy::pick) are all that a policy must have. The hooks
/// [`observe`](Policy::observe), [`respond`](Policy::respond), [`save`](Policy::save) and
/// [`restore`](Policy::restore) are called only if [`export_policy!`](crate::export_policy) lists them, which a test that
/// it adds to the crate sees to.
///
/// The host makes one instance per upstream and shard, calls it from one thread, and never calls it from inside
/// another call. The order is `configure`, `restore` if there is something to restore, `update`, then the rest.
pub trait Policy: Sized + 'static {
    /// What the policy's `config` table is read into: `()` for a policy without settings, else a struct that derives
    /// `serde::Deserialize`.
    type Config: Config;

    /// What the policy vouches for. The conformance suite holds it to every promise listed.
    const PROMISES: &'static [Promise] = &[];

    /// Makes the policy from its settings.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the settings. The host shows it to whoever loads the policy, and the
    /// policy does not become active.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Learns of the backends: called once after `configure`, and whenever the set or the state of one has changed.
    ///
    /// `pick` is handed the same `backends`, so this is the place for whatever can be computed ahead.
    fn update(&mut self, backends: &Backends) {
        let _ = backends;
    }

    /// Decides on a request. Called for every attempt to forward it: again after an attempt that failed, with
    /// [`Request::attempt`] counting up and [`Request::tried`] naming the backends that must not be picked again.
    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick;

    /// Hook `outcomes`: hears how earlier picks ended, in batches, some time before a later `pick`.
    fn observe(&mut self, outcomes: &[Outcome]) {
        let _ = outcomes;
        hooks::absent();
    }

    /// Hook `responses`: sees the head of the response that `backend` gave and may change its fields.
    fn respond(&mut self, backend: BackendId, response: &Response) {
        let _ = (backend, response);
        hooks::absent();
    }

    /// Hook `state`: what this instance hands to the one that replaces it, in whatever form `restore` reads.
    fn save(&self) -> Vec<u8> {
        hooks::absent();
        Vec::new()
    }

    /// Hook `state`: takes over what another instance, perhaps of another version, returned from `save`.
    ///
    /// # Errors
    ///
    /// Why the bytes cannot be used. The host logs it and starts the policy cold.
    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let _ = state;
        hooks::absent();
        Ok(())
    }
}

/// What can be the settings of a policy: anything that implements `serde::Deserialize` and borrows nothing.
///
/// Implemented for all such types; there is nothing to write but `#[derive(Deserialize)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a `config` table",
    note = "put `#[derive(serde::Deserialize)]` on it, or use `()` for a policy without settings"
)]
pub trait Config: DeserializeOwned {}

impl<T: DeserializeOwned> Config for T {}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Pick {
    /// Send it to this backend.
    Forward(BackendId),
    /// Answer it with this status and no body.
    Respond(u16),
    /// No backend can take it.
    Unavailable,
}

impl Pick {
    /// Send the request to this backend, which must be [up](crate::BackendState::Up) and not
    /// [tried](Request::tried) yet. Any other id counts as a failure of the policy.
    pub const fn forward(backend: BackendId) -> Self {
        Pick::Forward(backend)
    }

    /// Answer the request here, with this status (200 to 599) and an empty body. A status outside that range counts
    /// as a failure of the policy.
    pub const fn respond(status: u16) -> Self {
        Pick::Respond(status)
    }

    /// No backend can take the request: the host answers 503 with `Retry-After`.
    pub const fn unavailable() -> Self {
        Pick::Unavailable
    }
}

/// What a policy can vouch for in [`Policy::PROMISES`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Promise {
    /// Over any stretch of requests each backend's share follows its weight.
    Balanced,
    /// The pick has the fewest requests under way for its weight.
    LeastLoaded,
    /// Requests of one client stay with one backend while it is up.
    Sticky,
    /// A backend that comes or goes moves only its own share of the requests.
    Consistent,
    /// Fields of requests or responses are changed.
    RewritesHeaders,
}

impl Promise {
    /// The promise's name in the contract, such as `least-loaded`.
    pub const fn name(self) -> &'static str {
        match self {
            Promise::Balanced => "balanced",
            Promise::LeastLoaded => "least-loaded",
            Promise::Sticky => "sticky",
            Promise::Consistent => "consistent",
            Promise::RewritesHeaders => "rewrites-headers",
        }
    }
}
