//! The control socket and `--metrics-bind`: who asks, and what comes of it. It runs in the event loop of
//! the supervisor and never waits: not for a client, not for a master.
//!
//! ```text
//! client reading -> asked -> answered at once -> reading
//!                         -> pending: a reload ends, masters answer, time is up -> answered
//! ```
//!
//! Bounds: [`MOST_CLIENTS`] per kind of socket, one request at a time each, one answer each; a client
//! that does not take its answer or does not finish its request is cut after ten seconds.

#![forbid(unsafe_code)]

mod access;
mod client;
mod open;
mod outcome;
mod pending;
mod stats;
mod verbs;
mod web;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags};
use nix::unistd::{Gid, geteuid};
use serde::{Deserialize, Serialize};

use super::hand_over::{HandedDoor, take};
use crate::config::Settings;
use crate::control::{Asked, Kind, Page, Refused, Reply, Stats, Wanted, respond};
use crate::error::Result;
use crate::link::Ticket;
use crate::log::{self, Allowed, Throttle};
use crate::net::Listener;
use crate::sys::clock::{self, Nanos, SECOND};
use crate::sys::diag::Diag;
use crate::sys::socket;
use access::{Role, Users};
use client::{Client, Id};
use pending::Pending;

pub use open::{Claimed, claim};

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    Control,
    /// Pages for everybody.
    Metrics,
}

pub struct Door {
    purpose: Purpose,
    listener: Listener,
    /// Nothing is accepted before, for want of descriptors.
    paused_until: Option<Nanos>,
}

impl Door {
    fn new(purpose: Purpose, listener: Listener) -> Self {
        Self {
            purpose,
            listener,
            paused_until: None,
        }
    }

    fn watched(&self) -> PollFd<'_> {
        let events = match self.paused_until {
            Some(_) => PollFlags::empty(),
            None => PollFlags::POLLIN,
        };
        PollFd::new(self.listener.as_fd(), events)
    }
}

pub struct Control {
    doors: Vec<Door>,
    /// `--control-group`
    group: Option<Gid>,
    users: Users,
    clients: Vec<Client>,
    next_client: Id,
    next_ticket: Ticket,
    pending: Vec<Pending>,
    /// Of users of apps, who can ask at will.
    changes: BTreeMap<u32, Throttle>,
    /// The last statistics, and when they were taken.
    last: Option<(Nanos, Stats)>,
    diag: Option<Diag>,
}

/// What a client asks for.
pub struct Question {
    pub client: Id,
    pub role: Role,
    pub who: String,
    pub asked: Asked,
}

/// Clients at the same time, of the control socket and of all others.
const MOST_CLIENTS: usize = 64;
/// Of them, clients of one user of an app, and of all such users: there is room for others.
const MOST_OF_USER: usize = 8;
const MOST_OF_USERS: usize = 48;
/// What one of them may change within a second: each is logged, and a reload reads files.
const CHANGES: u32 = 5;
/// Connections accepted per wake-up and listener.
const ACCEPTS: usize = 16;
/// After `accept` failed for want of descriptors or memory.
const PAUSE: Nanos = SECOND;

impl Control {
    /// # Errors
    /// An address that was named cannot be bound.
    pub fn open(settings: &Settings, claimed: &Claimed) -> Result<Self> {
        let doors = open::open(settings, claimed, |name| std::env::var_os(name))?;
        Self::new(settings, doors)
    }

    fn new(settings: &Settings, doors: Vec<Door>) -> Result<Self> {
        let group = settings.control_group.as_deref();
        Ok(Self {
            doors,
            group: group.map(access::group).transpose()?,
            users: match settings.control_users {
                true => Users::MayAsk,
                false => Users::MayNot,
            },
            clients: Vec::new(),
            next_client: 0,
            next_ticket: 0,
            pending: Vec::new(),
            changes: BTreeMap::new(),
            last: None,
            diag: Diag::open().ok(),
        })
    }

    /// Takes over what the program before had, by duplicates.
    pub fn resume(settings: &Settings, handed: &[HandedDoor]) -> Result<Self> {
        let door = |door: &HandedDoor| {
            let spec = &door.listener.spec;
            let listener = Listener::resume(&door.listener, take(spec.fd, &spec.name)?)?;
            Ok(Door::new(door.purpose, listener))
        };
        let doors = handed.iter().map(door).collect::<Result<_>>()?;
        Self::new(settings, doors)
    }

    pub fn hand_over(&self) -> Vec<HandedDoor> {
        let hand_over = |door: &Door| HandedDoor {
            purpose: door.purpose,
            listener: door.listener.hand_over(),
        };
        self.doors.iter().map(hand_over).collect()
    }

    /// From now on socket files are removed by this program.
    pub fn own_files(&mut self, handed: &[HandedDoor]) {
        for (door, handed) in self.doors.iter_mut().zip(handed) {
            door.listener.own_file(&handed.listener);
        }
    }

    /// The descriptors that are handed over.
    pub fn handed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.doors.iter().map(|door| door.listener.as_fd())
    }

    /// For a poll set; [`Control::settle`] expects what became of them in the same order.
    pub fn watched(&self) -> Vec<PollFd<'_>> {
        let doors = self.doors.iter().map(Door::watched);
        doors
            .chain(self.clients.iter().map(Client::watched))
            .collect()
    }

    pub fn wake_at(&self, now: Nanos) -> Option<Nanos> {
        let doors = self.doors.iter().filter_map(|door| door.paused_until);
        let clients = self.clients.iter().filter_map(|client| client.wake_at(now));
        let pending = self.pending.iter().filter_map(Pending::wake_at);
        doors.chain(clients).chain(pending).min()
    }

    /// Reads and writes what can be read and written, and accepts. At most one question per client.
    pub fn settle(&mut self, ready: &[PollFlags], now: Nanos) -> Vec<Question> {
        let (doors, clients) = ready.split_at(self.doors.len().min(ready.len()));
        let mut questions = Vec::new();
        for (index, client) in self.clients.iter_mut().enumerate() {
            let ready = clients.get(index).copied().unwrap_or(PollFlags::empty());
            if let Some(asked) = client.settle(ready, now) {
                questions.push(Question {
                    client: client.id,
                    role: client.role,
                    who: client.who.clone(),
                    asked,
                });
            }
        }
        self.clients
            .retain(|client| client.state != client::State::Gone);
        for index in 0..self.doors.len() {
            let door = &mut self.doors[index];
            door.paused_until = door.paused_until.filter(|until| *until > now);
            if doors.get(index).is_some_and(|ready| !ready.is_empty()) {
                self.accept(index, now);
            }
        }
        questions
    }

    fn accept(&mut self, door: usize, now: Nanos) {
        for _ in 0..ACCEPTS {
            let Door {
                purpose, listener, ..
            } = &self.doors[door];
            let purpose = *purpose;
            let (socket, _) = match socket::accept(listener.as_fd()) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    log::warning!("cannot accept on {}: {error}", listener.name());
                    self.doors[door].paused_until = Some(now + PAUSE);
                    return;
                }
            };
            let asks = match purpose {
                Purpose::Metrics => Ok((Role::Public, String::new())),
                Purpose::Control => self.admit(socket.as_fd()),
            };
            let role = asks.as_ref().map_or(Role::Public, |(role, _)| *role);
            let has_room = self.make_room(purpose, role);
            self.next_client += 1;
            let mut client = Client::new(self.next_client, purpose, role, socket, now);
            match asks {
                Err(refused) => client.refuse(refused, now),
                Ok(_) if !has_room => {
                    let text = format!("{MOST_CLIENTS} others are being answered");
                    client.refuse(Refused::new(Kind::Busy, text), now);
                }
                Ok((_, who)) => client.who = who,
            }
            // One that is refused may linger as long as there is room for it.
            if has_room && client.state != client::State::Gone {
                self.clients.push(client);
            }
        }
    }

    fn admit(&self, socket: BorrowedFd<'_>) -> Result<(Role, String), Refused> {
        let refuse = |text: String| Refused::new(Kind::NoPermission, text);
        let peer = socket::credentials(socket)
            .map_err(|error| refuse(format!("it is not known who asks: {error}")))?;
        let who = format!("uid {}, pid {}", peer.user, peer.pid);
        match access::role(&peer, geteuid(), self.group, self.users) {
            Some(role @ Role::Owner(_)) if self.crowds(role) => Err(Refused::new(
                Kind::Busy,
                "you have too many connections here",
            )),
            Some(role) => Ok((role, who)),
            None => Err(refuse(format!(
                "user {} may not use this socket",
                peer.user
            ))),
        }
    }

    /// One user of an app is not to keep out the others.
    fn crowds(&self, role: Role) -> bool {
        let own = self.clients.iter().filter(|client| client.role == role);
        own.count() >= MOST_OF_USER
    }

    /// Whether this client may change something now.
    fn admit_change(&mut self, role: Role, now: Nanos) -> Result<(), Refused> {
        let Some(user) = role.owner() else {
            return Ok(());
        };
        let throttle = self.changes.entry(user);
        match throttle.or_insert_with(|| Throttle::new(CHANGES)).ask(now) {
            Allowed::Yes { .. } => Ok(()),
            Allowed::No => {
                let text = format!(
                    "you have asked for {CHANGES} changes within a second, try again later"
                );
                Err(Refused::new(Kind::Busy, text))
            }
        }
    }

    /// What a client may do; nothing if it has left.
    fn role_of(&self, id: Id) -> Role {
        let client = self.clients.iter().find(|client| client.id == id);
        client.map_or(Role::Public, |client| client.role)
    }

    /// The client that has been idle for longest goes when there are too many.
    fn make_room(&mut self, purpose: Purpose, role: Role) -> bool {
        let is_user = |role: Role| role.owner().is_some();
        let all = |client: &&Client| client.purpose == purpose;
        let users = |client: &&Client| all(client) && is_user(client.role);
        let count = |of: &dyn Fn(&&Client) -> bool| self.clients.iter().filter(of).count();
        let (same, is_full): (&dyn Fn(&&Client) -> bool, bool) = match is_user(role) {
            // They make room among themselves.
            true => (
                &users,
                count(&users) >= MOST_OF_USERS || count(&all) >= MOST_CLIENTS,
            ),
            false => (&all, count(&all) >= MOST_CLIENTS),
        };
        if !is_full {
            return true;
        }
        let idle = self.clients.iter().filter(same).filter(|c| c.is_idle());
        let oldest = idle.min_by_key(|client| client.idle_since).map(|c| c.id);
        self.clients.retain(|client| Some(client.id) != oldest);
        oldest.is_some()
    }

    fn find(&mut self, id: Id) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    fn reply(&mut self, id: Id, reply: impl Into<Reply>, now: Nanos) {
        if let Some(client) = self.find(id) {
            client.answer(reply.into().write(), now);
        }
    }

    fn refuse_and_close(&mut self, id: Id, refused: Refused, now: Nanos) {
        if let Some(client) = self.find(id) {
            client.refuse(refused, now);
        }
    }

    fn page(&mut self, id: Id, page: Page, (status, kind, body): (u16, &str, &[u8]), now: Nanos) {
        if let Some(client) = self.find(id) {
            let bytes = respond(page, status, kind, body, clock::unix_seconds());
            client.answer_and_leave(bytes, now);
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Nothing is asked of the client until its answer is there.
    fn wait(&mut self, id: Id, pending: Pending) {
        if let Some(client) = self.find(id) {
            client.state = client::State::Waiting;
            self.pending.push(pending);
        }
    }
}

/// What may be seen without being anybody.
fn is_public(wanted: Wanted) -> bool {
    matches!(wanted, Wanted::Metrics | Wanted::Health)
}
