//! From a component to machine code, and from machine code back to a component: the one unsafe call of this program.

#![expect(
    unsafe_code,
    reason = "wasmtime cannot check machine code; only what this program made gets here"
)]

use wasmtime::component::Component;
use wasmtime::{Config, Engine};

/// Machine code that this program made: just now, or earlier, from where the cache kept it.
pub(super) struct MachineCode {
    bytes: Vec<u8>,
    /// The code begins here.
    start: usize,
}

impl MachineCode {
    /// Compiles a component for engines of this configuration.
    ///
    /// # Errors
    /// What is wrong with it, or with this machine.
    pub(super) fn compile(config: &Config, component: &[u8]) -> wasmtime::Result<MachineCode> {
        // An engine never gives back what its compiler has once needed, which for some components is hundreds of
        // megabytes. So this one ends here.
        let compiler = Engine::new(config)?;
        let bytes = compiler.precompile_component(component)?;
        Ok(MachineCode { bytes, start: 0 })
    }

    /// From an entry of the cache, of which the code is what begins at `start`. Only for the cache, which has made sure
    /// of what [`MachineCode::component`] says about it.
    pub(super) fn kept(entry: Vec<u8>, start: usize) -> MachineCode {
        MachineCode {
            bytes: entry,
            start,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// # Errors
    /// Where it was compiled by another wasmtime, with other settings or for another processor.
    pub(super) fn component(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes must be what wasmtime made of a component, of whichever version. There are two ways to
        // `MachineCode`. `compile` has them from wasmtime. `kept` has them from `Cache::load`, which reads a file that
        // the user of this process owns and nobody else can write, in a directory of which the same holds, so that it
        // was this program that wrote it, with bytes that `compile` made. It compares them with the digest written
        // along with them, so that they are whole. They are in our memory before that, and not mapped from the file,
        // so that they cannot change after it. Whoever can get around this runs as the same user, and can do all that
        // this process can anyway.
        unsafe { Component::deserialize(engine, self.bytes()) }
    }
}
