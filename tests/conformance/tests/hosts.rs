//! Wrong hosts, each wrong in one way, and the case that has to notice it.

use std::cell::{Cell, RefCell};

use waypost_conformance::host::{self, Probe};
use waypost_conformance::native::Native;
use waypost_conformance::report::Verdict;
use waypost_conformance::subject::{
    About, Broken, Host, Live, Picked, Request, Responded, Response, Started, Subject,
};
use waypost_plugin::{Backend, BackendId, Outcome, Pick};

/// What is wrong with a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Nothing,
    StaleLoads,
    LoadsOfAnother,
    StaleLatencies,
    LostUpdate,
    LateUpdate,
    WrongId,
    TakesAnother,
    OutcomesTwice,
    OutcomesLost,
    OutcomesOfAnotherShard,
    OutcomesWithoutAttempt,
    OutcomesReversed,
    StateOfAnother,
    StateToFresh,
    StateDropped,
    StateCut,
    TicketTwice,
    TicketLeftOut,
    ForgetsTried,
    KeepsTried,
    MixesUpClients,
    DropsDuplicateFields,
    EditsOfTheLast,
    EditsLost,
    ClockGoesBack,
    RandomRepeats,
    CountersOfAll,
}

const FAULTS: [(Fault, &str); 27] = [
    (Fault::StaleLoads, "host/loads-fresh"),
    (Fault::LoadsOfAnother, "host/loads-fresh"),
    (Fault::StaleLatencies, "host/vitals-fresh"),
    (Fault::LostUpdate, "host/no-lost-update"),
    (Fault::LateUpdate, "host/no-lost-update"),
    (Fault::WrongId, "host/right-ids"),
    (Fault::TakesAnother, "host/right-ids"),
    (Fault::OutcomesTwice, "host/outcomes-once"),
    (Fault::OutcomesLost, "host/outcomes-once"),
    (Fault::OutcomesOfAnotherShard, "host/outcomes-to-who-picked"),
    (Fault::OutcomesWithoutAttempt, "host/outcomes-once"),
    (Fault::OutcomesReversed, "host/outcomes-once"),
    (Fault::StateOfAnother, "host/state"),
    (Fault::StateToFresh, "host/state"),
    (Fault::StateDropped, "host/state"),
    (Fault::StateCut, "host/state"),
    (Fault::TicketTwice, "host/tickets"),
    (Fault::TicketLeftOut, "host/tickets"),
    (Fault::ForgetsTried, "host/attempt-and-tried"),
    (Fault::KeepsTried, "host/attempt-and-tried"),
    (Fault::MixesUpClients, "host/request-as-sent"),
    (Fault::DropsDuplicateFields, "host/request-as-sent"),
    (Fault::EditsOfTheLast, "host/edits"),
    (Fault::EditsLost, "host/edits"),
    (Fault::ClockGoesBack, "host/clock"),
    (Fault::RandomRepeats, "host/random"),
    (Fault::CountersOfAll, "host/counters"),
];

struct Faulty {
    native: Native<Probe>,
    fault: Fault,
    /// A host that all share, where that is the fault.
    picks: Cell<u64>,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Faulty {
            native: Native::new("probe", "0.0.0"),
            fault,
            picks: Cell::new(0),
        }
    }
}

impl Subject for Faulty {
    fn about(&self) -> &About {
        self.native.about()
    }

    fn host(&self) -> Box<dyn Host + '_> {
        Box::new(FaultyHost {
            host: self.native.host(),
            fault: self.fault,
            all: &self.picks,
            picks: 0,
            sets: 0,
            lives: 0,
            ticket: 0,
            shards: Vec::new(),
            last_saved: RefCell::default(),
            last_edits: Vec::new(),
            last_tried: Vec::new(),
            waiting: None,
        })
    }

    fn metered(&self) -> Result<Box<dyn Host + '_>, String> {
        Err("not this one".into())
    }
}

struct FaultyHost<'h> {
    host: Box<dyn Host + 'h>,
    fault: Fault,
    all: &'h Cell<u64>,
    picks: u64,
    sets: u64,
    lives: u64,
    ticket: u64,
    shards: Vec<usize>,
    last_saved: RefCell<Option<Vec<u8>>>,
    last_edits: Vec<waypost_plugin::testing::HeaderEdit>,
    last_tried: Vec<BackendId>,
    waiting: Option<Vec<Backend>>,
}

impl Host for FaultyHost<'_> {
    fn set_backends(&mut self, backends: &[Backend]) {
        self.sets += 1;
        let mut backends = backends.to_vec();
        match self.fault {
            Fault::LostUpdate if self.sets.is_multiple_of(4) => return,
            Fault::LateUpdate => {
                self.waiting = Some(backends);
                return;
            }
            Fault::WrongId => backends
                .iter_mut()
                .for_each(|b| b.id = BackendId::new(b.id.number() + 1)),
            _ => {}
        }
        self.host.set_backends(&backends);
    }

    fn set_live(&mut self, backend: BackendId, live: Live) {
        self.lives += 1;
        match self.fault {
            Fault::StaleLoads if self.lives.is_multiple_of(3) => {}
            Fault::LoadsOfAnother => {
                let other = BackendId::new(backend.number() % 2 + 1);
                self.host.set_live(other, live);
            }
            Fault::StaleLatencies => self.host.set_live(
                backend,
                Live {
                    latency_us: 0,
                    ..live
                },
            ),
            _ => self.host.set_live(backend, live),
        }
    }

    fn set_now(&mut self, ns: u64) {
        let back = self.fault == Fault::ClockGoesBack && ns.is_multiple_of(5_000);
        self.host.set_now(if back { ns / 2 } else { ns });
    }

    fn set_random(&mut self, seed: u64) {
        self.host.set_random(seed);
    }

    fn set_ticket(&mut self, ticket: u64) {
        self.ticket = ticket;
        self.host.set_ticket(ticket);
    }

    fn start(&mut self, config: &str, state: Option<&[u8]>) -> Result<Started, Broken> {
        let other = b"probe 0".to_vec();
        let last = self.last_saved.borrow().clone();
        let state = match self.fault {
            Fault::StateOfAnother => state.map(|_| &other[..]),
            Fault::StateToFresh => state.or(last.as_deref()),
            Fault::StateDropped => None,
            Fault::StateCut => state.map(|state| &state[..state.len() - 1]),
            _ => state,
        };
        let started = self.host.start(config, state)?;
        self.shards.push(started.shard);
        Ok(started)
    }

    fn pick(&mut self, shard: usize, request: &Request) -> Result<Picked, Broken> {
        self.picks += 1;
        let mut request = request.clone();
        let wanted = request.tried.clone();
        match self.fault {
            Fault::TicketTwice if self.picks.is_multiple_of(10) => {
                self.host.set_ticket(self.ticket.saturating_sub(1));
            }
            Fault::TicketLeftOut if self.picks.is_multiple_of(10) => {
                self.ticket += 1;
                self.host.set_ticket(self.ticket);
            }
            Fault::ForgetsTried => request.tried.truncate(1),
            Fault::KeepsTried if request.tried.is_empty() => {
                request.tried.clone_from(&self.last_tried);
            }
            Fault::MixesUpClients => request.client = "192.0.2.200".into(),
            Fault::DropsDuplicateFields => request.fields.truncate(1),
            Fault::RandomRepeats if self.picks.is_multiple_of(20) => self.host.set_random(7),
            Fault::CountersOfAll => {
                let add = request.fields.iter().find(|(name, _)| name == "x-add");
                let add = add.and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
                let add: i64 = add.unwrap_or(0);
                self.all.set(self.all.get().wrapping_add_signed(add));
                if self.picks == 1 && self.all.get() != 0 {
                    let mut first = Request::get("/");
                    first = first.field("x-add", self.all.get().cast_signed().to_string());
                    self.host.pick(shard, &first)?;
                }
            }
            _ => {}
        }
        self.last_tried = wanted;
        let mut picked = self.host.pick(shard, &request)?;
        self.ticket += 1;
        if let Some(backends) = self.waiting.take() {
            self.host.set_backends(&backends);
        }
        match self.fault {
            Fault::TakesAnother if self.picks.is_multiple_of(3) => {
                picked.verdict = Pick::Forward(BackendId::new(999));
            }
            Fault::EditsOfTheLast => {
                let edits = std::mem::replace(&mut self.last_edits, picked.edits.clone());
                picked.edits.extend(edits);
            }
            Fault::EditsLost => picked.edits.truncate(1),
            _ => {}
        }
        Ok(picked)
    }

    fn observe(&mut self, shard: usize, outcomes: &[Outcome]) -> Result<(), Broken> {
        let mut outcomes = outcomes.to_vec();
        let mut shard = shard;
        match self.fault {
            Fault::OutcomesTwice => self.host.observe(shard, &outcomes)?,
            Fault::OutcomesLost => {
                outcomes.pop();
            }
            Fault::OutcomesOfAnotherShard => {
                let at = self.shards.iter().position(|known| *known == shard);
                shard = self.shards[(at.unwrap_or(0) + 1) % self.shards.len()];
            }
            Fault::OutcomesWithoutAttempt => {
                outcomes.iter_mut().for_each(|outcome| outcome.attempt = 0);
            }
            Fault::OutcomesReversed => outcomes.reverse(),
            _ => {}
        }
        self.host.observe(shard, &outcomes)
    }

    fn respond(
        &mut self,
        shard: usize,
        backend: BackendId,
        response: &Response,
    ) -> Result<Responded, Broken> {
        self.host.respond(shard, backend, response)
    }

    fn save(&mut self, shard: usize) -> Result<Option<Vec<u8>>, Broken> {
        let saved = self.host.save(shard)?;
        self.last_saved.replace(saved.clone());
        Ok(saved)
    }

    fn memory(&mut self, _: usize) -> Option<usize> {
        None
    }
}

fn failed(fault: Fault) -> Vec<&'static str> {
    let findings = host::check(&Faulty::new(fault), 1);
    let bad = findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Pass);
    bad.map(|finding| {
        assert!(
            matches!(finding.verdict, Verdict::Fail(_)),
            "{fault:?}: {finding:?}"
        );
        finding.case
    })
    .collect()
}

#[test]
fn a_host_without_a_fault_passes() {
    assert_eq!(failed(Fault::Nothing), [""; 0]);
}

#[test]
fn every_fault_of_a_host_is_found_by_its_case() {
    let mut wrong = Vec::new();
    for (fault, case) in FAULTS {
        let failed = failed(fault);
        println!("{fault:?}: {}", failed.join(", "));
        if !failed.contains(&case) {
            wrong.push(format!(
                "{fault:?} should fail {case}, and fails {failed:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
