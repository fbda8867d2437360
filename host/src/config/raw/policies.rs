//! `[policy.NAME]` and the policies that need no table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;

use super::super::diagnostic::{Complaint, Mistake, code, list, quoted};
use super::super::fields::{Fields, Mistakes, Name, Value, wrong_type};
use super::super::json::json;
use super::super::nearest::nearest;
use super::super::values::{duration, integer, memory_size, one_of, string};
use super::super::{
    BUILT_IN, OnFailure, Policy, PolicyLimits, PolicySource, Quarantine, ROTATION, defaults,
};
use super::{KIB, MIB, TIMEOUTS};

/// Linear memory comes in pages of this many bytes.
const PAGE: usize = 64 * KIB;

/// All policies: those of the file, and the built-in ones from their first use on.
pub(super) struct Policies(Vec<Policy>);

impl Policies {
    pub(super) fn read(
        tables: Vec<(Name<'_>, Fields<'_>)>,
        directory: &Path,
        mistakes: &Mistakes,
    ) -> Self {
        for (name, _) in tables.iter().filter(|(name, _)| is_built_in(name.text)) {
            let mistake = Mistake::new(format!("the policy {} is built in", code(name.text)))
                .at(name.span.clone(), "this name is taken")
                .help("give yours another name, and name it in `policy` of the upstreams that are to use it");
            mistakes.add(mistake);
        }
        Policies(
            tables
                .into_iter()
                .map(|(name, fields)| policy(name.text, fields, directory))
                .collect(),
        )
    }

    /// The index of the policy that an upstream names.
    pub(super) fn resolve(&mut self, value: &Value<'_>) -> Result<usize, Complaint> {
        let name = string(value)?;
        if let Some(index) = self.0.iter().position(|policy| policy.name == name) {
            return Ok(index);
        }
        let policy = Policy::built_in(name).ok_or_else(|| self.undefined(name))?;
        self.0.push(policy);
        Ok(self.0.len() - 1)
    }

    /// The index of the policy of an upstream that names none.
    pub(super) fn resolve_default(&mut self) -> usize {
        let default = Policy::built_in(defaults::POLICY);
        let index = self
            .0
            .iter()
            .position(|policy| policy.name == defaults::POLICY);
        index.unwrap_or_else(|| {
            self.0.extend(default);
            self.0.len() - 1
        })
    }

    pub(super) fn into_list(self) -> Vec<Policy> {
        self.0
    }

    fn undefined(&self, name: &str) -> Complaint {
        let complaint = Complaint::new("names a policy that is not defined").absence();
        if name.contains('/') || name.ends_with(".wasm") {
            let help = format!(
                "give the file a name, and write that name here:\n\n[policy.NAME]\nfile = {}",
                quoted(name)
            );
            return complaint.label("this looks like a file").help(help);
        }
        let own = || {
            self.0
                .iter()
                .map(|policy| policy.name.as_str())
                .filter(|name| !is_built_in(name))
        };
        let built_in = || BUILT_IN.into_iter().chain([ROTATION]);
        let label = match nearest(name, own().chain(built_in())) {
            Some(nearest) => format!("did you mean {nearest:?}?"),
            None => "no policy has this name".to_owned(),
        };
        let defined = list(own());
        let defined = if defined.is_empty() {
            "no other is defined".to_owned()
        } else {
            format!("this file defines {defined}")
        };
        complaint
            .label(label)
            .help(format!("built in are {}; {defined}", list(built_in())))
    }
}

fn is_built_in(name: &str) -> bool {
    Policy::built_in(name).is_some()
}

fn policy(name: &str, mut fields: Fields<'_>, directory: &Path) -> Policy {
    let source = source(&mut fields, directory);
    let sha256 = fields.optional("sha256", sha256);
    let certificate = fields.optional("require_certificate", |value| {
        certificate_file(value, directory)
    });
    let config = fields
        .take("config")
        .map(|value| policy_config(value, fields.mistakes));
    let limits = PolicyLimits {
        deadline: fields.or("deadline", defaults::DEADLINE, |value| {
            duration(value, Duration::from_millis(1)..=Duration::from_secs(1))
        }),
        memory_max: fields.or("memory", defaults::MEMORY, memory),
    };
    let words = [
        ("fallback", OnFailure::Fallback),
        ("reject", OnFailure::Reject),
    ];
    let on_failure = fields.or("on_failure", OnFailure::default(), |value| {
        one_of(value, &words)
    });
    let quarantine = quarantine(fields.section("quarantine", "[policy.NAME.quarantine]"));
    fields.finish();
    Policy {
        name: name.to_owned(),
        source: source.unwrap_or(PolicySource::File(PathBuf::new())),
        sha256,
        certificate,
        config: config
            .flatten()
            .unwrap_or_else(|| Json::Object(serde_json::Map::new())),
        limits,
        on_failure,
        quarantine,
    }
}

/// Where the code is: in a file, or in the binary.
fn source(fields: &mut Fields<'_>, directory: &Path) -> Option<PolicySource> {
    const EXAMPLE: &str = "file = \"plugins/mine.wasm\", or builtin = \"sticky-cookie\"";
    let Some(builtin) = fields.take("builtin") else {
        let read = |value: &Value<'_>| policy_file(value, directory).map(PolicySource::File);
        return fields.required("file", EXAMPLE, read);
    };
    if let Some(file) = fields.take("file") {
        let complaint = Complaint::new("cannot be there beside `file`")
            .label("the code is in one place")
            .help("take one of the two lines out");
        let mistakes = fields.mistakes;
        mistakes.add(complaint.about("`builtin`", builtin.span()));
        return policy_file(file, directory).ok().map(PolicySource::File);
    }
    let words = BUILT_IN.map(|name| (name, name));
    let found = one_of(builtin, &words).map(PolicySource::BuiltIn);
    fields.mistakes.note("`builtin`", builtin.span(), found)
}

fn sha256(value: &Value<'_>) -> Result<String, Complaint> {
    let text = string(value)?;
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Complaint::new("is not a SHA-256 digest")
        .label("64 digits of 0-9 and a-f are expected")
        .help("`sha256sum FILE` prints it"))
}

fn quarantine(mut fields: Fields<'_>) -> Quarantine {
    let default = Quarantine::default();
    let quarantine = Quarantine {
        failures: fields.or("failures", default.failures, |value| {
            integer(value, 0..=65535)
        }),
        window: fields.or("window", default.window, |value| duration(value, TIMEOUTS)),
        retry: fields.or("retry", default.retry, |value| duration(value, TIMEOUTS)),
    };
    fields.finish();
    quarantine
}

fn policy_file(value: &Value<'_>, directory: &Path) -> Result<PathBuf, Complaint> {
    let file = string(value)?;
    if file.is_empty() || file.contains('\0') {
        return Err(Complaint::new("is not the path of a file")
            .help("write where the policy's .wasm file is"));
    }
    if file.contains("://") {
        return Err(Complaint::new("is not the path of a file")
            .label("this is a URL")
            .help("download the file and write where it is"));
    }
    Ok(directory.join(file))
}

fn certificate_file(value: &Value<'_>, directory: &Path) -> Result<PathBuf, Complaint> {
    let file = string(value)?;
    if file.is_empty() || file.contains('\0') {
        return Err(Complaint::new("is not the path of a file")
            .help("`waypost plugin test POLICY --certificate FILE` writes one"));
    }
    Ok(directory.join(file))
}

fn policy_config(value: &Value<'_>, mistakes: &Mistakes) -> Option<Json> {
    if !value.get_ref().is_table() {
        let complaint =
            wrong_type(value, "a table").help("write for example: config = { cookie = \"sid\" }");
        mistakes.add(complaint.about("`config`", value.span()));
        return None;
    }
    json(value, mistakes)
}

/// Rounded up to whole pages: a policy gets at least what the file says.
fn memory(value: &Value<'_>) -> Result<usize, Complaint> {
    Ok(memory_size(value, PAGE..=1024 * MIB)?.next_multiple_of(PAGE))
}
