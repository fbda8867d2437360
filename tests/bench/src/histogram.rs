//! Counts of durations, exact to 1/64 of their size, in a fixed amount of memory.

use std::time::Duration;

/// Steps between one power of two and the next.
const STEPS: u32 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Up to 2^40 ns, some 18 minutes. Whatever takes longer counts as that.
const POWERS: u32 = 40;

/// How often each duration came up.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            counts: vec![0; (STEPS * (POWERS - STEP_BITS + 1)) as usize],
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(position(nanos)) {
            *count += 1;
            self.total += 1;
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The duration that `share` of all do not exceed, `share` from 0 to 1. Zero if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Duration::from_nanos(found.map_or(0, upper_end))
    }
}

/// Below 2 * STEPS one position per nanosecond, above it STEPS positions per power of two.
fn position(nanos: u64) -> usize {
    let nanos = nanos.min((1 << POWERS) - 1);
    let power = u64::BITS - nanos.leading_zeros();
    let shift = power.saturating_sub(STEP_BITS + 1);
    (u64::from(shift * STEPS) + (nanos >> shift)) as usize
}

/// The largest duration that is counted at a position.
fn upper_end(position: usize) -> u64 {
    let steps = STEPS as usize;
    let shift = (position / steps).saturating_sub(1);
    let low = (position - shift * steps) as u64;
    ((low + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_counted_within_a_64th() {
        for power in 0..40 {
            for extra in [0, 1, 3] {
                let nanos = (1_u64 << power) + (extra << power) / 7;
                let end = upper_end(position(nanos));
                assert!(end >= nanos && end - nanos <= nanos / 64, "{nanos}: {end}");
            }
        }
        assert_eq!(position(u64::MAX), position((1 << POWERS) - 1));
        assert!(position(u64::MAX) < Histogram::default().counts.len());
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        for nanos in 1..=100 {
            histogram.record(Duration::from_nanos(nanos));
        }
        for (share, nanos) in [(0.0, 1), (0.01, 1), (0.5, 50), (0.99, 99), (1.0, 100)] {
            assert_eq!(histogram.quantile(share), Duration::from_nanos(nanos));
        }
        histogram.clear();
        assert_eq!(histogram.quantile(1.0), Duration::ZERO);
    }
}
