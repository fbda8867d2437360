//! The policies that come with the binary, as the core modules its build script made of `plugins/`.

/// The bytes of a built-in policy.
pub(crate) fn policy(name: &str) -> Option<&'static [u8]> {
    match name {
        "round-robin" => Some(include_bytes!(env!("WAYPOST_ROUND_ROBIN"))),
        "least-conn" => Some(include_bytes!(env!("WAYPOST_LEAST_CONN"))),
        "consistent-hash" => Some(include_bytes!(env!("WAYPOST_CONSISTENT_HASH"))),
        "sticky-cookie" => Some(include_bytes!(env!("WAYPOST_STICKY_COOKIE"))),
        "header-canary" => Some(include_bytes!(env!("WAYPOST_HEADER_CANARY"))),
        _ => None,
    }
}
