//! The sandbox side: exports call the policy, and what the policy asks goes to the host.

use std::{cell::RefCell, panic, thread::LocalKey};

use crate::{
    Backend, BackendId, BackendState, Ending, Failure, Outcome, Pick, Policy,
    bindings::{
        outcomes::exports::waypost::policy::outcomes,
        policy::{
            exports::waypost::policy::{about, balance},
            waypost::policy::{request, response, types},
        },
        responses::exports::waypost::policy::responses,
        state::exports::waypost::policy::state,
    },
    request::{Edit, Head},
    runner::Runner,
};

pub(crate) use crate::bindings::policy::waypost::policy::{
    host::{Level, counter_add, log, now, random},
    request::{authority, client_address, method, scheme, target, tried},
    response::status,
    types::EditError as Refusal,
    upstream::{error_ppm, error_ppm_of, in_flight, in_flight_of, latency_us, latency_us_of},
};

// === what `export_policy!` fills in ===

/// Ties the exports to a policy. Implemented by `export_policy!` and by nothing else.
pub trait Export {
    /// The policy.
    type Policy: Policy;
    /// The plugin's name.
    const NAME: &'static str;
    /// The plugin's version.
    const VERSION: &'static str;

    /// The module's one instance of the policy.
    fn instance() -> &'static LocalKey<Instance<Self::Policy>>;
}

/// Where a module keeps its one instance.
pub struct Instance<P>(RefCell<Option<Runner<P>>>);

impl<P> Instance<P> {
    #[expect(
        clippy::new_without_default,
        reason = "only `export_policy!` makes one, in a const"
    )]
    /// No policy yet.
    pub const fn new() -> Self {
        Instance(RefCell::new(None))
    }
}

/// Runs `f` on the configured policy. A host that calls anything before `configure` broke the contract: trap.
fn with<E: Export, R>(f: impl FnOnce(&mut Runner<E::Policy>) -> R) -> R {
    E::instance().with(|instance| match &mut *instance.0.borrow_mut() {
        Some(runner) => f(runner),
        None => panic!("called before `configure`"),
    })
}

// === exports ===

impl<E: Export> about::Guest for E {
    fn describe() -> about::Info {
        about::Info {
            name: E::NAME.into(),
            version: E::VERSION.into(),
            promises: E::Policy::PROMISES
                .iter()
                .map(|promise| promise.name().into())
                .collect(),
        }
    }
}

impl<E: Export> balance::Guest for E {
    fn configure(config: String) -> Result<(), String> {
        // The sandbox has no standard error: without this a panic would be a trap without a reason.
        panic::set_hook(Box::new(|info| log(Level::Error, &info.to_string())));
        let runner = Runner::configure(&config)?;
        E::instance().with(|instance| instance.0.replace(Some(runner)));
        Ok(())
    }

    fn update(backends: Vec<types::Backend>) {
        with::<E, _>(|runner| runner.update(backends.into_iter().map(backend).collect()));
    }

    fn pick(attempt: u32, ticket: u64) -> types::Verdict {
        match with::<E, _>(|runner| runner.pick(attempt, ticket)) {
            Pick::Forward(backend) => types::Verdict::Forward(backend.number()),
            Pick::Respond(status) => types::Verdict::Respond(status),
            Pick::Unavailable => types::Verdict::Unavailable,
        }
    }
}

impl<E: Export> outcomes::Guest for E {
    fn observe(outcomes: Vec<outcomes::Outcome>) {
        let outcomes: Vec<Outcome> = outcomes.into_iter().map(outcome).collect();
        with::<E, _>(|runner| runner.observe(&outcomes));
    }
}

impl<E: Export> responses::Guest for E {
    fn respond(backend: u64) {
        with::<E, _>(|runner| runner.respond(BackendId::new(backend)));
    }
}

impl<E: Export> state::Guest for E {
    fn save() -> Vec<u8> {
        with::<E, _>(|runner| runner.save())
    }

    fn restore(state: Vec<u8>) -> Result<(), String> {
        with::<E, _>(|runner| runner.restore(&state))
    }
}

fn backend(backend: types::Backend) -> Backend {
    Backend {
        id: BackendId::new(backend.id),
        name: backend.name,
        address: backend.address,
        weight: backend.weight,
        state: match backend.state {
            types::BackendState::Up => BackendState::Up,
            types::BackendState::Draining => BackendState::Draining,
            types::BackendState::Down => BackendState::Down,
        },
        labels: backend.labels,
    }
}

fn outcome(outcome: outcomes::Outcome) -> Outcome {
    Outcome {
        backend: BackendId::new(outcome.backend),
        attempt: outcome.attempt,
        ending: match outcome.ending {
            outcomes::Ending::Status(status) => Ending::Status(status),
            outcomes::Ending::Failed(failure) => Ending::Failed(match failure {
                outcomes::Failure::Connect => Failure::Connect,
                outcomes::Failure::Reset => Failure::Reset,
                outcomes::Failure::Timeout => Failure::Timeout,
                outcomes::Failure::Protocol => Failure::Protocol,
                outcomes::Failure::ClientGone => Failure::ClientGone,
                outcomes::Failure::Other => Failure::Other,
            }),
        },
        latency_us: outcome.latency_us,
        bytes: outcome.bytes,
    }
}

// === imports that take more than a re-export ===

pub(crate) fn header(head: Head, name: &str) -> Option<Vec<u8>> {
    match head {
        Head::Request => request::header(name),
        Head::Response => response::header(name),
    }
}

pub(crate) fn headers(head: Head) -> Vec<(String, Vec<u8>)> {
    match head {
        Head::Request => request::headers(),
        Head::Response => response::headers(),
    }
}

pub(crate) fn edit(head: Head, edit: Edit, name: &str, value: &[u8]) -> Result<(), Refusal> {
    match (head, edit) {
        (Head::Request, Edit::Set) => request::set_header(name, value),
        (Head::Request, Edit::Append) => request::append_header(name, value),
        (Head::Request, Edit::Remove) => request::remove_header(name),
        (Head::Response, Edit::Set) => response::set_header(name, value),
        (Head::Response, Edit::Append) => response::append_header(name, value),
        (Head::Response, Edit::Remove) => response::remove_header(name),
    }
}
