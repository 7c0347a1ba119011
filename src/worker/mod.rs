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

mod body;
mod connection;
mod outlet;
mod serve;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use pyo3::prelude::*;
use slab::Slab;

use crate::config::Settings;
use crate::http;
use crate::log::{self, Throttle};
use crate::net::Listener;
use crate::scoreboard::{Counter, Row, State};
use crate::sys::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::sys::orphan;
use crate::sys::seqpacket::{Channel, Received};
use crate::sys::signal::Inbox;
use crate::sys::socket;
use crate::wsgi::Application;
use connection::Connection;
use outlet::Outlet;

/// Signals a worker takes: TERM and QUIT let it finish, INT is the supervisor's business.
pub const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT];

/// Orders of the master, one message each.
pub mod order {
    pub const DRAIN: &[u8] = b"drain";
    pub const STOP: &[u8] = b"stop";
    /// The only message in the other direction.
    pub const READY: &[u8] = b"ready";
}

/// Tokens of the epoll set; connections have the numbers from 0, listeners those from
/// `FIRST_LISTENER`.
const ORDERS: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;
const FIRST_LISTENER: u64 = 1 << 32;

/// Events taken per wake-up.
const BATCH: usize = 64;
/// The largest piece read at once.
const READ: usize = 64 * 1024;
/// All bodies in memory together; beyond it they go to files whatever their size.
const BODIES_IN_MEMORY: usize = 64 << 20;
/// How long a client may go on sending after it was refused.
const LINGER: Nanos = 5 * SECOND;
/// Time limits are looked at no more often than this.
const SWEEP: Nanos = 100 * MILLISECOND;
/// After `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Nanos = SECOND;

/// How long a worker that drains leaves idle connections open. A client that uses one of them meanwhile
/// is answered, with `Connection: close`; closing at once would cut off each request that is on its
/// way. What is idle for longer is unlikely to be used in the very moment of the close.
const PARTING: Nanos = 500 * MILLISECOND;
/// Connections per listener that a worker still takes when it finds them together with the order to
/// drain: epoll may have woken it alone for them (EPOLLEXCLUSIVE), and nobody else before the next one
/// arrives.
const LAST_ACCEPTS: usize = 4;

/// How a worker came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Everything that ran has been finished.
    Drained,
    /// At once, as ordered.
    Now,
}

/// What a worker is started with.
pub struct Plan<'a> {
    pub settings: &'a Settings,
    pub listeners: Vec<Listener>,
    pub orders: Channel,
    pub row: &'a Row,
}

/// Whether new connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// All connections are in use.
    Full,
    /// The system has no descriptors or memory left; until then.
    Paused(Nanos),
    /// The worker drains.
    Never,
}

pub struct Worker<'a> {
    settings: &'a Settings,
    limits: http::Limits,
    temp_dir: PathBuf,
    application: Application,
    row: &'a Row,
    epoll: Epoll,
    listeners: Vec<Listener>,
    accepting: Accepting,
    orders: Channel,
    signals: Inbox,
    connections: Slab<Connection>,
    /// Memory for what is read; a connection has its own only while a request is incomplete.
    buffer: Vec<u8>,
    /// Bytes of bodies in memory, of all connections.
    held: usize,
    /// The time of this wake-up.
    now: Nanos,
    unix_seconds: u64,
    next_sweep: Nanos,
    refusals: Throttle,
    leave: Option<Leave>,
    /// When idle connections are closed, once the worker drains.
    parting: Nanos,
}

impl<'a> Worker<'a> {
    pub fn new(plan: Plan<'a>, application: Application, signals: Inbox) -> io::Result<Self> {
        let settings = plan.settings;
        let worker = Self {
            settings,
            limits: http::Limits {
                request_line: settings.limits.request_line,
                head: settings.limits.head,
                fields: settings.limits.fields,
                underscores: underscores(settings),
            },
            temp_dir: settings
                .limits
                .temp_dir
                .clone()
                .unwrap_or_else(std::env::temp_dir),
            application,
            row: plan.row,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listeners: plan.listeners,
            accepting: Accepting::Paused(0),
            orders: plan.orders,
            signals,
            connections: Slab::new(),
            buffer: vec![0; READ],
            held: 0,
            now: clock::now(),
            unix_seconds: clock::unix_seconds(),
            next_sweep: Nanos::MAX,
            refusals: Throttle::new(5),
            leave: None,
            parting: 0,
        };
        let watch = |fd: std::os::fd::BorrowedFd<'_>, token| {
            worker
                .epoll
                .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
        };
        watch(worker.orders.as_fd(), ORDERS)?;
        watch(worker.signals.as_fd(), SIGNAL)?;
        Ok(worker)
    }

    /// Serves until ordered to leave.
    pub fn run(&mut self, py: Python<'_>) -> io::Result<Leave> {
        self.listen()?;
        self.orders.send(order::READY)?;
        let mut events = [EpollEvent::empty(); BATCH];
        loop {
            self.row.set_state(match self.accepting {
                Accepting::Never => State::Draining,
                _ => State::Idle,
            });
            let count = self.wait(py, &mut events)?;
            self.now = clock::now();
            self.unix_seconds = clock::unix_seconds();
            self.row.count(Counter::WakeUps, 1);
            let mut ready = 0;
            let mut listener = None;
            // First of all: a response given after the order to drain says that the connection ends.
            for event in &events[..count] {
                match event.data() {
                    ORDERS => self.take_orders()?,
                    SIGNAL => self.take_signals(),
                    _ => {}
                }
            }
            for event in &events[..count] {
                match event.data() {
                    ORDERS | SIGNAL => {}
                    token if token >= FIRST_LISTENER => listener = Some(token - FIRST_LISTENER),
                    id => {
                        ready += 1;
                        self.serve(py, id as usize, event.events());
                    }
                }
            }
            if self.leave == Some(Leave::Now) {
                return Ok(Leave::Now);
            }
            // Idle siblings are the better place for a new connection while others wait here.
            if let Some(listener) = listener
                && ready == 0
                && self.accepting == Accepting::Yes
            {
                self.accept(py, listener as usize);
            }
            if self.now >= self.next_sweep {
                self.sweep(py);
            }
            if self.leave == Some(Leave::Drained) {
                if listener.is_some() {
                    self.accept_the_last(py);
                }
                self.listeners.clear();
                if ready == 0 && self.now >= self.parting {
                    self.close_idle();
                }
                if self.connections.is_empty() {
                    return Ok(Leave::Drained);
                }
            }
        }
    }

    /// Waits for something to do; the only place where other Python threads may run.
    fn wait(&self, py: Python<'_>, events: &mut [EpollEvent]) -> io::Result<usize> {
        let until = match (self.leave, self.next_sweep) {
            // Idle connections are closed once nothing of theirs is waiting.
            (Some(_), next) if self.connections.iter().any(|(_, c)| c.is_idle()) => {
                Some(next.min(self.parting))
            }
            (Some(_), _) if self.connections.is_empty() => Some(0),
            (_, Nanos::MAX) => None,
            (_, sweep) => Some(sweep),
        };
        let millis = clock::wait_millis(clock_or(self.now, until), until);
        let timeout = EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX);
        match py.detach(|| self.epoll.wait(events, timeout)) {
            Ok(count) => Ok(count),
            Err(Errno::EINTR) => {
                // Handlers that the application has set with `signal.signal` run now.
                if let Err(error) = py.check_signals() {
                    let text = crate::python::traceback(py, &error);
                    log::error!("a signal handler of the application raised\n{text}");
                }
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take_orders(&mut self) -> io::Result<()> {
        match self.orders.receive()? {
            Received::Message(order) if order == order::STOP => self.leave = Some(Leave::Now),
            Received::Message(order) if order == order::DRAIN => self.drain(),
            Received::Message(_) | Received::Nothing => {}
            Received::Closed => {
                // The master is gone: finish, and do not look at the closed channel again.
                let _ = self.epoll.delete(&self.orders);
                orphan::check();
                self.drain();
            }
        }
        Ok(())
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGQUIT => self.drain(),
                _ => {}
            }
        }
    }

    fn drain(&mut self) {
        if self.leave.is_none() {
            self.leave = Some(Leave::Drained);
            // Well within the time after which what is left is killed.
            let grace = nanos(self.settings.limits.graceful_timeout);
            self.parting = self.now.saturating_add(PARTING.min(grace / 2));
            if self.accepting != Accepting::Yes {
                self.listeners.clear();
            }
            self.stop_listening(Accepting::Never);
        }
    }

    fn accept_the_last(&mut self, py: Python<'_>) {
        for index in 0..self.listeners.len() {
            for _ in 0..LAST_ACCEPTS {
                self.accept(py, index);
            }
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            // EPOLLEXCLUSIVE: a new connection wakes one idle worker, not all of them (epoll_ctl(2)).
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            let event = EpollEvent::new(flags, FIRST_LISTENER + index as u64);
            self.epoll.add(listener, event)?;
        }
        self.accepting = Accepting::Yes;
        Ok(())
    }

    fn stop_listening(&mut self, accepting: Accepting) {
        if self.accepting == Accepting::Yes {
            for listener in &self.listeners {
                let _ = self.epoll.delete(listener);
            }
        }
        if self.accepting != Accepting::Never {
            self.accepting = accepting;
        }
    }

    fn accept(&mut self, py: Python<'_>, listener: usize) {
        let (socket, peer) = match socket::accept(self.listeners[listener].as_fd()) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return,
            Err(error) => {
                let pause = ACCEPT_PAUSE / SECOND;
                log::error!("cannot accept a connection: {error}; trying again in {pause} s");
                self.stop_listening(Accepting::Paused(self.now + ACCEPT_PAUSE));
                self.wake_at(self.now + ACCEPT_PAUSE);
                return;
            }
        };
        self.row.count(Counter::Connections, 1);
        let limits = &self.settings.limits;
        let outlet = Outlet::new(socket, limits.output_buffer, limits.send_timeout);
        let mut connection = Connection::new(outlet, listener, peer);
        connection.deadline = self.now + nanos(limits.head_timeout);
        let deadline = connection.deadline;
        let id = self.connections.insert(connection);
        self.row.set_connections(self.connections.len());
        if self.connections.len() >= limits.max_connections {
            self.stop_listening(Accepting::Full);
        }
        self.wake_at(deadline);
        // Its request is there already, more often than not.
        self.serve(py, id, EpollFlags::EPOLLIN);
    }

    /// Makes the epoll set watch what the phase of the connection asks for.
    fn watch(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let interest = connection.interest();
        if connection.watched == interest {
            return;
        }
        let new = connection.watched.is_empty();
        connection.watched = interest;
        let socket = connection.outlet.as_ref().map(|outlet| outlet.socket());
        let socket = socket.expect("no request runs");
        let mut event = EpollEvent::new(interest, id as u64);
        let done = match new {
            true => self.epoll.add(socket, event),
            false => self.epoll.modify(socket, &mut event),
        };
        if let Err(error) = done {
            log::error!("cannot watch a connection: {error}");
            self.close(id);
        }
    }

    /// The descriptor leaves the epoll set with its close: no other process has it.
    fn close(&mut self, id: usize) {
        let connection = self.connections.remove(id);
        self.held -= connection.held();
        drop(connection);
        self.row.set_connections(self.connections.len());
        if self.accepting == Accepting::Full {
            self.resume_listening();
        }
    }

    fn resume_listening(&mut self) {
        if let Err(error) = self.listen() {
            log::error!("cannot listen again: {error}");
            self.drain();
        }
    }

    fn close_idle(&mut self) {
        let idle: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_idle())
            .map(|(id, _)| id)
            .collect();
        for id in idle {
            self.close(id);
        }
    }

    /// The next look at the time limits is at `deadline`, if not before.
    fn wake_at(&mut self, deadline: Nanos) {
        self.next_sweep = self.next_sweep.min(deadline.max(self.now + SWEEP));
    }

    /// Ends what has taken too long and finds the next time to look.
    fn sweep(&mut self, py: Python<'_>) {
        self.next_sweep = Nanos::MAX;
        if let Accepting::Paused(until) = self.accepting {
            match until <= self.now {
                true => self.resume_listening(),
                false => self.wake_at(until),
            }
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
        if let Some(next) = self.connections.iter().map(|(_, c)| c.deadline).min()
            && next != Nanos::MAX
        {
            self.wake_at(next);
        }
    }
}

fn clock_or(now: Nanos, until: Option<Nanos>) -> Nanos {
    match until {
        // The application may have run since the wake-up.
        Some(until) if until > now => clock::now(),
        _ => now,
    }
}

fn nanos(duration: std::time::Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 2)
}

pub fn underscores(settings: &Settings) -> http::Underscores {
    use crate::config::UnderscoreFields;
    match settings.underscore_fields {
        UnderscoreFields::Drop => http::Underscores::Drop,
        UnderscoreFields::Refuse => http::Underscores::Refuse,
        UnderscoreFields::Keep => http::Underscores::Keep,
    }
}
