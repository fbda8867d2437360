//! The configuration as the program uses it: every value checked, every name resolved, every default filled in.
//!
//! `raw` turns TOML into these types and reports every mistake of a file at once; nothing here can be wrong.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::diagnostic::Mistake;

mod address;
mod command_line;
pub mod defaults;
mod diagnostic;
mod fields;
mod finding;
mod json;
mod nearest;
mod network;
mod pattern;
mod raw;
mod units;
mod values;

#[cfg(test)]
mod tests;

pub use self::diagnostic::ConfigError;
pub(crate) use self::finding::{Finding, Step};
pub use self::network::{InvalidNetwork, Network};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Threads that carry traffic, each with its own listeners and pools. At least 1.
    pub shards: usize,
    /// Where clients connect. Never empty.
    pub listeners: Vec<Listener>,
    /// In the order of the file; no two have the same host and path.
    pub routes: Vec<Route>,
    /// In the order of the file.
    pub upstreams: Vec<Upstream>,
    /// Every policy that some upstream uses or `[policy.*]` defines, each once: first those of the file in its order, then the built-in ones.
    pub policies: Vec<Policy>,
    /// Whose forwarding fields are believed.
    pub forwarded: Forwarded,
    /// Towards clients.
    pub timeouts: Timeouts,
    /// Towards clients.
    pub limits: Limits,
    /// How long requests under way may go on after SIGTERM or SIGQUIT.
    pub shutdown_grace: Duration,
    /// Where a running server takes questions and orders.
    pub admin: Admin,
    /// Where compiled policies are kept.
    pub cache: Cache,
}

/// `cache`: where compiled policies are kept, so that the next start need not compile them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Cache {
    /// What `CACHE_DIRECTORY` says, as systemd sets it; or `waypost` in `XDG_CACHE_HOME`; or `~/.cache/waypost`.
    #[default]
    User,
    /// For the user that runs waypost, who makes it if need be. A relative path is relative to the configuration file.
    Directory(PathBuf),
    /// `false`: nowhere.
    Off,
}

/// `[[listen]]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Port 0 leaves the choice to the system.
    pub address: SocketAddr,
}

/// `[[route]]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Which hosts; [`HostPattern::Any`] unless configured.
    pub host: HostPattern,
    /// Begins with `/`; matches itself and everything below it on segment boundaries. Has no slash at its end, except for `/` itself:
    /// `/api/` in a file is the same as `/api`.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Upgrade tokens in lower case that may become a tunnel; `["websocket"]` unless configured.
    pub upgrades: Vec<String>,
    /// Whether the client's `Host` goes on to the backend (the default) or the backend's address takes its place.
    pub pass_host: bool,
}

/// What a route's `host` says, in lower case and without port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// One name, or an IP address as in a `Host` field: IPv6 in brackets.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any host with at least one more label.
    Wildcard(String),
}

/// `[upstream.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Of the characters a-z, 0-9, `-` and `_`, and no two upstreams have the same.
    pub name: String,
    /// Index into [`Config::policies`].
    pub policy: usize,
    /// Never empty; no two have the same address or the same name.
    pub servers: Vec<Server>,
    /// More attempts after one that got no connection, or none that lasted to the first byte of a response; the latter
    /// for idempotent requests without a body only.
    pub retries: u32,
    /// Failed attempts within `fail_timeout` after which a backend is down for `fail_timeout`; 0 never.
    pub max_fails: u32,
    /// See `max_fails`.
    pub fail_timeout: Duration,
    /// Until a connection to a backend stands.
    pub connect_timeout: Duration,
    /// From the request's last byte (or the last progress of its body) to the response head.
    pub response_timeout: Duration,
    /// Without progress of a response body or, in both directions, of a tunnel.
    pub idle_timeout: Duration,
    /// What becomes of connections to backends between requests.
    pub keepalive: Keepalive,
}

/// Idle connections to a backend, per shard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// Idle connections kept per backend and shard; 0 keeps none.
    pub connections: usize,
    /// How long one is kept unused.
    pub timeout: Duration,
}

/// An entry of `servers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The name given, or the address as written.
    pub name: String,
    /// `host:port` as written; a name is resolved when the configuration is applied.
    pub address: String,
    /// Its share beside the others' weights, at most 65535; what 0 means is up to the policy.
    pub weight: u32,
    /// What the operator says about it.
    pub state: ServerState,
    /// For policies, in the order of the file.
    pub labels: Vec<(String, String)>,
}

/// `state` of a server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ServerState {
    /// In use.
    #[default]
    Up,
    /// Finishes what it has, gets nothing new.
    Draining,
    /// Not in use.
    Down,
}

impl std::fmt::Display for ServerState {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ServerState::Up => "up",
            ServerState::Draining => "draining",
            ServerState::Down => "down",
        })
    }
}

/// `[policy.NAME]`, or a built-in one that an upstream names.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Of the characters a-z, 0-9, `-` and `_`, and no two policies have the same.
    pub name: String,
    /// Where its code is.
    pub source: PolicySource,
    /// What its bytes must hash to, in lower-case hex; whatever they are where there is none.
    pub sha256: Option<String>,
    /// The certificate without which it is not run.
    pub certificate: Option<PathBuf>,
    /// What `configure` gets; an empty object where there is no `config` table.
    pub config: serde_json::Value,
    /// What it may use.
    pub limits: PolicyLimits,
    /// What becomes of requests when it fails.
    pub on_failure: OnFailure,
    /// When it is not asked any more.
    pub quarantine: Quarantine,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PolicySource {
    /// One of [`BUILT_IN`], embedded in the binary.
    BuiltIn(&'static str),
    /// `rotation`: the host's own round-robin without weights, no wasm involved. It is what a failed policy falls back to.
    Rotation,
    /// A component or core module; relative paths are relative to the configuration file.
    File(PathBuf),
}

/// The names of the policies embedded as wasm.
pub const BUILT_IN: [&str; 5] = [
    "round-robin",
    "least-conn",
    "consistent-hash",
    "sticky-cookie",
    "header-canary",
];

/// The name of [`PolicySource::Rotation`].
pub const ROTATION: &str = "rotation";

/// When a version of a policy is taken out: the last good version takes its place, or else what `on_failure` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quarantine {
    /// Failed calls within `window`; 0 never.
    pub failures: u32,
    pub window: Duration,
    /// Until it is tried again where no other version can take its place; twice as long after each trial that fails.
    pub retry: Duration,
}

/// What one call of a policy may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PolicyLimits {
    /// For one `pick`, `observe` or `respond`.
    pub deadline: Duration,
    /// Bytes of linear memory of one instance: a multiple of 64 KiB.
    pub memory_max: usize,
}

/// What becomes of a request whose policy failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnFailure {
    /// Rotation over the backends that are up.
    #[default]
    Fallback,
    /// 503.
    Reject,
}

/// `[forwarded]`
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Forwarded {
    /// Peers whose own `X-Forwarded-*` and `X-Real-IP` are believed and added to.
    pub trusted: Vec<Network>,
}

/// `[timeouts]`, towards clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// From the first byte of a request head to its last; then 408.
    pub request_head: Duration,
    /// Between two pieces of a request body; then 408.
    pub request_body: Duration,
    /// Between two pieces of a response that the client takes; then the connection is closed.
    pub response: Duration,
    /// A connection without a request; then closed.
    pub idle: Duration,
}

/// `[limits]`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of the request target; then 414.
    pub request_target: usize,
    /// Bytes of a request or response head; then 431 (or 502 for a response).
    pub head: usize,
    /// Field lines of a head; then 431 (or 502).
    pub fields: usize,
    /// Bytes of a request body; then 413. `None` is no limit.
    pub request_body: Option<u64>,
}

/// `[admin]`: where a running server takes questions and orders. Nowhere unless configured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Admin {
    /// A Unix socket; a relative path is relative to the configuration file.
    pub socket: Option<PathBuf>,
    /// For callers on other machines.
    pub tcp: Option<AdminTcp>,
}

/// `[admin.tcp]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminTcp {
    /// Port 0 leaves the choice to the system.
    pub address: SocketAddr,
    /// Has what every caller must know; a relative path is relative to the configuration file.
    pub token_file: PathBuf,
}

impl Config {
    /// Reads a file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, at once; or that it cannot be read.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        raw::read(path, &read_text(path)?)
    }

    /// Reads the text of a file. `file` need not exist: messages name it as given, and relative paths are relative to its directory.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the text, at once.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        raw::read(file, text)
    }

    /// The configuration of `waypost proxy`: one listener, one upstream, one route that everything takes.
    ///
    /// `from` is the listener's address (`:8080`). Each of `to` is a server's `host:port`, or several with commas between them; `:3000` is a
    /// port of this machine. `policy` is a built-in one (round-robin where it is `None`) or, if it has a `/` in it or ends in `.wasm`, a
    /// file relative to the working directory.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the arguments, at once, by the names of the options.
    pub fn for_proxy(
        from: &str,
        to: &[String],
        policy: Option<&str>,
    ) -> Result<Config, ConfigError> {
        command_line::config(from, to, policy)
    }

    /// Every default, and nothing that does anything yet.
    pub(crate) fn empty() -> Config {
        Config {
            shards: defaults::shards(),
            listeners: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            policies: Vec::new(),
            forwarded: Forwarded::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            shutdown_grace: defaults::SHUTDOWN_GRACE,
            admin: Admin::default(),
            cache: Cache::default(),
        }
    }
}

impl Admin {
    /// Reads the `[admin]` of a file, whatever is wrong with the rest of it: a server that runs is found even where its
    /// configuration has become one that could not start it.
    ///
    /// # Errors
    ///
    /// What is wrong where nothing usable is found; or that the file cannot be read.
    pub fn load(path: &Path) -> Result<Admin, ConfigError> {
        raw::read_admin(path, &read_text(path)?)
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    // One byte more than allowed is enough to see that a file is too large, even if it is endless.
    let mut bytes = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(raw::FILE_MAX as u64 + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(unreadable(path, &error)),
        Ok(length) if length > raw::FILE_MAX => Err(raw::too_large(path)),
        Ok(_) => raw::text_of(path, bytes),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => "let the user that runs waypost read it",
        io::ErrorKind::IsADirectory => "name the file itself",
        _ => "check the path",
    };
    let mistake = Mistake::new(format!("cannot read the configuration: {error}")).help(help);
    ConfigError::new(Some(raw::name_of(path)), "", vec![mistake])
}

impl Route {
    /// A route with every default: WebSocket upgrades, the client's `Host`.
    pub fn new(host: HostPattern, path: &str, upstream: usize) -> Self {
        let upgrades = defaults::UPGRADES.map(str::to_owned).to_vec();
        Route {
            host,
            path: path.to_owned(),
            upstream,
            upgrades,
            pass_host: defaults::PASS_HOST,
        }
    }
}

impl fmt::Display for HostPattern {
    /// As in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl Forwarded {
    /// Whether what this peer says of its own clients is believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

impl Upstream {
    /// An upstream with every default. `policy` is an index into [`Config::policies`].
    pub fn new(name: &str, policy: usize, servers: Vec<Server>) -> Self {
        Upstream {
            name: name.to_owned(),
            policy,
            servers,
            retries: defaults::RETRIES,
            max_fails: defaults::MAX_FAILS,
            fail_timeout: defaults::FAIL_TIMEOUT,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            response_timeout: defaults::RESPONSE_TIMEOUT,
            idle_timeout: defaults::IDLE_TIMEOUT,
            keepalive: Keepalive::default(),
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Keepalive {
            connections: defaults::KEEPALIVE_CONNECTIONS,
            timeout: defaults::KEEPALIVE_TIMEOUT,
        }
    }
}

impl Server {
    /// A server with every default, named by its address.
    pub fn new(address: impl Into<String>) -> Self {
        let address = address.into();
        let (weight, state) = (defaults::WEIGHT, ServerState::default());
        Server {
            name: address.clone(),
            address,
            weight,
            state,
            labels: Vec::new(),
        }
    }
}

impl Policy {
    /// The policy that an argument names: a built-in one or, if it has a `/` in it or ends in `.wasm`, a file.
    ///
    /// # Errors
    ///
    /// Where it is neither.
    pub fn from_argument(text: &str) -> Result<Policy, ConfigError> {
        command_line::policy(text)
    }

    /// A policy with every default and an empty configuration.
    pub fn new(name: &str, source: PolicySource) -> Self {
        let config = serde_json::Value::Object(serde_json::Map::new());
        Policy {
            name: name.to_owned(),
            source,
            sha256: None,
            certificate: None,
            config,
            limits: PolicyLimits::default(),
            on_failure: OnFailure::default(),
            quarantine: Quarantine::default(),
        }
    }

    /// One of [`BUILT_IN`], or [`ROTATION`].
    pub fn built_in(name: &str) -> Option<Self> {
        if name == ROTATION {
            return Some(Policy::new(name, PolicySource::Rotation));
        }
        let name = BUILT_IN.into_iter().find(|built_in| *built_in == name)?;
        Some(Policy::new(name, PolicySource::BuiltIn(name)))
    }
}

impl Default for Quarantine {
    fn default() -> Self {
        Quarantine {
            failures: defaults::QUARANTINE_FAILURES,
            window: defaults::QUARANTINE_WINDOW,
            retry: defaults::QUARANTINE_RETRY,
        }
    }
}

impl Default for PolicyLimits {
    fn default() -> Self {
        PolicyLimits {
            deadline: defaults::DEADLINE,
            memory_max: defaults::MEMORY,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            request_head: defaults::REQUEST_HEAD_TIMEOUT,
            request_body: defaults::REQUEST_BODY_TIMEOUT,
            response: defaults::RESPONSE_WRITE_TIMEOUT,
            idle: defaults::CLIENT_IDLE_TIMEOUT,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_target: defaults::REQUEST_TARGET,
            head: defaults::HEAD,
            fields: defaults::FIELDS,
            request_body: None,
        }
    }
}
