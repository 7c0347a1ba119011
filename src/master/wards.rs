//! Orphans of the application, which the master of one of many apps inherits: it waits for those that have ended,
//! so that they do not count against the limits of the app. What it has itself forked by code of the application
//! is waited for there, so nobody else's end is taken at once.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use nix::unistd::Pid;

use crate::sys::clock::{Nanos, SECOND};
use crate::sys::family;

/// Between two looks, and while some have ended.
const RARELY: Nanos = 5 * SECOND;
const SOON: Nanos = 2 * SECOND;

pub struct Wards {
    /// Children from before the first worker: the application may wait for them.
    of_the_import: BTreeSet<Pid>,
    /// What had ended at the last look.
    ended: BTreeSet<Pid>,
    look_at: Nanos,
    ended_by: EndedBy,
}

/// Who ends them when the master leaves.
enum EndedBy {
    /// It lets them finish.
    Supervisor,
    Master,
}

impl Wards {
    pub fn new(now: Nanos) -> Wards {
        Wards {
            of_the_import: family::children().into_iter().collect(),
            ended: BTreeSet::new(),
            look_at: now + RARELY,
            ended_by: EndedBy::Supervisor,
        }
    }

    /// There may be no supervisor: what was not ordered is a signal that the kernel sends when a thread of the
    /// supervisor ends, which is before its end of the channel is closed (PR_SET_PDEATHSIG in prctl(2)).
    pub fn are_ours(&mut self) {
        self.ended_by = EndedBy::Master;
    }

    /// The master leaves.
    pub fn part(&self) {
        if let EndedBy::Master = self.ended_by {
            family::end(&family::children());
        }
    }

    pub fn wake_at(&self) -> Nanos {
        self.look_at
    }

    /// Waits for whoever has ended before the last look and was not waited for since.
    pub fn look(&mut self, is_worker: impl Fn(Pid) -> bool, now: Nanos) {
        if now < self.look_at {
            return;
        }
        let mut ended = family::children();
        ended.retain(|pid| !is_worker(*pid) && !self.of_the_import.contains(pid));
        ended.retain(|pid| family::has_ended(*pid));
        for pid in ended.iter().filter(|pid| self.ended.contains(pid)) {
            family::reap(*pid);
        }
        self.ended = ended.into_iter().collect();
        self.look_at = now
            + match self.ended.is_empty() {
                true => RARELY,
                false => SOON,
            };
    }
}
