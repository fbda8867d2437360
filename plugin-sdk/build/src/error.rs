//! What can go wrong, each with what to do about it.

use std::{error, fmt, io, path::PathBuf};

use crate::{Cause, TARGET, TOOLCHAIN_VARIABLE};

/// Why a policy could not be built. `Display` says what is wrong, [`help`](Error::help) what to do about it.
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
    /// Cargo failed; it has said why on standard error. Where that is one of the things that many run into first, this
    /// says what it means.
    Compile(Option<Cause>),
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
            Error::NoCdylib(dir) => {
                write!(f, "the crate in {} does not build a plugin", dir.display())
            }
            Error::NoPolicy(dir) => write!(f, "the crate in {} exports no policy", dir.display()),
            Error::UnknownToolchain(wish) => {
                write!(f, "{TOOLCHAIN_VARIABLE}={wish} means nothing")
            }
            Error::NoStandardLibrary(tried) => {
                write!(f, "there is no Rust standard library for {TARGET}:")?;
                tried
                    .iter()
                    .try_for_each(|reason| write!(f, "\n  - {reason}"))
            }
            Error::Start(_) => f.write_str("cargo could not be started"),
            Error::Compile(None) => f.write_str("the policy does not compile: cargo has said why"),
            Error::Compile(Some(cause)) => write!(f, "the policy does not compile: {cause}"),
            Error::Read(path, _) => write!(f, "{} could not be read", path.display()),
            Error::Wrap(reason) => write!(f, "the module cannot be made a component: {reason}"),
            Error::ForeignImport(name) => {
                write!(f, "the policy imports {name}, which the host does not have")
            }
            Error::MissingExport(name) => write!(f, "the policy does not export {name}"),
        }
    }
}

impl Error {
    /// What to do about it, in one line or more; `None` where only the cause can tell.
    pub fn help(&self) -> Option<String> {
        const EXPORT: &str =
            "its lib.rs needs the line `waypost_plugin::export_policy!(YourPolicy);`";
        let help = match self {
            Error::NoManifest(_) => {
                "name the directory of a policy's crate; `waypost plugin new NAME` makes one"
            }
            Error::NoCdylib(_) => {
                "its Cargo.toml needs\n\n    [lib]\n    crate-type = [\"cdylib\", \"rlib\"]\n\n\
                 and the policy is in src/lib.rs, not in src/main.rs"
            }
            Error::NoPolicy(_) | Error::MissingExport(_) => EXPORT,
            Error::UnknownToolchain(_) => "it can be active, rustup or debian",
            Error::NoStandardLibrary(_) => {
                return Some(format!(
                    "either of these provides it:\n    rustup target add {TARGET}\n    \
                     apt-get install rustc-web rust-web-src   (Debian)"
                ));
            }
            Error::Start(_) => "install Rust, from https://rustup.rs for instance",
            Error::Compile(Some(cause)) => cause.help(),
            Error::ForeignImport(_) => "a policy gets all that it may use from waypost_plugin",
            Error::Compile(None) | Error::Read(..) | Error::Wrap(_) => return None,
        };
        Some(help.to_owned())
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
