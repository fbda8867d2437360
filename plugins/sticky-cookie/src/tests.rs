use std::collections::BTreeMap;

use waypost_plugin::testing::{Edit, Harness, Head, Picked, TestRequest, backend};

use super::*;

fn sticky(json: &str) -> Harness<StickyCookie> {
    Harness::new(json).with_backends(["a", "b", "c"].map(backend))
}

/// The `name=value` of the cookie that a response sets.
fn pair(picked: &Picked) -> Option<String> {
    let cookie = picked.response_header("set-cookie")?;
    cookie.split_once(';').map(|(pair, _)| pair.to_owned())
}

fn with(cookie: &str) -> TestRequest {
    TestRequest::get("/").header("cookie", cookie)
}

/// A new client: where it goes, and its cookie.
fn arrive(harness: &mut Harness<StickyCookie>) -> (String, String) {
    let picked = harness.pick(&TestRequest::get("/"));
    let cookie = pair(&picked).expect("a cookie");
    (picked.backend().expect("a backend").to_owned(), cookie)
}

/// The cookie of a backend, whichever client got it.
fn cookie_of(harness: &mut Harness<StickyCookie>, name: &str) -> String {
    loop {
        let (backend, cookie) = arrive(harness);
        if backend == name {
            return cookie;
        }
    }
}

#[test]
fn new_clients_go_to_the_least_loaded() {
    let mut harness = Harness::<StickyCookie>::new("{}").with_backends([
        backend("a").weight(2),
        backend("b"),
        backend("c"),
    ]);
    for (loads, expected) in [([3, 2, 2], "a"), ([4, 1, 2], "b"), ([5, 3, 2], "c")] {
        for (name, load) in ["a", "b", "c"].into_iter().zip(loads) {
            harness.set_in_flight(name, load);
        }
        assert_eq!(arrive(&mut harness).0, expected);
    }
}

#[test]
fn new_clients_of_idle_backends_share_over_all_shards() {
    let mut first = sticky("{}");
    let mut second = first.another_shard();
    let mut counts = BTreeMap::new();
    for i in 0..300 {
        let shard = if i % 3 == 0 { &mut first } else { &mut second };
        *counts.entry(arrive(shard).0).or_insert(0_i32) += 1;
    }
    assert!(
        counts.values().all(|count| (count - 100).abs() <= 2),
        "{counts:?}"
    );
}

#[test]
fn a_client_stays_and_its_cookie_is_set_once() {
    let mut first = sticky("{}");
    let mut second = first.another_shard();
    for _ in 0..6 {
        let (name, cookie) = arrive(&mut first);
        first.set_in_flight(&name, 1_000);
        for shard in [&mut first, &mut second] {
            for field in [
                cookie.clone(),
                format!("x=1; {cookie}"),
                format!("{cookie}; waypost=other"),
            ] {
                let picked = shard.pick(&with(&field));
                assert_eq!(picked.backend(), Some(name.as_str()));
                assert_eq!(picked.edits, []);
            }
        }
        first.set_in_flight(&name, 0);
    }
}

#[test]
fn a_cookie_that_is_not_ours_is_replaced() {
    let mut harness = sticky("{}");
    let (_, cookie) = arrive(&mut harness);
    let value = cookie.split_once('=').unwrap().1;
    for wrong in [
        "waypost=",
        "waypost=a",
        "waypost=127.0.0.1:80",
        "Waypost=00000000000000000000000000000000",
        "waypost=00000000000000000000000000000000",
        &format!("waypost={}", value.to_uppercase()),
        &format!("waypost={value}0"),
        &format!("other={value}"),
        "waypost",
        "\u{e9}",
        &"waypost=x; ".repeat(2_000),
    ] {
        let picked = harness.pick(&with(wrong));
        assert!(picked.backend().is_some());
        assert!(pair(&picked).is_some(), "{wrong}");
    }
    // A client sends one line (RFC 6265, 5.4), so only the first one is read.
    let picked = harness.pick(&with("x=1").header("cookie", &cookie));
    assert!(pair(&picked).is_some());
}

#[test]
fn a_client_whose_backend_takes_nothing_moves() {
    type Change = fn(&mut Vec<waypost_plugin::testing::TestBackend>);
    let changes: [Change; 4] = [
        |set| set[0] = backend("a").down(),
        |set| set[0] = backend("a").draining(),
        |set| set[0] = backend("a").weight(0),
        |set| {
            set.remove(0);
        },
    ];
    for change in changes {
        let mut harness = sticky("{}");
        let cookie = cookie_of(&mut harness, "a");
        let mut set = Vec::from(["a", "b", "c"].map(backend));
        change(&mut set);
        harness.set_backends(set);
        let moved = harness.pick(&with(&cookie));
        let to = moved.backend().unwrap().to_owned();
        assert_ne!(to, "a");
        let new = pair(&moved).expect("a cookie for the new one");
        assert_ne!(new, cookie);
        // It stays there, also when the old one is back.
        harness.set_backends(["a", "b", "c"].map(backend));
        assert_eq!(harness.pick(&with(&new)).backend(), Some(to.as_str()));
        // And whoever was away meanwhile is back at the old one.
        assert_eq!(harness.pick(&with(&cookie)).backend(), Some("a"));
    }
}

#[test]
fn a_retry_goes_elsewhere_with_a_cookie_for_there() {
    let mut harness = sticky("{}");
    let cookie = cookie_of(&mut harness, "a");
    let (a, b, c) = (harness.id("a"), harness.id("b"), harness.id("c"));
    let picked = harness.pick(&with(&cookie).tried([a]));
    let to = picked.backend().unwrap().to_owned();
    assert_ne!(to, "a");
    assert_eq!(pair(&picked), Some(cookie_of(&mut harness, &to)));
    let picked = harness.pick(&with(&cookie).tried([a, b, c]));
    assert_eq!(picked.pick, Pick::unavailable());
    assert_eq!(picked.edits, []);
}

#[test]
fn nobody_is_nobody() {
    let mut harness = Harness::<StickyCookie>::new("{}");
    assert_eq!(harness.pick(&with("waypost=x")).pick, Pick::unavailable());
    harness.set_backends([backend("a").down()]);
    let picked = harness.pick(&TestRequest::get("/"));
    assert_eq!(picked.pick, Pick::unavailable());
    assert_eq!(picked.edits, []);
}

#[test]
fn cookies_outlive_a_swap_and_mean_the_same_on_another_host() {
    let json = r#"{"secret":"sixteen characters"}"#;
    let mut harness = sticky(json);
    let cookie = cookie_of(&mut harness, "b");
    let mut swapped = harness.replaced_by::<StickyCookie>(json).unwrap();
    assert_eq!(swapped.pick(&with(&cookie)).backend(), Some("b"));
    let mut host = Harness::<StickyCookie>::new(json).with_backends([
        backend("x"),
        backend("b").address("elsewhere:1"),
        backend("a"),
    ]);
    assert_eq!(host.pick(&with(&cookie)).backend(), Some("b"));
}

#[test]
fn a_name_that_another_backend_takes_over_is_what_counts() {
    let mut harness = sticky("{}");
    let cookie = cookie_of(&mut harness, "a");
    harness.set_backends([backend("b"), backend("c")]);
    harness.set_backends([backend("b"), backend("a").address("new:80")]);
    assert_eq!(harness.pick(&with(&cookie)).backend(), Some("a"));
}

#[test]
fn only_a_secret_keeps_values_from_being_made_up() {
    let mut open = sticky("{}");
    let mut closed = sticky(r#"{"secret":"sixteen characters"}"#);
    let guessed = cookie_of(&mut open, "a");
    assert_eq!(guessed, cookie_of(&mut sticky("{}"), "a"));
    let picked = closed.pick(&with(&guessed));
    assert!(pair(&picked).is_some(), "not one of its own");
    let mut other = sticky(r#"{"secret":"sixteen others chars"}"#);
    let foreign = cookie_of(&mut other, "a");
    assert!(pair(&closed.pick(&with(&foreign))).is_some());
}

#[test]
fn attributes_are_as_configured() {
    for (json, expected) in [
        ("{}", "; Path=/; HttpOnly; SameSite=Lax"),
        (
            r#"{"path":"/app","domain":"example.com","max_age":"12h","secure":true,"http_only":false,"same_site":"none"}"#,
            "; Path=/app; Domain=example.com; Max-Age=43200; SameSite=None; Secure",
        ),
        (
            r#"{"same_site":"strict","max_age":"400d"}"#,
            "; Path=/; Max-Age=34560000; HttpOnly; SameSite=Strict",
        ),
        (r#"{"same_site":"unset","http_only":false}"#, "; Path=/"),
    ] {
        let mut harness = sticky(json);
        let picked = harness.pick(&TestRequest::get("/"));
        let cookie = picked.response_header("set-cookie").unwrap();
        let (pair, attributes) = cookie.split_at(cookie.find(';').unwrap());
        assert_eq!(attributes, expected);
        assert_eq!(pair.len(), "waypost=".len() + 32);
        // Added beside those of the backend, and nothing else touched.
        let kinds: Vec<_> = picked
            .edits
            .iter()
            .map(|edit| (edit.head, edit.edit))
            .collect();
        assert_eq!(kinds, [(Head::Response, Edit::Append)]);
        assert_eq!(picked.log, []);
    }
    let mut harness = sticky(r#"{"cookie":"srv"}"#);
    assert!(arrive(&mut harness).1.starts_with("srv="));
}

#[test]
fn the_cookie_is_for_tls_only_where_the_client_speaks_it_or_as_told() {
    for (json, scheme, expected) in [
        ("{}", "http", false),
        ("{}", "https", true),
        (r#"{"secure":true}"#, "http", true),
        (r#"{"secure":false}"#, "https", false),
    ] {
        let picked = sticky(json).pick(&TestRequest::get("/").scheme(scheme));
        let cookie = picked.response_header("set-cookie").unwrap();
        assert_eq!(cookie.ends_with("; Secure"), expected, "{json} {scheme}");
    }
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for (json, expected) in [
        (
            r#"{"name":"srv"}"#,
            "unknown field `name`, expected one of `cookie`",
        ),
        (
            r#"{"cookie":"a b"}"#,
            "\"a b\" is not a name of a field or cookie",
        ),
        (
            r#"{"secret":"short"}"#,
            "secret must have at least 16 characters",
        ),
        (r#"{"path":"app"}"#, "path must begin with /"),
        (
            r#"{"path":"/a; Secure"}"#,
            "path must begin with / and have neither ;",
        ),
        (r#"{"path":"/a\r\nx: y"}"#, "path must begin with /"),
        (r#"{"domain":"a b"}"#, "domain is not a host name: \"a b\""),
        (r#"{"domain":""}"#, "domain is not a host name"),
        (
            r#"{"max_age":"12"}"#,
            "max_age must be from \"1s\" to \"400d\"",
        ),
        (r#"{"max_age":"0s"}"#, "max_age must be"),
        (r#"{"max_age":"-1s"}"#, "max_age must be"),
        (r#"{"max_age":"401d"}"#, "max_age must be"),
        (r#"{"max_age":"99999999999999999999s"}"#, "max_age must be"),
        (
            r#"{"same_site":"none"}"#,
            "same_site = \"none\" wants secure = true",
        ),
        (
            r#"{"same_site":"Lax"}"#,
            "unknown variant `Lax`, expected one of `strict`, `lax`, `none`, `unset`",
        ),
    ] {
        let error = Harness::<StickyCookie>::try_new(json).unwrap_err();
        assert!(error.contains(expected), "{json}: {error}");
    }
}
