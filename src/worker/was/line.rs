//! The descriptors of one WAS connection and its counts, behind one lock: while the application runs,
//! somebody else may answer the client. Nothing here knows Python.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::Shutdown;

use crate::net::was::Connection;
use crate::sys::clock::{self, Nanos};
use crate::sys::pipe;
use crate::sys::socket::{self, Push};
use crate::was::{Content, Happened, Head, Metric, Session, State as Standing, Violation};

/// Control packets that may wait to be taken: a client that sends more of them is out of step.
const BACKLOG: usize = 1 << 20;
/// Read from the control channel between two blocks of a response.
const GLANCE: usize = 512;

pub struct Line {
    control: OwnedFd,
    input: OwnedFd,
    output: OwnedFd,
    state: Mutex<State>,
}

struct State {
    session: Session,
    /// Packets that the socket has not taken yet.
    out: Vec<u8>,
    /// When the client was heard last.
    heard: Nanos,
    lost: Option<Lost>,
}

/// Why a connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The client has closed a channel.
    Closed,
    Violation(Violation),
}

impl Line {
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(connection: Connection) -> std::io::Result<Self> {
        let Connection {
            control,
            input,
            output,
        } = connection;
        for fd in [&control, &input, &output] {
            pipe::set_nonblocking(fd.as_fd())?;
        }
        Ok(Self {
            control,
            input,
            output,
            state: Mutex::new(State {
                session: Session::new(),
                out: Vec::new(),
                heard: 0,
                lost: None,
            }),
        })
    }

    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    pub fn hold(&self) -> Hold<'_> {
        Hold {
            line: self,
            // Whoever panicked has ended the process.
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Also for copies of the descriptor that a child of the application may have.
    pub fn shut_down(&self) {
        let _ = nix::sys::socket::shutdown(self.control.as_raw_fd(), Shutdown::Both);
    }
}

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Bytes(usize),
    Nothing,
}

/// A line while it is locked.
pub struct Hold<'a> {
    line: &'a Line,
    state: MutexGuard<'a, State>,
}

impl Hold<'_> {
    pub fn session(&self) -> &Session {
        &self.state.session
    }

    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.state.session
    }

    pub fn lost(&self) -> Option<Lost> {
        self.state.lost
    }

    pub fn lose(&mut self, lost: Lost) {
        self.state.lost.get_or_insert(lost);
    }

    /// When the client was heard last, by whomever.
    pub fn heard(&self) -> Nanos {
        self.state.heard
    }

    /// Reads what the control channel has.
    pub fn hear(&mut self, buffer: &mut [u8], now: Nanos) -> Input {
        match socket::receive(self.line.control.as_fd(), buffer) {
            Ok(0) => self.lose(Lost::Closed),
            Ok(count) => {
                self.state.heard = now;
                let session = &mut self.state.session;
                session.receive(&buffer[..count]);
                if session.rest_of_input().len() > BACKLOG {
                    self.lose(Lost::Violation(Violation::Unexpected(0)));
                }
                return Input::Bytes(count);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.lose(Lost::Closed),
        }
        Input::Nothing
    }

    /// What the next packet means.
    pub fn next(&mut self) -> Option<Happened<'_>> {
        let State {
            session, out, lost, ..
        } = &mut *self.state;
        if lost.is_some() {
            return None;
        }
        match session.next(out) {
            Ok(happened) => happened,
            Err(violation) => {
                *lost = Some(Lost::Violation(violation));
                None
            }
        }
    }

    /// The request will not be answered by the application: the client is told, with this status if nothing
    /// was said before. Whether it was.
    pub fn answer_late(&mut self, status: u16) -> bool {
        let was_fresh = self.session().is_fresh();
        let head = Head {
            status,
            fields: b"",
            content: Content::Nothing { length: None },
        };
        self.respond(&head, &[]);
        self.cut();
        self.speak();
        was_fresh && !self.has_to_say()
    }

    /// Looks whether the client wants no more of the response that is being made, and answers it.
    pub fn attend(&mut self) {
        self.hear(&mut [0; GLANCE], clock::now());
        while self.next().is_some() {}
        self.speak();
    }

    /// Reads from the request body, as much of it as may be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> Input {
        let readable = self.session().readable();
        let most = usize::try_from(readable).map_or(buffer.len(), |n| n.min(buffer.len()));
        if most == 0 {
            return Input::Nothing;
        }
        match pipe::read(self.line.input.as_fd(), &mut buffer[..most]) {
            Ok(0) => self.lose(Lost::Closed),
            Ok(count) => match self.session_mut().was_read(count as u64) {
                Ok(()) => return Input::Bytes(count),
                Err(violation) => self.lose(Lost::Violation(violation)),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.lose(Lost::Closed),
        }
        Input::Nothing
    }

    pub fn respond(&mut self, head: &Head<'_>, metrics: &[Metric]) {
        let State { session, out, .. } = &mut *self.state;
        session.respond(out, head, metrics);
    }

    pub fn end(&mut self, length: u64, metrics: &[Metric]) {
        let State { session, out, .. } = &mut *self.state;
        session.end(out, length, metrics);
    }

    pub fn cut(&mut self) {
        let State { session, out, .. } = &mut *self.state;
        session.cut(out);
    }

    pub fn refuse_upload(&mut self) {
        let State { session, out, .. } = &mut *self.state;
        session.refuse_upload(out);
    }

    /// Whether packets wait for the socket.
    pub fn has_to_say(&self) -> bool {
        !self.state.out.is_empty()
    }

    /// Sends the packets that wait.
    pub fn speak(&mut self) {
        let State { out, lost, .. } = &mut *self.state;
        if out.is_empty() || lost.is_some() {
            return;
        }
        let parts = [std::io::IoSlice::new(out)];
        match socket::send(self.line.control.as_fd(), &parts, Push::Now) {
            Ok(taken) if taken == out.len() => out.clear(),
            Ok(taken) => drop(out.drain(..taken)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => *lost = Some(Lost::Closed),
        }
    }
}

/// Where a connection is passed on: what is to be said of it, and with which descriptors.
pub fn standing(line: &Arc<Line>) -> Option<(Standing, Vec<u8>)> {
    let hold = line.hold();
    let session = hold.session();
    let is_free = hold.lost().is_none() && !hold.has_to_say() && session.is_between();
    is_free.then(|| (session.state(), session.rest_of_input().to_vec()))
}
