//! What beginners run into, known by what cargo and the compiler say of it.

use std::fmt;

/// Why a policy does not compile, where the compiler's own words do not lead to the remedy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// Some crate wants random numbers of the machine.
    Randomness,
    /// Some crate wants sockets, threads or an event loop of the machine.
    Machine,
    /// The crate is in the directory of a workspace and not a member of it.
    Workspace,
    /// The directory of the SDK has moved.
    Sdk,
}

/// In the order of how much they explain. All parts must be there.
const SIGNS: [(&[&str], Cause); 8] = [
    (
        &["believes it's in a workspace when it's not"],
        Cause::Workspace,
    ),
    (&["failed to ", "`waypost-plugin`"], Cause::Sdk),
    (&["no matching package named `waypost-plugin`"], Cause::Sdk),
    (&["could not compile `getrandom`"], Cause::Randomness),
    (
        &["targets are not supported by default, you may need to enable"],
        Cause::Randomness,
    ),
    (&["could not compile `mio`"], Cause::Machine),
    (&["could not compile `socket2`"], Cause::Machine),
    (
        &["are supported on wasm", "could not compile `tokio`"],
        Cause::Machine,
    ),
];

impl Cause {
    /// Recognises what was said on standard error.
    pub(crate) fn of(said: &str) -> Option<Cause> {
        let found = SIGNS
            .into_iter()
            .find(|(parts, _)| parts.iter().all(|part| said.contains(part)));
        found.map(|(_, cause)| cause)
    }

    pub(crate) fn help(self) -> &'static str {
        match self {
            Cause::Randomness => {
                "take random numbers from `waypost_plugin::random()`; \
                 `cargo tree --target wasm32-unknown-unknown -i getrandom` shows who asks for others: \
                 do without that crate, or without the feature of it that does"
            }
            Cause::Machine => {
                "a policy decides by what `Request` and `Backends` tell, and has no input or output of its own: \
                 do without that crate"
            }
            Cause::Workspace => {
                "give the crate's Cargo.toml an empty `[workspace]` table, which keeps it out of that workspace, \
                 or name the crate in the workspace's `members`"
            }
            Cause::Sdk => {
                "in its Cargo.toml, the `path` of waypost-plugin is that of the directory `plugin-sdk` in the \
                 Waypost repository"
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Randomness => {
                "one of its crates asks the machine for random numbers, which a policy cannot"
            }
            Cause::Machine => {
                "one of its crates asks the machine for sockets or threads, which a policy does not have"
            }
            Cause::Workspace => "it lies in a workspace that does not know it",
            Cause::Sdk => "the waypost-plugin crate is not where its Cargo.toml says",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_what_the_compiler_says() {
        for (said, cause) in [
            (
                "error: The wasm32-unknown-unknown targets are not supported by default; you may need to enable the \
                 \"wasm_js\" configuration flag.\nerror: could not compile `getrandom` (lib) due to 3 previous errors",
                Some(Cause::Randomness),
            ),
            (
                "error: This wasm target is unsupported by mio.\nerror: could not compile `mio` (lib)",
                Some(Cause::Machine),
            ),
            (
                "error: current package believes it's in a workspace when it's not:\ncurrent:   /p/Cargo.toml",
                Some(Cause::Workspace),
            ),
            (
                "error: failed to get `waypost-plugin` as a dependency of package `p v0.1.0 (/p)`",
                Some(Cause::Sdk),
            ),
            (
                "error[E0425]: cannot find value `x`\nerror: could not compile `p` (lib)",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(Cause::of(said), cause, "{said}");
        }
    }
}
