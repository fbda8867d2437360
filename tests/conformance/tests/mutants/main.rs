//! Wrong policies, each wrong in one way, and the case that has to notice it; and right ones, which all cases let pass.
//!
//! To add one, write a `mutant!` in the module of its family and put it into that module's `all`.

use std::collections::BTreeMap;

use waypost_conformance::{Options, native::Native, report::Verdict, run, subject::Subject};
use waypost_plugin::{
    Backend, BackendId, Backends, Outcome, Pick, Policy, Promise, Request, Response,
};

/// What a mutant may remember.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) known: Vec<Backend>,
    pub(crate) count: u64,
    pub(crate) numbers: Vec<u32>,
    pub(crate) homes: BTreeMap<String, BackendId>,
}

/// A policy without its plumbing.
pub(crate) trait Mutant: 'static {
    const PROMISES: &'static [Promise] = &[];

    fn update(state: &mut State, backends: &Backends) {
        state.known = backends.iter().cloned().collect();
    }

    fn pick(state: &mut State, request: &Request, backends: &Backends) -> Pick;

    fn observe(_: &mut State, _: &[Outcome]) {}

    fn respond(_: &mut State, _: BackendId, _: &Response) {}

    fn save(_: &State) -> Vec<u8> {
        Vec::new()
    }

    fn restore(_: &mut State, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// A mutant as a policy.
struct Of<M>(State, std::marker::PhantomData<M>);

impl<M: Mutant> Policy for Of<M> {
    type Config = serde_json::Value;
    const PROMISES: &'static [Promise] = M::PROMISES;

    fn configure(_: serde_json::Value) -> Result<Self, String> {
        Ok(Of(State::default(), std::marker::PhantomData))
    }

    fn update(&mut self, backends: &Backends) {
        M::update(&mut self.0, backends);
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        M::pick(&mut self.0, request, backends)
    }

    fn observe(&mut self, outcomes: &[Outcome]) {
        M::observe(&mut self.0, outcomes);
    }

    fn respond(&mut self, backend: BackendId, response: &Response) {
        M::respond(&mut self.0, backend, response);
    }

    fn save(&self) -> Vec<u8> {
        M::save(&self.0)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        M::restore(&mut self.0, state)
    }
}

/// A mutant, by name, with the case that must notice it.
pub(crate) struct Row {
    name: &'static str,
    subject: Box<dyn Subject>,
    case: &'static str,
}

pub(crate) fn row<M: Mutant>(name: &'static str, case: &'static str) -> Row {
    Row {
        name,
        subject: Box::new(Native::<Of<M>>::new(name, "0.0.0")),
        case,
    }
}

/// A struct that is a [`Mutant`]: its promises and its functions.
macro_rules! mutant {
    ($(#[$doc:meta])* $name:ident [$($promise:ident),*] { $($item:item)* }) => {
        $(#[$doc])*
        pub(crate) struct $name;
        impl $crate::Mutant for $name {
            const PROMISES: &'static [waypost_plugin::Promise] =
                &[$(waypost_plugin::Promise::$promise),*];
            $($item)*
        }
    };
}

/// Rows for mutants and the cases that must notice them.
macro_rules! rows {
    ($($name:ident => $case:literal,)*) => {
        pub(crate) fn all() -> Vec<$crate::Row> {
            vec![$($crate::row::<$name>(stringify!($name), $case)),*]
        }
    };
}

// After the macros that they use.
mod balanced;
mod consistent;
mod law;
mod least_loaded;
mod rewrites;
mod right;
mod sticky;
mod swapped;

// === what right policies do, for the wrong ones to leave something of it out ===

pub(crate) fn to(backend: Option<&Backend>) -> Pick {
    backend.map_or(Pick::Unavailable, |backend| Pick::forward(backend.id))
}

/// By weight and number, one after the other.
pub(crate) fn turn(backends: &Backends, number: u64) -> Pick {
    let total: u64 = backends.healthy().map(|b| u64::from(b.weight)).sum();
    let mut place = number.checked_rem(total).unwrap_or(0);
    to(backends.healthy().find(|backend| {
        let weight = u64::from(backend.weight);
        let found = place < weight;
        place = place.saturating_sub(weight);
        found
    }))
}

/// The fewest under way for its weight; of several the one whose turn it is.
pub(crate) fn least(backends: &Backends, number: u64) -> Pick {
    let load = |b: &Backend| backends.in_flight_of(b.id);
    let lower = |one: &Backend, two: &Backend| {
        (u64::from(load(one)) * u64::from(two.weight))
            .cmp(&(u64::from(load(two)) * u64::from(one.weight)))
    };
    let Some(first) = backends.healthy().min_by(|one, two| lower(one, two)) else {
        return Pick::Unavailable;
    };
    let tied = backends.healthy().filter(|b| lower(b, first).is_eq());
    let count = tied.clone().count() as u64;
    to(tied.clone().nth((number % count) as usize))
}

pub(crate) fn hash(text: &str) -> u64 {
    let mixed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d) ^ (mixed >> 33)
}

/// Rendezvous hashing (Thaler and Ravishankar): each key has an order of preference of its own.
pub(crate) fn preferred<'b>(backends: &'b Backends, key: &str) -> Option<&'b Backend> {
    backends
        .healthy()
        .max_by_key(|b| hash(&format!("{key}@{}", b.name)))
}

fn options() -> Options {
    Options::default()
}

// === tests ===

fn mutants() -> Vec<Row> {
    [
        law::all(),
        swapped::all(),
        balanced::all(),
        least_loaded::all(),
        sticky::all(),
        consistent::all(),
        rewrites::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_mutant_fails_for_the_right_reason() {
    let mutants = mutants();
    assert!(mutants.len() >= 40, "{}", mutants.len());
    let mut wrong = Vec::new();
    for Row {
        name,
        subject,
        case,
    } in &mutants
    {
        let family = case.split('/').next().map(str::to_owned);
        let options = Options {
            only: family,
            ..options()
        };
        let report = run(&**subject, &options);
        let failed: Vec<&str> = report.failed().map(|finding| finding.case).collect();
        println!("{name}: {}", failed.join(", "));
        if !failed.contains(case) {
            wrong.push(format!(
                "{name} should fail {case}, and fails {failed:?}\n{}",
                report.table("again")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// None gets away by luck.
#[test]
fn mutants_do_not_get_away_with_another_seed() {
    let caught = |row: &Row, seed| {
        let options = Options {
            seeds: vec![seed],
            only: Some(row.case.into()),
            ..options()
        };
        run(&*row.subject, &options).failed().next().is_some()
    };
    let mut lucky = Vec::new();
    for row in &mutants() {
        let seeds = (2..5).filter(|&seed| !caught(row, seed));
        lucky.extend(seeds.map(|seed| format!("{} passes {} with {seed}", row.name, row.case)));
    }
    assert!(lucky.is_empty(), "{}", lucky.join("\n"));
}

/// Nobody can guess what a field or a label has to be, but who is told finds what hangs on it.
#[test]
fn what_hangs_on_fields_and_labels_is_tried_with_them() {
    let row = row::<law::PicksDownForOneTenant>("PicksDownForOneTenant", "law/never-picks-down");
    let told = options().header("x-tenant", "acme").label("tier", "gold");
    let verdict = |options| {
        let only = Some(row.case.into());
        let mut report = run(&*row.subject, &Options { only, ..options });
        report.findings.remove(0).verdict
    };
    assert_eq!(verdict(options()), Verdict::Pass);
    let Verdict::Fail(found) = verdict(told) else {
        panic!("it passes");
    };
    assert!(found.what.ends_with(", which is down"), "{found:?}");
    let [backends, pick] = &found.input[..] else {
        panic!("{found:?}");
    };
    assert!(backends.contains("(down)"), "{found:?}");
    assert!(pick.contains("x-tenant"), "{found:?}");
}

#[test]
fn right_policies_pass() {
    let mut wrong = Vec::new();
    for subject in right::all() {
        let seeds = (1..4).collect();
        let report = run(&*subject, &Options { seeds, ..options() });
        if !report.is_good() {
            wrong.push(report.table("again"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// 100 runs with different seeds: some minutes in a debug build.
#[test]
#[ignore = "long: cargo test --release -p waypost-conformance -- --ignored"]
fn right_policies_pass_with_a_hundred_seeds() {
    for subject in right::all() {
        let seeds = (0..100).map(|number| 1_000 + number * 7_919).collect();
        let report = run(&*subject, &Options { seeds, ..options() });
        assert!(report.is_good(), "{}", report.table("again"));
    }
}

#[test]
fn a_counterexample_is_small_and_comes_again() {
    let rows = law::all();
    let row = rows
        .iter()
        .find(|row| row.name == "PicksDown")
        .expect("a mutant");
    let once = run(&*row.subject, &options());
    let finding = once
        .findings
        .iter()
        .find(|finding| finding.case == row.case)
        .expect("the case");
    let Verdict::Fail(found) = &finding.verdict else {
        panic!("{finding:?}");
    };
    assert!(found.what.ends_with(", which is down"), "{found:?}");
    assert!(found.input.len() <= 2, "{found:?}");
    let again = Options {
        seeds: vec![finding.seed],
        only: Some(finding.case.into()),
        ..options()
    };
    assert_eq!(
        run(&*row.subject, &again).findings[0].verdict,
        finding.verdict
    );
}
