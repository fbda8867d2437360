//! Whether bytes are a policy that this host would run: all that loading one finds out, without any traffic.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::{self, PolicySource};
use crate::plugin::{Anatomy, Engine, LoadError, Plugin, doubts};
use crate::upstream::Upstream;

/// Looks at policies, one after the other.
#[derive(Debug)]
pub struct Inspector {
    engine: Engine,
    upstream: Upstream,
}

/// What a policy says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyInfo {
    pub name: String,
    pub version: String,
    /// What it says it keeps to, each in a sentence.
    pub promises: Vec<String>,
    /// SHA-256 of its bytes, in hex.
    pub digest: String,
}

/// All that can be told of a policy.
#[derive(Debug)]
pub struct Examined {
    pub info: PolicyInfo,
    /// Of the bytes it was loaded from.
    pub size: usize,
    /// Checked, wrapped and compiled.
    pub compile_time: Duration,
    /// What it was compiled to.
    pub code_bytes: usize,
    /// What will fail in it though the trial did not reach it, and what to do about that.
    pub doubts: Option<(&'static str, &'static str)>,
    pub trial: Trial,
    pub(crate) anatomy: Anatomy,
}

/// What became of a policy's trial.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trial {
    Passed {
        /// Memory of an instance after the trial.
        memory_bytes: usize,
    },
    /// It cannot do without settings, and none were given. This is what it said.
    NeedsSettings(String),
}

/// Why bytes are no policy, or a broken one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyRefused {
    pub problem: String,
    pub remedy: String,
}

impl fmt::Display for PolicyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  = help: {}", self.problem, self.remedy)
    }
}

impl std::error::Error for PolicyRefused {}

impl From<LoadError> for PolicyRefused {
    fn from(error: LoadError) -> Self {
        PolicyRefused {
            problem: error.message(),
            remedy: error.remedy().to_owned(),
        }
    }
}

impl Inspector {
    /// # Errors
    /// Where this machine cannot run WebAssembly.
    pub fn new() -> anyhow::Result<Inspector> {
        Ok(Inspector {
            engine: Engine::new()?,
            upstream: Upstream::made_up(3),
        })
    }

    /// Compiles a policy, asks it who it is, and tries it with an empty configuration on some made-up backends.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn inspect(&self, bytes: &[u8]) -> Result<PolicyInfo, PolicyRefused> {
        let source = PolicySource::File(PathBuf::new());
        let settings = config::Policy::new("inspected", source);
        let Some(plugin) = Plugin::load(&self.engine, &settings, Some(bytes), None)? else {
            return Err(PolicyRefused::default());
        };
        plugin.probe(&self.upstream)?;
        Ok(PolicyInfo::of(&plugin))
    }

    /// The same for the policy that `settings` name, or for `bytes` in its place, and all else that can be told of it.
    /// One that refuses an empty configuration is not tried: it needs another.
    ///
    /// # Errors
    /// The first thing that is wrong with it. `rotation` is no plugin.
    pub fn examine(
        &self,
        settings: &config::Policy,
        bytes: Option<&[u8]>,
    ) -> Result<Examined, PolicyRefused> {
        // Bytes that are in no file yet need no word on where they are from.
        let refused = |error: LoadError| match bytes {
            Some(_) => PolicyRefused {
                problem: error.problem().to_owned(),
                remedy: error.remedy().to_owned(),
            },
            None => error.into(),
        };
        let start = Instant::now();
        let loaded = Plugin::load(&self.engine, settings, bytes, None).map_err(refused)?;
        let Some(plugin) = loaded else {
            return Err(PolicyRefused {
                problem: format!("{} is the host's own, and no plugin", settings.name),
                remedy: "name another policy".to_owned(),
            });
        };
        let compile_time = start.elapsed();
        let unconfigured = settings
            .config
            .as_object()
            .is_none_or(|table| table.is_empty());
        let trial = match plugin.probe(&self.upstream) {
            Ok(memory_bytes) => Trial::Passed { memory_bytes },
            Err(refused) if refused.key() == "config" && unconfigured => {
                Trial::NeedsSettings(refused.problem().to_owned())
            }
            Err(error) => return Err(refused(error)),
        };
        Ok(Examined {
            info: PolicyInfo::of(&plugin),
            anatomy: Anatomy::of(&plugin.bytes),
            size: plugin.bytes.len(),
            compile_time,
            code_bytes: plugin.code_bytes(),
            doubts: doubts(&plugin.bytes),
            trial,
        })
    }
}

impl PolicyInfo {
    fn of(plugin: &Plugin) -> PolicyInfo {
        PolicyInfo {
            name: plugin.about.name.clone(),
            version: plugin.about.version.clone(),
            promises: plugin.about.promises.clone(),
            digest: plugin.digest.clone(),
        }
    }
}
