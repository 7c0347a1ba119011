//! How many requests were completed in each of the last seconds. The workers note it themselves, so
//! that rates are known at the first question without anybody waking up every second.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::clock::{Nanos, SECOND};

/// More than the five minutes that are asked for.
const SECONDS: usize = 304;

/// One writer, any number of readers.
#[repr(C)]
pub struct Seconds {
    /// The second (of the monotonic clock) that was written last.
    last: AtomicU64,
    counts: [AtomicU32; SECONDS],
}

fn place(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

impl Seconds {
    pub fn record(&self, now: Nanos) {
        let second = now / SECOND;
        if self.last.load(Ordering::Relaxed) != second {
            self.turn(second);
        }
        let cell = &self.counts[place(second)];
        let count = cell.load(Ordering::Relaxed).wrapping_add(1);
        cell.store(count, Ordering::Relaxed);
    }

    /// Another second has begun: those in which nothing happened are cleared, too.
    #[cold]
    fn turn(&self, second: u64) {
        let last = self.last.load(Ordering::Relaxed);
        let missed = second.saturating_sub(last).min(SECONDS as u64);
        for back in 0..missed {
            self.counts[place(second - back)].store(0, Ordering::Relaxed);
        }
        self.last.store(second, Ordering::Relaxed);
    }
}

/// [`Seconds`] added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    last: u64,
    counts: [u64; SECONDS],
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            last: 0,
            counts: [0; SECONDS],
        }
    }
}

impl Recent {
    pub fn add(&mut self, seconds: &Seconds) {
        let last = seconds.last.load(Ordering::Relaxed);
        self.take(last, |place| {
            u64::from(seconds.counts[place].load(Ordering::Relaxed))
        });
    }

    pub fn merge(&mut self, other: &Recent) {
        self.take(other.last, |place| other.counts[place]);
    }

    fn take(&mut self, last: u64, count: impl Fn(usize) -> u64) {
        for second in (self.last.max(1)..=last).rev().take(SECONDS) {
            if second > self.last {
                self.counts[place(second)] = 0;
            }
        }
        self.last = self.last.max(last);
        for back in 0..SECONDS as u64 {
            // What is older here than there has been overwritten here.
            let Some(second) = last.checked_sub(back) else {
                break;
            };
            if second.saturating_add(SECONDS as u64) > self.last {
                let sum = &mut self.counts[place(second)];
                *sum = sum.wrapping_add(count(place(second)));
            }
        }
    }

    /// In each of the last `seconds` full seconds before `now`, the oldest first; at most 300.
    pub fn before(&self, now: Nanos, seconds: u64) -> Vec<u64> {
        let current = now / SECOND;
        let of = |second: u64| {
            let end = second.saturating_add(SECONDS as u64);
            let known = second <= self.last && end > self.last;
            if known { self.counts[place(second)] } else { 0 }
        };
        let backwards = (1..=seconds.min(300)).rev();
        let second = backwards.map(|back| current.checked_sub(back));
        second.map(|second| second.map_or(0, of)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds() -> Seconds {
        Seconds {
            last: AtomicU64::new(0),
            counts: [const { AtomicU32::new(0) }; SECONDS],
        }
    }

    fn of(list: &[&Seconds], now: u64, count: u64) -> Vec<u64> {
        let mut recent = Recent::default();
        list.iter().for_each(|seconds| recent.add(seconds));
        recent.before(now * SECOND, count)
    }

    #[test]
    fn each_second_is_counted_for_itself() {
        let one = seconds();
        for (second, times) in [(1000, 3), (1001, 1), (1004, 2)] {
            for n in 0..times {
                one.record(second * SECOND + n);
            }
        }
        assert_eq!(of(&[&one], 1005, 6), [0, 3, 1, 0, 0, 2]);
        // The current second is not over yet.
        assert_eq!(of(&[&one], 1004, 3), [1, 0, 0]);
        assert_eq!(of(&[&one], 1010, 3), [0, 0, 0]);
        assert_eq!(of(&[], 1010, 2), [0, 0]);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let one = seconds();
        one.record(1000 * SECOND);
        one.record((1000 + SECONDS as u64) * SECOND);
        let last = 1001 + SECONDS as u64;
        assert_eq!(of(&[&one], last, 300).iter().sum::<u64>(), 1);
        one.record(5000 * SECOND);
        assert_eq!(of(&[&one], 5001, 300).iter().sum::<u64>(), 1);
        assert_eq!(of(&[&one], 9000, 300).iter().sum::<u64>(), 0);
    }

    #[test]
    fn workers_of_different_age_are_added_up() {
        let (one, other, old) = (seconds(), seconds(), seconds());
        one.record(1000 * SECOND);
        other.record(1000 * SECOND);
        other.record(1003 * SECOND);
        old.record(10 * SECOND);
        let expected = [2, 0, 0, 1];
        assert_eq!(of(&[&one, &other, &old], 1004, 4), expected);
        assert_eq!(of(&[&other, &old, &one], 1004, 4), expected);
        assert_eq!(of(&[&old, &one, &other], 1004, 4), expected);
        let mut all = Recent::default();
        all.add(&one);
        let mut rest = Recent::default();
        rest.add(&other);
        all.merge(&rest);
        assert_eq!(all.before(1004 * SECOND, 4), expected);
    }

    #[test]
    fn a_clock_of_a_stranger_does_no_harm() {
        let strange = seconds();
        strange.last.store(u64::MAX, Ordering::Relaxed);
        let one = seconds();
        one.record(1000 * SECOND);
        assert_eq!(of(&[&one, &strange], 1001, 2), [0, 0]);
    }
}
