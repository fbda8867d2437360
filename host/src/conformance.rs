//! A policy as it is shipped, put to the test of the conformance suite: by the loader that loads it, and in the
//! instances that run it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use waypost_conformance::certificate::{Certificate, Cost};
use waypost_conformance::report::Report;
use waypost_conformance::subject::{
    About, Asked, Broken, Host, Live, Picked, Request, Responded, Response, Started, Subject,
};
use waypost_plugin::testing::{Edit as EditOf, Head, HeaderEdit, Level, LogLine};
use waypost_plugin::{BackendState, Pick};

use crate::bench;
use crate::config::{self, PolicySource, Server, ServerState};
use crate::http1::Fields;
use crate::inspect::PolicyRefused;
use crate::plugin::{self, EditKind, Engine, Instance, Plugin, Refused, Side, Stage};
use crate::policy::slot::{Balancer, Slot};
use crate::policy::{Edit, Exchange, Policy as _, PolicyFailure, Reply, Verdict};
use crate::upstream::{self, Backend, BackendId, Ending, Failure, Outcome, Upstream};

/// A policy's file, loaded.
#[derive(Debug)]
pub struct Shipped {
    about: About,
    plugin: Arc<Plugin>,
    /// The same, counting instructions.
    metered: Arc<Plugin>,
}

impl Shipped {
    /// Loads a policy with the settings that it is to be tested with.
    ///
    /// # Errors
    /// Why it does not load.
    pub fn load(settings: &config::Policy) -> anyhow::Result<Result<Shipped, PolicyRefused>> {
        let engines = [Engine::new()?, Engine::metered()?];
        let load = |engine| match Plugin::load(engine, settings, None, None) {
            Ok(Some(plugin)) => Ok(plugin),
            Ok(None) => Err(PolicyRefused {
                problem: format!("{}: is the host's own, and no plugin", settings.name),
                remedy: "name a .wasm file, or a policy that is built in".to_owned(),
            }),
            Err(error) => Err(error.into()),
        };
        let [plugin, metered] = engines.each_ref().map(load);
        Ok(plugin.and_then(|plugin| {
            let [has_state, has_responses] = plugin.hooks();
            let about = About {
                name: plugin.about.name.clone(),
                version: plugin.about.version.clone(),
                promises: plugin.about.promises.clone(),
                has_state: Some(has_state),
                has_responses: Some(has_responses),
                digest: plugin.digest.clone(),
            };
            let shipped = Shipped {
                about,
                plugin,
                metered: metered?,
            };
            // Without this, all cases would say so.
            let started = shipped.host().start(&settings.config.to_string(), None);
            match started {
                Err(Broken::Settings(reason)) => Err(PolicyRefused {
                    problem: format!("{}: refuses its settings: {reason}", settings.name),
                    remedy: "say with --config JSON what it is to be told".to_owned(),
                }),
                _ => Ok(shipped),
            }
        }))
    }

    /// The same for a file, with settings as JSON.
    ///
    /// # Errors
    /// Why it does not load.
    pub fn from_file(
        file: &std::path::Path,
        config: &str,
    ) -> anyhow::Result<Result<Shipped, PolicyRefused>> {
        let source = PolicySource::File(file.to_owned());
        let mut settings = config::Policy::new("tested", source);
        settings.config = serde_json::from_str(config)?;
        Shipped::load(&settings)
    }

    /// What a report says, with what a pick costs on this machine.
    pub fn certificate(&self, report: &Report) -> Certificate {
        const SIZES: [usize; 3] = [2, 100, 1_000];
        let contestant = bench::Bench::new()
            .ok()
            .and_then(|bench| bench.enter(self.plugin.settings()).ok());
        let cost = |contestant: &bench::Contestant, backends| {
            let cost = bench::time(contestant, backends).ok()?;
            Some(Cost {
                backends,
                pick_ns: cost.median.round() as u64,
            })
        };
        let costs = contestant
            .iter()
            .flat_map(|contestant| SIZES.map(|size| cost(contestant, size)));
        Certificate::new(report, costs.flatten().collect())
    }
}

impl Subject for Shipped {
    fn about(&self) -> &About {
        &self.about
    }

    fn host(&self) -> Box<dyn Host + '_> {
        Box::new(Bench::new(self.plugin.clone()))
    }

    fn metered(&self) -> Result<Box<dyn Host + '_>, String> {
        Ok(Box::new(Bench::new(self.metered.clone())))
    }
}

/// The host itself, to be put to the test: a policy's slots, one for each shard, as the proxy has them.
///
/// The policy is the suite's probe. Where [`Shipped`] looks at instances one by one, this goes through all that surrounds
/// them: numbering picks, telling of changes, handing over outcomes and state.
#[derive(Debug)]
pub struct RealHost {
    shipped: Shipped,
    settings: config::Policy,
}

impl RealHost {
    /// A host that runs the probe.
    ///
    /// # Errors
    /// Why that does not load.
    pub fn with_probe(file: &std::path::Path) -> anyhow::Result<RealHost> {
        let settings = config::Policy::new("probe", PolicySource::File(file.to_owned()));
        let shipped = Shipped::load(&settings)??;
        Ok(RealHost { shipped, settings })
    }
}

impl Subject for RealHost {
    fn about(&self) -> &About {
        &self.shipped.about
    }

    fn host(&self) -> Box<dyn Host + '_> {
        Box::new(Slots {
            real: self,
            // What it sets up, and lets the slots have.
            bench: Bench::new(self.shipped.plugin.clone()),
            slots: Vec::new(),
        })
    }

    fn metered(&self) -> Result<Box<dyn Host + '_>, String> {
        Err("the host is not metered".to_owned())
    }
}

struct Slots<'r> {
    real: &'r RealHost,
    bench: Bench,
    slots: Vec<Slot>,
}

impl Slots<'_> {
    fn balancer(&self, plugin: Arc<Plugin>) -> Arc<Balancer> {
        let upstream = self.bench.upstream.clone();
        let on_failure = self.real.settings.on_failure;
        Arc::new(Balancer::new(
            upstream,
            Some(plugin),
            on_failure,
            Arc::default(),
        ))
    }

    fn slot(&self, shard: usize) -> Result<&Slot, Broken> {
        let slot = self.slots.get(shard);
        slot.ok_or_else(|| Broken::Crash(format!("there is no shard {shard}")))
    }
}

impl Host for Slots<'_> {
    fn set_backends(&mut self, backends: &[waypost_plugin::Backend]) {
        self.bench.set_backends(backends);
        let next = self.balancer(self.real.shipped.plugin.clone());
        for slot in &mut self.slots {
            *slot = slot.successor(next.clone());
        }
    }

    fn set_live(&mut self, backend: waypost_plugin::BackendId, live: Live) {
        self.bench.set_live(backend, live);
    }

    fn set_now(&mut self, ns: u64) {
        self.bench.set_now(ns);
    }

    fn set_random(&mut self, seed: u64) {
        self.bench.set_random(seed);
    }

    fn set_ticket(&mut self, ticket: u64) {
        self.bench.set_ticket(ticket);
    }

    /// A state is the number of the shard that hands it over: it never leaves the host.
    fn start(&mut self, _config: &str, state: Option<&[u8]>) -> Result<Started, Broken> {
        let previous = state.and_then(|state| std::str::from_utf8(state).ok()?.parse().ok());
        let slot = match previous {
            Some(previous) => {
                // The same policy, loaded anew: that is what a swap is.
                let plugin = Shipped::load(&self.real.settings)
                    .map_err(|error| Broken::Crash(error.to_string()))?
                    .map_err(|refused| Broken::Crash(refused.problem))?
                    .plugin;
                self.slot(previous)?.successor(self.balancer(plugin))
            }
            None => Slot::new(self.balancer(self.real.shipped.plugin.clone())),
        };
        self.slots.push(slot);
        Ok(Started {
            shard: self.slots.len() - 1,
            refused: None,
        })
    }

    fn pick(&mut self, shard: usize, request: &Request) -> Result<Picked, Broken> {
        let slot = self.slot(shard)?;
        let failures = || {
            let plugin = slot.balancer.plugin.as_ref();
            plugin.map_or(0, |plugin| plugin.stats.failures())
        };
        let before = failures();
        // The slot numbers the pick.
        let (exchange, answer) = slot.pick(exchange(request, u64::MAX));
        if failures() != before {
            return Err(Broken::Crash("failed, and rotation answered".to_owned()));
        }
        Ok(Picked {
            verdict: verdict(Ok(answer))?,
            edits: edits(Head::Request, &exchange.request_edits)
                .chain(edits(Head::Response, &exchange.response_edits))
                .collect(),
            refused: Vec::new(),
            log: Vec::new(),
            asked: Asked::default(),
            fuel: None,
        })
    }

    fn observe(
        &mut self,
        shard: usize,
        outcomes: &[waypost_plugin::Outcome],
    ) -> Result<(), Broken> {
        let slot = self.slot(shard)?;
        for ended in outcomes {
            slot.note_outcome(outcome(ended));
        }
        Ok(())
    }

    fn respond(
        &mut self,
        _shard: usize,
        _backend: waypost_plugin::BackendId,
        _response: &Response,
    ) -> Result<Responded, Broken> {
        Ok(Responded::default())
    }

    fn save(&mut self, shard: usize) -> Result<Option<Vec<u8>>, Broken> {
        Ok(Some(shard.to_string().into_bytes()))
    }

    fn memory(&mut self, _shard: usize) -> Option<usize> {
        None
    }
}

/// An upstream that carries nothing, and instances that are asked one by one.
struct Bench {
    plugin: Arc<Plugin>,
    stage: Arc<Stage>,
    upstream: Arc<Upstream>,
    live: HashMap<BackendId, Arc<upstream::Live>>,
    shards: Vec<Seat>,
}

struct Seat {
    instance: Instance,
    /// The edition of the upstream that it was last told of.
    told: u64,
}

impl Bench {
    fn new(plugin: Arc<Plugin>) -> Bench {
        let stage = Arc::<Stage>::default();
        let settings = config::Upstream::new("tested", 0, Vec::new());
        let upstream = Upstream::new(settings, Vec::new()).on(stage.clone());
        Bench {
            plugin,
            stage,
            upstream: Arc::new(upstream),
            live: HashMap::new(),
            shards: Vec::new(),
        }
    }

    fn instance(&self, config: &str) -> Result<Instance, Broken> {
        if !self.plugin.is_configured_as(config) {
            let reason = "it was loaded with other settings than it is tested with";
            return Err(Broken::Settings(reason.to_owned()));
        }
        let instance = self.plugin.instantiate(&self.upstream);
        instance.map_err(|failure| match failure {
            PolicyFailure::Start(reason) => Broken::Settings(reason),
            other => broken(&other),
        })
    }

    /// The shard, which knows of the backends.
    fn ready(&mut self, shard: usize) -> Result<&mut Instance, Broken> {
        let Some(seat) = self.shards.get_mut(shard) else {
            return Err(Broken::Crash(format!("there is no shard {shard}")));
        };
        if seat.told != self.upstream.edition {
            seat.told = self.upstream.edition;
            let update = seat.instance.update(&self.upstream);
            update.map_err(|failure| broken(&failure))?;
        }
        Ok(&mut seat.instance)
    }
}

impl Host for Bench {
    fn set_backends(&mut self, backends: &[waypost_plugin::Backend]) {
        let mut live = HashMap::with_capacity(backends.len());
        let backends: Vec<Arc<Backend>> = backends
            .iter()
            .map(|backend| {
                let id = BackendId(backend.id.number());
                let numbers = self.live.remove(&id).unwrap_or_default();
                live.insert(id, numbers.clone());
                Arc::new(Backend {
                    id,
                    settings: server(backend),
                    addresses: Vec::new(),
                    live: numbers,
                })
            })
            .collect();
        self.live = live;
        let settings = self.upstream.settings.clone();
        let successor = self.upstream.successor(settings, backends);
        self.upstream = Arc::new(successor.on(self.stage.clone()));
    }

    fn set_live(&mut self, backend: waypost_plugin::BackendId, live: Live) {
        if let Some(numbers) = self.live.get(&BackendId(backend.number())) {
            numbers.set_in_flight(live.in_flight);
            numbers.latency.set(live.latency_us, live.error_ppm);
        }
    }

    fn set_now(&mut self, ns: u64) {
        self.stage.set_now(ns);
    }

    fn set_random(&mut self, seed: u64) {
        self.stage.set_random(seed);
    }

    fn set_ticket(&mut self, ticket: u64) {
        self.upstream.shared.set_ticket(ticket);
    }

    fn start(&mut self, config: &str, state: Option<&[u8]>) -> Result<Started, Broken> {
        let mut instance = self.instance(config)?;
        let mut refused = None;
        if let Some(state) = state {
            let restored = instance.restore(state);
            refused = restored.map_err(|failure| broken(&failure))?.err();
        }
        if refused.is_some() {
            instance = self.instance(config)?;
        }
        self.shards.push(Seat { instance, told: 0 });
        Ok(Started {
            shard: self.shards.len() - 1,
            refused,
        })
    }

    fn pick(&mut self, shard: usize, request: &Request) -> Result<Picked, Broken> {
        let ticket = self.upstream.shared.draw_ticket();
        let stage = self.stage.clone();
        let instance = self.ready(shard)?;
        stage.take();
        let before = instance.fuel();
        let (exchange, answer) = instance.pick(exchange(request, ticket));
        let fuel = before.zip(instance.fuel());
        let fuel = fuel.map(|(before, after)| before.saturating_sub(after));
        let verdict = verdict(answer)?;
        let notes = stage.take();
        Ok(Picked {
            verdict,
            edits: edits(Head::Request, &exchange.request_edits)
                .chain(edits(Head::Response, &exchange.response_edits))
                .collect(),
            refused: notes.refused.iter().map(refused_edit).collect(),
            log: notes
                .log
                .into_iter()
                .map(|(level, message)| LogLine {
                    level: level_of(level),
                    message,
                })
                .collect(),
            asked: Asked {
                fields: notes.fields,
                live: notes.asked_live,
                random: notes.asked_random,
                clock: notes.asked_clock,
            },
            fuel,
        })
    }

    fn observe(
        &mut self,
        shard: usize,
        outcomes: &[waypost_plugin::Outcome],
    ) -> Result<(), Broken> {
        let outcomes: Vec<Outcome> = outcomes.iter().map(outcome).collect();
        let observed = self.ready(shard)?.observe(&outcomes);
        observed.map_err(|failure| broken(&failure))
    }

    fn respond(
        &mut self,
        shard: usize,
        backend: waypost_plugin::BackendId,
        response: &Response,
    ) -> Result<Responded, Broken> {
        let reply = Reply {
            status: StatusCode::from_u16(response.status).unwrap_or_default(),
            fields: header_lines(&response.fields),
            edits: Vec::new(),
        };
        let stage = self.stage.clone();
        let instance = self.ready(shard)?;
        stage.take();
        let (reply, responded) = instance.respond(BackendId(backend.number()), reply);
        responded.map_err(|failure| broken(&failure))?;
        Ok(Responded {
            edits: edits(Head::Response, &reply.edits).collect(),
            refused: stage.take().refused.iter().map(refused_edit).collect(),
        })
    }

    fn save(&mut self, shard: usize) -> Result<Option<Vec<u8>>, Broken> {
        let saved = self.ready(shard)?.save();
        saved.map_err(|failure| broken(&failure))
    }

    fn memory(&mut self, shard: usize) -> Option<usize> {
        self.shards
            .get(shard)
            .map(|seat| seat.instance.memory_bytes())
    }
}

fn server(backend: &waypost_plugin::Backend) -> Server {
    Server {
        name: backend.name.clone(),
        weight: backend.weight,
        state: match backend.state {
            BackendState::Up => ServerState::Up,
            BackendState::Draining => ServerState::Draining,
            BackendState::Down => ServerState::Down,
        },
        labels: backend.labels.clone(),
        ..Server::new(backend.address.clone())
    }
}

fn exchange(request: &Request, ticket: u64) -> Exchange {
    let mut fields = header_lines(&request.fields);
    let target = match request.target.parse::<Uri>() {
        Ok(_) => fields.add_text(request.target.as_bytes()),
        Err(_) => fields.add_text(b"/"),
    };
    let authority = fields.add_text(request.authority.as_bytes());
    Exchange {
        repeatable: true,
        method: Method::from_bytes(request.method.as_bytes()).unwrap_or_default(),
        target,
        authority,
        fields,
        client: request
            .client
            .parse()
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        secure: request.scheme == "https",
        attempt: request.attempt(),
        ticket,
        tried: request
            .tried
            .iter()
            .map(|id| BackendId(id.number()))
            .collect(),
        request_edits: Vec::new(),
        response_edits: Vec::new(),
    }
}

/// What is no field of HTTP is left out: no client could have sent it.
fn header_lines(fields: &[(String, Vec<u8>)]) -> Fields {
    let mut lines = Fields::default();
    for (name, value) in fields {
        let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
        if is_name && HeaderValue::from_bytes(value).is_ok() {
            lines.append(name, value);
        }
    }
    lines
}

/// What the policy answered, whether or not it may.
fn verdict(answer: Result<Verdict, PolicyFailure>) -> Result<Pick, Broken> {
    let forward = |id: BackendId| Pick::Forward(waypost_plugin::BackendId::new(id.0));
    match answer {
        Ok(Verdict::Forward(id)) => Ok(forward(id)),
        Ok(Verdict::Respond(status)) => Ok(Pick::Respond(status.as_u16())),
        Ok(Verdict::Unavailable) => Ok(Pick::Unavailable),
        Err(PolicyFailure::UnknownBackend(id) | PolicyFailure::TriedBackend(id)) => Ok(forward(id)),
        Err(PolicyFailure::BadStatus(status)) => Ok(Pick::Respond(status)),
        Err(failure) => Err(broken(&failure)),
    }
}

fn broken(failure: &PolicyFailure) -> Broken {
    match failure {
        PolicyFailure::Deadline => Broken::Deadline,
        other => Broken::Crash(other.to_string()),
    }
}

fn edits(head: Head, edits: &[Edit]) -> impl Iterator<Item = HeaderEdit> {
    edits.iter().map(move |edit| {
        let (edit, name, value) = match edit {
            Edit::Set(name, value) => (EditOf::Set, name, value.as_bytes()),
            Edit::Append(name, value) => (EditOf::Append, name, value.as_bytes()),
            Edit::Remove(name) => (EditOf::Remove, name, &[][..]),
        };
        HeaderEdit {
            head,
            edit,
            name: name.as_str().to_owned(),
            value: value.to_vec(),
        }
    })
}

fn refused_edit(refused: &Refused) -> HeaderEdit {
    HeaderEdit {
        head: match refused.side {
            Side::Request => Head::Request,
            Side::Response => Head::Response,
        },
        edit: match refused.kind {
            EditKind::Set => EditOf::Set,
            EditKind::Append => EditOf::Append,
            EditKind::Remove => EditOf::Remove,
        },
        name: refused.name.to_ascii_lowercase(),
        value: refused.value.clone(),
    }
}

fn level_of(level: plugin::Level) -> Level {
    match level {
        plugin::Level::Debug => Level::Debug,
        plugin::Level::Info => Level::Info,
        plugin::Level::Warn => Level::Warn,
        plugin::Level::Error => Level::Error,
    }
}

fn outcome(outcome: &waypost_plugin::Outcome) -> Outcome {
    use waypost_plugin::{Ending as EndingOf, Failure as FailureOf};
    Outcome {
        backend: BackendId(outcome.backend.number()),
        attempt: outcome.attempt,
        ending: match outcome.ending {
            EndingOf::Status(status) => Ending::Status(status),
            EndingOf::Failed(failure) => Ending::Failed(match failure {
                FailureOf::Connect => Failure::Connect,
                FailureOf::Reset | FailureOf::Other => Failure::Reset,
                FailureOf::Timeout => Failure::Timeout,
                FailureOf::Protocol => Failure::Protocol,
                FailureOf::ClientGone => Failure::ClientGone,
            }),
        },
        latency: std::time::Duration::from_micros(outcome.latency_us),
        bytes: outcome.bytes,
    }
}
