//! What can be done to a running server: reload its configuration, replace a policy, change a backend.
//!
//! Every change goes one way: it becomes a whole new snapshot, which is built and tried beside the traffic and then
//! published in one step. Changes are made one after the other; one that fails leaves everything as it was.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::{self, Config, ConfigError, PolicySource, ServerState};
use crate::plugin::{self, Engine, Plugin};
use crate::server::{Shared, StartError, lock};
use crate::snapshot::{Choice, Ground, Snapshot};
use crate::status::{Status, SwapStatus};

mod changes;
mod keeper;

use self::keeper::Quarantined;
pub(crate) use self::keeper::Watch;

/// Versions of a policy that are kept to go back to.
const HISTORY_MAX: usize = 4;

/// A handle on a running server, cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    server: Arc<Shared>,
    engine: Engine,
    /// Rung when a policy has failed too often.
    alarm: Arc<Notify>,
    /// Held for the whole of a change, so that changes come one after the other.
    plan: tokio::sync::Mutex<Plan>,
    notes: Mutex<Notes>,
}

/// What the snapshot in force was made from.
#[derive(Clone, Debug)]
struct Plan {
    file: Option<PathBuf>,
    /// As it is written, without the overrides.
    written: Config,
    /// By upstream and backend address; kept over reloads.
    overrides: BTreeMap<(String, String), Override>,
    /// What runs in place of the code that the configuration names, by policy.
    choices: HashMap<String, Chosen>,
    /// Versions that were in force, the latest last, by policy.
    history: HashMap<String, Vec<Arc<Plugin>>>,
    quarantined: HashMap<String, Quarantined>,
}

/// What a person has said about a backend.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Override {
    state: Option<ServerState>,
    weight: Option<u32>,
}

/// A choice, and the code in the file when it was made: new code in the file ends it.
#[derive(Clone, Debug)]
struct Chosen {
    choice: Choice,
    file: Option<String>,
    /// The settings that a quarantined version failed with: other ones may be all it takes.
    failed_with: Option<config::Policy>,
}

/// What a change takes in beside what it is about. What is wrong elsewhere must not be in its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fresh {
    /// What is in the policies' files, and what the names of backends resolve to.
    Everything,
    Files,
    Nothing,
}

/// What `status` tells beside the snapshot.
#[derive(Debug, Default)]
struct Notes {
    swaps: HashMap<String, SwapStatus>,
    quarantines: HashMap<String, String>,
    overrides: HashMap<(String, String), String>,
}

/// What a change has done, a line for each thing that is different now. Empty where nothing is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    pub changes: Vec<String>,
}

/// Why a change was not made. Everything is as it was.
#[derive(Debug)]
pub enum ControlError {
    /// The configuration file cannot be read or is wrong.
    Config(ConfigError),
    /// The configuration is well-formed but cannot come into force.
    Start(StartError),
    /// There is no such policy, upstream or backend; says which and names those that are there.
    Unknown(String),
    /// It cannot be done now; says why and what to do.
    Refused(String),
}

/// What is to be different about a backend, until it is set back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackendChange {
    /// Finish what is under way, take nothing new.
    Drain,
    /// Take nothing.
    Down,
    /// As the configuration says.
    Ready,
    /// Another weight.
    Weight(u32),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::Config(error) => error.fmt(f),
            ControlError::Start(error) => error.fmt(f),
            ControlError::Unknown(what) | ControlError::Refused(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ControlError {}

impl Control {
    pub(crate) fn new(
        server: Arc<Shared>,
        engine: Engine,
        alarm: Arc<Notify>,
        file: Option<PathBuf>,
        written: Config,
    ) -> Control {
        let plan = Plan {
            file,
            written,
            overrides: BTreeMap::new(),
            choices: HashMap::new(),
            history: HashMap::new(),
            quarantined: HashMap::new(),
        };
        let inner = Inner {
            server,
            engine,
            alarm,
            plan: tokio::sync::Mutex::new(plan),
            notes: Mutex::default(),
        };
        Control {
            inner: Arc::new(inner),
        }
    }

    /// What the server is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.inner.server.status();
        let notes = lock(&self.inner.notes);
        for upstream in &mut status.upstreams {
            upstream.policy.last_swap = notes.swaps.get(&upstream.policy.name).cloned();
            upstream.policy.quarantine = notes.quarantines.get(&upstream.policy.name).cloned();
            for backend in &mut upstream.backends {
                let key = (upstream.name.clone(), backend.address.clone());
                backend.overridden = notes.overrides.get(&key).cloned();
            }
        }
        status
    }

    /// Reads the configuration file again and puts it into force, together with new code in the policies' files and
    /// new addresses of backends' names.
    ///
    /// # Errors
    /// Where the file, a policy or a listener is wrong; everything is as it was.
    pub async fn reload(&self) -> Result<Report, ControlError> {
        let mut plan = self.inner.plan.lock().await;
        let mut next = plan.clone();
        if let Some(file) = &plan.file {
            next.written = Config::load(file).map_err(ControlError::Config)?;
        }
        self.change(&mut plan, next, Fresh::Everything).await
    }

    /// Puts a configuration into force.
    ///
    /// # Errors
    /// As [`Control::reload`].
    pub async fn apply(&self, config: Config) -> Result<Report, ControlError> {
        let mut plan = self.inner.plan.lock().await;
        let next = Plan {
            written: config,
            ..plan.clone()
        };
        self.change(&mut plan, next, Fresh::Everything).await
    }

    /// Replaces a policy's code, until its file changes or the process ends.
    ///
    /// # Errors
    /// Where there is no such policy, it is built in, or the code is not accepted.
    pub async fn push(&self, policy: &str, bytes: Vec<u8>) -> Result<Report, ControlError> {
        let mut plan = self.inner.plan.lock().await;
        let settings = own_policy(&plan.written, policy)?;
        let chosen = Chosen {
            choice: Choice::Pushed(bytes.into()),
            file: digest_of_file(settings),
            failed_with: None,
        };
        let mut next = plan.clone();
        next.choices.insert(policy.to_owned(), chosen);
        next.quarantined.remove(policy);
        self.change(&mut plan, next, Fresh::Nothing).await
    }

    /// Goes back to the version of a policy that was in force before.
    ///
    /// # Errors
    /// Where there is no such policy, or no earlier version of it.
    pub async fn rollback(&self, policy: &str) -> Result<Report, ControlError> {
        let mut plan = self.inner.plan.lock().await;
        let settings = own_policy(&plan.written, policy)?;
        let mut next = plan.clone();
        let earlier = next.take_last_good(policy, None).ok_or_else(|| {
            ControlError::Refused(format!(
                "policy {policy} has no earlier version in this process"
            ))
        })?;
        let chosen = Chosen {
            choice: Choice::Earlier(earlier),
            file: digest_of_file(settings),
            failed_with: None,
        };
        next.choices.insert(policy.to_owned(), chosen);
        next.quarantined.remove(policy);
        self.change(&mut plan, next, Fresh::Nothing).await
    }

    /// Changes what a backend takes. Kept over reloads until it is set back.
    ///
    /// # Errors
    /// Where there is no such upstream or backend.
    pub async fn set_backend(
        &self,
        upstream: &str,
        backend: &str,
        change: BackendChange,
    ) -> Result<Report, ControlError> {
        let mut plan = self.inner.plan.lock().await;
        let address = find_backend(&plan.written, upstream, backend)?;
        let mut next = plan.clone();
        let key = (upstream.to_owned(), address);
        let said = next.overrides.entry(key.clone()).or_default();
        match change {
            BackendChange::Drain => said.state = Some(ServerState::Draining),
            BackendChange::Down => said.state = Some(ServerState::Down),
            BackendChange::Weight(weight) => said.weight = Some(weight),
            BackendChange::Ready => {
                next.overrides.remove(&key);
            }
        }
        self.change(&mut plan, next, Fresh::Nothing).await
    }

    /// Builds the snapshot of a plan and puts it into force; the plan with it.
    async fn change(
        &self,
        plan: &mut Plan,
        mut next: Plan,
        fresh: Fresh,
    ) -> Result<Report, ControlError> {
        let started = Instant::now();
        let previous = self.inner.server.snapshot();
        next.forget_overtaken_choices(fresh);
        let mut config = next.effective();
        let asked_shards = std::mem::replace(&mut config.shards, previous.config.shards);
        let ground = Ground {
            engine: self.inner.engine.clone(),
            previous: Some(previous.clone()),
            rereads: fresh != Fresh::Nothing,
            resolves: fresh == Fresh::Everything,
            choices: next
                .choices
                .iter()
                .map(|(name, chosen)| (name.clone(), chosen.choice.clone()))
                .collect(),
            alarm: self.inner.alarm.clone(),
        };
        let snapshot = Snapshot::build(config, ground)
            .await
            .map_err(|error| ControlError::Start(StartError::Build(error)))?;
        let built = started.elapsed();
        let mut report = Report {
            changes: changes::between(&previous, &snapshot),
        };
        if report.changes.is_empty() {
            next.note_for_restart(plan, asked_shards, &previous, &mut report);
            self.take_notes(&next);
            *plan = next;
            return Ok(report);
        }
        let swapped = changes::swapped(&previous, &snapshot);
        let before: Vec<(u64, u64)> = swapped
            .iter()
            .map(|policy| hand_overs(&snapshot, policy))
            .collect();
        // Before the change can be seen: nobody is to see it without what is said of it.
        self.take_notes(&next);
        if let Err(error) = self.inner.server.publish(snapshot).await {
            self.take_notes(plan);
            return Err(ControlError::Start(error));
        }
        let active = started.elapsed();
        next.remember(&previous, &swapped);
        next.note_for_restart(plan, asked_shards, &previous, &mut report);
        self.note_swaps(&swapped, &before, built, active);
        *plan = next;
        for change in &report.changes {
            tracing::info!("changed: {change}");
        }
        Ok(report)
    }

    fn note_swaps(
        &self,
        swapped: &[String],
        before: &[(u64, u64)],
        built: Duration,
        active: Duration,
    ) {
        let snapshot = self.inner.server.snapshot();
        let mut notes = lock(&self.inner.notes);
        for (policy, before) in swapped.iter().zip(before) {
            let after = hand_overs(&snapshot, policy);
            let count = notes.swaps.get(policy).map_or(0, |swap| swap.count) + 1;
            let swap = SwapStatus {
                count,
                built,
                active,
                pause: self.inner.server.longest_pause(),
                handed_over: after.0.saturating_sub(before.0),
                cold: after.1.saturating_sub(before.1),
            };
            notes.swaps.insert(policy.clone(), swap);
        }
    }

    fn take_notes(&self, plan: &Plan) {
        let mut notes = lock(&self.inner.notes);
        notes.quarantines = plan
            .quarantined
            .iter()
            // One that is tried again, and has not failed yet, is not out.
            .filter(|(name, _)| plan.choices.contains_key(*name))
            .map(|(name, entry)| (name.clone(), entry.to_string()))
            .collect();
        notes.overrides = plan
            .overrides
            .iter()
            .map(|(key, said)| (key.clone(), said.to_string()))
            .collect();
    }
}

impl Plan {
    /// The configuration with what was said since.
    fn effective(&self) -> Config {
        let mut config = self.written.clone();
        for upstream in &mut config.upstreams {
            for server in &mut upstream.servers {
                let key = (upstream.name.clone(), server.address.clone());
                if let Some(said) = self.overrides.get(&key) {
                    server.state = said.state.unwrap_or(server.state);
                    server.weight = said.weight.unwrap_or(server.weight);
                }
            }
        }
        config
    }

    /// Ends the choices of policies that something newer is said of: other code in their file, or other settings for
    /// one that had failed.
    fn forget_overtaken_choices(&mut self, fresh: Fresh) {
        let policies = &self.written.policies;
        let quarantined = &mut self.quarantined;
        self.choices.retain(|name, chosen| {
            let settings = policies.iter().find(|policy| policy.name == *name);
            let stays = settings.is_some_and(|settings| {
                let failed_with = chosen.failed_with.as_ref();
                failed_with.is_none_or(|failed| failed == settings)
                    && (fresh == Fresh::Nothing || digest_of_file(settings) == chosen.file)
            });
            if !stays {
                quarantined.remove(name);
            }
            stays
        });
    }

    /// Keeps the versions that were in force before a change.
    fn remember(&mut self, previous: &Snapshot, swapped: &[String]) {
        for policy in swapped {
            let Some(plugin) = previous.plugin(policy) else {
                continue;
            };
            if plugin.record.is_tripped() {
                continue;
            }
            let versions = self.history.entry(policy.clone()).or_default();
            versions.retain(|version| version.digest != plugin.digest);
            versions.push(plugin.clone());
            if versions.len() > HISTORY_MAX {
                versions.remove(0);
            }
        }
    }

    /// The latest earlier version that has not failed, but for this one.
    fn take_last_good(&mut self, policy: &str, but: Option<&Arc<Plugin>>) -> Option<Arc<Plugin>> {
        let versions = self.history.get_mut(policy)?;
        let is_good = |version: &Arc<Plugin>| {
            !version.record.is_tripped() && but.is_none_or(|but| but.digest != version.digest)
        };
        let at = versions.iter().rposition(is_good)?;
        Some(versions.remove(at))
    }

    /// What does not come into force without a restart.
    fn note_for_restart(
        &self,
        before: &Plan,
        shards: usize,
        previous: &Snapshot,
        report: &mut Report,
    ) {
        let now = previous.config.shards;
        if shards != now {
            report.changes.push(format!(
                "shards: {shards} need a restart; there are {now} until then"
            ));
        }
        if self.written.admin != before.written.admin {
            let line = "admin: other settings need a restart; those of the start stay until then";
            report.changes.push(line.to_owned());
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.map(|state| state.to_string());
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        let said: Vec<String> = state.into_iter().chain(weight).collect();
        f.write_str(&said.join(", "))
    }
}

/// Of the instances of the plugin that a policy's name stands for: how many took over state, and how many could not.
fn hand_overs(snapshot: &Snapshot, policy: &str) -> (u64, u64) {
    let plugin = snapshot.plugin(policy);
    plugin.map_or((0, 0), |plugin| plugin.stats.hand_overs())
}

/// A policy whose code can be replaced.
fn own_policy<'a>(config: &'a Config, name: &str) -> Result<&'a config::Policy, ControlError> {
    let own = || {
        config
            .policies
            .iter()
            .filter(|policy| matches!(policy.source, PolicySource::File(_)))
    };
    own().find(|policy| policy.name == name).ok_or_else(|| {
        if config.policies.iter().any(|policy| policy.name == name) {
            return ControlError::Refused(format!(
                "policy {name} comes with waypost; only one with a `file` can be replaced"
            ));
        }
        let names: Vec<&str> = own().map(|policy| policy.name.as_str()).collect();
        let there = if names.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        ControlError::Unknown(format!(
            "there is no [policy.{name}] in the configuration; {there}"
        ))
    })
}

/// The address of a backend that is named by its name or its address.
fn find_backend(config: &Config, upstream: &str, backend: &str) -> Result<String, ControlError> {
    let Some(found) = config
        .upstreams
        .iter()
        .find(|candidate| candidate.name == upstream)
    else {
        let names: Vec<&str> = config
            .upstreams
            .iter()
            .map(|upstream| upstream.name.as_str())
            .collect();
        return Err(ControlError::Unknown(format!(
            "there is no upstream {upstream}; there are {}",
            names.join(", ")
        )));
    };
    let server = found
        .servers
        .iter()
        .find(|server| server.name == backend || server.address == backend);
    server.map(|server| server.address.clone()).ok_or_else(|| {
        let names: Vec<&str> = found
            .servers
            .iter()
            .map(|server| server.name.as_str())
            .collect();
        ControlError::Unknown(format!(
            "upstream {upstream} has no backend {backend}; it has {}",
            names.join(", ")
        ))
    })
}

/// What is in a policy's file now; `None` where it has none, or it cannot be read.
fn digest_of_file(settings: &config::Policy) -> Option<String> {
    match &settings.source {
        PolicySource::File(path) => Some(plugin::digest(&std::fs::read(path).ok()?)),
        PolicySource::BuiltIn(_) | PolicySource::Rotation => None,
    }
}
