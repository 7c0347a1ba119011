//! `--daemon`: leaves the terminal behind (daemon(7)). The command that was launched waits for the
//! outcome of the start and has its exit status; the message comes from the daemon itself, which keeps
//! standard error until then.
//!
//! Detaching is the business of the `daemonize` crate; users, groups and the pid file are not: they have
//! their places in this program.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use daemonize::{Daemonize, Outcome, Stdio};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};

use crate::error::{Error, Exit, Result};

/// Where [`detach`] returns.
pub enum Side {
    /// In the command that was launched, when the outcome is known.
    Launcher(ExitCode),
    Daemon(Launch),
}

/// The start as the daemon sees it: somebody waits for its outcome.
pub struct Launch {
    outcome: PipeWriter,
}

/// Returns twice. To be called while there is one thread, before anything is opened that the launcher
/// should not have.
pub fn detach() -> Result<Side> {
    let failed = |error: &std::io::Error| Error::io("cannot detach from the terminal", error);
    let (mut wait, outcome) = std::io::pipe().map_err(|error| failed(&error))?;
    let directory = std::env::current_dir().map_err(|error| failed(&error))?;
    // The working directory stays, because a reload reads relative paths anew, and so does the umask.
    let daemonize = Daemonize::new()
        .working_directory(directory)
        .umask(current_umask().bits())
        .stderr(Stdio::keep());
    let refused = |error: daemonize::Error| {
        let message = format!("cannot detach from the terminal: {error}");
        Error::new(Exit::Os, message)
    };
    match daemonize.execute() {
        Outcome::Parent(forked) => {
            forked.map_err(refused)?;
            drop(outcome);
            let mut status = [0];
            match wait.read_exact(&mut status) {
                Ok(()) => Ok(Side::Launcher(ExitCode::from(status[0]))),
                Err(_) => {
                    let message =
                        "the server ended before it was ready and without a word; see its log";
                    Err(Error::new(Exit::Failed, message))
                }
            }
        }
        Outcome::Child(detached) => {
            drop(wait);
            let launch = Launch { outcome };
            match detached {
                Ok(_) => Ok(Side::Daemon(launch)),
                Err(error) => {
                    let error = refused(error);
                    let status = error.exit();
                    crate::log::error!("{error}");
                    launch.fail(status);
                    Ok(Side::Launcher(status.into()))
                }
            }
        }
    }
}

/// umask(2) only tells while it sets.
fn current_umask() -> Mode {
    let mask = umask(Mode::empty());
    umask(mask);
    mask
}

impl Launch {
    /// The server is ready: lets go of the terminal, then of the launcher.
    ///
    /// # Errors
    /// The launcher is gone: whoever started this takes it for failed.
    pub fn succeed(mut self) -> Result<()> {
        File::options()
            .write(true)
            .open("/dev/null")
            .and_then(|null| Ok(nix::unistd::dup2_stderr(null)?))
            .map_err(|error| Error::io("cannot let go of standard error", &error))?;
        self.outcome
            .write_all(&[Exit::Stopped as u8])
            .map_err(|_| abandoned())
    }

    /// What has been said on standard error is all there is to say.
    pub fn fail(mut self, exit: Exit) {
        let _ = self.outcome.write_all(&[exit as u8]);
    }

    /// Wakes the event loop when the launcher is gone.
    pub fn watched(&self) -> PollFd<'_> {
        PollFd::new(self.outcome.as_fd(), PollFlags::empty())
    }

    /// # Errors
    /// The launcher is gone.
    pub fn check(&self) -> Result<()> {
        let mut fds = [self.watched()];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        let gone = fds[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR));
        if gone { Err(abandoned()) } else { Ok(()) }
    }
}

fn abandoned() -> Error {
    let message = "the command that started the daemon was ended before it was ready";
    Error::new(Exit::Failed, message)
}
