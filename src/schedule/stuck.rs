//! Time limits of requests: when a worker is told, when its stacks are printed, when it is killed.
//!
//! ```text
//! deadline             -> tell it: RequestTimeout is raised in the application
//! + kill-timeout       -> print the stacks of all its threads
//! + DUMP               -> kill it
//! ```
//!
//! Time during which this process itself was suspended does not count: nobody is killed for the
//! machine's nap. How long it was is not known, only that it went beyond the wake-up that had been
//! asked for, so a request that sat through it gets its whole time again.

#![forbid(unsafe_code)]

use super::backoff::Nanos;

/// For the stacks to be written before the process ends.
const DUMP: Nanos = 300_000_000;
/// Waking later than this was a suspension, not a busy machine.
const NAP: Nanos = 2_000_000_000;

/// What the scoreboard says of a worker that runs a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    pub since: Nanos,
    pub deadline: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Tell,
    Dump,
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Done {
    #[default]
    Nothing,
    Told,
    Dumped {
        at: Nanos,
    },
    Killed,
}

/// What has been done about the request that a slot runs.
#[derive(Debug, Clone, Copy, Default)]
struct Case {
    since: Nanos,
    /// The time limit that it is about: one that was moved meanwhile is another.
    deadline: Nanos,
    done: Done,
}

#[derive(Debug, Default)]
pub struct Watch {
    kill_timeout: Nanos,
    cases: Vec<Case>,
    /// When this process woke from its last suspension.
    woken: Nanos,
    asked_for: Option<Nanos>,
}

impl Watch {
    pub fn new(slots: usize, kill_timeout: Nanos) -> Self {
        Self {
            kill_timeout,
            cases: vec![Case::default(); slots],
            woken: 0,
            asked_for: None,
        }
    }

    /// The caller goes to sleep until `wake` at the latest.
    pub fn sleep(&mut self, wake: Option<Nanos>) {
        self.asked_for = wake;
    }

    /// The caller is awake again.
    pub fn wake(&mut self, now: Nanos) {
        if let Some(asked) = self.asked_for.take()
            && now.saturating_sub(asked) > NAP
        {
            self.woken = now;
        }
    }

    fn deadline(&self, running: Running) -> Nanos {
        let Running { since, deadline } = running;
        match since < self.woken {
            true => self.woken.saturating_add(deadline.saturating_sub(since)),
            false => deadline,
        }
    }

    /// What has been done about a request whose time limit is `deadline`.
    fn done(&self, slot: usize, since: Nanos, deadline: Nanos) -> Done {
        let case = self.cases[slot];
        match (case.since, case.deadline) == (since, deadline) {
            true => case.done,
            false => Done::Nothing,
        }
    }

    /// What is to be done about the worker in `slot` now.
    pub fn judge(&mut self, slot: usize, running: Option<Running>, now: Nanos) -> Option<Action> {
        let Some(running) = running else {
            self.cases[slot] = Case::default();
            return None;
        };
        let deadline = self.deadline(running);
        let before = self.done(slot, running.since, deadline);
        if now < deadline {
            return None;
        }
        let (done, action) = match before {
            Done::Nothing => (Done::Told, Action::Tell),
            Done::Told if now >= deadline.saturating_add(self.kill_timeout) => {
                (Done::Dumped { at: now }, Action::Dump)
            }
            Done::Dumped { at } if now >= at + DUMP => (Done::Killed, Action::Kill),
            _ => return None,
        };
        self.cases[slot] = Case {
            since: running.since,
            deadline,
            done,
        };
        Some(action)
    }

    /// When something will have to be done about it, if it goes on like this.
    pub fn wake_at(&self, slot: usize, running: Running) -> Option<Nanos> {
        let deadline = self.deadline(running);
        match self.done(slot, running.since, deadline) {
            Done::Nothing => Some(deadline),
            Done::Told => Some(deadline.saturating_add(self.kill_timeout)),
            Done::Dumped { at } => Some(at + DUMP),
            Done::Killed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn running(since: Nanos, deadline: Nanos) -> Option<Running> {
        Some(Running {
            since: since * SECOND,
            deadline: deadline * SECOND,
        })
    }

    fn watch() -> Watch {
        Watch::new(1, 5 * SECOND)
    }

    #[test]
    fn tells_then_dumps_then_kills_each_once() {
        let mut watch = watch();
        let request = running(1, 10);
        let mut seen = Vec::new();
        for tenth in 0..200 {
            let now = tenth * SECOND / 10;
            if let Some(action) = watch.judge(0, request, now) {
                seen.push((tenth, action));
            }
        }
        let expected = [
            (100, Action::Tell),
            (150, Action::Dump),
            (153, Action::Kill),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn wakes_exactly_for_the_next_step() {
        let mut watch = watch();
        let request = running(1, 10).unwrap();
        let mut steps = Vec::new();
        while let Some(at) = watch.wake_at(0, request) {
            steps.push(at);
            assert!(watch.judge(0, Some(request), at).is_some());
        }
        assert_eq!(steps, [10 * SECOND, 15 * SECOND, 15 * SECOND + DUMP]);
    }

    #[test]
    fn idle_is_never_stuck_and_a_new_request_starts_afresh() {
        let mut watch = watch();
        assert_eq!(watch.judge(0, None, u64::MAX), None);
        assert_eq!(
            watch.judge(0, running(1, 2), 3 * SECOND),
            Some(Action::Tell)
        );
        assert_eq!(watch.judge(0, running(3, 9), 8 * SECOND), None);
        assert_eq!(
            watch.judge(0, running(3, 9), 9 * SECOND),
            Some(Action::Tell)
        );
    }

    #[test]
    fn a_request_that_gets_more_time_is_told_again() {
        let mut watch = watch();
        assert_eq!(
            watch.judge(0, running(1, 2), 2 * SECOND),
            Some(Action::Tell)
        );
        assert_eq!(watch.judge(0, running(1, 9), 8 * SECOND), None);
        assert_eq!(
            watch.judge(0, running(1, 9), 9 * SECOND),
            Some(Action::Tell)
        );
    }

    #[test]
    fn more_time_between_two_looks_counts_too() {
        let mut watch = watch();
        watch.judge(0, running(1, 2), 2 * SECOND);
        assert_eq!(
            watch.judge(0, running(1, 7), 8 * SECOND),
            Some(Action::Tell)
        );
        let moved = running(1, 9).unwrap();
        assert_eq!(watch.wake_at(0, moved), Some(9 * SECOND));
    }

    #[test]
    fn after_a_suspension_a_request_has_its_whole_time_again() {
        let mut watch = watch();
        let before = running(1, 10);
        watch.sleep(Some(10 * SECOND));
        watch.wake(105 * SECOND);
        assert_eq!(watch.judge(0, before, 105 * SECOND), None);
        assert_eq!(watch.wake_at(0, before.unwrap()), Some(114 * SECOND));
        assert_eq!(watch.judge(0, before, 114 * SECOND), Some(Action::Tell));
        let after = running(106, 110);
        assert_eq!(watch.judge(0, after, 110 * SECOND), Some(Action::Tell));
    }

    #[test]
    fn a_suspension_before_the_kill_starts_the_case_again() {
        let mut watch = watch();
        watch.judge(0, running(1, 10), 10 * SECOND);
        watch.sleep(Some(15 * SECOND));
        watch.wake(60 * SECOND);
        assert_eq!(watch.judge(0, running(1, 10), 60 * SECOND), None);
    }

    #[test]
    fn waking_a_little_late_is_no_suspension() {
        let mut watch = watch();
        watch.sleep(Some(5 * SECOND));
        watch.wake(6 * SECOND);
        assert_eq!(
            watch.judge(0, running(1, 6), 6 * SECOND),
            Some(Action::Tell)
        );
    }
}
