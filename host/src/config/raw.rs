//! From TOML to [`Config`]: reads the whole document, notes every mistake and only then decides whether there is a configuration.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::thread;
use std::time::Duration;

use toml::de::DeTable;

use self::policies::Policies;
use super::diagnostic::{Complaint, Mistake, code};
use super::fields::{Fields, Mistakes, Value, wrong_type};
use super::values::{duration, integer, memory_size, size, string};
use super::{
    Admin, Cache, Config, ConfigError, Forwarded, Limits, Listener, Network, Timeouts, address,
    defaults, units,
};

mod admin;
mod policies;
mod routes;
mod syntax;
mod upstreams;

/// A file is read up to this size, in bytes: enough for 100,000 routes, too little for what is no configuration.
pub(super) const FILE_MAX: usize = 16 * MIB;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a timeout may be. One of zero would end everything at once.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=units::DURATION_MAX;

/// The content of a file as text.
pub(super) fn text_of(file: &Path, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let mistake = Mistake::new("this file is not text in UTF-8")
            .at(place..place + 1, "this byte has no meaning in UTF-8")
            .help("save it as UTF-8");
        let text = String::from_utf8_lossy(error.as_bytes());
        ConfigError::new(Some(name_of(file)), text, vec![mistake])
    })
}

/// Reads a document. `file` is named in messages, and paths in the document are relative to its directory.
pub(super) fn read(file: &Path, text: &str) -> Result<Config, ConfigError> {
    read_with(file, text, read_here)
}

/// Reads what can be read of the `[admin]` of a document, whatever is wrong with the rest.
pub(super) fn read_admin(file: &Path, text: &str) -> Result<Admin, ConfigError> {
    read_with(file, text, read_admin_here)
}

fn read_with<T: Send>(
    file: &Path,
    text: &str,
    reader: fn(&Path, &str) -> Result<T, Vec<Mistake>>,
) -> Result<T, ConfigError> {
    // A byte order mark says nothing in UTF-8, and would shift the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > FILE_MAX {
        return Err(too_large(file));
    }
    let refused = |mistakes| ConfigError::new(Some(name_of(file)), text, mistakes);
    let read = thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("config".to_owned())
            .stack_size(READER_STACK);
        let thread = thread.spawn_scoped(scope, || reader(file, text));
        thread.map(|thread| thread.join())
    });
    match read {
        Ok(Ok(read)) => read.map_err(refused),
        // Neither has to do with the file; whoever reloads keeps what it has.
        Ok(Err(_)) => Err(refused(vec![
            Mistake::new("the reader of configurations broke down").help("please report this file"),
        ])),
        Err(error) => Err(refused(vec![Mistake::new(format!(
            "cannot start a thread: {error}"
        ))])),
    }
}

/// Stack for reading, in bytes, of which only what is used costs memory.
///
/// `toml` lets 80 inline tables with keys of 80 parts nest in one another and frees them by recursion: 6,400 levels, which in a debug build
/// do not fit into the 2 MiB of an ordinary thread.
pub(super) const READER_STACK: usize = 64 * MIB;

fn read_here(file: &Path, text: &str) -> Result<Config, Vec<Mistake>> {
    let readable = syntax::blank_broken_lines(text);
    let (document, syntax_errors) = DeTable::parse_recoverable(&readable.text);
    let syntax_errors = readable.errors.into_iter().chain(syntax_errors);
    let mistakes = Mistakes::default();
    let config = document_config(document.get_ref(), directory_of(file), &mistakes);
    let mistakes = syntax::merge(syntax_errors, mistakes.into_list(), text);
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(mistakes)
    }
}

fn read_admin_here(file: &Path, text: &str) -> Result<Admin, Vec<Mistake>> {
    let readable = syntax::blank_broken_lines(text);
    let (document, syntax_errors) = DeTable::parse_recoverable(&readable.text);
    let mistakes = Mistakes::default();
    let mut fields = Fields::document(document.get_ref(), &mistakes);
    let admin = admin::read(fields.section("admin", "[admin]"), directory_of(file), &[]);
    if admin != Admin::default() {
        return Ok(admin);
    }
    // What is not there may be wrong, or on a line that makes no sense.
    let syntax_errors = readable.errors.into_iter().chain(syntax_errors);
    let mistakes = syntax::merge(syntax_errors, mistakes.into_list(), text);
    if mistakes.is_empty() {
        Ok(admin)
    } else {
        Err(mistakes)
    }
}

/// What relative paths in a file are relative to.
fn directory_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// A file of more than [`FILE_MAX`] bytes.
pub(super) fn too_large(file: &Path) -> ConfigError {
    let mistake = Mistake::new("this file is too large").help(format!(
        "a configuration may have at most {}: is it the right file?",
        units::show_size(FILE_MAX as u64)
    ));
    ConfigError::new(Some(name_of(file)), "", vec![mistake])
}

/// How messages call a file: as the user did.
pub(super) fn name_of(file: &Path) -> String {
    file.display().to_string()
}

/// Reads the whole document. The result means something only if no mistake was noted.
pub(super) fn document_config<'t>(
    document: &'t DeTable<'t>,
    directory: &Path,
    mistakes: &'t Mistakes,
) -> Config {
    let mut fields = Fields::document(document, mistakes);
    let shards = fields.or("shards", defaults::shards(), |value| {
        integer(value, 1..=defaults::SHARDS_MAX)
    });
    let cache = fields.or("cache", Cache::default(), |value| {
        read_cache(value, directory)
    });
    let listeners = fields.each("listen", "[[listen]]");
    let routes = fields.each("route", "[[route]]");
    let upstreams = fields.named("upstream", "[upstream.NAME]");
    let policies = fields.named("policy", "[policy.NAME]");
    let forwarded = fields.section("forwarded", "[forwarded]");
    let timeouts = fields.section("timeouts", "[timeouts]");
    let limits = fields.section("limits", "[limits]");
    let shutdown = fields.section("shutdown", "[shutdown]");
    let admin = fields.section("admin", "[admin]");
    fields.finish();

    // Whatever is referred to comes before what refers to it; the file may have any order.
    let mut policies = Policies::read(policies, directory, mistakes);
    let upstreams = upstreams::read(upstreams, &mut policies);
    let listeners = read_listeners(listeners, mistakes);
    Config {
        shards,
        cache,
        admin: admin::read(admin, directory, &listeners),
        listeners,
        routes: routes::read(routes, &upstreams, mistakes),
        upstreams,
        policies: policies.into_list(),
        forwarded: read_forwarded(forwarded),
        timeouts: read_timeouts(timeouts),
        limits: read_limits(limits),
        shutdown_grace: read_shutdown(shutdown),
    }
}

/// A directory, or `false`.
fn read_cache(value: &Value<'_>, directory: &Path) -> Result<Cache, Complaint> {
    let help = "write for example \"/var/cache/waypost\", or false for none";
    match (value.get_ref().as_bool(), value.get_ref().as_str()) {
        (Some(false), _) => Ok(Cache::Off),
        (Some(true), _) => Ok(Cache::User),
        (None, Some(text)) if !text.is_empty() && !text.contains('\0') => {
            Ok(Cache::Directory(directory.join(text)))
        }
        (None, Some(_)) => Err(Complaint::new("is not the path of a directory").help(help)),
        (None, None) => Err(wrong_type(value, "the path of a directory, or false").help(help)),
    }
}

fn read_listeners(tables: Vec<Fields<'_>>, mistakes: &Mistakes) -> Vec<Listener> {
    if tables.is_empty() {
        let help = "say where clients connect:\n\n[[listen]]\naddress = \"0.0.0.0:8080\"";
        mistakes.add(Mistake::new("there is no [[listen]]").help(help).absence());
    }
    let mut seen: HashMap<SocketAddr, Range<usize>> = HashMap::new();
    let mut listeners = Vec::new();
    for mut fields in tables {
        let value = fields.required_value("address", "address = \"0.0.0.0:8080\"");
        fields.finish();
        let Some(value) = value else { continue };
        let Some(address) = mistakes.note("`address`", value.span(), listen_address(value)) else {
            continue;
        };
        // Several listeners may leave their port to the system.
        if let Some(earlier) = seen
            .insert(address, value.span())
            .filter(|_| address.port() != 0)
        {
            let mistake = Mistake::new(format!("two [[listen]] have the address {address}"));
            mistakes.add(
                mistake
                    .at(value.span(), "the second one")
                    .also(earlier, "the first one"),
            );
        }
        listeners.push(Listener { address });
    }
    listeners
}

fn listen_address(value: &Value<'_>) -> Result<SocketAddr, Complaint> {
    if value.get_ref().is_integer() {
        return Err(Complaint::new("must be a string")
            .label("a bare number")
            .help("write \":PORT\", for example \":8080\""));
    }
    address::listen(string(value)?)
}

fn read_forwarded(mut fields: Fields<'_>) -> Forwarded {
    let entries = fields.list("trusted").unwrap_or_default();
    let network = |value: &Value<'_>| {
        let unclear = |error: super::InvalidNetwork| {
            Complaint::new("is not an IP address or network").help(error.to_string())
        };
        string(value)?.parse::<Network>().map_err(unclear)
    };
    let subject = format!("an entry of {}", code("trusted"));
    let trusted = entries
        .into_iter()
        .filter_map(|value| fields.mistakes.note(&subject, value.span(), network(value)))
        .collect();
    fields.finish();
    Forwarded { trusted }
}

fn read_timeouts(mut fields: Fields<'_>) -> Timeouts {
    let default = Timeouts::default();
    let timeouts = Timeouts {
        request_head: fields.or("request_head", default.request_head, |value| {
            duration(value, TIMEOUTS)
        }),
        request_body: fields.or("request_body", default.request_body, |value| {
            duration(value, TIMEOUTS)
        }),
        response: fields.or("response", default.response, |value| {
            duration(value, TIMEOUTS)
        }),
        idle: fields.or("idle", default.idle, |value| duration(value, TIMEOUTS)),
    };
    fields.finish();
    timeouts
}

fn read_limits(mut fields: Fields<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        request_target: fields.or("request_target", default.request_target, |value| {
            memory_size(value, 64..=MIB)
        }),
        head: fields.or("head", default.head, |value| {
            memory_size(value, 8 * KIB..=MIB)
        }),
        fields: fields.or("fields", default.fields, |value| integer(value, 1..=1000)),
        request_body: fields.optional("request_body", |value| size(value, 0..=u64::MAX)),
    };
    fields.finish();
    limits
}

fn read_shutdown(mut fields: Fields<'_>) -> Duration {
    // Here zero has a meaning: stop at once.
    let range = Duration::ZERO..=units::DURATION_MAX;
    let grace = fields.or("grace", defaults::SHUTDOWN_GRACE, |value| {
        duration(value, range)
    });
    fields.finish();
    grace
}
