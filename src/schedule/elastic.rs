//! When an elastic pool grows and shrinks.
//!
//! It grows when a connection waits that no worker is free to take, and the workers are off the CPU:
//! waiting for a database, not computing. Another worker would not make a CPU faster.

#![forbid(unsafe_code)]

use super::backoff::Nanos;

/// For how long demand is observed before a step.
pub const WINDOW: Nanos = 4_000_000;
/// What the observation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Not seen for long enough.
    Observe,
    Grow,
    /// Someone has become free, nobody waits, or the CPUs are the limit.
    Stay,
}

/// One look at the pool while somebody seems to wait.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub now: Nanos,
    /// Workers that run or wait for a CPU.
    pub runnable: usize,
    /// A connection waits to be accepted.
    pub waiting: bool,
    /// All workers run requests, or are only starting.
    pub all_busy: bool,
    /// At least one is starting: its effect is to be seen first.
    pub starting: bool,
}

/// An observation that has begun.
#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Nanos,
    /// The most that were runnable at one look.
    runnable: usize,
}

#[derive(Debug)]
pub struct Demand {
    cpus: usize,
    seen: Option<Seen>,
}

impl Demand {
    pub fn new(cpus: usize) -> Self {
        Self { cpus, seen: None }
    }

    pub fn is_observed(&self) -> bool {
        self.seen.is_some()
    }

    pub fn look(&mut self, look: Look) -> Step {
        if !look.waiting || !look.all_busy {
            self.seen = None;
            return Step::Stay;
        }
        let fresh = Seen {
            since: look.now,
            runnable: look.runnable,
        };
        let seen = self.seen.get_or_insert(fresh);
        seen.runnable = seen.runnable.max(look.runnable);
        if look.now.saturating_sub(seen.since) < WINDOW {
            return Step::Observe;
        }
        let runnable = seen.runnable;
        self.seen = Some(fresh);
        match look.starting {
            true => Step::Observe,
            false if runnable < self.cpus => Step::Grow,
            false => Step::Stay,
        }
    }

    /// The observation is over.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Nanos = 1_000_000;

    fn look(at: Nanos, runnable: usize) -> Look {
        Look {
            now: at * MILLI,
            runnable,
            waiting: true,
            all_busy: true,
            starting: false,
        }
    }

    #[test]
    fn grows_within_milliseconds_when_workers_wait() {
        let mut demand = Demand::new(2);
        assert_eq!(demand.look(look(0, 0)), Step::Observe);
        assert_eq!(demand.look(look(2, 1)), Step::Observe);
        assert_eq!(demand.look(look(4, 0)), Step::Grow);
        assert_eq!(demand.look(look(8, 1)), Step::Grow);
    }

    #[test]
    fn does_not_grow_when_the_cpus_are_the_limit() {
        let mut demand = Demand::new(2);
        assert_eq!(demand.look(look(0, 2)), Step::Observe);
        assert_eq!(demand.look(look(10, 1)), Step::Stay);
        assert!(demand.is_observed());
        assert_eq!(demand.look(look(20, 1)), Step::Grow);
    }

    #[test]
    fn does_not_grow_while_somebody_is_free_or_nobody_waits() {
        let mut demand = Demand::new(2);
        demand.look(look(0, 0));
        let free = Look {
            all_busy: false,
            ..look(5, 0)
        };
        assert_eq!(demand.look(free), Step::Stay);
        assert_eq!(demand.look(look(6, 0)), Step::Observe, "starts afresh");
        let quiet = Look {
            waiting: false,
            ..look(20, 0)
        };
        assert_eq!(demand.look(quiet), Step::Stay);
        assert!(!demand.is_observed());
    }

    #[test]
    fn waits_for_the_worker_that_is_starting() {
        let mut demand = Demand::new(1);
        demand.look(look(0, 0));
        let starting = Look {
            starting: true,
            ..look(5, 0)
        };
        assert_eq!(demand.look(starting), Step::Observe);
        assert_eq!(demand.look(look(9, 0)), Step::Grow);
    }
}
