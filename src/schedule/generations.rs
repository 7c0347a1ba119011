//! The generations of one app: which serves, which comes, which goes. Events in, actions out.
//!
//! | stage    | reload          | ready        | failed or ended           | time is up | drain, stop |
//! |----------|-----------------|--------------|---------------------------|------------|-------------|
//! | starting | give up, then   | serves; the  | what serves goes on, else | kill       | give up     |
//! |          | start afresh    | other drains | try again with back-off   |            |             |
//! | serving  | start the next  | -            | start again, with back-   | -          | leave       |
//! |          |                 |              | off in a crash loop       |            |             |
//! | leaving  | -               | -            | gone                      | kill       | -           |
//! | ending   | wait, then      | -            | gone                      | kill       | -           |
//! |          | start           |              |                           |            |             |
//!
//! A rest lets everything leave as a drain does, but a reload ends it, and so does a new beginning.
//!
//! A reload always means the newest state of configuration and code: one that comes while another is
//! under way takes its place. However many come, there is one generation that serves, at most one that
//! starts or ends without having served, and at most [`MOST_LEAVING`] that finish what they run.

#![forbid(unsafe_code)]

use super::backoff::{Backoff, Nanos, STABLE};

/// Generations are numbered from 1 and never again with the same number.
pub type Number = u64;

const SECOND: Nanos = 1_000_000_000;

/// What a master gets beyond the time limits that it observes itself.
const SLACK: Nanos = 2 * SECOND;
/// To leave when it serves nobody or has been told to stop: a master kills what does not stop at once
/// after 0.5 s.
const AT_ONCE: Nanos = SECOND;
/// One in an uninterruptible sleep is killed again after this.
const AGAIN: Nanos = SECOND;
/// While so many still finish what they run, a reload waits: each holds the memory of a whole
/// application.
pub const MOST_LEAVING: usize = 4;

/// The time limits of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// To be ready.
    pub start: Nanos,
    /// To finish what runs.
    pub grace: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Starting {
        until: Nanos,
    },
    Serving,
    /// Has served, finishes what runs.
    Leaving {
        until: Nanos,
    },
    /// Never served and never will.
    Ending {
        until: Nanos,
        why: Ending,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It said so, or took too long.
    Failed,
    /// By a later reload, or a stop.
    GivenUp,
}

/// What a generation is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    First,
    /// With settings read anew.
    Reload,
    /// In the place of one that was lost.
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Begin(Terms),
    /// With the terms of the settings read anew.
    Reload(Terms),
    Ready(Number),
    /// It says that it cannot serve.
    Failed(Number),
    /// Its process is gone, or could not be started.
    Ended(Number),
    /// Nothing but the time.
    Due,
    /// Nothing is to serve until the next reload; not while a generation comes up.
    Rest,
    /// The same whatever comes up.
    Halt,
    Drain,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start(Number, Cause),
    /// It may take connections from now on.
    Serve(Number),
    Drain(Number),
    Stop(Number),
    /// It serves nobody.
    GiveUp(Number),
    Kill(Number),
    Tell(News),
}

/// What people want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The app serves, for the first time, again, or with a new generation.
    Serves { number: Number, cause: Cause },
    /// The app never served and cannot.
    Hopeless(Number),
    /// A generation did not come up; `serving` goes on.
    Failed {
        number: Number,
        cause: Cause,
        serving: Option<Number>,
    },
    /// The one that served is gone.
    Lost(Number),
    /// The next one is started after so many nanoseconds.
    StartsAfter(Nanos),
    /// A later reload takes the place of this generation.
    Superseded(Number),
    /// A reload waits until one of so many generations has left.
    Waits(usize),
    /// Not ready in time.
    Late(Number),
    /// Does not leave in time.
    Overdue(Number),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: Number,
    stage: Stage,
    cause: Cause,
    terms: Terms,
    started: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Has never served.
    Beginning,
    Running,
    /// Until it begins (again).
    Resting,
    Stopping,
}

/// What becomes of an app that has never served and cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstFailure {
    /// It is hopeless: so is the server, which has no other.
    IsFinal,
    /// It is tried again, as later ones are.
    IsTriedAgain,
}

/// All generations of an app, the oldest first.
#[derive(Debug)]
pub struct Generations {
    entries: Vec<Entry>,
    next: Number,
    course: Course,
    first_failure: FirstFailure,
    /// Of what serves or served last.
    terms: Terms,
    /// Of a reload that is to be started as soon as may be.
    wanted: Option<Terms>,
    backoff: Backoff,
    restart_at: Option<Nanos>,
}

/// What outlives the program when it replaces itself; nothing starts or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    pub next: Number,
    pub terms: Terms,
    pub restart_at: Option<Nanos>,
    pub entries: Vec<Standing>,
    pub is_resting: bool,
}

/// Where a generation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub number: Number,
    /// [`Stage::Serving`] or [`Stage::Leaving`].
    pub stage: Stage,
    pub started: Nanos,
}

impl Generations {
    pub fn new(first_failure: FirstFailure) -> Self {
        Self {
            entries: Vec::new(),
            next: 1,
            course: Course::Beginning,
            first_failure,
            terms: Terms { start: 0, grace: 0 },
            wanted: None,
            backoff: Backoff::default(),
            restart_at: None,
        }
    }

    /// `None` while a generation starts, ends without having served, or is wanted.
    pub fn quiet(&self) -> Option<Quiet> {
        let is_still = match self.course {
            Course::Running => true,
            Course::Resting => self.entries.is_empty(),
            Course::Beginning => self.first_failure == FirstFailure::IsTriedAgain,
            Course::Stopping => false,
        };
        if !is_still || self.wanted.is_some() || self.has_coming() {
            return None;
        }
        let standing = |entry: &Entry| Standing {
            number: entry.number,
            stage: entry.stage,
            started: entry.started,
        };
        Some(Quiet {
            next: self.next,
            terms: self.terms,
            restart_at: self.restart_at,
            entries: self.entries.iter().map(standing).collect(),
            is_resting: self.is_resting(),
        })
    }

    pub fn resume(quiet: Quiet, first_failure: FirstFailure) -> Self {
        let terms = quiet.terms;
        let entry = |standing: Standing| Entry {
            number: standing.number,
            stage: standing.stage,
            cause: Cause::Restart,
            terms,
            started: standing.started,
        };
        Self {
            entries: quiet.entries.into_iter().map(entry).collect(),
            next: quiet.next,
            course: match quiet.is_resting {
                true => Course::Resting,
                false => Course::Running,
            },
            first_failure,
            terms,
            wanted: None,
            backoff: Backoff::default(),
            restart_at: quiet.restart_at,
        }
    }

    pub fn serving(&self) -> Option<Number> {
        let serving = |entry: &&Entry| entry.stage == Stage::Serving;
        self.entries.iter().find(serving).map(|entry| entry.number)
    }

    pub fn stage(&self, number: Number) -> Option<Stage> {
        let mut entries = self.entries.iter();
        entries.find(|e| e.number == number).map(|e| e.stage)
    }

    /// Whether a reload is under way.
    pub fn is_reloading(&self) -> bool {
        let under_way = |entry: &Entry| {
            let coming = matches!(entry.stage, Stage::Starting { .. } | Stage::Ending { .. });
            entry.cause == Cause::Reload && coming
        };
        self.wanted.is_some() || self.entries.iter().any(under_way)
    }

    pub fn is_leaving(&self, number: Number) -> bool {
        let leaves =
            |entry: &Entry| entry.number == number && matches!(entry.stage, Stage::Leaving { .. });
        self.entries.iter().any(leaves)
    }

    pub fn has_served(&self) -> bool {
        self.course != Course::Beginning
    }

    pub fn is_stopping(&self) -> bool {
        self.course == Course::Stopping
    }

    /// Not while a generation comes up: its outcome is waited for by somebody.
    pub fn may_rest(&self) -> bool {
        self.course == Course::Running && self.wanted.is_none() && !self.has_coming()
    }

    /// Nothing serves, and nothing is to.
    pub fn is_resting(&self) -> bool {
        self.course == Course::Resting
    }

    /// Whether a generation starts, or ends without having served.
    pub fn is_starting(&self) -> bool {
        self.has_coming() || self.wanted.is_some()
    }

    /// When one that is to serve is tried again.
    pub fn restart_at(&self) -> Option<Nanos> {
        self.restart_at
    }

    /// When something has to happen although nobody says anything.
    pub fn wake_at(&self) -> Option<Nanos> {
        let deadlines = self.entries.iter().filter_map(|entry| match entry.stage {
            Stage::Starting { until } | Stage::Leaving { until } | Stage::Ending { until, .. } => {
                Some(until)
            }
            Stage::Serving => None,
        });
        deadlines.chain(self.restart_at).min()
    }

    pub fn step(&mut self, event: Event, now: Nanos) -> Vec<Action> {
        match event {
            Event::Begin(terms) => self.begin(terms, now),
            Event::Reload(terms) => self.reload(terms, now),
            Event::Ready(number) => self.ready(number, now),
            Event::Failed(number) => {
                self.end(number, Ending::Failed, now + SLACK);
                Vec::new()
            }
            Event::Ended(number) => self.ended(number, now),
            Event::Due => self.due(now),
            Event::Rest if self.may_rest() => self.drain(Course::Resting, now),
            Event::Rest => Vec::new(),
            Event::Halt => self.drain(Course::Resting, now),
            Event::Drain => self.drain(Course::Stopping, now),
            Event::Stop => self.stop(now),
        }
    }

    fn begin(&mut self, terms: Terms, now: Nanos) -> Vec<Action> {
        self.terms = terms;
        let cause = match self.course {
            Course::Beginning => Cause::First,
            Course::Resting if !self.has_coming() => Cause::Restart,
            Course::Running | Course::Resting | Course::Stopping => return Vec::new(),
        };
        if self.course == Course::Resting {
            self.course = Course::Running;
        }
        vec![self.start(cause, terms, now)]
    }

    fn start(&mut self, cause: Cause, terms: Terms, now: Nanos) -> Action {
        self.restart_at = None;
        let number = self.next;
        self.next += 1;
        let until = now.saturating_add(terms.start);
        self.entries.push(Entry {
            number,
            stage: Stage::Starting { until },
            cause,
            terms,
            started: now,
        });
        Action::Start(number, cause)
    }

    /// Whether this one starts.
    pub fn is_coming(&self, number: Number) -> bool {
        matches!(self.stage(number), Some(Stage::Starting { .. }))
    }

    /// Starting, or ending without having served.
    fn has_coming(&self) -> bool {
        let coming =
            |entry: &Entry| matches!(entry.stage, Stage::Starting { .. } | Stage::Ending { .. });
        self.entries.iter().any(coming)
    }

    fn leaving(&self) -> usize {
        let leaving = |entry: &&Entry| matches!(entry.stage, Stage::Leaving { .. });
        self.entries.iter().filter(leaving).count()
    }

    /// Ends one that starts; false when it does not.
    fn end(&mut self, number: Number, why: Ending, until: Nanos) -> bool {
        let starts = |entry: &&mut Entry| {
            entry.number == number && matches!(entry.stage, Stage::Starting { .. })
        };
        let entry = self.entries.iter_mut().find(starts);
        entry
            .map(|entry| entry.stage = Stage::Ending { until, why })
            .is_some()
    }

    fn reload(&mut self, terms: Terms, now: Nanos) -> Vec<Action> {
        if self.is_stopping() {
            return Vec::new();
        }
        if self.is_resting() {
            self.course = Course::Running;
        }
        let waited = self.wanted.replace(terms).is_some();
        let mut actions = Vec::new();
        for number in self.numbers() {
            if self.end(number, Ending::GivenUp, now + AT_ONCE) {
                actions.push(Action::Tell(News::Superseded(number)));
                actions.push(Action::GiveUp(number));
            }
        }
        actions.extend(self.start_wanted(now));
        if !waited && self.wanted.is_some() && !self.has_coming() {
            actions.push(Action::Tell(News::Waits(self.leaving())));
        }
        actions
    }

    fn numbers(&self) -> Vec<Number> {
        self.entries.iter().map(|entry| entry.number).collect()
    }

    fn start_wanted(&mut self, now: Nanos) -> Option<Action> {
        let crowded = self.serving().is_some() && self.leaving() >= MOST_LEAVING;
        if crowded || self.has_coming() {
            return None;
        }
        let terms = self.wanted.take()?;
        Some(self.start(Cause::Reload, terms, now))
    }

    fn ready(&mut self, number: Number, now: Nanos) -> Vec<Action> {
        let starts =
            |entry: &Entry| entry.number == number && matches!(entry.stage, Stage::Starting { .. });
        let Some(index) = self.entries.iter().position(starts) else {
            return Vec::new();
        };
        let mut actions = vec![Action::Serve(number)];
        for entry in &mut self.entries {
            if entry.stage == Stage::Serving {
                let grace = entry.terms.grace.saturating_add(SLACK);
                let until = now.saturating_add(grace);
                entry.stage = Stage::Leaving { until };
                actions.push(Action::Drain(entry.number));
            }
        }
        let entry = &mut self.entries[index];
        entry.stage = Stage::Serving;
        self.terms = entry.terms;
        let cause = match self.course {
            Course::Beginning => Cause::First,
            _ => entry.cause,
        };
        self.course = Course::Running;
        actions.push(Action::Tell(News::Serves { number, cause }));
        actions
    }

    fn ended(&mut self, number: Number, now: Nanos) -> Vec<Action> {
        let Some(index) = self.entries.iter().position(|e| e.number == number) else {
            return Vec::new();
        };
        let entry = self.entries.remove(index);
        if self.is_stopping() || self.is_resting() {
            return Vec::new();
        }
        let serving = self.serving();
        let news = match entry.stage {
            Stage::Leaving { .. } => None,
            Stage::Ending {
                why: Ending::GivenUp,
                ..
            } => None,
            Stage::Serving => Some(News::Lost(number)),
            _ if self.course == Course::Beginning
                && self.first_failure == FirstFailure::IsFinal
                && self.wanted.is_none() =>
            {
                return vec![Action::Tell(News::Hopeless(number))];
            }
            _ => Some(News::Failed {
                number,
                cause: entry.cause,
                serving,
            }),
        };
        let mut actions: Vec<Action> = news.map(Action::Tell).into_iter().collect();
        actions.extend(self.start_wanted(now));
        let awaited = self.has_coming() || self.wanted.is_some() || self.restart_at.is_some();
        if self.serving().is_none() && !awaited {
            let delay = self.delay_after(&entry, now);
            self.restart_at = Some(now.saturating_add(delay));
            actions.push(Action::Tell(News::StartsAfter(delay)));
        }
        actions
    }

    fn delay_after(&mut self, entry: &Entry, now: Nanos) -> Nanos {
        if now.saturating_sub(entry.started) >= STABLE {
            self.backoff.reset();
        }
        match entry.stage {
            Stage::Serving if self.backoff.failures() == 0 => {
                self.backoff.fail();
                0
            }
            _ => self.backoff.fail(),
        }
    }

    fn due(&mut self, now: Nanos) -> Vec<Action> {
        let mut actions = Vec::new();
        for entry in &mut self.entries {
            let number = entry.number;
            let again = now + AGAIN;
            match entry.stage {
                Stage::Starting { until } if until <= now => {
                    let why = Ending::Failed;
                    entry.stage = Stage::Ending { until: again, why };
                    actions.push(Action::Tell(News::Late(number)));
                    actions.push(Action::Kill(number));
                }
                Stage::Leaving { until } if until <= now => {
                    entry.stage = Stage::Leaving { until: again };
                    actions.push(Action::Tell(News::Overdue(number)));
                    actions.push(Action::Kill(number));
                }
                Stage::Ending { until, why } if until <= now => {
                    entry.stage = Stage::Ending { until: again, why };
                    actions.push(Action::Kill(number));
                }
                _ => {}
            }
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            actions.push(self.start(Cause::Restart, self.terms, now));
        }
        actions
    }

    fn drain(&mut self, course: Course, now: Nanos) -> Vec<Action> {
        let mut actions = self.leave(course, now);
        for entry in &mut self.entries {
            if entry.stage == Stage::Serving {
                let grace = entry.terms.grace.saturating_add(SLACK);
                let until = now.saturating_add(grace);
                entry.stage = Stage::Leaving { until };
                actions.push(Action::Drain(entry.number));
            }
        }
        actions
    }

    fn stop(&mut self, now: Nanos) -> Vec<Action> {
        let mut actions = self.leave(Course::Stopping, now);
        let soon = now + AT_ONCE;
        for entry in &mut self.entries {
            let until = match entry.stage {
                Stage::Leaving { until } => until.min(soon),
                Stage::Serving => soon,
                _ => continue,
            };
            entry.stage = Stage::Leaving { until };
            actions.push(Action::Stop(entry.number));
        }
        actions
    }

    /// From now on nothing is started, and what starts is given up.
    fn leave(&mut self, course: Course, now: Nanos) -> Vec<Action> {
        self.course = course;
        self.wanted = None;
        self.restart_at = None;
        let mut actions = Vec::new();
        for number in self.numbers() {
            if self.end(number, Ending::GivenUp, now + AT_ONCE) {
                actions.push(Action::GiveUp(number));
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests;
