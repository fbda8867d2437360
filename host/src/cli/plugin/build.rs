//! `waypost plugin build`: from a policy's crate to a file that Waypost takes.

use std::env;
use std::error::Error as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use waypost_plugin_build::{Builder, Error, componentize};

use super::super::failure::Failure;
use super::super::settings::Settings;
use super::{broken, bytes, refused};
use crate::config::{Policy, PolicySource};
use crate::inspect::{Examined, Inspector, PolicyRefused, Trial};

#[derive(Args, Debug)]
pub(in super::super) struct Arguments {
    /// The directory of the policy's crate
    #[arg(default_value = ".", value_name = "DIR")]
    directory: PathBuf,

    /// Where the policy is written [default: its name and .wasm, in the current directory]
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What the policy is told when it is tried, as the JSON of a `config` table
    #[arg(long, value_name = "JSON")]
    config: Option<Settings>,
}

/// Nothing is written unless all is well.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let component = component(&arguments.directory).map_err(|error| not_built(&error))?;
    let mut settings = Policy::new("built", PolicySource::File(arguments.directory.clone()));
    if let Some(config) = &arguments.config {
        config.apply(&mut settings);
    }
    let inspector = Inspector::new().map_err(|error| broken(&error))?;
    let examined = inspector
        .examine(&settings, Some(&component))
        .map_err(|error| refused(&about_crate(&arguments.directory, error)))?;
    warn(&examined);
    let file = match &arguments.output {
        Some(file) => file.clone(),
        None => PathBuf::from(format!("{}.wasm", examined.info.name)),
    };
    fs::write(&file, &component).map_err(|error| {
        let help = "give another place with -o FILE";
        Failure::runtime(
            format!("cannot write {}: {error}", file.display()),
            Some(help),
        )
    })?;
    let info = &examined.info;
    // The file is there, whoever reads this.
    let _ = writeln!(
        io::stdout(),
        "{}: {} {}, {}, sha256 {}",
        file.display(),
        info.name,
        info.version,
        bytes(component.len()),
        info.digest
    );
    Ok(ExitCode::SUCCESS)
}

fn component(directory: &Path) -> Result<Vec<u8>, Error> {
    // Apart from what cargo makes of the crate for this machine, and so never waiting for it.
    let target_dir = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| directory.join("target/policy"), PathBuf::from);
    let module = Builder::new(target_dir).module(directory)?;
    let bytes = fs::read(&module).map_err(|error| Error::Read(module, error))?;
    componentize(&bytes)
}

fn not_built(error: &Error) -> Failure {
    let mut title = error.to_string();
    if let Some(cause) = error.source() {
        title += &format!(": {cause}");
    }
    Failure::runtime(title, error.help().as_deref())
}

fn about_crate(directory: &Path, refused: PolicyRefused) -> PolicyRefused {
    let subject = format!("the policy in {}", directory.display());
    PolicyRefused {
        problem: format!("{subject} {}", refused.problem),
        remedy: refused.remedy,
    }
}

/// What does not keep it from being written.
fn warn(examined: &Examined) {
    if let Some((doubt, remedy)) = examined.doubts {
        tracing::warn!("{doubt}; {remedy}");
    }
    if let Trial::NeedsSettings(reason) = &examined.trial {
        tracing::warn!(
            "the policy was not tried, it needs settings: {reason}; --config JSON gives it some"
        );
    }
}
