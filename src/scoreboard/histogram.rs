//! A histogram of durations with four buckets per power of two: about 19 % resolution from a
//! microsecond to over an hour in a fixed number of cells, without floating point.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::clock::Nanos;

const STEPS: usize = 4;
/// 2^10 ns (1.02 µs) is the end of the first bucket, 2^42 ns (73 min) the start of the last.
const LOWEST: u32 = 10;
const HIGHEST: u32 = 42;
pub const BUCKETS: usize = (HIGHEST - LOWEST) as usize * STEPS + 2;

/// One writer, any number of readers.
#[repr(C)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

fn bucket(duration: Nanos) -> usize {
    if duration < 1 << LOWEST {
        return 0;
    }
    let exponent = duration.ilog2();
    if exponent >= HIGHEST {
        return BUCKETS - 1;
    }
    let step = (duration >> (exponent - 2)) as usize & (STEPS - 1);
    (exponent - LOWEST) as usize * STEPS + step + 1
}

/// Durations in this bucket are shorter; `None` for the last one.
fn end(bucket: usize) -> Option<Nanos> {
    let exponent = LOWEST + (bucket / STEPS) as u32;
    let step = (bucket % STEPS) as u64;
    (bucket < BUCKETS - 1).then(|| (1 << exponent) + (step << (exponent - 2)))
}

impl Histogram {
    pub fn record(&self, duration: Nanos) {
        add(&self.buckets[bucket(duration)], 1);
        add(&self.sum, duration);
        if duration > self.max.load(Ordering::Relaxed) {
            self.max.store(duration, Ordering::Relaxed);
        }
    }
}

/// Adds without a locked instruction: the cell has one writer.
pub(super) fn add(cell: &AtomicU64, n: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

/// Histograms added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durations {
    buckets: [u64; BUCKETS],
    sum: Nanos,
    max: Nanos,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum: 0,
            max: 0,
        }
    }
}

impl Durations {
    pub fn add(&mut self, histogram: &Histogram) {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        for (sum, cell) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum = sum.wrapping_add(read(cell));
        }
        self.sum = self.sum.wrapping_add(read(&histogram.sum));
        self.max = self.max.max(read(&histogram.max));
    }

    pub fn merge(&mut self, other: &Durations) {
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.wrapping_add(*more);
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        let count = |sum: u64, more: &u64| sum.wrapping_add(*more);
        self.buckets.iter().fold(0, count)
    }

    pub fn sum(&self) -> Nanos {
        self.sum
    }

    pub fn max(&self) -> Option<Nanos> {
        (self.count() > 0).then_some(self.max)
    }

    /// So many hundredths of all durations are shorter than this, or the longest is.
    pub fn percentile(&self, hundredths: u64) -> Option<Nanos> {
        let count = u128::from(self.count());
        let rank = (count * u128::from(hundredths)).div_ceil(100).max(1);
        let mut seen = 0;
        let found = (0..BUCKETS).find(|bucket| {
            seen += u128::from(self.buckets[*bucket]);
            seen >= rank
        })?;
        Some(end(found).map_or(self.max, |end| end.min(self.max)))
    }

    /// The end of each bucket (`None` for the last) and the number of durations in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Nanos>, u64)> + '_ {
        let buckets = self.buckets.iter().enumerate();
        buckets.map(|(index, count)| (end(index), *count))
    }

    /// By name, for a program of another version.
    pub(super) fn names<'a>(&'a self, of: &'a str) -> impl Iterator<Item = (String, u64)> + 'a {
        let counts = self.buckets.iter().enumerate();
        counts
            .filter(|(_, count)| **count > 0)
            .map(move |(index, count)| (format!("{of} {index}"), *count))
            .chain([
                (format!("{of} sum"), self.sum),
                (format!("{of} max"), self.max),
            ])
    }

    pub(super) fn from_names(value: impl Fn(&str) -> u64, of: &str) -> Self {
        Self {
            buckets: std::array::from_fn(|index| value(&format!("{of} {index}"))),
            sum: value(&format!("{of} sum")),
            max: value(&format!("{of} max")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::{MILLISECOND, SECOND};

    fn empty() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }

    #[test]
    fn buckets_are_in_order_and_inside_the_table() {
        let mut last = 0;
        for exponent in 0..64 {
            for eighth in 0..8u64 {
                let duration = (1u64 << exponent) + eighth * ((1u64 << exponent) / 8);
                let at = bucket(duration);
                assert!(at >= last && at < BUCKETS, "{duration} -> {at}");
                last = at;
            }
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(1023), 0);
        assert_eq!(bucket(1024), 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for index in 0..BUCKETS - 1 {
            let end = end(index).unwrap();
            assert_eq!((bucket(end - 1), bucket(end)), (index, index + 1));
        }
        assert_eq!(end(BUCKETS - 1), None);
    }

    #[test]
    fn percentiles_are_upper_bounds_and_close() {
        let histogram = empty();
        for n in 1..=1000 {
            histogram.record(n * MILLISECOND);
        }
        let mut durations = Durations::default();
        assert_eq!((durations.percentile(50), durations.max()), (None, None));
        durations.add(&histogram);
        assert_eq!(durations.count(), 1000);
        assert_eq!(durations.max(), Some(SECOND));
        for hundredths in [1, 50, 90, 99, 100] {
            let exact = hundredths * 10 * MILLISECOND;
            let found = durations.percentile(hundredths).unwrap();
            assert!(
                found >= exact && found <= exact + exact / 4 + 1,
                "p{hundredths}: {found} instead of {exact}"
            );
        }
        let mut both = durations.clone();
        both.merge(&durations);
        assert_eq!(both.count(), 2000);
        assert_eq!(both.percentile(50), durations.percentile(50));
        assert_eq!(both.buckets().map(|(_, count)| count).sum::<u64>(), 2000);
    }

    #[test]
    fn numbers_of_a_stranger_do_not_overflow() {
        let histogram = empty();
        for cell in &histogram.buckets {
            cell.store(u64::MAX, Ordering::Relaxed);
        }
        let mut durations = Durations::default();
        durations.add(&histogram);
        durations.add(&histogram);
        let _ = (durations.count(), durations.percentile(99));
    }
}
