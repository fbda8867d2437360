//! The backends of an upstream: what they are, and how they are doing right now.

use std::{fmt, rc::Rc, slice};

use crate::{abi, request::Attempt};

/// Names a backend for the life of the host's process; never used again for another one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(u64);

impl BackendId {
    /// The id with this number, for instance one that was [saved](crate::Policy::save).
    pub const fn new(number: u64) -> Self {
        BackendId(number)
    }

    /// The number behind the id.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a backend takes requests.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum BackendState {
    /// Takes requests.
    #[default]
    Up,
    /// Finishes what it has and takes nothing new.
    Draining,
    /// Takes nothing.
    Down,
}

/// One backend, as it was at the last [`update`](crate::Policy::update).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// What [`Pick::forward`](crate::Pick::forward) takes.
    pub id: BackendId,
    /// The name given in the configuration, or the address where none was given.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Its share of the traffic relative to the others; 0 means none.
    pub weight: u32,
    /// Whether it takes requests.
    pub state: BackendState,
    /// The labels given in the configuration, in their order.
    pub labels: Vec<(String, String)>,
}

impl Backend {
    /// Whether it takes requests at all: it is up and its weight is not 0.
    pub fn is_healthy(&self) -> bool {
        self.state == BackendState::Up && self.weight > 0
    }

    /// The value of the label of that name, if the backend has it.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The backends of the upstream, in the order of the configuration.
///
/// The set itself is a copy in the policy's own memory: walking it is free of host calls. The live numbers
/// ([`in_flight`](Self::in_flight) and the like) are asked from the host anew each time; they count all shards.
/// A list of them costs one call, whatever its length, and so does a single value: take the list to compare all
/// backends, single values to compare two or three.
#[derive(Debug)]
pub struct Backends {
    list: Vec<Backend>,
    /// Positions in `list`, ordered by id.
    by_id: Vec<(BackendId, usize)>,
    attempt: Rc<Attempt>,
}

impl Backends {
    pub(crate) fn new(attempt: Rc<Attempt>) -> Self {
        Backends {
            list: Vec::new(),
            by_id: Vec::new(),
            attempt,
        }
    }

    pub(crate) fn replace(&mut self, list: Vec<Backend>) {
        self.by_id = list
            .iter()
            .enumerate()
            .map(|(position, backend)| (backend.id, position))
            .collect();
        self.by_id.sort_unstable();
        self.list = list;
    }

    /// All backends, whatever their state and weight.
    pub fn iter(&self) -> slice::Iter<'_, Backend> {
        self.list.iter()
    }

    /// The backends that this request may go to: up, with a weight above 0, and not tried for it before.
    ///
    /// No list is built, and the host is not asked.
    pub fn healthy(&self) -> impl Iterator<Item = &Backend> + Clone {
        let retry = self.attempt.number() > 0;
        self.list.iter().filter(move |backend| {
            backend.is_healthy() && !(retry && self.attempt.was_tried(backend.id))
        })
    }

    /// How many backends there are, whatever their state and weight.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no backend at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The backend with this id, if it is still in the set.
    pub fn get(&self, id: BackendId) -> Option<&Backend> {
        self.list.get(self.position(id)?)
    }

    /// Where the backend with this id stands in [`iter`](Self::iter) and in the lists of live numbers.
    pub fn position(&self, id: BackendId) -> Option<usize> {
        let found = self.by_id.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.by_id.get(found).map(|(_, position)| *position)
    }

    /// Requests under way at each backend, in the order of [`iter`](Self::iter).
    pub fn in_flight(&self) -> Vec<u32> {
        abi::in_flight()
    }

    /// Requests under way at one backend; 0 for an unknown one.
    pub fn in_flight_of(&self, id: BackendId) -> u32 {
        abi::in_flight_of(id.0)
    }

    /// Each backend's moving average of the time to the response head, in microseconds, in the order of
    /// [`iter`](Self::iter); 0 before the first response.
    pub fn latency_us(&self) -> Vec<u32> {
        abi::latency_us()
    }

    /// One backend's moving average of the time to the response head, in microseconds; 0 before the first response and
    /// for an unknown backend.
    pub fn latency_us_of(&self, id: BackendId) -> u32 {
        abi::latency_us_of(id.0)
    }

    /// Each backend's moving share of failed attempts, in parts per million, in the order of [`iter`](Self::iter).
    pub fn error_ppm(&self) -> Vec<u32> {
        abi::error_ppm()
    }

    /// One backend's moving share of failed attempts, in parts per million; 0 for an unknown backend.
    pub fn error_ppm_of(&self, id: BackendId) -> u32 {
        abi::error_ppm_of(id.0)
    }
}

impl<'a> IntoIterator for &'a Backends {
    type Item = &'a Backend;
    type IntoIter = slice::Iter<'a, Backend>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
