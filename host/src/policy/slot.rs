//! A shard's policy for one upstream, and what happens when it fails.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::rotation::Rotation;
use super::{Exchange, Policy, PolicyFailure, Reply, Verdict};
use crate::config::OnFailure;
use crate::plugin::Plugin;
use crate::upstream::{BackendId, Outcome, Upstream};

/// Outcomes are handed over in batches of this many, or sooner when the oldest is [`OUTCOME_AGE_MAX`] old.
const OUTCOME_BATCH: usize = 16;
const OUTCOME_AGE_MAX: Duration = Duration::from_millis(5);
/// More than this many waiting means that nothing is being picked; the newest are dropped.
const OUTCOMES_MAX: usize = 1024;

/// What an upstream balances with: shared by all shards, part of the snapshot.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) upstream: Arc<Upstream>,
    /// `None` is `policy = "rotation"`.
    pub(crate) plugin: Option<Arc<Plugin>>,
    rotation: Rotation,
    on_failure: OnFailure,
    complaint: Mutex<Complaint>,
}

/// Policy failures since they were last logged.
#[derive(Debug, Default)]
struct Complaint {
    last: Option<Instant>,
    since: u64,
}

/// One shard's policy for one upstream.
pub(crate) struct Slot {
    pub(crate) balancer: Arc<Balancer>,
    /// `None` before the first pick and after a failure: the next pick makes a fresh one.
    policy: RefCell<Option<Box<dyn Policy>>>,
    /// The membership that the policy was last told.
    membership: Cell<u64>,
    wants_responses: Cell<bool>,
    outcomes: RefCell<Waiting>,
}

/// Outcomes that the policy has not heard of yet.
#[derive(Default)]
struct Waiting {
    wanted: bool,
    batch: Vec<Outcome>,
    oldest: Option<Instant>,
}

impl Balancer {
    pub(crate) fn new(
        upstream: Arc<Upstream>,
        plugin: Option<Arc<Plugin>>,
        on_failure: OnFailure,
    ) -> Balancer {
        Balancer {
            upstream,
            plugin,
            rotation: Rotation::default(),
            on_failure,
            complaint: Mutex::default(),
        }
    }

    /// Counts a failure, and logs it unless one was logged a moment ago.
    fn complain(&self, plugin: &Plugin, hook: &str, failure: &PolicyFailure) {
        /// A policy that fails on every request must not flood the log as well.
        const INTERVAL: Duration = Duration::from_secs(5);
        let total = plugin.stats.note_failure();
        let mut complaint = self
            .complaint
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        complaint.since += 1;
        let now = Instant::now();
        if complaint
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < INTERVAL)
        {
            return;
        }
        let since = std::mem::take(&mut complaint.since);
        complaint.last = Some(now);
        let instead = match self.on_failure {
            OnFailure::Fallback => "rotation over the backends that are up",
            OnFailure::Reject => "503",
        };
        tracing::warn!(
            policy = plugin.name,
            version = plugin.about.version,
            upstream = self.upstream.settings.name,
            hook,
            since,
            total,
            "policy {failure}; answered by {instead}",
        );
    }
}

impl Slot {
    pub(crate) fn new(balancer: Arc<Balancer>) -> Slot {
        Slot {
            balancer,
            policy: RefCell::default(),
            membership: Cell::new(0),
            wants_responses: Cell::new(false),
            outcomes: RefCell::default(),
        }
    }

    /// Decides on one attempt. Always comes to a verdict: a policy that fails is replaced, and its failure answered
    /// as configured, with the request as it came.
    pub(crate) fn pick(&self, mut exchange: Exchange) -> (Exchange, Verdict) {
        exchange.ticket = self.balancer.upstream.shared.draw_ticket();
        let Some(plugin) = &self.balancer.plugin else {
            let verdict = self
                .balancer
                .rotation
                .pick(&self.balancer.upstream, &exchange);
            return (exchange, verdict);
        };
        let mut policy = self.policy.borrow_mut();
        if let Err(failure) = self.prepare(plugin, &mut policy) {
            return self.fail(plugin, "start", &failure, &mut policy, exchange);
        }
        let Some(ready) = policy.as_mut() else {
            return (exchange, Verdict::Unavailable);
        };
        let (exchange, verdict) = ready.pick(exchange);
        match verdict {
            Ok(verdict) => (exchange, verdict),
            Err(failure) => self.fail(plugin, "pick", &failure, &mut policy, exchange),
        }
    }

    /// Sees to it that there is an instance and that it knows the backends and what became of earlier picks.
    fn prepare(
        &self,
        plugin: &Arc<Plugin>,
        policy: &mut Option<Box<dyn Policy>>,
    ) -> Result<(), PolicyFailure> {
        if policy.is_none() {
            let instance = plugin.instantiate(&self.balancer.upstream)?;
            self.wants_responses.set(instance.wants_responses());
            self.outcomes.borrow_mut().wanted = instance.wants_outcomes();
            self.membership.set(0);
            *policy = Some(Box::new(instance));
        }
        let Some(policy) = policy else { return Ok(()) };
        // Read before the states are: a change in between is told again with the next pick.
        let membership = self.balancer.upstream.shared.membership();
        if membership != self.membership.get() {
            policy.update(&self.balancer.upstream)?;
            self.membership.set(membership);
        }
        match self.outcomes.borrow_mut().due() {
            Some(batch) => policy.observe(&batch),
            None => Ok(()),
        }
    }

    fn fail(
        &self,
        plugin: &Plugin,
        hook: &str,
        failure: &PolicyFailure,
        policy: &mut Option<Box<dyn Policy>>,
        mut exchange: Exchange,
    ) -> (Exchange, Verdict) {
        self.balancer.complain(plugin, hook, failure);
        *policy = None;
        exchange.request_edits.clear();
        exchange.response_edits.clear();
        let verdict = match self.balancer.on_failure {
            OnFailure::Fallback => self
                .balancer
                .rotation
                .pick(&self.balancer.upstream, &exchange),
            OnFailure::Reject => Verdict::Unavailable,
        };
        (exchange, verdict)
    }

    /// Whether the policy wants to see response heads.
    pub(crate) fn wants_responses(&self) -> bool {
        self.wants_responses.get()
    }

    /// Shows a response head to the policy; its edits come back with it. A failure changes nothing.
    pub(crate) fn respond(
        &self,
        backend: BackendId,
        status: StatusCode,
        headers: HeaderMap,
    ) -> Reply {
        let reply = Reply {
            status,
            headers,
            edits: Vec::new(),
        };
        let (Some(plugin), mut policy) = (&self.balancer.plugin, self.policy.borrow_mut()) else {
            return reply;
        };
        let Some(ready) = policy.as_mut() else {
            return reply;
        };
        let (mut reply, result) = ready.respond(backend, reply);
        if let Err(failure) = result {
            self.balancer.complain(plugin, "respond", &failure);
            *policy = None;
            reply.edits.clear();
        }
        reply
    }

    /// Keeps an outcome for the policy, if it wants any.
    pub(crate) fn note_outcome(&self, outcome: Outcome) {
        self.outcomes.borrow_mut().push(outcome);
    }
}

impl Waiting {
    fn push(&mut self, outcome: Outcome) {
        if self.wanted && self.batch.len() < OUTCOMES_MAX {
            self.oldest.get_or_insert_with(Instant::now);
            self.batch.push(outcome);
        }
    }

    /// What is to be handed over now.
    fn due(&mut self) -> Option<Vec<Outcome>> {
        let oldest = self.oldest?;
        if self.batch.len() < OUTCOME_BATCH && oldest.elapsed() < OUTCOME_AGE_MAX {
            return None;
        }
        self.oldest = None;
        Some(std::mem::take(&mut self.batch))
    }
}

/// A made-up request with which a policy is tried before it carries traffic.
pub(crate) fn rehearsal(number: u32) -> Exchange {
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::HOST,
        HeaderValue::from_static("trial.invalid"),
    );
    Exchange {
        repeatable: false,
        method: Method::GET,
        target: Uri::from_static("/trial?of=a-policy"),
        authority: HeaderValue::from_static("trial.invalid"),
        headers,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        secure: false,
        attempt: number % 2,
        ticket: 0,
        tried: Vec::new(),
        request_edits: Vec::new(),
        response_edits: Vec::new(),
    }
}
