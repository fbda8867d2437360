//! How long a backend takes to answer: a moving average for the policies, a histogram for people.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The newest sample counts for 1/16 of the average: steady within some 40 samples.
const SHIFT: u32 = 4;
/// Eight buckets for each power of two of microseconds: 12.5 % wide, up to 2^28 us (4.5 minutes).
const SUB_BUCKETS: u32 = 8;
const BUCKETS: usize = 28 * SUB_BUCKETS as usize;
const MILLION: u32 = 1_000_000;

/// Times to the response head, and the share of attempts that had none.
#[derive(Debug)]
pub(crate) struct Latency {
    average_us: AtomicU32,
    error_ppm: AtomicU32,
    histogram: [AtomicU64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Latency {
            average_us: AtomicU32::new(0),
            error_ppm: AtomicU32::new(0),
            histogram: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Latency {
    /// Takes note of a response head after `elapsed`.
    pub(crate) fn note_response(&self, elapsed: Duration) {
        let us = u32::try_from(elapsed.as_micros())
            .unwrap_or(u32::MAX)
            .max(1);
        // Shards may lose each other's sample here; an average survives that, and a lock would cost more than it is worth.
        let average = self.average_us.load(Ordering::Relaxed);
        let next = if average == 0 {
            us
        } else {
            toward(average, us)
        };
        self.average_us.store(next.max(1), Ordering::Relaxed);
        self.error_ppm.store(
            toward(self.error_ppm.load(Ordering::Relaxed), 0),
            Ordering::Relaxed,
        );
        if let Some(bucket) = self.histogram.get(bucket_of(us)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes note of an attempt without a response.
    pub(crate) fn note_error(&self) {
        self.error_ppm.store(
            toward(self.error_ppm.load(Ordering::Relaxed), MILLION),
            Ordering::Relaxed,
        );
    }

    /// Sets both averages, for those who make up what happens.
    pub(crate) fn set(&self, average_us: u32, error_ppm: u32) {
        self.average_us.store(average_us, Ordering::Relaxed);
        self.error_ppm.store(error_ppm, Ordering::Relaxed);
    }

    /// Moving average in microseconds; 0 before the first response.
    pub(crate) fn average_us(&self) -> u32 {
        self.average_us.load(Ordering::Relaxed)
    }

    /// Moving share of failed attempts, in parts per million.
    pub(crate) fn error_ppm(&self) -> u32 {
        self.error_ppm.load(Ordering::Relaxed)
    }

    /// The upper bounds below which the given shares (0.0 to 1.0) of all responses lie; `None` before the first.
    pub(crate) fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[Duration; N]> {
        let counts: Vec<u64> = self
            .histogram
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        (total > 0).then(|| shares.map(|share| quantile(&counts, total, share)))
    }
}

/// One step of the moving average.
fn toward(average: u32, sample: u32) -> u32 {
    let step = (i64::from(sample) - i64::from(average)) >> SHIFT;
    u32::try_from(i64::from(average) + step).unwrap_or(0)
}

fn bucket_of(us: u32) -> usize {
    let power = us.max(1).ilog2();
    let sub = if power >= 3 {
        (us >> (power - 3)) & (SUB_BUCKETS - 1)
    } else {
        (us << (3 - power)) & (SUB_BUCKETS - 1)
    };
    ((power * SUB_BUCKETS + sub) as usize).min(BUCKETS - 1)
}

/// The first microsecond that no longer falls into the bucket.
fn upper_bound_us(bucket: usize) -> u64 {
    let (power, sub) = (
        bucket as u64 / u64::from(SUB_BUCKETS),
        bucket as u64 % u64::from(SUB_BUCKETS),
    );
    ((1 << power) * (u64::from(SUB_BUCKETS) + sub + 1)).div_ceil(u64::from(SUB_BUCKETS))
}

fn quantile(counts: &[u64], total: u64, share: f64) -> Duration {
    let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    Duration::from_micros(upper_bound_us(bucket.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        for us in (1..5_000).chain([1 << 20, (1 << 27) + 1]) {
            let bucket = bucket_of(us);
            assert!(u64::from(us) <= upper_bound_us(bucket), "{us} in {bucket}");
            assert!(
                upper_bound_us(bucket) <= u64::from(us) * 9 / 8 + 1,
                "{us} in {bucket}"
            );
        }
        assert_eq!(bucket_of(u32::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_follow_the_samples() {
        let latency = Latency::default();
        assert_eq!(latency.quantiles([0.5]), None);
        for ms in 1..=100 {
            latency.note_response(Duration::from_millis(ms));
        }
        let [p50, p99] = latency.quantiles([0.5, 0.99]).unwrap();
        assert!((50..=57).contains(&p50.as_millis()), "{p50:?}");
        assert!((99..=112).contains(&p99.as_millis()), "{p99:?}");
    }

    #[test]
    fn averages_settle() {
        let latency = Latency::default();
        latency.note_response(Duration::from_millis(10));
        assert_eq!(latency.average_us(), 10_000);
        for _ in 0..200 {
            latency.note_response(Duration::from_millis(1));
        }
        assert!(
            (1_000..1_100).contains(&latency.average_us()),
            "{}",
            latency.average_us()
        );
        for _ in 0..200 {
            latency.note_error();
        }
        assert!(latency.error_ppm() > 990_000, "{}", latency.error_ppm());
    }
}
