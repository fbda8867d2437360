//! The program's log, on standard error.

use std::str::FromStr;
use std::{env, io, panic};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::failure::{Failure, colored};

/// Says how much to log where the command line does not.
const VARIABLE: &str = "WAYPOST_LOG";

/// A level, or directives as of tracing-subscriber (`warn,waypost::proxy=debug`), that can be followed.
#[derive(Clone, Debug)]
pub(super) struct Filter(String);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let text = text.trim();
        // A misspelt level would otherwise pass for the name of a module, and the log be empty.
        // Nothing at all would pass for `error`.
        let is_level = !text.is_empty() && text.parse::<LevelFilter>().is_ok();
        if !is_level && !text.contains('=') {
            let levels = "off, error, warn, info, debug, trace";
            return Err(format!("{text:?} is not a level; the levels are {levels}"));
        }
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Filter(text.to_owned())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Starts logging, by the first of: the command line, the environment, the command's default.
pub(super) fn start(filter: Option<Filter>, default: &str) -> Result<(), Failure> {
    let filter = match (filter, env::var(VARIABLE)) {
        (Some(filter), _) => filter.0,
        (None, Ok(text)) if !text.trim().is_empty() => {
            let refused = |reason| Failure::usage(format!("{VARIABLE}: {reason}"), None);
            text.parse::<Filter>().map_err(refused)?.0
        }
        _ => default.to_owned(),
    };
    // Fails only where a log was started before: in a test's process.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(filter))
        .with_writer(io::stderr)
        .with_ansi(colored())
        .with_target(false)
        // It would say on standard error that it cannot write to standard error, and panic over that.
        .log_internal_errors(false)
        .try_init();
    Ok(())
}

/// Makes a panic a line of the log, whichever thread it happens on.
pub(super) fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("no reason given");
        let place = panic.location().map(ToString::to_string);
        let place = place.unwrap_or_default();
        // Not ours: a module at which the compiler broke down. Whoever loads it says so.
        if crate::plugin::is_loading() {
            tracing::debug!(place, "the compiler of policies breaks down: {text}");
            return;
        }
        tracing::error!(place, "a mistake in waypost, please report it: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_directives() {
        for good in [
            "off",
            "info",
            " DEBUG ",
            "warn,waypost::proxy=debug",
            "a=trace",
        ] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in ["", "loud", "infoo", "waypost=loud", "warn,info"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
