//! The main loop's side of the relay: connections that others have sent, and those that it hands over
//! when the worker leaves.

use nix::sys::epoll::{EpollEvent, EpollFlags};
use pyo3::prelude::*;

use super::accept::{Accepted, Accepting};
use super::connection::{Connection, Phase};
use super::ferry::Passage;
use super::outlet::Transport;
use super::{Id, Leave, Worker};
use crate::log::{self, Allowed};
use crate::relay::{Cause, Message, Taken, Traits};
use crate::scoreboard::Counter;
use crate::sys::clock::{MILLISECOND, Nanos, SECOND};
use std::os::fd::OwnedFd;

/// Between two attempts when the relay is full.
const AGAIN: Nanos = 10 * MILLISECOND;
/// How long a worker that leaves tries to hand its connections over; then it waits for their clients as
/// one does whose server stops.
pub(super) const HAND_OVER_PATIENCE: Nanos = 5 * SECOND;
/// Of the time that a request takes, by experience: with less of it a sibling would hardly be quicker.
const WORTH_IT: Nanos = MILLISECOND / 2;
/// Connections that a worker takes from the relay when its server stops: nobody else will.
const LAST_TAKEN: usize = 256;

/// What becomes of the connections of a worker that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// They end, each with its next response or after a moment.
    Finish,
    /// Others go on with them.
    HandOver { until: Nanos },
    /// Others would, but nobody has taken them in time: as with [`Farewell::Finish`].
    GiveUp,
}

impl Worker<'_> {
    /// Takes a connection from the relay and goes on with it.
    pub(super) fn take_relayed(&mut self, py: Python<'_>) -> Accepted {
        let Some(ferry) = &self.floor.ground.ferry else {
            return Accepted::Nothing;
        };
        if let Err(error) = self.reserve.clear(&self.nudge) {
            self.make_room(&error);
            return Accepted::Nothing;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = ferry.relay.take(&mut buffer);
        // If it can't be filled now, nothing more is taken before it can.
        let _ = self.reserve.fill(&self.nudge);
        let taken = match taken {
            Ok(Taken::Connection(message, socket)) => match ferry.origin(message.listener) {
                Some(origin) => Ok(Some((
                    message.cause,
                    self.receive_relayed(&message, socket, origin),
                ))),
                None => Err("no listener is the one it came in by".into()),
            },
            Ok(Taken::Was(message, descriptors)) => match ferry.origin(message.listener) {
                Some(origin) => {
                    let input = message.input.to_vec();
                    self.note_relayed(&message);
                    self.buffer = buffer;
                    return self.go_on_with_was(py, origin, descriptors, &input);
                }
                None => Err("no listener is the one it came in by".into()),
            },
            Ok(Taken::Nothing) => Ok(None),
            Ok(Taken::Refused(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        };
        // Whoever reads from the connection needs it.
        self.buffer = buffer;
        match taken {
            Ok(Some((cause, id))) => self.go_on_with(py, id, cause),
            Ok(None) => Accepted::Nothing,
            Err(reason) => self.refuse_relayed(&reason),
        }
    }

    fn refuse_relayed(&mut self, reason: &str) -> Accepted {
        self.row.count(Counter::RelayRefused, 1);
        if let Allowed::Yes { .. } = self.refusals.ask(self.now) {
            log::error!("closed a connection that another worker has sent: {reason}");
        }
        Accepted::Over
    }

    fn note_relayed(&self, message: &Message<'_>) {
        self.row.count(Counter::RelayedIn, 1);
        let waited = self.now.saturating_sub(message.sent);
        self.row.relay().record(waited);
    }

    fn receive_relayed(&mut self, message: &Message<'_>, socket: OwnedFd, origin: usize) -> Id {
        self.note_relayed(message);
        let now = self.now;
        let traits = message.traits;
        let transport = match traits.has(Traits::LOCAL) {
            true => Transport::Unix,
            false => Transport::Tcp,
        };
        let outlet = self.outlet(socket, transport);
        let mut connection = Connection::new(outlet, origin, message.peer);
        connection.traits = traits;
        if traits.has(Traits::UNNAMED) {
            connection.traits.clear(Traits::UNNAMED);
            connection.phase = Phase::Proxy;
        }
        connection.deadline = message.deadline;
        connection.arrived = message.arrived.min(now);
        connection.received = message.received.min(now);
        connection.input = message.input.to_vec();
        self.admit(connection)
    }

    fn go_on_with(&mut self, py: Python<'_>, id: Id, cause: Cause) -> Accepted {
        let is_empty = self.connections[id.place()].input.is_empty();
        match (is_empty, cause) {
            (false, _) => self.resume(py, id),
            (true, Cause::Busy | Cause::Balance) => self.serve(py, id, EpollFlags::EPOLLIN),
            // It was idle.
            (true, Cause::Drain | Cause::Stuck) => self.watch(id.place()),
        }
        match self.find(id) {
            Some(_) => Accepted::Open,
            None => Accepted::Over,
        }
    }

    /// Gives requests that have come at once to siblings that have nothing to do, where the application takes
    /// so long that the way there is nothing against the wait here.
    pub(super) fn balance(&mut self, events: &[EpollEvent]) {
        if self.service < WORTH_IT || events.len() < 2 || self.leave.is_some() {
            return;
        }
        let idle = self.idle_siblings().count();
        let asks = |event: &&EpollEvent| {
            let place = self.find(Id(event.data()));
            place.is_some_and(|place| self.connections[place].awaits_head())
        };
        // The first one is ours.
        let given = events.iter().filter(asks).skip(1).take(idle);
        let given: Vec<usize> = given.map(|event| Id(event.data()).place()).collect();
        for place in given {
            self.connections.ferry(place, Cause::Balance, self.now);
        }
        self.forget_gone();
    }

    /// Whether a connection may outlive its request, and this worker.
    pub(super) fn may_persist(&self) -> bool {
        self.accepting != Accepting::Full && (self.leave.is_none() || self.hands_over())
    }

    pub(super) fn hands_over(&self) -> bool {
        self.leave == Some(Leave::Drained) && matches!(self.farewell, Farewell::HandOver { .. })
    }

    /// Others take the connections on which nothing is half done.
    pub(super) fn hand_over(&mut self) {
        let Farewell::HandOver { until } = self.farewell else {
            return;
        };
        if self.leave != Some(Leave::Drained) {
            return;
        }
        let mut room = Passage::Left;
        for place in self.places() {
            if self.connections.ferry(place, Cause::Drain, self.now) == Passage::NoRoom {
                room = Passage::NoRoom;
                break;
            }
        }
        if self.hand_over_was() == Passage::NoRoom {
            room = Passage::NoRoom;
        }
        self.forget_gone();
        // Not before it was tried: the request that ran meanwhile may have taken longer than that.
        if room == Passage::NoRoom && until <= self.now {
            let left = self.connections.len() + self.was.len();
            log::warning!("nobody takes over {left} connections: waiting for their clients");
            self.farewell = Farewell::GiveUp;
            return self.limit_idle();
        }
        if room == Passage::NoRoom {
            self.next_sweep = self.next_sweep.min(self.now + AGAIN);
        }
        if !self.is_vacant() && until > self.now {
            self.next_sweep = self.next_sweep.min(until);
        }
    }

    fn places(&self) -> Vec<usize> {
        self.connections.iter().map(|(place, _)| place).collect()
    }

    /// Takes note of connections that have left.
    pub(super) fn forget_gone(&mut self) {
        self.forget_gone_was();
        let gone = self.connections.take_gone();
        if gone.is_empty() {
            return;
        }
        for remains in gone {
            self.held -= remains.held;
            if let (Some(ticket), Some(pen)) = (remains.ticket, &mut self.pen) {
                pen.withdraw(ticket);
            }
        }
        self.listen_if_not_full();
    }

    /// The server stops: those that other workers have handed over are nobody's but ours. How many there
    /// were.
    pub(super) fn take_the_last(&mut self, py: Python<'_>) -> usize {
        for count in 0..LAST_TAKEN {
            let goes_on = self.leave == Some(Leave::Drained);
            if !goes_on || self.take_relayed(py) == Accepted::Nothing {
                return count;
            }
        }
        LAST_TAKEN
    }

    /// A connection that was taken, told apart from all others.
    pub(super) fn admit(&mut self, mut connection: Connection) -> Id {
        let deadline = connection.deadline;
        self.epoch = self.epoch.wrapping_add(1);
        connection.epoch = self.epoch;
        let place = self.connections.insert(connection);
        self.tell_connections();
        if deadline != Nanos::MAX {
            self.wake_at(deadline);
        }
        Id::new(place, self.epoch)
    }
}

impl Connection {
    pub(super) fn was_served(&self) -> bool {
        self.traits.has(Traits::SERVED)
    }
}
