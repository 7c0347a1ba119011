//! The pool of one generation: which slot gets a worker when, which worker leaves, and when to give
//! up. There are more slots than workers, so that a replacement can be ready before the worker it
//! replaces leaves.
//!
//! | slot     | ready                        | ended                                          |
//! |----------|------------------------------|------------------------------------------------|
//! | starting | serving; the one it replaces | start failure: back-off, or give up            |
//! |          | leaves                       |                                                |
//! | serving  | -                            | replace at once; with back-off in a crash loop |
//! | leaving  | -                            | vacant                                         |
//!
//! A crash loop is what begins when workers end within [`SHORT`] of becoming ready, more of them in a
//! row than there are to be.

#![forbid(unsafe_code)]

use super::backoff::{Backoff, Nanos, STABLE};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Vacant,
    /// `replaces`: a serving worker that leaves when this one is ready.
    Starting {
        replaces: Option<usize>,
    },
    Serving {
        since: Nanos,
        /// To be replaced.
        worn: bool,
    },
    Leaving,
}

/// What the end of a worker means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It had been told to leave.
    Expected,
    /// Another one is started after so many nanoseconds.
    Respawn { after: Nanos },
    /// No worker of this generation has ever been ready, and several have failed.
    GiveUp,
}

/// How many workers there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub min: usize,
    pub max: usize,
}

#[derive(Debug)]
pub struct Pool {
    slots: Vec<Slot>,
    bounds: Bounds,
    /// How many are to serve now, within the bounds.
    target: usize,
    backoff: Backoff,
    /// No worker is started before.
    hold: Nanos,
    was_ready: bool,
}

/// A worker that ends sooner after it was ready may be one of a crash loop.
const SHORT: Nanos = 1_000_000_000;

/// Failed starts in a row after which a generation that never served is given up.
const HOPELESS: u32 = 3;

impl Pool {
    pub fn new(bounds: Bounds, slots: usize) -> Self {
        Self {
            slots: vec![Slot::Vacant; slots],
            bounds,
            target: bounds.min,
            backoff: Backoff::default(),
            hold: 0,
            was_ready: false,
        }
    }

    /// Slots set aside for a pool: a replacement for each worker, and a few more for TTIN.
    pub fn slots_for(max: usize) -> usize {
        2 * max + 16
    }

    fn count(&self, is: impl Fn(&Slot) -> bool) -> usize {
        self.slots.iter().filter(|slot| is(slot)).count()
    }

    pub fn is_serving(&self, slot: usize) -> bool {
        matches!(self.slots[slot], Slot::Serving { .. })
    }

    /// Serving, and not to be replaced yet.
    pub fn is_fresh(&self, slot: usize) -> bool {
        matches!(self.slots[slot], Slot::Serving { worn: false, .. })
    }

    pub fn is_starting(&self) -> bool {
        self.count(|slot| matches!(slot, Slot::Starting { .. })) > 0
    }

    pub fn serving(&self) -> usize {
        self.count(|slot| matches!(slot, Slot::Serving { .. }))
    }

    /// Serving now or soon, each replaced one counted once.
    fn active(&self) -> usize {
        self.count(|slot| match slot {
            Slot::Serving { .. } => true,
            Slot::Starting { replaces } => !replaces.is_some_and(|old| self.is_serving(old)),
            Slot::Vacant | Slot::Leaving => false,
        })
    }

    /// At most a quarter of the pool is replaced at the same time.
    fn replaceable(&self) -> Option<usize> {
        let replaced = |old: usize| {
            self.slots
                .iter()
                .any(|slot| matches!(slot, Slot::Starting { replaces } if *replaces == Some(old)))
        };
        let under_way = self.count(|slot| matches!(slot, Slot::Starting { .. }));
        if under_way > self.target / 4 {
            return None;
        }
        let worn = |slot: &Slot| matches!(slot, Slot::Serving { worn: true, .. });
        (0..self.slots.len()).find(|&slot| worn(&self.slots[slot]) && !replaced(slot))
    }

    /// A slot that is to get a worker now; it counts as starting from here on.
    pub fn take_due(&mut self, now: Nanos) -> Option<usize> {
        if now < self.hold {
            return None;
        }
        let replaces = match self.active() < self.target {
            true => None,
            false => Some(self.replaceable()?),
        };
        let slot = self.slots.iter().position(|slot| *slot == Slot::Vacant)?;
        self.slots[slot] = Slot::Starting { replaces };
        Some(slot)
    }

    /// When [`Pool::take_due`] is to be asked again although nothing happens.
    pub fn wake_at(&self) -> Option<Nanos> {
        let wanting = self.active() < self.target || self.replaceable().is_some();
        wanting.then_some(self.hold)
    }

    /// The worker serves; the one it replaces is to leave.
    pub fn ready(&mut self, slot: usize, now: Nanos) -> Option<usize> {
        let before = self.slots[slot];
        self.slots[slot] = Slot::Serving {
            since: now,
            worn: false,
        };
        self.was_ready = true;
        match before {
            Slot::Starting {
                replaces: Some(old),
            } if self.is_serving(old) => Some(old),
            _ => None,
        }
    }

    /// The worker has been told to leave.
    pub fn leaves(&mut self, slot: usize) {
        self.slots[slot] = Slot::Leaving;
    }

    /// The worker is to be replaced, after its replacement is ready.
    pub fn wear_out(&mut self, slot: usize) {
        if let Slot::Serving { worn, .. } = &mut self.slots[slot] {
            *worn = true;
        }
    }

    pub fn ended(&mut self, slot: usize, now: Nanos) -> Verdict {
        let before = std::mem::replace(&mut self.slots[slot], Slot::Vacant);
        let after = match before {
            Slot::Leaving | Slot::Vacant => return Verdict::Expected,
            Slot::Serving { since, .. } if now.saturating_sub(since) >= SHORT => {
                if now.saturating_sub(since) >= STABLE {
                    self.backoff.reset();
                }
                0
            }
            Slot::Serving { .. } => match self.backoff.fail() {
                _ if self.backoff.failures() as usize <= self.target => 0,
                delay => delay,
            },
            Slot::Starting { .. } => {
                let delay = self.backoff.fail();
                if !self.was_ready && self.backoff.failures() >= HOPELESS {
                    return Verdict::GiveUp;
                }
                delay
            }
        };
        self.hold = self.hold.max(now.saturating_add(after));
        Verdict::Respawn { after }
    }

    /// The most workers it can be moved to by hand.
    pub fn room(&self) -> usize {
        (self.slots.len() - 16) / 2 + 8
    }

    /// Moves the number of workers by hand: a fixed pool is resized, an elastic one gets another
    /// minimum. The new bounds.
    pub fn scale(&mut self, by: i32) -> Bounds {
        let room = self.room();
        let move_by = |n: usize| n.saturating_add_signed(by as isize).clamp(1, room);
        let fixed = self.bounds.min == self.bounds.max;
        self.bounds.min = move_by(self.bounds.min);
        self.bounds.max = match fixed {
            true => self.bounds.min,
            false => self.bounds.max.max(self.bounds.min),
        };
        self.target = self.target.clamp(self.bounds.min, self.bounds.max);
        self.bounds
    }

    /// One worker more, if the bounds allow.
    pub fn grow(&mut self) -> bool {
        let more = self.target < self.bounds.max;
        self.target += usize::from(more);
        more
    }

    pub fn can_grow(&self) -> bool {
        self.target < self.bounds.max
    }

    /// How many more serve than the smallest pool has.
    pub fn surplus(&self) -> usize {
        self.serving().saturating_sub(self.bounds.min)
    }

    /// How many more serve than are wanted.
    pub fn excess(&self) -> usize {
        self.active().saturating_sub(self.target)
    }

    /// One worker fewer: the caller says which by [`Pool::leaves`].
    pub fn shrink(&mut self) {
        self.target = (self.target - 1).max(self.bounds.min);
    }

    /// Enough serve for the generation to count as ready.
    pub fn is_complete(&self) -> bool {
        self.serving() >= self.bounds.min
    }

    pub fn target(&self) -> usize {
        self.target
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn pool(min: usize, max: usize) -> Pool {
        Pool::new(Bounds { min, max }, Pool::slots_for(max))
    }

    fn bring_up(pool: &mut Pool, now: Nanos) -> Vec<usize> {
        let mut slots = Vec::new();
        while let Some(slot) = pool.take_due(now) {
            assert_eq!(pool.ready(slot, now), None);
            slots.push(slot);
        }
        slots
    }

    fn serving(workers: usize) -> Pool {
        let mut pool = pool(workers, workers);
        assert_eq!(bring_up(&mut pool, 0).len(), workers);
        assert!(pool.is_complete());
        assert_eq!(pool.wake_at(), None);
        pool
    }

    #[test]
    fn a_worker_that_crashes_once_is_replaced_at_once() {
        let mut pool = serving(2);
        let verdict = pool.ended(1, SECOND);
        assert_eq!(verdict, Verdict::Respawn { after: 0 });
        assert_eq!(pool.take_due(SECOND), Some(1));
        assert_eq!(pool.take_due(SECOND), None);
    }

    #[test]
    fn all_workers_crashing_once_are_replaced_at_once() {
        let mut pool = serving(4);
        for slot in 0..4 {
            let verdict = pool.ended(slot, SECOND / 2);
            assert_eq!(verdict, Verdict::Respawn { after: 0 });
        }
        assert_eq!(bring_up(&mut pool, SECOND / 2).len(), 4);
    }

    #[test]
    fn workers_that_have_served_for_a_while_are_always_replaced_at_once() {
        let mut pool = serving(1);
        for now in 1..100 {
            let verdict = pool.ended(0, now * SECOND);
            assert_eq!(verdict, Verdict::Respawn { after: 0 });
            assert_eq!(bring_up(&mut pool, now * SECOND), [0]);
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
            if after > 0 {
                assert_eq!(pool.take_due(now), None);
            }
            now += after;
            assert_eq!(pool.wake_at(), Some(now));
            assert_eq!(bring_up(&mut pool, now), [0]);
        }
        assert_eq!(delays[0], 0);
        assert!(delays[1] > 0 && delays.is_sorted());
        assert_eq!(delays[11], 30 * SECOND);
        let verdict = pool.ended(0, now + 11 * SECOND);
        assert_eq!(verdict, Verdict::Respawn { after: 0 });
    }

    #[test]
    fn a_generation_whose_workers_never_become_ready_is_given_up() {
        let mut pool = pool(1, 1);
        let mut now = 0;
        let mut verdicts = Vec::new();
        for _ in 0..3 {
            let slot = pool.take_due(now).unwrap();
            verdicts.push(pool.ended(slot, now));
            now += SECOND;
        }
        assert!(matches!(verdicts[0], Verdict::Respawn { after } if after > 0));
        assert_eq!(verdicts[2], Verdict::GiveUp);
    }

    #[test]
    fn a_generation_that_has_served_is_never_given_up() {
        let mut pool = serving(1);
        let mut now = 0;
        for _ in 0..100 {
            assert!(matches!(pool.ended(0, now), Verdict::Respawn { .. }));
            now += 31 * SECOND;
            assert_eq!(pool.take_due(now), Some(0));
        }
    }

    #[test]
    fn a_worn_worker_leaves_when_its_replacement_is_ready() {
        let mut pool = serving(2);
        pool.wear_out(0);
        let new = pool.take_due(SECOND).unwrap();
        assert_eq!(pool.take_due(SECOND), None, "one replacement is enough");
        assert_eq!(pool.serving(), 2);
        assert_eq!(pool.ready(new, SECOND), Some(0));
        pool.leaves(0);
        assert_eq!(pool.serving(), 2);
        assert_eq!(pool.take_due(SECOND), None);
        assert_eq!(pool.ended(0, SECOND), Verdict::Expected);
    }

    #[test]
    fn worn_workers_are_replaced_a_few_at_a_time() {
        let mut pool = serving(8);
        (0..8).for_each(|slot| pool.wear_out(slot));
        let first: Vec<_> = std::iter::from_fn(|| pool.take_due(0)).collect();
        assert_eq!(first.len(), 3);
        let old = pool.ready(first[0], 0).unwrap();
        pool.leaves(old);
        assert!(pool.take_due(0).is_some());
    }

    #[test]
    fn a_replacement_takes_the_place_of_a_worker_that_dies_before_it() {
        let mut pool = serving(1);
        pool.wear_out(0);
        let new = pool.take_due(SECOND).unwrap();
        assert_eq!(pool.ended(0, SECOND), Verdict::Respawn { after: 0 });
        assert_eq!(pool.take_due(SECOND), None, "the replacement is under way");
        assert_eq!(pool.ready(new, SECOND), None);
        assert!(pool.is_complete());
    }

    #[test]
    fn an_elastic_pool_grows_to_its_bound_and_shrinks_again() {
        let mut pool = pool(1, 3);
        assert_eq!(bring_up(&mut pool, 0), [0]);
        assert!(pool.grow());
        assert_eq!(bring_up(&mut pool, 0), [1]);
        assert!(pool.grow() && !pool.grow());
        assert_eq!(bring_up(&mut pool, 0), [2]);
        assert_eq!(pool.surplus(), 2);
        pool.shrink();
        pool.leaves(2);
        assert_eq!(pool.take_due(0), None);
        assert_eq!(pool.ended(2, 0), Verdict::Expected);
        assert_eq!(pool.surplus(), 1);
    }

    #[test]
    fn scaling_by_hand_resizes_a_fixed_pool_and_never_empties_it() {
        let mut pool = serving(2);
        assert_eq!(pool.scale(1), Bounds { min: 3, max: 3 });
        assert_eq!(bring_up(&mut pool, 0).len(), 1);
        assert_eq!(pool.scale(-2), Bounds { min: 1, max: 1 });
        assert_eq!(pool.excess(), 2);
        assert_eq!(pool.scale(-5), Bounds { min: 1, max: 1 });
        for _ in 0..100 {
            pool.scale(1);
        }
        assert_eq!(bring_up(&mut pool, 0).len() + 3, pool.target());
    }

    #[test]
    fn scaling_an_elastic_pool_moves_its_minimum() {
        let mut pool = pool(2, 4);
        assert_eq!(pool.scale(1), Bounds { min: 3, max: 4 });
        assert_eq!(pool.scale(3), Bounds { min: 6, max: 6 });
        assert_eq!(pool.scale(-5), Bounds { min: 1, max: 1 });
    }
}
