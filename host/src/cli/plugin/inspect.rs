//! `waypost plugin inspect`: all that can be told of a policy without any traffic.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::super::failure::Failure;
use super::super::settings::Settings;
use super::{broken, bytes, json, named, refused, warn_of_debug_build};
use crate::bench::{Bench, PickCost, time};
use crate::inspect::{Examined, Inspector, Trial};

/// A pick is timed for an upstream of as many backends.
const BACKENDS: usize = 10;

#[derive(Args, Debug)]
pub(in super::super) struct Arguments {
    /// A built-in policy, or a .wasm file
    #[arg(value_name = "NAME|FILE")]
    policy: String,

    /// What the policy is told, as the JSON of a `config` table
    #[arg(long, value_name = "JSON")]
    config: Option<Settings>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    version: &'a str,
    /// Of the contract, `waypost:policy`.
    contract: &'a str,
    hooks: &'a [String],
    promises: &'a [String],
    /// The host's functions that it may call.
    imports: &'a [String],
    component: bool,
    bytes: usize,
    sha256: &'a str,
    compile_ms: f64,
    code_bytes: usize,
    /// Of an instance after some picks; absent where it was not tried.
    memory_bytes: Option<usize>,
    /// Nanoseconds; absent where it was not tried.
    pick: Option<PickCost>,
    /// What it said of an empty configuration; absent where it was tried.
    needs_settings: Option<&'a str>,
    /// What will fail in it though the trial did not reach it.
    warning: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let settings = named(&arguments.policy, arguments.config.as_ref())?;
    let inspector = Inspector::new().map_err(|error| broken(&error))?;
    let examined = inspector
        .examine(&settings, None)
        .map_err(|error| refused(&error))?;
    let pick = match examined.trial {
        Trial::Passed { .. } => {
            warn_of_debug_build();
            let bench = Bench::new().map_err(|error| broken(&error))?;
            let timed = bench
                .enter(&settings)
                .and_then(|contestant| time(&contestant, BACKENDS));
            Some(timed.map_err(|error| refused(&error))?)
        }
        Trial::NeedsSettings(_) => None,
    };
    let report = Report::new(&examined, pick);
    let text = if arguments.json {
        json(&report)?
    } else {
        report.text()
    };
    // A reader who has seen enough closes the pipe; there is nobody left to tell.
    let _ = writeln!(io::stdout(), "{text}");
    Ok(ExitCode::SUCCESS)
}

impl<'a> Report<'a> {
    fn new(examined: &'a Examined, pick: Option<PickCost>) -> Report<'a> {
        let (memory_bytes, needs_settings) = match &examined.trial {
            Trial::Passed { memory_bytes } => (Some(*memory_bytes), None),
            Trial::NeedsSettings(reason) => (None, Some(reason.as_str())),
        };
        Report {
            name: &examined.info.name,
            version: &examined.info.version,
            contract: &examined.anatomy.contract,
            hooks: &examined.anatomy.hooks,
            promises: &examined.info.promises,
            imports: &examined.anatomy.imports,
            component: examined.anatomy.is_component,
            bytes: examined.size,
            sha256: &examined.info.digest,
            compile_ms: examined.compile_time.as_secs_f64() * 1e3,
            code_bytes: examined.code_bytes,
            memory_bytes,
            pick,
            needs_settings,
            warning: examined.doubts.map(|(doubt, _)| doubt),
        }
    }

    fn text(&self) -> String {
        let form = if self.component {
            "a component"
        } else {
            "a module"
        };
        let mut lines = format!("{} {}\n", self.name, self.version);
        let mut line = |key: &str, value: String| {
            lines += &format!("  {key:<9} {value}\n");
        };
        line("contract", format!("waypost:policy {}", self.contract));
        line("hooks", listed(self.hooks));
        line("promises", listed(self.promises));
        line("asks for", listed(self.imports));
        line("file", format!("{form} of {}", bytes(self.bytes)));
        line("sha256", self.sha256.to_owned());
        let code = bytes(self.code_bytes);
        line(
            "compiles",
            format!("in {:.0} ms to {code}", self.compile_ms),
        );
        if let Some(memory) = self.memory_bytes {
            line("instance", format!("takes {} of memory", bytes(memory)));
        }
        if let Some(PickCost {
            backends,
            median,
            spread: [low, high],
            ..
        }) = self.pick
        {
            let cost = format!("{median:.0} ns with {backends} backends ({low:.0} to {high:.0})");
            line("a pick", cost);
        }
        if let Some(reason) = self.needs_settings {
            line("not tried", format!("{reason}; give it --config JSON"));
        }
        if let Some(warning) = self.warning {
            line("warning", warning.to_owned());
        }
        lines.truncate(lines.trim_end().len());
        lines
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_told_of_on_one_screen() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        let (hooks, imports) = (names(&["state"]), names(&["host.log", "request.header"]));
        let report = Report {
            name: "sticky",
            version: "1.2.0",
            contract: "0.1.0",
            hooks: &hooks,
            promises: &[],
            imports: &imports,
            component: true,
            bytes: 61_440,
            sha256: "abc",
            compile_ms: 41.4,
            code_bytes: 153_600,
            memory_bytes: Some(1_179_648),
            pick: Some(PickCost {
                backends: 10,
                median: 262.2,
                spread: [257.0, 280.0],
                start: None,
            }),
            needs_settings: None,
            warning: None,
        };
        let expected = "\
sticky 1.2.0
  contract  waypost:policy 0.1.0
  hooks     state
  promises  none
  asks for  host.log, request.header
  file      a component of 60.0 KiB
  sha256    abc
  compiles  in 41 ms to 150.0 KiB
  instance  takes 1.1 MiB of memory
  a pick    262 ns with 10 backends (257 to 280)";
        assert_eq!(report.text(), expected);
        let untried = Report {
            memory_bytes: None,
            pick: None,
            needs_settings: Some("config: missing field `cookie`"),
            ..report
        };
        let last = "  not tried config: missing field `cookie`; give it --config JSON";
        assert!(untried.text().ends_with(last), "{}", untried.text());
    }
}
