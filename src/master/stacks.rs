//! The Python stacks of a worker, printed by faulthandler into a pipe when the worker gets
//! SIGRTMIN+2. That works in whatever the worker is caught, C code included; it is not waited for.
//!
//! ```text
//! asked -> signal -> bytes ... NUL -> complete
//!                 -> SILENCE after the last byte, or PATIENCE without the end: as far as it goes
//! ```
//!
//! Reasons that come while a dump is under way share it. A dump that nobody here has asked for (`kill
//! -RTMIN+2`) is logged.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read};

use crate::link::Ticket;
use crate::sys::clock::{MILLISECOND, Nanos, SECOND};

/// Who wants to see the stacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The log, because the worker is about to be killed: the line above the stacks.
    Stuck(String),
    /// The log, because the request takes long: the line above the stacks.
    Slow(String),
    /// The supervisor.
    Asked(Ticket),
    /// Whoever has sent the signal.
    Signal,
}

/// A dump that has come to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Dump {
    pub reasons: Vec<Reason>,
    pub text: String,
    /// Why it is not all there is.
    pub lack: Option<&'static str>,
}

#[derive(Debug)]
struct UnderWay {
    reasons: Vec<Reason>,
    since: Nanos,
    /// When the last bytes came.
    heard: Option<Nanos>,
    text: Vec<u8>,
}

/// One worker.
#[derive(Debug)]
pub struct Stacks {
    pipe: OwnedFd,
    under_way: Option<UnderWay>,
    /// The pipe has nothing more to give.
    is_closed: bool,
}

/// What is kept of one dump; faulthandler prints at most 100 threads of 100 calls.
const MOST: usize = 128 * 1024;
/// After the last byte, when no end was seen: it did not fit into the pipe.
const SILENCE: Nanos = 200 * MILLISECOND;
/// For a process that is stopped, or in the kernel in a way that takes no signals.
const PATIENCE: Nanos = 2 * SECOND;
/// Bytes read per wake-up.
const READ: usize = 64 * 1024;

impl Stacks {
    /// With the end for the worker; neither end ever blocks.
    pub fn pipe() -> std::io::Result<(Stacks, OwnedFd)> {
        let (pipe, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let stacks = Stacks {
            pipe,
            under_way: None,
            is_closed: false,
        };
        Ok((stacks, write))
    }

    /// Whether the worker is to be signalled: not while its stacks are on their way already.
    pub fn ask(&mut self, reason: Reason, now: Nanos) -> bool {
        if let Some(under_way) = &mut self.under_way {
            under_way.reasons.push(reason);
            return false;
        }
        self.begin(vec![reason], now);
        true
    }

    fn begin(&mut self, reasons: Vec<Reason>, now: Nanos) -> &mut UnderWay {
        self.under_way.insert(UnderWay {
            reasons,
            since: now,
            heard: None,
            text: Vec::new(),
        })
    }

    /// For a poll set; `None` when nothing more can come.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_closed).then(|| self.pipe.as_fd())
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        let under_way = self.under_way.as_ref()?;
        let silent = under_way.heard.map_or(Nanos::MAX, |heard| heard + SILENCE);
        Some(silent.min(under_way.since + PATIENCE))
    }

    /// Reads what has come. `Some` when a dump has come to its end, one at a time.
    pub fn settle(&mut self, now: Nanos) -> Option<Dump> {
        let mut buffer = [0; 4096];
        let mut left = READ;
        while !self.is_closed && left > 0 {
            let count = match read(&self.pipe, &mut buffer) {
                Ok(0) => {
                    self.is_closed = true;
                    break;
                }
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => break,
                Err(_) => {
                    self.is_closed = true;
                    break;
                }
            };
            left = left.saturating_sub(count);
            if let Some(dump) = self.take(&buffer[..count], now) {
                return Some(dump);
            }
        }
        let is_due = self.wake_at().is_some_and(|at| at <= now);
        match is_due {
            true => self.end(match &self.under_way {
                Some(UnderWay { heard: Some(_), .. }) => Some("its end was not seen"),
                _ => Some("the process does not react to signals"),
            }),
            false => None,
        }
    }

    /// What follows the end in one piece is of a dump that came right after it; it joins the next one.
    fn take(&mut self, bytes: &[u8], now: Nanos) -> Option<Dump> {
        if self.under_way.is_none() {
            self.begin(vec![Reason::Signal], now);
        }
        let end = memchr::memchr(0, bytes);
        let text = &bytes[..end.unwrap_or(bytes.len())];
        if let Some(under_way) = &mut self.under_way {
            under_way.heard = Some(now);
            let room = MOST.saturating_sub(under_way.text.len());
            under_way.text.extend(text.iter().take(room));
        }
        let dump = match end {
            Some(_) => self.end(None),
            None => None,
        };
        if let Some(rest) = end.map(|end| &bytes[end + 1..])
            && rest.iter().any(|byte| *byte != 0)
        {
            let next = self.begin(vec![Reason::Signal], now);
            next.heard = Some(now);
            next.text.extend(rest.iter().filter(|byte| **byte != 0));
        }
        dump
    }

    fn end(&mut self, lack: Option<&'static str>) -> Option<Dump> {
        let UnderWay { reasons, text, .. } = self.under_way.take()?;
        Some(Dump {
            reasons,
            lack: lack.or((text.len() >= MOST).then_some("the rest is left out")),
            // Names of functions and files are the application's: no control characters but its lines.
            text: String::from_utf8_lossy(&text)
                .chars()
                .filter(|c| !c.is_control() || *c == '\n')
                .collect(),
        })
    }

    /// The worker is gone: what it has printed until then.
    pub fn finish(&mut self, now: Nanos) -> Option<Dump> {
        self.settle(now).or_else(|| {
            self.end(match &self.under_way {
                Some(UnderWay { heard: Some(_), .. }) => Some("the worker has ended"),
                _ => Some("it has printed none before its end"),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(fd: &OwnedFd, bytes: &[u8]) {
        assert_eq!(nix::unistd::write(fd, bytes), Ok(bytes.len()));
    }

    #[test]
    fn a_dump_ends_with_its_mark() {
        let (mut stacks, worker) = Stacks::pipe().unwrap();
        assert_eq!(stacks.wake_at(), None);
        assert!(stacks.ask(Reason::Asked(1), 0));
        assert!(!stacks.ask(Reason::Slow("x".into()), 0));
        assert_eq!(stacks.wake_at(), Some(PATIENCE));
        write(&worker, b"Thread 1\n  File");
        assert_eq!(stacks.settle(5), None);
        assert_eq!(stacks.wake_at(), Some(5 + SILENCE));
        write(&worker, b" \x1b\"a.py\"\n\0");
        let dump = stacks.settle(6).unwrap();
        assert_eq!(dump.text, "Thread 1\n  File \"a.py\"\n");
        let reasons = [Reason::Asked(1), Reason::Slow("x".into())];
        assert_eq!((dump.reasons.as_slice(), dump.lack), (&reasons[..], None));
        assert_eq!((stacks.wake_at(), stacks.settle(7)), (None, None));
    }

    #[test]
    fn a_dump_without_an_end_is_not_waited_for() {
        let (mut stacks, worker) = Stacks::pipe().unwrap();
        stacks.ask(Reason::Asked(1), 0);
        write(&worker, b"half");
        assert_eq!(stacks.settle(1), None);
        let dump = stacks.settle(1 + SILENCE).unwrap();
        assert_eq!((dump.text.as_str(), dump.lack.is_some()), ("half", true));
        stacks.ask(Reason::Asked(2), 0);
        assert_eq!(stacks.settle(PATIENCE - 1), None);
        let dump = stacks.settle(PATIENCE).unwrap();
        assert_eq!((dump.text.as_str(), dump.lack.is_some()), ("", true));
        stacks.ask(Reason::Asked(3), 0);
        drop(worker);
        let dump = stacks.finish(1).unwrap();
        assert_eq!(dump.reasons, [Reason::Asked(3)]);
        assert_eq!(dump.lack, Some("it has printed none before its end"));
        assert!(stacks.watched().is_none());
    }

    #[test]
    fn what_nobody_here_has_asked_for_was_a_signal() {
        let (mut stacks, worker) = Stacks::pipe().unwrap();
        write(&worker, b"one\0two\0");
        let first = stacks.settle(1).unwrap();
        assert_eq!(
            (first.text.as_str(), first.reasons),
            ("one", vec![Reason::Signal])
        );
        let second = stacks.settle(1 + SILENCE).unwrap();
        assert_eq!(
            (second.text.as_str(), second.reasons),
            ("two", vec![Reason::Signal])
        );
    }

    #[test]
    fn one_that_prints_for_ever_is_cut() {
        let (mut stacks, worker) = Stacks::pipe().unwrap();
        stacks.ask(Reason::Asked(1), 0);
        let block = [b'x'; 32 * 1024];
        for _ in 0..8 {
            write(&worker, &block);
            assert_eq!(stacks.settle(1), None);
        }
        write(&worker, b"\0");
        let dump = stacks.settle(1).unwrap();
        assert_eq!(dump.text.len(), MOST);
        assert_eq!(dump.lack, Some("the rest is left out"));
    }
}
