//! `waypost plugin bench`: what a pick costs, and whether it costs more than it did.

use std::io::{self, Write as _};
use std::num::NonZero;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::super::failure::Failure;
use super::super::settings::Settings;
use super::{broken, json, named, refused, warn_of_debug_build};
use crate::bench::{Bench, Comparison, Contestant, PickCost, compare, time};

#[derive(Args, Debug)]
pub(in super::super) struct Arguments {
    /// Built-in policies, or .wasm files
    #[arg(required = true, value_name = "NAME|FILE")]
    policies: Vec<String>,

    /// Another policy, say an older version: both are timed in turns, and the difference is told
    #[arg(long, value_name = "NAME|FILE")]
    against: Option<String>,

    /// Numbers of backends, with commas between them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "2,10,100,1000,10000",
        value_name = "COUNTS"
    )]
    backends: Vec<NonZero<usize>>,

    /// What the policies are told, as the JSON of a `config` table
    #[arg(long, value_name = "JSON")]
    config: Option<Settings>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was measured of one policy.
#[derive(Serialize)]
struct Report<'a> {
    policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<&'a str>,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Figures {
    /// Nanoseconds.
    Picks(Vec<PickCost>),
    /// Nanoseconds and percent.
    Compared(Vec<Comparison>),
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let bench = Bench::new().map_err(|error| broken(&error))?;
    let enter = |name: &str| {
        let settings = named(name, arguments.config.as_ref())?;
        bench.enter(&settings).map_err(|error| refused(&error))
    };
    let old = arguments.against.as_deref().map(enter).transpose()?;
    let new = arguments.policies.iter().map(|name| enter(name));
    let new = new.collect::<Result<Vec<_>, _>>()?;
    warn_of_debug_build();
    let mut out = io::stdout();
    let mut reports = Vec::new();
    for (name, contestant) in arguments.policies.iter().zip(&new) {
        let figures = measure(contestant, old.as_ref(), &arguments.backends)?;
        let report = Report {
            policy: name,
            against: arguments.against.as_deref(),
            figures,
        };
        if arguments.json {
            reports.push(report);
        } else {
            // A reader who has seen enough closes the pipe; there is nobody left to tell.
            let _ = write!(out, "{}", report.table());
        }
    }
    if arguments.json {
        let _ = writeln!(out, "{}", json(&reports)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    new: &Contestant,
    old: Option<&Contestant>,
    sizes: &[NonZero<usize>],
) -> Result<Figures, Failure> {
    let sizes = sizes.iter().map(|size| size.get());
    let figures = match old {
        Some(old) => sizes
            .map(|size| compare(new, old, size))
            .collect::<Result<_, _>>()
            .map(Figures::Compared),
        None => sizes
            .map(|size| time(new, size))
            .collect::<Result<_, _>>()
            .map(Figures::Picks),
    };
    figures.map_err(|error| refused(&error))
}

impl Report<'_> {
    fn table(&self) -> String {
        match &self.figures {
            Figures::Picks(costs) => table(self.policy, costs),
            Figures::Compared(compared) => {
                comparison(self.policy, self.against.unwrap_or_default(), compared)
            }
        }
    }
}

fn table(policy: &str, costs: &[PickCost]) -> String {
    let mut lines = format!("{policy}, ns per pick: median (a tenth are below, a tenth above)\n");
    for PickCost {
        backends,
        median,
        spread: [low, high],
        start,
    } in costs
    {
        lines += &format!("{backends:>9} backends {median:>9.0} ({low:.0} to {high:.0})");
        if let Some(start) = start {
            lines += &format!(", a new instance {:.0} us", start / 1e3);
        }
        lines.push('\n');
    }
    lines
}

fn comparison(policy: &str, against: &str, compared: &[Comparison]) -> String {
    let mut lines = format!(
        "{policy} against {against}, ns per pick in turns, and the difference (with 95 % certainty)\n"
    );
    for Comparison {
        new,
        old,
        difference,
        interval: [low, high],
    } in compared
    {
        let known = if (*low..=*high).contains(&0.0) {
            "  no difference seen"
        } else {
            ""
        };
        lines += &format!(
            "{:>9} backends {:>9.0} {:>9.0} {difference:>+8.1} % ({low:+.1} to {high:+.1}){known}\n",
            new.backends, new.median, old.median
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(backends: usize, median: f64) -> PickCost {
        PickCost {
            backends,
            median,
            spread: [median - 1.0, median + 2.0],
            start: None,
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_size() {
        assert_eq!(
            table(
                "round-robin",
                &[
                    cost(2, 180.4),
                    PickCost {
                        start: Some(81_234.0),
                        ..cost(10_000, 200.0)
                    }
                ]
            ),
            "round-robin, ns per pick: median (a tenth are below, a tenth above)\n\
             \x20       2 backends       180 (179 to 182)\n\
             \x20   10000 backends       200 (199 to 202), a new instance 81 us\n"
        );
    }

    #[test]
    fn a_difference_that_may_be_none_is_called_none() {
        let compared = |difference, interval| Comparison {
            new: cost(10, 180.0),
            old: cost(10, 200.0),
            difference,
            interval,
        };
        assert_eq!(
            comparison(
                "new.wasm",
                "old.wasm",
                &[compared(-10.0, [-10.6, -9.1]), compared(0.2, [-0.1, 0.4])]
            ),
            "new.wasm against old.wasm, ns per pick in turns, and the difference (with 95 % certainty)\n\
             \x20      10 backends       180       200    -10.0 % (-10.6 to -9.1)\n\
             \x20      10 backends       180       200     +0.2 % (-0.1 to +0.4)  no difference seen\n"
        );
    }
}
