//! A policy's `config` table as JSON, the form in which it crosses the boundary to the policy.

use serde_json::{Map, Number, Value as Json};
use toml::de::DeValue;

use super::diagnostic::Complaint;
use super::fields::{Mistakes, Value};
use super::values::to_i64;

/// Tables and lists within one another. Readers of JSON give up somewhere beyond a hundred.
const DEPTH_MAX: usize = 32;

/// Dates and times become strings. What JSON cannot say is a mistake.
pub(super) fn json(value: &Value<'_>, mistakes: &Mistakes) -> Option<Json> {
    at_depth(value, 0, mistakes)
}

fn at_depth(value: &Value<'_>, depth: usize, mistakes: &Mistakes) -> Option<Json> {
    let refused = |what: &str, help: &str| {
        mistakes.add(
            Complaint::new(what)
                .help(help)
                .about("this value of `config`", value.span()),
        );
        None
    };
    if depth > DEPTH_MAX {
        return refused(
            "is nested too deep",
            &format!("use at most {DEPTH_MAX} levels of tables and lists"),
        );
    }
    match value.get_ref() {
        DeValue::String(text) => Some(Json::String(text.to_string())),
        DeValue::Boolean(truth) => Some(Json::Bool(*truth)),
        DeValue::Datetime(time) => Some(Json::String(time.to_string())),
        DeValue::Integer(number) => match to_i64(number) {
            Some(number) => Some(Json::from(number)),
            None => refused("does not fit in 64 bits", "write it as a string"),
        },
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => Some(Json::Number(number)),
            None => refused(
                "is not a finite number",
                "JSON has neither nan nor inf: use a string or leave it out",
            ),
        },
        DeValue::Array(entries) => {
            // Not lazily: each entry's mistakes count.
            let entries: Vec<_> = entries
                .iter()
                .map(|entry| at_depth(entry, depth + 1, mistakes))
                .collect();
            entries
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .map(Json::Array)
        }
        DeValue::Table(table) => {
            let read = |(key, value): (&toml::Spanned<_>, _)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), at_depth(value, depth + 1, mistakes)?))
            };
            let entries: Vec<_> = table.iter().map(read).collect();
            entries
                .into_iter()
                .collect::<Option<Map<_, _>>>()
                .map(Json::Object)
        }
    }
}
