//! What an instance may take of the host's memory, and what it has taken.

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

/// Elements of all tables of one instance.
const TABLE_ELEMENTS_MAX: usize = 20_000;

/// The limits of one instance.
pub(super) struct Limits {
    limits: StoreLimits,
    /// Bytes of its linear memory.
    pub(super) memory: usize,
}

impl Limits {
    pub(super) fn new(memory_max: usize) -> Limits {
        let limits = StoreLimitsBuilder::new()
            .memory_size(memory_max)
            .table_elements(TABLE_ELEMENTS_MAX)
            .memories(1)
            .tables(4)
            .instances(16)
            .build();
        Limits { limits, memory: 0 }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = self.limits.memory_growing(current, desired, maximum)?;
        if granted {
            self.memory = desired;
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}
