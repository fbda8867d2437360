//! Made-up traffic: scripts of what happens to a proxy, ordinary and not.

use serde::{Deserialize, Serialize};
use waypost_plugin::{BackendState, Failure};

use crate::play::{Spec, Step};
use crate::random::Random;
use crate::subject::Request;

/// What means something to a policy and nobody could guess: without it, what the policy does for the tenant `acme`
/// and on the backends labelled `tier = "gold"` is not put to any test.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Words {
    /// Header fields, name and value. Each is in every third request, among others.
    pub headers: Vec<(String, String)>,
    /// Labels, key and value. The first is on every second backend, from `b1` on, the next on every second pair of
    /// them, from `b2` on, and so on; where two have one key, the first holds.
    pub labels: Vec<(String, String)>,
}

impl Words {
    fn say(&self, mut request: Request, random: &mut Random) -> Request {
        for (name, value) in &self.headers {
            if random.one_in(3) {
                request = request.field(name, value);
            }
        }
        request
    }

    /// Of the backend of this name.
    pub(crate) fn labels_of(&self, name: u16) -> impl Iterator<Item = &(String, String)> {
        let bits = (0..16).cycle().map(move |bit| name >> bit & 1 == 1);
        let with = self.labels.iter().zip(bits);
        with.filter_map(|(label, has)| has.then_some(label))
    }
}

/// What a script is made of.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// How many steps.
    pub steps: usize,
    /// At most so many backends at a time.
    pub backends: usize,
    /// Over so many shards.
    pub shards: usize,
    /// Backends come and go, and change their states.
    pub churn: bool,
    /// Backends may be down or draining, or weigh nothing.
    pub states: bool,
    /// The highest weight.
    pub weight: u32,
    /// Requests fail and are tried again.
    pub retries: bool,
    /// Instances are replaced.
    pub swaps: bool,
    /// Requests that nobody should send.
    pub hostile: bool,
}

impl Mix {
    /// Some of everything that is ordinary.
    pub const ORDINARY: Mix = Mix {
        steps: 60,
        backends: 8,
        shards: 3,
        churn: true,
        states: true,
        weight: 5,
        retries: true,
        swaps: false,
        hostile: false,
    };

    /// A script of this mix.
    pub fn script(&self, random: &mut Random, words: &Words) -> Vec<Step> {
        let mut script = vec![Step::Set(self.fleet(random))];
        while script.len() < self.steps {
            script.push(self.step(random, words));
        }
        script
    }

    fn step(&self, random: &mut Random, words: &Words) -> Step {
        let name = random.index(self.backends + 1) as u16;
        match random.below(20) {
            0 | 1 if self.churn => Step::Set(self.fleet(random)),
            2 => Step::Load(name, random.choose(&[0, 1, 2, 10, 1_000, u32::MAX])),
            3 => {
                let latency = random.choose(&[0, 1, 1_000, 50_000, u32::MAX]);
                Step::Vitals(name, latency, random.choose(&[0, 100, 500_000, 1_000_000]))
            }
            4 => Step::Advance(random.choose(&[0, 1, 10, 1_000, 60_000, 100_000_000])),
            5..=7 => {
                let status = random.choose(&[200, 200, 200, 204, 302, 404, 500, 503]);
                let latency = random.choose(&[0, 1_000, 20_000, 3_000_000, u64::MAX]);
                Step::End(random.index(16), status, latency)
            }
            8 | 9 if self.retries => {
                let failures = [
                    Failure::Connect,
                    Failure::Reset,
                    Failure::Timeout,
                    Failure::Protocol,
                    Failure::ClientGone,
                    Failure::Other,
                ];
                Step::Fail(random.index(16), random.choose(&failures))
            }
            10 if self.swaps => Step::Swap(random.index(self.shards)),
            _ => {
                let request = match self.hostile && random.one_in(2) {
                    true => hostile(random, words),
                    false => ordinary(random, words),
                };
                Step::Pick(random.index(self.shards), request)
            }
        }
    }

    /// A set of backends of this mix, none twice.
    pub fn fleet(&self, random: &mut Random) -> Vec<Spec> {
        let count = random.between(u64::from(!self.states), self.backends as u64);
        let mut names: Vec<u16> = (0..=self.backends as u16).collect();
        (0..count)
            .map(|_| {
                let name = names.swap_remove(random.index(names.len()));
                let lowest = u64::from(!self.states);
                let weight = random.between(lowest, u64::from(self.weight)) as u32;
                let state = match random.below(6) {
                    0 if self.states => BackendState::Down,
                    1 if self.states => BackendState::Draining,
                    _ => BackendState::Up,
                };
                Spec::up(name).weighing(weight).being(state)
            })
            .collect()
    }
}

/// One of a few hundred clients, asking for one of some things.
pub fn ordinary(random: &mut Random, words: &Words) -> Request {
    let client = random.below(300);
    let mut request = Request::get(random.choose(&["/", "/app", "/app?x=1", "/a/b/c.js"]))
        .from(&address(client))
        .field("accept", "*/*")
        .field("user-agent", format!("test/{}", client % 7));
    request.method = (random.choose(&["GET", "GET", "GET", "POST", "HEAD"])).into();
    if random.one_in(3) {
        request = request.field("cookie", format!("session=s{client}; theme=dark"));
    }
    if random.one_in(10) {
        request.scheme = "https".into();
    }
    words.say(request, random)
}

/// The address of a client by number.
pub fn address(client: u64) -> String {
    let [.., a, b, c] = client.to_be_bytes();
    format!("10.{a}.{b}.{c}")
}

/// What no browser sends, and every server gets one day.
pub fn hostile(random: &mut Random, words: &Words) -> Request {
    let mut request = Request::get("/");
    match random.below(10) {
        0 => {
            request.fields.clear();
            request.authority.clear();
        }
        1 => request.target = format!("/{}", "a".repeat(7_000)),
        2 => {
            for number in 0..random.between(1_000, 3_000) {
                request = request.field(&format!("x-{number}"), "1");
            }
        }
        3 => {
            for value in ["a", "b", "", "a", "\u{7f}x"] {
                let value = value.replace('\u{7f}', "~");
                request = request.field("cookie", &value).field("x-key", &value);
            }
        }
        4 => {
            let bytes: Vec<u8> = (0..200).map(|_| random.between(0x80, 0xff) as u8).collect();
            request = request.field("cookie", &bytes).field("x-key", &bytes);
        }
        5 => request = request.field("cookie", "x=".repeat(20_000)),
        6 => {
            request = request
                .field("cookie", ";;;=;==; =x; sid")
                .field("x-key", "");
        }
        7 => {
            request.client = "2001:db8::ffff:192.0.2.1".into();
            request.method = "BREW-COFFEE".into();
        }
        8 => {
            request.target = "/%00%ff/../..//?&&==%".into();
            request.authority = "[::1]:65535".into();
        }
        _ => {
            let value = format!("{}=1.9.{}", "sid", "f".repeat(400));
            request = request.field("cookie", value).field("x-canary", "\t;\"");
        }
    }
    words.say(request, random)
}
