//! How much of the log of the server one of many apps may fill: beyond it lines are counted, not kept. Other apps
//! and the server itself are not to be lost among them, nor the disk full.

#![forbid(unsafe_code)]

use crate::sys::clock::{Nanos, SECOND};

/// At once, and per second in the long run: some 5 GiB a day.
const MOST: u64 = 256 << 10;
const PER_SECOND: u64 = 64 << 10;
/// Of an entry beside its text.
const HEAD: u64 = 96;

#[derive(Debug)]
pub struct Budget {
    left: u64,
    filled: Nanos,
    withheld: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: MOST,
            filled: 0,
            withheld: 0,
        }
    }
}

/// Whether there is room.
#[derive(Debug, PartialEq, Eq)]
pub enum Room {
    None,
    /// With the number of entries before it that had none.
    Some {
        withheld: u64,
    },
}

impl Budget {
    pub fn ask(&mut self, bytes: usize, now: Nanos) -> Room {
        let cost = (bytes as u64).saturating_add(HEAD).min(MOST);
        let passed = now.saturating_sub(self.filled);
        let more = (u128::from(passed) * u128::from(PER_SECOND) / u128::from(SECOND)) as u64;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(MOST);
            self.filled = now;
        }
        // One that had none waits until there is some to speak of, so that it is not told line by line.
        let needed = match self.withheld {
            0 => cost,
            _ => cost.max(PER_SECOND),
        };
        if self.left < needed {
            self.withheld += 1;
            return Room::None;
        }
        self.left -= cost;
        Room::Some {
            withheld: std::mem::take(&mut self.withheld),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_withheld_and_counted_and_who_is_quiet_again_is_heard() {
        let mut budget = Budget::default();
        let mut now = SECOND;
        let mut written = 0;
        for _ in 0..10_000 {
            if budget.ask(1000, now) != Room::None {
                written += 1000;
            }
            now += SECOND / 1000;
        }
        assert!(written as u64 <= MOST + 11 * PER_SECOND, "{written}");
        assert!(written as u64 >= MOST, "{written}");
        now += 10 * SECOND;
        let Room::Some { withheld } = budget.ask(10, now) else {
            panic!("it was quiet for ten seconds");
        };
        assert!(withheld > 0);
        assert_eq!(budget.ask(10, now), Room::Some { withheld: 0 });
        // The largest entry fits in, after a while.
        assert_ne!(budget.ask(usize::MAX, now + 100 * SECOND), Room::None);
    }
}
