//! Reads three fields of a request, sets two, and sends it to the next server: what `../peers` does in Lua and
//! `../envoy-filter` in proxy-wasm.

use waypost_plugin::{BackendId, Backends, Pick, Policy, Request, export_policy};

#[derive(Default)]
struct Edits {
    ids: Vec<BackendId>,
}

impl Policy for Edits {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Edits::default())
    }

    fn update(&mut self, backends: &Backends) {
        self.ids = backends.healthy().map(|backend| backend.id).collect();
    }

    fn pick(&mut self, request: &Request, _: &Backends) -> Pick {
        let read = |name| request.header(name).unwrap_or_default();
        let (tenant, plan, agent) = (read("x-tenant"), read("x-plan"), read("user-agent"));
        request.set_header("x-route", format!("{tenant}/{plan}"));
        let client = if agent.contains("Mobile") { "mobile" } else { "desktop" };
        request.set_header("x-client", client);
        let turns = self.ids.len().max(1) as u64;
        let turn = (request.ticket() % turns) as usize;
        self.ids.get(turn).map_or(Pick::Unavailable, |id| Pick::forward(*id))
    }
}

export_policy!(Edits);
