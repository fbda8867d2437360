//! A shard's policy for one upstream, and what happens when it fails.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem::Discriminant;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use tokio::sync::Notify;

use super::rotation::Rotation;
use super::{Exchange, Policy, PolicyFailure, Reply, Verdict};
use crate::config::OnFailure;
use crate::http1::Fields;
use crate::plugin::Plugin;
use crate::upstream::{BackendId, Outcome, Upstream};

/// Outcomes are handed over in batches of this many, or sooner when the oldest is [`OUTCOME_AGE_MAX`] old.
const OUTCOME_BATCH: usize = 16;
const OUTCOME_AGE_MAX: Duration = Duration::from_millis(5);
/// What one version of a policy may hand to the next.
const STATE_BYTES_MAX: usize = 1024 * 1024;
/// More than this many waiting means that nothing is being picked; the newest are dropped.
const OUTCOMES_MAX: usize = 1024;

/// What an upstream balances with: shared by all shards, part of the snapshot.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) upstream: Arc<Upstream>,
    /// `None` is `policy = "rotation"`, or one that may not be asked any more.
    pub(crate) plugin: Option<Arc<Plugin>>,
    rotation: Rotation,
    on_failure: OnFailure,
    /// Rung when a policy has failed too often.
    alarm: Arc<Notify>,
    complaints: Mutex<HashMap<(&'static str, Discriminant<PolicyFailure>), Complaint>>,
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
    seat: Rc<Seat>,
}

/// An instance and what it knows. A slot's successor takes it over where the policy stays the same, so that the policy
/// keeps its memory when only backends have changed.
#[derive(Default)]
struct Seat {
    /// `None` before the first pick and after a failure: the next pick makes a fresh one.
    policy: RefCell<Option<Box<dyn Policy>>>,
    /// The edition and the membership that the policy was last told.
    told: Cell<(u64, u64)>,
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
        alarm: Arc<Notify>,
    ) -> Balancer {
        Balancer {
            upstream,
            plugin,
            rotation: Rotation::default(),
            on_failure,
            alarm,
            complaints: Mutex::default(),
        }
    }

    /// Whether it balances the same backends by the same policy in the same way.
    pub(crate) fn is_like(&self, other: &Balancer) -> bool {
        let same_plugin = match (&self.plugin, &other.plugin) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        };
        Arc::ptr_eq(&self.upstream, &other.upstream)
            && same_plugin
            && self.on_failure == other.on_failure
    }

    /// Counts a failure, and logs it unless one was logged a moment ago.
    fn complain(&self, plugin: &Plugin, hook: &'static str, failure: &PolicyFailure) {
        /// A policy that fails on every request must not flood the log as well.
        const INTERVAL: Duration = Duration::from_secs(5);
        let total = plugin.stats.note_failure();
        if plugin.record.note_failure(Instant::now(), failure) {
            self.alarm.notify_one();
        }
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // One that fails in two ways is to be heard of both.
        let complaint = complaints
            .entry((hook, std::mem::discriminant(failure)))
            .or_default();
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
            _ if hook == "respond" => "the response goes on as it was",
            OnFailure::Fallback => "answered by rotation over the backends that are up",
            OnFailure::Reject => "answered with 503",
        };
        tracing::warn!(
            policy = plugin.name,
            version = plugin.about.version,
            upstream = self.upstream.settings.name,
            hook,
            since_last_line = since,
            total,
            "policy {failure}; {instead}",
        );
    }
}

impl Slot {
    pub(crate) fn new(balancer: Arc<Balancer>) -> Slot {
        Slot {
            balancer,
            seat: Rc::default(),
        }
    }

    /// The slot that takes this one's place. The same policy goes on with its instance; another version of it starts
    /// from what this one saves. Requests under way keep this slot.
    pub(crate) fn successor(&self, balancer: Arc<Balancer>) -> Slot {
        let same = match (&self.balancer.plugin, &balancer.plugin) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if same {
            return Slot {
                balancer,
                seat: self.seat.clone(),
            };
        }
        let slot = Slot::new(balancer);
        if let Err(reason) = self.hand_over(&slot) {
            slot.start_cold(&reason);
        }
        slot
    }

    /// Hands the state of this slot's instance to a new one in `next`.
    fn hand_over(&self, next: &Slot) -> Result<(), String> {
        let (Some(old), Some(new)) = (&self.balancer.plugin, &next.balancer.plugin) else {
            return Ok(());
        };
        // Another policy never gets what is not its own.
        if old.name != new.name {
            return Ok(());
        }
        let saved = match self.seat.policy.borrow_mut().as_mut() {
            Some(policy) => policy.save(),
            None => return Ok(()),
        };
        let Some(state) = saved.map_err(|failure| format!("the old version's `save` {failure}"))?
        else {
            return Ok(());
        };
        if state.len() > STATE_BYTES_MAX {
            return Err(format!(
                "the old version saved {} bytes; {STATE_BYTES_MAX} are allowed",
                state.len()
            ));
        }
        let mut policy = next.seat.policy.borrow_mut();
        next.start(new, &mut policy)
            .map_err(|failure| failure.to_string())?;
        let restored = match policy.as_mut() {
            Some(policy) => policy.restore(&state),
            None => return Ok(()),
        };
        match restored {
            Ok(Ok(())) => {
                new.stats.note_hand_over();
                Ok(())
            }
            Ok(Err(reason)) => Err(format!("`restore` refused the state: {reason}")),
            Err(failure) => Err(format!("`restore` {failure}")),
        }
    }

    /// Takes note that the policy begins without the state of the one before.
    fn start_cold(&self, reason: &str) {
        // What `restore` has left behind half done is nothing to go on with.
        *self.seat.policy.borrow_mut() = None;
        let Some(plugin) = &self.balancer.plugin else {
            return;
        };
        tracing::warn!(
            policy = plugin.name,
            version = plugin.about.version,
            upstream = self.balancer.upstream.settings.name,
            "policy starts cold: {reason}"
        );
        plugin.stats.note_cold_start();
    }

    /// Decides on one attempt. Always comes to a verdict: a policy that fails is replaced, and its failure answered
    /// as configured, with the request as it came.
    pub(crate) fn pick(&self, mut exchange: Exchange) -> (Exchange, Verdict) {
        exchange.ticket = self.balancer.upstream.shared.draw_ticket();
        let Some(plugin) = &self.balancer.plugin else {
            return self.answer_instead(exchange);
        };
        if plugin.record.is_tripped() {
            return self.answer_instead(exchange);
        }
        let mut policy = self.seat.policy.borrow_mut();
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
            self.start(plugin, policy)?;
        }
        let Some(policy) = policy else { return Ok(()) };
        let upstream = &self.balancer.upstream;
        // Read before the states are: a change in between is told again with the next pick.
        let current = (upstream.edition, upstream.shared.membership());
        if current != self.seat.told.get() {
            policy.update(upstream)?;
            self.seat.told.set(current);
        }
        match self.seat.outcomes.borrow_mut().due() {
            Some(batch) => policy.observe(&batch),
            None => Ok(()),
        }
    }

    /// Makes an instance that knows nothing yet.
    fn start(
        &self,
        plugin: &Arc<Plugin>,
        policy: &mut Option<Box<dyn Policy>>,
    ) -> Result<(), PolicyFailure> {
        let instance = plugin.instantiate(&self.balancer.upstream)?;
        self.seat.wants_responses.set(instance.wants_responses());
        self.seat.outcomes.borrow_mut().wanted = instance.wants_outcomes();
        self.seat.told.set((0, 0));
        *policy = Some(Box::new(instance));
        Ok(())
    }

    fn fail(
        &self,
        plugin: &Plugin,
        hook: &'static str,
        failure: &PolicyFailure,
        policy: &mut Option<Box<dyn Policy>>,
        mut exchange: Exchange,
    ) -> (Exchange, Verdict) {
        self.balancer.complain(plugin, hook, failure);
        *policy = None;
        exchange.request_edits.clear();
        exchange.response_edits.clear();
        self.answer_instead(exchange)
    }

    /// What a request gets whose policy has failed, or may not be asked any more, or is `rotation`.
    fn answer_instead(&self, exchange: Exchange) -> (Exchange, Verdict) {
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
        self.seat.wants_responses.get()
    }

    /// Shows a response head to the policy; its edits come back with it. A failure changes nothing.
    pub(crate) fn respond(&self, backend: BackendId, status: StatusCode, fields: Fields) -> Reply {
        let reply = Reply {
            status,
            fields,
            edits: Vec::new(),
        };
        let (Some(plugin), mut policy) = (&self.balancer.plugin, self.seat.policy.borrow_mut())
        else {
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
        self.seat.outcomes.borrow_mut().push(outcome);
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
    let mut fields = Fields::default();
    let target = fields.add_text(b"/trial?of=a-policy");
    let authority = fields.add_text(b"trial.invalid");
    fields.append_at("host", authority);
    Exchange {
        repeatable: false,
        method: Method::GET,
        target,
        authority,
        fields,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        secure: false,
        attempt: number % 2,
        ticket: 0,
        tried: Vec::new(),
        request_edits: Vec::new(),
        response_edits: Vec::new(),
    }
}
