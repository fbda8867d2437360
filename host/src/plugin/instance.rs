//! A policy at work: one WebAssembly instance, owned by one shard, for one upstream.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use wasmtime::{Store, Trap};

use super::bindings::{self, types};
use super::loader::Exports;
use super::state::{Call, Guest, one_line};
use super::{Plugin, deadline};
use crate::config::ServerState;
use crate::policy::{Exchange, Policy, PolicyFailure, Reply, Verdict};
use crate::upstream::{BackendId, Ending, Failure, Outcome, Upstream};

/// What `configure` and `update` may take: they run seldom, and some build tables.
pub(super) const SET_UP_DEADLINE: Duration = Duration::from_millis(100);

/// An instance, configured and ready for `update`.
pub(crate) struct Instance {
    store: Store<Guest>,
    exports: Exports,
    plugin: Arc<Plugin>,
    /// The backends that the guest was last told are up, in ascending order.
    up: Vec<BackendId>,
    /// It is not only tried.
    counted: bool,
}

impl Instance {
    pub(super) fn start(
        plugin: Arc<Plugin>,
        upstream: Arc<Upstream>,
    ) -> Result<Instance, PolicyFailure> {
        let seed = RandomState::new().hash_one(&plugin.name);
        let counted = !upstream.is_rehearsal;
        let guest = Guest::new(
            &plugin.settings,
            Some(upstream),
            plugin.log_limit.clone(),
            seed,
        );
        let mut store = plugin.code.engine.store(guest);
        deadline::arm(&mut store, SET_UP_DEADLINE);
        let exports = plugin
            .code
            .instantiate(&mut store)
            .map_err(|error| failure(&error, store.data_mut()))?;
        let configured = exports
            .policy
            .waypost_policy_balance()
            .call_configure(&mut store, &plugin.config);
        match configured.map_err(|error| failure(&error, store.data_mut()))? {
            Ok(()) => {}
            Err(reason) => return Err(PolicyFailure::Start(one_line(&reason))),
        }
        Ok(Instance {
            store,
            exports,
            plugin,
            up: Vec::new(),
            counted,
        })
    }

    /// What is left of its fuel; `None` where that is not counted.
    pub(crate) fn fuel(&self) -> Option<u64> {
        self.store.get_fuel().ok()
    }

    /// Bytes of linear memory that it has by now.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().limits.memory
    }

    /// Whether a call may answer so. Never trusts what a guest returns.
    fn check(
        &self,
        verdict: types::Verdict,
        tried: &[BackendId],
    ) -> Result<Verdict, PolicyFailure> {
        match verdict {
            types::Verdict::Forward(id) => {
                let id = BackendId(id);
                if tried.contains(&id) {
                    return Err(PolicyFailure::TriedBackend(id));
                }
                self.up
                    .binary_search(&id)
                    .map(|_| Verdict::Forward(id))
                    .map_err(|_| PolicyFailure::UnknownBackend(id))
            }
            types::Verdict::Respond(status) => StatusCode::from_u16(status)
                .ok()
                .filter(|code| (200..600).contains(&code.as_u16()))
                .map(Verdict::Respond)
                .ok_or(PolicyFailure::BadStatus(status)),
            types::Verdict::Unavailable => Ok(Verdict::Unavailable),
        }
    }
}

impl Policy for Instance {
    fn update(&mut self, upstream: &Arc<Upstream>) -> Result<(), PolicyFailure> {
        let backends: Vec<types::Backend> = upstream
            .backends
            .iter()
            .map(|backend| describe(backend))
            .collect();
        self.up = backends
            .iter()
            .filter(|backend| matches!(backend.state, types::BackendState::Up))
            .map(|backend| BackendId(backend.id))
            .collect();
        self.up.sort_unstable();
        self.store.data_mut().upstream = Some(upstream.clone());
        deadline::arm(&mut self.store, SET_UP_DEADLINE);
        self.exports
            .policy
            .waypost_policy_balance()
            .call_update(&mut self.store, &backends)
            .map_err(|error| failure(&error, self.store.data_mut()))
    }

    fn pick(&mut self, exchange: Exchange) -> (Exchange, Result<Verdict, PolicyFailure>) {
        let timer = self.counted.then(|| self.plugin.stats.start_call());
        let (attempt, ticket) = (exchange.attempt, exchange.ticket);
        self.store.data_mut().begin(Call::Pick(exchange));
        deadline::arm(&mut self.store, self.plugin.settings.limits.deadline);
        let answer = self.exports.policy.waypost_policy_balance().call_pick(
            &mut self.store,
            attempt,
            ticket,
        );
        let Call::Pick(exchange) = self.store.data_mut().end() else {
            unreachable!("a call ends as what it began as: pick {ticket}, attempt {attempt}")
        };
        if let Some(timer) = &timer {
            self.plugin.stats.end_call(timer);
        }
        let verdict = answer
            .map_err(|error| failure(&error, self.store.data_mut()))
            .and_then(|verdict| self.check(verdict, &exchange.tried));
        (exchange, verdict)
    }

    fn save(&mut self) -> Result<Option<Vec<u8>>, PolicyFailure> {
        let Some(hook) = &self.exports.state else {
            return Ok(None);
        };
        deadline::arm(&mut self.store, self.plugin.settings.limits.deadline);
        let saved = hook.waypost_policy_state().call_save(&mut self.store);
        saved
            .map(Some)
            .map_err(|error| failure(&error, self.store.data_mut()))
    }

    fn restore(&mut self, state: &[u8]) -> Result<Result<(), String>, PolicyFailure> {
        let Some(hook) = &self.exports.state else {
            return Ok(Err("it has no `state` hook".to_owned()));
        };
        deadline::arm(&mut self.store, self.plugin.settings.limits.deadline);
        let restored = hook
            .waypost_policy_state()
            .call_restore(&mut self.store, state);
        restored
            .map(|answer| answer.map_err(|reason| one_line(&reason)))
            .map_err(|error| failure(&error, self.store.data_mut()))
    }

    fn wants_outcomes(&self) -> bool {
        self.exports.outcomes.is_some()
    }

    fn observe(&mut self, outcomes: &[Outcome]) -> Result<(), PolicyFailure> {
        let Some(hook) = &self.exports.outcomes else {
            return Ok(());
        };
        let outcomes: Vec<bindings::Outcome> =
            outcomes.iter().map(bindings::Outcome::from).collect();
        deadline::arm(&mut self.store, self.plugin.settings.limits.deadline);
        hook.waypost_policy_outcomes()
            .call_observe(&mut self.store, &outcomes)
            .map_err(|error| failure(&error, self.store.data_mut()))
    }

    fn wants_responses(&self) -> bool {
        self.exports.responses.is_some()
    }

    fn respond(&mut self, backend: BackendId, reply: Reply) -> (Reply, Result<(), PolicyFailure>) {
        let Some(hook) = &self.exports.responses else {
            return (reply, Ok(()));
        };
        self.store.data_mut().begin(Call::Respond(reply));
        deadline::arm(&mut self.store, self.plugin.settings.limits.deadline);
        let answer = hook
            .waypost_policy_responses()
            .call_respond(&mut self.store, backend.0);
        let Call::Respond(reply) = self.store.data_mut().end() else {
            unreachable!(
                "a call ends as what it began as: respond for backend {}",
                backend.0
            )
        };
        (
            reply,
            answer.map_err(|error| failure(&error, self.store.data_mut())),
        )
    }
}

fn describe(backend: &crate::upstream::Backend) -> types::Backend {
    types::Backend {
        id: backend.id.0,
        name: backend.settings.name.clone(),
        address: backend.settings.address.clone(),
        weight: backend.settings.weight,
        state: match backend.state() {
            ServerState::Up => types::BackendState::Up,
            ServerState::Draining => types::BackendState::Draining,
            ServerState::Down => types::BackendState::Down,
        },
        labels: backend.settings.labels.clone(),
    }
}

impl From<&Outcome> for bindings::Outcome {
    fn from(outcome: &Outcome) -> Self {
        bindings::Outcome {
            backend: outcome.backend.0,
            attempt: outcome.attempt,
            ending: match outcome.ending {
                Ending::Status(status) => bindings::Ending::Status(status),
                Ending::Failed(failure) => bindings::Ending::Failed(match failure {
                    Failure::Connect => bindings::Failure::Connect,
                    Failure::Reset => bindings::Failure::Reset,
                    Failure::Timeout => bindings::Failure::Timeout,
                    Failure::Protocol => bindings::Failure::Protocol,
                    Failure::ClientGone => bindings::Failure::ClientGone,
                }),
            },
            latency_us: u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX),
            bytes: outcome.bytes,
        }
    }
}

/// What went wrong in a guest: from what wasmtime says of it, and from its own last words where it panicked.
pub(super) fn failure(error: &wasmtime::Error, guest: &mut Guest) -> PolicyFailure {
    let last_words = guest.last_words.take();
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => PolicyFailure::Deadline,
        Some(Trap::StackOverflow) => PolicyFailure::StackOverflow,
        Some(Trap::UnreachableCodeReached) => {
            PolicyFailure::Trap(last_words.unwrap_or_else(|| "reached `unreachable`".to_owned()))
        }
        Some(trap) => PolicyFailure::Trap(trap.to_string()),
        None => PolicyFailure::Trap(one_line(&error.root_cause().to_string())),
    }
}
