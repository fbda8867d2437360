//! How values of a status look in JSON.

use std::time::Duration;

use serde::ser::{Serialize as _, SerializeMap as _, Serializer};

use crate::config::ServerState;
use crate::upstream::BackendId;

/// With three decimals.
pub(super) fn seconds<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(value.as_millis() as f64 / 1e3)
}

pub(super) fn micros<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(us(*value))
}

pub(super) fn optional_us<S: Serializer>(
    value: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    value.map(us).serialize(to)
}

/// `{"p50": 812, "p99": 4096.5}`
pub(super) fn latency<S: Serializer>(
    value: &Option<[Duration; 2]>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let Some([p50, p99]) = value else {
        return to.serialize_none();
    };
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("p50", &us(*p50))?;
    map.serialize_entry("p99", &us(*p99))?;
    map.end()
}

pub(super) fn id<S: Serializer>(value: &BackendId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(value.0)
}

/// As in a configuration.
pub(super) fn state<S: Serializer>(value: &ServerState, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Microseconds with three decimals.
fn us(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}
