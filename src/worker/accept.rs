//! Taking new connections: when, from which listener, and what to do when there are too many.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use pyo3::prelude::*;

use super::connection::{Connection, Phase};
use super::outlet::{Outlet, Transport};
use super::relay::Farewell;
use super::{FIRST_LISTENER, Leave, NUDGE, RELAY, TURN, Worker};
use crate::config::ProxyProtocol;
use crate::log::{self, Allowed};
use crate::net::Listener;
use crate::relay::Traits;
use crate::scoreboard::{Counter, Row, State};
use crate::sys::clock::{MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::socket::{self, Peer};

/// After `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Nanos = SECOND;

/// Between two connections that are asked how long they have waited.
const WAIT_SAMPLE: Nanos = MILLISECOND;

/// A connection that has been idle for less may have its next request on the way.
const QUIET: Nanos = 100 * MILLISECOND;

/// Idle connections that are looked at to find one without a request.
const VACATE_TRIES: usize = 8;

/// Connections per listener that a worker takes which drains: more than one may have come in the
/// moment that it took to wake up.
const LAST_ACCEPTS: usize = 4;

/// Whether new connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    /// The worker has not been told to serve.
    NotYet,
    Yes,
    /// All connections are in use, and somebody waits for one.
    Full,
    /// The same, but a sibling has room.
    Yielding,
    /// The system has no descriptors or memory left; until then.
    Paused(Nanos),
    /// The worker drains.
    Never,
}

/// What has become of a connection that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Nothing,
    Open,
    /// Served and closed.
    Over,
}

/// Whether a sibling with other work has left a connection to this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    Nobody,
    Sibling,
}

/// Where a connection waits for somebody to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Listener(usize),
    Relay,
}

impl Door {
    pub(super) fn of(token: u64) -> Option<Door> {
        match token {
            RELAY => Some(Door::Relay),
            // Above the listeners are tokens of other things.
            FIRST_LISTENER..NUDGE => Some(Door::Listener((token - FIRST_LISTENER) as usize)),
            _ => None,
        }
    }
}

impl Worker<'_> {
    /// The kernel has woken us, and nobody else, for a connection (EPOLLEXCLUSIVE); with other work
    /// at hand, which may take the application long, a sibling has to be woken for it instead.
    pub(super) fn pass_on(&self, events: &[EpollEvent]) {
        let is_door =
            |event: &&EpollEvent| event.data() == NUDGE || Door::of(event.data()).is_some();
        let doors = events.iter().filter(is_door).count();
        let has_work = events.len() > doors || !self.runnable.is_empty();
        // Also if the connection is to be taken in this round: not before the work that comes first is done.
        // A call that comes with a connection is not answered but passed on: each means one that waits.
        if doors > 1 || (doors > 0 && has_work) {
            let _ = self.nudge.write(1);
        }
    }

    /// A sibling is busy and has left a connection to us: where it waits. Several calls look like one, so
    /// whoever takes something passes the call on; who finds nothing lets it end.
    pub(super) fn answer_nudge(&self) -> Option<Door> {
        let _ = self.nudge.read();
        let found = self.look_for_left();
        if found.is_some() {
            let _ = self.nudge.write(1);
        }
        found
    }

    fn look_for_left(&self) -> Option<Door> {
        if self
            .floor
            .ground
            .ferry
            .as_ref()
            .is_some_and(|ferry| ferry.relay.is_waiting())
        {
            return Some(Door::Relay);
        }
        let waits = |listener: &Listener| {
            let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
        };
        let open = self.listeners.iter().enumerate();
        let open = open.filter(|(index, _)| self.was.gives(*index));
        let waiting = open.filter(|(_, listener)| waits(listener));
        let next = waiting
            .map(|(index, _)| index)
            .min_by_key(|at| self.turn(*at));
        next.map(Door::Listener)
    }

    /// How many listeners have their turn before this one: none is to starve beside one that is always
    /// ready.
    fn turn(&self, listener: usize) -> usize {
        let most = self.listeners.len().max(1);
        (listener + most - 1 - self.last_listener.min(most - 1)) % most
    }

    /// Which of two doors has its turn first. What comes by the relay has waited before, but may come
    /// without end where all workers are busy.
    pub(super) fn first(&self, one: Option<Door>, other: Door) -> Door {
        match (one, other) {
            (Some(Door::Listener(one)), Door::Listener(other)) => {
                let is_one = self.turn(one) < self.turn(other);
                Door::Listener(if is_one { one } else { other })
            }
            (Some(listener @ Door::Listener(_)), Door::Relay)
            | (Some(Door::Relay), listener @ Door::Listener(_)) => match self.last_door {
                Door::Relay => listener,
                Door::Listener(_) => Door::Relay,
            },
            (None | Some(Door::Relay), other) => other,
        }
    }

    pub(super) fn listen(&mut self) -> io::Result<()> {
        let open = self.listeners.iter().enumerate();
        for (index, listener) in open.filter(|(index, _)| self.was.gives(*index)) {
            // EPOLLEXCLUSIVE: a new connection wakes one idle worker, not all of them (epoll_ctl(2)).
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            let event = EpollEvent::new(flags, FIRST_LISTENER + index as u64);
            self.floor.ground.epoll.add(listener, event)?;
        }
        let exclusive = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        if let Some(ferry) = &self.floor.ground.ferry {
            let event = EpollEvent::new(exclusive, RELAY);
            self.floor.ground.epoll.add(&ferry.relay, event)?;
        }
        self.floor
            .ground
            .epoll
            .add(&self.nudge, EpollEvent::new(exclusive, NUDGE))?;
        self.accepting = Accepting::Yes;
        Ok(())
    }

    pub(super) fn stop_listening(&mut self, accepting: Accepting) {
        if self.accepting == Accepting::Yes {
            for listener in &self.listeners {
                let _ = self.floor.ground.epoll.delete(listener);
            }
            if let Some(ferry) = &self.floor.ground.ferry {
                let _ = self.floor.ground.epoll.delete(&ferry.relay);
            }
            let _ = self.floor.ground.epoll.delete(&self.nudge);
        }
        if self.accepting != Accepting::Never {
            self.accepting = accepting;
        }
    }

    pub(super) fn accept(&mut self, py: Python<'_>, listener: usize) -> Accepted {
        if self.listeners[listener].speaks_was() {
            return self.accept_was(py, listener);
        }
        let (socket, peer) = match socket::accept(self.listeners[listener].as_fd()) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Accepted::Nothing,
            Err(error) => {
                self.make_room(&error);
                return Accepted::Nothing;
            }
        };
        self.last_listener = listener;
        self.last_door = Door::Listener(listener);
        self.row.count(Counter::Connections, 1);
        self.note_wait(socket.as_fd(), peer);
        let (transport, address) = match peer {
            Peer::Inet(address) => (Transport::Tcp, Some(address)),
            Peer::Local => (Transport::Unix, None),
        };
        let outlet = self.outlet(socket, transport);
        let mut connection = Connection::new(outlet, listener, address);
        if transport == Transport::Unix {
            connection.traits.set(Traits::LOCAL);
        }
        if self.listeners[listener].proxy_protocol() == ProxyProtocol::Required {
            connection.phase = Phase::Proxy;
        }
        connection.deadline = self.now + nanos(self.settings.limits.head_timeout);
        let id = self.admit(connection);
        // Its request is there already, more often than not.
        self.serve(py, id, EpollFlags::EPOLLIN);
        match self.find(id) {
            Some(_) => Accepted::Open,
            None => Accepted::Over,
        }
    }

    /// There are no descriptors left, or no memory: an idle connection makes room for the next one, else
    /// the worker waits until something has ended.
    #[cold]
    pub(super) fn make_room(&mut self, error: &io::Error) {
        let more = match error.raw_os_error() {
            Some(libc::EMFILE) => "; more descriptors are given by --rlimit nofile",
            _ => "",
        };
        if self.vacate() {
            if let Allowed::Yes { .. } = self.shortages.ask(self.now) {
                log::warning!("closing idle connections to accept others: {error}{more}");
            }
            return;
        }
        if self.connections.iter().any(|(_, c)| c.is_idle()) {
            return self.wait_for_place();
        }
        let pause = ACCEPT_PAUSE / SECOND;
        log::error!("cannot accept a connection: {error}; trying again in {pause} s{more}");
        self.stop_listening(Accepting::Paused(self.now + ACCEPT_PAUSE));
        self.wake_at(self.now + ACCEPT_PAUSE);
    }

    pub(super) fn outlet(&self, socket: OwnedFd, transport: Transport) -> Outlet {
        let limits = &self.settings.limits;
        let bounds = (limits.output_buffer, limits.send_timeout);
        Outlet::new(socket, transport, self.floor, bounds)
    }

    /// How long what the client has sent has waited for somebody to accept the connection. Asking costs
    /// a system call, so only a sample is asked; the kernel answers for TCP only.
    fn note_wait(&mut self, socket: BorrowedFd<'_>, peer: Peer) {
        if peer == Peer::Local || self.now < self.next_wait {
            return;
        }
        self.next_wait = self.now + WAIT_SAMPLE;
        if let Some(waited) = socket::since_last_bytes(socket) {
            self.row.queue().record(waited);
        }
    }

    /// Whether another connection has a place. If not, the worker looks again soon, and until then its
    /// responses say that their connections end (see [`Worker::may_persist`]).
    fn has_place(&mut self) -> bool {
        let most = self.settings.limits.max_connections;
        // A WAS client that has a connection keeps it; its idle ones make room for nobody.
        let open = self.connections.len() + self.was.len();
        if open < most {
            return true;
        }
        let has_place = |row: &Row| (row.connections() as usize) < most;
        if self.idle_siblings().any(has_place) {
            self.leave_to_others(Accepting::Yielding);
            return false;
        }
        if self.vacate() {
            return true;
        }
        self.wait_for_place();
        false
    }

    /// Workers of this generation that have nothing to do.
    pub(super) fn idle_siblings(&self) -> impl Iterator<Item = &'static Row> {
        let own = self.row;
        let siblings = self.floor.ground.scoreboard.rows().iter();
        siblings.filter(move |row| !std::ptr::eq(*row, own) && row.state() == State::Idle)
    }

    fn wait_for_place(&mut self) {
        self.leave_to_others(Accepting::Full);
    }

    /// Takes no connection for a moment, or until a place is free.
    fn leave_to_others(&mut self, accepting: Accepting) {
        // It may be us alone that the kernel has woken.
        let _ = self.nudge.write(1);
        self.stop_listening(accepting);
        self.wake_at(self.now + QUIET);
    }

    /// An idle connection is worth less than a new one: closes the one that has been idle for longest,
    /// unless it has not been for long or its next request is there already.
    pub(super) fn vacate(&mut self) -> bool {
        let idle = self.connections.iter().filter(|(_, c)| c.is_idle());
        let idle = idle.map(|(place, c)| (self.idle_for(c), place));
        let mut quiet: Vec<_> = idle.filter(|(time, _)| *time >= QUIET).collect();
        quiet.sort_unstable_by(|a, b| b.cmp(a));
        let has_asked =
            |(_, place): &(Nanos, usize)| socket::has_bytes(self.connections[*place].socket());
        let vacant = quiet.into_iter().take(VACATE_TRIES);
        let vacant = vacant.filter(|at| !has_asked(at)).map(|(_, place)| place);
        let vacant = vacant.take(1).last();
        vacant.inspect(|place| self.close(*place)).is_some()
    }

    fn idle_for(&self, connection: &Connection) -> Nanos {
        let limits = &self.settings.limits;
        let span = match connection.was_served() {
            true => limits.keep_alive.unwrap_or_default(),
            false => limits.head_timeout,
        };
        let until = self.now.saturating_add(nanos(span));
        until.saturating_sub(connection.deadline)
    }

    /// Idle siblings are the better place for a new connection while others wait here. But it may
    /// be this worker that the kernel has woken for it, so one is left waiting for one round only; and what a
    /// sibling has left to us (`calls`) is taken at once: its call is heard once, and nothing else tells of it.
    pub(super) fn accept_if_idle(
        &mut self,
        py: Python<'_>,
        waiting: Option<Door>,
        ready: usize,
        calls: Calls,
    ) {
        let Some(door) = waiting.filter(|_| self.accepting == Accepting::Yes) else {
            self.owes_accept = false;
            return;
        };
        let listener = match door {
            // It has waited for somebody once before.
            Door::Relay => {
                if self.has_place() {
                    self.last_door = door;
                    self.take_relayed(py);
                }
                return;
            }
            Door::Listener(listener) => listener,
        };
        let may_wait = ready > 0 && calls == Calls::Nobody;
        if may_wait && !std::mem::replace(&mut self.owes_accept, true) {
            return;
        }
        self.owes_accept = false;
        // Connections that end with their first response need no turn of the loop each.
        while self.has_place()
            && self.accept(py, listener) == Accepted::Over
            && self.accepting == Accepting::Yes
            && self.leave.is_none()
            && self.now.saturating_sub(self.woken) < TURN
        {}
    }

    /// What waits when we find the order to drain: the kernel may have woken us alone for it, and the
    /// siblings that a nudge could wake may drain, too.
    pub(super) fn accept_the_last(&mut self, py: Python<'_>, waiting: Option<Door>) {
        if waiting.is_some() {
            for index in 0..self.listeners.len() {
                for _ in 0..LAST_ACCEPTS {
                    self.accept(py, index);
                    if self.leave != Some(Leave::Drained) {
                        return;
                    }
                }
            }
        }
        let mut is_new = !self.listeners.is_empty();
        self.listeners.clear();
        // As long as it is here: a sibling that runs a request may not know yet that all leave.
        if self.farewell == Farewell::Finish {
            is_new |= self.take_the_last(py) > 0;
            if is_new {
                self.limit_idle();
            }
        }
    }

    pub(super) fn resume_listening(&mut self) {
        if let Err(error) = self.listen() {
            log::error!("cannot listen again: {error}");
            self.drain(Farewell::Finish);
        }
    }
}
