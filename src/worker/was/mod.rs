//! The WAS front end: connections of three descriptors each, which come out of a Multi-WAS socket as
//! others come out of a listener.
//!
//! ```text
//! Head -> Body -> (the application) -> Flush -> Drain -> Head
//!      \-> Refuse --------------------/
//! ```
//!
//! What may be said and read when is decided by [`crate::was::Session`]; here bytes are moved. The
//! application gets a request when all of it is there; before the response is completed, the request
//! body is out of the pipe.

mod account;
mod finish;
mod line;
mod run;
mod serve;
mod spout;
mod wards;

pub(super) use wards::Wards;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use pyo3::prelude::*;
use slab::Slab;

use super::Worker;
use super::accept::{Accepted, Accepting};
use super::body::Body;
use super::leaving::DRAIN_IDLE;
use crate::access::Ticket;
use crate::log;
use crate::net::Listener;
use crate::net::was::{Connection as Descriptors, New, take, tell_lost};
use crate::scoreboard::Counter;
use crate::sys::clock::{Nanos, nanos};
use crate::sys::socket;
use crate::was::{self, Violation};
use crate::wsgi::Peer;
use line::{Line, Lost};
use spout::Spout;

/// Tells tokens of these connections from others.
const MARK: u64 = 1 << 31;

/// Where the exchange on a connection stands.
enum Phase {
    /// Between requests, or in the metadata of one.
    Head,
    Body(Body),
    /// The server answers itself, once nothing of the body is under way.
    Refuse(u16),
    /// The response waits for the client.
    Flush,
    /// The response is over, the request body perhaps not.
    Drain,
}

struct Connection {
    line: Arc<Line>,
    /// Lent to the WSGI layer while a request runs.
    spout: Option<Box<Spout>>,
    request: Box<was::Request>,
    phase: Phase,
    epoch: u32,
    /// Index of the socket that it came from.
    origin: usize,
    /// When the client has to have done its next step.
    deadline: Nanos,
    /// What the epoll set watches: control, input, output.
    watched: [Option<EpollFlags>; 3],
    ticket: Option<Ticket>,
    arrived: Nanos,
    received: Nanos,
    /// Bytes of the response that have been counted.
    counted: u64,
}

impl Connection {
    fn spout(&mut self) -> &mut Spout {
        self.spout.as_mut().expect("lent only while a request runs")
    }

    /// Between two requests, and nothing of the next one has come.
    fn is_idle(&self) -> bool {
        let hold = self.line.hold();
        matches!(self.phase, Phase::Head) && hold.session().is_idle()
    }

    fn held(&self) -> usize {
        match &self.phase {
            Phase::Body(body) => body.in_memory(),
            _ => 0,
        }
    }
}

/// All connections of a worker.
#[derive(Default)]
pub(super) struct Lines {
    open: Slab<Connection>,
    epoch: u32,
    /// Sockets that give no connection any more.
    closed: Vec<usize>,
    /// The visitor has an address, who speaks to us has none.
    peer: Option<Peer>,
}

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_token(token: u64) -> bool {
        token & MARK != 0 && token < super::FIRST_LISTENER
    }

    /// Whether a door is worth watching.
    pub(super) fn gives(&self, door: usize) -> bool {
        !self.closed.contains(&door)
    }

    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.open.iter().map(|(_, c)| c.deadline).min()
    }

    fn token(&self, place: usize) -> u64 {
        u64::from(self.open[place].epoch & (u32::MAX >> 1)) << 32 | MARK | place as u64
    }

    fn find(&self, token: u64) -> Option<usize> {
        let place = (token & (MARK - 1)) as usize;
        self.open
            .contains(place)
            .then_some(place)
            .filter(|place| self.token(*place) == token)
    }
}

impl Worker<'_> {
    /// Takes a connection out of the door that has become ready.
    pub(super) fn accept_was(&mut self, py: Python<'_>, door: usize) -> Accepted {
        // A connection whose descriptors find no place is lost when it is taken, not when it waits.
        if let Err(error) = self.reserve.clear(&self.nudge) {
            self.make_room(&error);
            return Accepted::Nothing;
        }
        let taken = take(self.listeners[door].as_fd());
        // If it can't be filled now, nothing more is taken before it can.
        let _ = self.reserve.fill(&self.nudge);
        match taken {
            Ok(New::Nothing) => Accepted::Nothing,
            Ok(New::Connection(connection)) => self.begin_was(py, door, connection),
            Ok(New::End) => {
                self.close_door(door);
                Accepted::Nothing
            }
            Ok(New::Strange(what)) => {
                let name = self.listeners[door].name();
                log::error!("{name}: {what}; taking no more connections from it");
                shut_down(&self.listeners[door]);
                self.close_door(door);
                Accepted::Nothing
            }
            Err(error) => {
                log::error!("cannot take a WAS connection: {error}");
                Accepted::Nothing
            }
        }
    }

    fn begin_was(&mut self, py: Python<'_>, door: usize, connection: Descriptors) -> Accepted {
        if let Err(what) = connection.check() {
            if let log::Allowed::Yes { withheld } = self.refusals.ask(self.now) {
                let more = log::more_like_this(withheld);
                log::warning!("closed a WAS connection: {what}{more}");
            }
            return Accepted::Over;
        }
        match Line::new(connection) {
            Ok(line) => {
                self.row.count(Counter::Connections, 1);
                self.admit_was(py, door, line)
            }
            Err(error) => {
                log::error!("cannot use a WAS connection: {error}");
                Accepted::Nothing
            }
        }
    }

    /// It gives no connection any more; the supervisor sees that, too, and decides what follows.
    fn close_door(&mut self, door: usize) {
        if self.accepting == Accepting::Yes {
            let _ = self.floor.ground.epoll.delete(&self.listeners[door]);
        }
        self.was.closed.push(door);
    }

    /// The only connection was taken by a worker that is gone: there is nothing to serve any more.
    pub(super) fn look_for_lost_was(&mut self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let waits = |fd: BorrowedFd<'_>| {
            let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
        };
        for door in self.listeners.iter().filter(|door| door.gives_one_only()) {
            if !waits(door.as_fd()) {
                // The supervisor says so: its exit status follows from it.
                tell_lost(door.as_fd());
                shut_down(door);
            }
        }
    }

    fn admit_was(&mut self, py: Python<'_>, origin: usize, line: Line) -> Accepted {
        let limits = &self.settings.limits;
        let line = Arc::new(line);
        let (bound, patience) = (limits.output_buffer, limits.send_timeout);
        self.was.epoch = self.was.epoch.wrapping_add(1);
        let place = self.was.open.insert(Connection {
            spout: Some(Box::new(Spout::new(Arc::clone(&line), bound, patience))),
            line,
            request: Box::default(),
            phase: Phase::Head,
            epoch: self.was.epoch,
            origin,
            deadline: Nanos::MAX,
            watched: [None; 3],
            ticket: None,
            arrived: 0,
            received: 0,
            counted: 0,
        });
        self.enrol(place);
        self.tell_connections();
        let token = self.was.token(place);
        self.serve_was(py, token, EpollFlags::EPOLLIN);
        match self.was.find(token) {
            Some(_) => Accepted::Open,
            None => Accepted::Over,
        }
    }

    /// Makes the epoll set watch what the connection waits for.
    fn watch_was(&mut self, place: usize) {
        let token = self.was.token(place);
        let connection = &mut self.was.open[place];
        let line = Arc::clone(&connection.line);
        let hold = line.hold();
        let when =
            |flag: EpollFlags, applies: bool| if applies { flag } else { EpollFlags::empty() };
        let reads = match connection.phase {
            Phase::Head | Phase::Flush => false,
            _ => hold.session().readable() > 0,
        };
        let writes = connection
            .spout
            .as_ref()
            .is_some_and(|spout| spout.is_pending());
        let wanted = [
            EpollFlags::EPOLLIN | when(EpollFlags::EPOLLOUT, hold.has_to_say()),
            when(EpollFlags::EPOLLIN, reads),
            when(EpollFlags::EPOLLOUT, writes),
        ];
        drop(hold);
        let channels = [line.control(), line.input(), line.output()];
        let mut failed = None;
        for (index, (fd, wanted)) in channels.into_iter().zip(wanted).enumerate() {
            let watched = &mut connection.watched[index];
            let mut event = EpollEvent::new(wanted, token);
            let done = match (*watched, wanted.is_empty()) {
                (Some(before), _) if before == wanted => continue,
                (None, true) => continue,
                (None, false) => self.floor.ground.epoll.add(fd, event),
                (Some(_), true) => self.floor.ground.epoll.delete(fd),
                (Some(_), false) => self.floor.ground.epoll.modify(fd, &mut event),
            };
            *watched = Some(wanted).filter(|wanted| !wanted.is_empty());
            failed = failed.or(done.err());
        }
        if let Some(error) = failed {
            log::error!("cannot watch a WAS connection: {error}");
            self.close_was(place);
        }
    }

    /// Ends a connection, whatever was going on.
    fn close_was(&mut self, place: usize) {
        let mut connection = self.was.open.remove(place);
        self.connections.was().strike(place);
        self.held -= connection.held();
        self.account_was_close(&mut connection);
        let line = &connection.line;
        let channels = [line.control(), line.input(), line.output()];
        for (fd, watched) in channels.into_iter().zip(connection.watched) {
            if watched.is_some() {
                let _: Result<(), _> = self.floor.ground.epoll.delete::<BorrowedFd<'_>>(fd);
            }
        }
        line.shut_down();
        let origin = connection.origin;
        drop(connection);
        self.tell_connections();
        if self
            .listeners
            .get(origin)
            .is_some_and(|door| door.gives_one_only())
        {
            // The supervisor learns by this that all is done.
            shut_down(&self.listeners[origin]);
        }
        self.listen_if_not_full();
    }

    /// A connection that cannot go on.
    fn lose_was(&mut self, place: usize, lost: Lost) {
        let connection = &self.was.open[place];
        let is_between = connection.line.hold().session().is_between();
        match lost {
            Lost::Closed if is_between && matches!(connection.phase, Phase::Head) => {}
            Lost::Closed => self.row.count(Counter::ClientAborts, 1),
            Lost::Violation(violation) => self.tell_violation(violation),
        }
        self.close_was(place);
    }

    fn tell_violation(&mut self, violation: Violation) {
        if let log::Allowed::Yes { withheld } = self.refusals.ask(self.now) {
            let more = log::more_like_this(withheld);
            log::warning!("closed a WAS connection: the client is out of step, {violation}{more}");
        }
    }

    /// Ends what has taken too long.
    pub(super) fn sweep_was(&mut self, py: Python<'_>) {
        let overdue = self.was.open.iter().filter(|(_, c)| c.deadline <= self.now);
        let overdue: Vec<u64> = overdue.map(|(place, _)| self.was.token(place)).collect();
        for token in overdue {
            if let Some(place) = self.was.find(token) {
                self.time_out_was(py, place);
            }
        }
    }

    /// The worker leaves: idle connections are closed, but not those on which a request is on its way.
    pub(super) fn drain_was(&mut self) {
        if self.hands_over() {
            return;
        }
        for (_, connection) in &mut self.was.open {
            let is_between = connection.line.hold().session().is_between();
            if is_between && matches!(connection.phase, Phase::Head) {
                connection.deadline = connection.deadline.min(self.now + DRAIN_IDLE);
            }
        }
    }

    fn set_was_deadline(&mut self, place: usize, after: Nanos) {
        let deadline = self.now.saturating_add(after);
        self.was.open[place].deadline = deadline;
        if deadline < self.next_sweep {
            self.wake_at(deadline);
        }
    }

    /// How long an idle connection stays: for as long as the client likes, or the worker.
    fn rest_was(&mut self, place: usize) {
        match self.leave {
            None => self.was.open[place].deadline = Nanos::MAX,
            Some(_) if self.hands_over() => self.was.open[place].deadline = Nanos::MAX,
            Some(_) => self.set_was_deadline(place, DRAIN_IDLE),
        }
    }

    fn time_out_was(&mut self, py: Python<'_>, place: usize) {
        let patience = nanos(self.settings.limits.send_timeout);
        let line = Arc::clone(&self.was.open[place].line);
        match &self.was.open[place].phase {
            Phase::Head if self.was.open[place].is_idle() => {
                match socket::has_bytes(line.control()) {
                    true => self.set_was_deadline(place, nanos(self.settings.limits.head_timeout)),
                    false => self.close_was(place),
                }
            }
            Phase::Body(_) => {
                self.refuse_was(place, 408);
                self.go_on_was(py, place);
            }
            Phase::Flush => {
                // It stays in step, if the client comes back.
                self.row.count(Counter::ClientAborts, 1);
                self.was.open[place].spout().give_up();
                self.was.open[place].phase = Phase::Drain;
                self.set_was_deadline(place, patience);
                self.go_on_was(py, place);
            }
            Phase::Head | Phase::Refuse(_) | Phase::Drain => self.lose_was(place, Lost::Closed),
        }
    }
}

/// In all processes that have it.
fn shut_down(door: &Listener) {
    let both = nix::sys::socket::Shutdown::Both;
    let _ = nix::sys::socket::shutdown(door.as_fd().as_raw_fd(), both);
}
