//! `[upstream.NAME]` and its servers.

use std::collections::HashMap;
use std::ops::Range;

use super::super::address::{self, BackendAddress};
use super::super::diagnostic::{Complaint, Mistake, code};
use super::super::fields::{Fields, Name, Value, found};
use super::super::values::{duration, integer, label_text, one_of, string};
use super::super::{Keepalive, Server, ServerState, Upstream, defaults};
use super::TIMEOUTS;
use super::policies::Policies;

const RETRIES_MAX: u32 = 16;
const MAX_FAILS_MAX: u32 = 65535;
const CONNECTIONS_MAX: usize = 65535;
const WEIGHT_MAX: u32 = 65535;

const SERVERS_EXAMPLE: &str = "servers = [\"127.0.0.1:3000\", \"127.0.0.1:3001\"]";
const SERVER_EXAMPLE: &str = "{ address = \"127.0.0.1:3000\", weight = 2 }";

pub(super) fn read(tables: Vec<(Name<'_>, Fields<'_>)>, policies: &mut Policies) -> Vec<Upstream> {
    tables
        .into_iter()
        .map(|(name, fields)| upstream(name.text, fields, policies))
        .collect()
}

fn upstream(name: &str, mut fields: Fields<'_>, policies: &mut Policies) -> Upstream {
    let policy = fields.optional("policy", |value| policies.resolve(value));
    let upstream = Upstream {
        name: name.to_owned(),
        policy: policy.unwrap_or_else(|| policies.resolve_default()),
        servers: servers(&mut fields),
        retries: fields.or("retries", defaults::RETRIES, |value| {
            integer(value, 0..=RETRIES_MAX)
        }),
        max_fails: fields.or("max_fails", defaults::MAX_FAILS, |value| {
            integer(value, 0..=MAX_FAILS_MAX)
        }),
        fail_timeout: fields.or("fail_timeout", defaults::FAIL_TIMEOUT, |value| {
            duration(value, TIMEOUTS)
        }),
        connect_timeout: fields.or("connect_timeout", defaults::CONNECT_TIMEOUT, |value| {
            duration(value, TIMEOUTS)
        }),
        response_timeout: fields.or("response_timeout", defaults::RESPONSE_TIMEOUT, |value| {
            duration(value, TIMEOUTS)
        }),
        idle_timeout: fields.or("idle_timeout", defaults::IDLE_TIMEOUT, |value| {
            duration(value, TIMEOUTS)
        }),
        keepalive: keepalive(fields.section("keepalive", "[upstream.NAME.keepalive]")),
    };
    fields.finish();
    upstream
}

fn keepalive(mut fields: Fields<'_>) -> Keepalive {
    let default = Keepalive::default();
    let keepalive = Keepalive {
        connections: fields.or("connections", default.connections, |value| {
            integer(value, 0..=CONNECTIONS_MAX)
        }),
        timeout: fields.or("timeout", default.timeout, |value| {
            duration(value, TIMEOUTS)
        }),
    };
    fields.finish();
    keepalive
}

fn servers(fields: &mut Fields<'_>) -> Vec<Server> {
    let Some(value) = fields.required_value("servers", SERVERS_EXAMPLE) else {
        return Vec::new();
    };
    let Some(entries) = fields.list_of("servers", value) else {
        return Vec::new();
    };
    if entries.is_empty() {
        let mistake = Mistake::new(format!("{} has no servers", fields.title()))
            .at(value.span(), "an empty list");
        fields
            .mistakes
            .add(mistake.help(format!("write for example: {SERVERS_EXAMPLE}")));
    }
    let found: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| server(entry, fields))
        .collect();
    refuse_duplicates(&found, fields);
    found.into_iter().map(|found| found.server).collect()
}

/// A server with what tells whether another is the same.
struct Found {
    server: Server,
    place: BackendAddress,
    span: Range<usize>,
}

/// An entry: an address alone or a table.
fn server(entry: &Value<'_>, parent: &Fields<'_>) -> Option<Found> {
    let value = entry.get_ref();
    if value.is_str() {
        let (address, place) =
            parent
                .mistakes
                .note("an entry of `servers`", entry.span(), backend(entry))?;
        return Some(Found {
            server: Server::new(address),
            place,
            span: entry.span(),
        });
    }
    if !value.is_table() {
        let complaint = Complaint::new("must be an address or a table").label(found(entry));
        let complaint = complaint.help(format!("write \"127.0.0.1:3000\" or {SERVER_EXAMPLE}"));
        parent
            .mistakes
            .add(complaint.about("an entry of `servers`", entry.span()));
        return None;
    }
    let mut fields = parent.inside(entry, "servers", "this server".to_owned())?;
    let address = fields.required("address", "address = \"127.0.0.1:3000\"", backend);
    let name = fields.optional("name", label_text);
    let weight = fields.or("weight", defaults::WEIGHT, |value| {
        integer(value, 0..=WEIGHT_MAX)
    });
    let states = [
        ("up", ServerState::Up),
        ("draining", ServerState::Draining),
        ("down", ServerState::Down),
    ];
    let state = fields.or("state", ServerState::default(), |value| {
        one_of(value, &states)
    });
    let labels = labels(fields.section("labels", "servers.labels"));
    fields.finish();
    let (address, place) = address?;
    let name = name.unwrap_or_else(|| address.clone());
    Some(Found {
        server: Server {
            name,
            address,
            weight,
            state,
            labels,
        },
        place,
        span: entry.span(),
    })
}

fn backend(value: &Value<'_>) -> Result<(String, BackendAddress), Complaint> {
    let text = string(value)?;
    Ok((text.to_owned(), address::backend(text)?))
}

fn labels(fields: Fields<'_>) -> Vec<(String, String)> {
    let mistakes = fields.mistakes;
    let label = |(key, value): (&str, &Value<'_>)| {
        let text = mistakes.note(
            &format!("the label {}", code(key)),
            value.span(),
            string(value),
        )?;
        Some((key.to_owned(), text.to_owned()))
    };
    fields.free().into_iter().filter_map(label).collect()
}

/// Two entries for one place would get twice the share that anybody sees in the file; two of one name could not be told apart.
fn refuse_duplicates(all: &[Found], fields: &Fields<'_>) {
    let mut places = HashMap::new();
    let mut names = HashMap::new();
    for second in all {
        let same_place = places.insert(&second.place, second);
        let same_name = names.insert(&second.server.name, second);
        let (first, what, help) = if let Some(first) = same_place {
            let help = "list it once; for a larger share of the requests give it a `weight`";
            (
                first,
                format!("the address {}", code(&second.server.address)),
                help,
            )
        } else if let Some(first) = same_name {
            (
                first,
                format!("the name {}", code(&second.server.name)),
                "give each its own `name`",
            )
        } else {
            continue;
        };
        let mistake = Mistake::new(format!("two servers of {} have {what}", fields.title()))
            .at(second.span.clone(), "the second one")
            .also(first.span.clone(), "the first one");
        fields.mistakes.add(mistake.help(help));
    }
}
