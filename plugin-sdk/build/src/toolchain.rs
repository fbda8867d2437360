//! Finds a standard library for WebAssembly: which of the ways to take is decided by [`choose`], which asks a
//! [`Machine`] and touches nothing itself.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, TARGET, cargo};

/// Debian's compiler with its library source: packages `rustc-web` and `rust-web-src`.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// How to get a standard library for WebAssembly.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Toolchain {
    /// The active toolchain has it.
    Active,
    /// Compile it along with the crate.
    Debian(Debian),
}

/// What it takes to compile the standard library.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Debian {
    pub(crate) rustc: PathBuf,
    /// The directory with the library's source, which ends up in panic messages unless it is mapped to something
    /// that is the same on all machines.
    pub(crate) source: PathBuf,
    pub(crate) linker: PathBuf,
}

/// A way that the user insists on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    Active,
    Rustup,
    Debian,
}

impl Choice {
    pub(crate) fn parse(wish: &OsStr) -> Option<Self> {
        match wish.to_str()? {
            "active" => Some(Choice::Active),
            "rustup" => Some(Choice::Rustup),
            "debian" => Some(Choice::Debian),
            _ => None,
        }
    }
}

/// What can be asked of a machine. Reasons are clauses that complete a list.
pub(crate) trait Machine {
    /// Whether the active toolchain has the target's standard library.
    fn has_library(&self) -> Result<(), String>;
    /// Has rustup install it.
    fn add_library(&self) -> Result<(), String>;
    /// Looks for what it takes to compile it.
    fn find_debian(&self) -> Result<Debian, String>;
}

/// Takes the first way that leads there, or the one that was chosen.
pub(crate) fn choose(machine: &impl Machine, choice: Option<Choice>) -> Result<Toolchain, Error> {
    let mut tried = Vec::new();
    for way in [Choice::Active, Choice::Rustup, Choice::Debian] {
        if choice.is_some_and(|choice| choice != way) {
            continue;
        }
        let toolchain = match way {
            Choice::Active => machine.has_library().map(|()| Toolchain::Active),
            // What rustup installs becomes part of the active toolchain.
            Choice::Rustup => machine.add_library().map(|()| Toolchain::Active),
            Choice::Debian => machine.find_debian().map(Toolchain::Debian),
        };
        match toolchain {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => tried.push(reason),
        }
    }
    Err(Error::NoStandardLibrary(tried))
}

/// The machine that this runs on, as seen from a crate: rustup picks the toolchain by directory.
pub(crate) struct ThisMachine<'a> {
    work_dir: &'a Path,
}

impl<'a> ThisMachine<'a> {
    pub(crate) fn new(work_dir: &'a Path) -> Self {
        ThisMachine { work_dir }
    }

    /// Runs a program and returns what it prints, or the last thing it says when it fails.
    fn ask(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Result<String, String> {
        let program = program.as_ref();
        let mut command = Command::new(program);
        cargo::clean(&mut command)
            .args(args)
            .current_dir(self.work_dir)
            .stdin(Stdio::null());
        let name = program.display();
        let output = command
            .output()
            .map_err(|error| format!("{name} could not be started: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines = || said.lines().rev();
        let last = lines()
            .find(|line| line.starts_with("error"))
            .or_else(|| lines().find(|line| !line.trim().is_empty()));
        Err(format!(
            "{name} {} failed: {}",
            args.join(" "),
            last.unwrap_or("it did not say why")
        ))
    }

    /// `rust-lld`, which links WebAssembly, comes with rustup's toolchains; Debian has it in a package of its own.
    fn find_linker(&self) -> Result<PathBuf, String> {
        for rustc in ["rustc", DEBIAN_RUSTC] {
            let (Ok(sysroot), Ok(version)) = (
                self.ask(rustc, &["--print", "sysroot"]),
                self.ask(rustc, &["-vV"]),
            ) else {
                continue;
            };
            let Some(host) = version.lines().find_map(|line| line.strip_prefix("host: ")) else {
                continue;
            };
            let linker = Path::new(&sysroot)
                .join("lib/rustlib")
                .join(host)
                .join("bin/rust-lld");
            if linker.is_file() {
                return Ok(linker);
            }
        }
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .flat_map(|dir| ["rust-lld", "wasm-ld"].map(|name| dir.join(name)))
            .find(|linker| linker.is_file())
            .ok_or_else(|| {
                "Debian's compiler would do, but there is no linker: neither rust-lld nor wasm-ld"
                    .into()
            })
    }
}

impl Machine for ThisMachine<'_> {
    fn has_library(&self) -> Result<(), String> {
        let dir = self.ask("rustc", &["--print", "target-libdir", "--target", TARGET])?;
        let files = fs::read_dir(&dir).into_iter().flatten().flatten();
        let has = files.map(|file| file.file_name()).any(|name| {
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        });
        if has {
            Ok(())
        } else {
            Err("the active toolchain does not have it".into())
        }
    }

    fn add_library(&self) -> Result<(), String> {
        self.ask("rustup", &["target", "add", TARGET]).map(|_| ())
    }

    fn find_debian(&self) -> Result<Debian, String> {
        if !Path::new(DEBIAN_RUSTC).is_file() {
            return Err(format!("there is no {DEBIAN_RUSTC}"));
        }
        let sysroot = self.ask(DEBIAN_RUSTC, &["--print", "sysroot"])?;
        let source = Path::new(&sysroot).join("lib/rustlib/src/rust");
        if !source.join("library/std/Cargo.toml").is_file() {
            return Err(format!(
                "{DEBIAN_RUSTC} is there, but its library source is not"
            ));
        }
        Ok(Debian {
            rustc: DEBIAN_RUSTC.into(),
            source,
            linker: self.find_linker()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A machine on which each way leads there or not, and which remembers what it was asked.
    struct Fake {
        active: bool,
        rustup: bool,
        debian: bool,
        asked: RefCell<Vec<Choice>>,
    }

    impl Fake {
        fn new(active: bool, rustup: bool, debian: bool) -> Self {
            Fake {
                active,
                rustup,
                debian,
                asked: RefCell::default(),
            }
        }

        fn answer(&self, way: Choice, leads: bool) -> Result<(), String> {
            self.asked.borrow_mut().push(way);
            if leads {
                Ok(())
            } else {
                Err(format!("not by {way:?}"))
            }
        }
    }

    impl Machine for Fake {
        fn has_library(&self) -> Result<(), String> {
            self.answer(Choice::Active, self.active)
        }

        fn add_library(&self) -> Result<(), String> {
            self.answer(Choice::Rustup, self.rustup)
        }

        fn find_debian(&self) -> Result<Debian, String> {
            self.answer(Choice::Debian, self.debian).map(|()| debian())
        }
    }

    fn debian() -> Debian {
        Debian {
            rustc: "/usr/bin/rustc".into(),
            source: "/src".into(),
            linker: "/lld".into(),
        }
    }

    #[test]
    fn takes_the_first_way_that_leads_there() {
        use Choice::{Active, Debian, Rustup};
        let by_debian = Toolchain::Debian(debian());
        for (machine, choice, expected, asked) in [
            (
                Fake::new(true, true, true),
                None,
                Some(Toolchain::Active),
                &[Active][..],
            ),
            (
                Fake::new(false, true, true),
                None,
                Some(Toolchain::Active),
                &[Active, Rustup],
            ),
            (
                Fake::new(false, false, true),
                None,
                Some(by_debian.clone()),
                &[Active, Rustup, Debian],
            ),
            (
                Fake::new(false, false, false),
                None,
                None,
                &[Active, Rustup, Debian],
            ),
            (
                Fake::new(true, true, true),
                Some(Debian),
                Some(by_debian),
                &[Debian],
            ),
            (
                Fake::new(true, true, true),
                Some(Rustup),
                Some(Toolchain::Active),
                &[Rustup],
            ),
            (Fake::new(false, true, true), Some(Active), None, &[Active]),
        ] {
            assert_eq!(choose(&machine, choice).ok(), expected);
            assert_eq!(*machine.asked.borrow(), asked);
        }
    }

    #[test]
    fn names_the_remedies_where_no_way_leads_there() {
        let error = choose(&Fake::new(false, false, false), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no Rust standard library for wasm32-unknown-unknown:\n\
             \x20 - not by Active\n\
             \x20 - not by Rustup\n\
             \x20 - not by Debian"
        );
        assert_eq!(
            error.help().unwrap(),
            "either of these provides it:\n\
             \x20   rustup target add wasm32-unknown-unknown\n\
             \x20   apt-get install rustc-web rust-web-src   (Debian)"
        );
    }

    #[test]
    fn reads_the_choice() {
        assert_eq!(Choice::parse(OsStr::new("debian")), Some(Choice::Debian));
        assert_eq!(Choice::parse(OsStr::new("Debian")), None);
    }
}
