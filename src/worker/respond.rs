//! A complete request: the application runs, its response leaves, and the connection goes on or ends.

use pyo3::prelude::*;

use super::connection::Phase;
use super::floor::Lent;
use super::outlet::{Outlet, Verdict};
use super::refuse::{LATE, printable};
use super::serve::{Complete, Step};
use super::{Leave, Worker, order};
use crate::http::response::{After, Asked, Method};
use crate::log;
use crate::relay::Traits;
use crate::scoreboard::Counter;
use crate::sys::clock::{self, nanos};
use crate::sys::forks;
use crate::wsgi::{Outcome, Request};

impl Worker<'_> {
    /// Runs the application for a complete request.
    pub(super) fn respond(&mut self, py: Python<'_>, id: usize, request: Complete<'_>) -> Step {
        let Complete {
            line,
            head,
            sender,
            body,
            used,
        } = request;
        let deadline = self.now.saturating_add(self.request_timeout);
        self.row.set_peer(self.connections[id].client());
        self.row.begin_request(line, self.now, deadline);
        self.account_start(id, head);
        let persists =
            head.keep_alive && self.may_persist() && self.settings.limits.keep_alive.is_some();
        let connection = &mut self.connections[id];
        connection.phase = Phase::Head { scanned: 0 };
        let mut outlet = connection.outlet.take().expect("no other request runs");
        if self
            .pen
            .as_ref()
            .is_some_and(|pen| pen.wants_response_fields())
        {
            outlet.keep_fields();
        }
        outlet.expect(Asked {
            version: head.version,
            method: match head.method {
                b"HEAD" => Method::Head,
                _ => Method::Other,
            },
            after: if persists {
                After::Persist
            } else {
                After::Close
            },
        });
        // The connection is not ours while the application runs, only its outlet.
        let peer = connection.take_peer(py);
        let request = Request {
            head,
            body,
            origin: connection.origin,
            sender,
            peer: &peer,
            deadline,
            id: self.pen.as_ref().map(|pen| pen.id()),
            was: None,
        };
        let seconds = self.unix_seconds;
        let lent = Lent {
            place: id,
            is_head: head.method == b"HEAD",
        };
        let began = self.now;
        self.connections.release(lent, began);
        let (wire, status, outcome) = self.application.serve(py, request, outlet, seconds);
        if forks::is_child() {
            // The parent answers. Connections and epoll set are its own, and whoever has held the lock
            // at the fork does not exist here.
            self.leave = Some(Leave::Child);
            return Step::Closed;
        }
        self.connections.retake(began);
        self.now = clock::now();
        let wire: Box<dyn std::any::Any> = wire;
        let mut outlet = wire.downcast::<Outlet>().expect("it is the one we gave");
        outlet.end_gathering();
        let (status, outcome) = self.come_back(status, outcome);
        if self.floor.has_answered() {
            outlet.abandon();
        }
        self.row.end_request(self.now);
        let took = self.now.saturating_sub(began);
        self.service = self.service - self.service / 8 + took / 8;
        self.forget_gone();
        self.wear();
        self.account_outcome(id, status, &outcome, self.now.saturating_sub(began));
        self.record(line, status, outcome);
        let connection = &mut self.connections[id];
        connection.outlet = Some(outlet);
        connection.give_peer(peer);
        connection.traits.set(Traits::SERVED);
        connection.traits.clear(Traits::CONTINUED);
        match self.settle(id) {
            Step::Closed => Step::Closed,
            _ => Step::Served(used),
        }
    }

    /// What came of a request. If the master has given this worker up meanwhile it is to leave, and its client may
    /// have been answered.
    pub(super) fn come_back(&mut self, status: u16, outcome: Outcome) -> (u16, Outcome) {
        if self.floor.is_given_up() && self.leave.is_none() {
            let _ = self.orders.send(order::LEAVING);
            self.drain(self.hand_over_until());
        }
        if !self.floor.has_answered() {
            return (status, outcome);
        }
        let text = "it came to an end after the client had been told that it does not";
        (LATE, Outcome::TimedOut(text.into()))
    }

    pub(super) fn record(&self, line: &[u8], status: u16, outcome: Outcome) {
        // The master has counted what the watcher has answered.
        if !self.floor.has_answered() {
            self.row.count_status(status);
        }
        match outcome {
            Outcome::Complete => {}
            Outcome::ClientGone => self.row.count(Counter::ClientAborts, 1),
            Outcome::Failed(traceback) => {
                self.row.count(Counter::Exceptions, 1);
                let line = printable(line);
                log::error!("the application failed in {line:?}\n{traceback}");
            }
            Outcome::TimedOut(traceback) => {
                self.row.count(Counter::SoftTimeouts, 1);
                let line = printable(line);
                log::error!("the time of {line:?} is up\n{traceback}");
            }
            Outcome::Broken(text) => {
                self.row.count(Counter::BrokenResponses, 1);
                log::error!("{text}, in {:?}", printable(line));
            }
        }
    }

    /// After a response or a flush: decides what the connection does next.
    fn settle(&mut self, id: usize) -> Step {
        let connection = &mut self.connections[id];
        let outlet = connection.outlet();
        let (sent, verdict) = (outlet.take_sent(), outlet.verdict());
        self.row.count(Counter::BytesSent, sent);
        self.account_sent(id, sent, verdict == Verdict::Pending);
        let limits = &self.settings.limits;
        let connection = &mut self.connections[id];
        match verdict {
            Verdict::Persist => {
                connection.phase = Phase::Head { scanned: 0 };
                // Who asks next is not known before its head is.
                connection.set_client(connection.address());
                let idle = limits.keep_alive.unwrap_or_default();
                self.set_deadline(id, nanos(idle));
                Step::Wait
            }
            Verdict::Pending => {
                // Only progress gives it more time.
                let is_new = !matches!(connection.phase, Phase::Flush);
                connection.phase = Phase::Flush;
                if is_new || sent > 0 {
                    self.set_deadline(id, nanos(limits.send_timeout));
                }
                Step::Wait
            }
            Verdict::Close => {
                connection.outlet().send_end();
                self.close(id);
                Step::Closed
            }
            Verdict::Abort => {
                connection.abort_on_close();
                self.close(id);
                Step::Closed
            }
        }
    }

    pub(super) fn flush(&mut self, py: Python<'_>, id: usize) {
        if self.connections[id].outlet().flush(py) == Verdict::Close {
            self.count_abort(id);
        }
        match self.settle(id) {
            Step::Closed => {}
            _ if matches!(self.connections[id].phase, Phase::Head { .. }) => {
                // What the client has sent meanwhile.
                self.advance(py, id, b"");
            }
            _ => self.watch(id),
        }
    }

    pub(super) fn count_abort(&mut self, id: usize) {
        if self.connections[id].outlet().is_gone() {
            self.row.count(Counter::ClientAborts, 1);
        }
    }
}
