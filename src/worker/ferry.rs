//! Connections that leave for another worker, by whoever holds the lock: the main loop or the watcher.
//!
//! Only a connection on which nothing is half done travels: it is idle, in the middle of a head, or has
//! a body in memory that can be read again from its first byte. It is sent first, then taken out of the
//! epoll set, then closed here, all under the lock: there is no moment in which two workers could serve
//! it, and none in which it could be lost but by the end of this process.

#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use nix::sys::socket::{Shutdown, shutdown};

use super::connection::{Connection, Phase, Remains};
use super::floor::{Floor, Places};
use crate::log::{self, Allowed};
use crate::net::Listener;
use crate::relay::{Cause, FrontEnd, Mark, Message, Put, Relay, Traits};
use crate::scoreboard::Counter;
use crate::sys::clock::Nanos;
use crate::sys::forks;

/// The relay and what has to be said with it.
pub struct Ferry {
    pub relay: Relay,
    /// Of the listeners, in their order.
    pub(super) marks: Vec<Mark>,
}

/// What became of a connection that was to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    Left,
    /// The relay has no room; the connection is as it was.
    NoRoom,
    /// Something is half done on it.
    NotYet,
}

impl Ferry {
    pub fn new(relay: Relay, listeners: &[Listener]) -> Self {
        let marks = listeners.iter().enumerate();
        let marks = marks.map(|(index, listener)| Mark::new(index, listener.name()));
        Self {
            relay,
            marks: marks.collect(),
        }
    }

    /// The listener that a connection came in by.
    pub fn origin(&self, mark: Mark) -> Option<usize> {
        let index = usize::from(mark.index);
        match self.marks.get(index) {
            Some(own) if own.hash == mark.hash => Some(index),
            // Other settings, the same listener in another place.
            _ => self.marks.iter().position(|own| own.hash == mark.hash),
        }
    }

    fn put(&self, connection: &Connection, input: [&[u8]; 2], cause: Cause, now: Nanos) -> Put {
        let message = Message {
            front_end: FrontEnd::Http,
            cause,
            traits: connection
                .traits
                .with(Traits::SHARED, forks::has_children())
                .with(Traits::UNNAMED, matches!(connection.phase, Phase::Proxy)),
            listener: self.marks[connection.origin],
            peer: connection.address(),
            sent: now,
            deadline: connection.deadline,
            arrived: connection.arrived,
            received: connection.received,
            input: &[],
        };
        self.relay.put(&message, input, connection.socket())
    }
}

impl Floor {
    /// Sends a connection on.
    pub fn ferry(&self, places: &mut Places, place: usize, cause: Cause, now: Nanos) -> Passage {
        let (Some(ferry), Some(connection)) = (&self.ground.ferry, places.connections.get(place))
        else {
            return Passage::NotYet;
        };
        let Some(input) = connection.freight() else {
            return Passage::NotYet;
        };
        match ferry.put(connection, input, cause, now) {
            Put::Sent => {}
            Put::Full => {
                self.ground.row.count(Counter::RelayFull, 1);
                return Passage::NoRoom;
            }
            Put::Failed(error) => {
                tell_trouble(places, &error, now);
                return Passage::NoRoom;
            }
        }
        if connection.watched.is_some() {
            let _ = self.ground.epoll.delete(connection.socket());
        }
        self.let_go(places, place);
        self.ground.row.count(counter(cause), 1);
        Passage::Left
    }

    /// Closes an idle connection whose client has gone.
    pub fn close(&self, places: &mut Places, place: usize) {
        let Some(connection) = places.connections.get(place) else {
            return;
        };
        if forks::has_children() || connection.traits.has(Traits::SHARED) {
            let _ = self.ground.epoll.delete(connection.socket());
            let _ = shutdown(connection.socket().as_raw_fd(), Shutdown::Both);
        }
        self.let_go(places, place);
    }

    fn let_go(&self, places: &mut Places, place: usize) {
        let connection = places.connections.remove(place);
        places.gone.push(Remains::of(connection));
        let open = places.connections.len() + places.was.len();
        self.ground.row.set_connections(open);
    }
}

/// It is tried again and again, and most of it is the same.
pub(super) fn tell_trouble(places: &mut Places, error: &dyn std::fmt::Display, now: Nanos) {
    if let Allowed::Yes { withheld } = places.troubles.ask(now) {
        let more = log::more_like_this(withheld);
        log::error!("cannot send a connection on: {error}{more}");
    }
}

pub(super) fn counter(cause: Cause) -> Counter {
    match cause {
        Cause::Busy => Counter::RelayedBusy,
        Cause::Drain => Counter::RelayedDrain,
        Cause::Stuck => Counter::RelayedStuck,
        Cause::Balance => Counter::RelayedBalance,
    }
}
