//! When one of many apps has processes: it waits for its turn, comes to rest, turns clients away.

#![forbid(unsafe_code)]

use nix::unistd::geteuid;

use crate::config::Settings;
use crate::log::Level;
use crate::net::Listener;
use crate::schedule::Number;
use crate::schedule::turns::Claim;
use crate::scoreboard::{Row, State};
use crate::supervisor::app::{App, News};
use crate::supervisor::record::LastReload;
use crate::sys::account;
use crate::sys::clock::{Nanos, SECOND, nanos};
use crate::sys::process::cpus;

/// How the listeners of an app are looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// By its workers.
    Workers,
    /// The first connection wakes it.
    Watched,
    /// Connections wait in the queue of the kernel: it is about to serve.
    Held,
    /// It cannot serve now: clients are told so.
    Closed,
}

/// Why an app turns clients away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It did not come up; it is tried again after this.
    Until(Nanos),
    /// It was stopped, and stays so until a reload.
    Stopped,
}

/// What is known of an app that is started when it is its turn.
#[derive(Debug, Default)]
pub struct Presence {
    /// Since when it wants to start.
    wants_since: Option<Nanos>,
    /// What a reload has read, until it is its turn.
    next: Option<Box<Settings>>,
    closed: Option<Closed>,
    /// It did not come up the last time.
    has_failed: bool,
    /// Its file is gone: it is to be forgotten once its processes are gone.
    is_retired: bool,
    /// What is wrong with its file, although it goes on with what that was before.
    pub mistake: Option<String>,
    /// Before that no touch of the file that asks for a reload counts.
    touch_counts_at: Nanos,
    /// Whose app it is.
    pub owner: u32,
    /// Connections that were turned away.
    pub turned_away: u64,
}

/// Between two reloads because of the file that asks for them: its user may touch it as often as that.
const TOUCH: Nanos = SECOND;

/// An app that has just answered is not taken for idle.
const IDLE_AT_LEAST: Nanos = SECOND;

impl Presence {
    pub fn of(settings: &Settings) -> Self {
        let mut presence = Self::default();
        presence.belongs_to(settings);
        presence
    }

    fn belongs_to(&mut self, settings: &Settings) {
        let user = settings.privileges.user.as_deref();
        let user = user.and_then(|user| account::user(user).ok());
        self.owner = user.unwrap_or_else(geteuid).as_raw();
    }

    pub fn came_up(&mut self, settings: &Settings) {
        self.has_failed = false;
        self.closed = None;
        self.belongs_to(settings);
    }

    pub fn did_not_come_up(&mut self) {
        self.has_failed = true;
    }

    pub fn is_queued(&self) -> bool {
        self.next.is_some()
    }
}

impl App {
    /// It is started when it is its turn, and a start that fails is not the end.
    pub fn is_managed(&self) -> bool {
        self.settings.is_managed()
    }

    pub fn is_retired(&self) -> bool {
        self.presence.is_retired
    }

    /// Whether it waits for its turn.
    pub fn wants_to_start(&self) -> bool {
        self.presence.wants_since.is_some()
    }

    /// Nothing serves, because it did not come up.
    pub fn is_failing(&self) -> bool {
        self.serving().is_none() && (self.presence.has_failed || self.presence.closed.is_some())
    }

    /// No process of it, and none is to be.
    pub fn is_at_rest(&self) -> bool {
        self.plan().is_resting() && self.generations.is_empty()
    }

    /// One word for people.
    pub fn condition(&self) -> &'static str {
        let plan = self.plan();
        match (self.serving().is_some(), self.presence.closed) {
            (_, Some(Closed::Stopped)) => "stopped",
            (true, _) if self.is_reloading() => "reloading",
            (true, _) => "serving",
            (false, Some(Closed::Until(_))) => "failing",
            (false, None) if plan.is_starting() => "starting",
            (false, None) if plan.restart_at().is_some() => "failing",
            (false, None) if self.presence.wants_since.is_some() => "waiting",
            (false, None) if self.generations.is_empty() => "at rest",
            (false, None) => "leaving",
        }
    }

    pub fn door(&self, now: Nanos) -> Door {
        let plan = self.plan();
        if !self.is_managed() || self.is_retired() || plan.is_stopping() || self.serving().is_some()
        {
            return Door::Workers;
        }
        match self.presence.closed {
            Some(Closed::Stopped) => Door::Closed,
            Some(Closed::Until(until)) if until > now => Door::Closed,
            _ if self.is_put_off(now) => Door::Closed,
            _ if plan.is_resting() && self.presence.wants_since.is_none() => Door::Watched,
            _ => Door::Held,
        }
    }

    /// The next try is not soon, or the last one failed.
    fn is_put_off(&self, now: Nanos) -> bool {
        let soon = now.saturating_add(SECOND);
        let at = self.plan().restart_at();
        at.is_some_and(|at| self.presence.has_failed || at > soon)
    }

    /// It is to be started when it is its turn.
    pub fn want(&mut self, now: Nanos) {
        self.presence.wants_since.get_or_insert(now);
        if let Some(Closed::Until(_)) = self.presence.closed {
            self.presence.closed = None;
        }
    }

    pub fn claim(&self, now: Nanos) -> Claim {
        let size = self.settings.workers.resolve(cpus()).max.saturating_add(1);
        let presence = &self.settings.presence;
        let plan = self.plan();
        let idle = self
            .idle_since()
            .filter(|since| presence.on_demand && now.saturating_sub(*since) >= IDLE_AT_LEAST);
        let coming = self.generations.iter().filter(|g| plan.is_coming(g.number));
        Claim {
            owner: self.presence.owner,
            is_reserved: presence.reserve || !presence.on_demand,
            size,
            is_here: !self.generations.is_empty(),
            starts_since: coming.map(|generation| generation.started).max(),
            wants_since: self.presence.wants_since.filter(|_| !plan.is_starting()),
            idle_since: idle,
            is_leaving: plan.is_resting() || plan.is_stopping(),
            has_failed: self.presence.has_failed,
        }
    }

    /// Since when it serves and nobody asks for anything.
    pub fn idle_since(&self) -> Option<Nanos> {
        let generation = self.serving()?;
        if self.is_reloading() || self.generations.len() > 1 {
            return None;
        }
        let all = generation.scoreboard.rows().iter();
        let rows = || all.clone().filter(|row| row.state() != State::Dead);
        if rows().any(|row| row.request_since().is_some()) {
            return None;
        }
        let last = rows().filter_map(Row::idle_since).max();
        Some(last.unwrap_or_default().max(generation.started))
    }

    /// When it stops for want of anything to do, if nothing happens before.
    pub fn rests_at(&self) -> Option<Nanos> {
        let presence = &self.settings.presence;
        let patience = nanos(presence.idle_exit.filter(|_| presence.on_demand)?);
        Some(self.idle_since()?.saturating_add(patience))
    }

    /// When something is due for it that no process tells of.
    pub fn turn_wake_at(&self) -> Option<Nanos> {
        let until = match self.presence.closed {
            Some(Closed::Until(until)) => Some(until),
            _ => None,
        };
        let given_up = self.given_up_at();
        self.rests_at()
            .into_iter()
            .chain(until)
            .chain(given_up)
            .min()
    }

    /// The master of this generation says that the file that asks for a reload was touched.
    pub fn was_touched(&mut self, number: Number, now: Nanos) {
        let Some(file) = self.settings.presence.restart_file.clone() else {
            return;
        };
        let serves = self
            .serving()
            .is_some_and(|serving| serving.number == number);
        if !serves || self.is_reloading() || now < self.presence.touch_counts_at {
            return;
        }
        self.presence.touch_counts_at = now + TOUCH;
        let (name, file) = (&self.settings.name, file.display());
        self.say(Level::Info, format_args!("{name}: {file} was touched"));
        self.replace_by(self.settings.clone(), now);
    }

    /// When those who wait for it are told that it is not going to serve.
    fn given_up_at(&self) -> Option<Nanos> {
        let waits = self.presence.wants_since?;
        let is_on_its_way = self.serving().is_some() || self.plan().is_starting();
        let patience = nanos(self.settings.limits.start_timeout);
        (!is_on_its_way && self.settings.presence.on_demand).then(|| waits.saturating_add(patience))
    }

    /// What is due by now.
    pub fn settle_presence(&mut self, now: Nanos) {
        if let Some(Closed::Until(until)) = self.presence.closed
            && until <= now
        {
            self.presence.closed = None;
        }
        if self.given_up_at().is_some_and(|at| at <= now) {
            self.say(
                Level::Warning,
                format_args!(
                    "{}: there was no room for it in time (--max-processes, --max-starting); its clients are turned away",
                    self.settings.name
                ),
            );
            self.presence.wants_since = None;
            self.presence.closed = Some(Closed::Until(now + SECOND));
        }
        if self.rests_at().is_some_and(|at| at <= now) {
            self.go_to_rest("nobody has asked for anything for --idle-exit", now);
        }
    }

    /// Its processes leave; the next connection wakes it.
    pub fn go_to_rest(&mut self, why: &str, now: Nanos) {
        let name = &self.settings.name;
        self.say(
            Level::Info,
            format_args!("{name}: its processes leave: {why}"),
        );
        self.status = "at rest".into();
        self.presence.wants_since = None;
        self.come_to_rest(now);
    }

    /// One that did not come up, or was lost, waits for the next connection.
    pub fn rest_until(&mut self, until: Nanos, now: Nanos) {
        self.presence.closed = Some(Closed::Until(until));
        self.status = "at rest".into();
        self.come_to_rest(now);
    }

    /// Its processes leave; one that is on demand is woken by the next connection, another stays stopped
    /// until a reload.
    pub fn halt(&mut self, now: Nanos) {
        self.presence.next = None;
        self.go_to_rest("asked to stop", now);
        if !self.settings.presence.on_demand {
            self.presence.closed = Some(Closed::Stopped);
            self.status = "stopped".into();
        }
    }

    /// Its processes leave, and it stays so until a reload.
    pub fn halt_until_reload(&mut self, now: Nanos) {
        self.presence.next = None;
        self.go_to_rest("until a reload", now);
        self.presence.closed = Some(Closed::Stopped);
        self.status = "stopped".into();
    }

    /// What leaves does so now.
    pub fn hurry(&self, _now: Nanos) {
        for generation in &self.generations {
            generation.order(crate::link::Order::Stop);
        }
    }

    /// It is its turn: it begins, or the next generation does.
    pub fn take_turn(&mut self, now: Nanos) -> Option<News> {
        self.presence.wants_since = None;
        match self.presence.next.take() {
            Some(next) => {
                if self.serving().is_none() {
                    // There is nothing to go back to.
                    self.own_logs.renew(&next);
                    self.become_of((*next).clone());
                }
                self.reload(*next, now)
            }
            None => self.begin(now),
        }
    }

    /// These settings take the place of those it has, when it is its turn; at once if it is at rest.
    pub fn renew(&mut self, next: Settings, now: Nanos) {
        if self.is_at_rest() && self.presence.closed.is_none() {
            self.presence.belongs_to(&next);
            self.own_logs.renew(&next);
            self.become_of(next);
            if !self.settings.presence.on_demand {
                self.want(now);
            }
            return;
        }
        self.replace_by(next, now);
    }

    /// The same with a generation that has to come up, whatever it does now.
    pub fn replace_by(&mut self, next: Settings, now: Nanos) {
        self.presence.closed = None;
        self.presence.next = Some(Box::new(next));
        self.reload = Some(LastReload::begin(now));
        self.story.because_of("reload", now);
        self.want(now);
    }

    /// Its file is gone: nobody can reach it any more, and what runs is finished.
    pub fn retire(&mut self, now: Nanos) {
        self.presence.is_retired = true;
        self.presence.wants_since = None;
        self.presence.next = None;
        // The files are ours to remove again, whoever was to keep them.
        self.listeners.iter_mut().for_each(Listener::take_back_file);
        self.listeners.clear();
        self.drain(now);
    }
}
