//! A simulated host for tools that judge policies, such as the conformance suite. Tests want [`testing`] instead.
//!
//! Nothing is checked, nothing happens by itself, and everything that a policy asks and does is written down.
//!
//! [`testing`]: crate::testing

use std::{cell::RefCell, rc::Rc};

use crate::{
    Backend, BackendId, Outcome, Pick, Policy,
    runner::Runner,
    simulated::{self, Call, Upstream},
    testing::{HeaderEdit, LogLine, TestRequest, TestResponse},
};

/// What the shards of one upstream share; clones share it too.
#[derive(Clone, Debug, Default)]
pub struct Simulation(Rc<RefCell<Upstream>>);

/// The live numbers of a backend.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Live {
    /// Requests under way.
    pub in_flight: u32,
    /// Average time to the response head in microseconds; 0 before the first.
    pub latency_us: u32,
    /// Share of failed attempts in parts per million.
    pub error_ppm: u32,
}

/// One instance of a policy.
pub struct Shard<P> {
    simulation: Simulation,
    runner: Runner<P>,
}

/// What a policy did during a call.
#[derive(Clone, Debug, Default)]
pub struct Doings {
    /// Edits that will be made, in their order.
    pub edits: Vec<HeaderEdit>,
    /// Edits that it tried and may not make.
    pub refused: Vec<HeaderEdit>,
    /// What it logged, the warnings about refused edits included.
    pub log: Vec<LogLine>,
    /// What it wanted to know.
    pub asked: Asked,
}

/// What a policy asked of the host during a call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// Request fields it asked for by name, in lower case.
    pub fields: Vec<String>,
    /// Any live number of a backend.
    pub live: bool,
    /// A random number.
    pub random: bool,
    /// The time.
    pub clock: bool,
}

impl Simulation {
    /// An upstream without backends, at time 0, with all counters at 0.
    pub fn new() -> Self {
        Simulation::default()
    }

    /// Sets the live numbers of all backends, in the order of the last [`Shard::update`].
    pub fn set_all_live(&self, live: impl IntoIterator<Item = (BackendId, Live)>) {
        self.0.borrow_mut().live = live
            .into_iter()
            .map(|(id, live)| simulated::Live {
                id: id.number(),
                in_flight: live.in_flight,
                latency_us: live.latency_us,
                error_ppm: live.error_ppm,
            })
            .collect();
    }

    /// Sets the live numbers of one backend, the one at this position.
    pub fn set_live(&self, position: usize, live: Live) {
        if let Some(known) = self.0.borrow_mut().live.get_mut(position) {
            known.in_flight = live.in_flight;
            known.latency_us = live.latency_us;
            known.error_ppm = live.error_ppm;
        }
    }

    /// Sets the clock.
    pub fn set_now(&self, ns: u64) {
        self.0.borrow_mut().now_ns = ns;
    }

    /// Starts the random numbers anew.
    pub fn set_random(&self, seed: u64) {
        self.0.borrow_mut().random = seed;
    }

    fn enter<R>(&self, call: Call, f: impl FnOnce() -> R) -> (R, Doings) {
        let (result, call) = simulated::enter(&self.0, call, f);
        let doings = Doings {
            edits: call.edits,
            refused: call.refused,
            log: call.log,
            asked: call.asked,
        };
        (result, doings)
    }
}

impl<P> std::fmt::Debug for Shard<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").finish_non_exhaustive()
    }
}

impl<P: Policy> Shard<P> {
    /// Makes a configured instance that knows of no backends yet.
    ///
    /// # Errors
    ///
    /// What the policy says against its settings.
    pub fn configure(simulation: &Simulation, config: &str) -> Result<Self, String> {
        let (runner, _) = simulation.enter(Call::default(), || Runner::configure(config));
        Ok(Shard {
            simulation: simulation.clone(),
            runner: runner?,
        })
    }

    /// Calls the policy's `update`.
    pub fn update(&mut self, backends: Vec<Backend>) -> Doings {
        self.call(|runner| runner.update(backends)).1
    }

    /// Calls the policy's `pick` with this ticket.
    pub fn pick(&mut self, request: &TestRequest, ticket: u64) -> (Pick, Doings) {
        let runner = &mut self.runner;
        self.simulation
            .enter(request.call(), || runner.pick(request.attempt(), ticket))
    }

    /// Calls the policy's `observe`.
    pub fn observe(&mut self, outcomes: &[Outcome]) -> Doings {
        self.call(|runner| runner.observe(outcomes)).1
    }

    /// Calls the policy's `respond`.
    pub fn respond(&mut self, backend: BackendId, response: &TestResponse) -> Doings {
        let runner = &mut self.runner;
        let entered = self
            .simulation
            .enter(response.call(), || runner.respond(backend));
        entered.1
    }

    /// Calls the policy's `save`.
    pub fn save(&mut self) -> Vec<u8> {
        self.call(|runner| runner.save()).0
    }

    /// Calls the policy's `restore`.
    ///
    /// # Errors
    ///
    /// What the policy says against the state.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.call(|runner| runner.restore(state)).0
    }

    fn call<R>(&mut self, f: impl FnOnce(&mut Runner<P>) -> R) -> (R, Doings) {
        let runner = &mut self.runner;
        self.simulation.enter(Call::default(), || f(runner))
    }
}
