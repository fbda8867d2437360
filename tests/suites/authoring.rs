//! The author's loop: from `waypost plugin new` to a policy that Waypost takes, and what it says to those who err on the
//! way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::guests::{guest, target_dir};
use crate::process::waypost;

/// A directory to work in, with nothing around it.
fn workshop() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// One test at a time, from the first file that it writes: crates of one name are one crate to cargo where they share a
/// target directory, and what is older than the last build is taken for built.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(directory: &Path, arguments: &[&str]) -> Ran {
    ran(builds(&mut waypost(directory, arguments)))
}

/// One target directory for all: what policies depend on is compiled once. Cargo says only what is wrong.
fn builds(command: &mut Command) -> &mut Command {
    command
        .env("CARGO_TARGET_DIR", target_dir())
        .env("CARGO_TERM_QUIET", "true")
        .env("CARGO_TERM_COLOR", "never")
}

fn ran(command: &mut Command) -> Ran {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn succeeded(self) -> Ran {
        assert_eq!(self.status, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }
}

// === what it says to those who err ===

/// Each folder of `golden/authoring` is a crate made by `waypost plugin new mine` (with `--template` where `template`
/// says so) and then spoiled: the files of the folder, and before them those of the case that `like` names, are put over
/// it, with `{sdk}` in them the directory of the SDK.
/// `args`, `stdout`, `stderr` and `status` are as in `golden/commands`.
///
/// `UPDATE_GOLDEN=1` writes what comes out instead of comparing it.
#[test]
fn every_mistake_of_a_beginner_has_an_answer() {
    let _turn = turn();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/authoring");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| !value.is_empty());
    let cases: BTreeSet<PathBuf> = fs::read_dir(cases)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let mut wrong = Vec::new();
    for case in cases {
        let directory = workshop();
        let template = read(&case.join("template"));
        let template = template.trim();
        let template = if template.is_empty() {
            "balance"
        } else {
            template
        };
        let new = ["plugin", "new", "mine", "--template", template];
        run(directory.path(), &new).succeeded();
        let like = read(&case.join("like"));
        if !like.is_empty() {
            let like = case.with_file_name(like.trim());
            spoil(&like, &like, &directory.path().join("mine"));
        }
        spoil(&case, &case, &directory.path().join("mine"));

        let arguments = read(&case.join("args"));
        let arguments: Vec<&str> = arguments.lines().collect();
        let ended = run(directory.path(), &arguments);
        let shown = |text: &str| {
            without_chance(&text.replace(&*directory.path().to_string_lossy(), "{dir}"))
        };
        let status = ended
            .status
            .map_or("a signal".into(), |code| code.to_string());
        for (name, actual) in [
            ("status", format!("{status}\n")),
            ("stdout", shown(&ended.stdout)),
            ("stderr", shown(own(&ended.stderr))),
        ] {
            let golden = case.join(name);
            if update {
                if actual.is_empty() {
                    let _ = fs::remove_file(&golden);
                } else {
                    fs::write(&golden, actual).expect("a golden file");
                }
            } else if read(&golden) != actual {
                let expected = read(&golden);
                wrong.push(format!(
                    "--- {} should be\n{expected}--- and is\n{actual}--- of\n{}",
                    golden.display(),
                    ended.stderr
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is not there is empty.
fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Puts a case's files over a crate.
fn spoil(case: &Path, from: &Path, to: &Path) {
    const OF_THE_CASE: [&str; 6] = ["args", "like", "template", "status", "stdout", "stderr"];
    for entry in fs::read_dir(from).expect("a directory") {
        let source = entry.expect("an entry").path();
        let name = source.file_name().expect("a name");
        if from == case && OF_THE_CASE.iter().any(|reserved| name == *reserved) {
            continue;
        }
        let target = to.join(name);
        if source.is_dir() {
            spoil(case, &source, &target);
        } else {
            let text = read(&source).replace("{sdk}", &sdk().to_string_lossy());
            fs::write(target, text).expect("a file in a crate");
        }
    }
}

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("a repository").into()
}

fn sdk() -> PathBuf {
    repository().join("plugin-sdk")
}

/// What Waypost says after cargo and the compiler have had their say, whose words are not ours: its error is the last,
/// and there are none of theirs before a warning of its.
fn own(stderr: &str) -> &str {
    let error = stderr.rfind("\nerror: ").map(|at| at + 1);
    &stderr[error.unwrap_or(0)..]
}

/// Digests, sizes, times and places in the standard library, which may differ from one machine to the next.
fn without_chance(text: &str) -> String {
    let word = |word: &str| {
        let digits = word.trim_end_matches(['\n', ':']);
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            word.replace(digits, "{digest}")
        } else if digits.len() == 27 && digits.ends_with('Z') {
            "{time}".to_owned()
        } else if word.contains("/library/") {
            "{library}:".to_owned()
        } else {
            word.to_owned()
        }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let text = text.split('\n').map(line).collect::<Vec<_>>().join("\n");
    // `118.2 KiB`
    let mut words: Vec<&str> = text.split(' ').collect();
    for at in 1..words.len() {
        if words[at].starts_with("KiB") {
            words[at - 1] = "{size}";
        }
    }
    words.join(" ")
}

/// A crate whose SDK speaks another version of the contract.
#[test]
fn a_policy_of_another_contract_is_told_so() {
    let _turn = turn();
    let directory = workshop();
    let old = directory.path().join("waypost-of-then");
    copy(&sdk(), &old.join("plugin-sdk"));
    let manifest = read(&repository().join("Cargo.toml"));
    // Members are not copied, but for one.
    let (_, rest) = manifest.split_once("[workspace.package]").expect("a table");
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"plugin-sdk\"]\n[workspace.package]";
    fs::write(old.join("Cargo.toml"), format!("{members}{rest}")).expect("a manifest");
    fs::copy(repository().join("Cargo.lock"), old.join("Cargo.lock")).expect("a lock");
    let contract = old.join("plugin-sdk/wit/policy.wit");
    let text = read(&contract);
    let other = text.replace("waypost:policy@0.1.", "waypost:policy@0.0.");
    assert_ne!(text, other);
    fs::write(contract, other).expect("a contract");

    let new = ["plugin", "new", "mine", "--sdk", "waypost-of-then"];
    run(directory.path(), &new).succeeded();
    let built = run(directory.path(), &["plugin", "build", "mine"]);
    assert_eq!(built.status, Some(1), "{built:?}");
    for part in [
        "error: the policy in mine is built for version 0.0.0 of the contract; this host speaks 0.1.0",
        "= help: build it again with the waypost-plugin crate of this version",
    ] {
        assert!(built.stderr.contains(part), "{}", built.stderr);
    }
    assert!(!directory.path().join("mine.wasm").exists());
}

/// Sources alone.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let source = entry.expect("an entry").path();
        let target = to.join(source.file_name().expect("a name"));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, target).expect("a copy");
        }
    }
}

// === the loop ===

#[test]
fn every_template_becomes_a_policy() {
    let _turn = turn();
    for (template, hooks, promises) in [
        ("balance", "[]", "[]"),
        ("sticky", "[]", r#"["sticky"]"#),
        ("headers", r#"["responses"]"#, r#"["rewrites-headers"]"#),
    ] {
        let directory = workshop();
        let directory = directory.path();
        let name = format!("my-{template}");
        let file = format!("{name}.wasm");
        let made = run(directory, &["plugin", "new", &name, "--template", template]).succeeded();
        assert!(made.stdout.contains("waypost plugin build"), "{made:?}");
        let before = listing(&directory.join(&name));
        let built = run(
            &directory.join(&name),
            &["plugin", "build", "-o", &format!("../{file}")],
        );
        let built = built.succeeded();
        assert!(
            built
                .stdout
                .starts_with(&format!("../{file}: {name} 0.1.0, ")),
            "{built:?}"
        );
        assert_eq!(built.stderr, "");
        // Nothing is left behind but what cargo makes of a lock.
        assert_eq!(listing(&directory.join(&name)), before);

        let inspected = run(directory, &["plugin", "inspect", &file, "--json"]).succeeded();
        let told: Value = serde_json::from_str(&inspected.stdout).expect("JSON");
        assert_eq!(told["name"], name);
        assert_eq!(told["contract"], "0.1.0");
        assert_eq!(told["component"], true);
        assert_eq!(told["hooks"].to_string(), hooks);
        assert_eq!(told["promises"].to_string(), promises);
        let digest = told["sha256"].as_str().expect("a digest");
        assert!(built.stdout.contains(digest), "{built:?}");
        let length = fs::metadata(directory.join(&file)).expect("a file").len();
        assert_eq!(told["bytes"], length);
        // It is the same on every machine, and tells nothing of this one.
        let bytes = fs::read(directory.join(&file)).expect("a file");
        for place in [repository(), directory.to_owned()] {
            let place = place.to_string_lossy().into_owned();
            let found = bytes
                .windows(place.len())
                .any(|part| part == place.as_bytes());
            assert!(!found, "{place} is in {file}");
        }
        for figure in ["compile_ms", "code_bytes", "memory_bytes"] {
            assert!(
                told[figure].as_f64().is_some_and(|figure| figure > 0.0),
                "{told}"
            );
        }
        assert_eq!(told["pick"]["backends"], 10);

        let text = run(directory, &["plugin", "inspect", &file])
            .succeeded()
            .stdout;
        assert!(
            text.starts_with(&format!("{name} 0.1.0\n  contract  waypost:policy 0.1.0\n")),
            "{text}"
        );
        let demo = ["demo", "--requests", "30", "--policy", &file];
        let demo = run(directory, &demo).succeeded();
        assert!(demo.stdout.contains("30 requests in"), "{}", demo.stdout);
    }
}

/// Every file but cargo's lock.
fn listing(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(listing(&path));
        } else if path.file_name().is_some_and(|name| name != "Cargo.lock") {
            found.insert(path);
        }
    }
    found
}

/// The crate is alone in the world, with a workspace around it or without.
#[test]
fn a_workspace_around_it_stays_as_it_is() {
    let _turn = turn();
    let directory = workshop();
    let outer = directory.path().join("outer");
    fs::create_dir_all(outer.join("member/src")).expect("directories");
    fs::write(outer.join("member/src/lib.rs"), "").expect("a file");
    fs::write(
        outer.join("member/Cargo.toml"),
        "[package]\nname = \"member\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
    )
    .expect("a manifest");
    fs::write(
        outer.join("Cargo.toml"),
        "[workspace]\nresolver = \"3\"\nmembers = [\"member\"]\n",
    )
    .expect("a manifest");
    run(&outer, &["plugin", "new", "mine"]).succeeded();
    run(&outer, &["plugin", "build", "mine"]).succeeded();
    assert!(outer.join("mine.wasm").is_file());
    assert!(outer.join("mine/Cargo.lock").is_file());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let members = ran(Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(&outer))
    .succeeded();
    let members: Value = serde_json::from_str(&members.stdout).expect("JSON");
    let members = members["workspace_members"].as_array().expect("a list");
    assert_eq!(members.len(), 1, "{members:?}");
}

/// What was built before is left where a build fails.
#[test]
fn a_build_that_fails_writes_nothing() {
    let _turn = turn();
    let directory = workshop();
    run(directory.path(), &["plugin", "new", "mine"]).succeeded();
    run(directory.path(), &["plugin", "build", "mine"]).succeeded();
    let good = fs::read(directory.path().join("mine.wasm")).expect("a policy");
    let source = directory.path().join("mine/src/lib.rs");
    let broken = read(&source).replace("export_policy!(Mine);", "");
    fs::write(source, broken).expect("a file");
    let failed = run(directory.path(), &["plugin", "build", "mine"]);
    assert_eq!(failed.status, Some(1), "{failed:?}");
    let left = fs::read(directory.path().join("mine.wasm")).expect("a policy");
    assert!(left == good);
}

#[test]
fn two_policies_are_timed_in_turns() {
    let _turn = turn();
    let directory = workshop();
    let old = guest("first-healthy").to_str().expect("a path");
    let arguments = [
        "plugin",
        "bench",
        "round-robin",
        "--against",
        old,
        "--backends",
        "2,3",
    ];
    let text = run(directory.path(), &arguments).succeeded().stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("round-robin against "), "{text}");
    let json = [&arguments[..], &["--json"]].concat();
    let told = run(directory.path(), &json).succeeded().stdout;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let compared = told[0]["compared"].as_array().expect("a list");
    assert_eq!(compared.len(), 2, "{told}");
    for (compared, backends) in compared.iter().zip([2, 3]) {
        assert_eq!(compared["new"]["backends"], backends);
        assert!(
            compared["old"]["median"]
                .as_f64()
                .is_some_and(|ns| ns > 0.0),
            "{told}"
        );
        let at = |end: usize| compared["interval"][end].as_f64().expect("a number");
        let difference = compared["difference"].as_f64().expect("a number");
        assert!(at(0) <= difference && difference <= at(1), "{told}");
    }
    let alone = ["plugin", "bench", "rotation", "--backends", "2", "--json"];
    let told = run(directory.path(), &alone).succeeded().stdout;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told[0]["picks"][0]["backends"], 2, "{told}");
}
