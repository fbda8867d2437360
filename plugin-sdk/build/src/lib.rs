//! Builds Waypost policies: crate directory in, checked component out.
//!
//! The one builder of the project: the host's build script uses it for the policies that it embeds, the tests for
//! their guests, and `waypost plugin build` for everybody else's. It finds a standard library for WebAssembly on this
//! machine (see [`TOOLCHAIN_VARIABLE`]), runs cargo with settings that suit a policy, and says what to do
//! if something is missing.
//!
//! ```no_run
//! use waypost_plugin_build::Builder;
//!
//! # fn main() -> Result<(), waypost_plugin_build::Error> {
//! let builder = Builder::new("target/policies");
//! let module = builder.module("plugins/round-robin")?;
//! println!("a core module, which the host takes as it is: {}", module.display());
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]

mod cargo;
mod cause;
#[cfg(feature = "component")]
mod component;
mod error;
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

pub use cause::Cause;
#[cfg(feature = "component")]
pub use component::componentize;
pub use error::Error;

use toolchain::{Choice, ThisMachine};

/// The target that policies are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The environment variable that picks the way to the target's standard library. Without it they are tried in order:
///
/// - `active`: the active toolchain has it already;
/// - `rustup`: `rustup target add` installs it;
/// - `debian`: Debian's `rustc-web` compiles it from `rust-web-src`.
///
/// A build script should print `cargo::rerun-if-env-changed` for it.
pub const TOOLCHAIN_VARIABLE: &str = "WAYPOST_WASM_TOOLCHAIN";

/// What every policy has: the export by which a module is known for one.
const POLICY_MARK: &[u8] = b"waypost:policy/balance@";

/// Builds policies, all in one target directory.
#[derive(Clone, Debug)]
pub struct Builder {
    target_dir: PathBuf,
    choice: Option<Choice>,
    bad_choice: Option<String>,
}

impl Builder {
    /// A builder that keeps cargo's work in `target_dir`, which must not be the target directory of a cargo that waits
    /// for this build: the two would wait for each other.
    ///
    /// Reads [`TOOLCHAIN_VARIABLE`].
    pub fn new(target_dir: impl Into<PathBuf>) -> Self {
        let wish = env::var_os(TOOLCHAIN_VARIABLE).filter(|wish| !wish.is_empty());
        let choice = wish.as_ref().map(|wish| Choice::parse(wish));
        Builder {
            target_dir: target_dir.into(),
            choice: choice.flatten(),
            bad_choice: wish
                .filter(|_| choice == Some(None))
                .map(|wish| wish.to_string_lossy().into_owned()),
        }
    }

    /// Compiles the crate in this directory to a core module and returns its path, which is in the target directory.
    ///
    /// What the compiler has to say goes to standard error.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; each says what to do about it.
    pub fn module(&self, crate_dir: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let mut modules = self.modules(&[crate_dir])?;
        modules.pop().ok_or(Error::Compile(None))
    }

    /// Compiles several crates of one workspace in one go, and returns the paths of their core modules in the same
    /// order.
    ///
    /// # Errors
    ///
    /// As [`module`](Self::module): the first one met.
    pub fn modules(&self, crate_dirs: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>, Error> {
        if let Some(wish) = &self.bad_choice {
            return Err(Error::UnknownToolchain(wish.clone()));
        }
        let manifests = crate_dirs
            .iter()
            .map(|dir| manifest(dir.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(work_dir) = crate_dirs.first() else {
            return Ok(Vec::new());
        };
        let machine = ThisMachine::new(work_dir.as_ref());
        let toolchain = toolchain::choose(&machine, self.choice)?;
        let modules = cargo::build(&manifests, work_dir.as_ref(), &self.target_dir, &toolchain)?;
        for (module, dir) in modules.iter().zip(crate_dirs) {
            let bytes = fs::read(module).map_err(|error| Error::Read(module.clone(), error))?;
            if !bytes
                .windows(POLICY_MARK.len())
                .any(|window| window == POLICY_MARK)
            {
                return Err(Error::NoPolicy(dir.as_ref().into()));
            }
        }
        Ok(modules)
    }

    /// Compiles the crate in this directory, wraps it into a component and checks that it is a policy.
    ///
    /// # Errors
    ///
    /// As [`module`](Self::module) and [`componentize`].
    #[cfg(feature = "component")]
    pub fn component(&self, crate_dir: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let module = self.module(crate_dir)?;
        let bytes = fs::read(&module).map_err(|error| Error::Read(module, error))?;
        componentize(&bytes)
    }
}

/// The absolute path of a crate's manifest, in the form in which cargo's messages name it up to links.
///
/// A manifest that nowhere says `cdylib` cannot ask for one: better to say so now than after minutes of compiling.
fn manifest(dir: &Path) -> Result<PathBuf, Error> {
    let manifest =
        fs::canonicalize(dir.join("Cargo.toml")).map_err(|_| Error::NoManifest(dir.into()))?;
    match fs::read_to_string(&manifest) {
        Ok(text) if text.contains("cdylib") => Ok(manifest),
        Ok(_) => Err(Error::NoCdylib(dir.into())),
        Err(error) => Err(Error::Read(manifest, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(manifest: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        if let Some(manifest) = manifest {
            fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
        }
        let error = Builder::new(dir.path().join("target"))
            .module(dir.path())
            .unwrap_err();
        let help = error.help().unwrap_or_default();
        format!("{error}: {help}").replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn says_what_a_plugin_crate_needs() {
        assert_eq!(
            refusal(None),
            "DIR is not a crate: it has no Cargo.toml: name the directory of a policy's crate; \
             `waypost plugin new NAME` makes one"
        );
        let refusal = refusal(Some("[package]\nname = \"x\"\n"));
        assert!(
            refusal.starts_with("the crate in DIR does not build a plugin"),
            "{refusal}"
        );
        assert!(
            refusal.contains(r#"crate-type = ["cdylib", "rlib"]"#),
            "{refusal}"
        );
    }
}
