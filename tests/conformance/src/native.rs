//! A policy as native code, in the SDK's simulated host: no WebAssembly toolchain, no sandbox.

use std::{
    any::Any,
    cell::Cell,
    marker::PhantomData,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use waypost_plugin::{
    Backend, BackendId, Outcome, Policy,
    simulation::{Shard, Simulation},
    testing::{TestRequest, TestResponse},
};

use crate::subject::{
    About, Broken, Host, Live, Picked, Request, Responded, Response, Started, Subject,
};

/// A policy type.
#[derive(Debug)]
pub struct Native<P> {
    about: About,
    policy: PhantomData<P>,
}

impl<P: Policy> Native<P> {
    /// The policy under this name and version.
    pub fn new(name: &str, version: &str) -> Self {
        let promises = P::PROMISES.iter().map(|promise| promise.name().into());
        let about = About {
            name: name.into(),
            version: version.into(),
            promises: promises.collect(),
            ..About::default()
        };
        Native {
            about,
            policy: PhantomData,
        }
    }
}

impl<P: Policy> Subject for Native<P> {
    fn about(&self) -> &About {
        &self.about
    }

    fn host(&self) -> Box<dyn Host + '_> {
        Box::new(NativeHost::<P>::default())
    }

    fn metered(&self) -> Result<Box<dyn Host + '_>, String> {
        Err("native code is not metered; `waypost plugin test` is for what is built".into())
    }
}

/// Shards that share a simulation.
struct NativeHost<P> {
    simulation: Simulation,
    backends: Vec<Backend>,
    live: Vec<(BackendId, Live)>,
    /// Goes up with each new set of backends.
    edition: u64,
    ticket: u64,
    shards: Vec<Seat<P>>,
}

struct Seat<P> {
    shard: Shard<P>,
    /// The edition that it was last told of.
    told: u64,
}

impl<P> Default for NativeHost<P> {
    fn default() -> Self {
        NativeHost {
            simulation: Simulation::new(),
            backends: Vec::new(),
            live: Vec::new(),
            edition: 1,
            ticket: 0,
            shards: Vec::new(),
        }
    }
}

impl<P: Policy> NativeHost<P> {
    /// The shard, which knows of the backends.
    fn ready(&mut self, shard: usize) -> Result<&mut Shard<P>, Broken> {
        let seat = &mut self.shards[shard];
        if seat.told != self.edition {
            seat.told = self.edition;
            let backends = self.backends.clone();
            guarded(|| seat.shard.update(backends))?;
        }
        Ok(&mut seat.shard)
    }
}

impl<P: Policy> Host for NativeHost<P> {
    fn set_backends(&mut self, backends: &[Backend]) {
        let known = |id| self.live.iter().find(|(known, _)| *known == id);
        let live = backends.iter().map(|backend| {
            known(backend.id)
                .copied()
                .unwrap_or((backend.id, Live::default()))
        });
        self.live = live.collect();
        self.simulation.set_all_live(self.live.iter().copied());
        self.backends = backends.to_vec();
        self.edition += 1;
    }

    fn set_live(&mut self, backend: BackendId, live: Live) {
        let position = self.live.iter().position(|(id, _)| *id == backend);
        if let Some(position) = position {
            self.live[position].1 = live;
            self.simulation.set_live(position, live);
        }
    }

    fn set_now(&mut self, ns: u64) {
        self.simulation.set_now(ns);
    }

    fn set_random(&mut self, seed: u64) {
        self.simulation.set_random(seed);
    }

    fn set_ticket(&mut self, ticket: u64) {
        self.ticket = ticket;
    }

    fn start(&mut self, config: &str, state: Option<&[u8]>) -> Result<Started, Broken> {
        let configure = || Shard::<P>::configure(&self.simulation, config);
        let mut shard = guarded(configure)?.map_err(Broken::Settings)?;
        let mut refused = None;
        if let Some(state) = state {
            refused = guarded(|| shard.restore(state))?.err();
        }
        if refused.is_some() {
            // As in the real host: what has refused a state is not used.
            shard = guarded(configure)?.map_err(Broken::Settings)?;
        }
        self.shards.push(Seat { shard, told: 0 });
        Ok(Started {
            shard: self.shards.len() - 1,
            refused,
        })
    }

    fn pick(&mut self, shard: usize, request: &Request) -> Result<Picked, Broken> {
        let ticket = self.ticket;
        let shard = self.ready(shard)?;
        let (verdict, doings) = guarded(|| shard.pick(&test_request(request), ticket))?;
        self.ticket = ticket.wrapping_add(1);
        Ok(Picked {
            verdict,
            edits: doings.edits,
            refused: doings.refused,
            log: doings.log,
            asked: doings.asked,
            fuel: None,
        })
    }

    fn observe(&mut self, shard: usize, outcomes: &[Outcome]) -> Result<(), Broken> {
        let shard = self.ready(shard)?;
        guarded(|| shard.observe(outcomes)).map(|_| ())
    }

    fn respond(
        &mut self,
        shard: usize,
        backend: BackendId,
        response: &Response,
    ) -> Result<Responded, Broken> {
        let shard = self.ready(shard)?;
        let doings = guarded(|| shard.respond(backend, &test_response(response)))?;
        Ok(Responded {
            edits: doings.edits,
            refused: doings.refused,
        })
    }

    fn save(&mut self, shard: usize) -> Result<Option<Vec<u8>>, Broken> {
        let shard = self.ready(shard)?;
        guarded(|| shard.save()).map(Some)
    }

    fn memory(&mut self, _shard: usize) -> Option<usize> {
        None
    }
}

fn test_request(request: &Request) -> TestRequest {
    let made = TestRequest::new(&request.method, &request.target)
        .scheme(&request.scheme)
        .authority(&request.authority)
        .client_address(&request.client)
        .tried(request.tried.iter().copied());
    let lines = request.fields.iter();
    lines.fold(made, |made, (name, value)| made.header(name, value))
}

fn test_response(response: &Response) -> TestResponse {
    let lines = response.fields.iter();
    let made = TestResponse::new(response.status);
    lines.fold(made, |made, (name, value)| made.header(name, value))
}

thread_local! {
    /// A panic is what is being looked for: it is a verdict, and no news for standard error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a policy's code; a panic in it is an error.
fn guarded<R>(f: impl FnOnce() -> R) -> Result<R, Broken> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    QUIET.set(false);
    result.map_err(|panic| Broken::Crash(format!("panicked: {}", words(panic.as_ref()))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a word".into())
}
