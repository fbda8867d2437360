//! Every default of the configuration, in one place; `config/reference.toml` states the same values and a test compares the two.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

/// The most shards a configuration may ask for, and the most that the default uses.
pub const SHARDS_MAX: usize = 256;

/// One shard per core that this process may use; 1 where the system does not say.
pub fn shards() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(SHARDS_MAX)
}

/// `[[route]] path`: everything.
pub const PATH: &str = "/";
/// `[[route]] upgrades`: tokens that may become a tunnel.
pub const UPGRADES: [&str; 1] = ["websocket"];
/// `[[route]] pass_host`: backends see the client's `Host`.
pub const PASS_HOST: bool = true;

/// `[upstream.NAME] policy`
pub const POLICY: &str = "round-robin";
/// `[upstream.NAME] retries`: one more attempt.
pub const RETRIES: u32 = 1;
/// `[upstream.NAME] max_fails`, nginx's value.
pub const MAX_FAILS: u32 = 1;
/// `[upstream.NAME] fail_timeout`, nginx's value.
pub const FAIL_TIMEOUT: Duration = Duration::from_secs(10);
/// `[upstream.NAME] connect_timeout`: shorter than nginx's 60 s, as a backend that takes seconds to accept is down.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// `[upstream.NAME] response_timeout`, nginx's `proxy_read_timeout`.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// `[upstream.NAME] idle_timeout`, nginx's `proxy_read_timeout`.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// `[upstream.NAME.keepalive] connections`, per backend and shard.
pub const KEEPALIVE_CONNECTIONS: usize = 64;
/// `[upstream.NAME.keepalive] timeout`
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// `weight` of a server.
pub const WEIGHT: u32 = 1;

/// `[policy.NAME] deadline`: some thousand times what a pick takes, and still short beside a request.
pub const DEADLINE: Duration = Duration::from_millis(5);
/// `[policy.NAME.quarantine] failures`
pub const QUARANTINE_FAILURES: u32 = 5;
/// `[policy.NAME.quarantine] window`
pub const QUARANTINE_WINDOW: Duration = Duration::from_secs(10);
/// `[policy.NAME.quarantine] retry`
pub const QUARANTINE_RETRY: Duration = Duration::from_secs(10);
/// `[policy.NAME] memory`, bytes.
pub const MEMORY: usize = 16 * 1024 * 1024;

/// `[timeouts] request_head`
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// `[timeouts] request_body`, nginx's `client_body_timeout`.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// `[timeouts] response`, nginx's `send_timeout`.
pub const RESPONSE_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// `[timeouts] idle`, nginx's `keepalive_timeout`.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// `[limits] request_target`, bytes.
pub const REQUEST_TARGET: usize = 8 * 1024;
/// `[limits] head`, bytes.
pub const HEAD: usize = 64 * 1024;
/// `[limits] fields`
pub const FIELDS: usize = 100;

/// `[shutdown] grace`
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
