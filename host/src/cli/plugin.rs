//! `waypost plugin`: what concerns policies themselves, away from any traffic.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use super::failure::Failure;
use super::settings::Settings;
use crate::config::Policy;
use crate::inspect::PolicyRefused;

mod bench;
mod build;
mod inspect;
mod new;
mod sdk;
mod test;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write the crate of a new policy, with its tests
    New(new::Arguments),
    /// Build a policy's crate, check and try what comes of it, and write it to a file
    Build(build::Arguments),
    /// Tell all that can be told of a policy: hooks, promises, what it asks for, what it costs
    Inspect(inspect::Arguments),
    /// Time the picks of policies, for upstreams of 2 to 10,000 backends
    Bench(bench::Arguments),
    /// Hold a policy to the contract and to what it promises
    Test(test::Arguments),
}

pub(super) fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::New(arguments) => new::run(arguments),
        Command::Build(arguments) => build::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Test(arguments) => test::run(arguments),
    }
}

/// The policy of that name or in that file, with these settings.
fn named(name: &str, settings: Option<&Settings>) -> Result<Policy, Failure> {
    // Any file that is there is meant as one, whatever its name: what is wrong with it can be said.
    let is_path = Policy::built_in(name).is_none() && Path::new(name).exists();
    let mut policy = if is_path && !name.contains('/') {
        Policy::from_argument(&format!("./{name}"))?
    } else {
        Policy::from_argument(name)?
    };
    if let Some(settings) = settings {
        settings.apply(&mut policy);
    }
    Ok(policy)
}

fn refused(refused: &PolicyRefused) -> Failure {
    Failure::runtime(refused.problem.as_str(), Some(&refused.remedy))
}

fn broken(error: &anyhow::Error) -> Failure {
    Failure::runtime(format!("{error:#}"), None)
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::runtime(format!("cannot be written as JSON: {error}"), None))
}

/// Figures of a debug build tell nothing.
fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        tracing::warn!(
            "this is a debug build; figures are those of `cargo run --release -- plugin bench`"
        );
    }
}

/// `61.2 KiB`
fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        for (count, shown) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_536, "1.5 KiB"),
            (1_048_576, "1.0 MiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
    }
}
