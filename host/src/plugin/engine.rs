//! The one wasmtime engine of the process, and the thread that keeps its time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Inlining, OptLevel, Store};

use super::bindings::Policy;
use super::cache::{Cache, Key};
use super::deadline;
use super::precompiled::MachineCode;
use super::state::Guest;
use crate::config;

/// How often calls that are still running are looked at. Half the default deadline: waking up costs 22 us of a
/// processor that is busy with requests, 2 % of it at one tick a millisecond.
const TICK: Duration = Duration::from_micros(2_500);

/// Enough for deep recursion in a policy, little enough for any thread that runs one (theirs have 2 MiB).
const STACK_BYTES: usize = 256 * 1024;

/// Compiles policies and links them to the host's side of the contract.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) linker: Arc<Linker<Guest>>,
    cache: Option<Arc<Cache>>,
    compiling: Arc<Mutex<()>>,
    /// What `wasmtime` was made with.
    config: Config,
    metered: bool,
    _ticker: Arc<Ticker>,
}

impl Engine {
    /// # Errors
    /// Where this machine cannot run wasmtime, or no thread can be started.
    pub(crate) fn new() -> anyhow::Result<Engine> {
        Engine::with(config(), false)
    }

    /// An engine that counts instructions, which makes them dearer.
    ///
    /// # Errors
    /// As those of [`Engine::new`].
    pub(crate) fn metered() -> anyhow::Result<Engine> {
        let mut config = config();
        config.consume_fuel(true);
        Engine::with(config, true)
    }

    fn with(config: Config, metered: bool) -> anyhow::Result<Engine> {
        // wasmtime has an error type of its own, which does not leave this module.
        let broken =
            |error: wasmtime::Error| anyhow::anyhow!("cannot run WebAssembly here: {error:#}");
        let engine = wasmtime::Engine::new(&config).map_err(broken)?;
        let mut linker = Linker::new(&engine);
        Policy::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest).map_err(broken)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Engine {
            wasmtime: engine,
            linker: Arc::new(linker),
            cache: None,
            compiling: Arc::default(),
            config,
            metered,
            _ticker: Arc::new(ticker),
        })
    }

    /// The same engine, which keeps compiled code where the configuration says.
    pub(crate) fn caching(&self, settings: &config::Cache) -> Engine {
        Engine {
            cache: Cache::new(settings).map(Arc::new),
            ..self.clone()
        }
    }

    /// What was compiled of a policy's bytes before; `digest` is theirs.
    pub(super) fn kept(&self, digest: &str) -> Option<Component> {
        let cache = self.cache.as_ref()?;
        let code = cache.load(Key::new(&self.wasmtime, digest))?;
        code.component(&self.wasmtime).ok()
    }

    /// Keeps what was compiled of a policy's bytes.
    pub(super) fn keep(&self, digest: &str, code: &MachineCode) {
        if let Some(cache) = &self.cache {
            cache.store(Key::new(&self.wasmtime, digest), code.bytes());
        }
    }

    /// Where an instance lives: within its limits, watched, and with all the fuel there is where that is counted.
    pub(super) fn store(&self, guest: Guest) -> Store<Guest> {
        let mut store = Store::new(&self.wasmtime, guest);
        store.limiter(|guest| &mut guest.limits);
        deadline::watch(&mut store);
        if self.metered {
            // Fails only where fuel is not counted.
            let _ = store.set_fuel(u64::MAX);
        }
        store
    }

    /// Compiles a component, to be run by this engine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn compile(&self, component: &[u8]) -> wasmtime::Result<MachineCode> {
        MachineCode::compile(&self.config, component)
    }

    /// Waits until nobody else compiles.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.compiling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Each setting that differs from wasmtime's default, and why.
fn config() -> Config {
    let mut config = Config::new();
    // A policy's call is synchronous; support for concurrent ones makes each four times as expensive.
    config.concurrency_support(false);
    config.wasm_component_model(true);
    config.epoch_interruption(true);
    config.max_wasm_stack(STACK_BYTES);
    config.cranelift_opt_level(OptLevel::Speed);
    // What is built for release is inlined already: to do it again makes compiling take three times as long, and a pick
    // of `least-conn` 30 ns cheaper.
    config.compiler_inlining(Inlining::No);
    // The base of a memory that never moves is loaded once per function.
    config.memory_may_move(false);
    // What no policy needs is not offered: less to attack, and 32-bit memories bound every bulk operation.
    config.wasm_memory64(false);
    config.wasm_multi_memory(false);
    config
}

/// Advances the engine's epoch every [`TICK`] until it is dropped.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine) -> std::io::Result<Ticker> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // A thread and not a task: a task would wait for the very calls it is to interrupt.
        let thread = std::thread::Builder::new()
            .name("waypost-ticker".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(TICK);
                    engine.increment_epoch();
                }
            })?;
        Ok(Ticker {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
