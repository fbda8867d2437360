//! Builds the policies that come with the binary, from `plugins/` to WebAssembly, for `src/built_in.rs` to embed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use waypost_plugin_build::{Builder, TOOLCHAIN_VARIABLE};

/// Directory under `plugins/` and the variable that tells the compiler where the module is.
const BUILT_IN: [(&str, &str); 5] = [
    ("round-robin", "WAYPOST_ROUND_ROBIN"),
    ("least-conn", "WAYPOST_LEAST_CONN"),
    ("consistent-hash", "WAYPOST_CONSISTENT_HASH"),
    ("sticky-cookie", "WAYPOST_STICKY_COOKIE"),
    ("header-canary", "WAYPOST_HEADER_CANARY"),
];

/// What a module is made of, seen from this crate.
const SOURCES: [&str; 4] = [
    "../plugins",
    "../plugin-sdk/src",
    "../plugin-sdk/wit",
    "../Cargo.lock",
];

fn main() -> ExitCode {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-env-changed={TOOLCHAIN_VARIABLE}");
    let crates: Vec<PathBuf> = BUILT_IN
        .iter()
        .map(|(directory, _)| Path::new("../plugins").join(directory))
        .collect();
    match Builder::new(target_dir()).modules(&crates) {
        Ok(modules) => {
            for ((_, variable), module) in BUILT_IN.iter().zip(modules) {
                println!("cargo::rustc-env={variable}={}", module.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Each line an error of its own: cargo shows them without the noise of a panic.
            let help = error.help().unwrap_or_default();
            for line in error.to_string().lines().chain(help.lines()) {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// One directory for all profiles: where the standard library has to be compiled too, that happens once.
fn target_dir() -> PathBuf {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    // Cargo marks the top of its target directory so that backups pass it by.
    let target = out_dir
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(&out_dir).join("waypost-wasm")
}
