//! The `waypost` program, built along with the tests so that they can start it.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost::cli::main()
}
