//! Words between the test and its application, by named pipes in the test's directory.
//!
//! The application writes notes (`tests/apps/talk.py`) and waits at gates; both are events, so a test
//! knows what happened in the application, and in which order, without looking at a clock.

use super::PATIENCE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// A pipe opened for both directions: opening never blocks and reading never sees an end of file.
fn open(path: &Path) -> File {
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).expect("make a named pipe");
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    options.open(path).expect("open the named pipe")
}

/// What the application noted, in order.
pub struct Notes {
    pipe: File,
    pending: Mutex<Vec<u8>>,
}

impl Notes {
    pub fn new(dir: &Path) -> Notes {
        Notes {
            pipe: open(&dir.join("notes")),
            pending: Mutex::default(),
        }
    }

    fn take_line(&self) -> Option<String> {
        let mut pending = self.pending.lock().expect("no panic while holding notes");
        let mut chunk = [0; 4096];
        while let Ok(length) = (&self.pipe).read(&mut chunk) {
            pending.extend_from_slice(&chunk[..length]);
        }
        let end = pending.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = pending.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    /// The next note, as soon as it is there.
    #[track_caller]
    pub fn next(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.take_line() {
                return line;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the application noted nothing");
            let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut fds, timeout); // EINTR: the loop asks again
        }
    }

    /// The next note must be this one.
    #[track_caller]
    pub fn expect(&self, note: &str) {
        assert_eq!(self.next(), note, "the application's next note");
    }

    /// All notes there are now. For "it never happened", make the worker do something else first.
    pub fn so_far(&self) -> Vec<String> {
        std::iter::from_fn(|| self.take_line()).collect()
    }
}

/// A place where the application waits until the test lets it go on; dropping it lets everything through.
pub struct Gate {
    pipe: File,
}

impl Gate {
    pub fn new(dir: &Path, name: &str) -> Gate {
        Gate {
            pipe: open(&dir.join(name)),
        }
    }

    /// Lets one waiter through, now or when it comes.
    pub fn open(&self) {
        (&self.pipe)
            .write_all(b".")
            .expect("write one byte to an open pipe");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // A failed test must not leave the application waiting: the stop of the server would hang too.
        let _ = (&self.pipe).write_all(&[b'.'; 64]);
    }
}
