//! What the proxy sees of a policy: a request goes in, a decision comes out, and a failure is a value.
//!
//! Neither sockets nor wasmtime are named here. `plugin` implements [`Policy`] with a WebAssembly instance, `rotation`
//! is the host's own; `slot` keeps one instance per shard and upstream and answers when it fails.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::http1::{Fields, Span};
use crate::upstream::{BackendId, Outcome, Upstream};

pub(crate) mod rotation;
pub(crate) mod slot;

/// Decides where a request goes.
pub(crate) trait Policy {
    /// Takes note of the backends and their states.
    fn update(&mut self, upstream: &Arc<Upstream>) -> Result<(), PolicyFailure>;

    /// Decides on one attempt. Edits are left in the exchange; where the call fails they mean nothing.
    fn pick(&mut self, exchange: Exchange) -> (Exchange, Result<Verdict, PolicyFailure>);

    /// What the instance that takes this one's place is to know; `None` where it hands nothing over.
    fn save(&mut self) -> Result<Option<Vec<u8>>, PolicyFailure> {
        Ok(None)
    }

    /// Takes over what [`Policy::save`] returned, before the first `update`. The inner error is the policy's own
    /// refusal; it starts cold.
    fn restore(&mut self, _state: &[u8]) -> Result<Result<(), String>, PolicyFailure> {
        Ok(Err("it has no `state` hook".to_owned()))
    }

    /// Whether [`Policy::observe`] does anything.
    fn wants_outcomes(&self) -> bool {
        false
    }

    /// Hears what became of earlier picks.
    fn observe(&mut self, _outcomes: &[Outcome]) -> Result<(), PolicyFailure> {
        Ok(())
    }

    /// Whether [`Policy::respond`] does anything.
    fn wants_responses(&self) -> bool {
        false
    }

    /// Sees a response head; edits are left in the reply.
    fn respond(&mut self, _backend: BackendId, reply: Reply) -> (Reply, Result<(), PolicyFailure>) {
        (reply, Ok(()))
    }
}

/// A request while it is being decided on.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Sending it twice does no harm.
    pub(crate) repeatable: bool,
    pub(crate) method: Method,
    /// Origin form: path and query. It is in the text of `fields`, as is the next one.
    pub(crate) target: Span,
    /// Empty where the client has named none.
    pub(crate) authority: Span,
    pub(crate) fields: Fields,
    pub(crate) client: IpAddr,
    pub(crate) secure: bool,
    /// 0 for the first pick.
    pub(crate) attempt: u32,
    /// The number of this pick among all of the upstream's.
    pub(crate) ticket: u64,
    /// Backends that were tried and failed.
    pub(crate) tried: Vec<BackendId>,
    pub(crate) request_edits: Vec<Edit>,
    /// For the response that will come.
    pub(crate) response_edits: Vec<Edit>,
}

impl Exchange {
    pub(crate) fn target(&self) -> &str {
        self.fields.str(self.target)
    }

    pub(crate) fn authority(&self) -> &str {
        self.fields.str(self.authority)
    }
}

/// A response head while a policy looks at it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) edits: Vec<Edit>,
}

/// A change to a head, checked when it was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Edit {
    Set(HeaderName, HeaderValue),
    Append(HeaderName, HeaderValue),
    Remove(HeaderName),
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Forward(BackendId),
    Respond(StatusCode),
    Unavailable,
}

/// Why a policy gave no usable answer.
#[derive(Debug)]
pub(crate) enum PolicyFailure {
    /// The guest stopped itself: a panic, `unreachable`, an access out of bounds.
    Trap(String),
    /// It took longer than it may.
    Deadline,
    /// It ran out of stack.
    StackOverflow,
    /// It named a backend that is not there, or not up.
    UnknownBackend(BackendId),
    /// It named a backend that was tried for this request already.
    TriedBackend(BackendId),
    /// It answered with a status that no response can have.
    BadStatus(u16),
    /// A fresh instance could not be made.
    Start(String),
}

impl fmt::Display for PolicyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyFailure::Trap(reason) => write!(f, "trapped: {reason}"),
            PolicyFailure::Deadline => write!(f, "took longer than its deadline"),
            PolicyFailure::StackOverflow => write!(f, "ran out of stack"),
            PolicyFailure::UnknownBackend(id) => write!(
                f,
                "picked backend {}, which is not among those that are up",
                id.0
            ),
            PolicyFailure::TriedBackend(id) => {
                write!(f, "picked backend {}, which was just tried in vain", id.0)
            }
            PolicyFailure::BadStatus(status) => {
                write!(f, "answered with status {status}; 200 to 599 are possible")
            }
            PolicyFailure::Start(reason) => write!(f, "could not be started: {reason}"),
        }
    }
}

impl std::error::Error for PolicyFailure {}

/// Applies edits in their order.
pub(crate) fn apply(edits: Vec<Edit>, fields: &mut Fields) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => {
                fields.set(name.as_str(), value.as_bytes());
            }
            Edit::Append(name, value) => {
                fields.append(name.as_str(), value.as_bytes());
            }
            Edit::Remove(name) => {
                fields.remove(name.as_str());
            }
        }
    }
}

/// Keeps the time of one call in `sample_every` of them; reading the clock twice costs as much as a third of a pick.
#[derive(Debug)]
pub(crate) struct CallTimer(Option<Instant>);

impl CallTimer {
    pub(crate) fn start(call: u64, sample_every: u64) -> CallTimer {
        // Not the very first, which finds everything cold.
        let timed = (call + 1).is_multiple_of(sample_every);
        CallTimer(timed.then(Instant::now))
    }

    /// Nanoseconds since the start, if this call is one of those that are timed.
    pub(crate) fn elapsed_ns(&self) -> Option<u64> {
        self.0
            .map(|start| u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
