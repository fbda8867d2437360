//! `waypost plugin test`: the conformance suite on a policy as it is shipped.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use waypost_conformance::{Options, cases};

use super::super::failure::Failure;
use super::super::settings::Settings;
use super::{broken, named, refused};
use crate::config::Policy;
use crate::conformance::Shipped;

#[derive(Args, Debug)]
pub(in super::super) struct Arguments {
    /// A built-in policy, or a .wasm file
    #[arg(required_unless_present = "list", value_name = "NAME|FILE")]
    policy: Option<String>,

    /// What the policy is told, as the JSON of a `config` table
    #[arg(long, value_name = "JSON")]
    config: Option<Settings>,

    /// Only this case, or the cases of this family, such as `law`
    #[arg(long, value_name = "ID")]
    case: Option<String>,

    /// The first seed: the same seed does the same again
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,

    /// How many seeds to run, one after the other
    #[arg(long, default_value = "1", value_name = "COUNT")]
    seeds: std::num::NonZero<u32>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Write a report in JUnit's XML as well
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write a certificate, which `require_certificate` of a configuration asks for
    #[arg(long, value_name = "FILE", conflicts_with = "case")]
    certificate: Option<PathBuf>,

    /// List the cases
    #[arg(long)]
    list: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut out = io::stdout();
    let name = match &arguments.policy {
        Some(name) if !arguments.list => name,
        _ => {
            let _ = out.write_all(list().as_bytes());
            return Ok(ExitCode::SUCCESS);
        }
    };
    let policy = named(name, arguments.config.as_ref())?;
    let options = options(arguments, &policy)?;
    let shipped = Shipped::load(&policy)
        .map_err(|error| broken(&error))?
        .map_err(|error| refused(&error))?;
    let report = waypost_conformance::run(&shipped, &options);

    let text = match arguments.json {
        true => report.json(),
        false => report.table(&again(name, arguments)),
    };
    // A reader who has seen enough closes the pipe; there is nobody left to tell.
    let _ = out.write_all(text.as_bytes());
    if let Some(file) = &arguments.junit {
        write(file, &report.junit())?;
    }
    if let Some(file) = &arguments.certificate {
        write(file, &shipped.certificate(&report).to_json())?;
    }
    Ok(match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn options(arguments: &Arguments, policy: &Policy) -> Result<Options, Failure> {
    let options = Options {
        config: policy.config.to_string(),
        seeds: (0..arguments.seeds.get())
            .map(|more| arguments.seed.wrapping_add(u64::from(more)))
            .collect(),
        only: arguments.case.clone(),
    };
    match &arguments.case {
        Some(case) if !cases().any(|known| options.takes(known)) => Err(Failure::usage(
            format!("there is no case {case}"),
            Some("`waypost plugin test --list` names them all"),
        )),
        _ => Ok(options),
    }
}

fn list() -> String {
    let lines = cases().map(|case| format!("{:36}  {}\n", case.id, case.doc));
    lines.collect()
}

/// The command that does the same again, but for the case and the seed.
fn again(name: &str, arguments: &Arguments) -> String {
    let config = arguments.config.as_ref();
    let config = config.map(|config| format!(" --config '{config}'"));
    format!("waypost plugin test {name}{}", config.unwrap_or_default())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| {
        let title = format!("cannot write {}: {error}", file.display());
        Failure::runtime(title, None)
    })
}
