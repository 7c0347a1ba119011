//! WAS connections on their way to the workers.
//!
//! Workers take all of them out of one socket, as they accept from a listener: that of a Multi-WAS client,
//! or our own end of a pair. Into the other end the supervisor puts the only connection that the program
//! was started with, and what the clients of a socket send which this program listens on (Remote-WAS).
//! Those clients are the supervisor's, not a worker's: a worker that had accepted one would get all of
//! its connections, and would be the only one that could, until it leaves. Connections are passed on
//! unread; that costs two system calls when one is made and nothing per request.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::Shutdown;
use serde::{Deserialize, Serialize};

use super::hand_over::take;
use crate::config::{Bind, Settings};
use crate::error::{Error, Exit, Result};
use crate::log;
use crate::net::was::{self, Connection, New, Standard};
use crate::net::{Door, HandedListener, Kind, Listener, Passed};
use crate::relay::FrontEnd;
use crate::sys::clock::{Nanos, SECOND};
use crate::sys::passing::Reserve;
use crate::sys::socket;

/// Clients at the same time: one has as many connections as it likes.
const MOST_CLIENTS: usize = 256;
/// After something failed for want of descriptors or memory.
const PAUSE: Nanos = SECOND;
/// Connections passed on per wake-up.
const BATCH: usize = 64;

/// Who brings WAS connections to one app.
pub struct Broker {
    /// Where clients connect, and who has.
    sources: Vec<Listener>,
    clients: Vec<OwnedFd>,
    /// Leads to the workers.
    entry: Option<OwnedFd>,
    /// The same for the only connection that this program was started with.
    single: Option<OwnedFd>,
    /// What the workers have not had room for.
    waiting: Option<Connection>,
    /// For one connection.
    reserve: Reserve,
    /// There were no descriptors: until then nobody is let in and nothing is taken.
    short_until: Option<Nanos>,
    /// The program was started for a connection, or for a client, that is gone.
    forsaken: Cell<bool>,
}

/// For the program that replaces this one.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct HandedBroker {
    entry: Option<RawFd>,
    single: Option<RawFd>,
    sources: Vec<HandedListener>,
    clients: Vec<RawFd>,
}

impl HandedBroker {
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let sources = self.sources.iter().map(|handed| handed.spec.fd);
        sources
            .chain(self.clients.iter().copied())
            .chain(self.entry)
            .chain(self.single)
    }
}

/// The door of what this program was started with, if that speaks WAS and nothing else was asked for, or
/// it was. A single connection is told apart by its settings: it is served by one worker, which nobody
/// can replace.
pub fn standard(
    settings: &mut Settings,
    passed: &[Passed],
    calls_itself_was: bool,
) -> Result<Option<(Listener, Option<OwnedFd>)>> {
    let wanted = settings
        .bind
        .iter()
        .any(|listen| listen.bind == Bind::WasStandard)
        || calls_itself_was;
    let free = settings.bind.is_empty() && passed.is_empty();
    match was::standard() {
        _ if !wanted && !free => Ok(None),
        Standard::Single => {
            let connection = was::take_single()
                .map_err(|error| Error::io("cannot take the WAS connection", &error))?;
            let (entry, door) = was::pair(Door::Single)?;
            was::put(entry.as_fd(), &connection)
                .map_err(|error| Error::io("cannot pass the WAS connection on", &error))?;
            settings.serve_one_connection();
            Ok(Some((door, Some(entry))))
        }
        Standard::Multi => Ok(Some((was::take_multi()?, None))),
        Standard::Terminal | Standard::Other if wanted => {
            let message =
                "standard input is no WAS connection: a WAS client has to start this program";
            let error = Error::new(Exit::Usage, message);
            Err(error.advise("without one, give --bind was:/path or --bind HOST:PORT"))
        }
        Standard::Terminal | Standard::Other => Ok(None),
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            clients: Vec::new(),
            entry: None,
            single: None,
            waiting: None,
            reserve: Reserve::of(FrontEnd::Was.descriptors()),
            short_until: None,
            forsaken: Cell::default(),
        }
    }
}

impl Broker {
    /// Takes the sockets of WAS clients out of the listeners and leaves a door in their place.
    pub fn attach(listeners: Vec<Listener>) -> Result<(Vec<Listener>, Broker)> {
        let is_source = |listener: &Listener| matches!(listener.kind(), Kind::WasListener { .. });
        let (sources, mut listeners): (Vec<_>, Vec<_>) = listeners.into_iter().partition(is_source);
        let mut broker = Broker {
            sources,
            ..Broker::default()
        };
        let names = broker.sources.iter().map(|source| match source.kind() {
            Kind::WasListener { path } => path.as_str(),
            _ => "",
        });
        let path = names.collect::<Vec<_>>().join(", was:");
        if !path.is_empty() {
            let (entry, door) = was::pair(Door::Remote { path })?;
            broker.entry = Some(entry);
            listeners.push(door);
        }
        Ok((listeners, broker))
    }

    /// The way to the door of what this program was started with.
    pub fn leads_by(&mut self, entry: Option<OwnedFd>) {
        if entry.is_some() {
            self.single = entry;
        }
    }

    /// What is to be watched: connections are let in while the workers have room for them.
    pub fn watched<'a>(&'a self, doors: &'a [Listener]) -> Vec<PollFd<'a>> {
        let mut fds = Vec::new();
        match (&self.waiting, &self.entry) {
            (Some(_), Some(entry)) => fds.push(PollFd::new(entry.as_fd(), PollFlags::POLLOUT)),
            _ if self.short_until.is_some() => {}
            _ => {
                let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
                if self.clients.len() < MOST_CLIENTS {
                    fds.extend(self.sources.iter().map(AsFd::as_fd).map(watch));
                }
                fds.extend(self.clients.iter().map(AsFd::as_fd).map(watch));
            }
        }
        if !self.forsaken.get() {
            // The end is told without being asked for (poll(2)).
            let ends = self.ends(doors);
            fds.extend(ends.map(|fd| PollFd::new(fd, PollFlags::empty())));
        }
        fds
    }

    /// What ends when whoever started this program has no use for it any more.
    fn ends<'a>(&'a self, doors: &'a [Listener]) -> impl Iterator<Item = BorrowedFd<'a>> {
        let of = |door: &'a Listener| match door.kind() {
            Kind::Was(Door::Multi) => Some(door.as_fd()),
            // A worker tells of the end of the only connection by this.
            Kind::Was(Door::Single) => self.single.as_ref().map(AsFd::as_fd),
            _ => None,
        };
        doors.iter().filter_map(of)
    }

    /// Whether the program has to go, because what it was started for is over.
    pub fn is_forsaken(&self, doors: &[Listener]) -> bool {
        if !self.forsaken.get() {
            let ends = self.ends(doors);
            let mut fds: Vec<_> = ends.map(|fd| PollFd::new(fd, PollFlags::empty())).collect();
            let over = !fds.is_empty() && poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
            self.forsaken.set(over);
        }
        self.forsaken.get()
    }

    /// Whether the only connection was lost with the worker that served it. Told once.
    pub fn has_lost(&self) -> bool {
        let single = self.single.as_ref();
        single.is_some_and(|entry| was::is_lost(entry.as_fd()))
    }

    /// When to look again without being woken.
    pub fn wake_at(&self) -> Option<Nanos> {
        self.short_until
    }

    /// Lets clients in and passes their connections on.
    pub fn settle(&mut self, now: Nanos) {
        if self.short_until.is_some_and(|until| now < until) {
            return;
        }
        self.short_until = None;
        let filled = self.fill();
        let let_in = filled.and_then(|()| self.let_in());
        // Those that have left make room, whatever there is of it.
        let has_place = self.waiting.is_some() || self.fill().is_ok();
        if has_place {
            self.reserve.release();
            self.pass_on();
            let _ = self.fill();
        }
        if let Err(error) = let_in {
            let pause = PAUSE / SECOND;
            log::error!("cannot let WAS clients in: {error}; trying again in {pause} s");
            self.short_until = Some(now + PAUSE);
        }
    }

    /// Nobody who is let in gets the places of the next connection.
    fn fill(&mut self) -> io::Result<()> {
        match &self.entry {
            Some(entry) => self.reserve.fill(entry),
            None => Ok(()),
        }
    }

    fn let_in(&mut self) -> io::Result<()> {
        for source in &self.sources {
            while self.clients.len() < MOST_CLIENTS {
                match socket::accept(source.as_fd())? {
                    Some((client, _)) => self.clients.push(client),
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn pass_on(&mut self) {
        let Some(entry) = &self.entry else { return };
        let mut left = BATCH;
        let mut over = Vec::new();
        if let Some(connection) = self.waiting.take() {
            self.waiting = offer(entry, connection);
        }
        for (index, client) in self.clients.iter().enumerate() {
            while self.waiting.is_none() && left > 0 {
                left -= 1;
                match was::take(client.as_fd()) {
                    Ok(New::Connection(connection)) => self.waiting = offer(entry, connection),
                    Ok(New::Nothing) => break,
                    Ok(New::End) => {
                        over.push(index);
                        break;
                    }
                    Ok(New::Strange(what)) => {
                        log::error!("closed a WAS client that has sent {what}");
                        over.push(index);
                        break;
                    }
                    Err(error) => {
                        log::error!("cannot take a WAS connection: {error}");
                        break;
                    }
                }
            }
        }
        for index in over.into_iter().rev() {
            self.clients.swap_remove(index);
        }
    }

    /// Tells clients to take their next requests elsewhere; what runs goes on.
    pub fn close(&mut self, doors: &[Listener]) {
        for door in doors {
            if let Kind::Was(Door::Multi) = door.kind() {
                // For all processes that have it.
                let _ = nix::sys::socket::shutdown(door.as_fd().as_raw_fd(), Shutdown::Both);
            }
        }
        self.sources.clear();
        self.clients.clear();
        self.waiting = None;
        self.forsaken.set(true);
    }

    pub fn hand_over(&self) -> HandedBroker {
        HandedBroker {
            entry: self.entry.as_ref().map(AsRawFd::as_raw_fd),
            single: self.single.as_ref().map(AsRawFd::as_raw_fd),
            sources: self.sources.iter().map(Listener::hand_over).collect(),
            clients: self.clients.iter().map(AsRawFd::as_raw_fd).collect(),
        }
    }

    /// Nothing is handed over while a connection waits: it would be lost.
    pub fn holds_up(&self) -> bool {
        self.waiting.is_some()
    }

    pub fn handed(&self) -> Vec<BorrowedFd<'_>> {
        let sources = self.sources.iter().map(AsFd::as_fd);
        let clients = self.clients.iter().map(AsFd::as_fd);
        let ways = [&self.entry, &self.single].into_iter().flatten();
        sources
            .chain(clients)
            .chain(ways.map(AsFd::as_fd))
            .collect()
    }

    pub fn resume(handed: &HandedBroker) -> Result<Self> {
        let own = |number: &RawFd| take(*number, "a WAS socket");
        let source = |handed: &HandedListener| {
            Listener::resume(handed, take(handed.spec.fd, &handed.spec.name)?)
        };
        Ok(Self {
            sources: handed.sources.iter().map(source).collect::<Result<_>>()?,
            clients: handed.clients.iter().map(own).collect::<Result<_>>()?,
            entry: handed.entry.as_ref().map(own).transpose()?,
            single: handed.single.as_ref().map(own).transpose()?,
            ..Self::default()
        })
    }

    pub fn own_files(&mut self, handed: &HandedBroker) {
        for (source, handed) in self.sources.iter_mut().zip(&handed.sources) {
            source.own_file(handed);
        }
    }
}

/// The connection, if there is no room for it.
fn offer(entry: &OwnedFd, connection: Connection) -> Option<Connection> {
    match was::put(entry.as_fd(), &connection) {
        Ok(()) => None,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(connection),
        Err(error) => {
            // The client sees its end and tries again.
            log::error!("cannot pass a WAS connection on: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// Watched, it would wake us without end.
    #[test]
    fn with_all_clients_that_there_may_be_nobody_else_is_listened_for() {
        let (entry, source) = was::pair(Door::Multi).unwrap();
        let one = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let mut broker = Broker {
            sources: vec![source],
            clients: vec![one()],
            entry: Some(entry),
            ..Broker::default()
        };
        assert_eq!(broker.watched(&[]).len(), 2);
        let copies = (1..MOST_CLIENTS).map(|_| broker.clients[0].try_clone().unwrap());
        let copies: Vec<_> = copies.collect();
        broker.clients.extend(copies);
        assert_eq!(broker.watched(&[]).len(), MOST_CLIENTS);
        broker.short_until = Some(1);
        assert!(broker.watched(&[]).is_empty());
        assert_eq!(broker.wake_at(), Some(1));
    }
}
