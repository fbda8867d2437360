//! The command line.

use std::io::{self, IsTerminal as _, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::failure::Failure;
use self::loaded::{DEFAULT_FILE, Loaded};
use self::log::Filter;
use self::settings::Settings;
use crate::demo;
use crate::plugin::CONTRACT_VERSION;

mod admin;
mod check;
pub(crate) mod failure;
pub(crate) mod loaded;
mod log;
mod plugin;
mod serve;
pub(crate) mod settings;
pub(crate) mod signals;

const EXAMPLES: &str = "\
Examples:
  waypost demo                                             see it at work, without any file
  waypost proxy --from :8080 --to :3000,:3001              balance two servers, without any file
  waypost run waypost.toml                                 serve what a configuration says
  waypost check waypost.toml                               see whether it would
  waypost status                                           see what a running server does
  waypost reload                                           have it read its configuration again";

/// A reverse proxy and load balancer whose decisions are made by WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "waypost", version = version(), after_help = EXAMPLES, arg_required_else_help = true)]
struct CommandLine {
    /// The same as `check`
    #[arg(short = 't', long, value_name = "FILE", num_args = 0..=1, default_missing_value = DEFAULT_FILE)]
    test: Option<PathBuf>,

    /// How much to log: off, error, warn, info, debug, trace, or tracing's directives; WAYPOST_LOG sets it as well
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<Filter>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what a configuration says, until told to stop
    Run {
        /// The configuration; waypost.toml in the current directory unless given
        file: Option<PathBuf>,

        /// Only try it: the same as `check`
        #[arg(short = 't', long)]
        test: bool,
    },
    /// Do all that a start would except listen: read the configuration, load and try every policy
    Check {
        /// The configuration; waypost.toml in the current directory unless given
        file: Option<PathBuf>,
    },
    /// Balance a few servers without a configuration
    Proxy(ProxyArguments),
    /// Show it at work: three sample servers, the proxy in front of them, a table of what happens
    Demo(demo::Arguments),
    /// Show what a running server is doing
    Status(admin::StatusArguments),
    /// Have a running server read its configuration again; where that is wrong, everything stays as it was
    Reload(admin::ReloadArguments),
    /// Replace the code of a running server's policies
    #[command(subcommand)]
    Policy(admin::PolicyCommand),
    /// Take a running server's backends out and in again, until told otherwise
    #[command(subcommand)]
    Backend(admin::BackendCommand),
    /// Write a policy, build it, look at it, time it
    #[command(subcommand)]
    Plugin(plugin::Command),
}

#[derive(Args, Debug)]
struct ProxyArguments {
    /// Where clients connect: an address and port, or `:8080` for every address of this machine
    #[arg(long, value_name = "ADDRESS")]
    from: String,

    /// The servers, with commas between them or one by one; `:3000` is a port of this machine
    #[arg(long, required = true, value_name = "ADDRESSES")]
    to: Vec<String>,

    /// Who decides: round-robin, least-conn, consistent-hash, sticky-cookie, header-canary, rotation, or a .wasm file
    /// [default: round-robin]
    #[arg(long, value_name = "NAME|FILE")]
    policy: Option<String>,

    /// What the policy is told, as the JSON of a `config` table
    #[arg(long, value_name = "JSON")]
    config: Option<Settings>,
}

/// Runs the program with the process's arguments. Whatever goes wrong is said on standard error and told by the exit
/// status: 1 for a failure at run time, 2 for wrong usage, 78 for a configuration that cannot be used.
pub fn main() -> ExitCode {
    let parsed = CommandLine::try_parse().and_then(CommandLine::resolve);
    let (command, filter) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and versions are such errors too. Nobody is left to tell that they cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    log::report_panics();
    let run = || {
        log::start(filter, command.default_level())?;
        command.run()
    };
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => failure.report(),
        Err(panic) => Failure::panicked(panic.as_ref()).report(),
    }
}

fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{} (policy contract {CONTRACT_VERSION})",
            env!("CARGO_PKG_VERSION")
        )
    });
    &VERSION
}

impl CommandLine {
    /// What is to be done; `-t` in all its places is `check`.
    fn resolve(self) -> Result<(Command, Option<Filter>), clap::Error> {
        let command = match (self.command, self.test) {
            (None, Some(file)) => Command::Check { file: Some(file) },
            (Some(Command::Run { file, test: true }), None) => Command::Check { file },
            (Some(command), None) => command,
            (Some(_), Some(_)) => {
                let message =
                    "-t stands alone: write `waypost -t [FILE]` or `waypost check [FILE]`";
                return Err(CommandLine::command().error(ErrorKind::ArgumentConflict, message));
            }
            (None, None) => {
                let message = "a command is missing: run, check, proxy, demo, status, reload, policy, backend or plugin";
                return Err(CommandLine::command().error(ErrorKind::MissingSubcommand, message));
            }
        };
        Ok((command, self.log))
    }
}

impl Command {
    fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Command::Run { file, .. } => serve::run(Loaded::from_file(file)?),
            Command::Proxy(ProxyArguments {
                from,
                to,
                policy,
                config,
            }) => {
                let mut loaded = Loaded::from_arguments(&from, &to, policy.as_deref())?;
                if let Some(settings) = &config {
                    settings.apply_to_all(&mut loaded.config);
                }
                serve::run(loaded)
            }
            Command::Check { file } => {
                let found = check::run(&Loaded::from_file(file)?)?;
                // The exit status says it as well.
                let _ = writeln!(io::stdout(), "{found}");
                Ok(ExitCode::SUCCESS)
            }
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Status(arguments) => admin::status(&arguments),
            Command::Reload(arguments) => admin::reload(&arguments),
            Command::Policy(command) => admin::policy(&command),
            Command::Backend(command) => admin::backend(&command),
            Command::Plugin(command) => plugin::run(&command),
        }
    }

    /// What is logged unless the user says otherwise.
    fn default_level(&self) -> &'static str {
        match self {
            // Its table says more, and on a terminal it is painted over what is logged.
            Command::Demo(_) if io::stdout().is_terminal() => "off",
            Command::Demo(_) => "warn",
            _ => "info",
        }
    }
}

/// Runs a command's future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(format!("cannot start: {error}"), None))?;
    runtime.block_on(future)
}

/// `1 listener`, `2 listeners`.
fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests;
