//! One generation as the supervisor sees it: a master process, a channel to it, its scoreboard.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use nix::sys::signal::Signal;

use super::interpreter;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::link::{self, Assignment, Order, Purpose, Report, VERSION};
use crate::log;
use crate::net::Listener;
use crate::schedule::Pool;
use crate::scoreboard::Scoreboard;
use crate::sys::clock::{MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::process::{self, Child, Ended};
use crate::sys::seqpacket::{Channel, Received};

/// Where a generation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is given up at this time if it is not ready.
    Starting {
        until: Nanos,
    },
    Serving,
    /// What is left of it is killed at this time.
    Leaving {
        until: Nanos,
    },
}

/// What a master has to say.
pub enum Said {
    Nothing,
    Ready { python: String },
    Failed { reason: String, traceback: String },
}

pub struct Generation {
    pub number: u64,
    pub stage: Stage,
    pub started: Nanos,
    pub child: Child,
    pub channel: Channel,
    /// The master has closed its end.
    is_silent: bool,
    pub scoreboard: Scoreboard,
}

/// Beyond the time limits that the master itself observes.
const SLACK: Nanos = 2 * SECOND;
/// A master kills what does not stop at once after 0.5 s.
const STOP_GRACE: Nanos = SECOND;

impl Generation {
    pub fn start(
        number: u64,
        settings: &Settings,
        listeners: &[Listener],
        purpose: Purpose,
        now: Nanos,
    ) -> Result<Self> {
        let most = settings.workers.resolve(process::cpus()).max as usize;
        let refused = |what: &str, error: std::io::Error| Error::io(what, &error);
        let scoreboard = Scoreboard::create(Pool::slots_for(most))
            .map_err(|error| refused("cannot create the scoreboard", error))?;
        let (channel, theirs) = Channel::pair()
            .map_err(|error| refused("cannot create a channel to the master", error))?;
        let mut settings = settings.clone();
        let command = interpreter::command(&settings.interpreter, theirs.as_fd().as_raw_fd())?;
        // It is in the environment of the command, and may be too long for a message.
        settings.interpreter.env.clear();
        let patience = nanos(settings.limits.start_timeout);
        let assignment = Assignment {
            version: VERSION.into(),
            purpose,
            generation: number,
            supervisor: nix::unistd::getpid().as_raw(),
            settings,
            listeners: listeners.iter().map(Listener::spec).collect(),
            scoreboard: scoreboard.as_fd().as_raw_fd(),
        };
        link::send(&channel, &assignment)
            .map_err(|error| refused("cannot send the master its assignment", error))?;
        let program = command.get_program().to_owned();
        let mut pass = vec![theirs.as_fd(), scoreboard.as_fd()];
        pass.extend(listeners.iter().map(AsFd::as_fd));
        let child = process::spawn(command, &pass).map_err(|error| {
            Error::io(format_args!("cannot execute {}", program.display()), &error)
        })?;
        Ok(Self {
            number,
            stage: Stage::Starting {
                until: now.saturating_add(patience),
            },
            started: now,
            child,
            channel,
            is_silent: false,
            scoreboard,
        })
    }

    /// Reads one report.
    pub fn hear(&mut self) -> Said {
        let message = match self.channel.receive() {
            Ok(Received::Message(message)) => message,
            Ok(Received::Nothing) => return Said::Nothing,
            Ok(Received::Closed) => {
                self.is_silent = true;
                return Said::Nothing;
            }
            Err(error) => {
                log::error!("generation {}: {error}", self.number);
                self.is_silent = true;
                return Said::Nothing;
            }
        };
        match link::read(&message) {
            Ok(Report::Ready { python, .. }) => Said::Ready { python },
            Ok(Report::Failed { reason, traceback }) => Said::Failed { reason, traceback },
            Err(error) => {
                log::error!("generation {}: unreadable report: {error}", self.number);
                Said::Nothing
            }
        }
    }

    /// Whether there is nothing more to be heard from it.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Lets it finish what runs, for at most `grace`.
    pub fn drain(&mut self, now: Nanos, grace: Nanos) {
        self.order(
            Order::Drain,
            now.saturating_add(grace).saturating_add(SLACK),
        );
    }

    pub fn stop(&mut self, now: Nanos) {
        self.order(Order::Stop, now + STOP_GRACE);
    }

    fn order(&mut self, order: Order, until: Nanos) {
        let _ = link::send(&self.channel, &order);
        self.stage = match self.stage {
            Stage::Starting { .. } => {
                // It imports, does not listen, and serves nobody.
                let _ = self.child.signal(Signal::SIGTERM);
                Stage::Leaving { until }
            }
            Stage::Serving => Stage::Leaving { until },
            Stage::Leaving { until: before } => Stage::Leaving {
                until: before.min(until),
            },
        };
    }

    pub fn kill(&mut self, now: Nanos) {
        let _ = self.child.signal(Signal::SIGKILL);
        // One in an uninterruptible sleep is asked again.
        self.stage = Stage::Leaving {
            until: now + SECOND,
        };
    }

    pub fn try_reap(&self) -> Option<Ended> {
        match self.child.try_reap() {
            Ok(ended) => ended,
            Err(error) => {
                log::error!("cannot wait for generation {}: {error}", self.number);
                None
            }
        }
    }

    /// When something has to happen although nobody says anything.
    pub fn wake_at(&self) -> Option<Nanos> {
        match self.stage {
            Stage::Starting { until } | Stage::Leaving { until } => Some(until),
            Stage::Serving => None,
        }
    }

    pub fn millis_since_start(&self, now: Nanos) -> u64 {
        now.saturating_sub(self.started) / MILLISECOND
    }
}
