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

impl Histogram {
    pub fn record(&self, duration: Nanos) {
        add(&self.buckets[bucket(duration)], 1);
        add(&self.sum, duration);
    }

    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    pub fn sum(&self) -> Nanos {
        self.sum.load(Ordering::Relaxed)
    }
}

/// Adds without a locked instruction: the cell has one writer.
pub(super) fn add(cell: &AtomicU64, n: u64) {
    cell.store(
        cell.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
