use std::collections::BTreeMap;

use waypost_plugin::testing::{Harness, TestBackend, TestRequest, backend};

use super::*;

const KEYS: usize = 20_000;

fn by_path() -> Harness<ConsistentHash> {
    Harness::new(r#"{ "key": "path" }"#)
}

fn equal(count: usize) -> Vec<TestBackend> {
    (0..count).map(|i| backend(&format!("b{i}"))).collect()
}

/// Who has each of so many keys.
fn owners(harness: &mut Harness<ConsistentHash>) -> Vec<String> {
    (0..KEYS)
        .map(|key| {
            let picked = harness.pick(&TestRequest::get(&format!("/item/{key}")));
            picked.backend().unwrap_or("-").to_owned()
        })
        .collect()
}

fn counts(owners: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for owner in owners {
        *counts.entry(owner.as_str()).or_default() += 1;
    }
    counts
}

// === the mapping ===

#[test]
fn shares_follow_weights() {
    let weights = [1, 1, 2, 4, 8];
    let mut harness = by_path().with_backends(
        equal(5)
            .into_iter()
            .zip(weights)
            .map(|(backend, weight)| backend.weight(weight)),
    );
    let owners = owners(&mut harness);
    let counts = counts(&owners);
    for (i, weight) in weights.into_iter().enumerate() {
        let expected = (KEYS as f64) * f64::from(weight) / 16.0;
        let deviation = (counts[format!("b{i}").as_str()] as f64 - expected).abs();
        // Four deviations of a fair draw of keys, and 2 % for the table.
        assert!(
            deviation < 4.0 * expected.sqrt() + expected * 0.02,
            "{counts:?}"
        );
    }
}

#[test]
fn two_of_very_different_weight_share_by_weight() {
    let mut harness =
        by_path().with_backends([backend("heavy").weight(99), backend("light").weight(1)]);
    let owners = owners(&mut harness);
    let light = counts(&owners)["light"];
    assert!((140..=260).contains(&light), "{light}");
    // Beyond what the table can tell apart the light one has nothing, and nothing breaks.
    harness.set_backends([backend("heavy").weight(u32::MAX), backend("light")]);
    let heavy = harness.pick(&TestRequest::get("/"));
    assert_eq!(heavy.backend(), Some("heavy"));
    let retry = TestRequest::get("/").tried([harness.id("heavy")]);
    assert_eq!(harness.pick(&retry).backend(), Some("light"));
}

#[test]
fn one_that_goes_moves_its_own_keys_only() {
    for count in [2, 3, 10, 64, 500] {
        let mut harness = by_path().with_backends(equal(count));
        let before = owners(&mut harness);
        let gone = format!("b{}", count / 2);
        type Change = fn(TestBackend) -> Option<TestBackend>;
        let changes: [Change; 4] = [
            |_| None,
            |backend| Some(backend.down()),
            |backend| Some(backend.draining()),
            |backend| Some(backend.weight(0)),
        ];
        let mut afters = Vec::new();
        for change in changes {
            harness.set_backends(equal(count).into_iter().enumerate().filter_map(
                |(i, backend)| {
                    if i == count / 2 {
                        change(backend)
                    } else {
                        Some(backend)
                    }
                },
            ));
            afters.push(owners(&mut harness));
        }
        let after = &afters[0];
        assert!(afters.iter().all(|other| other == after), "{count}");
        let mut moved = 0;
        for (before, after) in before.iter().zip(after) {
            assert_eq!(before == after, *before != gone, "{count}");
            moved += usize::from(before != after);
        }
        let share = KEYS as f64 / count as f64;
        let bound = share * 1.25 + 5.0 * share.sqrt();
        assert!((moved as f64) < bound, "{count}: {moved}");
        // Back again is as it was.
        harness.set_backends(equal(count));
        assert_eq!(owners(&mut harness), before);
    }
}

#[test]
fn one_that_comes_takes_keys_and_moves_no_others() {
    let mut harness = by_path().with_backends(equal(9));
    let before = owners(&mut harness);
    harness.set_backends(equal(10));
    let after = owners(&mut harness);
    let mut moved = 0;
    for (before, after) in before.iter().zip(&after) {
        if before != after {
            assert_eq!(after, "b9");
            moved += 1;
        }
    }
    assert!((1_800..=2_200).contains(&moved), "{moved}");
}

#[test]
fn a_weight_that_grows_only_attracts() {
    let with = |weight| {
        let mut backends = equal(5);
        backends[2] = backend("b2").weight(weight);
        backends
    };
    let mut harness = by_path().with_backends(with(1));
    let before = owners(&mut harness);
    harness.set_backends(with(3));
    let after = owners(&mut harness);
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || after == "b2");
    }
    let share = counts(&after)["b2"] as f64 / KEYS as f64;
    assert!((share - 3.0 / 7.0).abs() < 0.02, "{share}");
}

/// Neither the order, nor ids, nor addresses, nor what there was before.
#[test]
fn hosts_agree_by_names_and_weights() {
    let set = || {
        vec![
            backend("a").weight(2),
            backend("b"),
            backend("c").weight(5),
            backend("d"),
        ]
    };
    let mut one = by_path().with_backends(set());
    let mut other = by_path().with_backends(equal(7));
    other.set_backends(
        set()
            .into_iter()
            .rev()
            .map(|backend| backend.address("elsewhere:1"))
            .chain([backend("e").down()]),
    );
    other.set_seed(7);
    assert_ne!(one.id("a"), other.id("a"));
    assert_eq!(owners(&mut one), owners(&mut other));
}

/// Hosts of different versions must agree too: this may never change.
#[test]
fn the_mapping_is_for_ever() {
    let mut harness = by_path().with_backends(["a", "b", "c"].map(backend));
    let owners: String = (0..32)
        .map(|key| {
            let picked = harness.pick(&TestRequest::get(&format!("/{key}")));
            picked.backend().unwrap().to_owned()
        })
        .collect();
    assert_eq!(owners, "bbaccbabccabcbabccccbbaacabcccbb");
}

#[test]
fn ten_thousand_share_evenly_enough() {
    let mut harness = by_path().with_backends(equal(10_000));
    let owners = owners(&mut harness);
    let counts = counts(&owners);
    // 2 keys each on average.
    assert!(counts.values().all(|count| *count <= 16));
    assert!(counts.len() > 7_500, "{}", counts.len());
}

// === which key ===

fn settings(json: &str) -> Harness<ConsistentHash> {
    Harness::new(json).with_backends(equal(16))
}

/// How many backends these requests go to.
fn spread(
    harness: &mut Harness<ConsistentHash>,
    requests: impl IntoIterator<Item = TestRequest>,
) -> usize {
    let mut seen = BTreeMap::new();
    for request in requests {
        *seen
            .entry(harness.pick(&request).backend().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    seen.len()
}

#[test]
fn each_kind_of_key_is_the_one_that_counts() {
    type Vary = fn(u32, TestRequest) -> TestRequest;
    let kinds: [(&str, Vary); 5] = [
        ("{}", |i, request| {
            request.client_address(&format!("192.0.2.{i}"))
        }),
        (r#"{"key":"client-address"}"#, |i, request| {
            request.client_address(&format!("2001:db8::{i:x}"))
        }),
        (r#"{"key":"path"}"#, |i, _| {
            TestRequest::get(&format!("/{i}?x=1"))
                .header("x-user", "u")
                .header("cookie", "sid=s")
        }),
        (r#"{"key":{"header":"X-User"}}"#, |i, _| {
            TestRequest::get("/")
                .header("x-user", i.to_string())
                .header("cookie", "sid=s")
        }),
        (r#"{"key":{"cookie":"sid"}}"#, |i, _| {
            TestRequest::get("/")
                .header("x-user", "u")
                .header("cookie", format!("a=b; sid={i}"))
        }),
    ];
    for (which, (json, vary)) in kinds.iter().enumerate() {
        let mut harness = settings(json);
        for (other, (_, change)) in kinds.iter().enumerate() {
            let base = TestRequest::get("/")
                .header("x-user", "u")
                .header("cookie", "sid=s");
            let requests = (0..250).map(|i| change(i, base.clone()));
            let expected = if which == other || (which < 2 && other < 2) {
                16
            } else {
                1
            };
            assert_eq!(spread(&mut harness, requests), expected, "{json} {other}");
        }
        let request = vary(7, TestRequest::get("/"));
        assert_eq!(spread(&mut harness, (0..50).map(|_| request.clone())), 1);
    }
}

#[test]
fn the_query_is_no_part_of_the_path() {
    let mut harness = by_path().with_backends(equal(16));
    let requests = (0..50).map(|i| TestRequest::get(&format!("/search?q={i}")));
    assert_eq!(spread(&mut harness, requests), 1);
}

#[test]
fn requests_without_the_key_go_to_the_least_loaded() {
    for request in [
        TestRequest::get("/"),
        TestRequest::get("/").header("x-user", ""),
    ] {
        let mut first = Harness::<ConsistentHash>::new(r#"{"key":{"header":"x-user"}}"#)
            .with_backends([backend("a").weight(2), backend("b"), backend("c")]);
        let mut second = first.another_shard();
        let mut counts = BTreeMap::new();
        for i in 0..4_000 {
            let shard = if i % 3 == 0 { &mut first } else { &mut second };
            let picked = shard.pick(&request);
            *counts
                .entry(picked.backend().unwrap().to_owned())
                .or_insert(0_i32) += 1;
        }
        for (name, share) in [("a", 2_000), ("b", 1_000), ("c", 1_000)] {
            assert!((counts[name] - share).abs() <= 3, "{counts:?}");
        }
        first.set_in_flight("a", 2);
        first.set_in_flight("b", 1);
        assert_eq!(first.pick(&request).backend(), Some("c"));
    }
}

#[test]
fn the_fallback_is_asked_where_the_key_is_absent() {
    let mut harness = settings(r#"{"key":{"header":"x-user"},"fallback":"client-address"}"#);
    let absent = TestRequest::get("/").client_address("192.0.2.7");
    assert_eq!(spread(&mut harness, (0..50).map(|_| absent.clone())), 1);
    let others = (0..100).map(|i| TestRequest::get("/").client_address(&format!("192.0.2.{i}")));
    assert_eq!(spread(&mut harness, others), 16);
    // And nowhere else.
    let users = (0..100).map(|i| {
        TestRequest::get("/")
            .client_address(&format!("192.0.2.{i}"))
            .header("x-user", "u")
    });
    assert_eq!(spread(&mut harness, users), 1);
    assert_eq!(harness.counter(0), 0);
}

#[test]
fn keys_may_be_any_bytes() {
    let mut harness = settings(r#"{"key":{"header":"x-user"}}"#);
    for value in [&b"caf\xe9"[..], &[0xff; 3], &[b'a'; 60_000]] {
        let request = TestRequest::get("/").header("x-user", value);
        assert_eq!(spread(&mut harness, (0..9).map(|_| request.clone())), 1);
    }
    let one = harness.pick(&TestRequest::get("/").header("x-user", b"\xe9a"));
    let requests = (0..64_u8).map(|i| TestRequest::get("/").header("x-user", [0xe9, i]));
    assert!(one.backend().is_some());
    assert!(
        spread(&mut harness, requests) > 8,
        "what is not text is told apart too"
    );
}

// === retries ===

#[test]
fn a_retry_goes_where_the_key_goes_without_the_backend() {
    for count in [2, 3, 20] {
        let mut harness = by_path().with_backends(equal(count));
        let mut without = by_path();
        for key in 0..12 {
            let request = TestRequest::get(&format!("/{key}"));
            let owner = harness.pick(&request).backend().unwrap().to_owned();
            let tried = harness.id(&owner);
            let retried = harness.pick(&request.clone().tried([tried]));
            let left = equal(count).into_iter().enumerate();
            without.set_backends(
                left.filter_map(|(i, backend)| (format!("b{i}") != owner).then_some(backend)),
            );
            assert_eq!(retried.backend(), without.pick(&request).backend());
        }
    }
}

#[test]
fn retries_find_whoever_is_left() {
    let count = 40;
    let mut harness = by_path().with_backends(equal(count));
    for key in 0..20 {
        let request = TestRequest::get(&format!("/{key}"));
        let mut tried = Vec::new();
        for _ in 0..count {
            let picked = harness.pick(&request.clone().tried(tried.clone()));
            tried.push(harness.id(picked.backend().unwrap()));
        }
        let picked = harness.pick(&request.tried(tried));
        assert_eq!(picked.pick, Pick::unavailable());
    }
}

#[test]
fn nobody_is_nobody() {
    let mut harness = by_path();
    let request = TestRequest::get("/");
    assert_eq!(harness.pick(&request).pick, Pick::unavailable());
    for set in [
        vec![backend("a").down()],
        vec![backend("a").weight(0), backend("b").draining()],
        vec![],
    ] {
        harness.set_backends([backend("c")]);
        assert_eq!(harness.pick(&request).backend(), Some("c"));
        harness.set_backends(set);
        assert_eq!(harness.pick(&request).pick, Pick::unavailable());
    }
}

// === bounded load ===

#[test]
fn nobody_has_more_than_the_bound() {
    for (factor, weights) in [
        (1.0, vec![1, 1, 1, 1]),
        (1.25, vec![1, 1, 1, 1]),
        (1.25, vec![1, 2, 5]),
        (2.0, vec![1; 50]),
    ] {
        let whole: u32 = weights.iter().sum();
        let json = format!(r#"{{"key":"path","balance_factor":{factor}}}"#);
        let mut first = Harness::<ConsistentHash>::new(&json).with_backends(
            weights
                .iter()
                .enumerate()
                .map(|(i, weight)| backend(&format!("b{i}")).weight(*weight)),
        );
        let mut second = first.another_shard();
        let mut loads = BTreeMap::new();
        for total in 1..=200 {
            // One key for all: the hottest there can be.
            let shard = if total % 3 == 0 {
                &mut first
            } else {
                &mut second
            };
            let picked = shard.pick(&TestRequest::get("/hot"));
            let name = picked.backend().unwrap().to_owned();
            first.begin(&name);
            *loads.entry(name.clone()).or_insert(0_u32) += 1;
            let index: usize = name[1..].parse().unwrap();
            let share = f64::from(total) * f64::from(weights[index]) / f64::from(whole);
            assert!(
                f64::from(loads[&name]) <= (factor * share).ceil(),
                "{factor} {weights:?} {total} {loads:?}"
            );
        }
    }
}

#[test]
fn the_bound_leaves_cold_keys_alone() {
    let mut plain = by_path().with_backends(equal(10));
    let mut bounded = Harness::<ConsistentHash>::new(r#"{"key":"path","balance_factor":1.25}"#)
        .with_backends(equal(10));
    for i in 0..10 {
        bounded.set_in_flight(&format!("b{i}"), 20);
    }
    // One is far over its share of what is under way.
    bounded.set_in_flight("b3", 60);
    let (before, after) = (owners(&mut plain), owners(&mut bounded));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before == after, before != "b3");
    }
    // Its keys all go to where they would go without it.
    plain.set_backends(
        equal(10)
            .into_iter()
            .enumerate()
            .filter_map(|(i, backend)| (i != 3).then_some(backend)),
    );
    assert_eq!(owners(&mut plain), after);
}

#[test]
fn off_means_off() {
    let mut harness = by_path().with_backends(equal(4));
    let request = TestRequest::get("/hot");
    let owner = harness.pick(&request).backend().unwrap().to_owned();
    harness.set_in_flight(&owner, 1_000_000);
    assert_eq!(harness.pick(&request).backend(), Some(owner.as_str()));
}

// === settings ===

#[test]
fn settings_that_mean_nothing_are_refused() {
    for (json, expected) in [
        (
            r#"{"keys":"path"}"#,
            "unknown field `keys`, expected one of `key`, `fallback`, `balance_factor`",
        ),
        (
            r#"{"key":"ip"}"#,
            "unknown variant `ip`, expected one of `header`, `cookie`, `path`, `client-address`",
        ),
        (
            r#"{"key":{"header":"x user"}}"#,
            "\"x user\" is not a name of a field or cookie",
        ),
        (
            r#"{"balance_factor":0.9}"#,
            "balance_factor must be between 1 and 1000, not 0.9",
        ),
        (r#"{"balance_factor":"1"}"#, "invalid type"),
    ] {
        let error = Harness::<ConsistentHash>::try_new(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
}
