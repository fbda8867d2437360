//! What a policy sees of the simulated host, and what a test sees of the policy.

use std::time::Duration;

use serde::Deserialize;
use waypost_plugin::{
    BackendId, Backends, Counter, Ending, Outcome, Pick, Policy, Request, Response, export_policy,
    log, now, random, random_below,
    testing::{Edit, Harness, Head, Level, TestRequest, TestResponse, backend},
};

/// Does a little of everything.
struct Everything {
    settings: Settings,
    updates: u32,
    seen: Vec<Outcome>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    answer: Option<u16>,
}

impl Policy for Everything {
    type Config = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        match settings.answer {
            Some(418) => Err("not a teapot".into()),
            _ => Ok(Everything {
                settings,
                updates: 0,
                seen: Vec::new(),
            }),
        }
    }

    fn update(&mut self, backends: &Backends) {
        self.updates += 1;
        log::info(format!("{} backends", backends.len()));
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        Counter::new(3).add(2);
        request.set_header("X-Seen", request.path());
        request.append_header("x-seen", request.query().unwrap_or_default());
        request.remove_header("x-secret");
        request
            .response()
            .set_header("x-attempt", request.attempt().to_string());
        assert!(!request.set_header("content-length", "1"));
        if let Some(status) = self.settings.answer {
            return Pick::respond(status);
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }

    fn observe(&mut self, outcomes: &[Outcome]) {
        self.seen.extend(outcomes);
    }

    fn respond(&mut self, _: BackendId, response: &Response) {
        response.set_header("x-status", response.status().to_string());
        response.remove_header("server");
    }

    fn save(&self) -> Vec<u8> {
        vec![7; self.seen.len()]
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        if state.len() > 1 {
            Err("too much".into())
        } else {
            Ok(())
        }
    }
}

export_policy!(Everything, outcomes, responses, state);

fn harness() -> Harness<Everything> {
    Harness::new("{}").with_backends([backend("a"), backend("b").label("zone", "z1")])
}

#[test]
fn shows_picks_edits_and_log() {
    let mut harness = harness();
    let request = TestRequest::get("/x?y=1")
        .header("X-Secret", "s")
        .header("x-seen", "old");
    let picked = harness.pick(&request);
    assert_eq!(picked.pick, Pick::forward(harness.id("a")));
    assert_eq!(picked.backend(), Some("a"));
    assert_eq!(picked.request_header("x-seen").as_deref(), Some("/x"));
    assert_eq!(picked.request_header("x-secret"), None);
    assert_eq!(picked.response_header("X-Attempt").as_deref(), Some("0"));
    assert_eq!(picked.edits.len(), 4);
    assert_eq!(
        (picked.edits[1].head, picked.edits[1].edit),
        (Head::Request, Edit::Append)
    );
    assert_eq!(picked.log[0].level, Level::Warn);
    assert!(
        picked.log[0].message.contains("content-length"),
        "{:?}",
        picked.log
    );
}

#[test]
fn a_retry_leaves_out_what_was_tried() {
    let mut harness = harness();
    let tried = TestRequest::get("/").tried([harness.id("a")]);
    let picked = harness.pick(&tried);
    assert_eq!(picked.backend(), Some("b"));
    assert_eq!(picked.response_header("x-attempt").as_deref(), Some("1"));
    let tried = tried.tried([harness.id("a"), harness.id("b")]);
    assert_eq!(harness.pick(&tried).pick, Pick::Unavailable);
    assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("a"));
}

#[test]
fn shards_share_what_the_host_shares() {
    let mut first = harness();
    let mut second = first.another_shard();
    first.pick(&TestRequest::get("/"));
    second.pick(&TestRequest::get("/"));
    assert_eq!(second.counter(3), 4);

    let (a, b) = (first.id("a"), first.id("b"));
    first.set_in_flight("b", 5);
    first.set_backends([backend("b"), backend("c")]);
    assert_eq!(second.pick(&TestRequest::get("/")).backend(), Some("b"));
    assert_eq!((first.policy().updates, second.policy().updates), (3, 2));
    assert_eq!(first.id("b"), b);
    first.set_backends([backend("a"), backend("b")]);
    assert_ne!(first.id("a"), a, "an id is never used again");
}

#[test]
fn hooks_run_in_order_of_a_swap() {
    let mut harness = harness();
    let outcome = Outcome {
        backend: harness.id("a"),
        attempt: 0,
        ending: Ending::Status(200),
        latency_us: 1500,
        bytes: 10,
    };
    harness.observe(&[outcome]);
    assert_eq!(harness.policy().seen, [outcome]);
    assert_eq!(harness.save(), [7]);
    let mut next = harness
        .replaced_by::<Everything>(r#"{"answer":204}"#)
        .unwrap();
    assert_eq!(next.pick(&TestRequest::get("/")).pick, Pick::respond(204));
    assert_eq!(next.restore(&[1, 2]), Err("too much".into()));
    assert_eq!(next.take_log()[0].message, "2 backends");

    let response = TestResponse::new(500).header("Server", "x");
    let responded = next.respond("b", &response);
    assert_eq!(
        responded.response_header("x-status").as_deref(),
        Some("500")
    );
    assert_eq!(responded.response_header("server"), None);
}

#[test]
fn refused_settings_say_why() {
    let refusal = |config| Harness::<Everything>::try_new(config).err();
    assert_eq!(
        refusal(r#"{"answer":418}"#).as_deref(),
        Some("not a teapot")
    );
    assert_eq!(
        refusal(r#"{"answer":"x"}"#).as_deref(),
        Some("config.answer: invalid type: string \"x\", expected u16")
    );
}

#[test]
#[should_panic(expected = "status 99")]
fn a_status_out_of_range_is_a_failure() {
    Harness::<Everything>::new(r#"{"answer":99}"#).pick(&TestRequest::get("/"));
}

/// Picks whatever it is told to.
struct Fixed(BackendId);

impl Policy for Fixed {
    type Config = u64;

    fn configure(id: u64) -> Result<Self, String> {
        Ok(Fixed(BackendId::new(id)))
    }

    fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
        Pick::forward(self.0)
    }
}

#[test]
#[should_panic(expected = "not in the set")]
fn an_unknown_backend_is_a_failure() {
    Harness::<Fixed>::new("99").pick(&TestRequest::get("/"));
}

#[test]
#[should_panic(expected = "which is Down")]
fn a_backend_that_is_down_is_a_failure() {
    let mut harness = Harness::<Fixed>::new("1").with_backends([backend("a").down()]);
    harness.pick(&TestRequest::get("/"));
}

#[test]
#[should_panic(expected = "was tried")]
fn a_backend_that_was_tried_is_a_failure() {
    let mut harness = Harness::<Fixed>::new("1").with_backends([backend("a")]);
    let tried = TestRequest::get("/").tried([harness.id("a")]);
    harness.pick(&tried);
}

/// Reads clock, generator and live numbers.
struct Reader(Vec<u64>);

impl Policy for Reader {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Reader(Vec::new()))
    }

    fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
        let b = backends.iter().nth(1).map(|backend| backend.id).unwrap();
        assert_eq!(
            backends.get(b).and_then(|backend| backend.label("zone")),
            Some("z1")
        );
        assert_eq!(backends.position(b), Some(1));
        assert_eq!(backends.get(BackendId::new(99)), None);
        assert_eq!(backends.in_flight(), [0, backends.in_flight_of(b)]);
        assert_eq!(backends.latency_us(), [0, backends.latency_us_of(b)]);
        assert_eq!(backends.error_ppm(), [0, backends.error_ppm_of(b)]);
        let live = [
            backends.in_flight_of(b),
            backends.latency_us_of(b),
            backends.error_ppm_of(b),
        ];
        self.0 = live.map(u64::from).to_vec();
        self.0.push(now().as_micros() as u64);
        self.0.push(random());
        assert!(random_below(10) < 10);
        assert_eq!(random_below(0), 0);
        Pick::unavailable()
    }
}

#[test]
fn the_host_is_what_the_test_says() {
    let mut harness = Harness::<Reader>::new("{}")
        .with_backends([backend("a"), backend("b").label("zone", "z1")]);
    harness.set_in_flight("b", 1);
    harness.begin("b");
    harness.begin("b");
    harness.end("b");
    harness.set_latency_us("b", 300);
    harness.set_error_ppm("b", 4);
    harness.advance(Duration::from_micros(5));
    harness.set_seed(42);
    harness.pick(&TestRequest::get("/"));
    let first = harness.policy().0.clone();
    assert_eq!(first[..4], [2, 300, 4, 5]);
    harness.set_seed(42);
    harness.pick(&TestRequest::get("/"));
    assert_eq!(harness.policy().0, first);
}
