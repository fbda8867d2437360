//! What came of it: verdicts, and the forms in which people and programs read them.

use std::fmt::Write as _;

use serde::Serialize;

use crate::traffic::Words;

/// What a case says of a policy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It kept to it.
    Pass,
    /// It did not.
    Fail(Counterexample),
    /// The case is not about such policies.
    NotApplicable {
        /// Why.
        reason: String,
    },
    /// It cannot be told.
    Inconclusive {
        /// Why.
        reason: String,
    },
}

/// What a policy did wrong, and how it was brought to do it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Counterexample {
    /// What is wrong.
    pub what: String,
    /// The smallest input found that shows it, line by line.
    pub input: Vec<String>,
}

impl Verdict {
    pub(crate) fn fail(what: impl Into<String>, input: Vec<String>) -> Self {
        let what = what.into();
        Verdict::Fail(Counterexample { what, input })
    }

    pub(crate) fn not_applicable(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Verdict::NotApplicable { reason }
    }

    pub(crate) fn inconclusive(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Verdict::Inconclusive { reason }
    }

    /// Whether it speaks against the policy, or leaves a doubt.
    pub fn is_good(&self) -> bool {
        matches!(self, Verdict::Pass | Verdict::NotApplicable { .. })
    }

    fn word(&self) -> &'static str {
        match self {
            Verdict::Pass => "ok",
            Verdict::Fail(_) => "FAILED",
            Verdict::NotApplicable { .. } => "-",
            Verdict::Inconclusive { .. } => "unclear",
        }
    }
}

/// A case, and what it says.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The case.
    pub case: &'static str,
    /// What it is about, in a sentence.
    pub doc: &'static str,
    /// The seed of the run that decided it.
    pub seed: u64,
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What was measured on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<(&'static str, u64)>,
}

/// What the suite says of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the policy calls itself.
    pub policy: String,
    /// The version it says it has.
    pub version: String,
    /// What it vouches for.
    pub promises: Vec<String>,
    /// SHA-256 of its bytes in hex; empty for native code.
    pub digest: String,
    /// What it was configured with.
    pub config: String,
    /// What was in the made-up traffic because it means something to the policy.
    pub words: Words,
    /// The version of the contract that it was held to.
    pub contract: &'static str,
    /// The version of the suite.
    pub suite: u32,
    /// The seeds that were run.
    pub seeds: Vec<u64>,
    /// Case by case.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing speaks against the policy.
    pub fn is_good(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.verdict.is_good())
    }

    /// The cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Finding> {
        let failed = |finding: &&Finding| matches!(finding.verdict, Verdict::Fail(_));
        self.findings.iter().filter(failed)
    }

    fn count(&self, word: &str) -> usize {
        let verdicts = self.findings.iter().map(|finding| &finding.verdict);
        verdicts.filter(|verdict| verdict.word() == word).count()
    }

    /// A table for people: a line for each case, then what failed, each with the command that shows it again.
    /// `command` is that command without the case and the seed.
    pub fn table(&self, command: &str) -> String {
        let mut text = format!("{} {}", self.policy, self.version);
        if !self.promises.is_empty() {
            let _ = write!(text, " ({})", self.promises.join(", "));
        }
        text.push('\n');
        let width = self.findings.iter().map(|finding| finding.case.len());
        let width = width.max().unwrap_or(0);
        for finding in &self.findings {
            let Finding { case, verdict, .. } = finding;
            let _ = write!(text, "  {case:width$}  {:7}", verdict.word());
            let note = match verdict {
                Verdict::Pass | Verdict::Fail(_) => measured(finding),
                Verdict::NotApplicable { reason } | Verdict::Inconclusive { reason } => {
                    reason.clone()
                }
            };
            let line = format!("  {note}");
            text += line.trim_end();
            text = text.trim_end().to_owned();
            text.push('\n');
        }
        // One mistake may fail many cases; it is told once.
        let mut told: Vec<(&Finding, Vec<&str>)> = Vec::new();
        for finding in self.failed() {
            let alike = |(first, _): &&mut (&Finding, _)| first.what() == finding.what();
            match told.iter_mut().find(alike) {
                Some((_, others)) => others.push(finding.case),
                None => told.push((finding, Vec::new())),
            }
        }
        for (finding, others) in told {
            text += &failure(finding, command);
            if !others.is_empty() {
                let _ = writeln!(text, "  the same in: {}", others.join(", "));
            }
        }
        let _ = writeln!(
            text,
            "\n{} passed, {} failed, {} unclear, {} not applicable",
            self.count("ok"),
            self.count("FAILED"),
            self.count("unclear"),
            self.count("-"),
        );
        text
    }

    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As JUnit XML, which continuous integration reads.
    pub fn junit(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(
            text,
            "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">",
            escaped(&format!("{} {}", self.policy, self.version)),
            self.findings.len(),
            self.count("FAILED"),
            self.count("unclear"),
            self.count("-"),
        );
        for finding in &self.findings {
            let (class, name) = finding.case.split_once('/').unwrap_or(("", finding.case));
            let _ = write!(text, "  <testcase classname=\"{class}\" name=\"{name}\"");
            text += &match &finding.verdict {
                Verdict::Pass => "/>\n".to_owned(),
                Verdict::Fail(counterexample) => format!(
                    ">\n    <failure message=\"{}\">{}</failure>\n  </testcase>\n",
                    escaped(&counterexample.what),
                    escaped(&counterexample.input.join("\n"))
                ),
                Verdict::NotApplicable { reason } => format!(
                    ">\n    <skipped message=\"{}\"/>\n  </testcase>\n",
                    escaped(reason)
                ),
                Verdict::Inconclusive { reason } => format!(
                    ">\n    <error message=\"{}\"/>\n  </testcase>\n",
                    escaped(reason)
                ),
            };
        }
        text + "</testsuite>\n"
    }
}

impl Finding {
    /// What is wrong, where something is.
    fn what(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Fail(counterexample) => Some(&counterexample.what),
            _ => None,
        }
    }
}

fn measured(finding: &Finding) -> String {
    let measured = finding.measured.iter();
    let shown: Vec<String> = measured
        .map(|(what, value)| format!("{what} {value}"))
        .collect();
    shown.join(", ")
}

fn failure(finding: &Finding, command: &str) -> String {
    let Verdict::Fail(Counterexample { what, input }) = &finding.verdict else {
        return String::new();
    };
    let mut text = format!("\n{}: {what}\n  {}\n", finding.case, finding.doc);
    if !input.is_empty() {
        text += "  the smallest that shows it:\n";
    }
    for line in input {
        let _ = writeln!(text, "    {line}");
    }
    let (case, seed) = (finding.case, finding.seed);
    let _ = writeln!(text, "  again: {command} --case {case} --seed {seed}");
    text
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped += "&#10;",
            // XML cannot have them, not even escaped.
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mistake_is_told_once() {
        let finding = |case, what: Option<&str>| Finding {
            case,
            doc: "It picks.",
            seed: 7,
            verdict: what.map_or(Verdict::Pass, |what| {
                Verdict::fail(what.to_owned(), vec!["backends: b0".to_owned()])
            }),
            measured: Vec::new(),
        };
        let report = Report {
            policy: "mine".into(),
            version: "0.1.0".into(),
            promises: Vec::new(),
            digest: String::new(),
            config: "{}".into(),
            words: Words::default(),
            contract: "0.1.0",
            suite: 1,
            seeds: vec![7],
            findings: vec![
                finding("law/a", Some("it panics")),
                finding("law/b", None),
                finding("law/c", Some("it picks b1")),
                finding("law/d", Some("it panics")),
            ],
        };
        let expected = "\
mine 0.1.0
  law/a  FAILED
  law/b  ok
  law/c  FAILED
  law/d  FAILED

law/a: it panics
  It picks.
  the smallest that shows it:
    backends: b0
  again: waypost plugin test mine.wasm --case law/a --seed 7
  the same in: law/d

law/c: it picks b1
  It picks.
  the smallest that shows it:
    backends: b0
  again: waypost plugin test mine.wasm --case law/c --seed 7

1 passed, 3 failed, 0 unclear, 0 not applicable
";
        assert_eq!(report.table("waypost plugin test mine.wasm"), expected);
    }
}
