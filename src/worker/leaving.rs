//! How a worker comes to its end: orders of the master, signals, and requests enough.

use std::io;

use nix::sys::signal::Signal;
use pyo3::prelude::*;

use super::accept::Accepting;
use super::connection::Phase;
use super::relay::{Farewell, HAND_OVER_PATIENCE};
use super::{Leave, Worker, order};
use crate::python::run_signal_handlers;
use crate::sys::clock::{MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::orphan;
use crate::sys::seqpacket::Received;

/// How long a draining worker waits for a request on a connection that is idle, on one that has had
/// none yet, and for a refused client to go.
pub(super) const DRAIN_IDLE: Nanos = 300 * MILLISECOND;
const DRAIN_FRESH: Nanos = 2 * SECOND;
const DRAIN_LINGER: Nanos = SECOND;

impl Worker<'_> {
    pub(super) fn take_orders(&mut self) -> io::Result<()> {
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

    /// Asks to be replaced when it has served enough; goes on until it is told to leave.
    pub(super) fn wear(&mut self) {
        if let Some(left) = &mut self.requests_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.requests_left = None;
                let _ = self.orders.send(order::WORN);
            }
        }
    }

    pub(super) fn take_signals(&mut self, py: Python<'_>) {
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
    pub(super) fn drain(&mut self, farewell: Farewell) {
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
    pub(super) fn limit_idle(&mut self) {
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

    pub(super) fn hand_over_until(&self) -> Farewell {
        let grace = nanos(self.settings.limits.graceful_timeout) / 2;
        match self.floor.ground.ferry {
            Some(_) => Farewell::HandOver {
                until: self.now + grace.min(HAND_OVER_PATIENCE),
            },
            None => Farewell::Finish,
        }
    }
}
