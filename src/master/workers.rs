//! The workers of a master: processes and channels beside the decisions of [`Pool`].

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pyo3::prelude::*;

use crate::link::Order;
use crate::log;
use crate::schedule::{Pool, Verdict};
use crate::scoreboard::{Row, Scoreboard, State};
use crate::sys::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::sys::process::{Child, Ended};
use crate::sys::seqpacket::{Channel, Received};
use crate::sys::signal::Inbox;
use crate::worker::order;

struct Process {
    child: Child,
    channel: Channel,
}

/// What the generation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
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

pub struct Workers {
    pool: Pool,
    processes: Vec<Option<Process>>,
    mood: Mood,
    hopeless: bool,
}

/// After an order to stop at once, for what a worker cannot interrupt.
const STOP_GRACE: Nanos = 500 * MILLISECOND;
/// Without a supervisor.
const ORPHAN_GRACE: Nanos = SECOND;

/// What [`Workers::wait`] found, beside the workers themselves.
pub struct Seen {
    pub supervisor: bool,
}

impl Workers {
    pub fn new(count: usize) -> Self {
        Self {
            pool: Pool::new(count),
            processes: (0..count).map(|_| None).collect(),
            mood: Mood::Serving,
            hopeless: false,
        }
    }

    /// A slot that is to get a worker now.
    pub fn due(&self, now: Nanos) -> Option<usize> {
        match self.mood {
            Mood::Serving => self.pool.due(now),
            _ => None,
        }
    }

    pub fn started(&mut self, slot: usize, pid: Pid, channel: Channel) -> std::io::Result<()> {
        let child = Child::adopt(pid)?;
        self.processes[slot] = Some(Process { child, channel });
        self.pool.started(slot);
        Ok(())
    }

    pub fn could_not_start(&mut self, slot: usize, now: Nanos) {
        if self.pool.start_failed(slot, now) == Verdict::GiveUp {
            self.hopeless = true;
        }
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

    /// Passes an order on to all workers; none is replaced any more.
    pub fn order(&mut self, order: Order, now: Nanos, grace: Nanos) {
        let (word, until) = match order {
            Order::Drain => (order::DRAIN, now.saturating_add(grace)),
            Order::Stop => (order::STOP, now + STOP_GRACE),
            Order::Scale { .. } => return,
        };
        self.mood = match self.mood {
            Mood::Serving => Mood::Leaving { until },
            // A second order only ever makes it quicker.
            Mood::Leaving { until: before } => Mood::Leaving {
                until: before.min(until),
            },
            orphaned @ Mood::Orphaned { .. } => orphaned,
        };
        self.tell(word);
    }

    /// The supervisor is gone.
    pub fn orphan(&mut self, now: Nanos) {
        let until = now + ORPHAN_GRACE;
        self.mood = Mood::Orphaned { until };
        self.tell(order::DRAIN);
    }

    fn tell(&self, word: &[u8]) {
        for process in self.processes.iter().flatten() {
            // One that does not take it is ending already.
            let _ = process.channel.send(word);
        }
    }

    /// Sleeps until something happens or is due. Python threads may run meanwhile.
    pub fn wait(
        &mut self,
        py: Python<'_>,
        supervisor: &Channel,
        signals: &Inbox,
        now: Nanos,
    ) -> Seen {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watch(signals.as_fd())];
        for process in self.processes.iter().flatten() {
            fds.push(watch(process.child.as_fd()));
            fds.push(watch(process.channel.as_fd()));
        }
        if !self.are_orphaned() {
            fds.push(watch(supervisor.as_fd()));
        }
        let until = match self.mood {
            Mood::Serving => self.pool.wake_at(),
            Mood::Leaving { until } | Mood::Orphaned { until } => Some(until),
        };
        let millis = clock::wait_millis(now, until);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let _ = py.detach(|| poll(&mut fds, timeout));
        if let Err(error) = py.check_signals() {
            let text = crate::python::traceback(py, &error);
            log::error!("a signal handler of the application raised\n{text}");
        }
        let supervisor = !self.are_orphaned()
            && fds
                .last()
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty());
        Seen { supervisor }
    }

    /// Takes note of what the workers have become.
    pub fn settle(&mut self, scoreboard: &Scoreboard, now: Nanos) {
        for slot in 0..self.processes.len() {
            self.hear(slot, now);
            self.reap(slot, scoreboard.row(slot), now);
        }
        if let Mood::Leaving { until } | Mood::Orphaned { until } = self.mood
            && until <= now
        {
            self.kill_the_rest(scoreboard);
            // Those in an uninterruptible sleep are asked again.
            let until = now + SECOND;
            self.mood = match self.mood {
                Mood::Orphaned { .. } => Mood::Orphaned { until },
                _ => Mood::Leaving { until },
            };
        }
    }

    fn hear(&mut self, slot: usize, now: Nanos) {
        if let Some(process) = &self.processes[slot]
            && let Ok(Received::Message(message)) = process.channel.receive()
            && message == order::READY
        {
            self.pool.ready(slot, now);
        }
    }

    fn reap(&mut self, slot: usize, row: &Row, now: Nanos) {
        let Some(process) = &self.processes[slot] else {
            return;
        };
        let ended = match process.child.try_reap() {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            Err(error) => {
                log::error!("cannot wait for worker {slot}: {error}");
                return;
            }
        };
        let pid = process.child.pid();
        self.processes[slot] = None;
        let was = row.state();
        row.set_state(State::Dead);
        if self.mood != Mood::Serving {
            if !ended.is_success() {
                log::warning!("worker {slot} (pid {pid}) {ended} while leaving");
            }
            return;
        }
        describe_end(slot, pid, ended, was, row, now);
        if self.pool.ended(slot, now) == Verdict::GiveUp {
            self.hopeless = true;
        }
    }

    fn kill_the_rest(&self, scoreboard: &Scoreboard) {
        for (slot, process) in self.processes.iter().enumerate() {
            let Some(process) = process else {
                continue;
            };
            let row = scoreboard.row(slot);
            let doing = match row.request_since() {
                Some(_) => format!("in {:?}", row.request_line()),
                None => row.state().name().into(),
            };
            let pid = process.child.pid();
            log::warning!("worker {slot} (pid {pid}) does not leave in time ({doing}): killing it");
            let _ = process.child.signal(Signal::SIGKILL);
        }
    }
}

/// Says what became of a worker that nobody had told to leave.
fn describe_end(slot: usize, pid: Pid, ended: Ended, was: State, row: &Row, now: Nanos) {
    let age = now.saturating_sub(row.started()) / MILLISECOND;
    let age = format!("{}.{:03} s", age / 1000, age % 1000);
    let doing = match row.request_since() {
        Some(since) => {
            let since = now.saturating_sub(since) / MILLISECOND;
            format!("{since} ms into {:?}", row.request_line())
        }
        None => was.name().to_owned(),
    };
    let connections = match row.connections() {
        0 => String::new(),
        1 => ", with 1 open connection".into(),
        n => format!(", with {n} open connections"),
    };
    let text = format!(
        "worker {slot} (pid {pid}) {ended} after {age}, {doing}{connections}; replacing it"
    );
    match ended.is_success() {
        true => log::info!("{text}"),
        false => log::error!("{text}"),
    }
}
