//! What can go wrong, each with what to do about it.

use std::{error, fmt, io, path::PathBuf};

use crate::{TARGET, TOOLCHAIN_VARIABLE};

/// Why a policy could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The directory has no `Cargo.toml`.
    NoManifest(PathBuf),
    /// The crate does not ask for a `cdylib`.
    NoCdylib(PathBuf),
    /// The module exports no policy.
    NoPolicy(PathBuf),
    /// [`TOOLCHAIN_VARIABLE`] has a value that means nothing.
    UnknownToolchain(String),
    /// There is no standard library for WebAssembly. Says of each way that was tried why it leads nowhere.
    NoStandardLibrary(Vec<String>),
    /// Cargo could not be started.
    Start(io::Error),
    /// Cargo failed; it has said why on standard error.
    Compile,
    /// What cargo made could not be read.
    Read(PathBuf, io::Error),
    /// The module could not be wrapped into a component.
    Wrap(String),
    /// The component imports something that no policy may.
    ForeignImport(String),
    /// The component lacks an export that every policy has.
    MissingExport(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoManifest(dir) => {
                write!(f, "{} is not a crate: it has no Cargo.toml", dir.display())
            }
            Error::NoCdylib(dir) => write!(
                f,
                "the crate in {} does not build a plugin: its Cargo.toml needs\n\n    [lib]\n    crate-type = [\"cdylib\", \"rlib\"]\n",
                dir.display()
            ),
            Error::NoPolicy(dir) => write!(
                f,
                "the crate in {} exports no policy: it needs the line `waypost_plugin::export_policy!(YourPolicy);`",
                dir.display()
            ),
            Error::UnknownToolchain(wish) => {
                write!(
                    f,
                    "{TOOLCHAIN_VARIABLE}={wish} means nothing: it can be active, rustup or debian"
                )
            }
            Error::NoStandardLibrary(tried) => {
                writeln!(f, "there is no Rust standard library for {TARGET}:")?;
                tried
                    .iter()
                    .try_for_each(|reason| writeln!(f, "  - {reason}"))?;
                write!(
                    f,
                    "either of these provides it:\n    rustup target add {TARGET}\n    apt-get install rustc-web rust-web-src   (Debian)"
                )
            }
            Error::Start(_) => f.write_str("cargo could not be started"),
            Error::Compile => f.write_str("the policy does not compile: cargo has said why"),
            Error::Read(path, _) => write!(f, "{} could not be read", path.display()),
            Error::Wrap(reason) => write!(f, "the module cannot be made a component: {reason}"),
            Error::ForeignImport(name) => write!(
                f,
                "the policy imports {name}, which the host does not have: a policy gets all it may use from waypost_plugin"
            ),
            Error::MissingExport(name) => write!(
                f,
                "the policy does not export {name}: it needs the line `waypost_plugin::export_policy!(YourPolicy);`"
            ),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Start(error) | Error::Read(_, error) => Some(error),
            _ => None,
        }
    }
}
