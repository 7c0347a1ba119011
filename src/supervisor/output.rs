//! What the processes of one generation write: entries and prints, by a pipe that is their descriptor 2,
//! and a record of every request, by shared memory. It outlives the master: workers may.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::hand_over::{self, take};
use super::own_logs::Sinks;
use crate::access::{Bell, Context, Desk, Ending, Intake, Lanes};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::link::Purpose;
use crate::log::frames::Reader;
use crate::log::{self, Destination};
use crate::sys::clock::{self, MILLISECOND, Nanos};
use crate::sys::privileges::Identity;
use crate::sys::process::Ended;

/// After a look that found something, the next one comes by itself.
const INTERVAL: Nanos = 25 * MILLISECOND;
/// Workers without a master are killed sooner (`master::ORPHAN_GRACE`).
const ORPHANS: Nanos = 2500 * MILLISECOND;
/// Reads of a pipe per look: one that never stops talking keeps nobody waiting.
const READS: usize = 8;

pub struct Output {
    app: String,
    generation: u64,
    pub desk: Desk,
    pipe: Option<Pipe>,
    access: Option<Access>,
    /// The master is gone, and all workers are by this time.
    gone_by: Option<Nanos>,
}

struct Pipe {
    fd: OwnedFd,
    reader: Reader,
}

struct Access {
    intake: Intake,
    bell: OwnedFd,
    /// Nobody is left who could write a record.
    is_closed: bool,
    /// `None`: the rings were empty, and somebody will ring.
    next_look: Option<Nanos>,
}

/// Where what the application prints goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prints {
    /// To the streams of the server.
    ToOurStreams,
    /// Into the log, by the supervisor.
    ToTheLog,
}

impl Prints {
    pub fn of(settings: &Settings, purpose: &Purpose, identity: Option<&Identity>) -> Prints {
        match purpose {
            // Whoever has asked reads them.
            Purpose::Check | Purpose::Request { .. } => Prints::ToOurStreams,
            // Of many apps each is read by itself, and named.
            _ if settings.log != Destination::Stderr || settings.is_hosted() => Prints::ToTheLog,
            // Who has a terminal open can read what is typed there.
            _ if is_other(identity) && is_terminal() => Prints::ToTheLog,
            _ => Prints::ToOurStreams,
        }
    }
}

/// Whether the application runs as somebody else than the server.
pub fn is_other(identity: Option<&Identity>) -> bool {
    identity.is_some_and(|identity| !identity.is_ours())
}

/// Where our streams are terminals, the application of another user can write there and not read.
pub fn write_only(command: &mut Command) -> std::io::Result<()> {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    if stdout.is_terminal() {
        command.stdout(open_again(1)?);
    }
    if stderr.is_terminal() {
        command.stderr(open_again(2)?);
    }
    Ok(())
}

/// A stream of ours, for writing alone.
pub fn open_again(number: u32) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).custom_flags(nix::libc::O_NOCTTY);
    options.open(format!("/proc/self/fd/{number}"))
}

/// Whether the server itself prints to a terminal.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}

/// What a master inherits.
pub struct Inlets {
    /// For descriptors 1 and 2.
    pub pipe: Option<OwnedFd>,
    pub bell: Option<Bell>,
}

/// For the program that replaces this one.
#[derive(Debug, Serialize, Deserialize)]
pub struct OutputState {
    desk: RawFd,
    pipe: Option<RawFd>,
    /// Lanes and bell.
    access: Option<(RawFd, RawFd)>,
    /// The form of desk, lanes and records.
    layout: String,
}

impl OutputState {
    pub fn descriptors(&self) -> Vec<RawFd> {
        let access = self.access.iter().flat_map(|(lanes, bell)| [*lanes, *bell]);
        self.pipe
            .into_iter()
            .chain(access)
            .chain([self.desk])
            .collect()
    }
}

impl Output {
    pub fn create(
        generation: u64,
        settings: &Settings,
        slots: usize,
        prints: Prints,
    ) -> Result<(Output, Inlets)> {
        let refused = |error: std::io::Error| Error::io("cannot prepare the logs", &error);
        let desk = Desk::create().map_err(refused)?;
        desk.set_level(log::level());
        let (mut pipe, mut access) = (None, None);
        let mut inlets = Inlets {
            pipe: None,
            bell: None,
        };
        if prints == Prints::ToTheLog {
            let (read, write) = std::io::pipe().map_err(refused)?;
            pipe = Some(Pipe::new(read.into(), &settings.name, generation).map_err(refused)?);
            inlets.pipe = Some(write.into());
        }
        if settings.has_access_log() {
            let lanes = Lanes::create(slots).map_err(refused)?;
            let (read, bell) = Bell::pair().map_err(refused)?;
            access = Some(Access::new(lanes, settings, read));
            inlets.bell = Some(bell);
        }
        let output = Output {
            app: settings.name.clone(),
            generation,
            desk,
            pipe,
            access,
            gone_by: None,
        };
        Ok((output, inlets))
    }

    pub fn lanes(&self) -> Option<&Lanes> {
        self.access.as_ref().map(|access| access.intake.lanes())
    }

    pub fn hand_over(&self) -> OutputState {
        let access = self.access.as_ref();
        OutputState {
            desk: hand_over::number(&self.desk),
            pipe: self.pipe.as_ref().map(|pipe| hand_over::number(&pipe.fd)),
            access: access.map(|access| {
                let lanes = hand_over::number(access.intake.lanes());
                (lanes, hand_over::number(&access.bell))
            }),
            layout: Lanes::layout(),
        }
    }

    /// Takes over what the program before had; nothing, if that was one without logs like these.
    pub fn resume(
        state: Option<&OutputState>,
        generation: u64,
        settings: &Settings,
    ) -> Result<Output> {
        let refused = |error: std::io::Error| Error::io("cannot take over the logs", &error);
        let Some(state) = state.filter(|state| state.layout == Lanes::layout()) else {
            if state.is_some() || settings.has_access_log() {
                log::warning!(
                    "generation {generation} has logs of another form: its requests are not logged"
                );
            }
            return Ok(Output {
                app: settings.name.clone(),
                generation,
                desk: Desk::create().map_err(refused)?,
                pipe: None,
                access: None,
                gone_by: None,
            });
        };
        let pipe = match state.pipe {
            Some(pipe) => {
                let fd = take(pipe, "a pipe")?;
                Some(Pipe::new(fd, &settings.name, generation).map_err(refused)?)
            }
            None => None,
        };
        let access = match state.access {
            Some((lanes, bell)) => {
                let lanes = Lanes::map(take(lanes, "an access log")?).map_err(refused)?;
                Some(Access::new(lanes, settings, take(bell, "a bell")?))
            }
            None => None,
        };
        Ok(Output {
            app: settings.name.clone(),
            generation,
            desk: Desk::map(take(state.desk, "a desk")?).map_err(refused)?,
            pipe,
            access,
            gone_by: None,
        })
    }

    /// The descriptors that are handed over.
    pub fn handed(&self) -> Vec<BorrowedFd<'_>> {
        let mut handed = vec![self.desk.as_fd()];
        handed.extend(self.pipe.as_ref().map(|pipe| pipe.fd.as_fd()));
        if let Some(access) = &self.access {
            handed.extend([access.intake.lanes().as_fd(), access.bell.as_fd()]);
        }
        handed
    }

    /// What wakes the supervisor.
    pub fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipe = self.pipe.as_ref().map(|pipe| pipe.fd.as_fd());
        let open = self.access.as_ref().filter(|access| !access.is_closed);
        pipe.into_iter()
            .chain(open.map(|access| access.bell.as_fd()))
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        let look = self.access.as_ref().and_then(|access| access.next_look);
        let gone = self.gone_by.filter(|_| self.has_writers());
        look.into_iter().chain(gone).min()
    }

    fn has_writers(&self) -> bool {
        self.access.as_ref().is_some_and(|access| !access.is_closed)
    }

    /// The master is gone: after its workers, if it ended well, else they may still write for a while.
    pub fn close(&mut self, ended: Ended, now: Nanos) {
        let orphans = match ended.is_success() {
            true => 0,
            false => ORPHANS,
        };
        self.gone_by = Some(now.saturating_add(orphans));
    }

    /// Requests may still be completed by workers that have lost their master.
    pub fn holds_up(&self) -> bool {
        self.gone_by.is_some() && self.has_writers()
    }

    /// Nothing more can come of it.
    pub fn is_over(&self) -> bool {
        self.gone_by.is_some() && !self.has_writers() && self.pipe.is_none()
    }

    /// Reads what there is.
    pub fn look(&mut self, logs: &mut Sinks<'_>, now: Nanos) {
        if let Some(pipe) = &mut self.pipe
            && pipe.read(logs)
        {
            self.pipe = None;
        }
        let Some(access) = &mut self.access else {
            return;
        };
        let was_open = !access.is_closed;
        let has_rung = was_open && access.answer();
        let overdue = self.gone_by.is_some_and(|by| by <= now);
        if was_open && (access.is_closed || overdue) {
            access.is_closed = true;
            access.intake.bury(Ending::Crashed, now);
        }
        let is_due = access.next_look.is_some_and(|at| at <= now);
        if has_rung || is_due || (was_open && access.is_closed) {
            let context = Context {
                app: &self.app,
                generation: self.generation,
                worker: 0,
                unix: clock::unix_offset(),
            };
            access.look(&self.desk, &context, logs, now);
        }
    }

    /// Reads all there is, whatever was said about when; for the moment before this program ends.
    pub fn look_again(&mut self, logs: &mut Sinks<'_>, now: Nanos) {
        if let Some(access) = &mut self.access {
            access.next_look = Some(now);
        }
        self.look(logs, now);
        if let Some(pipe) = &mut self.pipe {
            let now = SystemTime::now();
            pipe.reader.end(now, &mut |entry| logs.entry(entry));
        }
    }
}

impl Access {
    fn new(lanes: Lanes, settings: &Settings, bell: OwnedFd) -> Self {
        Self {
            intake: Intake::new(lanes, settings.logs.access_format.clone()),
            bell,
            is_closed: false,
            next_look: Some(0),
        }
    }

    /// Whether somebody has rung.
    fn answer(&mut self) -> bool {
        let mut rung = [0; 64];
        match nix::unistd::read(&self.bell, &mut rung) {
            Ok(0) => {
                self.is_closed = true;
                true
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    fn look(&mut self, desk: &Desk, context: &Context<'_>, logs: &mut Sinks<'_>, now: Nanos) {
        desk.wake();
        let mut text = Vec::new();
        let taken = self.intake.take(&mut text, context);
        logs.access(text, taken, now);
        self.next_look = Some(now.saturating_add(INTERVAL));
        if taken.lines == 0 {
            desk.sleep();
            // What came before that was seen would not ring.
            self.next_look = match self.intake.is_empty() {
                true => None,
                // Not at once: somebody may keep the rings from ever being empty.
                false => Some(now + MILLISECOND),
            };
        }
    }
}

impl Pipe {
    fn new(fd: OwnedFd, app: &str, generation: u64) -> std::io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        // Of our end only: the ends of a pipe are two open files.
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let tag = format!("[{app} gen {generation}]");
        Ok(Self {
            fd,
            reader: Reader::new(tag),
        })
    }

    /// True at its end.
    fn read(&mut self, logs: &mut Sinks<'_>) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        for _ in 0..READS {
            let now = SystemTime::now();
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(0) => {
                    self.reader.end(now, &mut |entry| logs.entry(entry));
                    return true;
                }
                Ok(count) => {
                    let read = &buffer[..count];
                    self.reader.read(read, now, &mut |entry| logs.entry(entry));
                }
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// How long the end of the program waits for the logs.
pub const FLUSH: Duration = Duration::from_secs(2);
