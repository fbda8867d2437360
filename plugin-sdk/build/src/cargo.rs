//! Runs cargo inside of whatever runs this, perhaps another cargo, and reads what it has made.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use crate::{
    Cause, Error, TARGET,
    toolchain::{Debian, Toolchain},
};

/// How policies are compiled, whatever the crate's own profile says: for speed first, since a pick is on the path of
/// every request, and in one piece, which makes it smaller too. Stripping leaves the section that describes the
/// component alone.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];

/// Compiles the crates of these manifests, all of one workspace, and returns the module of each.
pub(crate) fn build(
    manifests: &[PathBuf],
    work_dir: &Path,
    target_dir: &Path,
    toolchain: &Toolchain,
) -> Result<Vec<PathBuf>, Error> {
    let target_dir = std::path::absolute(target_dir).map_err(Error::Start)?;
    // Inside of a build script it says which cargo is at work; rustup's own choice otherwise.
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    clean(&mut command)
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(work_dir)
        .arg("--target-dir")
        .arg(target_dir)
        .envs(PROFILE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // It writes to a pipe, and what comes out of that is for the terminal all the same.
    if io::stderr().is_terminal() && env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    if let Some(manifest) = manifests.first() {
        command.arg("--manifest-path").arg(manifest);
    }
    // One is chosen by its manifest alone, whatever its name.
    for manifest in manifests.iter().filter(|_| manifests.len() > 1) {
        let dir = manifest.parent().unwrap_or(manifest);
        command.arg("--package").arg(package_spec(dir));
    }
    let mut mapped = vec![(cargo_home(), "/cargo"), (sdk(), "/waypost-plugin")];
    if let Toolchain::Debian(Debian {
        rustc,
        source,
        linker,
    }) = toolchain
    {
        command
            .arg("-Zbuild-std=std,panic_abort")
            .env("RUSTC", rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        mapped.push((Some(source.clone()), "/rust"));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", encoded_flags(&mapped));

    let mut child = command.spawn().map_err(Error::Start)?;
    let stderr = child.stderr.take();
    let said = thread::spawn(move || stderr.map(pass_on).unwrap_or_default());
    let mut messages = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut messages).map_err(Error::Start)?;
    }
    let status = child.wait().map_err(Error::Start)?;
    let said = said.join().unwrap_or_default();
    if !status.success() {
        return Err(Error::Compile(Cause::of(&said)));
    }
    let artifacts: Vec<Artifact> = messages.lines().filter_map(Artifact::parse).collect();
    manifests
        .iter()
        .map(|manifest| {
            let module = artifacts
                .iter()
                .find_map(|artifact| artifact.module_of(manifest));
            module.ok_or_else(|| Error::NoCdylib(manifest.parent().unwrap_or(manifest).into()))
        })
        .collect()
}

/// Hands what cargo says on to standard error, line by line, and returns the end of it.
fn pass_on(stderr: impl Read) -> String {
    /// What went wrong stands at the end; a build that warns of a lot need not be kept.
    const KEPT_BYTES: usize = 256 * 1024;
    let mut said = String::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // A closed standard error is no reason to stop building.
        let _ = writeln!(io::stderr(), "{line}");
        if said.len() > KEPT_BYTES {
            said.clear();
        }
        said.push_str(&line);
        said.push('\n');
    }
    said
}

/// Takes out of a command's environment what an outer cargo, rustup's proxies, clippy or a user's settings for native
/// code have put there for another build.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        if !inherits(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a variable is as good for a nested build as for the one around it.
fn inherits(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return true;
    };
    // Where things come from and how cargo talks; and the outer build's pool of jobs.
    const KEPT: [&str; 9] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_RESOLVER_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const DROPPED: [&str; 10] = [
        "CARGO",
        "CLIPPY_",
        "DEP_",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "TARGET",
    ];
    KEPT.iter().any(|kept| name.starts_with(kept))
        || !DROPPED.iter().any(|dropped| name.starts_with(dropped))
}

/// The package of a directory of its name: cargo takes a URL, and the last part of it for the name.
fn package_spec(dir: &Path) -> OsString {
    let mut spec = OsString::from("path+file://");
    spec.push(dir);
    spec
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// The SDK that this crate came with. For a crate outside of its workspace, cargo names its files in full.
fn sdk() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()?
        .canonicalize()
        .ok()
}

/// Flags for the compiler in the one form that also keeps those of a configuration file out. Panic messages name the
/// file they come from; mapping the directories of this machine away keeps them out of the module, and its bytes the
/// same on all machines.
fn encoded_flags(mapped: &[(Option<PathBuf>, &str)]) -> OsString {
    let mut flags = Vec::new();
    for (from, to) in mapped {
        if let Some(from) = from {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flags.push(flag);
        }
    }
    flags.join(OsStr::new("\u{1f}"))
}

/// The part of one of cargo's messages that matters here. The messages are JSON that cargo alone writes, one object a
/// line, so three look-ups do without a parser and this crate without a dependency.
#[derive(Debug, PartialEq)]
struct Artifact {
    manifest: PathBuf,
    cdylib: bool,
    files: Vec<PathBuf>,
}

impl Artifact {
    fn parse(line: &str) -> Option<Self> {
        if !line.starts_with(r#"{"reason":"compiler-artifact""#) {
            return None;
        }
        Some(Artifact {
            manifest: strings(line, r#""manifest_path":"#)?.pop()?.into(),
            cdylib: strings(line, r#""crate_types":"#)?
                .iter()
                .any(|kind| kind == "cdylib"),
            files: strings(line, r#""filenames":"#)?
                .into_iter()
                .map(PathBuf::from)
                .collect(),
        })
    }

    fn module_of(&self, manifest: &Path) -> Option<PathBuf> {
        if !self.cdylib || self.manifest.canonicalize().ok()? != manifest {
            return None;
        }
        self.files
            .iter()
            .find(|file| file.extension() == Some(OsStr::new("wasm")))
            .cloned()
    }
}

/// The string, or the strings of the array, that follow a key.
fn strings(line: &str, key: &str) -> Option<Vec<String>> {
    let (_, value) = line.split_once(key)?;
    let array = value.starts_with('[');
    let mut chars = value.chars();
    let mut strings = Vec::new();
    loop {
        match chars.next()? {
            '"' => {
                let mut string = String::new();
                loop {
                    match chars.next()? {
                        '"' => break,
                        // Paths need no other escapes than those of the backslash and the quote.
                        '\\' => string.push(chars.next()?),
                        other => string.push(other),
                    }
                }
                strings.push(string);
                if !array {
                    return Some(strings);
                }
            }
            ']' => return Some(strings),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_artifact() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/p#rr@0.1.0","manifest_path":"/w/p/Cargo.toml","target":{"kind":["cdylib","rlib"],"crate_types":["cdylib","rlib"],"name":"rr","src_path":"/w/p/src/lib.rs"},"profile":{"opt_level":"3"},"features":[],"filenames":["/t/a \"b\"\\c/rr.wasm","/t/librr.rlib"],"executable":null,"fresh":true}"#;
        let artifact = Artifact::parse(line).unwrap();
        assert_eq!(
            artifact,
            Artifact {
                manifest: "/w/p/Cargo.toml".into(),
                cdylib: true,
                files: vec![r#"/t/a "b"\c/rr.wasm"#.into(), "/t/librr.rlib".into()],
            }
        );
        assert_eq!(
            Artifact::parse(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(
            Artifact::parse(r#"{"reason":"compiler-artifact","manifest_path":"#),
            None
        );
        assert_eq!(Artifact::parse(""), None);
    }

    #[test]
    fn keeps_another_builds_settings_out() {
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_TERM_COLOR",
            "CARGO_MAKEFLAGS",
            "PATH",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(inherits(OsStr::new(name)), "{name}");
        }
        for name in [
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_FEATURE_COMPONENT",
            "CARGO_TARGET_DIR",
            "CLIPPY_ARGS",
            "OUT_DIR",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTDOCFLAGS",
            "RUSTFLAGS",
            "TARGET",
        ] {
            assert!(!inherits(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn maps_directories_away() {
        let mapped = [
            (Some("/home/me/.cargo".into()), "/cargo"),
            (None, "/x"),
            (Some("/src".into()), "/rust"),
        ];
        assert_eq!(
            encoded_flags(&mapped),
            "--remap-path-prefix=/home/me/.cargo=/cargo\u{1f}--remap-path-prefix=/src=/rust"
        );
    }
}
