//! Runs a policy in ordinary tests, against a simulated host.
//!
//! ```
//! # use waypost_plugin::{Backends, Counter, Pick, Policy, Request};
//! # struct Rotate(Vec<waypost_plugin::BackendId>);
//! # impl Policy for Rotate {
//! #     type Config = ();
//! #     fn configure(_: ()) -> Result<Self, String> { Ok(Rotate(Vec::new())) }
//! #     fn update(&mut self, backends: &Backends) { self.0 = backends.healthy().map(|b| b.id).collect(); }
//! #     fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
//! #         Pick::forward(self.0[Counter::new(0).add(1) as usize % self.0.len()])
//! #     }
//! # }
//! use waypost_plugin::testing::{Harness, TestRequest, backend};
//!
//! // Two shards of one upstream: they share counters, live numbers, clock and randomness.
//! let mut first = Harness::<Rotate>::new("{}");
//! first.set_backends([backend("a"), backend("b").weight(2), backend("c").down()]);
//! let mut second = first.another_shard();
//!
//! let request = TestRequest::get("/");
//! assert_eq!(first.pick(&request).backend(), Some("a"));
//! assert_eq!(second.pick(&request).backend(), Some("b"));
//! ```
//!
//! The policy's code and all that surrounds it run as they do in the sandbox; only the host is a stand-in. It is not
//! there on WebAssembly.

use std::{cell::RefCell, rc::Rc, time::Duration};

use crate::{
    Backend, BackendId, BackendState, COUNTER_SLOTS, Outcome, Pick, Policy,
    runner::Runner,
    simulated::{self, Call, Fields, Live, Upstream},
};

pub use crate::request::{Edit, Head};

/// One instance of a policy in a simulated host: what one shard of a proxy is to it.
///
/// Nothing happens by itself: requests under way, latencies, error rates and the clock stay as they were set.
/// Backends are named by their names. Methods that take a name panic if there is no such backend.
///
/// Hooks are called whether or not `export_policy!` lists them: see to it that it does.
pub struct Harness<P> {
    config: String,
    runner: Runner<P>,
    shared: Shared,
    /// The version of the set of backends that the policy was last told of.
    updated: u64,
    log: Vec<LogLine>,
}

/// What the shards of an upstream share.
#[derive(Clone, Default)]
struct Shared {
    upstream: Rc<RefCell<Upstream>>,
    backends: Rc<RefCell<BackendSet>>,
}

#[derive(Default)]
struct BackendSet {
    list: Vec<Backend>,
    version: u64,
    /// Ids are never used again, as in the host.
    last_id: u64,
}

impl<P> std::fmt::Debug for Harness<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<P: Policy> Harness<P> {
    /// Configures a policy with these settings as JSON (`"{}"` for none), and no backends yet.
    ///
    /// # Panics
    ///
    /// If the policy refuses the settings.
    #[track_caller]
    pub fn new(config: &str) -> Self {
        match Self::try_new(config) {
            Ok(harness) => harness,
            Err(error) => panic!("the policy refused its settings: {error}"),
        }
    }

    /// Configures a policy with these settings as JSON, which it may refuse.
    ///
    /// # Errors
    ///
    /// The sentence that the host would show.
    pub fn try_new(config: &str) -> Result<Self, String> {
        Self::start(config, Shared::default(), None)
    }

    /// Another shard of the same upstream: a new instance with the same settings that shares everything the host
    /// shares.
    ///
    /// # Panics
    ///
    /// If the policy refuses the settings this time.
    #[track_caller]
    pub fn another_shard(&self) -> Self {
        match Self::start(&self.config, self.shared.clone(), None) {
            Ok(harness) => harness,
            Err(error) => panic!("the policy refused its settings on another shard: {error}"),
        }
    }

    /// Replaces the policy as the host does when a new version is loaded: saves, configures the new one, restores,
    /// tells it of the backends. The rest of the upstream stays.
    ///
    /// # Errors
    ///
    /// What the new policy says of its settings, or of the saved state.
    pub fn replaced_by<Q: Policy>(mut self, config: &str) -> Result<Harness<Q>, String> {
        let state = self.save();
        Harness::start(config, self.shared, Some(&state))
    }

    fn start(config: &str, shared: Shared, state: Option<&[u8]>) -> Result<Self, String> {
        let (runner, call) = simulated::enter(&shared.upstream, Call::default(), || {
            let mut runner = Runner::<P>::configure(config)?;
            if let Some(state) = state {
                runner.restore(state)?;
            }
            Ok::<_, String>(runner)
        });
        let mut harness = Harness {
            config: config.into(),
            runner: runner?,
            shared,
            updated: 0,
            log: call.log,
        };
        harness.update(true);
        Ok(harness)
    }

    // === the upstream ===

    /// Replaces the set of backends for all shards. A backend that was there before keeps its id and live numbers; one
    /// that comes back gets a new id. The policy on this shard hears of it at once, on the others before
    /// their next call.
    pub fn set_backends(&mut self, backends: impl IntoIterator<Item = TestBackend>) {
        self.shared.replace(backends.into_iter().collect());
        self.update(false);
    }

    /// The same, for a chain that begins with [`Harness::new`].
    #[must_use]
    pub fn with_backends(mut self, backends: impl IntoIterator<Item = TestBackend>) -> Self {
        self.set_backends(backends);
        self
    }

    /// The id of a backend.
    #[track_caller]
    pub fn id(&self, name: &str) -> BackendId {
        match self
            .shared
            .backends
            .borrow()
            .list
            .iter()
            .find(|backend| backend.name == name)
        {
            Some(backend) => backend.id,
            None => panic!("there is no backend {name:?}"),
        }
    }

    /// Sets the requests under way at a backend.
    #[track_caller]
    pub fn set_in_flight(&self, name: &str, requests: u32) {
        self.change(name, |live| live.in_flight = requests);
    }

    /// One request more under way at a backend: what the host does after a pick.
    #[track_caller]
    pub fn begin(&self, name: &str) {
        self.change(name, |live| live.in_flight += 1);
    }

    /// One request less under way at a backend, or none if there were none.
    #[track_caller]
    pub fn end(&self, name: &str) {
        self.change(name, |live| {
            live.in_flight = live.in_flight.saturating_sub(1)
        });
    }

    /// Sets a backend's average latency in microseconds.
    #[track_caller]
    pub fn set_latency_us(&self, name: &str, latency_us: u32) {
        self.change(name, |live| live.latency_us = latency_us);
    }

    /// Sets a backend's share of failed attempts in parts per million.
    #[track_caller]
    pub fn set_error_ppm(&self, name: &str, error_ppm: u32) {
        self.change(name, |live| live.error_ppm = error_ppm);
    }

    #[track_caller]
    fn change(&self, name: &str, change: impl FnOnce(&mut Live)) {
        let id = self.id(name).number();
        let mut upstream = self.shared.upstream.borrow_mut();
        if let Some(live) = upstream.live.iter_mut().find(|live| live.id == id) {
            change(live);
        }
    }

    // === the host ===

    /// Moves the clock that [`now`](crate::now) reads, which starts at 0.
    pub fn advance(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut upstream = self.shared.upstream.borrow_mut();
        upstream.now_ns = upstream.now_ns.saturating_add(ns);
    }

    /// Starts [`random`](crate::random) anew from this seed; without it the seed is 0.
    pub fn set_seed(&self, seed: u64) {
        self.shared.upstream.borrow_mut().random = seed;
    }

    /// The value of a counter.
    ///
    /// # Panics
    ///
    /// If `slot` is not below [`COUNTER_SLOTS`].
    #[track_caller]
    pub fn counter(&self, slot: u32) -> i64 {
        assert!(slot < COUNTER_SLOTS, "counter slots are 0 to 63");
        self.shared.upstream.borrow().counters[slot as usize]
    }

    /// Sets a counter.
    ///
    /// # Panics
    ///
    /// If `slot` is not below [`COUNTER_SLOTS`].
    #[track_caller]
    pub fn set_counter(&self, slot: u32, value: i64) {
        assert!(slot < COUNTER_SLOTS, "counter slots are 0 to 63");
        self.shared.upstream.borrow_mut().counters[slot as usize] = value;
    }

    /// Sets the number that the next pick has, on whichever shard it is made.
    pub fn set_ticket(&self, ticket: u64) {
        self.shared.upstream.borrow_mut().ticket = ticket;
    }

    /// The log lines that were written outside of `pick` and `respond` since the last time this was called.
    pub fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.log)
    }

    // === the policy ===

    /// The policy itself, to look at its state.
    pub fn policy(&self) -> &P {
        self.runner.policy()
    }

    /// Lets the policy decide on a request.
    ///
    /// # Panics
    ///
    /// If the answer is one that the host would count as a failure of the policy: a backend that is not in the set,
    /// not up or already tried, or a status outside of 200 to 599.
    #[track_caller]
    pub fn pick(&mut self, request: &TestRequest) -> Picked {
        self.update(false);
        let runner = &mut self.runner;
        let ticket = self.shared.draw_ticket();
        let (pick, call) = simulated::enter(&self.shared.upstream, request.call(), || {
            runner.pick(request.attempt(), ticket)
        });
        let backend = match pick {
            Pick::Forward(id) => Some(self.check(id, request)),
            Pick::Respond(status) if !(200..=599).contains(&status) => {
                panic!("the policy answered with status {status}, which is not one of 200 to 599")
            }
            Pick::Respond(_) | Pick::Unavailable => None,
        };
        Picked {
            pick,
            backend,
            heads: Heads::new(&call),
            edits: call.edits,
            log: call.log,
        }
    }

    /// The name of a picked backend, if it may be picked.
    #[track_caller]
    fn check(&self, id: BackendId, request: &TestRequest) -> String {
        let set = self.shared.backends.borrow();
        let Some(backend) = set.list.iter().find(|backend| backend.id == id) else {
            panic!("the policy picked backend {id}, which is not in the set");
        };
        let name = &backend.name;
        assert!(
            backend.state == BackendState::Up,
            "the policy picked backend {name:?}, which is {:?}",
            backend.state
        );
        assert!(
            !request.tried.contains(&id),
            "the policy picked backend {name:?}, which was tried for this request"
        );
        name.clone()
    }

    /// Tells the policy how attempts ended. The hook is called whether or not `export_policy!` lists it.
    pub fn observe(&mut self, outcomes: &[Outcome]) {
        self.update(false);
        self.call(|runner| runner.observe(outcomes));
    }

    /// Shows the policy the response of a backend. The hook is called whether or not `export_policy!` lists it.
    #[track_caller]
    pub fn respond(&mut self, name: &str, response: &TestResponse) -> Responded {
        self.update(false);
        let id = self.id(name);
        let call = response.call();
        let runner = &mut self.runner;
        let ((), call) = simulated::enter(&self.shared.upstream, call, || runner.respond(id));
        Responded {
            heads: Heads::new(&call),
            edits: call.edits,
            log: call.log,
        }
    }

    /// What the policy hands to the instance that replaces it.
    pub fn save(&mut self) -> Vec<u8> {
        self.update(false);
        self.call(|runner| runner.save())
    }

    /// Hands the policy what another instance saved.
    ///
    /// # Errors
    ///
    /// What the policy says of it.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        self.call(|runner| runner.restore(state))
    }

    /// Tells the policy of the backends if they have changed since the last time, or if it was never told.
    fn update(&mut self, first: bool) {
        let (version, list) = {
            let set = self.shared.backends.borrow();
            if set.version == self.updated && !first {
                return;
            }
            (set.version, set.list.clone())
        };
        self.updated = version;
        self.call(|runner| runner.update(list));
    }

    fn call<R>(&mut self, f: impl FnOnce(&mut Runner<P>) -> R) -> R {
        let runner = &mut self.runner;
        let (result, call) = simulated::enter(&self.shared.upstream, Call::default(), || f(runner));
        self.log.extend(call.log);
        result
    }
}

impl Shared {
    fn draw_ticket(&self) -> u64 {
        let mut upstream = self.upstream.borrow_mut();
        let ticket = upstream.ticket;
        upstream.ticket = ticket.wrapping_add(1);
        ticket
    }

    fn replace(&self, specs: Vec<TestBackend>) {
        let mut set = self.backends.borrow_mut();
        let mut list = Vec::with_capacity(specs.len());
        for TestBackend(mut backend) in specs {
            backend.id = match set.list.iter().find(|old| old.name == backend.name) {
                Some(old) => old.id,
                None => {
                    set.last_id += 1;
                    BackendId::new(set.last_id)
                }
            };
            list.push(backend);
        }
        let mut upstream = self.upstream.borrow_mut();
        upstream.live = list
            .iter()
            .map(|backend| {
                let id = backend.id.number();
                let fresh = Live {
                    id,
                    in_flight: 0,
                    latency_us: 0,
                    error_ppm: 0,
                };
                upstream
                    .live
                    .iter()
                    .find(|live| live.id == id)
                    .copied()
                    .unwrap_or(fresh)
            })
            .collect();
        set.list = list;
        set.version += 1;
    }
}

// === what goes in ===

/// A backend for [`Harness::set_backends`]: up, of weight 1, without labels.
pub fn backend(name: &str) -> TestBackend {
    TestBackend(Backend {
        id: BackendId::new(0),
        name: name.into(),
        address: format!("{name}.test:80"),
        weight: 1,
        state: BackendState::Up,
        labels: Vec::new(),
    })
}

/// A backend to be; its id is given by the harness.
#[derive(Clone, Debug)]
pub struct TestBackend(Backend);

impl TestBackend {
    /// Sets its address, which otherwise is made from the name.
    #[must_use]
    pub fn address(mut self, address: &str) -> Self {
        self.0.address = address.into();
        self
    }

    /// Sets its weight.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.0.weight = weight;
        self
    }

    /// Makes it take nothing new.
    #[must_use]
    pub fn draining(mut self) -> Self {
        self.0.state = BackendState::Draining;
        self
    }

    /// Makes it take nothing.
    #[must_use]
    pub fn down(mut self) -> Self {
        self.0.state = BackendState::Down;
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.0.labels.push((name.into(), value.into()));
        self
    }
}

/// A request for [`Harness::pick`].
#[derive(Clone, Debug)]
pub struct TestRequest {
    method: String,
    scheme: String,
    authority: String,
    target: String,
    client_address: String,
    headers: Fields,
    tried: Vec<BackendId>,
}

impl TestRequest {
    /// A request of this method for this path and query, over `http`, to `example.com`, from 192.0.2.1.
    pub fn new(method: &str, target: &str) -> Self {
        TestRequest {
            method: method.into(),
            scheme: "http".into(),
            authority: "example.com".into(),
            target: target.into(),
            client_address: "192.0.2.1".into(),
            headers: Vec::new(),
            tried: Vec::new(),
        }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        TestRequest::new("GET", target)
    }

    /// Sets `http` or `https`.
    #[must_use]
    pub fn scheme(mut self, scheme: &str) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// Sets the host and port that the client names.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = authority.into();
        self
    }

    /// Sets the client's address.
    #[must_use]
    pub fn client_address(mut self, address: &str) -> Self {
        self.client_address = address.into();
        self
    }

    /// Adds a field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Makes this the attempt after those at these backends have failed.
    #[must_use]
    pub fn tried(mut self, backends: impl IntoIterator<Item = BackendId>) -> Self {
        self.tried = backends.into_iter().collect();
        self
    }

    pub(crate) fn attempt(&self) -> u32 {
        u32::try_from(self.tried.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn call(&self) -> Call {
        Call {
            method: self.method.clone(),
            scheme: self.scheme.clone(),
            authority: self.authority.clone(),
            target: self.target.clone(),
            client_address: self.client_address.clone(),
            tried: self.tried.iter().map(|id| id.number()).collect(),
            request: self.headers.clone(),
            ..Call::default()
        }
    }
}

/// A response for [`Harness::respond`].
#[derive(Clone, Debug)]
pub struct TestResponse {
    status: u16,
    headers: Fields,
}

impl TestResponse {
    /// A response of this status without fields.
    pub fn new(status: u16) -> Self {
        TestResponse {
            status,
            headers: Vec::new(),
        }
    }

    /// Adds a field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn call(&self) -> Call {
        Call {
            status: self.status,
            response: self.headers.clone(),
            ..Call::default()
        }
    }
}

// === what comes out ===

/// What a policy decided on a request.
#[derive(Clone, Debug)]
pub struct Picked {
    /// The answer itself.
    pub pick: Pick,
    /// The edits that will be made, in their order. Refused ones are not here but in the log.
    pub edits: Vec<HeaderEdit>,
    /// What the policy logged meanwhile.
    pub log: Vec<LogLine>,
    backend: Option<String>,
    heads: Heads,
}

impl Picked {
    /// The name of the backend that the request goes to, if it goes to one.
    pub fn backend(&self) -> Option<&str> {
        self.backend.as_deref()
    }

    /// The first field of that name in the request as it goes to the backend.
    pub fn request_header(&self, name: &str) -> Option<String> {
        text(&self.heads.request, name)
    }

    /// The first field of that name in the response that the edits add to.
    pub fn response_header(&self, name: &str) -> Option<String> {
        text(&self.heads.response, name)
    }
}

/// What a policy made of a response.
#[derive(Clone, Debug)]
pub struct Responded {
    /// The edits that will be made, in their order. Refused ones are not here but in the log.
    pub edits: Vec<HeaderEdit>,
    /// What the policy logged meanwhile.
    pub log: Vec<LogLine>,
    heads: Heads,
}

impl Responded {
    /// The first field of that name in the response as it goes to the client.
    pub fn response_header(&self, name: &str) -> Option<String> {
        text(&self.heads.response, name)
    }
}

/// An edit of a header field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderEdit {
    /// Of the request or of the response.
    pub head: Head,
    /// What it does.
    pub edit: Edit,
    /// The field's name in lower case.
    pub name: String,
    /// The field's new value; empty for [`Edit::Remove`].
    pub value: Vec<u8>,
}

/// A line in the host's log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
}

/// How much a log line matters; the functions of [`log`](crate::log) by name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// For someone debugging the policy.
    Debug,
    /// Normal work.
    Info,
    /// Someone should look at it.
    Warn,
    /// Something is broken.
    Error,
}

/// Both heads after the edits.
#[derive(Clone, Debug)]
struct Heads {
    request: Fields,
    response: Fields,
}

impl Heads {
    fn new(call: &Call) -> Self {
        Heads {
            request: call.edited(Head::Request),
            response: call.edited(Head::Response),
        }
    }
}

fn text(fields: &Fields, name: &str) -> Option<String> {
    simulated::find(fields, name).map(|value| String::from_utf8_lossy(value).into_owned())
}
