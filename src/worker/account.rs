//! Requests as the access log is to have them: opened when they are known, ended exactly once. All of it
//! costs one comparison where there is no access log.

use std::net::SocketAddr;

use super::Worker;
use super::connection::{Connection, Phase};
use super::outlet::Outlet;
use crate::access::{Ending, Facts, Line, Published, Ticket, Told, Waits};
use crate::http::page::raw_fields;
use crate::http::{Head, Version};
use crate::scoreboard::Counter;
use crate::sys::clock::Nanos;
use crate::wsgi::Outcome;

/// nginx's status for a client that left before it could be answered.
const CLIENT_LEFT: u16 = 499;

impl Worker<'_> {
    /// Bytes have come on a connection.
    #[inline]
    pub(super) fn account_arrival(&mut self, id: usize, was_idle: bool) {
        if self.pen.is_none() {
            return;
        }
        let connection = &mut self.connections[id];
        connection.received = self.woken;
        if was_idle {
            connection.arrived = self.woken;
        }
    }

    /// The head is there, the body is not.
    pub(super) fn account_head(&mut self, id: usize, head: &Head<'_, '_>) {
        if self.pen.is_some() {
            let ticket = self.open_ticket(id, head, Waits::ForBody);
            self.connections[id].ticket = ticket;
        }
    }

    /// The application runs from now on.
    #[inline]
    pub(super) fn account_start(&mut self, id: usize, head: &Head<'_, '_>) {
        let Some(pen) = &mut self.pen else {
            return;
        };
        let (now, connection) = (self.now, &mut self.connections[id]);
        let queue = now.saturating_sub(connection.received);
        match &mut connection.ticket {
            Some(ticket) => pen.run(ticket, now, queue),
            None => {
                let ticket = self.open_ticket(id, head, Waits::No { now, queue });
                self.connections[id].ticket = ticket;
            }
        }
    }

    fn open_ticket(&mut self, id: usize, head: &Head<'_, '_>, waits: Waits) -> Option<Ticket> {
        let line = Line::Whole {
            method: head.method,
            target: head.target.raw,
            is_11: head.version == Version::Http11,
        };
        let connection = &self.connections[id];
        let facts = facts(line, connection.arrived, connection.client());
        let fields = head.fields.iter();
        let fields = fields.map(|field| (field.name.as_bytes(), field.value));
        let pen = self.pen.as_mut()?;
        Some(pen.open(&facts, fields, waits))
    }

    /// The application has ended after `app`; the response may still wait for the client.
    #[inline]
    pub(super) fn account_outcome(
        &mut self,
        id: usize,
        status: u16,
        outcome: &Outcome,
        app: Nanos,
    ) {
        if self.pen.is_none() {
            return;
        }
        let connection = &mut self.connections[id];
        // What has come behind it is the next request.
        connection.arrived = connection.received;
        let Some(ticket) = &mut connection.ticket else {
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

    /// So many bytes have been sent since the last call; `is_pending`: the rest waits for the client.
    #[inline]
    pub(super) fn account_sent(&mut self, id: usize, sent: u64, is_pending: bool) {
        if self.pen.is_none() {
            return;
        }
        let connection = &mut self.connections[id];
        let Some(mut ticket) = connection.ticket.take() else {
            return;
        };
        ticket.told.bytes += sent;
        if is_pending {
            if let Some(pen) = &mut self.pen {
                pen.wait(&mut ticket);
            }
            connection.ticket = Some(ticket);
            return;
        }
        let outlet = connection.outlet.take().expect("no request runs");
        if outlet.is_gone() {
            ticket.told.ending = Ending::Aborted;
        }
        self.end_ticket(ticket, &outlet);
        self.connections[id].outlet = Some(outlet);
    }

    fn end_ticket(&mut self, mut ticket: Ticket, outlet: &Outlet) {
        ticket.told.bytes = ticket.told.bytes.saturating_sub(outlet.head_length());
        if let Some(pen) = &mut self.pen {
            let published = pen.end(ticket, self.now, outlet.kept_fields());
            self.count_lost(published);
        }
    }

    pub(super) fn count_lost(&self, published: Published) {
        if published == Published::Lost {
            self.row.count(Counter::UnloggedRequests, 1);
        }
    }

    /// The connection is closed, whatever was going on.
    pub(super) fn account_close(&mut self, connection: &mut Connection) {
        if self.pen.is_none() {
            return;
        }
        let Some(mut ticket) = connection.ticket.take() else {
            return;
        };
        ticket.told.bytes += connection.outlet().take_sent();
        ticket.told.ending = Ending::Aborted;
        if ticket.told.status == 0 {
            ticket.told.status = CLIENT_LEFT;
        }
        self.end_ticket(ticket, connection.outlet());
    }

    /// The client has left in the middle of a head.
    pub(super) fn account_cut_head(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        let is_head = matches!(connection.phase, Phase::Head { .. });
        let has_some = connection.input.iter().any(|byte| !b"\r\n".contains(byte));
        if self.pen.is_some() && is_head && has_some {
            let input = std::mem::take(&mut connection.input);
            self.account_answer(id, &input, (CLIENT_LEFT, Ending::Aborted), 0);
        }
    }

    /// A request that did not reach the application was answered with `body` bytes. `input`: what there
    /// is of its head.
    pub(super) fn account_answer(
        &mut self,
        id: usize,
        input: &[u8],
        (status, ending): (u16, Ending),
        body: u64,
    ) {
        let Some(pen) = &mut self.pen else {
            return;
        };
        let connection = &mut self.connections[id];
        let ticket = connection.ticket.take();
        let mut ticket = ticket.unwrap_or_else(|| {
            let facts = facts(line_of(input), connection.arrived, connection.client());
            pen.open(&facts, raw_fields(input), Waits::ForBody)
        });
        ticket.told = Told {
            status,
            ending,
            bytes: body,
            ..ticket.told
        };
        let published = pen.end(ticket, self.now, b"");
        self.count_lost(published);
    }
}

fn facts(line: Line<'_>, arrived: Nanos, peer: Option<SocketAddr>) -> Facts<'_> {
    Facts {
        line,
        peer,
        arrived,
    }
}

/// The first line of a head that was not accepted.
fn line_of(input: &[u8]) -> Line<'_> {
    let blank = input.iter().take_while(|b| b"\r\n".contains(b)).count();
    let input = &input[blank..];
    let end = input.iter().position(|b| b"\r\n".contains(b));
    let line = &input[..end.unwrap_or(input.len())];
    let mut words = line.split(|byte| *byte == b' ');
    let version = |word: &[u8]| match word {
        b"HTTP/1.1" => Some(true),
        b"HTTP/1.0" => Some(false),
        _ => None,
    };
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(last), None)
            if !method.is_empty() && method.len() < 32 && !target.is_empty() =>
        {
            version(last).map_or(Line::Raw(line), |is_11| Line::Whole {
                method,
                target,
                is_11,
            })
        }
        _ => Line::Raw(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_line_is_taken_apart_if_it_looks_like_one() {
        let whole = |target: &'static [u8], is_11| Line::Whole {
            method: b"GET",
            target,
            is_11,
        };
        for (input, expected) in [
            (&b"GET /a HTTP/1.1\r\nX"[..], whole(b"/a", true)),
            (b"\r\nGET /a?b HTTP/1.0", whole(b"/a?b", false)),
            (b"GET /a  HTTP/1.1\r\n", Line::Raw(b"GET /a  HTTP/1.1")),
            (b"GET /a HTTP/2.0\r\n", Line::Raw(b"GET /a HTTP/2.0")),
            (b"\x16\x03\x01", Line::Raw(b"\x16\x03\x01")),
            (b"", Line::Raw(b"")),
        ] {
            assert_eq!(line_of(input), expected);
        }
    }
}
