//! What the server does to itself: takes in new code from the policies' files, and takes out policies that keep
//! failing.

use std::collections::HashMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Chosen, Control, Fresh, Plan, digest_of_file};
use crate::config::{self, Config, OnFailure, PolicySource};
use crate::plugin::Plugin;
use crate::snapshot::Choice;

/// How often files are looked at. A look at the file itself, and not at events of its directory, sees every way of
/// replacing it (rename, links, writing in place) on every file system.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A file is read when it has not changed for so many looks: whoever writes it has finished.
const STEADY_LOOKS: u32 = 2;
/// A file that does not load is complained about when it has not changed for so many looks: until then it may be half
/// written.
const PATIENT_LOOKS: u32 = 20;
/// The longest time until a policy is tried again.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// A policy that is not asked any more.
#[derive(Clone, Debug)]
pub(super) struct Quarantined {
    version: String,
    digest: String,
    reason: String,
    /// When it is tried again, where no other version took its place.
    retry_at: Option<Instant>,
    /// When it was last tried again.
    tried_at: Option<Instant>,
    /// How often in a row it was taken out.
    times: u32,
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest: String = self.digest.chars().take(12).collect();
        write!(f, "{} ({digest}) taken out: {}", self.version, self.reason)
    }
}

impl Control {
    /// Looks after the policies for as long as the server runs.
    pub(crate) async fn keep(self, mut watch: Watch) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inner.alarm.notified() => self.take_out_failed().await,
                _ = looks.tick() => {
                    self.look_at(&mut watch).await;
                    self.try_again().await;
                }
            }
        }
    }

    /// Takes in new code.
    async fn look_at(&self, watch: &mut Watch) {
        let mut plan = self.inner.plan.lock().await;
        let Some(patience) = watch.changed(&policy_files(&plan.written)) else {
            return;
        };
        let next = plan.clone();
        match self.change(&mut plan, next, Fresh::Files).await {
            Ok(_) => watch.settled(),
            Err(error) if patience == 0 => {
                watch.settled();
                tracing::error!("a policy's file has changed, and the old code stays: {error}");
            }
            // It may be half written; the next look tells.
            Err(_) => {}
        }
    }

    /// Replaces the policies that have failed too often by their last good version, or by what `on_failure` says.
    async fn take_out_failed(&self) {
        let mut plan = self.inner.plan.lock().await;
        let snapshot = self.inner.server.snapshot();
        let mut next = plan.clone();
        for plugin in snapshot
            .plugins
            .iter()
            .flatten()
            .filter(|plugin| plugin.record.is_tripped())
        {
            next.take_out(plugin);
        }
        if let Err(error) = self.change(&mut plan, next, Fresh::Nothing).await {
            tracing::error!("policies that keep failing cannot be replaced: {error}");
        }
    }

    /// Tries policies again whose time has come.
    async fn try_again(&self) {
        let now = Instant::now();
        let mut plan = self.inner.plan.lock().await;
        let is_due = |entry: &Quarantined| entry.retry_at.is_some_and(|at| at <= now);
        let due: Vec<String> = plan
            .quarantined
            .iter()
            .filter(|(_, entry)| is_due(entry))
            .map(|(name, _)| name.clone())
            .collect();
        for policy in due {
            let mut next = plan.clone();
            if let Some(entry) = next.quarantined.get_mut(&policy) {
                entry.retry_at = None;
                entry.tried_at = Some(now);
            }
            next.choices.remove(&policy);
            tracing::info!(policy, "policy is tried again");
            if let Err(error) = self.change(&mut plan, next, Fresh::Nothing).await {
                tracing::warn!(policy, "policy still does not load: {error}");
                let retry = plan.retry_of(&policy);
                if let Some(entry) = plan.quarantined.get_mut(&policy) {
                    entry.back_off(retry);
                }
            }
        }
    }
}

impl Plan {
    fn take_out(&mut self, plugin: &Arc<Plugin>) {
        let policy = &plugin.name;
        // One that has gone well for long begins anew.
        let is_recent =
            |entry: &&Quarantined| entry.tried_at.is_none_or(|at| at.elapsed() < RETRY_MAX);
        let before = self.quarantined.get(policy).filter(is_recent);
        let times = before.map_or(0, |entry| entry.times);
        let mut entry = Quarantined {
            version: plugin.about.version.clone(),
            digest: plugin.digest.clone(),
            reason: plugin.record.reason(),
            retry_at: None,
            tried_at: None,
            times,
        };
        let settings = self.settings_of(policy).cloned();
        let last_good = self.take_last_good(policy, Some(plugin));
        let choice = match last_good {
            Some(version) => {
                tracing::error!(
                    policy,
                    version = version.about.version,
                    "policy {entry}; its last good version takes its place"
                );
                Choice::Earlier(version)
            }
            None => {
                entry.back_off(self.retry_of(policy));
                let instead = match settings.as_ref().map(|settings| settings.on_failure) {
                    Some(OnFailure::Reject) => "its requests are answered with 503",
                    Some(OnFailure::Fallback) | None => "rotation takes its place",
                };
                tracing::error!(policy, "policy {entry}; {instead}");
                Choice::Nothing
            }
        };
        let chosen = Chosen {
            choice,
            file: settings.as_ref().and_then(digest_of_file),
            failed_with: settings,
        };
        self.choices.insert(policy.clone(), chosen);
        self.quarantined.insert(policy.clone(), entry);
    }

    fn settings_of(&self, policy: &str) -> Option<&config::Policy> {
        let mut policies = self.written.policies.iter();
        policies.find(|settings| settings.name == policy)
    }

    fn retry_of(&self, policy: &str) -> Duration {
        let settings = self.settings_of(policy);
        settings.map_or(RETRY_MAX, |settings| settings.quarantine.retry)
    }
}

impl Quarantined {
    /// Twice as long as the last time, within reason.
    fn back_off(&mut self, retry: Duration) {
        let wait = retry
            .saturating_mul(1 << self.times.min(16))
            .min(RETRY_MAX.max(retry));
        self.retry_at = Some(Instant::now() + wait);
        self.times += 1;
    }
}

// === files ===

/// What the policies' files looked like.
pub(crate) struct Watch {
    /// When they were last taken in, or complained about.
    taken: HashMap<PathBuf, Option<Look>>,
    last: HashMap<PathBuf, Option<Look>>,
    steady: u32,
}

/// What tells one content of a path from another, without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Watch {
    /// Begins with what the files look like before they are loaded for the first time.
    pub(crate) fn new(config: &Config) -> Watch {
        let looks = look_at_all(&policy_files(config));
        Watch {
            taken: looks.clone(),
            last: looks,
            steady: 0,
        }
    }

    /// How many more looks a failure is to be borne with, where there is something to take in; `None` where there is
    /// nothing, or somebody is still writing.
    fn changed(&mut self, paths: &[PathBuf]) -> Option<u32> {
        let now = look_at_all(paths);
        self.steady = if now == self.last {
            self.steady.saturating_add(1)
        } else {
            0
        };
        self.last = now;
        let is_new = self.taken != self.last;
        (is_new && self.steady >= STEADY_LOOKS).then(|| PATIENT_LOOKS.saturating_sub(self.steady))
    }

    fn settled(&mut self) {
        self.taken = self.last.clone();
    }
}

fn look_at_all(paths: &[PathBuf]) -> HashMap<PathBuf, Option<Look>> {
    paths
        .iter()
        .map(|path| (path.clone(), look(path)))
        .collect()
}

fn look(path: &Path) -> Option<Look> {
    let of = |metadata: Metadata| Look {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    std::fs::metadata(path).ok().map(of)
}

fn policy_files(config: &Config) -> Vec<PathBuf> {
    let sources = config.policies.iter().map(|policy| &policy.source);
    sources
        .filter_map(|source| match source {
            PolicySource::File(path) => Some(path.clone()),
            PolicySource::BuiltIn(_) | PolicySource::Rotation => None,
        })
        .collect()
}
