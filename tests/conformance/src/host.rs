//! The other side: holds a *host* to the contract, with a policy that reports all it is told.
//!
//! The policy is `tests/guests/probe`: hosts run it as it suits them, as native code ([`Probe`]) or built.

use std::collections::BTreeMap;

use waypost_plugin::{BackendId, BackendState, Ending, Failure, Outcome};

use crate::play::Spec;
use crate::random::Random;
use crate::report::{Counterexample, Verdict};
use crate::subject::{Broken, Host, Live, Picked, Request, Subject};

#[path = "../../guests/probe/src/lib.rs"]
mod probe;

pub use probe::Probe;

/// Something that hosts are held to.
#[derive(Clone, Copy, Debug)]
pub struct HostCase {
    /// `host/what`.
    pub id: &'static str,
    /// In a sentence.
    pub doc: &'static str,
    run: fn(&mut Stand<'_>) -> Result<(), Flaw>,
}

/// What hosts are held to.
pub const CASES: &[HostCase] = &[
    HostCase {
        id: "host/no-lost-update",
        doc: "Every shard's policy knows the backends as they are, before each pick.",
        run: no_lost_update,
    },
    HostCase {
        id: "host/right-ids",
        doc: "Ids are those of the backends, and the backend that is picked is the one that gets the request.",
        run: right_ids,
    },
    HostCase {
        id: "host/loads-fresh",
        doc: "Requests under way are those of now, in the order of the backends.",
        run: loads_fresh,
    },
    HostCase {
        id: "host/vitals-fresh",
        doc: "Latencies and error rates are those of now, in the order of the backends.",
        run: vitals_fresh,
    },
    HostCase {
        id: "host/tickets",
        doc: "Picks are numbered over all shards without a gap and without a repeat.",
        run: tickets,
    },
    HostCase {
        id: "host/attempt-and-tried",
        doc: "A policy hears which attempt it is, and where the request was tried.",
        run: attempt_and_tried,
    },
    HostCase {
        id: "host/request-as-sent",
        doc: "A policy sees the request as it was sent.",
        run: request_as_sent,
    },
    HostCase {
        id: "host/edits",
        doc: "Edits are made, and those of one request are not made to the next.",
        run: edits,
    },
    HostCase {
        id: "host/outcomes-once",
        doc: "Every outcome is heard exactly once, as it was.",
        run: outcomes_once,
    },
    HostCase {
        id: "host/outcomes-to-who-picked",
        doc: "An outcome is heard by the instance that picked, and by no other.",
        run: outcomes_to_who_picked,
    },
    HostCase {
        id: "host/counters",
        doc: "Counters are shared by all shards of an upstream, lose nothing, and are no other upstream's.",
        run: counters,
    },
    HostCase {
        id: "host/state",
        doc: "State goes to the next instance of the same policy, unchanged, and to nobody else.",
        run: state,
    },
    HostCase {
        id: "host/clock",
        doc: "The time never goes back.",
        run: clock,
    },
    HostCase {
        id: "host/random",
        doc: "Random numbers differ from one another.",
        run: random,
    },
];

/// What a case says of a host.
#[derive(Clone, Debug)]
pub struct HostFinding {
    /// The case.
    pub case: &'static str,
    /// What it says.
    pub verdict: Verdict,
}

/// Holds a host that runs the [`Probe`] to the contract.
pub fn check(subject: &dyn Subject, seed: u64) -> Vec<HostFinding> {
    CASES
        .iter()
        .map(|case| {
            let mut stand = Stand {
                subject,
                host: subject.host(),
                random: Random::for_purpose(seed, case.id),
                backends: Vec::new(),
                live: BTreeMap::new(),
                last_id: 0,
            };
            let verdict = match (case.run)(&mut stand) {
                Ok(()) => Verdict::Pass,
                Err(Flaw::Wrong(what)) => Verdict::Fail(Counterexample {
                    what,
                    input: vec![format!("seed {seed}")],
                }),
                Err(Flaw::Broke(broken)) => Verdict::inconclusive(format!("the probe {broken}")),
            };
            HostFinding {
                case: case.id,
                verdict,
            }
        })
        .collect()
}

enum Flaw {
    Wrong(String),
    Broke(Broken),
}

impl From<Broken> for Flaw {
    fn from(broken: Broken) -> Self {
        Flaw::Broke(broken)
    }
}

/// A host under test, and what it should know.
struct Stand<'s> {
    subject: &'s dyn Subject,
    host: Box<dyn Host + 's>,
    random: Random,
    backends: Vec<waypost_plugin::Backend>,
    live: BTreeMap<BackendId, Live>,
    last_id: u64,
}

/// What the probe says, by key.
struct Said(BTreeMap<String, String>);

impl Said {
    fn of(picked: &Picked) -> Result<Said, Flaw> {
        let found = picked.edits.iter().find(|edit| edit.name == "x-report");
        let Some(edit) = found else {
            return Err(Flaw::Wrong("the probe's edit was not made".into()));
        };
        let text = String::from_utf8_lossy(&edit.value);
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        Ok(Said(
            pairs
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        ))
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap_or(u64::MAX)
    }
}

fn same(what: &str, heard: &str, true_one: &str) -> Result<(), Flaw> {
    match heard == true_one {
        true => Ok(()),
        false => Err(Flaw::Wrong(format!(
            "{what}: the policy was told {heard:?}, and it is {true_one:?}"
        ))),
    }
}

fn joined<T: ToString>(values: impl Iterator<Item = T>) -> String {
    values
        .map(|value| value.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

impl Stand<'_> {
    fn shards(&mut self, count: usize) -> Result<Vec<usize>, Flaw> {
        (0..count)
            .map(|_| Ok(self.host.start("{}", None)?.shard))
            .collect()
    }

    /// Changes the set of backends.
    fn set(&mut self, specs: &[Spec]) {
        let mut next = Vec::new();
        for spec in specs {
            let name = format!("b{}", spec.name);
            let known = self.backends.iter().find(|backend| backend.name == name);
            let id = known.map(|backend| backend.id).unwrap_or_else(|| {
                self.last_id += 1;
                BackendId::new(self.last_id)
            });
            next.push(waypost_plugin::Backend {
                id,
                address: format!("{name}.test:80"),
                name,
                weight: spec.weight,
                state: spec.state,
                labels: Vec::new(),
            });
        }
        let ids: Vec<BackendId> = next.iter().map(|backend| backend.id).collect();
        self.live.retain(|id, _| ids.contains(id));
        self.backends = next;
        self.host.set_backends(&self.backends);
    }

    /// A set in random order, at least one of which is up.
    fn some(&mut self) -> Vec<Spec> {
        let mut names: Vec<u16> = (0..7).collect();
        let count = self.random.between(1, 6);
        let mut specs: Vec<Spec> = (0..count)
            .map(|_| {
                let name = names.swap_remove(self.random.index(names.len()));
                let states = [BackendState::Up, BackendState::Draining, BackendState::Down];
                let weight = self.random.between(1, 9) as u32;
                Spec::up(name)
                    .weighing(weight)
                    .being(self.random.choose(&states))
            })
            .collect();
        specs[0].state = BackendState::Up;
        specs
    }

    fn pick(&mut self, shard: usize) -> Result<Said, Flaw> {
        self.ask(shard, &Request::get("/"))
    }

    fn ask(&mut self, shard: usize, request: &Request) -> Result<Said, Flaw> {
        Said::of(&self.host.pick(shard, request)?)
    }

    fn change(&mut self) {
        let at = self.random.index(self.backends.len());
        let id = self.backends[at].id;
        let live = Live {
            in_flight: self.random.below(1_000) as u32,
            latency_us: self.random.below(1_000_000) as u32,
            error_ppm: self.random.below(1_000_000) as u32,
        };
        self.live.insert(id, live);
        self.host.set_live(id, live);
    }

    fn lives(&self) -> impl Iterator<Item = Live> + '_ {
        let live = |backend: &waypost_plugin::Backend| self.live.get(&backend.id);
        self.backends
            .iter()
            .map(move |backend| live(backend).copied().unwrap_or_default())
    }

    fn described(&self) -> String {
        joined(self.backends.iter().map(|backend| {
            let (id, name) = (backend.id, &backend.name);
            format!("{id}:{name}:{}:{:?}", backend.weight, backend.state)
        }))
    }
}

// === cases ===

fn no_lost_update(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(3)?;
    for _ in 0..40 {
        let specs = stand.some();
        stand.set(&specs);
        // Some shards miss a few of them, and are told the last.
        let shard = stand.random.choose(&shards);
        let (said, described) = (stand.pick(shard)?, stand.described());
        same("the backends", said.get("backends"), &described)?;
    }
    for shard in shards {
        let (said, described) = (stand.pick(shard)?, stand.described());
        same("the backends", said.get("backends"), &described)?;
    }
    Ok(())
}

fn right_ids(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(2)?;
    for _ in 0..30 {
        let specs = stand.some();
        stand.set(&specs);
        let shard = stand.random.choose(&shards);
        let up = stand.backends.iter().filter(|backend| backend.is_healthy());
        let ids: Vec<BackendId> = up.map(|backend| backend.id).collect();
        let id = stand.random.choose(&ids);
        let request = Request::get("/").field("x-pick", id.to_string());
        let picked = stand.host.pick(shard, &request)?;
        let described = stand.described();
        same(
            "the backends",
            Said::of(&picked)?.get("backends"),
            &described,
        )?;
        if picked.backend() != Some(id) {
            return Err(Flaw::Wrong(format!(
                "the policy picked backend {id}, and the host took {:?}",
                picked.verdict
            )));
        }
    }
    Ok(())
}

/// Has policies on so many shards tell of live numbers that keep changing, and looks at what they say.
fn changing(
    stand: &mut Stand<'_>,
    shards: usize,
    look: impl Fn(&Stand<'_>, &Said) -> Result<(), Flaw>,
) -> Result<(), Flaw> {
    let shards = stand.shards(shards)?;
    for round in 0..40 {
        if round % 5 == 0 {
            let specs = stand.some();
            stand.set(&specs);
        }
        stand.change();
        let shard = stand.random.choose(&shards);
        let said = stand.pick(shard)?;
        look(stand, &said)?;
    }
    Ok(())
}

fn loads_fresh(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    changing(stand, 3, |stand, said| {
        let loads = joined(stand.lives().map(|live| live.in_flight));
        same("requests under way", said.get("loads"), &loads)?;
        same(
            "requests under way, one by one",
            said.get("each-load"),
            &loads,
        )
    })
}

fn vitals_fresh(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    changing(stand, 2, |stand, said| {
        let latency = joined(stand.lives().map(|live| live.latency_us));
        same("latencies", said.get("latency"), &latency)?;
        let errors = joined(stand.lives().map(|live| live.error_ppm));
        same("error rates", said.get("errors"), &errors)
    })
}

fn tickets(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(3)?;
    stand.set(&[Spec::up(0)]);
    stand.host.set_ticket(41);
    for wanted in 41..141_u64 {
        let shard = stand.random.choose(&shards);
        let said = stand.pick(shard)?;
        same("the ticket", said.get("ticket"), &wanted.to_string())?;
    }
    Ok(())
}

fn attempt_and_tried(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(1)?;
    stand.set(&crate::play::fleet(5));
    let mut request = Request::get("/");
    for attempt in 0..5 {
        let said = stand.ask(shards[0], &request)?;
        same("the attempt", said.get("attempt"), &attempt.to_string())?;
        same(
            "what was tried",
            said.get("tried"),
            &joined(request.tried.iter()),
        )?;
        let id = stand.backends[attempt].id;
        request.tried.push(id);
        request = request.field("x-pick", stand.backends[(attempt + 1) % 5].id.to_string());
        // The first line of a name is the one that counts.
        let last = request.fields.pop();
        request.fields.retain(|(name, _)| name != "x-pick");
        request.fields.extend(last);
    }
    let said = stand.pick(shards[0])?;
    same("the attempt of the next request", said.get("attempt"), "0")?;
    same("what was tried of it", said.get("tried"), "")
}

fn request_as_sent(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(2)?;
    stand.set(&[Spec::up(0)]);
    for _ in 0..20 {
        let number = stand.random.next();
        let mut request = Request::get(&format!("/a/{number}?q={number}"))
            .from(&crate::traffic::address(number % 1_000))
            .field("x-field", format!("v{number}"));
        request.method = stand.random.choose(&["GET", "POST", "PUT"]).into();
        request.scheme = stand.random.choose(&["http", "https"]).into();
        request.authority = format!("h{number}.example");
        let shard = stand.random.choose(&shards);
        let said = stand.ask(shard, &request)?;
        same("the method", said.get("method"), &request.method)?;
        same("the scheme", said.get("scheme"), &request.scheme)?;
        same("the authority", said.get("authority"), &request.authority)?;
        same("the target", said.get("target"), &request.target)?;
        same("the client", said.get("client"), &request.client)?;
        same("a field", said.get("field"), &format!("v{number}"))?;
        same(
            "the number of fields",
            said.get("fields"),
            &request.fields.len().to_string(),
        )?;
    }
    Ok(())
}

fn edits(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(1)?;
    stand.set(&[Spec::up(0)]);
    for number in 0..10 {
        let with = Request::get("/").field("x-once", format!("{number}"));
        let picked = stand.host.pick(shards[0], &with)?;
        let wanted = picked.edits.iter().find(|edit| edit.name == "x-twice");
        if wanted.is_none_or(|edit| edit.value != number.to_string().as_bytes()) {
            return Err(Flaw::Wrong(format!(
                "the edit is not made: {:?}",
                picked.edits
            )));
        }
        let picked = stand.host.pick(shards[0], &Request::get("/"))?;
        if picked.edits.len() != 1 {
            return Err(Flaw::Wrong(format!(
                "there are {} edits, and the policy made 1",
                picked.edits.len()
            )));
        }
    }
    Ok(())
}

/// Outcomes that can be told from one another.
fn made_up(stand: &mut Stand<'_>, number: u64) -> (Outcome, String) {
    let failures = [
        Failure::Connect,
        Failure::Reset,
        Failure::Timeout,
        Failure::Protocol,
    ];
    let failure = stand.random.choose(&failures);
    let backend = stand.backends[stand.random.index(stand.backends.len())].id;
    let (ending, shown) = match stand.random.below(2) {
        0 => (
            Ending::Status(200 + (number % 300) as u16),
            format!("{}", 200 + number % 300),
        ),
        _ => (Ending::Failed(failure), format!("{failure:?}")),
    };
    let outcome = Outcome {
        backend,
        attempt: (number % 3) as u32,
        ending,
        latency_us: 1_000 + number,
        bytes: 7 * number,
    };
    let attempt = outcome.attempt;
    let shown = format!(
        "{backend}:{attempt}:{shown}:{}:{}",
        1_000 + number,
        7 * number
    );
    (outcome, shown)
}

/// Picks until a shard has heard as much, or will not hear more, and some times more.
fn listen(stand: &mut Stand<'_>, shard: usize, wanted: usize) -> Result<Vec<String>, Flaw> {
    /// A host may hand over in batches, and late; some microseconds for each pick.
    const PATIENCE: usize = 200_000;
    let mut heard: Vec<String> = Vec::new();
    let mut after = 0;
    for _ in 0..PATIENCE {
        let said = stand.pick(shard)?;
        let new = said.get("heard").split(',').filter(|text| !text.is_empty());
        heard.extend(new.map(str::to_owned));
        if heard.len() >= wanted {
            after += 1;
        }
        if after > 40 {
            break;
        }
    }
    Ok(heard)
}

fn outcomes_once(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(1)?;
    stand.set(&crate::play::fleet(4));
    stand.pick(shards[0])?;
    for count in [1, 16, 37] {
        let (outcomes, shown): (Vec<Outcome>, Vec<String>) =
            (0..count).map(|number| made_up(stand, number)).unzip();
        stand.host.observe(shards[0], &outcomes)?;
        let heard = listen(stand, shards[0], shown.len())?;
        same("outcomes", &heard.join(" "), &shown.join(" "))?;
    }
    Ok(())
}

fn outcomes_to_who_picked(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(3)?;
    stand.set(&crate::play::fleet(4));
    for shard in &shards {
        stand.pick(*shard)?;
    }
    let mut wanted = Vec::new();
    for (at, shard) in shards.iter().enumerate() {
        let (outcomes, shown): (Vec<Outcome>, Vec<String>) = (0..20)
            .map(|number| made_up(stand, 100 * at as u64 + number))
            .unzip();
        stand.host.observe(*shard, &outcomes)?;
        wanted.push(shown);
    }
    for (shard, shown) in shards.iter().zip(wanted) {
        let heard = listen(stand, *shard, shown.len())?;
        same(
            "outcomes of this shard's picks",
            &heard.join(" "),
            &shown.join(" "),
        )?;
    }
    Ok(())
}

fn counters(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(3)?;
    stand.set(&[Spec::up(0)]);
    let mut sum = 0_i64;
    for _ in 0..50 {
        let shard = stand.random.choose(&shards);
        let add = stand.random.below(2_000) as i64 - 1_000;
        let said = stand.ask(shard, &Request::get("/").field("x-add", add.to_string()))?;
        same("the counter", said.get("sum"), &sum.to_string())?;
        sum += add;
    }
    let mut other = stand.subject.host();
    let shard = other.start("{}", None)?.shard;
    other.set_backends(&stand.backends);
    let said = Said::of(&other.pick(shard, &Request::get("/"))?)?;
    same("the counter of another upstream", said.get("sum"), "0")
}

fn state(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(3)?;
    stand.set(&[Spec::up(0)]);
    let mut instances = Vec::new();
    for shard in &shards {
        let said = stand.pick(*shard)?;
        same("what a first instance restored", said.get("restored"), "")?;
        instances.push(said.get("instance").to_owned());
    }
    for (shard, instance) in shards.iter().zip(&instances).rev() {
        let Some(saved) = stand.host.save(*shard)? else {
            return Err(Flaw::Wrong("the hook `state` was not called".into()));
        };
        let started = stand.host.start("{}", Some(&saved))?;
        if let Some(refused) = started.refused {
            return Err(Flaw::Wrong(format!("the state was refused: {refused}")));
        }
        let said = stand.pick(started.shard)?;
        same("whose state it has", said.get("restored"), instance)?;
    }
    let fresh = stand.host.start("{}", None)?.shard;
    let said = stand.pick(fresh)?;
    same("what a fresh instance restored", said.get("restored"), "")?;
    let mut other = stand.subject.host();
    let shard = other.start("{}", None)?.shard;
    other.set_backends(&stand.backends);
    let said = Said::of(&other.pick(shard, &Request::get("/"))?)?;
    same(
        "what an instance of another upstream restored",
        said.get("restored"),
        "",
    )
}

fn clock(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(2)?;
    stand.set(&[Spec::up(0)]);
    let mut last = 0;
    for number in 0..50_u64 {
        stand.host.set_now(number * 1_000);
        let shard = stand.random.choose(&shards);
        let now = stand.pick(shard)?.number("now");
        if now < last {
            return Err(Flaw::Wrong(format!("it was {last} ns, and then {now} ns")));
        }
        last = now;
    }
    match last {
        0 => Err(Flaw::Wrong("the time stands still".into())),
        _ => Ok(()),
    }
}

fn random(stand: &mut Stand<'_>) -> Result<(), Flaw> {
    let shards = stand.shards(2)?;
    stand.set(&[Spec::up(0)]);
    let mut seen = Vec::new();
    for _ in 0..100 {
        let shard = stand.random.choose(&shards);
        seen.push(stand.pick(shard)?.number("random"));
    }
    seen.sort_unstable();
    seen.dedup();
    match seen.len() {
        100 => Ok(()),
        count => Err(Flaw::Wrong(format!(
            "of 100 random numbers {count} were different"
        ))),
    }
}
