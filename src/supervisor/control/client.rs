//! One client: what it has sent, what it is to get, and for how long that is waited for.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{Shutdown, shutdown};

use super::Purpose;
use super::access::Role;
use crate::control::{Asked, Input, Kind, Refused, Reply};
use crate::sys::clock::{Nanos, SECOND};
use crate::sys::socket::{self, Push};

/// Which of all clients.
pub type Id = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A request, or the rest of one, is to come.
    Reading,
    /// Its answer is being worked out.
    Waiting,
    /// Closed after its answer.
    Leaving,
    /// It has its answer; what it still sends is thrown away, so that it can read the answer before
    /// it is told that nobody listens.
    Lingering,
    Gone,
}

#[derive(Debug)]
pub struct Client {
    pub id: Id,
    pub purpose: Purpose,
    pub role: Role,
    pub state: State,
    /// For the log: `uid 0, pid 77`.
    pub who: String,
    socket: OwnedFd,
    input: Input,
    /// The client sends nothing more.
    has_ended: bool,
    /// There may be another request in `input`.
    is_hungry: bool,
    output: Vec<u8>,
    sent: usize,
    deadline: Nanos,
    /// Since when it does nothing.
    pub idle_since: Nanos,
}

/// Bytes read per wake-up.
const READ: usize = 16 * 1024;
/// For the rest of a request, and for the next step of a client that reads slowly.
const STEP: Nanos = 10 * SECOND;
/// For the end of a client that has its answer.
const LINGER: Nanos = SECOND;
/// For the next request.
const IDLE: Nanos = 300 * SECOND;

impl Client {
    pub fn new(id: Id, purpose: Purpose, role: Role, socket: OwnedFd, now: Nanos) -> Self {
        Self {
            id,
            purpose,
            role,
            state: State::Reading,
            who: String::new(),
            socket,
            input: Input::default(),
            has_ended: false,
            is_hungry: false,
            output: Vec::new(),
            sent: 0,
            deadline: now + STEP,
            idle_since: now,
        }
    }

    fn is_sending(&self) -> bool {
        self.sent < self.output.len()
    }

    pub fn is_idle(&self) -> bool {
        self.state == State::Reading && !self.is_sending()
    }

    pub fn watched(&self) -> PollFd<'_> {
        let events = match self.state {
            _ if self.is_sending() => PollFlags::POLLOUT,
            State::Reading | State::Lingering if !self.has_ended => PollFlags::POLLIN,
            // Only whether it is still there.
            _ => PollFlags::empty(),
        };
        PollFd::new(self.socket.as_fd(), events)
    }

    pub fn wake_at(&self, now: Nanos) -> Option<Nanos> {
        match self.state {
            State::Gone => None,
            State::Waiting if !self.is_sending() => None,
            State::Reading if self.is_hungry && !self.is_sending() => Some(now),
            _ => Some(self.deadline),
        }
    }

    /// Does what the socket is ready for, and looks for the next request.
    pub fn settle(&mut self, ready: PollFlags, now: Nanos) -> Option<Asked> {
        if self.is_sending() {
            self.flush(now);
        } else if self.state == State::Waiting && ready.intersects(GONE) {
            self.state = State::Gone;
        } else if self.state == State::Reading && !ready.is_empty() && !self.has_ended {
            self.read();
        } else if self.state == State::Lingering {
            self.discard();
        }
        let asked = self.next(now);
        if asked.is_none() && self.state == State::Reading && self.has_ended && !self.is_sending() {
            self.state = State::Gone;
        }
        let is_timed = self.state != State::Waiting || self.is_sending();
        if asked.is_none() && is_timed && self.deadline <= now {
            self.time_out(now);
        }
        asked
    }

    fn read(&mut self) {
        let mut buffer = [0; READ];
        match socket::receive(self.socket.as_fd(), &mut buffer) {
            Ok(0) => {
                self.has_ended = true;
                // `printf '{...}' | nc -U` is a request, too.
                self.input.push(b"\n");
            }
            Ok(count) => self.input.push(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => self.state = State::Gone,
        }
        self.is_hungry = true;
    }

    /// A little at a time, like everything.
    fn discard(&mut self) {
        for _ in 0..4 {
            match socket::receive(self.socket.as_fd(), &mut [0; READ]) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.state = State::Gone;
                    return;
                }
            }
        }
    }

    fn next(&mut self, now: Nanos) -> Option<Asked> {
        if self.state != State::Reading || self.is_sending() || !self.is_hungry {
            return None;
        }
        let was_empty = self.input.is_empty();
        let asked = self.input.take();
        if asked.is_none() {
            self.is_hungry = false;
            if !was_empty && !self.input.is_empty() {
                // The first bytes of a request start the clock, further ones do not.
                self.deadline = self.deadline.min(now + STEP);
            }
        }
        asked
    }

    fn time_out(&mut self, now: Nanos) {
        if self.state == State::Reading && !self.is_sending() && !self.input.is_empty() {
            let text = "the rest of the request has not come";
            self.refuse(Refused::new(Kind::TimedOut, text), now);
        } else {
            self.state = State::Gone;
        }
    }

    /// The answer; the next request is looked at when it has been sent.
    pub fn answer(&mut self, bytes: Vec<u8>, now: Nanos) {
        self.send(bytes, State::Reading, now);
        self.is_hungry = true;
    }

    /// The last answer.
    pub fn answer_and_leave(&mut self, bytes: Vec<u8>, now: Nanos) {
        self.is_hungry = false;
        self.send(bytes, State::Leaving, now);
    }

    pub fn refuse(&mut self, refused: Refused, now: Nanos) {
        self.answer_and_leave(Reply::from(refused).write(), now);
    }

    fn send(&mut self, bytes: Vec<u8>, then: State, now: Nanos) {
        if self.state == State::Gone {
            return;
        }
        self.state = then;
        self.output = bytes;
        self.sent = 0;
        self.deadline = now + STEP;
        self.flush(now);
    }

    fn flush(&mut self, now: Nanos) {
        while self.is_sending() {
            let rest = [IoSlice::new(&self.output[self.sent..])];
            match socket::send(self.socket.as_fd(), &rest, Push::Now) {
                Ok(count) => {
                    self.sent += count;
                    // Only progress gives it more time.
                    self.deadline = now + STEP;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.state = State::Gone;
                    return;
                }
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        self.idle_since = now;
        match self.state {
            State::Reading => self.deadline = now + IDLE,
            State::Leaving => {
                self.state = State::Lingering;
                self.deadline = now + LINGER;
                if shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_err() {
                    self.state = State::Gone;
                }
            }
            State::Waiting | State::Lingering | State::Gone => {}
        }
    }
}

const GONE: PollFlags = PollFlags::POLLHUP.union(PollFlags::POLLERR);
