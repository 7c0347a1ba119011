//! `--check`: imports the application, reports and leaves.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags};

use super::generation::{Doors, Failure, Generation, Said};
use super::{print, sleep};
use crate::config::{Settings, show_duration};
use crate::error::{Error, Exit, Result};
use crate::link::Purpose;
use crate::sys::clock::{self, SECOND, nanos};

pub fn check(settings: &Settings) -> Result<()> {
    let now = clock::now();
    let mut generation = Generation::start(1, settings, Doors::default(), Purpose::Check, now)?;
    let patience = nanos(settings.limits.start_timeout);
    let deadline = now.saturating_add(patience);
    loop {
        // In this order: what has ended has said all it had to say.
        let ended = generation.try_reap();
        match generation.hear() {
            Said::Ready { python, .. } => {
                dismiss(&mut generation);
                return print(&format!("{}: ok (Python {python})\n", settings.target));
            }
            Said::Failed(Failure { reason, traceback }) => {
                dismiss(&mut generation);
                let message = format!("cannot serve {}: {reason}\n{traceback}", settings.target);
                return Err(Error::new(Exit::Config, message.trim_end()));
            }
            Said::Nothing | Said::Touched | Said::Answered { .. } | Said::Answer(_) => {}
        }
        if let Some(ended) = ended {
            if let Some(error) = generation.not_executed() {
                return Err(error);
            }
            let message = format!(
                "cannot serve {}: the master ended, {ended}",
                settings.target
            );
            return Err(Error::new(Exit::Config, message));
        }
        let now = clock::now();
        if now >= deadline {
            generation.kill();
            let message = format!(
                "cannot serve {}: importing it took longer than --start-timeout ({})",
                settings.target,
                show_duration(settings.limits.start_timeout)
            );
            return Err(Error::new(Exit::Config, message));
        }
        let mut fds = [
            PollFd::new(generation.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(generation.child.as_fd(), PollFlags::POLLIN),
        ];
        sleep(&mut fds, now, Some(deadline));
    }
}

/// Gives a master that has done its work a moment for its `atexit` functions.
pub fn dismiss(generation: &mut Generation) {
    let deadline = clock::now() + SECOND;
    while generation.try_reap().is_none() {
        let now = clock::now();
        if now >= deadline {
            generation.kill();
            return;
        }
        let mut fds = [PollFd::new(generation.child.as_fd(), PollFlags::POLLIN)];
        sleep(&mut fds, clock::now(), Some(deadline));
    }
}
