//! Log lines on standard error: time, who speaks, level, text; one `write(2)` each, so that lines
//! of different processes do not mix.

use std::fmt;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::clock::{Nanos, SECOND};

/// Who speaks: `supervisor`, `master [shop gen 3]`, `worker 2 [shop gen 3]`.
static IDENTITY: Mutex<String> = Mutex::new(String::new());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warning,
    Info,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        }
    }
}

pub fn set_identity(identity: String) {
    if let Ok(mut current) = IDENTITY.lock() {
        *current = identity;
    }
}

/// Writes one entry; drops and counts it when nobody reads the log.
pub fn write(level: Level, text: fmt::Arguments<'_>) {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let identity = IDENTITY
        .lock()
        .map_or_else(|_| String::new(), |i| i.clone());
    let text = text.to_string();
    let lost = match LOST.swap(0, Ordering::Relaxed) {
        0 => String::new(),
        n => format!("{time} rswsgi: {identity}: warning: {n} entries before this one were lost\n"),
    };
    let entry = lost
        + &format!(
            "{time} rswsgi: {identity}: {}: {}\n",
            level.name(),
            text.trim_end()
        );
    if let Err(Full) = put(entry.as_bytes()) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Entries that could not be written, of this process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How long a full pipe may hold up the process, in milliseconds.
const PATIENCE: u16 = 20;

struct Full;

/// Writes without waiting for a reader that does not read. What `poll(2)` calls writable takes
/// PIPE_BUF bytes of a pipe at once (`pipe(7)`).
fn put(entry: &[u8]) -> Result<(), Full> {
    const PIPE_BUF: usize = 4096;
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
        write(Level::Error, format_args!("internal error: {panic}"));
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
pub(crate) use {error, info, warning};

/// At most so many entries per second about something that clients can cause at will.
#[derive(Debug, Default)]
pub struct Throttle {
    per_second: u32,
    window: Nanos,
    used: u32,
    withheld: u64,
}

/// Whether an entry may be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Allowed {
    No,
    /// With the number of entries withheld since the last one.
    Yes {
        withheld: u64,
    },
}

impl Throttle {
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            window: 0,
            used: 0,
            withheld: 0,
        }
    }

    pub fn ask(&mut self, now: Nanos) -> Allowed {
        if now >= self.window.saturating_add(SECOND) {
            self.window = now;
            self.used = 0;
        }
        if self.used == self.per_second {
            self.withheld += 1;
            return Allowed::No;
        }
        self.used += 1;
        Allowed::Yes {
            withheld: std::mem::take(&mut self.withheld),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_withholds_and_tells_how_many() {
        let mut throttle = Throttle::new(2);
        let start = 5 * SECOND;
        assert_eq!(throttle.ask(start), Allowed::Yes { withheld: 0 });
        assert_eq!(throttle.ask(start + 1), Allowed::Yes { withheld: 0 });
        assert_eq!(throttle.ask(start + 2), Allowed::No);
        assert_eq!(throttle.ask(start + 3), Allowed::No);
        let later = start + SECOND;
        assert_eq!(throttle.ask(later), Allowed::Yes { withheld: 2 });
        assert_eq!(throttle.ask(later), Allowed::Yes { withheld: 0 });
        assert_eq!(throttle.ask(later), Allowed::No);
    }
}
