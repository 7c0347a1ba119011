//! WAS requests as the access log and the counters are to have them.

use std::net::{IpAddr, SocketAddr};

use super::{Connection, Worker, was};
use crate::access::{Ending, Facts, Line, Ticket, Waits};
use crate::http::Head;
use crate::scoreboard::Counter;
use crate::sys::clock::Nanos;
use crate::wsgi::Outcome;

/// nginx's status for a client that left before it could be answered.
const CLIENT_LEFT: u16 = 499;

/// The address of the visitor, as the client says.
pub(super) fn visitor(request: &was::Request) -> Option<SocketAddr> {
    let host = std::str::from_utf8(request.remote_host()?).ok()?;
    let address = host.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(address, 0))
}

impl Worker<'_> {
    fn open_was_ticket(&mut self, place: usize, waits: Waits) -> Option<Ticket> {
        let connection = &self.was.open[place];
        let request = &connection.request;
        self.pen.as_mut().map(|pen| {
            let facts = Facts {
                line: Line::Whole {
                    method: request.method().name().unwrap_or("?").as_bytes(),
                    target: request.uri().unwrap_or_default(),
                    is_11: true,
                },
                peer: visitor(request),
                arrived: connection.arrived,
            };
            pen.open(&facts, request.headers(), waits)
        })
    }

    /// The body is still to come.
    pub(super) fn account_was_head(&mut self, place: usize) {
        let ticket = self.open_was_ticket(place, Waits::ForBody);
        self.was.open[place].ticket = ticket;
    }

    /// The application runs from now on.
    pub(super) fn account_was_start(&mut self, place: usize, head: &Head<'_, '_>) {
        let Some(pen) = &mut self.pen else {
            return;
        };
        let (now, connection) = (self.now, &mut self.was.open[place]);
        let queue = now.saturating_sub(connection.received);
        if pen.wants_response_fields() {
            connection.spout().keep_fields();
        }
        match &mut connection.ticket {
            Some(ticket) => pen.run(ticket, now, queue),
            None => {
                // The request is lent; its head has all that is to be told.
                let facts = Facts {
                    line: Line::Whole {
                        method: head.method,
                        target: head.target.raw,
                        is_11: true,
                    },
                    peer: self.row.peer(),
                    arrived: connection.arrived,
                };
                let fields = head.fields.iter();
                let fields = fields.map(|field| (field.name.as_bytes(), field.value));
                connection.ticket = Some(pen.open(&facts, fields, Waits::No { now, queue }));
            }
        }
    }

    /// The application has ended after `app`.
    pub(super) fn account_was_outcome(
        &mut self,
        place: usize,
        status: u16,
        outcome: &Outcome,
        app: Nanos,
    ) {
        let Some(ticket) = &mut self.was.open[place].ticket else {
            return;
        };
        ticket.told.status = status;
        ticket.told.app = app;
        ticket.told.ending = match outcome {
            Outcome::Complete => Ending::Complete,
            Outcome::ClientGone => Ending::Aborted,
            Outcome::Failed(_) => Ending::Failed,
            Outcome::TimedOut(_) => Ending::TimedOut,
            Outcome::Broken(_) => Ending::Broken,
        };
    }

    /// The server has answered itself.
    pub(super) fn account_was_answer(&mut self, place: usize, status: u16, ending: Ending) {
        if self.pen.is_none() {
            return;
        }
        if self.was.open[place].ticket.is_none() {
            self.account_was_head(place);
        }
        if let Some(ticket) = &mut self.was.open[place].ticket {
            ticket.told.status = status;
            ticket.told.ending = ending;
        }
    }

    /// The client has left before it was served.
    pub(super) fn account_was_left(&mut self, place: usize) {
        self.account_was_answer(place, CLIENT_LEFT, Ending::Aborted);
        self.account_was_end(place, true);
    }

    /// The response is over.
    pub(super) fn account_was_end(&mut self, place: usize, is_stopped: bool) {
        let connection = &mut self.was.open[place];
        let Some(mut ticket) = connection.ticket.take() else {
            return;
        };
        if is_stopped {
            ticket.told.ending = Ending::Aborted;
        }
        ticket.told.bytes = connection.line.hold().session().sent();
        self.end_was_ticket(place, ticket);
    }

    fn end_was_ticket(&mut self, place: usize, ticket: Ticket) {
        let now = self.now;
        let fields = self.was.open[place].spout.as_ref();
        let fields = fields.map_or(&b""[..], |spout| spout.kept_fields());
        if let Some(pen) = &mut self.pen {
            let published = pen.end(ticket, now, fields);
            self.count_lost(published);
        }
    }

    /// The connection is closed, whatever was going on.
    pub(super) fn account_was_close(&mut self, connection: &mut Connection) {
        let Some(mut ticket) = connection.ticket.take() else {
            return;
        };
        ticket.told.bytes = connection.line.hold().session().sent();
        ticket.told.ending = Ending::Aborted;
        if ticket.told.status == 0 {
            ticket.told.status = CLIENT_LEFT;
        }
        let fields = connection.spout.as_ref();
        let fields = fields.map_or(&b""[..], |spout| spout.kept_fields());
        if let Some(pen) = &mut self.pen {
            let published = pen.end(ticket, self.now, fields);
            self.count_lost(published);
        }
    }

    pub(super) fn count_was_sent(&mut self, place: usize) {
        let connection = &mut self.was.open[place];
        let sent = connection.line.hold().session().sent();
        let more = sent.saturating_sub(connection.counted);
        connection.counted = sent;
        self.row.count(Counter::BytesSent, more);
    }
}
