//! What processes of apps leave behind. An orphan becomes a child of the master of its app, and of the supervisor
//! when that one is gone; then it is told to leave (SIGTERM), and is ended when it does not. That holds for
//! servers with many apps: a single application may have started a daemon on purpose.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getuid};
use serde::{Deserialize, Serialize};

use crate::log::{self, Allowed, Throttle, more_like_this};
use crate::sys::clock::{MILLISECOND, Nanos, SECOND};
use crate::sys::family;

/// To finish. Workers that have lost their master are among them (`master::ORPHAN_GRACE`).
const GRACE: Nanos = 2500 * MILLISECOND;
/// Between two looks while there are some.
const EVERY: Nanos = 100 * MILLISECOND;
/// Between two looks while there are none, at a moment at which this process is awake anyway.
const RARELY: Nanos = SECOND;
/// After that the kernel does not let go of them.
const LOST: Nanos = 10 * SECOND;
/// Entries per second: users can make orphans at will.
const TOLD: u32 = 2;

#[derive(Default)]
pub struct Orphans {
    /// Children of whoever has executed this program: they are not ours to end.
    foreign: BTreeSet<i32>,
    company: Company,
    /// When each was found.
    known: BTreeMap<Pid, Nanos>,
    looked: Nanos,
    /// How many masters there were.
    masters: usize,
    throttle: Throttle,
}

/// What this process was before it executed this program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Company {
    /// All its children are of apps.
    #[default]
    Alone,
    /// It had children, whose orphans come to it as those of apps do.
    Shared,
}

/// How much time they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Usual,
    None,
}

impl Orphans {
    /// From now on orphans become children of this process.
    pub fn adopt() -> Orphans {
        let foreign: BTreeSet<i32> = family::children().into_iter().map(Pid::as_raw).collect();
        let company = match foreign.is_empty() {
            true => Company::Alone,
            false => Company::Shared,
        };
        if company == Company::Shared {
            log::info!(
                "whoever has started this server had started other processes before: of what is left behind, only \
                 what runs as the user of an app, and not as that of the server, is ended"
            );
        }
        Orphans::resume(foreign, company)
    }

    /// The same after an upgrade.
    pub fn resume(foreign: BTreeSet<i32>, company: Company) -> Orphans {
        if let Err(error) = family::adopt_orphans() {
            log::warning!("what apps leave behind goes on: {error}");
        }
        Orphans {
            foreign,
            company,
            throttle: Throttle::new(TOLD),
            ..Orphans::default()
        }
    }

    /// For the program that replaces this one.
    pub fn foreign(&self) -> BTreeSet<i32> {
        self.foreign.clone()
    }

    pub fn company(&self) -> Company {
        self.company
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        (!self.known.is_empty()).then(|| self.looked.saturating_add(EVERY))
    }

    /// Looks when it is time, or at once when there are other masters than the last time.
    pub fn settle(&mut self, surroundings: &Surroundings<'_>, now: Nanos) {
        let pause = match self.known.is_empty() {
            true => RARELY,
            false => EVERY,
        };
        let is_due = now.saturating_sub(self.looked) >= pause;
        if is_due || surroundings.masters != self.masters {
            self.masters = surroundings.masters;
            self.look(surroundings, now);
        }
    }

    /// Whether none is left, or none that could be ended.
    pub fn are_gone(&mut self, surroundings: &Surroundings<'_>, now: Nanos) -> bool {
        if now.saturating_sub(self.looked) >= EVERY {
            self.look(surroundings, now);
        }
        let is_lost = |since: &Nanos| now.saturating_sub(*since) >= LOST;
        self.known.values().all(is_lost)
    }

    fn look(&mut self, surroundings: &Surroundings<'_>, now: Nanos) {
        self.looked = now;
        let children = family::children();
        self.foreign
            .retain(|pid| children.contains(&Pid::from_raw(*pid)));
        let mut orphans = children;
        let company = self.company;
        orphans.retain(|pid| {
            let is_foreign = self.foreign.contains(&pid.as_raw());
            !is_foreign && !(surroundings.is_own)(*pid) && surroundings.is_of_an_app(*pid, company)
        });
        self.known.retain(|pid, _| orphans.contains(pid));
        let grace = match surroundings.patience {
            Patience::Usual => GRACE,
            Patience::None => 0,
        };
        let mut overdue = Vec::new();
        for pid in orphans {
            let since = *self.known.entry(pid).or_insert_with(|| {
                family::signal(pid, Signal::SIGTERM);
                now
            });
            if now.saturating_sub(since) >= grace {
                overdue.push(pid);
            }
        }
        if overdue.is_empty() {
            return;
        }
        family::end(&overdue);
        if let Allowed::Yes { withheld } = self.throttle.ask(now) {
            let (pid, count) = (overdue[0], overdue.len());
            let user =
                family::user(pid).map_or_else(String::new, |user| format!(" of user {user}"));
            log::info!(
                "ended {count} processes that an app has left behind (pid {pid}{user}){}",
                more_like_this(withheld)
            );
        }
    }
}

/// What there is beside orphans.
pub struct Surroundings<'a> {
    pub masters: usize,
    pub is_own: &'a dyn Fn(Pid) -> bool,
    /// The users of apps.
    pub users: &'a BTreeSet<u32>,
    pub patience: Patience,
}

impl Surroundings<'_> {
    /// The first process of a container inherits orphans of others, too (`docker exec`), and so does a server that
    /// a script with processes of its own has executed.
    fn is_of_an_app(&self, pid: Pid, company: Company) -> bool {
        let is_mixed = getpid().as_raw() == 1 || company == Company::Shared;
        let is_users = |user| user != getuid().as_raw() && self.users.contains(&user);
        !is_mixed || family::user(pid).is_some_and(is_users)
    }
}
