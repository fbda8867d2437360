//! The conformance suite on what is built: the shipped policies pass, wrong ones fail, and so would a wrong host.

use std::path::Path;

use waypost::conformance::{RealHost, Shipped};
use waypost_conformance::native::Native;
use waypost_conformance::report::Verdict;
use waypost_conformance::subject::Subject;
use waypost_conformance::{Options, host, parity, run};

use crate::guests::{built_in, guest};
use crate::process::{Program, waypost};

fn options(only: &str) -> Options {
    Options {
        only: (!only.is_empty()).then(|| only.to_owned()),
        ..Options::default()
    }
}

fn load(file: &Path) -> Shipped {
    let loaded = Shipped::from_file(file, "{}").expect("an engine");
    loaded.unwrap_or_else(|refused| panic!("{refused}"))
}

/// But for the million picks of `law/memory`, which take their time in a debug build.
#[test]
fn conformance_of_what_is_shipped() {
    for name in ["round-robin", "least-conn"] {
        let shipped = load(&built_in(name));
        let families = ["law", "balanced", "least-loaded"];
        for case in waypost_conformance::cases() {
            let applies = families.contains(&case.family()) && case.id != "law/memory";
            let promised = shipped_promises(&shipped, case.family());
            if applies && (case.family() == "law" || promised) {
                let report = run(&shipped, &options(case.id));
                assert!(report.is_good(), "{}", report.table("again"));
            }
        }
    }
}

fn shipped_promises(shipped: &Shipped, family: &str) -> bool {
    let promises = &shipped.about().promises;
    promises.iter().any(|promise| promise == family)
}

/// The same source as native code and as WebAssembly picks the same, one by one.
#[test]
fn conformance_of_native_and_built() {
    let compare = |native: &dyn Subject, name: &str| {
        for seed in 1..4 {
            if let Err(difference) = parity(native, &load(&built_in(name)), "{}", seed) {
                panic!("{name}, seed {seed}: {difference}");
            }
        }
    };
    compare(
        &Native::<round_robin::RoundRobin>::new("", ""),
        "round-robin",
    );
    compare(&Native::<least_conn::LeastConn>::new("", ""), "least-conn");
}

/// What only shows in what is built.
#[test]
fn conformance_mutants_fail_for_the_right_reason() {
    for (name, case) in [
        ("burns", "law/fuel"),
        ("loops-in-crowds", "law/deadline"),
        ("recurses-in-crowds", "law/any-number-of-backends"),
        ("leaks", "law/memory"),
    ] {
        let report = run(&load(guest(name)), &options(case));
        let failed: Vec<&str> = report.failed().map(|finding| finding.case).collect();
        assert_eq!(failed, [case], "{name}: {}", report.table("again"));
    }
}

#[test]
#[ignore = "a million picks: cargo test --release -p waypost-tests --test suites -- conformance --ignored"]
fn conformance_notices_a_few_bytes_for_each_pick() {
    let report = run(&load(guest("drips")), &options("law/memory"));
    assert!(
        report.failed().next().is_some(),
        "{}",
        report.table("again")
    );
}

#[test]
fn conformance_of_the_host_itself() {
    let real = RealHost::with_probe(guest("probe")).expect("the probe");
    for seed in 1..4 {
        for finding in host::check(&real, seed) {
            assert_eq!(finding.verdict, Verdict::Pass, "{}", finding.case);
        }
    }
}

#[tokio::test]
async fn conformance_ends_with_a_status_and_a_certificate_that_is_demanded() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    std::fs::copy(guest("first-healthy"), path.join("policy.wasm")).expect("a file");
    std::fs::copy(guest("forwards-nowhere"), path.join("wrong.wasm")).expect("a file");
    let run = async |arguments: &[&str]| Program::run(&mut waypost(path, arguments)).await;

    let one = ["plugin", "test", "policy.wasm", "--case", "law/repeatable"];
    let ended = run(&[&one[..], &["--junit", "report.xml"]].concat()).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("law/repeatable  ok"), "{ended:?}");
    let xml = std::fs::read_to_string(path.join("report.xml")).expect("a report");
    let line = "<testcase classname=\"law\" name=\"repeatable\"/>";
    assert!(xml.contains(line), "{xml}");

    let unknown = ["plugin", "test", "policy.wasm", "--case", "law/no-such"];
    assert_eq!(run(&unknown).await.status, Some(2));
    std::fs::write(path.join("text.wasm"), "no").expect("a file");
    assert_eq!(run(&["plugin", "test", "text.wasm"]).await.status, Some(78));

    let config = "[[listen]]\naddress = \"127.0.0.1:0\"\n\
        [policy.own]\nfile = \"policy.wasm\"\nrequire_certificate = \"policy.json\"\n\
        [upstream.app]\npolicy = \"own\"\nservers = [\"127.0.0.1:9\"]\n\
        [[route]]\nupstream = \"app\"\n";
    std::fs::write(path.join("waypost.toml"), config).expect("a file");
    assert_eq!(run(&["check"]).await.status, Some(78));
    let report = waypost_conformance::run(&load(&path.join("policy.wasm")), &options("balanced"));
    let mut certificate = waypost_conformance::certificate::Certificate::new(&report, Vec::new());
    let certified = |verdict: &str| waypost_conformance::certificate::Certified {
        case: "law/repeatable".to_owned(),
        verdict: verdict.to_owned(),
    };
    for (verdict, status) in [("pass", 0), ("fail", 78), ("inconclusive", 78)] {
        certificate.verdicts = vec![certified(verdict)];
        std::fs::write(path.join("policy.json"), certificate.to_json()).expect("a file");
        let ended = run(&["check"]).await;
        assert_eq!(ended.status, Some(status), "{verdict}: {ended:?}");
    }
    certificate.verdicts = vec![certified("pass")];
    certificate.suite += 1;
    std::fs::write(path.join("policy.json"), certificate.to_json()).expect("a file");
    assert_eq!(run(&["check"]).await.status, Some(78));
}
