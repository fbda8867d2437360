use std::collections::BTreeMap;

use waypost_plugin::testing::{Edit, Harness, Head, Level, TestBackend, TestRequest, backend};

use super::*;

fn servers() -> [TestBackend; 4] {
    [
        backend("old1"),
        backend("old2"),
        backend("new1").label("version", "canary"),
        backend("new2").label("version", "canary"),
    ]
}

fn canary(json: &str) -> Harness<HeaderCanary> {
    Harness::new(json).with_backends(servers())
}

/// Whether the request goes to a canary.
fn goes_to_canary(harness: &mut Harness<HeaderCanary>, request: &TestRequest) -> bool {
    let picked = harness.pick(request);
    picked.backend().expect("a backend").starts_with("new")
}

fn get() -> TestRequest {
    TestRequest::get("/")
}

// === shares ===

#[test]
fn shares_are_exact_and_even_over_all_shards() {
    for (percent, each, of) in [
        ("0", 0, 100),
        ("5", 5, 100),
        ("12.5", 1, 8),
        ("50", 1, 2),
        ("33.3", 333, 1000),
        ("99", 99, 100),
        ("100", 100, 100),
    ] {
        let mut first = canary(&format!(r#"{{"percent":{percent}}}"#));
        let mut second = first.another_shard();
        for _ in 0..3 {
            let mut count = 0;
            let mut seen = 0;
            for i in 0..of {
                let shard = if i % 3 == 0 { &mut first } else { &mut second };
                count += u32::from(goes_to_canary(shard, &get()));
                seen += each;
                // Never more than one ahead or behind.
                let due = f64::from(seen) / f64::from(of);
                assert!((f64::from(count) - due).abs() <= 1.0, "{percent} {i}");
            }
            assert_eq!(count, each, "{percent}");
        }
    }
}

#[test]
fn shares_survive_the_end_of_the_counter() {
    let mut harness = canary(r#"{"percent":10}"#);
    harness.set_counter(0, -50);
    let count = (0..100).filter(|_| goes_to_canary(&mut harness, &get()));
    // 2^64 is no multiple of ten: one request may be early.
    assert!((9..=11).contains(&count.count()));
}

#[test]
fn a_small_share_is_a_share() {
    let mut harness = canary(r#"{"percent":0.01}"#);
    let count = (0..30_000).filter(|_| goes_to_canary(&mut harness, &get()));
    assert_eq!(count.count(), 3);
}

#[test]
fn what_is_decided_otherwise_takes_no_turn() {
    let mut harness = canary(r#"{"percent":50}"#);
    let mut count = 0;
    for _ in 0..100 {
        assert!(goes_to_canary(
            &mut harness,
            &get().header("x-canary", "always")
        ));
        assert!(!goes_to_canary(
            &mut harness,
            &get().header("x-canary", "never")
        ));
        let old = harness.id("old1");
        assert!(!goes_to_canary(&mut harness, &get().tried([old])));
        count += u32::from(goes_to_canary(&mut harness, &get()));
    }
    assert_eq!(count, 50);
}

#[test]
fn a_key_stays_on_its_side() {
    let keys: Vec<TestRequest> = (0..4_000)
        .map(|i| get().header("cookie", format!("sid=user-{i}")))
        .collect();
    let side = |percent: u32| -> Vec<bool> {
        let json = format!(r#"{{"percent":{percent},"key":{{"cookie":"sid"}}}}"#);
        let mut first = canary(&json);
        let mut second = first.another_shard();
        let sides = |shard: &mut Harness<HeaderCanary>| -> Vec<bool> {
            keys.iter().map(|key| goes_to_canary(shard, key)).collect()
        };
        let one = sides(&mut first);
        assert_eq!(one, sides(&mut first));
        assert_eq!(one, sides(&mut second));
        assert_eq!(first.counter(0), 0);
        one
    };
    let (few, more) = (side(10), side(30));
    let count = |sides: &[bool]| sides.iter().filter(|canary| **canary).count();
    assert!((340..=460).contains(&count(&few)), "{}", count(&few));
    assert!((1_080..=1_320).contains(&count(&more)), "{}", count(&more));
    assert!(few.iter().zip(&more).all(|(few, more)| more >= few));
}

#[test]
fn requests_without_the_key_are_shared_one_by_one() {
    let mut harness = canary(r#"{"percent":25,"key":{"cookie":"sid"}}"#);
    let request = get().header("cookie", "sid=");
    let count = (0..40).filter(|_| goes_to_canary(&mut harness, &request));
    assert_eq!(count.count(), 10);
}

// === marks ===

#[test]
fn marks_decide_and_never_is_the_stronger() {
    let json = r#"{
        "percent": 100,
        "always": [{"cookie": "beta"}, {"header": "X-Canary", "value": "yes"}],
        "never": [{"header": "user-agent", "value": "probe"}, {"cookie": "beta", "value": "no"}]
    }"#;
    let none = json.replace("100", "0");
    for (json, request, expected) in [
        (&*none, get(), false),
        (json, get(), true),
        (&*none, get().header("x-canary", "yes"), true),
        (&*none, get().header("x-canary", "YES"), false),
        (&*none, get().header("x-canary", ""), false),
        (&*none, get().header("cookie", "beta=1"), true),
        (&*none, get().header("cookie", "a=b; beta="), true),
        (&*none, get().header("cookie", "beta=no"), false),
        (json, get().header("user-agent", "probe"), false),
        (
            json,
            get()
                .header("x-canary", "yes")
                .header("user-agent", "probe"),
            false,
        ),
        (json, get().header("x-canary", "never"), true),
    ] {
        let mut harness = canary(json);
        assert_eq!(
            goes_to_canary(&mut harness, &request),
            expected,
            "{request:?}"
        );
    }
}

#[test]
fn without_settings_only_who_asks_for_it_gets_it() {
    let mut harness = canary("{}");
    assert!(!(0..200).any(|_| goes_to_canary(&mut harness, &get())));
    let always = get().header("x-canary", "always");
    assert!((0..20).all(|_| goes_to_canary(&mut harness, &always)));
}

// === backends ===

#[test]
fn labels_say_who_is_a_canary() {
    let mut harness =
        Harness::<HeaderCanary>::new(r#"{"percent":100,"label":{"version":"2","zone":"a"}}"#)
            .with_backends([
                backend("one").label("version", "2"),
                backend("two").label("version", "2").label("zone", "b"),
                backend("three").label("zone", "a"),
                backend("both").label("zone", "a").label("version", "2"),
            ]);
    for _ in 0..20 {
        assert_eq!(harness.pick(&get()).backend(), Some("both"));
    }
    assert_eq!(harness.take_log(), []);
}

#[test]
fn each_side_goes_to_its_least_loaded() {
    let mut harness = canary(r#"{"percent":50}"#);
    harness.set_in_flight("old1", 3);
    harness.set_in_flight("new2", 3);
    let mut counts = BTreeMap::new();
    for _ in 0..100 {
        let picked = harness.pick(&get());
        *counts
            .entry(picked.backend().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    assert_eq!(
        counts,
        BTreeMap::from([("old2".to_owned(), 50), ("new1".to_owned(), 50)])
    );
}

#[test]
fn a_side_without_backends_is_taken_over_by_the_other() {
    let edits = r#"{"percent":PERCENT,
        "canary":{"request":{"set":{"x-side":"canary"}}},
        "stable":{"request":{"set":{"x-side":"stable"}}}}"#;
    type Close = fn(TestBackend) -> TestBackend;
    let closed: [Close; 3] = [TestBackend::down, TestBackend::draining, |backend| {
        backend.weight(0)
    }];
    for close in closed {
        let [old1, old2, new1, new2] = servers();
        let mut all_to_canary = Harness::<HeaderCanary>::new(&edits.replace("PERCENT", "100"))
            .with_backends([old1, old2, close(new1), close(new2)]);
        for _ in 0..10 {
            let picked = all_to_canary.pick(&get());
            assert!(picked.backend().unwrap().starts_with("old"));
            assert_eq!(picked.request_header("x-side").as_deref(), Some("stable"));
        }
        let [old1, old2, new1, new2] = servers();
        let mut none_to_canary = Harness::<HeaderCanary>::new(&edits.replace("PERCENT", "0"))
            .with_backends([close(old1), close(old2), new1, new2]);
        for _ in 0..10 {
            let picked = none_to_canary.pick(&get());
            assert!(picked.backend().unwrap().starts_with("new"));
            assert_eq!(picked.request_header("x-side").as_deref(), Some("canary"));
        }
        none_to_canary.set_backends(servers().map(close));
        let picked = none_to_canary.pick(&get());
        assert_eq!((picked.pick, picked.edits), (Pick::unavailable(), vec![]));
    }
}

#[test]
fn a_retry_stays_on_its_side_while_it_can() {
    for (percent, first, second, other) in [
        (100, "new1", "new2", "old"),
        (0, "old1", "old2", "new"),
        // Decided by the first attempt, not anew.
        (50, "new1", "new2", "old"),
        (50, "old1", "old2", "new"),
    ] {
        let mut harness = canary(&format!(r#"{{"percent":{percent}}}"#));
        let (one, two) = (harness.id(first), harness.id(second));
        for _ in 0..8 {
            let picked = harness.pick(&get().tried([one]));
            assert_eq!(picked.backend(), Some(second));
            let picked = harness.pick(&get().tried([one, two]));
            assert!(picked.backend().unwrap().starts_with(other));
        }
    }
}

#[test]
fn says_when_one_side_has_nobody() {
    let logged = |set: Vec<TestBackend>| {
        let mut harness = Harness::<HeaderCanary>::new("{}").with_backends(set);
        let lines = harness.take_log();
        assert!(lines.iter().all(|line| line.level == Level::Warn));
        lines
            .into_iter()
            .map(|line| line.message)
            .collect::<String>()
    };
    assert!(logged(vec![backend("a")]).starts_with("no server has the label"));
    let new = || backend("a").label("version", "canary");
    assert!(logged(vec![new()]).starts_with("every server has the label"));
    assert_eq!(logged(vec![new(), backend("b")]), "");
    assert_eq!(logged(vec![]), "");
}

// === edits ===

#[test]
fn edits_are_those_told_and_no_others() {
    let mut harness = canary(
        r#"{
            "canary": {
                "request": {"set": {"X-Release": "2", "host": "new.internal"}, "remove": ["X-Debug"]},
                "response": {"set": {"x-served-by": "canary"}, "remove": ["server"]}
            },
            "stable": {"response": {"remove": ["x-served-by"]}}
        }"#,
    );
    let request = get().header("x-debug", "1").header("x-kept", "1");
    let picked = harness.pick(&request.clone().header("x-canary", "always"));
    assert_eq!(picked.request_header("x-release").as_deref(), Some("2"));
    assert_eq!(
        picked.request_header("host").as_deref(),
        Some("new.internal")
    );
    assert_eq!(picked.request_header("x-debug"), None);
    assert_eq!(picked.request_header("x-kept").as_deref(), Some("1"));
    assert_eq!(
        picked.response_header("x-served-by").as_deref(),
        Some("canary")
    );
    let edits: Vec<_> = picked
        .edits
        .iter()
        .map(|edit| (edit.head, edit.edit, edit.name.as_str()))
        .collect();
    assert_eq!(
        edits,
        [
            (Head::Request, Edit::Remove, "x-debug"),
            (Head::Request, Edit::Set, "x-release"),
            (Head::Request, Edit::Set, "host"),
            (Head::Response, Edit::Remove, "server"),
            (Head::Response, Edit::Set, "x-served-by"),
        ]
    );
    let picked = harness.pick(&request);
    let edits: Vec<_> = picked
        .edits
        .iter()
        .map(|edit| (edit.head, edit.edit, edit.name.as_str()))
        .collect();
    assert_eq!(edits, [(Head::Response, Edit::Remove, "x-served-by")]);
    assert_eq!(picked.log, []);
}

// === settings ===

#[test]
fn settings_that_mean_nothing_are_refused() {
    for (json, expected) in [
        (
            r#"{"share":5}"#,
            "unknown field `share`, expected one of `label`, `percent`",
        ),
        (
            r#"{"percent":101}"#,
            "percent must be between 0 and 100, not 101",
        ),
        (
            r#"{"percent":-1}"#,
            "percent must be between 0 and 100, not -1",
        ),
        (r#"{"label":{}}"#, "label must name at least one label"),
        (
            r#"{"always":[{}]}"#,
            "each entry of always must have one of header and cookie",
        ),
        (
            r#"{"never":[{"header":"a","cookie":"b"}]}"#,
            "each entry of never must have one of header and cookie",
        ),
        (
            r#"{"always":[{"header":"a","is":"b"}]}"#,
            "unknown field `is`",
        ),
        (
            r#"{"canary":{"request":{"set":{"x a":"1"}}}}"#,
            "\"x a\" is not a name of a field",
        ),
        (
            r#"{"canary":{"request":{"set":{"x-a":"1\r\nx-b: 2"}}}}"#,
            "canary.request: the value of x-a has characters that no field may have",
        ),
        (
            r#"{"stable":{"response":{"remove":["Content-Length"]}}}"#,
            "stable.response: Content-Length is the host's business",
        ),
        (
            r#"{"stable":{"response":{"set":{"X-A":""},"remove":["x-a"]}}}"#,
            "stable.response: x-a is both set and removed",
        ),
        (
            r#"{"canary":{"set":{}}}"#,
            "unknown field `set`, expected `request` or `response`",
        ),
    ] {
        let error = Harness::<HeaderCanary>::try_new(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
    let many: BTreeMap<String, &str> = (0..65).map(|i| (format!("x-{i}"), "")).collect();
    let many = serde_json::json!({ "canary": { "request": { "set": many } } });
    let error = Harness::<HeaderCanary>::try_new(&many.to_string()).unwrap_err();
    assert!(error.contains("canary: at most 64 fields"), "{error}");
}
