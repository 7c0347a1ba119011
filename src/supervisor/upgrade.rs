//! SIGUSR2: the supervisor executes the file it was started from anew, which may have been replaced.
//! Process number, listeners, masters and workers stay.
//!
//! ```text
//! asked -> nothing starts or is about to -> checking: the new program reads the arguments and the
//!       -> state, says that it could take over, leaves
//!       -> agreed -> nothing starts or is about to -> execve(2) -> the new program takes over
//! ```
//!
//! Whatever goes wrong on the way, the service goes on: a check that fails refuses the upgrade, an
//! execve that fails returns, and a new program that cannot take over after all executes the one before
//! it, which it was handed as a descriptor.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::hand_over::{self, HandOver, Task, VARIABLE};
use super::{SIGNALS, configuration};
use crate::config::Invocation;
use crate::error::{Error, Exit, Result};
use crate::link::{self, VERSION};
use crate::log;
use crate::sys::clock::{Nanos, SECOND};
use crate::sys::fd::{OnExec, claim, on_exec};
use crate::sys::process::{self, Child, Ended};
use crate::sys::seqpacket::{Channel, Received};
use crate::sys::signal::{Held, Inbox, repeat};

/// To read arguments and state.
const PATIENCE: Nanos = 10 * SECOND;

/// What the new program says when it could take over.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    version: String,
}

/// How far an upgrade has come.
pub enum Upgrade {
    Asked,
    Checking {
        child: Child,
        reply: Channel,
        until: Nanos,
        /// Its version, once it has agreed.
        agreed: Option<String>,
    },
    /// It took too long and is killed.
    Late {
        child: Child,
    },
    Agreed {
        version: String,
    },
}

impl Upgrade {
    /// Starts the check.
    pub fn check(
        program: &Path,
        arguments: &[OsString],
        state: &HandOver,
        now: Nanos,
    ) -> Result<Upgrade> {
        let refused = |error: std::io::Error| {
            Error::io(format_args!("cannot check {}", program.display()), &error)
        };
        let state = state.write().map_err(refused)?;
        let (reply, theirs) = Channel::pair().map_err(refused)?;
        let task = Task::Check {
            state: hand_over::number(&state),
            reply: hand_over::number(&theirs),
        };
        let mut command = Command::new(program);
        command.args(&arguments[1.min(arguments.len())..]);
        command.env(VARIABLE, task.write());
        let child = process::spawn(command, &[state.as_fd(), theirs.as_fd()]).map_err(refused)?;
        Ok(Upgrade::Checking {
            child,
            reply,
            until: now.saturating_add(PATIENCE),
            agreed: None,
        })
    }

    /// Takes note of what the check has come to.
    pub fn settle(self, program: &Path, now: Nanos) -> Result<Upgrade> {
        let shown = program.display();
        let refuse = |reason: String| Err(Error::new(Exit::Failed, format!("{shown} {reason}")));
        let (child, reply, until, mut agreed) = match self {
            Upgrade::Asked | Upgrade::Agreed { .. } => return Ok(self),
            Upgrade::Late { ref child } => {
                return match child.try_reap() {
                    Ok(None) => Ok(self),
                    _ => refuse(format!(
                        "took longer than {} s to be checked",
                        PATIENCE / SECOND
                    )),
                };
            }
            Upgrade::Checking {
                child,
                reply,
                until,
                agreed,
            } => (child, reply, until, agreed),
        };
        let ended = child.try_reap().unwrap_or(Some(Ended::Unknown));
        if let Ok(Received::Message(message)) = reply.receive() {
            let read: std::io::Result<Reply> = link::read(&message);
            // It goes into the log.
            let shown = |text: String| text.chars().filter(|c| !c.is_control()).take(40).collect();
            agreed = read.ok().map(|reply| shown(reply.version)).or(agreed);
        }
        match (ended, agreed) {
            (Some(Ended::Exited(0)), Some(version)) => Ok(Upgrade::Agreed { version }),
            (Some(Ended::Exited(0)), None) => refuse("did not say that it can take over".into()),
            (Some(ended), _) => refuse(format!("{ended} when it was checked")),
            (None, _) if until <= now => {
                let _ = child.signal(Signal::SIGKILL);
                Ok(Upgrade::Late { child })
            }
            (None, agreed) => Ok(Upgrade::Checking {
                child,
                reply,
                until,
                agreed,
            }),
        }
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        match self {
            Upgrade::Checking { until, .. } => Some(*until),
            Upgrade::Asked | Upgrade::Late { .. } | Upgrade::Agreed { .. } => None,
        }
    }

    /// The server stops.
    pub fn give_up(&self) {
        if let Upgrade::Checking { child, .. } = self {
            let _ = child.signal(Signal::SIGKILL);
        }
    }

    /// The new program while it is checked.
    fn checked(&self) -> Option<&Child> {
        match self {
            Upgrade::Checking { child, .. } | Upgrade::Late { child } => Some(child),
            Upgrade::Asked | Upgrade::Agreed { .. } => None,
        }
    }

    pub fn child(&self) -> Option<Pid> {
        self.checked().map(Child::pid)
    }

    pub fn watched(&self) -> Option<PollFd<'_>> {
        let child = self.checked()?;
        Some(PollFd::new(child.as_fd(), PollFlags::POLLIN))
    }
}

/// Where this program was started from; another file may be there by now.
pub fn program() -> Result<PathBuf> {
    let path = std::env::current_exe()
        .map_err(|error| Error::io("cannot determine the path of this program", &error))?;
    // proc_pid_exe(5): what the kernel adds when the file is gone.
    let text = path.to_string_lossy();
    match text.strip_suffix(" (deleted)") {
        Some(stripped) if !path.exists() => Ok(stripped.into()),
        _ => Ok(path),
    }
}

/// The new program while it is checked: whether it understands the arguments and the state.
pub fn answer(arguments: &[OsString], state: RawFd, reply: RawFd) -> Result<()> {
    let reply = claim(reply).map_err(|error| Error::io("nobody asked for a check", &error))?;
    let read = HandOver::read(state)?;
    match configuration(arguments)? {
        Invocation::Serve(_) | Invocation::Host(_) => {}
        _ => {
            return Err(Error::new(
                Exit::Config,
                "the arguments do not ask to serve",
            ));
        }
    }
    // Whoever asked tells it in the form of its log, which this process does not have.
    log::debug!("can take over from {}", read.version);
    let version = VERSION.into();
    link::send(&Channel::from_fd(reply), &Reply { version })
        .map_err(|error| Error::io("cannot answer", &error))
}

/// Executes `program` in the place of this one. Returns only when that failed; everything is as before.
pub fn execute(
    program: &Path,
    arguments: &[OsString],
    state: &HandOver,
    kept: &[BorrowedFd<'_>],
    signals: &Inbox,
) -> Error {
    let failed = |error: std::io::Error| {
        Error::io(format_args!("cannot execute {}", program.display()), &error)
    };
    let files = || Ok((state.write()?, File::open("/proc/self/exe")?));
    let (memory, before) = match files() {
        Ok(files) => files,
        Err(error) => return failed(error),
    };
    let task = Task::TakeOver {
        state: hand_over::number(&memory),
        before: hand_over::number(&before),
    };
    let own = [memory.as_fd(), before.as_fd()];
    let handed = || kept.iter().chain(&own);
    // A signal that arrives before the new program has handlers waits, and so do those that have
    // arrived and have not been obeyed.
    let held = match Held::new(&SIGNALS) {
        Ok(held) => held,
        Err(error) => return failed(error),
    };
    while let Some(signal) = signals.take() {
        let _ = repeat(signal);
    }
    let keep = |fd: &BorrowedFd<'_>| on_exec(*fd, OnExec::Keep);
    let error = match handed().try_for_each(keep) {
        Ok(()) => process::replace(program, arguments, &environment(task)),
        Err(error) => error,
    };
    for fd in handed() {
        let _ = on_exec(*fd, OnExec::Close);
    }
    drop(held);
    failed(error)
}

fn environment(task: Task) -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| name != VARIABLE)
        .chain([(VARIABLE.into(), task.write().into())])
        .collect()
}

/// The new program cannot take over: the one before does. Nothing of the state has been touched.
pub fn go_back(arguments: &[OsString], state: RawFd, before: RawFd, reason: &Error) -> Error {
    log::error!("cannot take over: {reason}; going back to the program before");
    let path = format!("/proc/self/fd/{before}");
    let task = Task::Return { state, before };
    let error = process::replace(Path::new(&path), arguments, &environment(task));
    Error::io("cannot execute the program before", &error)
}
