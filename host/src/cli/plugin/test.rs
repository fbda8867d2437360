//! `waypost plugin test`: the conformance suite on a policy as it is shipped.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::{HeaderName, HeaderValue};
use waypost_conformance::traffic::Words;
use waypost_conformance::{Options, cases};

use super::super::failure::Failure;
use super::super::settings::Settings;
use super::{broken, named};
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

    /// A header field that means something to the policy: some of the requests get it; repeat it for more
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// A label that means something to the policy: some of the backends get it; repeat it for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

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
        .map_err(|refused| Failure::config(refused.problem, Some(&refused.remedy)))?;
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
        words: Words {
            headers: arguments.headers.clone(),
            labels: arguments.labels.clone(),
        },
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
    let config = arguments.config.iter();
    let config = config.map(|config| format!(" --config '{config}'"));
    let headers = arguments.headers.iter();
    let headers = headers.map(|(name, value)| format!(" --header '{name}: {value}'"));
    let labels = arguments.labels.iter();
    let labels = labels.map(|(key, value)| format!(" --label '{key}={value}'"));
    let options: String = config.chain(headers).chain(labels).collect();
    format!("waypost plugin test {name}{options}")
}

/// `x-tenant: acme`
fn header(text: &str) -> Result<(String, String), String> {
    const EXAMPLE: &str = "write it as in a request, for example 'x-tenant: acme'";
    let (name, value) = text.split_once(':').ok_or(EXAMPLE)?;
    let name: HeaderName = name.parse().map_err(|_| EXAMPLE)?;
    let value = value.trim();
    HeaderValue::from_str(value).map_err(|_| EXAMPLE)?;
    Ok((name.as_str().to_owned(), value.to_owned()))
}

/// `tier=gold`
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write a key and a value, for example tier=gold".to_owned()),
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| {
        let title = format!("cannot write {}: {error}", file.display());
        Failure::runtime(title, None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_pairs() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(header("X-Tenant: acme "), pair("x-tenant", "acme"));
        assert_eq!(header("x-empty:"), pair("x-empty", ""));
        for wrong in ["x-tenant", ": acme", "x tenant: acme", "x-tenant: a\nb"] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
        assert_eq!(label("tier=gold"), pair("tier", "gold"));
        assert_eq!(label("tier="), pair("tier", ""));
        for wrong in ["tier", "=gold", ""] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }
}
