//! Clocks. Only event loops read them, once per wake-up; everything else is told the time.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`; comparable between processes of one boot.
pub type Nanos = u64;

pub const SECOND: Nanos = 1_000_000_000;
pub const MILLISECOND: Nanos = 1_000_000;

fn read(clock: ClockId) -> Nanos {
    let now = clock_gettime(clock).expect("the clock is one every kernel has");
    now.tv_sec() as u64 * SECOND + now.tv_nsec() as u64
}

/// A duration in our unit; the longest ones are cut so that sums with a time do not overflow.
pub fn nanos(duration: std::time::Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).map_or(Nanos::MAX / 4, |n| n.min(Nanos::MAX / 4))
}

pub fn now() -> Nanos {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Seconds since the epoch, accurate to one tick: good for `Date` and log lines.
pub fn unix_seconds() -> u64 {
    read(ClockId::CLOCK_REALTIME_COARSE) / SECOND
}

/// Nanoseconds since 1970-01-01 00:00 UTC.
pub fn unix_nanos() -> Nanos {
    read(ClockId::CLOCK_REALTIME)
}

/// For people and JSON.
pub fn seconds(duration: Nanos) -> f64 {
    duration as f64 / SECOND as f64
}

/// What is to be added to a time of [`now`] for one since the epoch.
pub fn unix_offset() -> Nanos {
    read(ClockId::CLOCK_REALTIME).saturating_sub(now())
}

/// A wait in milliseconds for `epoll_wait(2)` or `poll(2)`, rounded up so that a wait shorter than
/// a millisecond does not become a busy loop. `None` waits for ever.
pub fn wait_millis(now: Nanos, until: Option<Nanos>) -> i32 {
    match until {
        None => -1,
        Some(until) => {
            let left = until.saturating_sub(now).div_ceil(MILLISECOND);
            i32::try_from(left).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_and_never_negative() {
        assert_eq!(wait_millis(10, None), -1);
        assert_eq!(wait_millis(10, Some(5)), 0);
        assert_eq!(wait_millis(0, Some(1)), 1);
        assert_eq!(wait_millis(0, Some(MILLISECOND)), 1);
        assert_eq!(wait_millis(0, Some(u64::MAX)), i32::MAX);
    }
}
