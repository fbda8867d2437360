//! A policy's settings on the command line.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::config::{Config, Policy};

/// The JSON of a `config` table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings(Value);

impl Settings {
    /// Tells the policy these settings instead of none.
    pub(crate) fn apply(&self, policy: &mut Policy) {
        policy.config = self.0.clone();
    }

    /// The same for a configuration that was made of arguments, which has one policy.
    pub(crate) fn apply_to_all(&self, config: &mut Config) {
        for policy in &mut config.policies {
            self.apply(policy);
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Settings {
    type Err = String;

    fn from_str(text: &str) -> Result<Settings, String> {
        const EXAMPLE: &str = r#"write a table as JSON, for example '{"cookie":"sid"}'"#;
        match serde_json::from_str(text) {
            Ok(table @ Value::Object(_)) => Ok(Settings(table)),
            Ok(_) => Err(EXAMPLE.to_owned()),
            Err(error) => Err(format!("{error}; {EXAMPLE}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_a_table() {
        let settings: Settings = r#"{ "cookie": "sid" }"#.parse().unwrap();
        let mut policy = Policy::built_in("round-robin").unwrap();
        settings.apply(&mut policy);
        assert_eq!(policy.config["cookie"], "sid");
        for wrong in ["", "sid", "[]", "1", "{", "{ cookie = \"sid\" }"] {
            let error = wrong.parse::<Settings>().unwrap_err();
            assert!(error.contains("write a table as JSON"), "{error}");
        }
    }
}
