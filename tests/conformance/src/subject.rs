//! What the suite is run on: a policy, and a host to run it in that the suite controls.

use std::fmt;

use waypost_plugin::{
    Backend, BackendId, Outcome, Pick,
    testing::{HeaderEdit, LogLine},
};

pub use waypost_plugin::simulation::{Asked, Live};

/// A policy that can be put to the test, on one of the rungs: as native code, or as WebAssembly in the real host.
pub trait Subject {
    /// Who the policy is.
    fn about(&self) -> &About;

    /// A host of one upstream without backends, in which nothing has happened yet.
    fn host(&self) -> Box<dyn Host + '_>;

    /// A host that counts what a call costs and what memory grows by.
    ///
    /// # Errors
    /// Why this subject cannot tell: the cases that want to know do not apply to it.
    fn metered(&self) -> Result<Box<dyn Host + '_>, String>;
}

/// What is known of a policy before it is run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct About {
    /// What it calls itself.
    pub name: String,
    /// The version it says it has.
    pub version: String,
    /// What it vouches for, by the names of the contract.
    pub promises: Vec<String>,
    /// Whether it has the hook `state`; `None` where that cannot be seen, as in native code.
    pub has_state: Option<bool>,
    /// Whether it has the hook `responses`.
    pub has_responses: Option<bool>,
    /// SHA-256 of its bytes in hex; empty for native code.
    pub digest: String,
}

/// One upstream of a proxy, with as many shards as are started.
///
/// The host itself numbers the picks, keeps the counters, and hands over outcomes; all else is as it was set.
pub trait Host {
    /// Replaces the set of backends for all shards. Each shard's policy is told before its next call.
    fn set_backends(&mut self, backends: &[Backend]);

    /// Sets a backend's live numbers.
    fn set_live(&mut self, backend: BackendId, live: Live);

    /// Sets the clock, in nanoseconds.
    fn set_now(&mut self, ns: u64);

    /// Starts the random numbers anew.
    fn set_random(&mut self, seed: u64);

    /// Sets the number of the next pick.
    fn set_ticket(&mut self, ticket: u64);

    /// Starts a shard: configures an instance, and hands it `state` where there is some.
    ///
    /// # Errors
    /// Where the policy refuses its settings, or breaks.
    fn start(&mut self, config: &str, state: Option<&[u8]>) -> Result<Started, Broken>;

    /// Has a shard decide on a request, and returns its verdict as it came.
    ///
    /// # Errors
    /// Where the policy breaks.
    fn pick(&mut self, shard: usize, request: &Request) -> Result<Picked, Broken>;

    /// Has a shard hear how attempts ended.
    ///
    /// # Errors
    /// Where the policy breaks.
    fn observe(&mut self, shard: usize, outcomes: &[Outcome]) -> Result<(), Broken>;

    /// Shows a shard the response of a backend.
    ///
    /// # Errors
    /// Where the policy breaks.
    fn respond(
        &mut self,
        shard: usize,
        backend: BackendId,
        response: &Response,
    ) -> Result<Responded, Broken>;

    /// What a shard's instance hands to the next; `None` where it has no such hook.
    ///
    /// # Errors
    /// Where the policy breaks.
    fn save(&mut self, shard: usize) -> Result<Option<Vec<u8>>, Broken>;

    /// Bytes of memory that a shard's instance has taken, in a [metered](Subject::metered) host.
    fn memory(&mut self, shard: usize) -> Option<usize>;
}

/// A shard that has been started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Started {
    /// Its number, for the other calls.
    pub shard: usize,
    /// Why the state was refused, where it was.
    pub refused: Option<String>,
}

/// How a policy failed a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Broken {
    /// It refused its settings.
    Settings(String),
    /// It took longer than it may.
    Deadline,
    /// It panicked, trapped, or ran out of something.
    Crash(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Settings(reason) => write!(f, "refused its settings: {reason}"),
            Broken::Deadline => f.write_str("took longer than its deadline"),
            Broken::Crash(reason) => write!(f, "broke: {reason}"),
        }
    }
}

impl std::error::Error for Broken {}

/// A request's head. Names of fields are in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port as the client named them.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Field lines in their order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The client's IP address.
    pub client: String,
    /// Where it was tried before, in vain.
    pub tried: Vec<BackendId>,
}

impl Request {
    /// An ordinary GET for this path and query.
    pub fn get(target: &str) -> Self {
        Request {
            method: "GET".into(),
            scheme: "http".into(),
            authority: "example.com".into(),
            target: target.into(),
            fields: vec![("host".into(), b"example.com".to_vec())],
            client: "192.0.2.1".into(),
            tried: Vec::new(),
        }
    }

    /// Adds a field line.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let line = (name.to_ascii_lowercase(), value.as_ref().to_vec());
        self.fields.push(line);
        self
    }

    /// Sets the client's address.
    #[must_use]
    pub fn from(mut self, client: &str) -> Self {
        self.client = client.into();
        self
    }

    /// 0 for the first, 1 after one failed attempt.
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.tried.len()).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = shortened(&self.target);
        write!(f, "{} {target} from {}", self.method, self.client)?;
        for (name, value) in self.fields.iter().filter(|(name, _)| name != "host") {
            let value = String::from_utf8_lossy(value);
            write!(f, ", {}: {}", shortened(name), shortened(&value))?;
        }
        if !self.tried.is_empty() {
            let tried: Vec<String> = self.tried.iter().map(BackendId::to_string).collect();
            write!(f, ", tried {}", tried.join(" "))?;
        }
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    const LENGTH: usize = 60;
    let head: String = text.chars().take(LENGTH).collect();
    match text.chars().nth(LENGTH) {
        Some(_) => format!("{head}... ({} bytes)", text.len()),
        None => head,
    }
}

/// A response's head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Field lines in their order, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Response {
    /// A response of this status without fields.
    pub fn new(status: u16) -> Self {
        Response {
            status,
            fields: Vec::new(),
        }
    }

    /// Adds a field line.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let line = (name.to_ascii_lowercase(), value.as_ref().to_vec());
        self.fields.push(line);
        self
    }
}

/// What came of a pick.
#[derive(Clone, Debug)]
pub struct Picked {
    /// What the policy answered, whether or not it may.
    pub verdict: Pick,
    /// Edits of both heads, in their order.
    pub edits: Vec<HeaderEdit>,
    /// Edits that were refused.
    pub refused: Vec<HeaderEdit>,
    /// What it logged.
    pub log: Vec<LogLine>,
    /// What it asked.
    pub asked: Asked,
    /// Units of fuel it took, in a [metered](Subject::metered) host.
    pub fuel: Option<u64>,
}

impl Picked {
    /// The backend that it picked.
    pub fn backend(&self) -> Option<BackendId> {
        match self.verdict {
            Pick::Forward(backend) => Some(backend),
            Pick::Respond(_) | Pick::Unavailable => None,
        }
    }
}

/// What came of showing a response.
#[derive(Clone, Debug, Default)]
pub struct Responded {
    /// Edits of the response, in their order.
    pub edits: Vec<HeaderEdit>,
    /// Edits that were refused.
    pub refused: Vec<HeaderEdit>,
}
