//! How to write a policy, task by task.
//!
//! Every piece of code here compiles and runs as it stands; `waypost plugin new NAME` writes the crate around it.
//!
//! 1. [My first policy](#my-first-policy)
//! 2. [Read a header](#read-a-header)
//! 3. [Settings](#settings)
//! 4. [Keep state](#keep-state)
//! 5. [State over a swap](#state-over-a-swap)
//! 6. [React to failures](#react-to-failures)
//! 7. [Rewrite header fields](#rewrite-header-fields)
//! 8. [Weights](#weights)
//! 9. [The least loaded of some](#the-least-loaded-of-some)
//! 10. [Test it](#test-it)
//! 11. [Ship it](#ship-it)
//! 12. [What a policy cannot do](#what-a-policy-cannot-do)
//!
//! # My first policy
//!
//! A policy is a type that implements [`Policy`](crate::Policy), and one line that makes the crate a plugin:
//! [`export_policy!`](crate::export_policy). `configure` makes it, `pick` decides on a request.
//!
//! ```
//! use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};
//!
//! pub struct FirstHealthy;
//!
//! impl Policy for FirstHealthy {
//!     type Config = ();
//!
//!     fn configure(_: ()) -> Result<Self, String> {
//!         Ok(FirstHealthy)
//!     }
//!
//!     fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
//!         match backends.healthy().next() {
//!             Some(backend) => Pick::forward(backend.id),
//!             None => Pick::unavailable(),
//!         }
//!     }
//! }
//!
//! export_policy!(FirstHealthy);
//! # use waypost_plugin::testing::{Harness, TestRequest, backend};
//! # let mut harness = Harness::<FirstHealthy>::new("{}").with_backends([backend("a").down(), backend("b")]);
//! # assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("b"));
//! ```
//!
//! [`Backends::healthy`](crate::Backends::healthy) are those that may be picked: up, with a weight, and not tried for this
//! request before. A policy that picks among them is right about draining, retries and removed backends without a
//! thought. Any other pick counts as a failure: the host answers the request by rotation instead, and takes out a
//! policy that fails again and again.
//!
//! # Read a header
//!
//! The request is read by name. Each reader is a call to the host, so read once what is needed more often.
//!
//! ```
//! use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};
//!
//! pub struct ByTenant;
//!
//! impl Policy for ByTenant {
//!     type Config = ();
//!     fn configure(_: ()) -> Result<Self, String> { Ok(ByTenant) }
//!
//!     fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
//!         let Some(tenant) = request.header("x-tenant") else {
//!             return Pick::respond(400);
//!         };
//!         // `labels = { tenant = "acme" }` of a server in the configuration.
//!         let mut theirs = backends
//!             .healthy()
//!             .filter(|backend| backend.label("tenant") == Some(tenant.as_str()));
//!         theirs.next().map_or(Pick::unavailable(), |backend| Pick::forward(backend.id))
//!     }
//! }
//!
//! export_policy!(ByTenant);
//! # use waypost_plugin::testing::{Harness, TestRequest, backend};
//! # let mut harness = Harness::<ByTenant>::new("{}")
//! #     .with_backends([backend("a").label("tenant", "acme"), backend("b").label("tenant", "other")]);
//! # assert_eq!(harness.pick(&TestRequest::get("/")).pick, Pick::Respond(400));
//! # assert_eq!(harness.pick(&TestRequest::get("/").header("X-Tenant", "other")).backend(), Some("b"));
//! ```
//!
//! What no backend is labelled with is nothing that `waypost check` could find: where a label is misspelled, or all its
//! backends are gone, say so with [`log`](crate::log) in `update`.
//!
//! There are also [`method`](crate::Request::method), [`path`](crate::Request::path),
//! [`query`](crate::Request::query), [`cookie`](crate::Request::cookie),
//! [`client_address`](crate::Request::client_address) and more in [`Request`](crate::Request).
//!
//! # Settings
//!
//! What `config` says in the configuration, or `--config` of `waypost demo`, is read into
//! [`Policy::Config`](crate::Policy::Config). Refuse what is wrong with a sentence that says what to change, and
//! never by a panic; a default for every key lets the policy be tried without settings.
//!
//! ```
//! use serde::Deserialize;
//! use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};
//!
//! #[derive(Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! pub struct Settings {
//!     /// Requests under way at one backend.
//!     most: u32,
//! }
//!
//! impl Default for Settings {
//!     fn default() -> Self {
//!         Settings { most: 100 }
//!     }
//! }
//!
//! pub struct Bounded {
//!     most: u32,
//! }
//!
//! impl Policy for Bounded {
//!     type Config = Settings;
//!
//!     fn configure(config: Settings) -> Result<Self, String> {
//!         match config.most {
//!             0 => Err("most: 0 would let nothing through; write 1 or more".into()),
//!             most => Ok(Bounded { most }),
//!         }
//!     }
//!
//!     fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
//!         let mut open = backends.healthy().filter(|b| backends.in_flight_of(b.id) < self.most);
//!         open.next().map_or(Pick::unavailable(), |backend| Pick::forward(backend.id))
//!     }
//! }
//!
//! export_policy!(Bounded);
//! # use waypost_plugin::testing::{Harness, TestRequest, backend};
//! # let mut harness = Harness::<Bounded>::new(r#"{"most":1}"#).with_backends([backend("a"), backend("b")]);
//! # harness.begin("a");
//! # assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("b"));
//! # assert!(Harness::<Bounded>::try_new(r#"{"most":0}"#).is_err());
//! ```
//!
//! # Keep state
//!
//! `pick` takes `&mut self`: what the struct holds is there for the next request. But there is an instance on each shard
//! (one thread of the proxy), and they do not see each other. What all of them are to agree on is a
//! [`Counter`](crate::Counter), which the host keeps for all shards. What follows from the backends alone is computed
//! in `update`, which is called when they have changed, and not in each `pick`.
//!
//! ```
//! use waypost_plugin::{BackendId, Backends, Counter, Pick, Policy, Request, export_policy};
//!
//! const TURNS: Counter = Counter::new(0);
//!
//! #[derive(Default)]
//! pub struct InTurn {
//!     up: Vec<BackendId>,
//! }
//!
//! impl Policy for InTurn {
//!     type Config = ();
//!     fn configure(_: ()) -> Result<Self, String> { Ok(InTurn::default()) }
//!
//!     fn update(&mut self, backends: &Backends) {
//!         self.up = backends.healthy().map(|backend| backend.id).collect();
//!     }
//!
//!     fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
//!         let turn = self.up.get(TURNS.turn(self.up.len())).copied();
//!         // On a retry, the one whose turn it is may be the one that has just failed.
//!         let turn = turn.filter(|id| !request.was_tried(*id));
//!         let pick = turn.or_else(|| backends.healthy().next().map(|backend| backend.id));
//!         pick.map_or(Pick::unavailable(), Pick::forward)
//!     }
//! }
//!
//! export_policy!(InTurn);
//! # use waypost_plugin::testing::{Harness, TestRequest, backend};
//! # let mut one = Harness::<InTurn>::new("{}").with_backends([backend("a"), backend("b")]);
//! # let mut other = one.another_shard();
//! # assert_eq!(one.pick(&TestRequest::get("/")).backend(), Some("a"));
//! # assert_eq!(other.pick(&TestRequest::get("/")).backend(), Some("b"));
//! ```
//!
//! # State over a swap
//!
//! When the policy's file changes, each instance is replaced by a new one. Counters stay. What else is to stay goes
//! through [`save`](crate::Policy::save) and [`restore`](crate::Policy::restore): hook `state`. The bytes may be those of
//! another version, so begin them with a mark and refuse what is not yours; the policy then starts cold. Ids of
//! backends stay what they are for as long as the process lives.
//!
//! ```
//! use std::collections::BTreeMap;
//! use waypost_plugin::{BackendId, Backends, Pick, Policy, Request, export_policy};
//!
//! /// Clients stay where they were first sent.
//! #[derive(Default)]
//! pub struct Remembers {
//!     homes: BTreeMap<String, BackendId>,
//! }
//!
//! impl Policy for Remembers {
//!     type Config = ();
//!     fn configure(_: ()) -> Result<Self, String> { Ok(Remembers::default()) }
//!
//!     fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
//!         let client = request.client_address();
//!         let home = self.homes.get(&client).copied();
//!         let home = home.filter(|home| backends.healthy().any(|backend| backend.id == *home));
//!         let Some(id) = home.or_else(|| backends.healthy().next().map(|backend| backend.id)) else {
//!             return Pick::unavailable();
//!         };
//!         // Whatever grows with the clients needs a bound.
//!         if self.homes.len() < 10_000 {
//!             self.homes.insert(client, id);
//!         }
//!         Pick::forward(id)
//!     }
//!
//!     fn save(&self) -> Vec<u8> {
//!         let lines = self.homes.iter().map(|(client, id)| format!("{client} {id}\n"));
//!         format!("homes 1\n{}", lines.collect::<String>()).into_bytes()
//!     }
//!
//!     fn restore(&mut self, state: &[u8]) -> Result<(), String> {
//!         let text = std::str::from_utf8(state).map_err(|error| error.to_string())?;
//!         let lines = text.strip_prefix("homes 1\n").ok_or("not a state of this policy")?;
//!         for line in lines.lines() {
//!             let (client, id) = line.split_once(' ').ok_or("a line without an id")?;
//!             let id = id.parse().map_err(|_| "an id that is no number")?;
//!             self.homes.insert(client.into(), BackendId::new(id));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_policy!(Remembers, state);
//!
//! use waypost_plugin::testing::{Harness, TestRequest, backend};
//!
//! let mut old = Harness::<Remembers>::new("{}").with_backends([backend("a"), backend("b").down()]);
//! assert_eq!(old.pick(&TestRequest::get("/")).backend(), Some("a"));
//! let mut new = old.replaced_by::<Remembers>("{}").unwrap();
//! new.set_backends([backend("b"), backend("a")]);
//! assert_eq!(new.pick(&TestRequest::get("/")).backend(), Some("a"));
//! assert!(new.restore(b"homes 2").is_err());
//! ```
//!
//! # Hooks are listed
//!
//! `update` is always called. **The other hooks are called only if `export_policy!` lists them**: `outcomes` for
//! `observe`, `responses` for `respond`, `state` for `save` and `restore`. One that is not listed costs nothing per
//! request, and does nothing. The macro adds a test to the crate, `export_policy_lists_every_hook`, which fails where
//! the policy implements a hook and does not list it; `waypost plugin inspect` shows which hooks a file has.
//!
//! # React to failures
//!
//! Hook `outcomes`: [`observe`](crate::Policy::observe) hears how attempts ended, in batches, some time before a later
//! pick. The host retries by itself, and takes a backend out that refuses connections; this is for what only
//! the policy can know.
//!
//! ```
//! use std::time::Duration;
//! use waypost_plugin::{
//!     BackendId, Backends, Ending, Failure, Outcome, Pick, Policy, Request, export_policy, now,
//! };
//!
//! /// Whoever answers 503 is left alone for a while.
//! #[derive(Default)]
//! pub struct Tactful {
//!     resting: Vec<(BackendId, Duration)>,
//! }
//!
//! impl Policy for Tactful {
//!     type Config = ();
//!     fn configure(_: ()) -> Result<Self, String> { Ok(Tactful::default()) }
//!
//!     fn observe(&mut self, outcomes: &[Outcome]) {
//!         let until = now() + Duration::from_secs(1);
//!         for outcome in outcomes {
//!             match outcome.ending {
//!                 // Says nothing about the backend.
//!                 Ending::Failed(Failure::ClientGone) => {}
//!                 Ending::Failed(_) | Ending::Status(503) => self.resting.push((outcome.backend, until)),
//!                 Ending::Status(_) => {}
//!             }
//!         }
//!     }
//!
//!     fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
//!         let now = now();
//!         self.resting.retain(|(_, until)| *until > now);
//!         let rests = |id| self.resting.iter().any(|(resting, _)| *resting == id);
//!         // Better one that rests than none.
//!         let rested = backends.healthy().find(|backend| !rests(backend.id));
//!         let backend = rested.or_else(|| backends.healthy().next());
//!         backend.map_or(Pick::unavailable(), |backend| Pick::forward(backend.id))
//!     }
//! }
//!
//! export_policy!(Tactful, outcomes);
//! # use waypost_plugin::testing::{Harness, TestRequest, backend};
//! # let mut harness = Harness::<Tactful>::new("{}").with_backends([backend("a"), backend("b")]);
//! # let outcome = Outcome { backend: harness.id("a"), attempt: 0, ending: Ending::Status(503), latency_us: 9, bytes: 0 };
//! # harness.observe(&[outcome]);
//! # assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("b"));
//! # harness.advance(Duration::from_secs(1));
//! # assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("a"));
//! ```
//!
//! For averages that the host keeps anyway, ask [`error_ppm_of`](crate::Backends::error_ppm_of) and
//! [`latency_us_of`](crate::Backends::latency_us_of) instead.
//!
//! # Rewrite header fields
//!
//! Fields of the request are edited in `pick`, and take effect if the pick succeeds. Those of the response can be decided
//! on in `pick` too, which is cheapest; hook `responses` is for those that depend on what the backend answered.
//!
//! ```
//! use waypost_plugin::{BackendId, Backends, Pick, Policy, Promise, Request, Response, export_policy};
//!
//! pub struct Tidy;
//!
//! impl Policy for Tidy {
//!     type Config = ();
//!     const PROMISES: &'static [Promise] = &[Promise::RewritesHeaders];
//!
//!     fn configure(_: ()) -> Result<Self, String> { Ok(Tidy) }
//!
//!     fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
//!         let Some(backend) = backends.healthy().next() else {
//!             return Pick::unavailable();
//!         };
//!         request.set_header("x-backend", &backend.name);
//!         request.remove_header("x-debug");
//!         request.response().set_header("x-served-by", &backend.name);
//!         Pick::forward(backend.id)
//!     }
//!
//!     fn respond(&mut self, _: BackendId, response: &Response) {
//!         if response.status() >= 500 {
//!             response.set_header("cache-control", "no-store");
//!         }
//!     }
//! }
//!
//! export_policy!(Tidy, responses);
//! # use waypost_plugin::testing::{Harness, TestRequest, TestResponse, backend};
//! # let mut harness = Harness::<Tidy>::new("{}").with_backends([backend("a")]);
//! # let picked = harness.pick(&TestRequest::get("/").header("x-debug", "1"));
//! # assert_eq!(picked.request_header("x-debug"), None);
//! # assert_eq!(picked.response_header("x-served-by").as_deref(), Some("a"));
//! # let responded = harness.respond("a", &TestResponse::new(502));
//! # assert_eq!(responded.response_header("cache-control").as_deref(), Some("no-store"));
//! ```
//!
//! Framing, hop-by-hop and forwarding fields are the host's: an edit of one is refused, logged, and returns `false`.
//!
//! # Weights
//!
//! A server's `weight` is its share beside the others'; 0 is none, and [`healthy`](crate::Backends::healthy) leaves those
//! out. Weights are arbitrary numbers up to 65535: do not make a list with one entry for each unit. To draw by weight,
//! draw a number below their sum and count down; to compare loads, multiply crosswise.
//!
//! ```
//! use waypost_plugin::{Backends, Pick, Policy, Request, export_policy, random_below};
//!
//! pub struct Lottery;
//!
//! impl Policy for Lottery {
//!     type Config = ();
//!     fn configure(_: ()) -> Result<Self, String> { Ok(Lottery) }
//!
//!     fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
//!         let sum: u64 = backends.healthy().map(|backend| u64::from(backend.weight)).sum();
//!         let mut ticket = random_below(sum);
//!         for backend in backends.healthy() {
//!             match ticket.checked_sub(u64::from(backend.weight)) {
//!                 Some(left) => ticket = left,
//!                 None => return Pick::forward(backend.id),
//!             }
//!         }
//!         Pick::unavailable()
//!     }
//! }
//!
//! export_policy!(Lottery);
//! # use waypost_plugin::testing::{Harness, TestRequest, backend};
//! # let mut harness = Harness::<Lottery>::new("{}").with_backends([backend("a"), backend("b").weight(3)]);
//! # let to_b = (0..400).filter(|_| harness.pick(&TestRequest::get("/")).backend() == Some("b")).count();
//! # assert!((250..350).contains(&to_b), "{to_b}");
//! ```
//!
//! # The least loaded of some
//!
//! Of some backends or of all, [`LeastLoaded`](crate::LeastLoaded) finds the one with the fewest requests under way for its
//! weight. Make one in `update` for each set to choose from. Each has a [`Counter`](crate::Counter) of its own for
//! ties: one for several would share out the turns of each unevenly.
//!
//! ```
//! use serde::Deserialize;
//! use waypost_plugin::{Backends, Counter, LeastLoaded, Pick, Policy, Request, export_policy};
//!
//! const GOLD_TIES: Counter = Counter::new(0);
//! const OTHER_TIES: Counter = Counter::new(1);
//!
//! #[derive(Default, Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! pub struct Settings {
//!     /// Tenants that have the gold servers to themselves.
//!     premium: Vec<String>,
//! }
//!
//! #[derive(Default)]
//! pub struct Tiers {
//!     premium: Vec<String>,
//!     gold: LeastLoaded,
//!     others: LeastLoaded,
//! }
//!
//! impl Policy for Tiers {
//!     type Config = Settings;
//!
//!     fn configure(config: Settings) -> Result<Self, String> {
//!         Ok(Tiers { premium: config.premium, ..Tiers::default() })
//!     }
//!
//!     fn update(&mut self, backends: &Backends) {
//!         self.gold = LeastLoaded::among(backends, |backend| backend.label("tier") == Some("gold"));
//!         self.others = LeastLoaded::among(backends, |backend| backend.label("tier") != Some("gold"));
//!     }
//!
//!     fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
//!         let tenant = request.header("x-tenant").unwrap_or_default();
//!         let (side, ties) = match self.premium.contains(&tenant) {
//!             true => (&self.gold, GOLD_TIES),
//!             false => (&self.others, OTHER_TIES),
//!         };
//!         side.pick(request, backends, ties).map_or(Pick::unavailable(), Pick::forward)
//!     }
//! }
//!
//! export_policy!(Tiers);
//! # use waypost_plugin::testing::{Harness, TestRequest, backend};
//! # let mut harness = Harness::<Tiers>::new(r#"{"premium":["acme"]}"#)
//! #     .with_backends([backend("a").label("tier", "gold"), backend("b")]);
//! # assert_eq!(harness.pick(&TestRequest::get("/").header("x-tenant", "acme")).backend(), Some("a"));
//! # assert_eq!(harness.pick(&TestRequest::get("/")).backend(), Some("b"));
//! ```
//!
//! # Test it
//!
//! Three rungs, from the fastest to the most real:
//!
//! - **Natively**, in the crate's own `cargo test`: a [`Harness`](crate::testing::Harness) is one shard of a proxy whose
//!   backends, loads, clock and randomness the test sets. No WebAssembly is involved.
//!
//!   ```
//!   # use waypost_plugin::{Backends, Pick, Policy, Request};
//!   # pub struct Mine;
//!   # impl Policy for Mine {
//!   #     type Config = ();
//!   #     fn configure(_: ()) -> Result<Self, String> { Ok(Mine) }
//!   #     fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
//!   #         backends.healthy().next().map_or(Pick::unavailable(), |b| Pick::forward(b.id))
//!   #     }
//!   # }
//!   use waypost_plugin::testing::{Harness, TestRequest, backend};
//!
//!   let mut harness = Harness::<Mine>::new("{}").with_backends([backend("a"), backend("b").weight(2)]);
//!   harness.set_in_flight("a", 5);
//!   let retry = TestRequest::get("/").header("accept", "*/*").tried([harness.id("a")]);
//!   assert_eq!(harness.pick(&retry).backend(), Some("b"));
//!   ```
//! - **By the contract**: `tests/conformance.rs` of a new crate holds the policy to what every policy must do and to what
//!   its [`PROMISES`](crate::Policy::PROMISES) say, with made-up traffic. Settings, and header fields and labels that mean
//!   something to the policy, have to be in it: nobody could guess them, and what hangs on them would not be tested.
//!   `conforms!(Tiers, Options::from(r#"{"premium":["acme"]}"#).header("x-tenant", "acme").label("tier", "gold"));`
//!   The same for what is built: `waypost plugin test mine.wasm --config JSON --header 'x-tenant: acme' --label tier=gold`.
//! - **As it will run**: `waypost plugin build` compiles it, wraps it, and tries it on made-up backends as a server
//!   would at its start: that it runs in the sandbox, only this can tell; `waypost demo --policy ./mine.wasm` puts it in front of three sample servers.
//!
//! # Ship it
//!
//! ```sh
//! waypost plugin build                            # mine.wasm: one file, the same on every machine
//! waypost plugin inspect mine.wasm                # hooks, promises, what it asks for, digest, costs
//! waypost plugin bench mine.wasm --against old.wasm   # whether a pick has become dearer
//! waypost policy push mine mine.wasm              # into a server that runs, without losing a request
//! waypost policy rollback mine                    # and back
//! ```
//!
//! A server that is to run this file and no other says so with `sha256` in its `[policy.mine]`. Raise the `version` in
//! `Cargo.toml` with each change: `waypost status` shows it.
//!
//! # What a policy cannot do
//!
//! It has no clock, no randomness, no files, no sockets, no threads and no environment of its own; that is what makes a
//! recorded run repeatable and a policy safe to swap in.
//!
//! | instead of | use |
//! | --- | --- |
//! | `std::time::Instant`, which panics | [`now`](crate::now) |
//! | the crates `rand` and `getrandom`, which do not compile | [`random`](crate::random), [`random_below`](crate::random_below) |
//! | `println!`, which goes nowhere | [`log`](crate::log) |
//! | files and the environment | [settings](#settings) |
//! | a `static` for all shards | a [`Counter`](crate::Counter) |
//! | the iteration order of a `HashMap`, which differs between builds | a `BTreeMap`, or a `Vec` |
//!
//! A call may take 5 ms, and an instance 16 MiB of memory, unless the configuration says otherwise.
