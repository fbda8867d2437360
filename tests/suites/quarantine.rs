//! Policies that keep failing: taken out, and tried again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use waypost::status::PolicyStatus;
use waypost_tests::{Client, Origin, Proxy, settled, until, within};

use crate::guests::{guest, remade};

/// What a guest takes for its cue.
const MISBEHAVE: &str = "GET / HTTP/1.1\r\nHost: test\r\nX-Misbehave: 1\r\n\r\n";
/// A policy that keeps failing is out, and the last good one in, within this time.
const TAKEN_OUT_WITHIN: Duration = Duration::from_secs(1);
const IMPATIENT: &str = "quarantine = { failures = 3, window = \"10s\", retry = \"100ms\" }";

/// A policy in a file of its own, before two backends.
struct Suspect {
    proxy: Proxy,
    client: Client,
    origins: [Origin; 2],
    _directory: TempDir,
    file: PathBuf,
}

impl Suspect {
    async fn start(name: &str, keys: &str) -> Suspect {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("policy.wasm");
        std::fs::copy(guest(name), &file).expect("a copy");
        let origins = [Origin::echo("a").await, Origin::echo("b").await];
        let proxy = Proxy::start(&Suspect::config(&origins, &file, keys)).await;
        let client = Client::connect(&proxy).await;
        Suspect {
            proxy,
            client,
            origins,
            _directory: directory,
            file,
        }
    }

    fn config(origins: &[Origin; 2], file: &Path, keys: &str) -> String {
        let [a, b]: [SocketAddr; 2] = [origins[0].address(), origins[1].address()];
        format!(
            "[upstream.app]\npolicy = \"guest\"\nservers = [\"{a}\", \"{b}\"]\n\
             [policy.guest]\nfile = \"{}\"\n{keys}\n",
            file.display()
        )
    }

    /// Puts other code into the policy's file, in one step.
    fn replace(&self, code: &[u8]) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, code).expect("a file");
        std::fs::rename(new, &self.file).expect("a rename");
    }

    async fn push(&self, code: Vec<u8>) {
        let control = self.proxy.control();
        let pushed = within("a push", control.push("guest", code)).await;
        pushed.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn apply(&self, keys: &str) {
        let config = Suspect::config(&self.origins, &self.file, keys);
        self.proxy.apply(&config).await;
    }

    fn policy(&self) -> PolicyStatus {
        self.proxy.status().upstreams[0].policy.clone()
    }

    fn name(&self) -> String {
        let plugin = self.policy().plugin;
        plugin.map_or("rotation".to_owned(), |plugin| plugin.name)
    }

    /// Requests at which the policy fails; all are answered.
    async fn misbehave(&mut self, times: usize) {
        for _ in 0..times {
            assert_eq!(self.client.ask(MISBEHAVE).await.status(), 200);
        }
    }

    /// Waits until this policy is active.
    async fn becomes(&self, name: &str) -> Duration {
        let start = Instant::now();
        until(&format!("{name} to be active"), || self.name() == name).await;
        start.elapsed()
    }

    /// Waits until the policy is in quarantine and this one in its place.
    async fn taken_out_for(&self, name: &str) -> Duration {
        let took = self.becomes(name).await;
        until("a quarantine", || self.policy().quarantine.is_some()).await;
        took
    }

    async fn picks_by_plugin(&mut self) {
        let calls = self.policy().plugin.expect("a plugin").calls;
        assert_eq!(self.client.get("/").await.status(), 200);
        let plugin = self.policy().plugin.expect("a plugin");
        assert_eq!((plugin.calls, plugin.failures), (calls + 1, 0));
    }
}

fn code(name: &str) -> Vec<u8> {
    std::fs::read(guest(name)).expect("a guest")
}

// === the last good version ===

#[tokio::test]
async fn the_last_good_version_takes_the_place_of_one_that_keeps_failing() {
    for way in ["push", "file"] {
        let mut suspect = Suspect::start("first-healthy", "").await;
        assert!(suspect.policy().quarantine.is_none());
        suspect.misbehave(5).await;
        match way {
            "push" => suspect.push(code("panics")).await,
            _ => suspect.replace(&code("panics")),
        }
        suspect.becomes("panics").await;
        let digest = suspect.policy().plugin.expect("a plugin").digest;
        suspect.misbehave(4).await;
        assert_eq!(suspect.name(), "panics");
        assert!(suspect.policy().quarantine.is_none());
        suspect.misbehave(1).await;
        let took = suspect.taken_out_for("first-healthy").await;
        assert!(took < TAKEN_OUT_WITHIN, "{took:?}");

        let said = suspect.policy().quarantine.expect("a quarantine");
        let version = format!("0.1.0 ({}) taken out: ", &digest[..12]);
        assert!(said.starts_with(&version), "{said}");
        let reason = "5 failures within 10s; the last: trapped: ";
        assert!(said.contains(reason), "{said}");
        assert!(said.contains("as the request asks"), "{said}");
        suspect.misbehave(20).await;
        suspect.picks_by_plugin().await;

        // It stays so, whatever else changes.
        suspect.apply("[timeouts]\nidle = \"70s\"").await;
        assert_eq!(suspect.name(), "first-healthy");
        assert!(suspect.policy().quarantine.is_some());
    }
}

#[tokio::test]
async fn failures_on_all_shards_count_together() {
    let suspect = Suspect::start("first-healthy", "").await;
    let config = Suspect::config(&suspect.origins, &suspect.file, "");
    let proxy = Proxy::start(&format!("shards = 3\n{config}")).await;
    let pushed = within("a push", proxy.control().push("guest", code("panics"))).await;
    pushed.expect("a swap");
    for _ in 0..5 {
        let mut client = Client::connect(&proxy).await;
        assert_eq!(client.ask(MISBEHAVE).await.status(), 200);
    }
    proxy
        .reaches("a quarantine", |status| {
            status.upstreams[0].policy.quarantine.is_some()
        })
        .await;
}

#[tokio::test]
async fn new_code_in_the_file_lifts_the_quarantine() {
    let good = code("first-healthy");
    // Other code than ever before, or that which was good before.
    for new in [remade(&good, 1), good.clone()] {
        let mut suspect = Suspect::start("first-healthy", "").await;
        suspect.replace(&code("panics"));
        suspect.becomes("panics").await;
        suspect.misbehave(5).await;
        suspect.taken_out_for("first-healthy").await;
        suspect.replace(&new);
        until("the quarantine to be lifted", || {
            suspect.policy().quarantine.is_none()
        })
        .await;
        assert_eq!(suspect.name(), "first-healthy");
        suspect.picks_by_plugin().await;
    }
}

#[tokio::test]
async fn a_push_lifts_the_quarantine() {
    let mut suspect = Suspect::start("panics", "").await;
    suspect.misbehave(5).await;
    suspect.taken_out_for("rotation").await;
    suspect.push(code("first-healthy")).await;
    assert_eq!(suspect.name(), "first-healthy");
    assert!(suspect.policy().quarantine.is_none());
    suspect.picks_by_plugin().await;
}

#[tokio::test]
async fn other_settings_lift_the_quarantine() {
    const GOOD: &str = "config = { n = 1_000_000 }";
    let mut suspect = Suspect::start("panics-at-nth", GOOD).await;
    suspect.misbehave(1).await;
    // It is not the code that is bad, but what it is told.
    suspect.apply("config = { n = 1 }").await;
    suspect.misbehave(5).await;
    until("a quarantine", || suspect.policy().quarantine.is_some()).await;
    suspect.apply(GOOD).await;
    assert_eq!(suspect.name(), "panics-at-nth");
    assert!(suspect.policy().quarantine.is_none());
    suspect.misbehave(20).await;
    suspect.picks_by_plugin().await;
}

#[tokio::test]
async fn a_version_gone_back_to_takes_new_settings() {
    let mut suspect = Suspect::start("panics-at-nth", "config = { n = 1_000_000 }").await;
    suspect.push(remade(&code("panics-at-nth"), 1)).await;
    let control = suspect.proxy.control();
    let rolled_back = within("a rollback", control.rollback("guest")).await;
    rolled_back.expect("an earlier version");
    suspect.misbehave(2).await;
    assert_eq!(suspect.policy().plugin.expect("a plugin").failures, 0);
    suspect.apply("config = { n = 2 }").await;
    suspect.misbehave(2).await;
    assert_eq!(suspect.policy().plugin.expect("a plugin").failures, 1);
    // And stays as it is from there on.
    let swaps = || suspect.policy().last_swap.expect("a swap").count;
    let before = swaps();
    suspect
        .apply("config = { n = 2 }\non_failure = \"reject\"")
        .await;
    assert_eq!(swaps(), before);
}

#[tokio::test]
async fn the_broken_file_of_another_policy_is_not_in_the_way() {
    let mut suspect = Suspect::start("first-healthy", "").await;
    let other = suspect.file.with_file_name("other.wasm");
    std::fs::copy(guest("counts"), &other).expect("a copy");
    suspect
        .apply(&format!("[policy.other]\nfile = \"{}\"", other.display()))
        .await;
    suspect.push(code("panics")).await;
    std::fs::write(&other, "half a po").expect("a file");
    suspect.misbehave(5).await;
    let took = suspect.becomes("first-healthy").await;
    assert!(took < TAKEN_OUT_WITHIN, "{took:?}");
}

// === rotation, and another trial ===

#[tokio::test]
async fn rotation_takes_the_place_of_a_policy_without_a_good_version() {
    let mut suspect = Suspect::start("panics", "").await;
    assert_eq!(suspect.client.get("/").await.origin(), "a");
    suspect.misbehave(5).await;
    let took = suspect.taken_out_for("rotation").await;
    assert!(took < TAKEN_OUT_WITHIN, "{took:?}");
    suspect.origins[0].take_requests();
    suspect.misbehave(20).await;
    assert_eq!(suspect.origins[0].request_count(), 10);
}

#[tokio::test]
async fn a_policy_is_tried_again_and_recovers_by_itself() {
    let mut suspect = Suspect::start("panics", IMPATIENT).await;
    suspect.misbehave(3).await;
    suspect.becomes("rotation").await;
    // It fails again, and is given a longer time to think.
    suspect.becomes("panics").await;
    suspect.misbehave(3).await;
    suspect.becomes("rotation").await;
    let took = suspect.becomes("panics").await;
    assert!(took >= Duration::from_millis(150), "{took:?}");
    // Now it has recovered.
    for _ in 0..5 {
        suspect.picks_by_plugin().await;
    }
    assert_eq!(suspect.policy().quarantine, None);
    let generation = || suspect.proxy.status().generation;
    let now = generation();
    let quiet = Duration::from_millis(800);
    assert_eq!(settled("the quarantine", quiet, generation).await, now);
    assert_eq!(suspect.name(), "panics");
}

#[tokio::test]
async fn a_rejecting_policy_that_is_taken_out_lets_nobody_through() {
    let mut suspect = Suspect::start("panics", "on_failure = \"reject\"").await;
    for _ in 0..5 {
        assert_eq!(suspect.client.ask(MISBEHAVE).await.status(), 503);
    }
    let took = suspect.taken_out_for("rotation").await;
    assert!(took < TAKEN_OUT_WITHIN, "{took:?}");
    suspect.origins[0].take_requests();
    for _ in 0..3 {
        assert_eq!(suspect.client.get("/").await.status(), 503);
    }
    assert_eq!(suspect.origins[0].request_count(), 0);
}

#[tokio::test]
async fn quarantine_can_be_switched_off() {
    let mut suspect = Suspect::start("panics", "quarantine = { failures = 0 }").await;
    suspect.misbehave(50).await;
    let generation = || suspect.proxy.status().generation;
    let quiet = Duration::from_millis(300);
    assert_eq!(settled("the quarantine", quiet, generation).await, 1);
    let policy = suspect.policy();
    assert!(policy.quarantine.is_none());
    assert_eq!(policy.plugin.expect("a plugin").failures, 50);
}
