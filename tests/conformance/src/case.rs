//! Cases, and how they are run.

use crate::play::{Play, Played, Rule, Step};
use crate::random::Random;
use crate::report::{Finding, Report, Verdict};
use crate::shrink;
use crate::subject::{Broken, Host, Subject};
use crate::traffic::Words;

/// The version of the suite: a certificate of another one says nothing about this one's cases.
pub const SUITE: u32 = 1;

/// The version of the contract that policies are held to.
pub const CONTRACT: &str = "0.1.0";

/// Something that policies are held to.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// `family/what`, which never changes.
    pub id: &'static str,
    /// In a sentence.
    pub doc: &'static str,
    pub(crate) run: fn(&mut Trial<'_>) -> Verdict,
}

impl Case {
    /// The promise that it belongs to; `law` is for everybody.
    pub fn family(&self) -> &'static str {
        self.id
            .split_once('/')
            .map_or(self.id, |(family, _)| family)
    }

    fn applies_to(&self, promises: &[String]) -> bool {
        let family = self.family();
        family == "law" || promises.iter().any(|promise| promise == family)
    }
}

/// All cases, family by family.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        crate::law::CASES,
        crate::limits::CASES,
        crate::state::CASES,
        crate::balanced::CASES,
        crate::least_loaded::CASES,
        crate::sticky::CASES,
        crate::consistent::CASES,
        crate::rewrites::CASES,
    ]
    .into_iter()
    .flatten()
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy's settings as JSON.
    pub config: String,
    /// A run for each.
    pub seeds: Vec<u64>,
    /// Only cases whose id is this, or begins with it and a `/`.
    pub only: Option<String>,
    /// What the made-up traffic is to have in it.
    pub words: Words,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            config: "{}".into(),
            seeds: vec![1],
            only: None,
            words: Words::default(),
        }
    }
}

impl From<&str> for Options {
    /// Those of a policy with these settings.
    fn from(config: &str) -> Self {
        Options {
            config: config.into(),
            ..Options::default()
        }
    }
}

impl Options {
    /// The same with a header field that means something to the policy.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.words.headers.push((name.into(), value.into()));
        self
    }

    /// The same with a label that means something to the policy.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.words.labels.push((key.into(), value.into()));
        self
    }

    /// Whether it is one of the cases that are asked for.
    pub fn takes(&self, case: &Case) -> bool {
        self.only
            .as_deref()
            .is_none_or(|only| case.id == only || case.family() == only)
    }
}

/// Runs the suite: every case that applies, with every seed. The first seed that speaks against the policy decides.
pub fn run(subject: &dyn Subject, options: &Options) -> Report {
    let about = subject.about();
    let findings = cases()
        .filter(|case| options.takes(case))
        .filter(|case| case.applies_to(&about.promises) || options.only.as_deref() == Some(case.id))
        .map(|case| decide(case, subject, options))
        .collect();
    Report {
        policy: about.name.clone(),
        version: about.version.clone(),
        promises: about.promises.clone(),
        digest: about.digest.clone(),
        config: options.config.clone(),
        words: options.words.clone(),
        contract: CONTRACT,
        suite: SUITE,
        seeds: options.seeds.clone(),
        findings,
    }
}

fn decide(case: &'static Case, subject: &dyn Subject, options: &Options) -> Finding {
    let mut finding = Finding {
        case: case.id,
        doc: case.doc,
        seed: options.seeds.first().copied().unwrap_or(1),
        verdict: Verdict::not_applicable("there are no seeds to run it with"),
        measured: Vec::new(),
    };
    for &seed in &options.seeds {
        let mut trial = Trial {
            subject,
            config: &options.config,
            words: &options.words,
            seed,
            random: Random::for_purpose(seed, case.id),
            measured: Vec::new(),
        };
        let verdict = (case.run)(&mut trial);
        let is_good = verdict.is_good();
        finding = Finding {
            seed,
            verdict,
            measured: trial.measured,
            ..finding
        };
        if !is_good {
            break;
        }
    }
    finding
}

/// One run of a case.
pub(crate) struct Trial<'t> {
    pub(crate) subject: &'t dyn Subject,
    pub(crate) config: &'t str,
    pub(crate) words: &'t Words,
    pub(crate) seed: u64,
    /// The case's own.
    pub(crate) random: Random,
    pub(crate) measured: Vec<(&'static str, u64)>,
}

impl<'t> Trial<'t> {
    pub(crate) fn play(&self, shards: usize) -> Result<Play<'t>, Broken> {
        Play::new(self.subject, self.config, self.words, self.seed, shards)
    }

    pub(crate) fn play_in(
        &self,
        host: Box<dyn Host + 't>,
        shards: usize,
    ) -> Result<Play<'t>, Broken> {
        Play::in_host(host, self.config, self.words, self.seed, shards)
    }

    /// Plays a script and holds every pick to a rule; what it was brought down by becomes as small as can be.
    pub(crate) fn follow(
        &self,
        script: Vec<Step>,
        shards: usize,
        breaking: Breaking,
        rule: impl Fn() -> Box<Rule<'t>>,
    ) -> Option<Verdict> {
        let check = |script: &Vec<Step>| -> Result<(), Trouble> {
            let mut play = self.play(shards)?;
            match play.follow(script, &mut *rule()) {
                Played::Through(_) => Ok(()),
                Played::Wrong(what) => Err(Trouble::Wrong(what)),
                Played::Broke(broken) => Err(Trouble::Broke(broken)),
            }
        };
        self.falsify(script, shrink::script, breaking, check, |script| {
            script.iter().map(Step::to_string).collect()
        })
    }

    /// Checks one input; where it shows something wrong, finds the smallest input that does. `None` is a pass.
    pub(crate) fn falsify<T: Clone>(
        &self,
        input: T,
        smaller: impl Fn(&T) -> Vec<T>,
        breaking: Breaking,
        check: impl Fn(&T) -> Result<(), Trouble>,
        show: impl Fn(&T) -> Vec<String>,
    ) -> Option<Verdict> {
        let wrong = |trouble: Trouble| match trouble {
            Trouble::Wrong(what) => Ok(what),
            Trouble::Broke(broken) => breaking.judge(broken),
            Trouble::Unclear(reason) => Err(Verdict::inconclusive(reason)),
            Trouble::NotApplicable(reason) => Err(Verdict::not_applicable(reason)),
        };
        let what = match wrong(check(&input).err()?) {
            Ok(what) => what,
            Err(verdict) => return Some(verdict),
        };
        let still_wrong = |input: &T| wrong(check(input).err()?).ok();
        let (smallest, what) = shrink::smallest(input, what, smaller, still_wrong);
        Some(Verdict::fail(what, show(&smallest)))
    }
}

/// Why a check did not come to a good end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The policy did something that it may not.
    Wrong(String),
    /// It broke before it could.
    Broke(Broken),
    /// Nothing can be said.
    Unclear(String),
    /// The case turned out not to be about it.
    NotApplicable(String),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Trouble::Broke(broken)
    }
}

/// What it means when the policy breaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Breaking {
    /// Other cases look into that.
    Elsewhere,
    /// A crash is what this case is about.
    IsCrash,
    /// Taking too long is what this case is about.
    IsDeadline,
    /// Both are.
    IsWrong,
}

impl Breaking {
    /// What is wrong, or the verdict where this is about something else.
    fn judge(self, broken: Broken) -> Result<String, Verdict> {
        match (self, &broken) {
            (_, Broken::Settings(_)) => Err(settings(&broken)),
            (Breaking::IsCrash | Breaking::IsWrong, Broken::Crash(_))
            | (Breaking::IsDeadline | Breaking::IsWrong, Broken::Deadline) => {
                Ok(format!("the policy {broken}"))
            }
            (_, Broken::Deadline) => Err(Verdict::inconclusive(format!(
                "the policy {broken}: see law/deadline"
            ))),
            (_, Broken::Crash(_)) => Err(Verdict::inconclusive(format!(
                "the policy {broken}: see law/never-breaks"
            ))),
        }
    }
}

fn settings(broken: &Broken) -> Verdict {
    Verdict::inconclusive(format!("the policy {broken}; --config JSON says others"))
}
