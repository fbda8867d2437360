//! Whether bytes are a policy that this host would run: all that loading one finds out, without any traffic.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{self, PolicySource, Server};
use crate::plugin::{Engine, LoadError, Plugin};
use crate::upstream::{Backend, Upstream};

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
        let servers: Vec<Server> = (1..=3)
            .map(|index| Server::new(format!("backend-{index}:80")))
            .collect();
        let backends = servers
            .iter()
            .map(|server| Arc::new(Backend::new(server.clone(), Vec::new())))
            .collect();
        Ok(Inspector {
            engine: Engine::new()?,
            upstream: Upstream::new(config::Upstream::new("inspected", 0, servers), backends),
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
        Ok(PolicyInfo {
            name: plugin.about.name.clone(),
            version: plugin.about.version.clone(),
            promises: plugin.about.promises.clone(),
            digest: plugin.digest.clone(),
        })
    }
}
