//! The proxies that are compared, how each is configured and started. Their configurations are in `peers/`.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::machine;

/// Idle connections to origins that a proxy keeps at most.
pub(crate) const POOL: usize = 1024;
/// Until a proxy that is told to stop is made to.
const STOP: Duration = Duration::from_secs(2);

/// A kind of proxy, with what it does beside forwarding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    Relay,
    Waypost(Policy),
    Nginx,
    NginxLua,
    Haproxy,
    HaproxyLua,
    Envoy,
    EnvoyWasm,
    Pingora,
}

/// Who picks a server in Waypost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Policy {
    Rotation,
    RoundRobin,
    LeastConn,
    /// Reads three fields, sets two, and takes turns.
    Edits,
}

impl Peer {
    pub(crate) const ALL: [(&'static str, Peer); 12] = [
        ("waypost", Peer::Waypost(Policy::RoundRobin)),
        ("waypost-rotation", Peer::Waypost(Policy::Rotation)),
        ("waypost-least-conn", Peer::Waypost(Policy::LeastConn)),
        ("waypost-edits", Peer::Waypost(Policy::Edits)),
        ("relay", Peer::Relay),
        ("nginx", Peer::Nginx),
        ("nginx-lua", Peer::NginxLua),
        ("haproxy", Peer::Haproxy),
        ("haproxy-lua", Peer::HaproxyLua),
        ("envoy", Peer::Envoy),
        ("envoy-wasm", Peer::EnvoyWasm),
        ("pingora", Peer::Pingora),
    ];

    pub(crate) fn name(self) -> &'static str {
        let found = Peer::ALL.into_iter().find(|(_, peer)| *peer == self);
        found.map_or("", |(name, _)| name)
    }

    pub(crate) fn named(name: &str) -> Option<Peer> {
        let found = Peer::ALL.into_iter().find(|(this, _)| *this == name);
        found.map(|(_, peer)| peer)
    }

    /// The request fields that this peer has to add or keep, so that all do the same work.
    pub(crate) fn duties(self) -> Vec<&'static str> {
        const FORWARDING: [&str; 6] = [
            "host",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-real-ip",
            "via",
        ];
        const EDITS: [&str; 2] = ["x-route", "x-client"];
        match self {
            Peer::Relay => vec!["host"],
            _ if self.edits() => [&FORWARDING[..], &EDITS].concat(),
            _ => FORWARDING.to_vec(),
        }
    }

    fn edits(self) -> bool {
        matches!(
            self,
            Peer::Waypost(Policy::Edits) | Peer::NginxLua | Peer::HaproxyLua | Peer::EnvoyWasm
        )
    }
}

/// What a proxy has to know.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) origins: u16,
    pub(crate) backends: usize,
    /// Hosts beside the one that requests name, each with a route of its own.
    pub(crate) routes: usize,
}

/// Where the programs and modules are that are not part of a peer's own configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    pub(crate) waypost: PathBuf,
    pub(crate) pingora: PathBuf,
    /// The policy for Waypost, as WebAssembly.
    pub(crate) policy: PathBuf,
    /// The filter for Envoy, as WebAssembly.
    pub(crate) filter: PathBuf,
}

/// A proxy that is running. Dropping it stops it.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
    child: Child,
    directory: TempDir,
}

impl Peer {
    /// Starts this proxy on the CPU for proxies. It listens before long, not necessarily at once.
    pub(crate) fn start(self, setup: &Setup, programs: &Programs) -> anyhow::Result<Running> {
        let directory = TempDir::with_prefix("waypost-bench-")?;
        let address = free_address()?;
        let place = Place {
            setup,
            directory: directory.path(),
            address,
        };
        let mut command = self.command(&place, programs)?;
        let log = fs::File::create(directory.path().join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // The process inherits the CPU of the thread that starts it.
        machine::bind(machine::PROXY_CPU)?;
        let started = Instant::now();
        let child = command.spawn();
        machine::bind(machine::LOAD_CPU)?;
        Ok(Running {
            address,
            started,
            child: child.with_context(|| format!("cannot start {:?}", command.get_program()))?,
            directory,
        })
    }

    fn command(self, place: &Place<'_>, programs: &Programs) -> anyhow::Result<Command> {
        match self {
            Peer::Relay => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("relay");
                Ok(place.address_all(command))
            }
            Peer::Waypost(policy) => place.waypost(policy, programs),
            Peer::Nginx => place.nginx(include_str!("../peers/nginx.conf")),
            Peer::NginxLua => place.nginx(include_str!("../peers/nginx-lua.conf")),
            Peer::Haproxy => place.haproxy(None),
            Peer::HaproxyLua => place.haproxy(Some(include_str!("../peers/haproxy.lua"))),
            Peer::Envoy => place.envoy(""),
            Peer::EnvoyWasm => {
                let module = programs.filter.display().to_string();
                let filter = include_str!("../peers/envoy-wasm.yaml").replace("@FILE@", &module);
                place.envoy(filter.trim_end())
            }
            Peer::Pingora => Ok(place.address_all(Command::new(&programs.pingora))),
        }
    }

    /// What this peer says its version is; an error if it is not there.
    pub(crate) fn version(self, programs: &Programs) -> anyhow::Result<String> {
        let (mut command, word) = match self {
            Peer::Relay => return Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Peer::Waypost(_) => (Command::new(&programs.waypost), "waypost "),
            Peer::Nginx | Peer::NginxLua => (Command::new("nginx"), "nginx/"),
            Peer::Haproxy | Peer::HaproxyLua => (Command::new("haproxy"), "version "),
            Peer::Envoy | Peer::EnvoyWasm => (Command::new("envoy"), "version: "),
            Peer::Pingora => (Command::new(&programs.pingora), "pingora "),
        };
        command.arg(match self {
            Peer::Nginx | Peer::NginxLua | Peer::Haproxy | Peer::HaproxyLua => "-v",
            _ => "--version",
        });
        let output = command
            .output()
            .with_context(|| format!("{:?}", command.get_program()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        anyhow::ensure!(
            output.status.success(),
            "{:?} --version fails",
            command.get_program()
        );
        Ok(version_after(word, &text).to_owned())
    }
}

impl Policy {
    fn setting(self) -> &'static str {
        match self {
            Policy::Rotation => "rotation",
            Policy::RoundRobin => "round-robin",
            Policy::LeastConn => "least-conn",
            Policy::Edits => "edits",
        }
    }
}

/// Where a proxy is to run.
struct Place<'a> {
    setup: &'a Setup,
    directory: &'a Path,
    address: SocketAddr,
}

impl Place<'_> {
    /// Adds the address to listen at and those of the servers.
    fn address_all(&self, mut command: Command) -> Command {
        command.arg(self.address.to_string());
        command.args(self.setup.servers().map(|server| server.to_string()));
        command
    }

    fn waypost(&self, policy: Policy, programs: &Programs) -> anyhow::Result<Command> {
        let template = include_str!("../peers/waypost.toml");
        // What is loaded counts, also if nobody uses it.
        let template = match policy {
            Policy::Edits => template,
            _ => template.split("# edits only").next().unwrap_or_default(),
        };
        let route = |host| format!("[[route]]\nhost = \"{host}\"\nupstream = \"app\"\n");
        let text = template
            .replace("@POLICY@", policy.setting())
            .replace("@FILE@", &programs.policy.display().to_string())
            .replace(
                "@SERVERS@",
                &self.setup.lines(|server| format!("    \"{server}\",")),
            )
            .replace("@ROUTES@", &self.setup.hosts(route));
        let mut command = Command::new(&programs.waypost);
        command.arg("run").arg(self.write("waypost.toml", &text)?);
        Ok(command)
    }

    fn nginx(&self, template: &str) -> anyhow::Result<Command> {
        let server = |server| format!("        server {server};");
        let peer = |server: SocketAddr| {
            format!("            {{ \"{}\", {} }},", server.ip(), server.port())
        };
        let route = |host| {
            format!(
                "    server {{ listen @LISTEN@; server_name {host}; \
                 location / {{ proxy_pass http://app; }} }}"
            )
        };
        // Its worker would be somebody who may not write here.
        let root = rustix::process::geteuid().is_root();
        let text = template
            .replace("@USER@", if root { "user root;" } else { "" })
            .replace("@SERVERS@", &self.setup.lines(server))
            .replace("@PEERS@", &self.setup.lines(peer))
            .replace("@ROUTES@", &self.setup.hosts(route));
        let mut command = Command::new("nginx");
        command
            .arg("-e")
            .arg("stderr")
            .arg("-p")
            .arg(self.directory);
        command.arg("-c").arg(self.write("nginx.conf", &text)?);
        Ok(command)
    }

    fn haproxy(&self, script: Option<&str>) -> anyhow::Result<Command> {
        let (mut load, mut action) = (String::new(), "");
        if let Some(script) = script {
            let script = self.write("edits.lua", script)?;
            load = format!("    lua-load-per-thread {}", script.display());
            action = "    http-request lua.edits";
        }
        let mut number = 0;
        let servers = self.setup.lines(|server| {
            number += 1;
            format!("    server s{number} {server}")
        });
        let route = |host| format!("    use_backend app if {{ req.hdr(host) {host} }}");
        let text = include_str!("../peers/haproxy.cfg")
            .replace("@LUA@", &load)
            .replace("@ACTION@", action)
            .replace("@ROUTES@", &self.setup.hosts(route))
            .replace("@SERVERS@", &servers);
        let mut command = Command::new("haproxy");
        command
            .arg("-db")
            .arg("-f")
            .arg(self.write("haproxy.cfg", &text)?);
        Ok(command)
    }

    fn envoy(&self, filter: &str) -> anyhow::Result<Command> {
        let server = |server: SocketAddr| {
            format!(
                "        - endpoint: {{ address: {{ socket_address: \
                 {{ address: {}, port_value: {} }} }} }}",
                server.ip(),
                server.port()
            )
        };
        let route = |host| {
            format!(
                "              - {{ name: {host}, domains: [\"{host}\"], \
                 routes: [{{ match: {{ prefix: / }}, route: {{ cluster: app }} }}] }}"
            )
        };
        let text = include_str!("../peers/envoy.yaml")
            .replace("@FILTER@", filter)
            .replace("@ROUTES@", &self.setup.hosts(route))
            .replace("@SERVERS@", &self.setup.lines(server));
        let mut command = Command::new("envoy");
        command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
        ]);
        command.arg("-c").arg(self.write("envoy.yaml", &text)?);
        Ok(command)
    }

    /// Writes a configuration, with what all of them have filled in.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let text = text
            .replace("@LISTEN@", &self.address.to_string())
            .replace("@PORT@", &self.address.port().to_string())
            .replace("@POOL@", &POOL.to_string());
        let path = self.directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Setup {
    /// The servers: addresses of the loopback interface, all at the port where the origins listen.
    fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        (0..self.backends).map(|number| {
            let [_, _, high, low] = u32::try_from(number).unwrap_or(0).to_be_bytes();
            SocketAddr::from((Ipv4Addr::new(127, 1 + high, low, 1), self.origins))
        })
    }

    fn lines(&self, line: impl FnMut(SocketAddr) -> String) -> String {
        self.servers().map(line).collect::<Vec<_>>().join("\n")
    }

    fn hosts(&self, line: impl Fn(String) -> String) -> String {
        let mut text = String::new();
        for number in 0..self.routes {
            let _ = writeln!(text, "{}", line(format!("host-{number}.example")));
        }
        text
    }
}

impl Running {
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Whether its process has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it has written.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let text = text.replace(&self.directory.path().display().to_string(), "");
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx takes its worker with it only if it is asked to stop.
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid else { return };
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let give_up = Instant::now() + STOP;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > give_up {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// The version that follows a word; Envoy's is COMMIT/VERSION/KIND.
fn version_after<'a>(word: &str, text: &'a str) -> &'a str {
    let after = text.split_once(word).map_or("", |(_, rest)| rest);
    let after = after.split_whitespace().next().unwrap_or_default();
    after.split('/').nth(1).unwrap_or(after)
}

/// An address that nobody listens at now.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_a_name_of_its_own() {
        for (name, peer) in Peer::ALL {
            assert_eq!((Peer::named(name), peer.name()), (Some(peer), name));
        }
        assert_eq!(Peer::named("apache"), None);
    }

    #[test]
    fn versions_are_found_in_what_peers_say() {
        for (word, text, version) in [
            ("nginx/", "nginx version: nginx/1.22.1\n", "1.22.1"),
            (
                "version ",
                "HAProxy version 2.6.12-1 2025/10/03 - https://haproxy.org/",
                "2.6.12-1",
            ),
            (
                "version: ",
                "\n/usr/bin/envoy  version: 9e55/1.40.0/Clean/RELEASE\n",
                "1.40.0",
            ),
            ("waypost ", "waypost 0.1.0\n", "0.1.0"),
            ("waypost ", "", ""),
        ] {
            assert_eq!(version_after(word, text), version);
        }
    }

    #[test]
    fn ten_thousand_servers_have_as_many_addresses() {
        let setup = Setup {
            origins: 80,
            backends: 10_000,
            routes: 0,
        };
        let mut servers: Vec<_> = setup.servers().collect();
        assert!(servers.iter().all(|server| server.ip().is_loopback()));
        servers.dedup();
        assert_eq!(servers.len(), 10_000);
    }

    #[test]
    fn the_configurations_have_no_gaps() {
        let programs = Programs::default();
        let setup = Setup {
            origins: 80,
            backends: 2,
            routes: 2,
        };
        for (name, peer) in Peer::ALL {
            let directory = TempDir::new().unwrap();
            let place = Place {
                setup: &setup,
                directory: directory.path(),
                address: SocketAddr::from(([127, 0, 0, 1], 81)),
            };
            peer.command(&place, &programs).unwrap();
            for file in fs::read_dir(directory.path()).unwrap() {
                let text = fs::read_to_string(file.unwrap().path()).unwrap();
                let gap = text.split('@').skip(1).find(|word| {
                    !word.is_empty() && word.chars().all(|char| char.is_ascii_uppercase())
                });
                assert_eq!(gap, None, "{name}:\n{text}");
            }
        }
    }
}
