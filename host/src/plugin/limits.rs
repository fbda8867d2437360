//! What one instance may take, and what it has taken.

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

/// Elements of all tables of one instance.
const TABLE_ELEMENTS_MAX: usize = 20_000;

/// The limits of an instance. Its memory never shrinks, so the last size granted is what it has.
#[derive(Debug)]
pub(super) struct Limits {
    allowed: StoreLimits,
    /// Bytes of linear memory.
    pub(super) memory: usize,
}

impl Limits {
    /// At most this many bytes of linear memory.
    pub(super) fn new(memory_max: usize) -> Limits {
        let allowed = StoreLimitsBuilder::new()
            .memory_size(memory_max)
            .table_elements(TABLE_ELEMENTS_MAX)
            .memories(1)
            .tables(4)
            .instances(16)
            .build();
        Limits { allowed, memory: 0 }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = self.allowed.memory_growing(current, desired, maximum)?;
        if granted {
            self.memory = desired;
        }
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.allowed.memory_grow_failed(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.allowed.table_growing(current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.allowed.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.allowed.instances()
    }

    fn tables(&self) -> usize {
        self.allowed.tables()
    }

    fn memories(&self) -> usize {
        self.allowed.memories()
    }
}
