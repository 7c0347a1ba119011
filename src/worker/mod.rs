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
mod leaving;
pub mod order;
mod outlet;
mod queue;
mod refuse;
mod relay;
mod respond;
mod rest;
mod serve;
mod settings;
mod was;
mod watcher;

pub use settings::{believed, try_to_store, underscores};
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
use crate::http::forwarded::Believed;
use crate::log::{self, Throttle};
use crate::net::Listener;
use crate::python::{Collector, run_signal_handlers};
use crate::relay::{FrontEnd, LONGEST, Relay, Traits};
use crate::scoreboard::{Counter, Row, Scoreboard, State};
use crate::sys::clock::{self, MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::forks;
use crate::sys::image::Image;
use crate::sys::passing::Reserve;
use crate::sys::seqpacket::Channel;
use crate::sys::signal::Inbox;
use crate::wsgi::Application;
use accept::{Accepting, Calls, Door};
use ferry::Ferry;
use floor::{Floor, Ground, Held};
use relay::Farewell;
use rest::Rest;

/// Signals a worker takes: TERM and QUIT let it finish, INT is the supervisor's business.
pub const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT];

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
            late: refuse::late_page(&application),
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
            temp_dir: settings::temp_dir(settings),
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
            requests_left: settings::lifetime(settings),
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
            let mut calls = Calls::Nobody;
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
                    NUDGE => calls = Calls::Sibling,
                    token => match Door::of(token) {
                        Some(door) => waiting = Some(self.first(waiting, door)),
                        None if was::Lines::is_token(token) => {
                            ready += 1;
                            self.serve_was(py, token, event.events());
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
            if calls == Calls::Sibling {
                waiting = waiting.or_else(|| self.answer_nudge());
            }
            self.accept_if_idle(py, waiting, ready, calls);
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
        if matches!(self.accepting, Accepting::Full | Accepting::Yielding) {
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
            Accepting::Full | Accepting::Yielding => self.resume_listening(),
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

fn clock_or(now: Nanos, until: Option<Nanos>) -> Nanos {
    match until {
        // The application may have run since the wake-up.
        Some(until) if until > now => clock::now(),
        _ => now,
    }
}
