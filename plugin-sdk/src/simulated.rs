//! The host as native builds see it: one thread's stand-in, which [`crate::testing`] sets up and reads back.

use std::{cell::RefCell, rc::Rc};

use crate::{
    COUNTER_SLOTS, FieldName,
    request::{Edit, Head},
    simulation::Asked,
    testing::{HeaderEdit, LogLine},
};

pub(crate) use crate::testing::Level;

/// As in the contract: at most so many edits in one call.
const EDITS_MAX: usize = 64;

/// As in the contract: at most so many bytes of names and values in one call.
const EDIT_BYTES_MAX: usize = 16 * 1024;

pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// What all shards of an upstream share.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// In the order of the last `update`.
    pub(crate) live: Vec<Live>,
    pub(crate) counters: [i64; COUNTER_SLOTS as usize],
    /// The number of the next pick.
    pub(crate) ticket: u64,
    pub(crate) now_ns: u64,
    pub(crate) random: u64,
}

/// The live numbers of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) id: u64,
    pub(crate) in_flight: u32,
    pub(crate) latency_us: u32,
    pub(crate) error_ppm: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            live: Vec::new(),
            counters: [0; COUNTER_SLOTS as usize],
            ticket: 0,
            now_ns: 0,
            random: 0,
        }
    }
}

/// What one call into a policy may read, and what it leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) target: String,
    pub(crate) client_address: String,
    pub(crate) tried: Vec<u64>,
    pub(crate) request: Fields,
    pub(crate) status: u16,
    pub(crate) response: Fields,
    pub(crate) edits: Vec<HeaderEdit>,
    pub(crate) refused: Vec<HeaderEdit>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) asked: Asked,
}

/// Why an edit was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Forbidden,
    InvalidName,
    InvalidValue,
    TooMany,
}

thread_local! {
    /// The call that is under way. Without one, as in a test that calls the policy's own functions, the host is
    /// there but has nothing to tell.
    static CURRENT: RefCell<(Rc<RefCell<Upstream>>, Call)> = RefCell::default();
}

/// Runs `f` with the given host around it, and returns what the call left behind.
pub(crate) fn enter<R>(
    upstream: &Rc<RefCell<Upstream>>,
    call: Call,
    f: impl FnOnce() -> R,
) -> (R, Call) {
    CURRENT.set((Rc::clone(upstream), call));
    let result = f();
    let (_, call) = CURRENT.take();
    (result, call)
}

fn call<R>(f: impl FnOnce(&mut Call) -> R) -> R {
    CURRENT.with_borrow_mut(|(_, call)| f(call))
}

fn upstream<R>(f: impl FnOnce(&mut Upstream) -> R) -> R {
    CURRENT.with_borrow(|(upstream, _)| f(&mut upstream.borrow_mut()))
}

fn of(id: u64, value: impl Fn(&Live) -> u32) -> u32 {
    call(|call| call.asked.live = true);
    upstream(|upstream| {
        upstream
            .live
            .iter()
            .find(|live| live.id == id)
            .map_or(0, value)
    })
}

fn all(value: impl Fn(&Live) -> u32) -> Vec<u32> {
    call(|call| call.asked.live = true);
    upstream(|upstream| upstream.live.iter().map(value).collect())
}

// === the contract's imports ===

pub(crate) fn method() -> String {
    call(|call| call.method.clone())
}

pub(crate) fn scheme() -> String {
    call(|call| call.scheme.clone())
}

pub(crate) fn authority() -> String {
    call(|call| call.authority.clone())
}

pub(crate) fn target() -> String {
    call(|call| call.target.clone())
}

pub(crate) fn client_address() -> String {
    call(|call| call.client_address.clone())
}

pub(crate) fn tried() -> Vec<u64> {
    call(|call| call.tried.clone())
}

pub(crate) fn status() -> u16 {
    call(|call| call.status)
}

pub(crate) fn header(head: Head, name: &str) -> Option<Vec<u8>> {
    call(|call| {
        if head == Head::Request {
            call.asked.fields.push(name.to_ascii_lowercase());
        }
        find(call.fields(head), name).cloned()
    })
}

pub(crate) fn headers(head: Head) -> Fields {
    call(|call| call.fields(head).clone())
}

pub(crate) fn edit(head: Head, edit: Edit, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let checked = check(head, edit, name, value);
    if checked.is_err() {
        let (name, value) = (name.to_ascii_lowercase(), value.to_vec());
        let refused = HeaderEdit {
            head,
            edit,
            name,
            value,
        };
        call(|call| call.refused.push(refused));
    }
    checked
}

fn check(head: Head, edit: Edit, name: &str, value: &[u8]) -> Result<(), Refusal> {
    let name = name.to_ascii_lowercase();
    let Ok(field) = FieldName::try_from(name.clone()) else {
        return Err(Refusal::InvalidName);
    };
    // `host` may name another host, but there must be one, and only one.
    let keeps_host = name != "host" || matches!(edit, Edit::Set);
    if field.is_hosts_own() || !keeps_host {
        return Err(Refusal::Forbidden);
    }
    let value = value.trim_ascii();
    if !is_field_value(value) || (name == "host" && !is_authority(value)) {
        return Err(Refusal::InvalidValue);
    }
    call(|call| {
        let bytes: usize = call
            .edits
            .iter()
            .map(|edit| edit.name.len() + edit.value.len())
            .sum();
        if call.edits.len() == EDITS_MAX || bytes + name.len() + value.len() > EDIT_BYTES_MAX {
            return Err(Refusal::TooMany);
        }
        call.edits.push(HeaderEdit {
            head,
            edit,
            name,
            value: value.to_vec(),
        });
        Ok(())
    })
}

pub(crate) fn in_flight() -> Vec<u32> {
    all(|live| live.in_flight)
}

pub(crate) fn in_flight_of(id: u64) -> u32 {
    of(id, |live| live.in_flight)
}

pub(crate) fn latency_us() -> Vec<u32> {
    all(|live| live.latency_us)
}

pub(crate) fn latency_us_of(id: u64) -> u32 {
    of(id, |live| live.latency_us)
}

pub(crate) fn error_ppm() -> Vec<u32> {
    all(|live| live.error_ppm)
}

pub(crate) fn error_ppm_of(id: u64) -> u32 {
    of(id, |live| live.error_ppm)
}

pub(crate) fn log(level: Level, message: &str) {
    call(|call| {
        call.log.push(LogLine {
            level,
            message: message.to_owned(),
        })
    });
}

pub(crate) fn now() -> u64 {
    call(|call| call.asked.clock = true);
    upstream(|upstream| upstream.now_ns)
}

/// SplitMix64: a few lines, and any seed will do.
pub(crate) fn random() -> u64 {
    call(|call| call.asked.random = true);
    upstream(|upstream| {
        upstream.random = upstream.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = upstream.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

pub(crate) fn counter_add(slot: u32, delta: i64) -> i64 {
    upstream(|upstream| {
        let counter = &mut upstream.counters[slot as usize];
        let before = *counter;
        *counter = before.wrapping_add(delta);
        before
    })
}

// === header fields ===

impl Call {
    fn fields(&self, head: Head) -> &Fields {
        match head {
            Head::Request => &self.request,
            Head::Response => &self.response,
        }
    }

    /// The fields of a head as they are once the edits are made.
    pub(crate) fn edited(&self, head: Head) -> Fields {
        let mut fields = self.fields(head).clone();
        for HeaderEdit {
            edit, name, value, ..
        } in self.edits.iter().filter(|edit| edit.head == head)
        {
            if *edit != Edit::Append {
                fields.retain(|(other, _)| other != name);
            }
            if *edit != Edit::Remove {
                fields.push((name.clone(), value.clone()));
            }
        }
        fields
    }
}

/// The first field of that name, in any case; the names in `fields` are in lower case.
pub(crate) fn find<'a>(fields: &'a Fields, name: &str) -> Option<&'a Vec<u8>> {
    fields
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// RFC 9110, 5.5: no control characters but the tab.
fn is_field_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// Host and optional port (RFC 3986, 3.2), by its characters alone.
fn is_authority(value: &[u8]) -> bool {
    !value.is_empty()
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same cases as in the host's own tests of what a policy may change.
    #[test]
    fn refuses_the_edits_that_the_host_refuses() {
        let refusal = |kind, name: &str, value: &[u8]| edit(Head::Request, kind, name, value).err();
        for name in [
            "Content-Length",
            "connection",
            "te",
            "via",
            "proxy-anything",
            "forwarded",
        ] {
            for kind in [Edit::Set, Edit::Append, Edit::Remove] {
                assert!(
                    matches!(refusal(kind, name, b"1"), Some(Refusal::Forbidden)),
                    "{name}"
                );
            }
        }
        for value in [&b"a\r\nb: c"[..], b"a\0b", b"\x01", b"\x7f"] {
            assert!(matches!(
                refusal(Edit::Set, "x-a", value),
                Some(Refusal::InvalidValue)
            ));
        }
        for name in ["", "x a", "x:a", "x\r\na", "\u{fc}"] {
            assert!(
                matches!(refusal(Edit::Set, name, b"1"), Some(Refusal::InvalidName)),
                "{name:?}"
            );
        }
        assert!(refusal(Edit::Set, "host", b"internal.example:81").is_none());
        assert!(matches!(
            refusal(Edit::Set, "host", b"a@b"),
            Some(Refusal::InvalidValue)
        ));
        assert!(matches!(
            refusal(Edit::Remove, "host", b""),
            Some(Refusal::Forbidden)
        ));
        assert!(refusal(Edit::Set, "x-a", b" \xff\t ").is_none());
        assert!(matches!(
            refusal(Edit::Set, "x-a", &[b'a'; EDIT_BYTES_MAX]),
            Some(Refusal::TooMany)
        ));
    }
}
