//! Reads three fields of a request, sets two, and sends it to the next server: what `../peers` does in Lua and
//! `../envoy-filter` in proxy-wasm. With settings it does less, which shows what each costs.

use serde::Deserialize;
use waypost_plugin::{BackendId, Backends, Pick, Policy, Request, export_policy};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// How many fields are read, at most 3.
    reads: usize,
    /// How many are set, at most 2.
    edits: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { reads: 3, edits: 2 }
    }
}

struct Edits {
    settings: Settings,
    ids: Vec<BackendId>,
}

impl Policy for Edits {
    type Config = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Edits { settings, ids: Vec::new() })
    }

    fn update(&mut self, backends: &Backends) {
        self.ids = backends.healthy().map(|backend| backend.id).collect();
    }

    fn pick(&mut self, request: &Request, _: &Backends) -> Pick {
        let Settings { reads, edits } = self.settings;
        let read = |place, name| match place < reads {
            true => request.header(name).unwrap_or_default(),
            false => String::new(),
        };
        let (tenant, plan, agent) = (read(0, "x-tenant"), read(1, "x-plan"), read(2, "user-agent"));
        if edits > 0 {
            request.set_header("x-route", format!("{tenant}/{plan}"));
        }
        if edits > 1 {
            let client = if agent.contains("Mobile") { "mobile" } else { "desktop" };
            request.set_header("x-client", client);
        }
        let turns = self.ids.len().max(1) as u64;
        let turn = (request.ticket() % turns) as usize;
        self.ids.get(turn).map_or(Pick::Unavailable, |id| Pick::forward(*id))
    }
}

export_policy!(Edits);
