//! How an attempt to forward a request ended.

use crate::BackendId;

/// How one attempt ended, as [`Policy::observe`](crate::Policy::observe) hears of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The backend that was picked.
    pub backend: BackendId,
    /// 0 for the first attempt of a request.
    pub attempt: u32,
    /// With a response, or without.
    pub ending: Ending,
    /// Microseconds from the pick to the response head, or to the failure.
    pub latency_us: u64,
    /// Bytes of body received from the backend.
    pub bytes: u64,
}

/// Whether an attempt brought a response.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ending {
    /// A response with this status.
    Status(u16),
    /// No response.
    Failed(Failure),
}

/// Why an attempt brought no response.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Failure {
    /// No connection to the backend.
    Connect,
    /// The backend closed the connection.
    Reset,
    /// The response did not come in time.
    Timeout,
    /// What the backend sent is not HTTP.
    Protocol,
    /// The client left first: says nothing about the backend.
    ClientGone,
    /// Anything else.
    Other,
}
