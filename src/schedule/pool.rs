//! The pool of one generation: which slot gets a worker when, and when to give up.
//!
//! | slot     | ready   | ended                                          |
//! |----------|---------|------------------------------------------------|
//! | starting | serving | start failure: back-off, or give up            |
//! | serving  | -       | replace at once; with back-off in a crash loop |
//!
//! A crash loop is what begins when workers end within [`SHORT`] of becoming ready, more of them in a
//! row than there are slots.

#![forbid(unsafe_code)]

use super::backoff::{Backoff, Nanos, STABLE};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Gets a worker at this time.
    Vacant(Nanos),
    Starting,
    Serving(Nanos),
}

/// What the end of a worker means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A new one is started after so many nanoseconds.
    Respawn { after: Nanos },
    /// No worker of this generation has ever been ready, and several have failed.
    GiveUp,
}

#[derive(Debug)]
pub struct Pool {
    slots: Vec<Slot>,
    backoff: Backoff,
    was_ready: bool,
}

/// A worker that ends sooner after it was ready may be one of a crash loop.
const SHORT: Nanos = 1_000_000_000;

/// Failed starts in a row after which a generation that never served is given up.
const HOPELESS: u32 = 3;

impl Pool {
    pub fn new(workers: usize) -> Self {
        Self {
            slots: vec![Slot::Vacant(0); workers],
            backoff: Backoff::default(),
            was_ready: false,
        }
    }

    /// A slot that is to get a worker now.
    pub fn due(&self, now: Nanos) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| matches!(slot, Slot::Vacant(at) if *at <= now))
    }

    /// When the next slot is due.
    pub fn wake_at(&self) -> Option<Nanos> {
        self.slots
            .iter()
            .filter_map(|slot| match slot {
                Slot::Vacant(at) => Some(*at),
                _ => None,
            })
            .min()
    }

    pub fn started(&mut self, slot: usize) {
        self.slots[slot] = Slot::Starting;
    }

    /// Fork itself failed: for want of memory or processes, mostly.
    pub fn start_failed(&mut self, slot: usize, now: Nanos) -> Verdict {
        self.slots[slot] = Slot::Starting;
        self.ended(slot, now)
    }

    pub fn ready(&mut self, slot: usize, now: Nanos) {
        self.slots[slot] = Slot::Serving(now);
        self.was_ready = true;
    }

    pub fn ended(&mut self, slot: usize, now: Nanos) -> Verdict {
        let after = match self.slots[slot] {
            Slot::Serving(since) if now.saturating_sub(since) >= SHORT => {
                if now.saturating_sub(since) >= STABLE {
                    self.backoff.reset();
                }
                0
            }
            Slot::Serving(_) => match self.backoff.fail() {
                _ if self.backoff.failures() as usize <= self.slots.len() => 0,
                delay => delay,
            },
            Slot::Starting | Slot::Vacant(_) => {
                let delay = self.backoff.fail();
                if !self.was_ready && self.backoff.failures() >= HOPELESS {
                    return Verdict::GiveUp;
                }
                delay
            }
        };
        self.slots[slot] = Slot::Vacant(now.saturating_add(after));
        Verdict::Respawn { after }
    }

    pub fn serving(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| matches!(slot, Slot::Serving(_)))
            .count()
    }

    pub fn is_complete(&self) -> bool {
        self.serving() == self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn serving(workers: usize) -> Pool {
        let mut pool = Pool::new(workers);
        for slot in 0..workers {
            assert_eq!(pool.due(0), Some(slot));
            pool.started(slot);
            pool.ready(slot, 0);
        }
        assert_eq!(pool.due(u64::MAX), None);
        assert!(pool.is_complete());
        pool
    }

    #[test]
    fn a_worker_that_crashes_once_is_replaced_at_once() {
        let mut pool = serving(2);
        let verdict = pool.ended(1, SECOND);
        assert_eq!(verdict, Verdict::Respawn { after: 0 });
        assert_eq!(pool.due(SECOND), Some(1));
        assert_eq!(pool.serving(), 1);
    }

    #[test]
    fn all_workers_crashing_once_are_replaced_at_once() {
        let mut pool = serving(4);
        for slot in 0..4 {
            let verdict = pool.ended(slot, SECOND / 2);
            assert_eq!(verdict, Verdict::Respawn { after: 0 });
        }
    }

    #[test]
    fn workers_that_have_served_for_a_while_are_always_replaced_at_once() {
        let mut pool = serving(1);
        for now in 1..100 {
            let verdict = pool.ended(0, now * SECOND);
            assert_eq!(verdict, Verdict::Respawn { after: 0 });
            pool.started(0);
            pool.ready(0, now * SECOND);
        }
    }

    #[test]
    fn a_crash_loop_is_slowed_down_until_a_worker_is_stable() {
        let mut pool = serving(1);
        let mut now = SECOND / 2;
        let mut delays = Vec::new();
        for _ in 0..12 {
            let Verdict::Respawn { after } = pool.ended(0, now) else {
                panic!("gave up");
            };
            delays.push(after);
            now += after;
            assert_eq!(pool.wake_at(), Some(now));
            assert_eq!(pool.due(now), Some(0));
            pool.started(0);
            pool.ready(0, now);
        }
        assert_eq!(delays[0], 0);
        assert!(delays[1] > 0 && delays.is_sorted());
        assert_eq!(delays[11], 30 * SECOND);
        let verdict = pool.ended(0, now + 11 * SECOND);
        assert_eq!(verdict, Verdict::Respawn { after: 0 });
    }

    #[test]
    fn a_generation_whose_workers_never_become_ready_is_given_up() {
        let mut pool = Pool::new(2);
        let mut verdicts = Vec::new();
        for now in 0..3 {
            pool.started(0);
            verdicts.push(pool.ended(0, now));
        }
        assert!(matches!(verdicts[0], Verdict::Respawn { after } if after > 0));
        assert_eq!(verdicts[2], Verdict::GiveUp);
    }

    #[test]
    fn a_generation_that_has_served_is_never_given_up() {
        let mut pool = serving(1);
        for now in 0..100 {
            assert!(matches!(pool.ended(0, now), Verdict::Respawn { .. }));
            pool.started(0);
        }
    }
}
