//! The programs that are not found on PATH but made from this repository.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::peer::{Peer, Policy, Programs};

/// What the command line says about them.
#[derive(clap::Args, Debug)]
pub(crate) struct Given {
    /// A binary to measure instead of the one of this repository; repeat it to compare several
    #[arg(long, value_name = "[NAME=]PATH", global = true)]
    waypost: Vec<String>,
    /// The policy of row `edits`, compiled
    #[arg(long, value_name = "WASM", global = true)]
    policy: Option<PathBuf>,
    /// The filter of Envoy, compiled
    #[arg(long, value_name = "WASM", global = true)]
    filter: Option<PathBuf>,
    /// The proxy made with Pingora
    #[arg(long, value_name = "PATH", global = true)]
    pingora: Option<PathBuf>,
}

impl Given {
    /// Finds the programs that these peers need, or makes them. One set for each binary of Waypost.
    pub(crate) fn find(&self, peers: &[Peer]) -> anyhow::Result<Vec<(String, Programs)>> {
        let needed = |peer: fn(&Peer) -> bool| peers.iter().any(peer);
        let mut common = Programs::default();
        if needed(|peer| *peer == Peer::Waypost(Policy::Edits)) {
            common.policy = given_or(self.policy.as_deref(), policy)?;
        }
        if needed(|peer| *peer == Peer::EnvoyWasm) {
            common.filter = given_or(self.filter.as_deref(), filter)?;
        }
        if needed(|peer| *peer == Peer::Pingora) {
            // Its absence shows when it is asked for its version.
            common.pingora = given_or(self.pingora.as_deref(), pingora).unwrap_or_default();
        }
        let with = |path: PathBuf| Programs {
            waypost: path,
            ..common.clone()
        };
        if self.waypost.is_empty() {
            let path = if needed(|peer| matches!(peer, Peer::Waypost(_))) {
                waypost()?
            } else {
                PathBuf::new()
            };
            return Ok(vec![(String::new(), with(path))]);
        }
        let named = self.waypost.iter().map(|given| {
            let (name, path) = given.split_once('=').unwrap_or(("", given));
            let path = Path::new(path)
                .canonicalize()
                .with_context(|| path.to_owned())?;
            Ok((name.to_owned(), with(path)))
        });
        named.collect()
    }
}

fn given_or(
    given: Option<&Path>,
    make: fn() -> anyhow::Result<PathBuf>,
) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => path
            .canonicalize()
            .with_context(|| path.display().to_string()),
        None => make(),
    }
}

/// As it is released: peers are, too.
fn waypost() -> anyhow::Result<PathBuf> {
    let build = [
        "build",
        "--profile",
        "dist",
        "-p",
        "waypost",
        "--bin",
        "waypost",
    ];
    cargo(&root(), &build)?;
    Ok(target().with_file_name("dist").join("waypost"))
}

fn policy() -> anyhow::Result<PathBuf> {
    let module = target().join("bench-policy.wasm");
    let (source, out) = (
        bench().join("policy").display().to_string(),
        module.display().to_string(),
    );
    let build = [
        "run",
        "--release",
        "-p",
        "waypost-plugin-build",
        "--",
        &source,
        "-o",
        &out,
    ];
    cargo(&root(), &build)?;
    Ok(module)
}

fn filter() -> anyhow::Result<PathBuf> {
    let directory = bench().join("envoy-filter");
    cargo(
        &directory,
        &["build", "--release", "--target", "wasm32-unknown-unknown"],
    )?;
    Ok(directory.join("target/wasm32-unknown-unknown/release/bench_filter.wasm"))
}

fn pingora() -> anyhow::Result<PathBuf> {
    let directory = bench().join("pingora");
    cargo(&directory, &["build", "--release"])?;
    Ok(directory.join("target/release/bench-pingora"))
}

fn cargo(directory: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    // Where this program was built is where its workspace is built; the other workspaces keep to themselves.
    match target().parent() {
        Some(built) if directory == root() => command.env("CARGO_TARGET_DIR", built),
        _ => command.env_remove("CARGO_TARGET_DIR"),
    };
    let status = command.status().context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

/// The directory of this crate.
fn bench() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn root() -> PathBuf {
    bench()
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// Where the release build of this program is, and so that of the others.
fn target() -> PathBuf {
    let this = env::current_exe().unwrap_or_default();
    let built = this
        .parent()
        .filter(|directory| directory.ends_with("release"));
    built.map_or_else(|| root().join("target/release"), Path::to_owned)
}
