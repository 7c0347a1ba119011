//! A worker: one process, one thread, one epoll set. It accepts connections, reads requests, runs
//! the application when one is complete, and sends what the application leaves to be sent.
//!
//! ```text
//! wait -> connections that became readable or writable -> serve
//!      -> nothing else was ready: accept one, serve it at once
//!      -> orders of the master, signals, time limits
//! ```
//!
//! It asks nobody for anything and tells everything by its row of the scoreboard.

mod accept;
mod account;
mod body;
mod connection;
mod ferry;
mod floor;
mod gathering;
mod outlet;
mod relay;
mod rest;
mod serve;
mod was;
mod watcher;

pub use watcher::{after_fork, before_fork, call};

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::socket::Shutdown;
use pyo3::prelude::*;

use crate::access::Pen;
use crate::config::Settings;
use crate::http;
use crate::http::forwarded::{Believed, Field};
use crate::log::{self, Throttle};
use crate::net::Listener;
use crate::python::{Collector, run_signal_handlers};
use crate::relay::{FrontEnd, LONGEST, Relay, Traits};
use crate::scoreboard::{Counter, Row, Scoreboard, State};
use crate::sys::clock::{self, MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::image::Image;
use crate::sys::passing::Reserve;
use crate::sys::seqpacket::{Channel, Received};
use crate::sys::signal::Inbox;
use crate::sys::{forks, orphan};
use crate::wsgi::Application;
use accept::{Accepting, Door};
use connection::Phase;
use ferry::Ferry;
use floor::{Floor, Ground, Held};
use relay::{Farewell, HAND_OVER_PATIENCE};
use rest::Rest;

/// Signals a worker takes: TERM and QUIT let it finish, INT is the supervisor's business.
pub const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT];

/// Orders of the master, one message each.
pub mod order {
    pub const DRAIN: &[u8] = b"drain";
    /// The same, while others serve who take over its connections.
    pub const HAND_OVER: &[u8] = b"hand over";
    pub const STOP: &[u8] = b"stop";
    /// Take connections; a worker does not before it is told to.
    pub const SERVE: &[u8] = b"serve";
    /// In the other direction: it could serve; it takes connections; it has served as many requests as it is to.
    pub const READY: &[u8] = b"ready";
    pub const LISTENS: &[u8] = b"listens";
    pub const WORN: &[u8] = b"worn";
    /// A signal has told it to drain.
    pub const LEAVING: &[u8] = b"leaving";
}

/// Tokens of the epoll set: [`Id`]s of connections are below `FIRST_LISTENER`.
const ORDERS: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;
const NUDGE: u64 = u64::MAX - 2;
const RELAY: u64 = u64::MAX - 3;
const FIRST_LISTENER: u64 = 1 << 63;

/// A connection for as long as it exists: its place, and a number that no other connection of this
/// place has. An event may come for one that is closed already: a child that the application has
/// forked keeps the socket open, and with it the registration (epoll(7), Q6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id(u64);

impl Id {
    fn new(place: usize, epoch: u32) -> Self {
        // Places are below 2^32 by the limit of --max-connections.
        Self(u64::from(epoch & (u32::MAX >> 1)) << 32 | place as u64)
    }

    fn place(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// Events taken per wake-up.
const BATCH: usize = 64;
/// The largest piece read at once.
const READ: usize = 64 * 1024;
/// What comes by the relay is read into the same memory.
const _: () = assert!(READ >= LONGEST);
/// All bodies in memory together; beyond it they go to files whatever their size.
const BODIES_IN_MEMORY: usize = 64 << 20;
/// How long a draining worker waits for a request on a connection that is idle, on one that has had
/// none yet, and for a refused client to go.
const DRAIN_IDLE: Nanos = 300 * MILLISECOND;
const DRAIN_FRESH: Nanos = 2 * SECOND;
const DRAIN_LINGER: Nanos = SECOND;
/// How long a client may go on sending after it was refused.
const LINGER: Nanos = 5 * SECOND;
/// How long the requests of one connection are served in a row.
const TURN: Nanos = MILLISECOND;
/// Time limits are looked at no more often than this.
const SWEEP: Nanos = 100 * MILLISECOND;

/// Rarely enough to cost next to nothing, often enough to keep garbage below some hundred KiB.
const TIDY_AFTER: u32 = 16;

/// How a worker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Everything that ran has been finished.
    Drained,
    /// At once, as ordered.
    Now,
    /// This is not the worker, but a child that the application forked and let return.
    Child,
}

/// What a worker is started with.
pub struct Plan<'a> {
    pub settings: &'a Settings,
    pub listeners: Vec<Listener>,
    /// Wakes an idle sibling in our stead.
    pub nudge: EventFd,
    pub orders: Channel,
    pub row: &'static Row,
    pub scoreboard: &'static Scoreboard,
    /// By which the master calls when it is about to kill this process.
    pub calls: Channel,
    /// To the other workers, where there is one.
    pub relay: Option<Relay>,
    /// For the access log, where there is one.
    pub pen: Option<Pen>,
    /// See [`buffer`].
    pub buffer: Vec<u8>,
    pub collector: Collector,
    /// Memory at the fork, for `share-again`.
    pub image: Option<Image>,
}

pub struct Worker<'a> {
    settings: &'a Settings,
    limits: http::Limits,
    believed: Believed,
    temp_dir: PathBuf,
    application: Application,
    row: &'static Row,
    pen: Option<Box<Pen>>,
    /// What is shared with the watcher.
    floor: &'static Floor,
    listeners: Vec<Listener>,
    nudge: EventFd,
    accepting: Accepting,
    orders: Channel,
    signals: Inbox,
    connections: Held,
    was: was::Lines,
    /// Accepted or taken so far.
    epoch: u32,
    /// Connections with another request in their input, to be served before waiting again.
    runnable: VecDeque<Id>,
    /// A listener was ready at the last wake-up, and nothing was accepted.
    owes_accept: bool,
    /// Memory for what is read; a connection has its own only while a request is incomplete.
    buffer: Vec<u8>,
    /// Bytes of bodies in memory, of all connections.
    held: usize,
    /// For each request; `Nanos::MAX` for no limit.
    request_timeout: Nanos,
    /// What a request takes, the last ones counting most.
    service: Nanos,
    /// Requests until it is to be replaced.
    requests_left: Option<u64>,
    /// The time; read at each wake-up and after each request.
    now: Nanos,
    /// The time of this wake-up.
    woken: Nanos,
    unix_seconds: u64,
    next_sweep: Nanos,
    /// When the next new connection is asked how long it has waited.
    next_wait: Nanos,
    collector: Collector,
    /// Wake-ups until the collector is asked to tidy up.
    tidy_in: u32,
    rest: Rest,
    refusals: Throttle,
    shortages: Throttle,
    reserve: Reserve,
    /// Where the last connection came from, and the last new one.
    last_door: Door,
    last_listener: usize,
    leave: Option<Leave>,
    farewell: Farewell,
}

impl<'a> Worker<'a> {
    pub fn new(plan: Plan<'a>, application: Application, signals: Inbox) -> io::Result<Self> {
        let settings = plan.settings;
        let ferry = plan.relay.map(|relay| Ferry::new(relay, &plan.listeners));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // For the life of the process: the watcher may outlast the worker.
        let ground = Ground {
            epoll,
            row: plan.row,
            scoreboard: plan.scoreboard,
            ferry,
            relay_after: settings.relay.map_or(Nanos::MAX, nanos),
            calls: plan.calls,
            late: serve::late_page(&application),
        };
        let bell = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let floor = Floor::new(ground, EventFd::from_flags(bell)?);
        let floor: &'static Floor = Box::leak(Box::new(floor));
        let front_end = match plan.listeners.iter().any(Listener::speaks_was) {
            true => FrontEnd::Was,
            false => FrontEnd::Http,
        };
        let mut reserve = Reserve::of(front_end.descriptors());
        let _ = reserve.fill(&plan.nudge);
        let worker = Self {
            settings,
            limits: http::Limits {
                request_line: settings.limits.request_line,
                head: settings.limits.head,
                fields: settings.limits.fields,
                underscores: underscores(settings),
            },
            believed: believed(settings),
            temp_dir: temp_dir(settings),
            application,
            row: plan.row,
            pen: plan.pen.map(Box::new),
            floor,
            listeners: plan.listeners,
            nudge: plan.nudge,
            accepting: Accepting::NotYet,
            orders: plan.orders,
            signals,
            connections: floor.hold(),
            was: was::Lines::default(),
            epoch: 0,
            runnable: VecDeque::new(),
            owes_accept: false,
            buffer: plan.buffer,
            held: 0,
            request_timeout: settings.limits.request_timeout.map_or(Nanos::MAX, nanos),
            service: 0,
            requests_left: lifetime(settings),
            now: clock::now(),
            woken: 0,
            unix_seconds: clock::unix_seconds(),
            next_sweep: Nanos::MAX,
            next_wait: 0,
            collector: plan.collector,
            tidy_in: TIDY_AFTER,
            rest: Rest::new(
                plan.image,
                settings.before_fork.share_again.map_or(Nanos::MAX, nanos),
            ),
            refusals: Throttle::new(5),
            shortages: Throttle::new(1),
            reserve,
            last_door: Door::Listener(0),
            last_listener: 0,
            leave: None,
            farewell: Farewell::Finish,
        };
        let watch = |fd: std::os::fd::BorrowedFd<'_>, token| {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            worker.floor.ground.epoll.add(fd, event)
        };
        watch(worker.orders.as_fd(), ORDERS)?;
        watch(worker.signals.as_fd(), SIGNAL)?;
        Ok(worker)
    }

    /// Serves until ordered to leave.
    pub fn run(&mut self, py: Python<'_>) -> io::Result<Leave> {
        self.orders.send(order::READY)?;
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            self.row.set_state(match self.accepting {
                Accepting::Never => State::Draining,
                Accepting::NotYet => State::Starting,
                _ => State::Idle,
            });
            let count = self.wait(py, &mut events)?;
            self.now = clock::now();
            self.woken = self.now;
            self.unix_seconds = clock::unix_seconds();
            self.row.count(Counter::WakeUps, 1);
            let mut ready = self.runnable.len();
            let mut waiting = None;
            let mut nudged = false;
            self.pass_on(&events[..count]);
            // First of all: a response given after the order to drain says that the connection ends.
            for event in &events[..count] {
                match event.data() {
                    ORDERS => self.take_orders()?,
                    SIGNAL => self.take_signals(py),
                    _ => {}
                }
            }
            self.balance(&events[..count]);
            for event in &events[..count] {
                match event.data() {
                    ORDERS | SIGNAL => {}
                    NUDGE => nudged = true,
                    token => match Door::of(token) {
                        Some(door) => waiting = Some(self.first(waiting, door)),
                        None if was::Lines::is_token(token) => {
                            ready += 1;
                            self.serve_was(py, token);
                        }
                        None => {
                            ready += 1;
                            self.serve(py, Id(token), event.events());
                        }
                    },
                }
            }
            for _ in 0..self.runnable.len() {
                if let Some(id) = self.runnable.pop_front() {
                    self.resume(py, id);
                }
            }
            if let Some(leave @ (Leave::Now | Leave::Child)) = self.leave {
                return Ok(leave);
            }
            if nudged {
                waiting = waiting.or(self.answer_nudge());
            }
            self.accept_if_idle(py, waiting, ready);
            if self.leave == Some(Leave::Drained) {
                self.accept_the_last(py, waiting);
                self.hand_over();
            }
            if let Some(leave @ (Leave::Now | Leave::Child)) = self.leave {
                return Ok(leave);
            }
            if self.now >= self.next_sweep {
                self.sweep(py);
            }
            self.tidy(py);
            match count {
                0 if self.rest.is_due(self.now) => {
                    // Memory is looked at while nothing else runs.
                    watcher::stop();
                    self.rest.take(self.now);
                }
                0 => {}
                _ => self.rest.put_off(self.now),
            }
            if self.leave == Some(Leave::Drained) && self.is_vacant() {
                return Ok(Leave::Drained);
            }
        }
    }

    /// Waits for something to do; the only place where other Python threads may run.
    fn wait(&self, py: Python<'_>, events: &mut [EpollEvent]) -> io::Result<usize> {
        let until = match (self.leave, self.next_sweep.min(self.rest.at())) {
            _ if !self.runnable.is_empty() => Some(0),
            (Some(_), _) if self.is_vacant() => Some(0),
            (_, Nanos::MAX) => None,
            (_, sweep) => Some(sweep),
        };
        let millis = clock::wait_millis(clock_or(self.now, until), until);
        let timeout = EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX);
        let epoll = &self.floor.ground.epoll;
        match py.detach(|| epoll.wait(events, timeout)) {
            Ok(count) => Ok(count),
            Err(Errno::EINTR) => {
                run_signal_handlers(py);
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take_orders(&mut self) -> io::Result<()> {
        match self.orders.receive()? {
            Received::Message(order) if order == order::STOP => self.leave = Some(Leave::Now),
            Received::Message(order) if order == order::DRAIN => self.drain(Farewell::Finish),
            Received::Message(order) if order == order::HAND_OVER => {
                self.drain(self.hand_over_until())
            }
            Received::Message(order) if order == order::SERVE => {
                if self.accepting == Accepting::NotYet {
                    self.listen()?;
                    self.look_for_lost_was();
                    self.orders.send(order::LISTENS)?;
                }
            }
            Received::Message(_) | Received::Nothing => {}
            Received::Closed => {
                // The master is gone: finish, and do not look at the closed channel again.
                let _ = self.floor.ground.epoll.delete(&self.orders);
                orphan::check();
                self.drain(Farewell::Finish);
            }
        }
        Ok(())
    }

    /// Between requests, now and then.
    fn tidy(&mut self, py: Python<'_>) {
        self.tidy_in -= 1;
        if self.tidy_in == 0 {
            self.tidy_in = TIDY_AFTER;
            if let Err(error) = self.collector.tidy(py) {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Asks to be replaced when it has served enough; goes on until it is told to leave.
    fn wear(&mut self) {
        if let Some(left) = &mut self.requests_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.requests_left = None;
                let _ = self.orders.send(order::WORN);
            }
        }
    }

    fn take_signals(&mut self, py: Python<'_>) {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGQUIT if self.leave.is_none() => {
                    // The master knows whether others go on.
                    let _ = self.orders.send(order::LEAVING);
                    self.drain(Farewell::Finish);
                }
                _ => {}
            }
        }
        run_signal_handlers(py);
    }

    /// Accepts nobody from now on and leaves when nothing is left to do. A later order says better what
    /// becomes of the connections.
    fn drain(&mut self, farewell: Farewell) {
        if !matches!(self.leave, None | Some(Leave::Drained)) {
            return;
        }
        self.farewell = farewell;
        self.floor.stop(farewell == Farewell::Finish);
        if self.leave.is_none() {
            self.leave = Some(Leave::Drained);
            if self.accepting != Accepting::Yes {
                self.listeners.clear();
            }
            self.stop_listening(Accepting::Never);
            // The kernel may have chosen us for a connection a moment ago.
            let _ = self.nudge.write(1);
        }
        self.limit_idle();
    }

    /// Gives clients on which nothing depends a moment to ask again.
    fn limit_idle(&mut self) {
        let finish = !self.hands_over();
        let now = self.now;
        for (_, connection) in self.connections.iter_mut() {
            let grace = match connection.phase {
                Phase::Linger => DRAIN_LINGER,
                _ if !finish || !connection.is_idle() => continue,
                // Its first request is on its way.
                _ if !connection.was_served() => DRAIN_FRESH,
                // A client that asks again and again has another request on its way; the answer
                // says that it is the last one.
                _ => DRAIN_IDLE,
            };
            connection.deadline = connection.deadline.min(now + grace);
        }
        self.drain_was();
        self.next_sweep = self.next_sweep.min(now + DRAIN_IDLE);
    }

    fn hand_over_until(&self) -> Farewell {
        let grace = nanos(self.settings.limits.graceful_timeout) / 2;
        match self.floor.ground.ferry {
            Some(_) => Farewell::HandOver {
                until: self.now + grace.min(HAND_OVER_PATIENCE),
            },
            None => Farewell::Finish,
        }
    }

    fn is_vacant(&self) -> bool {
        self.connections.is_empty() && self.was.len() == 0
    }

    fn tell_connections(&self) {
        self.row
            .set_connections(self.connections.len() + self.was.len());
    }

    /// The connection an event or a reminder is about, if it still exists.
    fn find(&self, id: Id) -> Option<usize> {
        if self.leave == Some(Leave::Child) {
            return None;
        }
        let connection = self.connections.get(id.place())?;
        (Id::new(id.place(), connection.epoch) == id).then_some(id.place())
    }

    fn id(&self, place: usize) -> Id {
        Id::new(place, self.connections[place].epoch)
    }

    /// Makes the epoll set watch what the phase of the connection asks for.
    fn watch(&mut self, id: usize) {
        let token = self.id(id);
        let connection = &mut self.connections[id];
        let interest = connection.interest();
        if connection.watched == Some(interest) {
            return;
        }
        let new = connection.watched.replace(interest).is_none();
        let socket = connection.socket();
        let mut event = EpollEvent::new(interest, token.0);
        let done = match new {
            true => self.floor.ground.epoll.add(socket, event),
            false => self.floor.ground.epoll.modify(socket, &mut event),
        };
        if let Err(error) = done {
            log::error!("cannot watch a connection: {error}");
            self.close(id);
        }
    }

    /// The descriptor leaves the epoll set with its close, unless the application has forked.
    fn close(&mut self, id: usize) {
        let mut connection = self.connections.remove(id);
        self.account_close(&mut connection);
        if forks::has_children() || connection.traits.has(Traits::SHARED) {
            let _ = self.floor.ground.epoll.delete(connection.socket());
            connection.shut_down(Shutdown::Both);
        }
        self.held -= connection.held();
        drop(connection);
        self.tell_connections();
        self.listen_if_not_full();
    }

    fn listen_if_not_full(&mut self) {
        if self.accepting == Accepting::Full {
            self.resume_listening();
        }
    }

    /// The next look at the time limits is at `deadline`, if not before.
    fn wake_at(&mut self, deadline: Nanos) {
        self.next_sweep = self.next_sweep.min(deadline.max(self.now + SWEEP));
    }

    /// Ends what has taken too long and finds the next time to look.
    fn sweep(&mut self, py: Python<'_>) {
        self.next_sweep = Nanos::MAX;
        match self.accepting {
            Accepting::Paused(until) if until <= self.now => self.resume_listening(),
            Accepting::Paused(until) => self.wake_at(until),
            // Tries for itself, and waits again where there is none.
            Accepting::Full => self.resume_listening(),
            Accepting::NotYet | Accepting::Yes | Accepting::Never => {}
        }
        let overdue: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline <= self.now)
            .map(|(id, _)| id)
            .collect();
        for id in overdue {
            self.time_out(py, id);
        }
        self.sweep_was(py);
        let next = self.connections.iter().map(|(_, c)| c.deadline).min();
        if let Some(next) = next.into_iter().chain(self.was.next_deadline()).min()
            && next != Nanos::MAX
        {
            self.wake_at(next);
        }
    }
}

/// Memory for what a worker reads. It is made in the master: a worker then has only those pages of it
/// for itself that it has read something into.
pub fn buffer() -> Vec<u8> {
    vec![0; READ]
}

fn temp_dir(settings: &Settings) -> PathBuf {
    let given = settings.limits.temp_dir.clone();
    given.unwrap_or_else(std::env::temp_dir)
}

/// Whether request bodies can be kept in files.
///
/// # Errors
/// The directory, and why not.
pub fn try_to_store(settings: &Settings) -> Result<(), (PathBuf, io::Error)> {
    let directory = temp_dir(settings);
    let tried = body::unlinked(&directory);
    tried.map(drop).map_err(|error| (directory, error))
}

fn clock_or(now: Nanos, until: Option<Nanos>) -> Nanos {
    match until {
        // The application may have run since the wake-up.
        Some(until) if until > now => clock::now(),
        _ => now,
    }
}

/// Requests a worker serves: the jitter keeps siblings from being replaced together.
fn lifetime(settings: &Settings) -> Option<u64> {
    let recycling = &settings.recycling;
    let jitter = match recycling.max_requests_jitter {
        0 => 0,
        // Knuth's multiplicative hash: consecutive process numbers come out far apart.
        most => u64::from(std::process::id()).wrapping_mul(2_654_435_761) % (most + 1),
    };
    recycling.max_requests.map(|n| n.saturating_add(jitter))
}

/// What trusted proxies are known to set.
pub fn believed(settings: &Settings) -> Believed {
    use crate::config::ForwardedField;
    let fields = settings.proxies.fields.iter();
    fields.fold(Believed::default(), |believed, field| {
        believed.with(match field {
            ForwardedField::Forwarded => Field::Forwarded,
            ForwardedField::XForwardedFor => Field::For,
            ForwardedField::XForwardedProto => Field::Proto,
            ForwardedField::XForwardedHost => Field::Host,
            ForwardedField::XForwardedPort => Field::Port,
        })
    })
}

pub fn underscores(settings: &Settings) -> http::Underscores {
    use crate::config::UnderscoreFields;
    match settings.underscore_fields {
        UnderscoreFields::Drop => http::Underscores::Drop,
        UnderscoreFields::Refuse => http::Underscores::Refuse,
        UnderscoreFields::Keep => http::Underscores::Keep,
    }
}
