//! A certificate: that a policy, byte for byte, has stood the suite.

use serde::{Deserialize, Serialize};

use crate::case::{CONTRACT, SUITE};
use crate::report::{Report, Verdict};
use crate::traffic::Words;

/// What is known of a policy that was tested.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Certificate {
    /// What the policy calls itself.
    pub policy: String,
    /// The version it says it has.
    pub version: String,
    /// SHA-256 of its bytes in hex.
    pub digest: String,
    /// The version of the contract that it was held to.
    pub contract: String,
    /// The version of the suite.
    pub suite: u32,
    /// What it was configured with.
    pub config: String,
    /// What was in the made-up traffic because it means something to the policy.
    #[serde(default)]
    pub words: Words,
    /// The seeds that were run.
    pub seeds: Vec<u64>,
    /// Case by case.
    pub verdicts: Vec<Certified>,
    /// What a pick costs.
    pub cost: Vec<Cost>,
}

/// What a case said.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Certified {
    /// The case.
    pub case: String,
    /// `pass`, `fail`, `not-applicable` or `inconclusive`.
    pub verdict: String,
}

/// What a pick costs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Cost {
    /// Backends of the upstream.
    pub backends: usize,
    /// Nanoseconds, the median of many, on the machine that tested.
    pub pick_ns: u64,
}

impl Certificate {
    /// The certificate of a policy that was tested, with what its picks were measured to cost.
    pub fn new(report: &Report, cost: Vec<Cost>) -> Self {
        let certified = report.findings.iter().map(|finding| Certified {
            case: finding.case.into(),
            verdict: finding.verdict.name().into(),
        });
        Certificate {
            policy: report.policy.clone(),
            version: report.version.clone(),
            digest: report.digest.clone(),
            contract: report.contract.into(),
            suite: report.suite,
            config: report.config.clone(),
            words: report.words.clone(),
            seeds: report.seeds.clone(),
            verdicts: certified.collect(),
            cost,
        }
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// Where that is something else.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Whether a policy of this digest may rely on it.
    ///
    /// # Errors
    /// Why not.
    pub fn vouches_for(&self, digest: &str) -> Result<(), String> {
        if self.digest != digest {
            return Err(format!(
                "is for other bytes: those with the SHA-256 digest {}",
                self.digest
            ));
        }
        if self.contract != CONTRACT {
            return Err(format!(
                "is for version {} of the contract; this host speaks {CONTRACT}",
                self.contract
            ));
        }
        if self.suite != SUITE {
            return Err(format!(
                "is of version {} of the conformance suite; this is version {SUITE}",
                self.suite
            ));
        }
        let bad = |certified: &&Certified| !GOOD.contains(&certified.verdict.as_str());
        match self.verdicts.iter().find(bad) {
            Some(bad) => Err(format!("says {} of {}", bad.verdict, bad.case)),
            None if self.verdicts.is_empty() => Err("has no verdicts".into()),
            None => Ok(()),
        }
    }
}

const GOOD: [&str; 2] = ["pass", "not-applicable"];

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail(_) => "fail",
            Verdict::NotApplicable { .. } => "not-applicable",
            Verdict::Inconclusive { .. } => "inconclusive",
        }
    }
}
