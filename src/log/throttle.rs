//! How often something may be logged.

#![forbid(unsafe_code)]

use crate::sys::clock::{Nanos, SECOND};

/// At most so many entries per second about something that clients can cause at will.
#[derive(Debug, Default)]
pub struct Throttle {
    per_second: u32,
    window: Nanos,
    used: u32,
    withheld: u64,
}

/// Whether an entry may be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Allowed {
    No,
    /// With the number of entries withheld since the last one.
    Yes {
        withheld: u64,
    },
}

/// What is put behind an entry to say that others were withheld.
pub fn more_like_this(withheld: u64) -> String {
    match withheld {
        0 => String::new(),
        n => format!(" ({n} more like this were not logged)"),
    }
}

impl Throttle {
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            window: 0,
            used: 0,
            withheld: 0,
        }
    }

    pub fn ask(&mut self, now: Nanos) -> Allowed {
        if now >= self.window.saturating_add(SECOND) {
            self.window = now;
            self.used = 0;
        }
        if self.used == self.per_second {
            self.withheld += 1;
            return Allowed::No;
        }
        self.used += 1;
        Allowed::Yes {
            withheld: std::mem::take(&mut self.withheld),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_withholds_and_tells_how_many() {
        let mut throttle = Throttle::new(2);
        let start = 5 * SECOND;
        assert_eq!(throttle.ask(start), Allowed::Yes { withheld: 0 });
        assert_eq!(throttle.ask(start + 1), Allowed::Yes { withheld: 0 });
        assert_eq!(throttle.ask(start + 2), Allowed::No);
        assert_eq!(throttle.ask(start + 3), Allowed::No);
        let later = start + SECOND;
        assert_eq!(throttle.ask(later), Allowed::Yes { withheld: 2 });
        assert_eq!(throttle.ask(later), Allowed::Yes { withheld: 0 });
        assert_eq!(throttle.ask(later), Allowed::No);
    }
}
