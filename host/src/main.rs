//! The `waypost` program; see [`waypost::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost::cli::main()
}
