//! What to do about a policy that does not load, by what it says of itself.

use crate::policy::PolicyFailure;

const BROKEN: &str = "the policy is broken: run its tests, or use another one";
const NO_CLOCK: &str = "a policy has no clock of its own: it reads the host's with `waypost_plugin::now()` instead of std::time";
const NO_SYSTEM: &str = "a policy has no files, sockets, threads or environment: what it is to know comes in its `config` table";

/// What policies ask of WASI, and where it is found instead.
pub(super) const NO_WASI: &str = "policies have no files, sockets or clock of their own: build for wasm32-unknown-unknown and use the functions of waypost-plugin";

/// What to do about a policy that fails in a trial.
pub(super) fn on_failure(hook: &str, failure: &PolicyFailure) -> &'static str {
    let PolicyFailure::Trap(reason) = failure else {
        return BROKEN;
    };
    // The words of Rust's standard library where there is no operating system.
    if reason.contains("time not implemented on this platform") {
        NO_CLOCK
    } else if reason.contains("not supported on this platform") {
        NO_SYSTEM
    } else if hook == "configure" && reason.starts_with("panicked at ") {
        "where settings are wrong, let `configure` return `Err` with a sentence that says what to change; it must not panic"
    } else {
        BROKEN
    }
}

/// What to do about a file that does not begin as WebAssembly does: what it is, and the remedy.
pub(super) fn on_other_file(bytes: &[u8]) -> (&'static str, &'static str) {
    const BUILD: &str =
        "`waypost plugin build DIR`, where DIR is the policy's crate, makes one for WebAssembly";
    const MACH_O: [&[u8]; 3] = [
        b"\xcf\xfa\xed\xfe",
        b"\xce\xfa\xed\xfe",
        b"\xca\xfe\xba\xbe",
    ];
    if bytes.starts_with(b"!<arch>\n") {
        let remedy = "it takes crate-type = [\"cdylib\", \"rlib\"] in the [lib] of its Cargo.toml, and `waypost plugin build`";
        ("is a library for Rust's linker, not WebAssembly", remedy)
    } else if bytes.starts_with(b"\x7fELF")
        || bytes.starts_with(b"MZ")
        || MACH_O.iter().any(|magic| bytes.starts_with(magic))
    {
        ("is built for this machine, not for WebAssembly", BUILD)
    } else {
        (
            "is not WebAssembly",
            "name a .wasm file built from a policy crate",
        )
    }
}

/// What to do about a module that the encoder does not take, by its words.
pub(super) fn on_module(reason: &str) -> &'static str {
    if reason.contains("wasi_snapshot_preview1") {
        NO_WASI
    } else {
        "a policy crate has `export_policy!(YourPolicy);` in its lib.rs and crate-type = [\"cdylib\"]; see the README"
    }
}

/// What in a module will fail as soon as it is reached, though a trial may not have reached it.
pub(crate) fn doubts(wasm: &[u8]) -> Option<(&'static str, &'static str)> {
    // The words are in the module only where the code that says them is.
    let has = |words: &[u8]| wasm.windows(words.len()).any(|window| window == words);
    if has(b"time not implemented on this platform") {
        Some((
            "it uses the clock of std::time, which panics in a policy",
            NO_CLOCK,
        ))
    } else if has(b"operation not supported on this platform") {
        let doubt =
            "it uses files, sockets, threads or the environment, which always fails in a policy";
        Some((doubt, NO_SYSTEM))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_webassembly_is_told_apart() {
        for (bytes, what) in [
            (&b"\x7fELF\x02\x01"[..], "built for this machine"),
            (b"MZ\x90", "built for this machine"),
            (b"\xcf\xfa\xed\xfe\x07", "built for this machine"),
            (b"!<arch>\n/", "Rust's linker"),
            (b"fn main() {}", "is not WebAssembly"),
            (b"", "is not WebAssembly"),
        ] {
            let (problem, _) = on_other_file(bytes);
            assert!(problem.contains(what), "{problem}");
        }
    }

    #[test]
    fn policies_that_come_along_raise_no_doubts() {
        for name in crate::config::BUILT_IN {
            assert_eq!(doubts(crate::built_in::policy(name).unwrap()), None);
        }
    }
}
