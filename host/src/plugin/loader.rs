//! From bytes to a policy that may carry traffic: read, wrap, compile, check the world, ask who it is, try it.
//!
//! Each stage has one clear error. Whatever fails here never becomes active.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};
use wasmtime::{Module, Store};
use waypost_conformance::certificate::Certificate;
use wit_component::ComponentEncoder;

use super::bindings::{
    OutcomesHook, OutcomesHookIndices, Policy, PolicyIndices, ResponsesHook, ResponsesHookIndices,
    StateHook, StateHookIndices,
};
use super::precompiled::MachineCode;
use super::quarantine::Record;
use super::state::{self, Guest};
use super::{About, Engine, Plugin, Stats, advice, aside, bounds, deadline, description};
use crate::config::{self, PolicySource};
use crate::policy::slot;
use crate::policy::{Policy as _, PolicyFailure};
use crate::upstream::Upstream;

/// The contract this host speaks. Minor versions with the same first two numbers link (see the WIT package).
const CONTRACT: &str = "waypost:policy";
pub(crate) const VERSION: &str = "0.1.0";
pub(super) const EXPORTS: [&str; 2] = ["about", "balance"];

/// Where a policy's bytes come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    Embedded(&'static str),
    File(PathBuf),
    /// Over the admin socket.
    Pushed,
}

/// Compiled code and what it takes to make instances of it.
pub(crate) struct Code {
    pub(super) engine: Engine,
    pre: InstancePre<Guest>,
    policy: PolicyIndices,
    outcomes: Option<OutcomesHookIndices>,
    responses: Option<ResponsesHookIndices>,
    state: Option<StateHookIndices>,
}

/// What an instance can be asked: its policy, and the hooks that it has.
pub(super) struct Exports {
    pub(super) policy: Policy,
    pub(super) outcomes: Option<OutcomesHook>,
    pub(super) responses: Option<ResponsesHook>,
    pub(super) state: Option<StateHook>,
}

/// Why a policy does not load: the stage, what is wrong, and what to do about it.
#[derive(Debug)]
pub(crate) struct LoadError {
    source: Source,
    problem: String,
    remedy: String,
    /// It refused its configuration.
    refused: bool,
}

impl LoadError {
    /// The key of its table in the configuration that is to blame.
    pub(crate) fn key(&self) -> &'static str {
        if self.refused { "config" } else { "file" }
    }

    pub(crate) fn message(&self) -> String {
        format!("{}: {}", self.source, self.problem)
    }

    /// The message without where the policy is from.
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }

    pub(crate) fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  = help: {}", self.message(), self.remedy)
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Embedded(name) => write!(f, "built-in policy {name}"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Pushed => f.write_str("pushed policy"),
        }
    }
}

/// What went wrong, before it is known where the bytes came from.
struct Problem(String, String);

impl Problem {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem(problem.into(), remedy.into())
    }
}

impl Plugin {
    /// Loads what `settings` name, or the `pushed` code in its place. `None` for `rotation`, which is no plugin.
    /// Where that is what `previous` is already, `previous` goes on.
    ///
    /// # Errors
    /// Where the file cannot be read, is no policy of this contract, asks for what is not offered, or refuses its
    /// configuration.
    pub(crate) fn load(
        engine: &Engine,
        settings: &config::Policy,
        pushed: Option<&[u8]>,
        previous: Option<&Arc<Plugin>>,
    ) -> Result<Option<Arc<Plugin>>, LoadError> {
        let source = match (&settings.source, pushed) {
            (PolicySource::Rotation, _) => return Ok(None),
            (_, Some(_)) => Source::Pushed,
            (PolicySource::BuiltIn(name), None) => Source::Embedded(name),
            (PolicySource::File(path), None) => Source::File(path.clone()),
        };
        let loaded = aside::run(|| {
            let bytes = read(&source, pushed)?;
            let digest = digest(&bytes);
            check_pin(settings, &digest)?;
            check_certificate(settings, &digest)?;
            match previous.filter(|previous| previous.is_same(settings, &digest)) {
                Some(previous) => Ok(previous.clone()),
                None => Plugin::from_bytes(engine, settings, source.clone(), &bytes).map(Arc::new),
            }
        });
        match loaded.unwrap_or_else(|broken| Err(Problem::new(broken, DAMAGED))) {
            Ok(plugin) => Ok(Some(plugin)),
            Err(Problem(problem, remedy)) => Err(LoadError {
                source,
                problem,
                remedy,
                refused: false,
            }),
        }
    }

    /// Whether loading these bytes for these settings would only make this plugin again.
    fn is_same(&self, settings: &config::Policy, digest: &str) -> bool {
        let mine = &self.settings;
        self.digest == digest
            && mine.config == settings.config
            && mine.limits == settings.limits
            && mine.quarantine == settings.quarantine
            && !self.record.is_tripped()
    }

    /// Whether it is what these settings ask for, unless their file has other code by now.
    pub(crate) fn is_for(&self, settings: &config::Policy) -> bool {
        let mine = &self.settings;
        mine.source == settings.source
            && mine.sha256 == settings.sha256
            && mine.certificate == settings.certificate
            && self.is_same(settings, &self.digest)
    }

    fn from_bytes(
        engine: &Engine,
        settings: &config::Policy,
        source: Source,
        bytes: &[u8],
    ) -> Result<Plugin, Problem> {
        let digest = digest(bytes);
        let (component, new) = match engine.kept(&digest) {
            Some(component) => (component, None),
            None => {
                let code = compile(engine, bytes)?;
                let component = code.component(&engine.wasmtime).map_err(not_compiled)?;
                (component, Some(code))
            }
        };
        check_world(engine, &component)?;
        let pre = engine.linker.instantiate_pre(&component).map_err(|error| {
            Problem::new(
                format!("does not fit this host: {}", chain(&error)),
                REBUILD,
            )
        })?;
        let code = Code::new(engine, pre)?;
        let about = code.describe(settings)?;
        if let Some(code) = new {
            engine.keep(&digest, &code);
        }
        let config = settings.config.to_string();
        Ok(Plugin {
            name: settings.name.clone(),
            about,
            digest,
            source,
            bytes: bytes.into(),
            stats: Stats::default(),
            record: Record::new(settings.quarantine),
            log_limit: Arc::default(),
            code,
            settings: settings.clone(),
            config,
        })
    }

    /// Whether it has the hook `state`, and whether it has `responses`.
    pub(crate) fn hooks(&self) -> [bool; 2] {
        [self.code.state.is_some(), self.code.responses.is_some()]
    }

    /// What it was loaded for.
    pub(crate) fn settings(&self) -> &config::Policy {
        &self.settings
    }

    /// Whether this JSON is the configuration it was loaded with.
    pub(crate) fn is_configured_as(&self, json: &str) -> bool {
        serde_json::from_str(json)
            .is_ok_and(|config: serde_json::Value| config == self.settings.config)
    }

    /// Tries the policy on an upstream it is meant for: configure, update, some picks. Nothing of it is counted.
    /// Returns how much memory the instance has after that, in bytes.
    ///
    /// # Errors
    /// What the policy refused, or how it failed.
    pub(crate) fn probe(self: &Arc<Self>, upstream: &Upstream) -> Result<usize, LoadError> {
        /// Enough to reach what a policy does only for a retry, or when its tables wrap.
        const PICKS: u32 = 200;
        let failed = |problem: String, remedy: &str| LoadError {
            source: self.source.clone(),
            problem,
            remedy: remedy.to_owned(),
            refused: false,
        };
        let trial = Arc::new(upstream.rehearsal());
        let mut instance = self.instantiate(&trial).map_err(|failure| match failure {
            PolicyFailure::Start(_) => LoadError {
                refused: true,
                ..failed(
                    failure.to_string(),
                    "check what the policy is told: its `config` table",
                )
            },
            _ => failed(
                format!("failed in configure: {failure}"),
                advice::on_failure("configure", &failure),
            ),
        })?;
        instance.update(&trial).map_err(|failure| {
            failed(
                format!("failed in update: {failure}"),
                advice::on_failure("update", &failure),
            )
        })?;
        for attempt in 0..PICKS {
            let exchange = slot::rehearsal(attempt);
            let (_, verdict) = instance.pick(exchange);
            verdict.map_err(|failure| {
                failed(
                    format!("failed in trial pick {attempt}: {failure}"),
                    advice::on_failure("pick", &failure),
                )
            })?;
        }
        Ok(instance.memory_bytes())
    }
}

impl Code {
    fn new(engine: &Engine, pre: InstancePre<Guest>) -> Result<Code, Problem> {
        // An absent hook is no error: the policy does not need it.
        let outcomes = OutcomesHookIndices::new(&pre).ok();
        let responses = ResponsesHookIndices::new(&pre).ok();
        let state = StateHookIndices::new(&pre).ok();
        let policy = PolicyIndices::new(&pre).map_err(|error| {
            Problem::new(
                format!("does not have the shape of a policy: {}", chain(&error)),
                REBUILD,
            )
        })?;
        Ok(Code {
            engine: engine.clone(),
            pre,
            policy,
            outcomes,
            responses,
            state,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let image = self.pre.component().image_range();
        image.end.addr() - image.start.addr()
    }

    pub(super) fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate(&mut *store)?;
        let policy = self.policy.load(&mut *store, &instance)?;
        let outcomes = self.outcomes.as_ref();
        let responses = self.responses.as_ref();
        let state = self.state.as_ref();
        Ok(Exports {
            policy,
            outcomes: outcomes
                .map(|hook| hook.load(&mut *store, &instance))
                .transpose()?,
            responses: responses
                .map(|hook| hook.load(&mut *store, &instance))
                .transpose()?,
            state: state
                .map(|hook| hook.load(&mut *store, &instance))
                .transpose()?,
        })
    }

    fn describe(&self, settings: &config::Policy) -> Result<About, Problem> {
        let guest = Guest::new(settings, None, Arc::default(), 1);
        let mut store = self.engine.store(guest);
        deadline::arm(&mut store, super::instance::SET_UP_DEADLINE);
        let described = self.instantiate(&mut store).and_then(|exports| {
            exports
                .policy
                .waypost_policy_about()
                .call_describe(&mut store)
        });
        let info = described.map_err(|error| {
            let failure = super::instance::failure(&error, store.data_mut());
            Problem::new(
                format!("failed before it was asked anything: {failure}"),
                "the policy is broken: run its tests",
            )
        })?;
        Ok(About {
            name: state::one_line(&info.name),
            version: state::one_line(&info.version),
            promises: info
                .promises
                .iter()
                .map(|text| state::one_line(text))
                .collect(),
        })
    }
}

const REBUILD: &str = "build it again with the waypost-plugin crate of this version";
const DAMAGED: &str = "the file is damaged or uses features that policies do not have; build it again with waypost-plugin-build";
const TOO_LARGE: &str = "build it in release mode with debug information stripped";

fn check_pin(settings: &config::Policy, digest: &str) -> Result<(), Problem> {
    match &settings.sha256 {
        Some(pin) if pin != digest => Err(Problem::new(
            format!("has the SHA-256 digest {digest}, and `sha256` says {pin}"),
            "see which of the two is meant: the file may be another one than you think",
        )),
        Some(_) | None => Ok(()),
    }
}

/// Sees to it that there is a certificate for these bytes, where one is demanded.
fn check_certificate(settings: &config::Policy, digest: &str) -> Result<(), Problem> {
    /// Far more than any has.
    const BYTES_MAX: u64 = 1024 * 1024;
    const REMEDY: &str = "test the policy, and have a certificate written: waypost plugin test FILE --certificate CERTIFICATE";
    let Some(file) = &settings.certificate else {
        return Ok(());
    };
    let name = file.display();
    let mut text = String::new();
    File::open(file)
        .and_then(|opened| opened.take(BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| {
            Problem::new(
                format!("its certificate {name} cannot be read: {error}"),
                REMEDY,
            )
        })?;
    let certificate = Certificate::from_json(&text)
        .map_err(|error| Problem::new(format!("{name} is no certificate: {error}"), REMEDY))?;
    certificate
        .vouches_for(digest)
        .map_err(|reason| Problem::new(format!("its certificate {name} {reason}"), REMEDY))
}

/// What names a policy's bytes: their SHA-256, in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(source: &Source, pushed: Option<&[u8]>) -> Result<Vec<u8>, Problem> {
    match source {
        Source::Pushed => Ok(pushed.unwrap_or_default().to_vec()),
        Source::Embedded(name) => crate::built_in::policy(name)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Problem::new("is not in this binary", "choose another policy")),
        Source::File(path) => read_file(path),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "check the path; in a configuration file, a relative one starts at that file's directory"
            }
            std::io::ErrorKind::PermissionDenied => "let the user that runs waypost read it",
            _ => "check the path",
        };
        Problem::new(format!("cannot be read: {error}"), remedy)
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        let remedy =
            "name the .wasm file itself; `waypost plugin build DIR` makes one of a policy's crate";
        return Err(Problem::new("is not a file", remedy));
    }
    // It may grow while it is read.
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bounds::BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 <= bounds::BYTES_MAX {
        return Ok(bytes);
    }
    Err(if bytes.starts_with(b"\0asm") {
        Problem::new(bounds::too_long(metadata.len()), TOO_LARGE)
    } else {
        let (problem, remedy) = advice::on_other_file(&bytes);
        Problem::new(problem, remedy)
    })
}

/// Bounded by what may be in a policy, and one after the other: compiling takes a hundred times a policy's size in
/// memory.
fn compile(engine: &Engine, bytes: &[u8]) -> Result<MachineCode, Problem> {
    bounds::check(bytes).map_err(|too_much| Problem::new(too_much, TOO_LARGE))?;
    let _turn = engine.turn();
    aside::yield_to_requests();
    let component = componentize(engine, bytes)?;
    engine.compile(&component).map_err(not_compiled)
}

fn not_compiled(error: wasmtime::Error) -> Problem {
    let reason = error.root_cause().to_string();
    let reason = reason.lines().next().unwrap_or_default();
    Problem::new(format!("does not compile: {reason}"), DAMAGED)
}

/// A component as it is; a core module with a component wrapped around it.
fn componentize(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
    if bytes.starts_with(COMPONENT) {
        return Ok(bytes.to_vec());
    }
    if !bytes.starts_with(CORE_MODULE) {
        let (problem, remedy) = advice::on_other_file(bytes);
        return Err(Problem::new(problem, remedy));
    }
    let no_policy = |reason: &dyn fmt::Display| {
        let problem = format!("is a WebAssembly module but not a policy: {reason}");
        let remedy = advice::on_module(&problem);
        Problem::new(problem, remedy)
    };
    // The encoder trusts a module to be well-formed, and panics on some that are not.
    Module::validate(&engine.wasmtime, bytes).map_err(|error| no_policy(&error.root_cause()))?;
    check_description(bytes)?;
    let encode = || {
        let mut encoder = ComponentEncoder::default().validate(true).module(bytes)?;
        encoder.encode()
    };
    match std::panic::catch_unwind(encode) {
        Ok(encoded) => encoded.map_err(|error| no_policy(&error.root_cause())),
        Err(_) => Err(no_policy(&"its description of itself is damaged")),
    }
}

/// Names what a component lacks, or asks for and cannot have, before the linker would in its own words.
fn check_world(engine: &Engine, component: &Component) -> Result<(), Problem> {
    let ty = component.component_type();
    for (name, _) in ty.imports(&engine.wasmtime) {
        check_import(name)?;
    }
    let exports: Vec<&str> = ty.exports(&engine.wasmtime).map(|(name, _)| name).collect();
    for wanted in EXPORTS {
        let prefix = format!("{CONTRACT}/{wanted}@");
        match exports.iter().find_map(|name| name.strip_prefix(&prefix)) {
            Some(version) if compatible(version) => {}
            Some(version) => return Err(wrong_version(version)),
            None => {
                return Err(Problem::new(
                    format!(
                        "is WebAssembly but not a policy: it does not export {CONTRACT}/{wanted}"
                    ),
                    "a policy crate has `export_policy!(YourPolicy);` in its lib.rs",
                ));
            }
        }
    }
    Ok(())
}

fn check_import(name: &str) -> Result<(), Problem> {
    let Some(rest) = name
        .strip_prefix(CONTRACT)
        .and_then(|rest| rest.strip_prefix('/'))
    else {
        let remedy = if name.starts_with("wasi:") {
            advice::NO_WASI
        } else {
            "use only what waypost-plugin offers"
        };
        return Err(Problem::new(
            format!("asks for {name}, which no policy gets"),
            remedy,
        ));
    };
    match rest.split_once('@') {
        Some((_, version)) if compatible(version) => Ok(()),
        Some((_, version)) => Err(wrong_version(version)),
        None => Ok(()),
    }
}

/// Sees to it that a module speaks of one package alone; see [`description`].
fn check_description(module: &[u8]) -> Result<(), Problem> {
    let interfaces = description::interfaces(module);
    for name in &interfaces {
        check_import(name)?;
    }
    let version = |name: &String| name.split_once('@').map(|(_, version)| version.to_owned());
    let mut pairs = interfaces.iter().zip(interfaces.iter().skip(1));
    match pairs.find(|(name, next)| version(name) != version(next)) {
        None => Ok(()),
        Some((name, next)) => Err(Problem::new(
            format!("is built for more than one version of the contract: {name} and {next}"),
            REBUILD,
        )),
    }
}

/// The same `0.N` (or, once there is one, the same major version).
fn compatible(version: &str) -> bool {
    let leading = |version: &str| {
        version
            .split('.')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    leading(version) == leading(VERSION)
}

fn wrong_version(version: &str) -> Problem {
    Problem::new(
        format!("is built for version {version} of the contract; this host speaks {VERSION}"),
        REBUILD,
    )
}

fn chain(error: &wasmtime::Error) -> String {
    error
        .chain()
        .map(|cause| cause.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}
