//! Compiled code becomes a component again: the one unsafe call of this program.

#![expect(
    unsafe_code,
    reason = "wasmtime cannot check machine code; the cache only hands out what it wrote itself"
)]

use wasmtime::Engine;
use wasmtime::component::Component;

use super::cache::Code;

/// `None` where it was compiled by another wasmtime, with other settings or for another processor.
pub(super) fn component(engine: &Engine, code: &Code) -> Option<Component> {
    // SAFETY: the bytes must be what `Component::serialize` returned, of whichever version. `Code` is only ever made
    // by `Cache::load`. It reads a file that the user of this process owns and nobody else can write, in a directory
    // of which the same holds, so that it was this program that wrote it, with bytes from `Component::serialize`. It
    // compares them with the digest written along with them, so that they are whole. They are in our memory before
    // that, and not mapped from the file, so that they cannot change after it. Whoever can get around this runs as
    // the same user, and can do all that this process can anyway.
    unsafe { Component::deserialize(engine, code.bytes()) }.ok()
}
