//! The workers of a master: processes and channels beside the decisions of [`Pool`].

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;
use pyo3::prelude::*;

use super::answers::Answers;
use super::care::Care;
use super::crowd::Crowd;
use super::outbox::Outbox;
use super::stacks::Stacks;
use super::touch::Touch;
use super::wards::Wards;
use crate::access::Ledger;
use crate::config::Settings;
use crate::link::{Order, Report};
use crate::log;
use crate::net::Listener;
use crate::python::run_signal_handlers;
use crate::relay::Relay;
use crate::schedule::{Bounds, Pool, Verdict};
use crate::scoreboard::{Counter, Row, Scoreboard, Size};
use crate::sys::clock::{self, MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::process::Child;
use crate::sys::seqpacket::{Channel, Received};
use crate::sys::signal::Inbox;
use crate::worker::order;

/// The way to a worker.
enum Line {
    Open(Channel),
    /// The worker has closed its end: it ends at any moment, or hangs on its way out.
    Closed(Nanos),
}

impl Line {
    fn open(&self) -> Option<&Channel> {
        match self {
            Line::Open(channel) => Some(channel),
            Line::Closed(_) => None,
        }
    }
}

pub(super) struct Process {
    pub(super) child: Child,
    channel: Line,
    pub(super) stacks: Stacks,
    /// To its watcher, which listens when nothing else of it does.
    pub(super) call: Channel,
    /// Its watcher was told that it is about to be killed.
    pub(super) is_called: bool,
    /// The request it was killed over was answered in its stead.
    pub(super) was_answered: bool,
    /// It has said that it could serve. Before that a signal might end it.
    pub(super) is_up: bool,
    /// Told to leave: it is killed at this time.
    pub(super) leave_by: Option<Nanos>,
}

/// What the generation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Serving,
    /// Workers that are left at this time are killed.
    Leaving {
        until: Nanos,
    },
    /// The same, without a supervisor.
    Orphaned {
        until: Nanos,
    },
}

/// Whether workers may take connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    /// The supervisor has not decided yet that this generation is to serve.
    Awaited,
    Given,
}

pub struct Workers {
    pub(super) pool: Pool,
    pub(super) processes: Vec<Option<Process>>,
    pub(super) mood: Mood,
    permission: Permission,
    /// The next generation takes over what this one cannot finish.
    pub(super) has_heirs: bool,
    hopeless: bool,
    graceful_timeout: Nanos,
    care: Care,
    crowd: Crowd,
    pub(super) answers: Answers,
    /// What is to be said to the supervisor.
    pub(super) outbox: Outbox,
    /// Of one of many apps.
    wards: Option<Wards>,
    touch: Option<Touch>,
}

/// After an order to stop at once, for what a worker cannot interrupt.
const STOP_GRACE: Nanos = 500 * MILLISECOND;
/// Between the end of a channel and that of its process, usually microseconds.
const SILENCE: Nanos = 100 * MILLISECOND;
/// Without a supervisor.
const ORPHAN_GRACE: Nanos = SECOND;

/// Where connections come from.
#[derive(Clone, Copy)]
pub struct Doors<'a> {
    pub listeners: &'a [Listener],
    /// Written by a worker that cannot take a connection it was woken for.
    pub nudge: &'a EventFd,
    pub relay: Option<&'a Relay>,
    /// Where the requests of dead workers are told.
    pub ledger: Option<&'a Ledger>,
}

/// What [`Workers::wait`] found, beside the workers themselves.
pub struct Seen {
    pub supervisor: bool,
}

impl Workers {
    pub fn new(
        settings: &Settings,
        bounds: Bounds,
        slots: usize,
        touch: Option<Touch>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            pool: Pool::new(bounds, slots),
            processes: (0..slots).map(|_| None).collect(),
            mood: Mood::Serving,
            permission: Permission::Awaited,
            has_heirs: false,
            hopeless: false,
            graceful_timeout: nanos(settings.limits.graceful_timeout),
            care: Care::new(settings, slots, clock::now()),
            crowd: Crowd::new()?,
            answers: Answers::default(),
            outbox: Outbox::default(),
            wards: settings.is_hosted().then(|| Wards::new(clock::now())),
            touch,
        })
    }

    /// A slot that is to get a worker now.
    pub fn take_due(&mut self, now: Nanos) -> Option<usize> {
        match self.mood {
            Mood::Serving => self.pool.take_due(now),
            _ => None,
        }
    }

    pub fn started(
        &mut self,
        slot: usize,
        pid: Pid,
        (channel, stacks, call): (Channel, Stacks, Channel),
    ) -> std::io::Result<()> {
        let child = Child::adopt(pid)?;
        if self.permission == Permission::Given {
            let _ = channel.send(order::SERVE);
        }
        self.processes[slot] = Some(Process {
            child,
            channel: Line::Open(channel),
            stacks,
            call,
            is_called: false,
            was_answered: false,
            is_up: false,
            leave_by: None,
        });
        Ok(())
    }

    pub fn could_not_start(&mut self, slot: usize, now: Nanos) {
        let verdict = self.pool.ended(slot, now);
        self.take_verdict(verdict);
    }

    /// True once, when the generation cannot be brought up.
    pub fn is_hopeless(&mut self) -> bool {
        std::mem::take(&mut self.hopeless)
    }

    pub fn is_complete(&self) -> bool {
        self.mood == Mood::Serving && self.pool.is_complete()
    }

    /// Leaving, and nobody is left.
    pub fn are_gone(&self) -> bool {
        self.mood != Mood::Serving && self.processes.iter().all(Option::is_none)
    }

    pub fn are_orphaned(&self) -> bool {
        matches!(self.mood, Mood::Orphaned { .. })
    }

    /// Does what the supervisor has ordered.
    pub fn obey(&mut self, order: Order, scoreboard: &Scoreboard, now: Nanos) {
        let (word, until) = match order {
            Order::Drain => (order::DRAIN, now.saturating_add(self.graceful_timeout)),
            Order::HandOver => (order::HAND_OVER, now.saturating_add(self.graceful_timeout)),
            Order::Stop => (order::STOP, now + STOP_GRACE),
            Order::Scale { by } => return self.scale(by, scoreboard, now),
            order @ (Order::Resize { .. }
            | Order::Recycle { .. }
            | Order::Trace { .. }
            | Order::Sample { .. }) => return self.answer(order, scoreboard, now),
            Order::Serve => {
                self.permission = Permission::Given;
                return self.tell_all(order::SERVE);
            }
        };
        self.has_heirs = order == Order::HandOver;
        self.mood = match self.mood {
            Mood::Serving => Mood::Leaving { until },
            // A second order only ever makes it quicker.
            Mood::Leaving { until: before } => Mood::Leaving {
                until: before.min(until),
            },
            orphaned @ Mood::Orphaned { .. } => orphaned,
        };
        self.tell_all(word);
    }

    pub(super) fn scale(&mut self, by: i32, scoreboard: &Scoreboard, now: Nanos) {
        let Bounds { min, max } = self.pool.scale(by);
        match min == max {
            true => log::info!("the pool has {min} workers now"),
            false => log::info!("the pool has {min} to {max} workers now"),
        }
        while self.pool.excess() > 0 {
            let Some(slot) = self.laziest(scoreboard) else {
                return;
            };
            self.dismiss(slot, now);
        }
    }

    /// The supervisor is gone.
    pub fn orphan(&mut self, now: Nanos) {
        let until = now + ORPHAN_GRACE;
        self.mood = Mood::Orphaned { until };
        self.tell_all(order::DRAIN);
    }

    fn tell_all(&self, word: &[u8]) {
        let processes = self.processes.iter().flatten();
        for channel in processes.filter_map(|process| process.channel.open()) {
            // One that does not take it is ending already.
            let _ = channel.send(word);
        }
    }

    /// Lets one worker finish and leave.
    pub(super) fn dismiss(&mut self, slot: usize, now: Nanos) {
        if let Some(process) = &self.processes[slot]
            && let Some(channel) = process.channel.open()
        {
            // Its siblings serve on.
            let _ = channel.send(order::HAND_OVER);
        }
        self.leaves(slot, now);
    }

    /// A worker is about to leave, for whatever reason: another takes its place at once.
    fn leaves(&mut self, slot: usize, now: Nanos) {
        self.pool.leaves(slot);
        if let Some(process) = &mut self.processes[slot] {
            let by = now.saturating_add(self.graceful_timeout);
            process.leave_by.get_or_insert(by);
        }
    }

    /// The serving worker that would be missed least: idle for the longest time, without
    /// connections if there is one.
    pub(super) fn laziest(&self, scoreboard: &Scoreboard) -> Option<usize> {
        let serving = (0..self.processes.len()).filter(|slot| self.pool.is_serving(*slot));
        serving.min_by_key(|slot| {
            let row = scoreboard.row(*slot);
            (
                row.connections() > 0,
                row.idle_since().unwrap_or(Nanos::MAX),
            )
        })
    }

    /// Told by a signal to leave.
    pub fn is_signalled(&mut self) {
        if let Some(wards) = &mut self.wards {
            wards.are_ours();
        }
    }

    /// What is left is for the supervisor to end, if there is one.
    pub fn part_from_wards(&mut self) {
        let is_orphaned = self.are_orphaned();
        if let Some(wards) = &mut self.wards {
            if is_orphaned {
                wards.are_ours();
            }
            wards.part();
        }
    }

    /// Sleeps until something happens or is due. Python threads may run meanwhile.
    pub fn wait(
        &mut self,
        py: Python<'_>,
        supervisor: &Channel,
        signals: &Inbox,
        scoreboard: &Scoreboard,
        now: Nanos,
    ) -> Seen {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watch(signals.as_fd())];
        // Otherwise nobody is started for those who wait.
        if self.mood == Mood::Serving && self.pool.can_grow() && self.crowd.listens() {
            fds.push(watch(self.crowd.as_fd()));
        }
        for process in self.processes.iter().flatten() {
            fds.push(watch(process.child.as_fd()));
            fds.extend(process.channel.open().map(|channel| watch(channel.as_fd())));
            fds.extend(process.stacks.watched().map(watch));
        }
        if !self.are_orphaned() {
            let events = match self.outbox.is_empty() {
                true => PollFlags::POLLIN,
                false => PollFlags::POLLIN | PollFlags::POLLOUT,
            };
            fds.push(PollFd::new(supervisor.as_fd(), events));
        }
        let until = match self.mood {
            Mood::Serving => self.wake_at(scoreboard, now),
            Mood::Leaving { until } => {
                let requests = self.requests_at(&self.care, scoreboard, now);
                requests.into_iter().chain([until]).min()
            }
            Mood::Orphaned { until } => Some(until),
        };
        let wards = self.wards.as_ref().map(Wards::wake_at);
        let serves = self.mood == Mood::Serving && self.permission == Permission::Given;
        let touch = self.touch.as_ref().filter(|_| serves).map(Touch::wake_at);
        let until = until.into_iter().chain(self.answers_at(now));
        let until = until.chain(wards).chain(touch).min();
        self.care.watch.sleep(until);
        let millis = clock::wait_millis(now, until);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let _ = py.detach(|| poll(&mut fds, timeout));
        run_signal_handlers(py);
        let supervisor = !self.are_orphaned()
            && fds
                .last()
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty());
        Seen { supervisor }
    }

    fn wake_at(&self, scoreboard: &Scoreboard, now: Nanos) -> Option<Nanos> {
        let leaving = self.processes.iter().flatten().filter_map(|p| p.leave_by);
        let silent = self.processes.iter().flatten().filter_map(|p| match p {
            Process {
                channel: Line::Closed(since),
                leave_by: None,
                ..
            } => Some(since + SILENCE),
            _ => None,
        });
        leaving
            .chain(silent)
            .chain(self.pool.wake_at())
            .chain(self.crowd.wake_at())
            .chain(self.care_at(&self.care, scoreboard, now))
            .min()
    }

    /// Takes note of what the workers have become and does what is due.
    pub fn settle(&mut self, scoreboard: &Scoreboard, doors: Doors<'_>, now: Nanos) {
        self.care.watch.wake(now);
        for slot in 0..self.processes.len() {
            if self.processes[slot].is_some() {
                self.hear(slot, scoreboard, doors, now);
                self.collect(slot, now);
                self.reap(slot, scoreboard, doors.ledger, now);
                self.replace_silent(slot, now);
            }
        }
        self.sample(scoreboard, now);
        if let Some(wards) = &mut self.wards {
            let workers = || self.processes.iter().flatten();
            wards.look(|pid| workers().any(|worker| worker.child.pid() == pid), now);
        }
        match self.mood {
            Mood::Serving => {
                self.tend(scoreboard, now, Self::take_care);
                self.look_for_touch(now);
                let overdue = |process: &Process| process.leave_by.is_some_and(|by| by <= now);
                self.kill(scoreboard, overdue, now);
                self.attend_to_crowd(scoreboard, doors, now);
            }
            Mood::Leaving { until } | Mood::Orphaned { until } if until <= now => {
                let until = self.kill(scoreboard, |_| true, now);
                self.mood = match self.mood {
                    Mood::Orphaned { .. } => Mood::Orphaned { until },
                    _ => Mood::Leaving { until },
                };
            }
            Mood::Leaving { .. } => self.tend(scoreboard, now, Self::watch_requests),
            Mood::Orphaned { .. } => {}
        }
        self.publish(scoreboard);
    }

    fn look_for_touch(&mut self, now: Nanos) {
        let is_touched = |touch: &mut Touch| touch.look(now);
        if self.permission == Permission::Given && self.touch.as_mut().is_some_and(is_touched) {
            self.outbox.put(&Report::Touched);
        }
    }

    /// The size of the pool, for whoever looks at the scoreboard.
    fn publish(&self, scoreboard: &Scoreboard) {
        let Bounds { min, max } = self.pool.bounds();
        let [min, max, target] = [min, max, self.pool.target()].map(|n| n as u32);
        scoreboard.pool().set_size(Size { min, max, target });
    }

    fn tend(
        &mut self,
        scoreboard: &Scoreboard,
        now: Nanos,
        look: impl FnOnce(&mut Self, &mut Care, &Scoreboard, Nanos),
    ) {
        // Lent to itself: care acts upon the processes it looks at.
        let mut care = std::mem::take(&mut self.care);
        look(self, &mut care, scoreboard, now);
        self.care = care;
    }

    fn attend_to_crowd(&mut self, scoreboard: &Scoreboard, doors: Doors<'_>, now: Nanos) {
        if !self.pool.can_grow() {
            self.crowd.disperse();
            return;
        }
        let serving = (0..self.processes.len()).filter(|slot| self.pool.is_serving(*slot));
        let rows: Vec<(Pid, &Row)> = serving
            .filter_map(|slot| {
                Some((
                    self.processes[slot].as_ref()?.child.pid(),
                    scoreboard.row(slot),
                ))
            })
            .collect();
        let starting = self.pool.is_starting();
        if self.crowd.wants_another(&rows, starting, doors, now) && self.pool.grow() {
            log::info!(
                "all {} workers are busy and somebody waits: starting another",
                rows.len()
            );
        }
    }

    fn hear(&mut self, slot: usize, scoreboard: &Scoreboard, doors: Doors<'_>, now: Nanos) {
        let counts = scoreboard.pool();
        while let Some(process) = &mut self.processes[slot]
            && let Some(channel) = process.channel.open()
        {
            let message = match channel.receive() {
                Ok(Received::Message(message)) => message,
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) | Err(_) => {
                    process.channel = Line::Closed(now);
                    return;
                }
            };
            match message.as_slice() {
                order::READY => {
                    process.is_up = true;
                    log::debug!("worker {slot} is ready");
                    if let Some(old) = self.pool.ready(slot, now) {
                        self.dismiss(old, now);
                    }
                }
                order::LISTENS => {
                    if let Err(error) = self.crowd.stand_behind(doors) {
                        log::error!("cannot watch for waiting connections: {error}");
                    }
                }
                order::WORN => {
                    log::info!("worker {slot} has served its number of requests: replacing it");
                    counts.count(Counter::RecycledRequests, 1);
                    self.pool.wear_out(slot);
                }
                order::LEAVING if self.pool.is_serving(slot) => {
                    log::info!("worker {slot} was told by a signal to leave: replacing it");
                    counts.count(Counter::RecycledAsked, 1);
                    // While the generation leaves nobody else does.
                    match self.mood {
                        Mood::Serving => self.dismiss(slot, now),
                        _ => self.leaves(slot, now),
                    }
                }
                _ => {}
            }
        }
    }

    /// A worker that has closed its channel and does not end serves nobody any more.
    fn replace_silent(&mut self, slot: usize, now: Nanos) {
        if let Some(process) = &self.processes[slot]
            && let Line::Closed(since) = process.channel
            && self.pool.is_serving(slot)
            && now >= since + SILENCE
        {
            log::info!("worker {slot} is leaving by itself: replacing it");
            self.leaves(slot, now);
        }
    }

    pub(super) fn take_verdict(&mut self, verdict: Verdict) {
        self.hopeless |= verdict == Verdict::GiveUp;
    }
}
