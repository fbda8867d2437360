//! A configuration and where it came from, which errors name.

use std::io;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::config::Config;

/// What `run` and `check` read unless told otherwise.
pub(super) const DEFAULT_FILE: &str = "waypost.toml";

/// A configuration that is to be applied.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// `None` where it was made of arguments.
    pub(crate) file: Option<PathBuf>,
}

impl Loaded {
    pub(super) fn from_file(file: Option<PathBuf>) -> Result<Loaded, Failure> {
        let Some(file) = file else {
            let default = PathBuf::from(DEFAULT_FILE);
            return if is_missing(&default) {
                Err(nothing_to_run())
            } else {
                Loaded::from_file(Some(default))
            };
        };
        Ok(Loaded {
            config: Config::load(&file)?,
            file: Some(file),
        })
    }

    pub(super) fn from_arguments(
        from: &str,
        to: &[String],
        policy: Option<&str>,
    ) -> Result<Loaded, Failure> {
        let config = Config::for_proxy(from, to, policy)?;
        Ok(Loaded { config, file: None })
    }
}

fn is_missing(file: &Path) -> bool {
    file.metadata()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn nothing_to_run() -> Failure {
    let help = "\
`waypost run FILE` serves what another file says,
`waypost proxy --from :8080 --to 127.0.0.1:3000,127.0.0.1:3001` needs none,
`waypost demo` shows it at work";
    let title = format!("there is no {DEFAULT_FILE} in the current directory");
    Failure::config(title, Some(help))
}
