//! The log of this process: entries with a level, and who speaks.
//!
//! ```text
//! stderr (the default)        each process writes its entries to descriptor 2, a line each
//! stderr that is the journal  each process sends datagrams to journald (journald's native protocol)
//! file, syslog, journal       masters and workers write frames into a pipe that is their descriptor 2;
//!                             the supervisor, who owns the sink, reads them ([`frames`])
//! ```
//!
//! Nothing here waits for a reader that does not read: what cannot be written is counted, and told
//! when it works again.

#![forbid(unsafe_code)]

mod destination;
mod file;
pub mod form;
pub mod frames;
mod journal;
mod syslog;
mod throttle;
pub mod writer;

use std::fmt;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

pub use destination::Destination;
pub use form::{Entry, Form};
use journal::Journal;
pub use throttle::{Allowed, Throttle, more_like_this};
pub use writer::Writer;

/// Who speaks: `supervisor`, `master [shop gen 3]`, `worker 2 [shop gen 3]`.
static IDENTITY: Mutex<String> = Mutex::new(String::new());
static WAY: OnceLock<Way> = OnceLock::new();
static OWN_LEVEL: AtomicU32 = AtomicU32::new(Level::Info as u32);
static SHARED_LEVEL: OnceLock<&'static AtomicU32> = OnceLock::new();
/// Entries that could not be written, of this process.
static LOST: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Level {
    Error = 0,
    Warning,
    Info,
    Debug,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::Error, Level::Warning, Level::Info, Level::Debug];

    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// What no level has, counts as the usual one.
    pub fn from_number(number: u32) -> Level {
        let mut all = Level::ALL.into_iter();
        let found = all.find(|level| *level as u32 == number);
        found.unwrap_or(Level::Info)
    }

    /// Of syslog(3) and journald.
    pub fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warning => 4,
            Level::Info => 6,
            Level::Debug => 7,
        }
    }
}

/// How the entries of this process leave it.
pub enum Way {
    Stderr(Form),
    Journal(Journal),
    /// Descriptor 2 is a pipe to the supervisor.
    Frames,
    /// The supervisor's own, to a sink that it owns.
    Writer(Writer),
}

impl Way {
    /// For entries that go to descriptor 2, whatever that is.
    pub fn stderr(form: Form) -> Way {
        match Journal::behind_stderr() {
            Some(journal) => Way::Journal(journal),
            None => Way::Stderr(form),
        }
    }
}

/// Decides how entries leave this process, once.
pub fn configure(way: Way) {
    let _ = WAY.set(way);
}

pub fn set_identity(identity: String) {
    if let Ok(mut current) = IDENTITY.lock() {
        *current = identity;
    }
}

/// Entries beyond it are not written.
pub fn set_level(level: Level) {
    level_cell().store(level as u32, Ordering::Relaxed);
}

/// The one in force.
pub fn level() -> Level {
    Level::from_number(level_cell().load(Ordering::Relaxed))
}

/// From now on the level stands in memory that another process writes.
pub fn share_level(cell: &'static AtomicU32) {
    let _ = SHARED_LEVEL.set(cell);
}

fn level_cell() -> &'static AtomicU32 {
    SHARED_LEVEL.get().copied().unwrap_or(&OWN_LEVEL)
}

/// Writes one entry; drops and counts it when nobody reads the log.
pub fn write(level: Level, text: fmt::Arguments<'_>) {
    write_within(self::level(), level, text);
}

/// The same about something of which as much is logged as `most` says.
pub fn write_within(most: Level, level: Level, text: fmt::Arguments<'_>) {
    if level > most {
        return;
    }
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let text = format_args!("{lost} entries before this one were lost");
        put(&entry(Level::Warning, text), lost);
    }
    put(&entry(level, text), 1);
}

fn entry(level: Level, text: fmt::Arguments<'_>) -> Entry {
    let identity = IDENTITY.lock();
    Entry {
        time: SystemTime::now(),
        level,
        who: identity.map_or_else(|_| String::new(), |i| i.clone()),
        pid: std::process::id(),
        text: text.to_string().trim_end().to_owned(),
    }
}

/// `stands_for`: so many entries are lost if this one is.
fn put(entry: &Entry, stands_for: u64) {
    let done = match WAY.get() {
        None => write_stderr(form::line(Form::Text, entry).as_bytes()),
        Some(Way::Stderr(form)) => write_stderr(form::line(*form, entry).as_bytes()),
        Some(Way::Journal(journal)) => match journal.send(entry) {
            Ok(()) => Ok(()),
            // Whoever reads the stream is likely to be the same journald.
            Err(_) => write_stderr(form::line(Form::Text, entry).as_bytes()),
        },
        Some(Way::Frames) => frames::encode(entry)
            .iter()
            .try_for_each(|frame| write_stderr(frame)),
        Some(Way::Writer(writer)) => {
            writer.entry(entry.clone());
            Ok(())
        }
    };
    if let Err(Full) = done {
        LOST.fetch_add(stands_for, Ordering::Relaxed);
    }
}

/// What is said although the log is elsewhere: why the program ends, and trouble with the log itself.
pub fn on_stderr(level: Level, text: fmt::Arguments<'_>) {
    let _ = write_stderr(form::line(Form::Text, &entry(level, text)).as_bytes());
}

/// Waits until everything is written, at most for a while.
pub fn flush(limit: Duration) {
    if let Some(Way::Writer(writer)) = WAY.get() {
        writer.flush(limit);
    }
}

/// Whether they go to the journal behind descriptor 2.
pub fn is_journal() -> bool {
    matches!(WAY.get(), Some(Way::Journal(_)))
}

/// Whether entries of this process can be seen on its standard error.
pub fn is_on_stderr() -> bool {
    !matches!(WAY.get(), Some(Way::Frames | Way::Writer(_)))
}

/// How long a full pipe may hold up the process, in milliseconds.
const PATIENCE: u16 = 20;
/// What `poll(2)` calls writable takes so many bytes of a pipe at once (`pipe(7)`).
const PIPE_BUF: usize = 4096;

struct Full;

/// Writes without waiting for a reader that does not read.
fn write_stderr(entry: &[u8]) -> Result<(), Full> {
    for piece in entry.chunks(PIPE_BUF) {
        let stderr = std::io::stderr();
        let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::from(PATIENCE)) {
            Ok(0) => return Err(Full),
            // A log that cannot be written is no reason to stop serving.
            _ => std::io::stderr().write_all(piece).map_err(|_| Full)?,
        }
    }
    Ok(())
}

/// A panic is a bug of ours: the process says where and ends with SIGABRT, and its parent replaces it.
/// Unwinding could run through Python's frames or out of a forked child.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        // A writer is not sure to come to it any more.
        match is_on_stderr() || matches!(WAY.get(), Some(Way::Frames)) {
            true => write(Level::Error, format_args!("internal error: {panic}")),
            false => on_stderr(Level::Error, format_args!("internal error: {panic}")),
        }
        std::process::abort();
    }));
}

macro_rules! error {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($text)*)) };
}
macro_rules! warning {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Warning, format_args!($($text)*)) };
}
macro_rules! info {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($text)*)) };
}
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::write($crate::log::Level::Debug, format_args!($($text)*)) };
}
pub(crate) use {debug, error, info, warning};
