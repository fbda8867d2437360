//! `waypost plugin`: what concerns policies themselves, away from any traffic.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::plugin_test;
use crate::bench::{self, PickCost};
use crate::config::Policy;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Time the picks of policies, for upstreams of 2 to 10,000 backends
    Bench(BenchArguments),
    /// Hold a policy to the contract and to what it promises
    Test(plugin_test::Arguments),
}

#[derive(Args, Debug)]
pub(super) struct BenchArguments {
    /// round-robin, least-conn, rotation, or .wasm files
    #[arg(required = true, value_name = "NAME|FILE")]
    policies: Vec<String>,

    /// Numbers of backends, with commas between them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "2,10,100,1000,10000",
        value_name = "COUNTS"
    )]
    backends: Vec<std::num::NonZero<usize>>,

    /// What the policies are told, as the JSON of a `config` table
    #[arg(long, value_name = "JSON", value_parser = plugin_test::json_table)]
    config: Option<serde_json::Value>,
}

pub(super) fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Bench(arguments) => bench(arguments),
        Command::Test(arguments) => plugin_test::run(arguments),
    }
}

fn bench(arguments: &BenchArguments) -> Result<ExitCode, Failure> {
    if cfg!(debug_assertions) {
        tracing::warn!(
            "this is a debug build; figures are those of `cargo run --release -- plugin bench`"
        );
    }
    let mut out = io::stdout();
    for name in &arguments.policies {
        let mut policy = Policy::from_argument(name)?;
        if let Some(config) = &arguments.config {
            policy.config = config.clone();
        }
        let sizes: Vec<usize> = arguments.backends.iter().map(|size| size.get()).collect();
        let costs = bench::picks(&policy, &sizes)
            .map_err(|error| Failure::runtime(error.to_string(), None))?;
        // A reader who has seen enough closes the pipe; there is nobody left to tell.
        let _ = write!(out, "{}", table(&policy.name, &costs));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(policy: &str, costs: &[PickCost]) -> String {
    let mut lines = format!("{policy}, ns per pick: median (a tenth are below, a tenth above)\n");
    for PickCost {
        backends,
        median,
        spread: [low, high],
    } in costs
    {
        lines += &format!("{backends:>9} backends {median:>9.0} ({low:.0} to {high:.0})\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_size() {
        let cost = |backends, median| PickCost {
            backends,
            median,
            spread: [median - 1.0, median + 2.0],
        };
        assert_eq!(
            table("round-robin", &[cost(2, 180.4), cost(10_000, 200.0)]),
            "round-robin, ns per pick: median (a tenth are below, a tenth above)\n\
             \x20       2 backends       180 (179 to 182)\n\
             \x20   10000 backends       200 (199 to 202)\n"
        );
    }
}
