//! A proxy in this process, configured by the text that a user would write.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use waypost::Server;
use waypost::config::Config;
use waypost::control::{Control, ControlError, Report};
use waypost::status::{BackendStatus, Status};

use crate::origin::Origin;
use crate::wait::{until, within};

/// A running proxy; it stops when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    server: Server,
    address: SocketAddr,
}

/// `[upstream.app]` with the policy that needs no plugin, these servers and whatever else the test says of it.
pub fn servers(addresses: &[SocketAddr], keys: &str) -> String {
    let list: Vec<String> = addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let policy = match keys.contains("policy") {
        true => "",
        false => "policy = \"rotation\"",
    };
    format!(
        "[upstream.app]\n{policy}\nservers = [{}]\n{keys}\n",
        list.join(", ")
    )
}

/// A configuration, with what it has nothing to say about.
fn parsed(config: &str) -> Config {
    let mut text = config.to_owned();
    if !config.lines().any(|line| line.starts_with("shards")) {
        text.insert_str(0, "shards = 1\n");
    }
    // A test neither finds nor leaves anything on the machine.
    if !config.contains("cache =") {
        text.insert_str(0, "cache = false\n");
    }
    if !config.contains("[[listen]]") {
        text.push_str("\n[[listen]]\naddress = \"127.0.0.1:0\"\n");
    }
    if !config.contains("[[route]]") {
        text.push_str("\n[[route]]\nupstream = \"app\"\n");
    }
    Config::parse(Path::new("test.toml"), &text)
        .unwrap_or_else(|error| panic!("{error}\n--- in\n{text}"))
}

impl Proxy {
    /// Runs a configuration. What a test has nothing to say about is added: one shard, a free port of this machine, a
    /// route for everything to `app`.
    pub async fn start(config: &str) -> Proxy {
        Proxy::run(None, parsed(config)).await
    }

    /// Runs a configuration file as it is; the file can be read again.
    pub async fn start_from(file: &Path) -> Proxy {
        let config = Config::load(file).unwrap_or_else(|error| panic!("{error}"));
        Proxy::run(Some(file.to_owned()), config).await
    }

    async fn run(file: Option<PathBuf>, config: Config) -> Proxy {
        let server = within("the proxy to start", Server::start_from(file, config))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let address = server.addresses()[0];
        Proxy { server, address }
    }

    /// A proxy with every default in front of these, in rotation.
    pub async fn before(origins: &[&Origin]) -> Proxy {
        let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address()).collect();
        Proxy::start(&servers(&addresses, "")).await
    }

    /// What can be done to it while it runs.
    pub fn control(&self) -> Control {
        self.server.control()
    }

    /// Puts another configuration into force; what it does not say is added as in [`Proxy::start`].
    pub async fn try_apply(&self, config: &str) -> Result<Report, ControlError> {
        within("a change to be made", self.control().apply(parsed(config))).await
    }

    /// As [`Proxy::try_apply`], and what it changed.
    pub async fn apply(&self, config: &str) -> Vec<String> {
        let report = self.try_apply(config).await;
        report.unwrap_or_else(|error| panic!("{error}")).changes
    }

    /// Where clients connect; the first where there are several.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn status(&self) -> Status {
        self.server.status()
    }

    /// The numbers of a backend of the first upstream.
    pub fn backend(&self, index: usize) -> BackendStatus {
        self.status().upstreams[0].backends[index].clone()
    }

    /// Waits until the status is as `condition` wants it.
    pub async fn reaches(&self, what: &str, mut condition: impl FnMut(&Status) -> bool) {
        until(what, || condition(&self.status())).await;
    }

    /// See [`Server::shutdown`].
    pub async fn shutdown(&mut self, grace: Duration) -> bool {
        self.server.shutdown(grace).await
    }

    pub fn crash_shard(&self, index: usize) {
        self.server.crash_shard(index);
    }
}
