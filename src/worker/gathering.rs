//! Blocks of a response that wait for a moment, because more come quickly.
//!
//! PEP 3333 ("Buffering and Streaming") lets a server keep a block while the application computes the
//! next one if it guarantees that the transmission goes on. The watcher guarantees it: what is gathered
//! here leaves within about [`MOST_DELAY`], by the main thread when more comes or the response ends, by
//! the watcher otherwise. One response gathers at a time: that of the request that runs. Its lock is held
//! for a copy or a `send(2)` that does not block, never while Python code runs.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::clock::{MILLISECOND, Nanos};
use crate::sys::socket::{self, Push};

/// How long a block may wait.
pub const MOST_DELAY: Nanos = MILLISECOND;
/// More than this is sent at once.
pub const MOST: usize = 32 * 1024;

#[derive(Default)]
pub struct Gathering(Mutex<State>);

#[derive(Default)]
struct State {
    /// Where it goes; `None` while nothing is gathered.
    socket: Option<Arc<OwnedFd>>,
    bytes: Vec<u8>,
    /// When the oldest of it came.
    since: Nanos,
    /// The socket has not taken all of it.
    is_blocked: bool,
    has_failed: bool,
    /// Bytes that the watcher has sent.
    sent: u64,
}

/// What is to be done about what is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Nothing,
    /// To be sent at this time.
    At(Nanos),
    /// To be sent when the socket takes more.
    Room(RawFd),
}

/// What was gathered, given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Bytes that have been sent meanwhile.
    pub sent: u64,
    /// The client has gone.
    pub has_failed: bool,
}

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes. The time by which they have to be sent; `None` when it is enough to be sent at once.
    pub fn add(&self, socket: &Arc<OwnedFd>, bytes: &[u8], now: Nanos) -> Option<Nanos> {
        let mut state = self.lock();
        if state.socket.is_none() {
            state.socket = Some(Arc::clone(socket));
        }
        if state.bytes.is_empty() {
            state.since = now;
        }
        state.bytes.extend_from_slice(bytes);
        let due = state.since + MOST_DELAY;
        let waits = state.bytes.len() < MOST && now < due && !state.is_blocked;
        waits.then_some(due)
    }

    /// Ends the gathering; what waits is appended to `out`.
    pub fn give_back(&self, out: &mut Vec<u8>) -> Given {
        let mut state = self.lock();
        out.extend_from_slice(&state.bytes);
        state.bytes.clear();
        state.socket = None;
        state.is_blocked = false;
        Given {
            sent: std::mem::take(&mut state.sent),
            has_failed: std::mem::take(&mut state.has_failed),
        }
    }

    /// For the watcher: sends what is due, and tells what is left to do.
    pub fn tend(&self, now: Nanos) -> Need {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(socket) = &state.socket else {
            return Need::Nothing;
        };
        if state.bytes.is_empty() || state.has_failed {
            return Need::Nothing;
        }
        if !state.is_blocked && now < state.since + MOST_DELAY {
            return Need::At(state.since + MOST_DELAY);
        }
        match socket::send(socket.as_fd(), &[IoSlice::new(&state.bytes)], Push::Now) {
            Ok(taken) => {
                state.sent += taken as u64;
                state.bytes.drain(..taken);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => state.has_failed = true,
        }
        state.is_blocked = !state.bytes.is_empty() && !state.has_failed;
        match state.is_blocked {
            true => Need::Room(socket.as_raw_fd()),
            false => Need::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, Arc<OwnedFd>) {
        let (client, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (client, Arc::new(ours.into()))
    }

    #[test]
    fn what_waits_is_sent_in_time_and_in_order() {
        let (mut client, socket) = pair();
        let gathering = Gathering::default();
        assert_eq!(gathering.tend(5), Need::Nothing);
        let due = 10 + MOST_DELAY;
        assert_eq!(gathering.add(&socket, b"one ", 10), Some(due));
        assert_eq!(gathering.add(&socket, b"two ", 11), Some(due));
        assert_eq!(gathering.tend(12), Need::At(due));
        assert_eq!(gathering.tend(due), Need::Nothing);
        gathering.add(&socket, b"three", due);
        let mut read = [0; 8];
        client.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"one two ");
        let mut rest = Vec::new();
        let given = gathering.give_back(&mut rest);
        assert_eq!((given.sent, given.has_failed), (8, false));
        assert_eq!(rest, b"three");
        assert_eq!(gathering.give_back(&mut rest).sent, 0);
        assert_eq!(rest, b"three");
    }

    #[test]
    fn what_is_much_or_late_is_sent_at_once() {
        let (_client, socket) = pair();
        let gathering = Gathering::default();
        assert!(gathering.add(&socket, b"x", 10).is_some());
        assert_eq!(gathering.add(&socket, &[0; MOST], 11), None);
        gathering.give_back(&mut Vec::new());
        assert!(gathering.add(&socket, b"x", 10).is_some());
        assert_eq!(gathering.add(&socket, b"x", 10 + MOST_DELAY), None);
    }

    #[test]
    fn a_socket_that_takes_no_more_is_waited_for_and_loses_nothing() {
        let (mut client, socket) = pair();
        let gathering = Gathering::default();
        let bytes: Vec<u8> = (0..1 << 20).map(|n| (n % 251) as u8).collect();
        gathering.add(&socket, &bytes, 1);
        let need = gathering.tend(1 + MOST_DELAY);
        assert_eq!(need, Need::Room(socket.as_raw_fd()));
        // More comes, and is no reason to copy what waits to another place and back.
        assert_eq!(gathering.add(&socket, b"end", 2), None);
        let mut read = vec![0; bytes.len() + 3];
        let mut at = 0;
        while at < read.len() {
            at += client.read(&mut read[at..]).unwrap();
            gathering.tend(3);
        }
        assert_eq!(&read[..bytes.len()], bytes);
        assert_eq!(gathering.give_back(&mut Vec::new()).sent, at as u64);
    }

    #[test]
    fn a_client_that_has_gone_is_told() {
        let (client, socket) = pair();
        drop(client);
        let gathering = Gathering::default();
        gathering.add(&socket, b"x", 1);
        assert_eq!(gathering.tend(1 + MOST_DELAY), Need::Nothing);
        assert!(gathering.give_back(&mut Vec::new()).has_failed);
        assert!(!gathering.give_back(&mut Vec::new()).has_failed);
    }
}
