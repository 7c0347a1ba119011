//! How long to wait before trying again what has failed.

#![forbid(unsafe_code)]

/// Nanoseconds of any monotonic clock.
pub type Nanos = u64;

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLISECOND;

/// The first delay; each further failure doubles it.
const FIRST: Nanos = 100 * MILLISECOND;
const LONGEST: Nanos = 30 * SECOND;
/// What has worked this long has not failed.
pub const STABLE: Nanos = 10 * SECOND;

/// Exponential back-off from 0.1 s to 30 s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and tells how long to wait after it.
    pub fn fail(&mut self) -> Nanos {
        let delay = FIRST << self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        delay.min(LONGEST)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_half_a_minute_and_starts_again_after_a_reset() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..10).map(|_| backoff.fail() / MILLISECOND).collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000];
        assert_eq!(delays, expected);
        for _ in 0..100 {
            assert_eq!(backoff.fail(), LONGEST);
        }
        backoff.reset();
        assert_eq!(backoff.fail(), FIRST);
    }
}
