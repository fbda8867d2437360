//! A policy in its host, with the bookkeeping that a proxy does around it: who is there, what is under way, what has
//! ended.

use std::collections::BTreeMap;
use std::fmt;

use waypost_plugin::testing::Head;
use waypost_plugin::{Backend, BackendId, BackendState, Ending, Failure, Outcome, Pick};

use crate::subject::{Broken, Host, Live, Picked, Request, Responded, Response, Subject};
use crate::traffic::Words;

/// A backend to be. Two of one name are the same backend, unless it was away in between.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spec {
    /// The name is made of it.
    pub name: u16,
    /// Its share.
    pub weight: u32,
    /// Whether it takes requests.
    pub state: BackendState,
}

impl Spec {
    /// A backend that is up, of weight 1.
    pub fn up(name: u16) -> Self {
        Spec {
            name,
            weight: 1,
            state: BackendState::Up,
        }
    }

    /// The same with another weight.
    #[must_use]
    pub fn weighing(self, weight: u32) -> Self {
        Spec { weight, ..self }
    }

    /// The same in another state.
    #[must_use]
    pub fn being(self, state: BackendState) -> Self {
        Spec { state, ..self }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.name)?;
        if self.weight != 1 {
            write!(f, " of weight {}", self.weight)?;
        }
        match self.state {
            BackendState::Up => Ok(()),
            BackendState::Draining => f.write_str(" (draining)"),
            BackendState::Down => f.write_str(" (down)"),
        }
    }
}

/// So many backends that are up, of weight 1.
pub fn fleet(count: usize) -> Vec<Spec> {
    (0..count).map(|name| Spec::up(name as u16)).collect()
}

/// Something that happens to a proxy.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The set of backends becomes this one.
    Set(Vec<Spec>),
    /// A backend has so many requests under way.
    Load(u16, u32),
    /// A backend's latency and error rate.
    Vitals(u16, u32, u32),
    /// So many milliseconds pass.
    Advance(u64),
    /// A shard gets a request.
    Pick(usize, Request),
    /// A request that is under way, by its place among all, ends with this status after so many microseconds.
    End(usize, u16, u64),
    /// A request that is under way fails and is tried again elsewhere.
    Fail(usize, Failure),
    /// A shard hears what there is to hear.
    Hear(usize),
    /// The policy of a shard is replaced by the same version, which takes over the state.
    Swap(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Set(specs) if specs.is_empty() => f.write_str("backends: none"),
            Step::Set(specs) => {
                const SHOWN: usize = 12;
                let shown: Vec<String> = specs.iter().take(SHOWN).map(Spec::to_string).collect();
                write!(f, "backends: {}", shown.join(", "))?;
                match specs.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Step::Load(name, load) => write!(f, "b{name} has {load} requests under way"),
            Step::Vitals(name, latency, errors) => {
                write!(f, "b{name} takes {latency} us, {errors} ppm of errors")
            }
            Step::Advance(ms) => write!(f, "{ms} ms pass"),
            Step::Pick(shard, request) => write!(f, "shard {shard} gets {request}"),
            Step::End(which, status, latency) => {
                write!(f, "request {which} ends with {status} after {latency} us")
            }
            Step::Fail(which, failure) => {
                write!(f, "request {which} fails ({failure:?}) and is tried again")
            }
            Step::Hear(shard) => write!(f, "shard {shard} hears how requests ended"),
            Step::Swap(shard) => write!(f, "shard {shard} gets a new instance, with the old state"),
        }
    }
}

/// What the host knows.
#[derive(Debug, Default)]
pub struct World {
    /// In the order of the configuration.
    pub backends: Vec<Backend>,
    /// Of those that are there.
    pub live: BTreeMap<BackendId, Live>,
    /// Requests under way, the oldest first.
    pub under_way: Vec<Flight>,
    /// The time in nanoseconds.
    pub now: u64,
    last_id: u64,
}

/// A request that is under way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The shard that has it.
    pub shard: usize,
    /// Where it is.
    pub backend: BackendId,
    /// What it is, and where it has been before.
    pub request: Request,
}

impl World {
    /// The backends that a request may go to.
    pub fn open_to<'w>(&'w self, request: &'w Request) -> impl Iterator<Item = &'w Backend> {
        let tried = |backend: &&Backend| !request.tried.contains(&backend.id);
        self.backends
            .iter()
            .filter(|backend| backend.is_healthy())
            .filter(tried)
    }

    /// The backend of this id, if it is there.
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.id == id)
    }

    /// Whether a backend of this id has ever been there.
    pub fn knew(&self, id: BackendId) -> bool {
        (1..=self.last_id).contains(&id.number())
    }

    /// What to call a backend in a report.
    pub fn name(&self, id: BackendId) -> String {
        match self.backend(id) {
            Some(backend) => backend.name.clone(),
            None if !self.knew(id) => format!("backend {id}, which never was"),
            None => format!("backend {id}, which is gone"),
        }
    }

    /// The id of the backend of this name, if it is there.
    pub fn id(&self, name: u16) -> Option<BackendId> {
        let name = name_of(name);
        let found = self.backends.iter().find(|backend| backend.name == name);
        found.map(|backend| backend.id)
    }
}

fn name_of(name: u16) -> String {
    format!("b{name}")
}

/// A policy at work.
pub struct Play<'s> {
    host: Box<dyn Host + 's>,
    config: &'s str,
    words: &'s Words,
    /// What surrounds it.
    pub world: World,
    shards: Vec<Desk>,
}

/// A shard, and the outcomes that it is still to hear of.
struct Desk {
    number: usize,
    waiting: Vec<Outcome>,
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Played {
    /// All was well: what was picked, in order.
    Through(Vec<Shown>),
    /// A rule was broken.
    Wrong(String),
    /// The policy did not get through.
    Broke(Broken),
}

/// What can be seen of a pick from outside: verdict and edits.
pub type Shown = (Pick, Vec<waypost_plugin::testing::HeaderEdit>);

/// Looks at a pick and says what is wrong with it.
pub type Rule<'r> = dyn FnMut(&World, &Request, &Picked) -> Result<(), String> + 'r;

impl<'s> Play<'s> {
    /// Starts a policy on so many shards, without backends.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn new(
        subject: &'s dyn Subject,
        config: &'s str,
        words: &'s Words,
        seed: u64,
        shards: usize,
    ) -> Result<Self, Broken> {
        Play::in_host(subject.host(), config, words, seed, shards)
    }

    /// The same in a host that was made before.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn in_host(
        mut host: Box<dyn Host + 's>,
        config: &'s str,
        words: &'s Words,
        seed: u64,
        shards: usize,
    ) -> Result<Self, Broken> {
        host.set_random(seed);
        let mut play = Play {
            host,
            config,
            words,
            world: World::default(),
            shards: Vec::new(),
        };
        for _ in 0..shards {
            let started = play.host.start(config, None)?;
            play.shards.push(Desk {
                number: started.shard,
                waiting: Vec::new(),
            });
        }
        Ok(play)
    }

    /// The host, for what this does not do.
    pub fn host(&mut self) -> &mut dyn Host {
        &mut *self.host
    }

    /// What the host calls a shard.
    pub fn shard(&self, shard: usize) -> usize {
        self.shards[shard % self.shards.len()].number
    }

    /// Leaves out so many ids: another host has others for the same backends.
    pub fn skip_ids(&mut self, count: u64) {
        self.world.last_id += count;
    }

    /// Changes the set of backends.
    pub fn set(&mut self, specs: &[Spec]) {
        let mut known: BTreeMap<String, BackendId> = self
            .world
            .backends
            .iter()
            .map(|backend| (backend.name.clone(), backend.id))
            .collect();
        let mut backends: Vec<Backend> = Vec::with_capacity(specs.len());
        for spec in specs {
            let name = name_of(spec.name);
            let id = known.remove(&name).unwrap_or_else(|| {
                self.world.last_id += 1;
                BackendId::new(self.world.last_id)
            });
            backends.push(backend(id, name, *spec, self.words));
        }
        let live = &self.world.live;
        let kept = |backend: &Backend| live.get(&backend.id).copied().unwrap_or_default();
        self.world.live = backends
            .iter()
            .map(|backend| (backend.id, kept(backend)))
            .collect();
        self.world.backends = backends;
        self.host.set_backends(&self.world.backends);
    }

    /// Changes a backend's live numbers, if it is there.
    pub fn change(&mut self, id: BackendId, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.world.live.get_mut(&id) {
            change(live);
            self.host.set_live(id, *live);
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, ns: u64) {
        self.world.now = self.world.now.saturating_add(ns);
        self.host.set_now(self.world.now);
    }

    /// Has a shard decide, after it has heard what there is to hear. Nothing comes to be under way.
    ///
    /// # Errors
    /// Where the policy breaks.
    pub fn ask(&mut self, shard: usize, request: &Request) -> Result<Picked, Broken> {
        self.hear(shard)?;
        let number = self.shard(shard);
        self.host.pick(number, request)
    }

    /// Has a shard hear how its requests ended.
    fn hear(&mut self, shard: usize) -> Result<(), Broken> {
        let count = self.shards.len();
        let desk = &mut self.shards[shard % count];
        let outcomes = std::mem::take(&mut desk.waiting);
        match outcomes.is_empty() {
            true => Ok(()),
            false => self.host.observe(desk.number, &outcomes),
        }
    }

    /// Has a shard decide, and the request is under way from then on.
    ///
    /// # Errors
    /// Where the policy breaks.
    pub fn send(&mut self, shard: usize, request: Request) -> Result<Picked, Broken> {
        let picked = self.ask(shard, &request)?;
        self.begin(shard, request, &picked);
        Ok(picked)
    }

    /// Counts a request as under way.
    fn begin(&mut self, shard: usize, request: Request, picked: &Picked) {
        let Some(backend) = picked.backend() else {
            return;
        };
        if !self.world.live.contains_key(&backend) {
            return;
        }
        self.change(backend, |live| {
            live.in_flight = live.in_flight.saturating_add(1);
        });
        self.world.under_way.push(Flight {
            shard,
            backend,
            request,
        });
    }

    /// Ends a request that is under way, by its place among all; `None` where there is none.
    pub fn end(&mut self, which: usize, ending: Ending, latency_us: u64) -> Option<Flight> {
        let count = self.world.under_way.len();
        let which = which.checked_rem(count)?;
        let flight = self.world.under_way.remove(which);
        self.change(flight.backend, |live| {
            live.in_flight = live.in_flight.saturating_sub(1);
        });
        let shards = self.shards.len();
        self.shards[flight.shard % shards].waiting.push(Outcome {
            backend: flight.backend,
            attempt: flight.request.attempt(),
            ending,
            latency_us,
            bytes: latency_us,
        });
        Some(flight)
    }

    /// Shows a shard a response.
    ///
    /// # Errors
    /// Where the policy breaks.
    pub fn respond(
        &mut self,
        shard: usize,
        backend: BackendId,
        response: &Response,
    ) -> Result<Responded, Broken> {
        let number = self.shard(shard);
        self.host.respond(number, backend, response)
    }

    /// What a shard's instance hands over; `None` where it has no such hook.
    ///
    /// # Errors
    /// Where the policy breaks.
    pub fn save(&mut self, shard: usize) -> Result<Option<Vec<u8>>, Broken> {
        let number = self.shard(shard);
        self.host.save(number)
    }

    /// Replaces a shard's instance by one that gets this state; says why it was refused, where it was.
    ///
    /// # Errors
    /// Where the policy breaks.
    pub fn replace(
        &mut self,
        shard: usize,
        state: Option<&[u8]>,
    ) -> Result<Option<String>, Broken> {
        let started = self.host.start(self.config, state)?;
        let count = self.shards.len();
        self.shards[shard % count].number = started.shard;
        Ok(started.refused)
    }

    /// Does what a script says, and holds every pick to a rule.
    pub fn follow(&mut self, script: &[Step], rule: &mut Rule<'_>) -> Played {
        let mut shown = Vec::new();
        for step in script {
            match self.take(step, rule, &mut shown) {
                Ok(Ok(())) => {}
                Ok(Err(what)) => return Played::Wrong(what),
                Err(broken) => return Played::Broke(broken),
            }
        }
        Played::Through(shown)
    }

    fn take(
        &mut self,
        step: &Step,
        rule: &mut Rule<'_>,
        shown: &mut Vec<Shown>,
    ) -> Result<Result<(), String>, Broken> {
        match step {
            Step::Set(specs) => self.set(specs),
            Step::Load(name, load) => {
                if let Some(id) = self.world.id(*name) {
                    self.change(id, |live| live.in_flight = *load);
                }
            }
            Step::Vitals(name, latency_us, error_ppm) => {
                if let Some(id) = self.world.id(*name) {
                    self.change(id, |live| {
                        live.latency_us = *latency_us;
                        live.error_ppm = *error_ppm;
                    });
                }
            }
            Step::Advance(ms) => self.advance(ms.saturating_mul(1_000_000)),
            Step::Pick(shard, request) => {
                return self.checked(*shard, request.clone(), rule, shown);
            }
            Step::End(which, status, latency_us) => {
                self.end(*which, Ending::Status(*status), *latency_us);
            }
            Step::Fail(which, failure) => {
                if let Some(flight) = self.end(*which, Ending::Failed(*failure), 100) {
                    let mut request = flight.request;
                    request.tried.push(flight.backend);
                    return self.checked(flight.shard, request, rule, shown);
                }
            }
            Step::Hear(shard) => self.hear(*shard)?,
            Step::Swap(shard) => {
                // What is still to be heard is heard by the instance that picked.
                self.hear(*shard)?;
                if let Some(state) = self.save(*shard)? {
                    self.replace(*shard, Some(&state))?;
                }
            }
        }
        Ok(Ok(()))
    }

    fn checked(
        &mut self,
        shard: usize,
        request: Request,
        rule: &mut Rule<'_>,
        shown: &mut Vec<Shown>,
    ) -> Result<Result<(), String>, Broken> {
        let picked = self.ask(shard, &request)?;
        // Before the pick counts as under way: that is what the policy saw.
        let kept = rule(&self.world, &request, &picked);
        let mut edits = picked.edits.clone();
        // The two heads have nothing to do with each other.
        edits.sort_by_key(|edit| edit.head == Head::Response);
        shown.push((picked.verdict, edits));
        self.begin(shard, request, &picked);
        Ok(kept)
    }
}

fn backend(id: BackendId, name: String, spec: Spec, words: &Words) -> Backend {
    let zone = if spec.name & 1 == 0 { "a" } else { "b" };
    // What release policies look for.
    let canary = (spec.name & 3 == 3).then_some(("canary", "true"));
    let words = words.labels_of(spec.name);
    let words = words.map(|(key, value)| (key.as_str(), value.as_str()));
    let mut labels: Vec<(String, String)> = Vec::new();
    for (key, value) in words.chain([("zone", zone)]).chain(canary) {
        if !labels.iter().any(|(known, _)| known == key) {
            labels.push((key.to_owned(), value.to_owned()));
        }
    }
    Backend {
        id,
        address: format!("{name}.test:80"),
        name,
        weight: spec.weight,
        state: spec.state,
        labels,
    }
}
