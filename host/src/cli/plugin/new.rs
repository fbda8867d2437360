//! `waypost plugin new`: a policy's crate to begin with, which builds and passes its tests.

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::super::failure::Failure;
use super::sdk::Sdk;
use crate::config::Policy;

#[derive(Args, Debug)]
pub(in super::super) struct Arguments {
    /// What the policy is called, and its crate, and the directory that is made here for it
    name: String,

    /// What it does to begin with
    #[arg(long, value_enum, default_value_t = Template::Balance)]
    template: Template,

    /// The Waypost repository, or the waypost-plugin crate in it [default: what this program was built from]
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Template {
    /// Two backends at random, and the less loaded one of them
    Balance,
    /// A cookie keeps a client with its backend
    Sticky,
    /// A header field of the request decides, others are changed on the way there and back
    Headers,
}

/// The name that a template's policy has where the new one's is to stand.
const TYPE: &str = "YourPolicy";

impl Template {
    fn source(self) -> &'static str {
        match self {
            Template::Balance => include_str!("../../../templates/balance.rs"),
            Template::Sticky => include_str!("../../../templates/sticky.rs"),
            Template::Headers => include_str!("../../../templates/headers.rs"),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let name = arguments.name.as_str();
    if let Some(wrong) = wrong_with(name) {
        return Err(Failure::usage(
            format!("{name:?} cannot be a policy's name: {wrong}"),
            proposal(name).as_deref(),
        ));
    }
    let sdk = Sdk::find(arguments.sdk.as_deref())?;
    let here = env::current_dir().and_then(|here| here.canonicalize());
    let here = here.map_err(|error| {
        Failure::runtime(format!("there is no current directory: {error}"), None)
    })?;
    let directory = here.join(name);
    if let Some(workspace) = claimed_by(&directory) {
        let title = format!(
            "{name} would become a member of the workspace {}",
            workspace.display()
        );
        let help = "make it in another directory, which its `members` do not name";
        return Err(Failure::runtime(title, Some(help)));
    }
    let files = files(name, arguments.template, &sdk, &directory)?;
    write(name, &directory, &files)?;
    // Cargo leaves out of it what the crate does not need. Without it, it looks for versions of its own.
    if let Some(lock) = &sdk.lock {
        let _ = fs::copy(lock, directory.join("Cargo.lock"));
    }
    // The files are there, whoever reads this.
    let _ = write!(io::stdout(), "{}", next(name));
    Ok(ExitCode::SUCCESS)
}

fn next(name: &str) -> String {
    let steps = [
        (format!("cd {name}"), "its policy is in src/lib.rs"),
        ("cargo test".to_owned(), "its tests, natively"),
        (
            "waypost plugin build".to_owned(),
            "compiled, checked, tried",
        ),
        (format!("waypost demo --policy ./{name}.wasm"), "at work"),
    ];
    let width = steps.iter().map(|(step, _)| step.len()).max().unwrap_or(0);
    let line = |(step, what): &(String, &str)| format!("  {step:<width$}   # {what}\n");
    let lines: String = steps.iter().map(line).collect();
    format!("{name} is there. Next:\n\n{lines}")
}

// === the name ===

/// Names that mean something else to cargo, to the compiler, or in the new crate.
const TAKEN: [&str; 12] = [
    "alloc",
    "build",
    "conformance",
    "core",
    "deps",
    "proc_macro",
    "serde",
    "serde_json",
    "std",
    "test",
    "waypost-conformance",
    "waypost-plugin",
];

const KEYWORDS: [&str; 52] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "union", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Why a name will not do.
fn wrong_with(name: &str) -> Option<&'static str> {
    const LENGTH_MAX: usize = 64;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        Some("it begins with a letter from a to z")
    } else if !name.chars().all(allowed) {
        Some("it has letters from a to z, digits, `-` and `_` only")
    } else if name.len() > LENGTH_MAX {
        Some("it has 64 characters at most")
    } else if KEYWORDS.contains(&name) {
        Some("it is a word of Rust's")
    } else if TAKEN.contains(&name) {
        Some("the name is taken, by Rust or by what the crate uses")
    } else if Policy::built_in(name).is_some() {
        Some("a policy of that name comes with Waypost")
    } else {
        None
    }
}

/// The nearest name that will do.
fn proposal(name: &str) -> Option<String> {
    let replaced: String = name
        .trim_start_matches(|c: char| !c.is_ascii_alphabetic())
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    let proposed = replaced.trim_end_matches('-').to_owned();
    let proposed = match wrong_with(&proposed) {
        None => proposed,
        Some(_) if proposed.is_empty() => return None,
        Some(_) => format!("my-{proposed}"),
    };
    (wrong_with(&proposed).is_none() && proposed != name)
        .then(|| format!("`waypost plugin new {proposed}` would do"))
}

/// `FirstHealthy` for `first-healthy`.
fn type_name(name: &str) -> String {
    /// What the templates use under these names.
    const USED: [&str; 17] = [
        "Backend",
        "BackendId",
        "Backends",
        "Config",
        "Counter",
        "Default",
        "Harness",
        "Option",
        "Outcome",
        "Pick",
        "Policy",
        "Promise",
        "Request",
        "Response",
        "Self",
        "Settings",
        "String",
    ];
    let mut camel = String::new();
    for word in name.split(['-', '_']) {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.extend(letters);
    }
    if USED.contains(&camel.as_str()) {
        camel.insert_str(0, "My");
    }
    camel
}

// === the files ===

/// Each with its path in the crate.
fn files(
    name: &str,
    template: Template,
    sdk: &Sdk,
    directory: &Path,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let ty = type_name(name);
    let mut files = vec![
        ("Cargo.toml", manifest(name, sdk, directory)?),
        ("README.md", readme(name)),
        (".gitignore", "/target\n*.wasm\n".to_owned()),
        ("src/lib.rs", template.source().replace(TYPE, &ty)),
    ];
    if sdk.conformance.is_some() {
        files.push(("tests/conformance.rs", conformance(name, &ty)));
    }
    Ok(files)
}

fn manifest(name: &str, sdk: &Sdk, directory: &Path) -> Result<String, Failure> {
    let quoted = |target: &Path| {
        let path = sdk.path_from(directory, target);
        match path.to_str() {
            Some(path) => Ok(toml::Value::from(path).to_string()),
            None => {
                let title = format!("cargo cannot name {}, which is not UTF-8", path.display());
                Err(Failure::runtime(title, None))
            }
        }
    };
    let plugin = quoted(&sdk.plugin)?;
    let mut manifest = format!(
        "\
[package]
name = \"{name}\"        # what Waypost calls the policy
version = \"0.1.0\"
edition = \"2024\"

[lib]
crate-type = [\"cdylib\", \"rlib\"]   # cdylib is the plugin, rlib is for the tests

[dependencies]
serde = {{ version = \"1\", features = [\"derive\"] }}
waypost-plugin = {{ path = {plugin} }}
"
    );
    if let Some(conformance) = &sdk.conformance {
        manifest += &format!(
            "\n[dev-dependencies]\nwaypost-conformance = {{ path = {} }}\n",
            quoted(conformance)?
        );
    }
    manifest += "\n# The crate stands alone, also within the directory of a workspace. To make it a member, remove this.\n[workspace]\n";
    Ok(manifest)
}

fn conformance(name: &str, ty: &str) -> String {
    let name = name.replace('-', "_");
    format!(
        "\
//! The policy, held to the contract and to what it promises.

use {name}::{ty};

// With settings, and with header fields and labels that mean something to the policy, which nobody could guess:
// use waypost_conformance::Options;
// conforms!({ty}, Options::from(r#\"{{\"key\":1}}\"#).header(\"x-tenant\", \"acme\").label(\"tier\", \"gold\"));
waypost_conformance::conforms!({ty});
"
    )
}

fn readme(name: &str) -> String {
    format!(
        "\
# {name}

A load-balancing policy for Waypost, in `src/lib.rs`.

- its tests, natively: `cargo test`; that it runs in the sandbox, only `plugin build` can tell
- compiled, checked, tried: `waypost plugin build`, which makes `{name}.wasm`
- the conformance suite on what is built: `waypost plugin test {name}.wasm`
- hooks, promises, what it asks for, what it costs: `waypost plugin inspect {name}.wasm`
- at work, in front of three sample servers: `waypost demo --policy ./{name}.wasm`
- what a pick costs: `waypost plugin bench {name}.wasm`; `--against OLD.wasm` compares
- into a server that runs, without losing a request: `waypost policy push {name} {name}.wasm`

In a configuration:

```toml
[policy.{name}]
file = \"{name}.wasm\"
# config = {{ key = 1 }}        # what `configure` gets

[upstream.app]
policy = \"{name}\"
servers = [
    {{ address = \"127.0.0.1:3000\", labels = {{ tier = \"gold\" }} }},
    \"127.0.0.1:3001\",
]
```

`cargo doc --open -p waypost-plugin` has a guide, task by task.
"
    )
}

/// Into a directory that is not there yet.
fn write(name: &str, directory: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    fs::create_dir(directory).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let title = format!("{name} is there already, and stays as it is");
            Failure::runtime(title, Some("choose another name, or another directory"))
        }
        _ => Failure::runtime(format!("cannot make the directory {name}: {error}"), None),
    })?;
    for (path, text) in files {
        let file = directory.join(path);
        let made = file.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&file, text))
            .map_err(|error| {
                Failure::runtime(format!("cannot write {name}/{path}: {error}"), None)
            })?;
    }
    Ok(())
}

// === what is around it ===

/// The manifest of the workspace that takes in every directory of such a name: a crate in it that stands alone would
/// break it.
fn claimed_by(directory: &Path) -> Option<PathBuf> {
    for above in directory.ancestors().skip(1) {
        let manifest = above.join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else {
            continue;
        };
        let Ok(table) = text.parse::<toml::Table>() else {
            continue;
        };
        let Some(workspace) = table.get("workspace") else {
            continue;
        };
        let path = directory.strip_prefix(above).ok()?.to_str()?;
        let members = workspace.get("members").and_then(toml::Value::as_array);
        let mut patterns = members
            .into_iter()
            .flatten()
            .filter_map(toml::Value::as_str);
        // Cargo looks no further up.
        return patterns
            .any(|pattern| matches(pattern, path))
            .then_some(manifest);
    }
    None
}

/// Whether a path is one that a pattern with `*` and `?` stands for, neither of which stands for a `/`; `**` does.
fn matches(pattern: &str, path: &str) -> bool {
    let mut letters = pattern
        .trim_start_matches("./")
        .trim_end_matches('/')
        .chars();
    let pattern = letters.as_str();
    match letters.next() {
        None => path.is_empty(),
        Some('*') => {
            let (rest, far) = match pattern.strip_prefix("**") {
                Some(rest) => (rest, true),
                None => (letters.as_str(), false),
            };
            let end = if far { None } else { path.find('/') };
            let end = end.unwrap_or(path.len());
            (0..=end).any(|at| path.get(at..).is_some_and(|left| matches(rest, left)))
        }
        Some(first) => {
            let mut left = path.chars();
            let found = left.next();
            let same = found == Some(first) || (first == '?' && found.is_some_and(|c| c != '/'));
            same && matches(letters.as_str(), left.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_will_do() {
        for name in [
            "a",
            "first-healthy",
            "first_healthy",
            "p2c",
            "policy",
            "request",
        ] {
            assert_eq!(wrong_with(name), None, "{name}");
        }
        for (name, proposed) in [
            ("", None),
            ("1", None),
            ("---", None),
            ("First-Healthy", Some("first-healthy")),
            ("policies/sticky", Some("policies-sticky")),
            ("3-way", Some("way")),
            ("two words!", Some("two-words")),
            ("-x", Some("x")),
            ("match", Some("my-match")),
            ("std", Some("my-std")),
            ("waypost-plugin", Some("my-waypost-plugin")),
            ("round-robin", Some("my-round-robin")),
            (&"x".repeat(65), Some(&"x".repeat(64))),
        ] {
            assert!(wrong_with(name).is_some(), "{name}");
            let expected = proposed.map(|name| format!("`waypost plugin new {name}` would do"));
            assert_eq!(proposal(name), expected, "{name}");
        }
    }

    #[test]
    fn types_are_named_after_the_crate() {
        for (name, ty) in [
            ("first-healthy", "FirstHealthy"),
            ("p2c", "P2c"),
            ("a__b", "AB"),
            ("policy", "MyPolicy"),
        ] {
            assert_eq!(type_name(name), ty);
        }
    }

    #[test]
    fn members_are_matched_as_cargo_does() {
        for (pattern, path, expected) in [
            ("plugins/*", "plugins/mine", true),
            ("./plugins/*/", "plugins/mine", true),
            ("plugins/*", "plugins/mine/deep", false),
            ("plugins/*", "mine", false),
            ("*", "mine", true),
            ("m?ne", "mine", true),
            ("crates/**", "crates/a/b", true),
            ("host", "host", true),
            ("host", "hosts", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn templates_name_their_policy() {
        for template in Template::value_variants() {
            let source = template.source();
            assert!(source.contains("export_policy!(YourPolicy"), "{template:?}");
        }
    }
}
