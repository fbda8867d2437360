//! What a policy can see and do while it is called: the host's side of the contract's imports.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::bindings::{host, request, response, types, upstream};
use super::deadline::Deadline;
use super::limits::Limits;
use super::stage::{Refused, Stage};
use super::{Admission, LogLimit};
use crate::config;
use crate::headers::{self, EditRefused};
use crate::http1::Fields;
use crate::policy::{Edit, Exchange, Reply};
use crate::upstream::{Backend, BackendId, Upstream};

/// Edits of one call, and the bytes of their names and values.
const EDITS_MAX: usize = 64;
const EDIT_BYTES_MAX: usize = 16 * 1024;
/// A log line is cut here.
const LOG_CHARS_MAX: usize = 512;

/// The data of an instance's store.
pub(super) struct Guest {
    pub(super) limits: Limits,
    /// What the running call is about. Taken in before a call, taken out after it.
    pub(super) call: Call,
    pub(super) deadline: Deadline,
    policy: String,
    /// `None` while a policy is only asked who it is.
    pub(super) upstream: Option<Arc<Upstream>>,
    started: Instant,
    random: u64,
    edit_bytes: usize,
    /// The last thing it logged as an error during this call: the message of a panic, where it panicked.
    pub(super) last_words: Option<String>,
    /// Shared by all instances of the policy: a fresh one after each failure must not start afresh here.
    log_limit: Arc<Mutex<LogLimit>>,
}

/// What a call is about.
pub(super) enum Call {
    /// `configure`, `update`, `observe`: there is no request.
    Nothing,
    Pick(Exchange),
    Respond(Reply),
}

impl Guest {
    pub(super) fn new(
        settings: &config::Policy,
        upstream: Option<Arc<Upstream>>,
        log_limit: Arc<Mutex<LogLimit>>,
        seed: u64,
    ) -> Guest {
        Guest {
            limits: Limits::new(settings.limits.memory_max),
            call: Call::Nothing,
            deadline: Deadline::default(),
            policy: settings.name.clone(),
            upstream,
            started: Instant::now(),
            // The generator below must not start at 0.
            random: seed | 1,
            edit_bytes: 0,
            last_words: None,
            log_limit,
        }
    }

    pub(super) fn begin(&mut self, call: Call) {
        self.edit_bytes = 0;
        self.last_words = None;
        self.call = call;
    }

    pub(super) fn end(&mut self) -> Call {
        std::mem::replace(&mut self.call, Call::Nothing)
    }

    fn exchange(&self) -> Option<&Exchange> {
        match &self.call {
            Call::Pick(exchange) => Some(exchange),
            Call::Nothing | Call::Respond(_) => None,
        }
    }

    fn reply(&self) -> Option<&Reply> {
        match &self.call {
            Call::Respond(reply) => Some(reply),
            Call::Nothing | Call::Pick(_) => None,
        }
    }

    /// Checks an edit and adds it to those of the request or of the response.
    fn edit(
        &mut self,
        side: Side,
        kind: EditKind,
        name: &str,
        value: &[u8],
    ) -> Result<(), types::EditError> {
        let edit = match kind {
            EditKind::Set => headers::set(name, value),
            EditKind::Append => headers::append(name, value),
            EditKind::Remove => headers::remove(name),
        };
        let added = edit
            .map_err(types::EditError::from)
            .and_then(|edit| self.add(side, edit));
        if added.is_err()
            && let Some(stage) = self.stage()
        {
            stage.notes().refused.push(Refused {
                side,
                kind,
                name: name.to_owned(),
                value: value.to_vec(),
            });
        }
        added
    }

    fn add(&mut self, side: Side, edit: Edit) -> Result<(), types::EditError> {
        let bytes = match &edit {
            Edit::Set(name, value) | Edit::Append(name, value) => name.as_str().len() + value.len(),
            Edit::Remove(name) => name.as_str().len(),
        };
        let edits = match (&mut self.call, side) {
            (Call::Pick(exchange), Side::Request) => &mut exchange.request_edits,
            (Call::Pick(exchange), Side::Response) => &mut exchange.response_edits,
            (Call::Respond(reply), Side::Response) => &mut reply.edits,
            (Call::Respond(_), Side::Request) | (Call::Nothing, _) => {
                return Err(types::EditError::Forbidden);
            }
        };
        if edits.len() >= EDITS_MAX || self.edit_bytes + bytes > EDIT_BYTES_MAX {
            return Err(types::EditError::TooMany);
        }
        self.edit_bytes += bytes;
        edits.push(edit);
        Ok(())
    }

    /// Who stands in for the clock, chance and the log, where somebody does.
    fn stage(&self) -> Option<&Stage> {
        self.upstream.as_ref()?.stage.as_deref()
    }

    fn numbers(&self, number: impl Fn(&Backend) -> u32) -> Vec<u32> {
        if let Some(stage) = self.stage() {
            stage.notes().asked_live = true;
        }
        self.upstream
            .iter()
            .flat_map(|upstream| &upstream.backends)
            .map(|backend| number(backend))
            .collect()
    }

    fn number(&self, id: u64, number: impl Fn(&Backend) -> u32) -> u32 {
        if let Some(stage) = self.stage() {
            stage.notes().asked_live = true;
        }
        self.upstream
            .as_ref()
            .and_then(|upstream| upstream.backend(BackendId(id)))
            .map_or(0, |backend| number(backend))
    }
}

/// Which of the two heads an edit is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Request,
    Response,
}

/// What an edit does with a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EditKind {
    Set,
    Append,
    Remove,
}

/// A guest's words as one line of bounded length, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(printable).take(LOG_CHARS_MAX).collect()
}

fn in_flight(backend: &Backend) -> u32 {
    backend.live.in_flight()
}

fn latency_us(backend: &Backend) -> u32 {
    backend.live.latency.average_us()
}

fn error_ppm(backend: &Backend) -> u32 {
    backend.live.latency.error_ppm()
}

fn first_line(fields: &Fields, name: &str) -> Option<Vec<u8>> {
    fields.get(name).map(<[u8]>::to_vec)
}

/// Names in lower case, whatever the sender has written.
fn all_lines(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let name = |name| String::from_utf8_lossy(name).to_ascii_lowercase();
    let lines = fields.iter();
    lines
        .map(|(text, value)| (name(text), value.to_vec()))
        .collect()
}

impl From<EditRefused> for types::EditError {
    fn from(refused: EditRefused) -> Self {
        match refused {
            EditRefused::Forbidden => types::EditError::Forbidden,
            EditRefused::InvalidName => types::EditError::InvalidName,
            EditRefused::InvalidValue => types::EditError::InvalidValue,
        }
    }
}

impl types::Host for Guest {}

impl request::Host for Guest {
    fn method(&mut self) -> String {
        self.exchange()
            .map(|exchange| exchange.method.as_str().to_owned())
            .unwrap_or_default()
    }

    fn scheme(&mut self) -> String {
        let secure = self.exchange().is_some_and(|exchange| exchange.secure);
        if secure { "https" } else { "http" }.to_owned()
    }

    fn authority(&mut self) -> String {
        self.exchange()
            .map(|exchange| exchange.authority().to_owned())
            .unwrap_or_default()
    }

    fn target(&mut self) -> String {
        self.exchange()
            .map(|exchange| exchange.target().to_owned())
            .unwrap_or_default()
    }

    fn header(&mut self, name: String) -> Option<Vec<u8>> {
        if let Some(stage) = self.stage() {
            stage.notes().fields.push(name.to_ascii_lowercase());
        }
        first_line(&self.exchange()?.fields, &name)
    }

    fn headers(&mut self) -> Vec<(String, Vec<u8>)> {
        self.exchange()
            .map(|exchange| all_lines(&exchange.fields))
            .unwrap_or_default()
    }

    fn client_address(&mut self) -> String {
        self.exchange()
            .map(|exchange| exchange.client.to_string())
            .unwrap_or_default()
    }

    fn tried(&mut self) -> Vec<u64> {
        self.exchange()
            .map(|exchange| exchange.tried.iter().map(|id| id.0).collect())
            .unwrap_or_default()
    }

    fn set_header(&mut self, name: String, value: Vec<u8>) -> Result<(), types::EditError> {
        self.edit(Side::Request, EditKind::Set, &name, &value)
    }

    fn append_header(&mut self, name: String, value: Vec<u8>) -> Result<(), types::EditError> {
        self.edit(Side::Request, EditKind::Append, &name, &value)
    }

    fn remove_header(&mut self, name: String) -> Result<(), types::EditError> {
        self.edit(Side::Request, EditKind::Remove, &name, &[])
    }
}

impl response::Host for Guest {
    fn status(&mut self) -> u16 {
        self.reply()
            .map(|reply| reply.status.as_u16())
            .unwrap_or_default()
    }

    fn header(&mut self, name: String) -> Option<Vec<u8>> {
        first_line(&self.reply()?.fields, &name)
    }

    fn headers(&mut self) -> Vec<(String, Vec<u8>)> {
        self.reply()
            .map(|reply| all_lines(&reply.fields))
            .unwrap_or_default()
    }

    fn set_header(&mut self, name: String, value: Vec<u8>) -> Result<(), types::EditError> {
        self.edit(Side::Response, EditKind::Set, &name, &value)
    }

    fn append_header(&mut self, name: String, value: Vec<u8>) -> Result<(), types::EditError> {
        self.edit(Side::Response, EditKind::Append, &name, &value)
    }

    fn remove_header(&mut self, name: String) -> Result<(), types::EditError> {
        self.edit(Side::Response, EditKind::Remove, &name, &[])
    }
}

impl upstream::Host for Guest {
    fn in_flight(&mut self) -> Vec<u32> {
        self.numbers(in_flight)
    }

    fn in_flight_of(&mut self, id: u64) -> u32 {
        self.number(id, in_flight)
    }

    fn latency_us(&mut self) -> Vec<u32> {
        self.numbers(latency_us)
    }

    fn latency_us_of(&mut self, id: u64) -> u32 {
        self.number(id, latency_us)
    }

    fn error_ppm(&mut self) -> Vec<u32> {
        self.numbers(error_ppm)
    }

    fn error_ppm_of(&mut self, id: u64) -> u32 {
        self.number(id, error_ppm)
    }
}

impl host::Host for Guest {
    fn log(&mut self, level: host::Level, message: String) {
        if let host::Level::Error = level {
            self.last_words = Some(one_line(&message));
            // The failure that follows is logged with these words; once is enough.
            if message.starts_with("panicked at ") {
                return;
            }
        }
        if let Some(stage) = self.stage() {
            stage.notes().log.push((level, one_line(&message)));
            return;
        }
        if self
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.is_rehearsal)
        {
            tracing::debug!(policy = self.policy, "in a trial: {}", one_line(&message));
            return;
        }
        let admission = {
            let mut limit = self
                .log_limit
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            limit.admit(Instant::now())
        };
        let Admission::Print { suppressed } = admission else {
            return;
        };
        let message = one_line(&message);
        let upstream = self
            .upstream
            .as_ref()
            .map_or("", |upstream| upstream.settings.name.as_str());
        let policy = self.policy.as_str();
        match level {
            host::Level::Debug => tracing::debug!(policy, upstream, suppressed, "{message}"),
            host::Level::Info => tracing::info!(policy, upstream, suppressed, "{message}"),
            host::Level::Warn => tracing::warn!(policy, upstream, suppressed, "{message}"),
            host::Level::Error => tracing::error!(policy, upstream, suppressed, "{message}"),
        }
    }

    fn now(&mut self) -> u64 {
        if let Some(stage) = self.stage() {
            return stage.now();
        }
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// xorshift64* (Vigna 2016): small, fast, and good enough to spread load; nothing secret depends on it.
    fn random(&mut self) -> u64 {
        if let Some(stage) = self.stage() {
            return stage.random();
        }
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn counter_add(&mut self, slot: u32, delta: i64) -> wasmtime::Result<i64> {
        let Some(upstream) = &self.upstream else {
            return Ok(0);
        };
        upstream.shared.counter_add(slot, delta).ok_or_else(|| {
            wasmtime::format_err!(
                "counter {slot} does not exist; slots are below {}",
                crate::upstream::COUNTERS
            )
        })
    }
}
