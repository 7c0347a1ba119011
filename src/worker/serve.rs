//! From the bytes that arrive on a connection to a complete request, phase by phase.

use std::io::ErrorKind;

use nix::sys::epoll::EpollFlags;
use pyo3::prelude::*;

use super::body::{Body, Failure, Progress, Storage};
use super::connection::Phase;
use super::{BODIES_IN_MEMORY, Id, READ, TURN, Worker};
use crate::http::Refusal;
use crate::http::forwarded::{Client, Forwarded, Sender};
use crate::http::head::{self, Framing, Head, Parsed};
use crate::http::proxy::{self, Announced, Source};
use crate::http::response;
use crate::relay::Traits;
use crate::scoreboard::Counter;
use crate::sys::clock::{Nanos, nanos};
use crate::sys::socket;
use crate::wsgi::RequestBody;

/// What one step on the input came to.
pub(super) enum Step {
    /// So many bytes are used up; there may be more to do with the rest.
    Used(usize),
    /// The same, and the application has run.
    Served(usize),
    /// The rest is of no use before more arrives, or the response has been sent.
    Wait,
    Closed,
}

/// A request that has arrived as a whole.
pub(super) struct Complete<'a> {
    /// What begins with its first line.
    pub line: &'a [u8],
    pub head: &'a Head<'a, 'a>,
    pub sender: &'a Sender<'a>,
    pub body: RequestBody<'a>,
    /// Bytes of the input it consisted of.
    pub used: usize,
}

/// What a readable socket gave.
pub(super) enum Input {
    Bytes(usize),
    Nothing,
    End,
}

impl Worker<'_> {
    /// The connection is readable or writable.
    pub(super) fn serve(&mut self, py: Python<'_>, id: Id, events: EpollFlags) {
        let Some(id) = self.find(id) else {
            return;
        };
        match self.connections[id].phase {
            Phase::Flush if events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) => {
                self.count_abort(id);
                self.close(id);
            }
            Phase::Flush => self.flush(py, id),
            Phase::Linger => self.discard(id),
            Phase::Proxy | Phase::Head { .. } | Phase::Body { .. } => self.read(py, id),
        }
    }

    /// Goes on with what a connection has sent already.
    pub(super) fn resume(&mut self, py: Python<'_>, id: Id) {
        if let Some(id) = self.find(id) {
            self.connections[id].has_turn = false;
            self.advance(py, id, b"");
        }
    }

    fn read(&mut self, py: Python<'_>, id: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        match self.receive(id, &mut buffer) {
            Input::Bytes(count) => self.advance(py, id, &buffer[..count]),
            Input::Nothing => self.watch(id),
            Input::End => {
                // A request that was cut off never reaches the application.
                if !self.connections[id].is_idle() {
                    self.row.count(Counter::ClientAborts, 1);
                    self.account_cut_head(id);
                }
                self.close(id);
            }
        }
        self.buffer = buffer;
    }

    pub(super) fn receive(&mut self, id: usize, buffer: &mut [u8]) -> Input {
        match socket::receive(self.connections[id].socket(), buffer) {
            Ok(0) => Input::End,
            Ok(count) => {
                self.row.count(Counter::BytesReceived, count as u64);
                Input::Bytes(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Input::Nothing,
            Err(_) => Input::End,
        }
    }

    /// Does what can be done with the bytes that have just arrived, and with those left from before.
    pub(super) fn advance(&mut self, py: Python<'_>, id: usize, fresh: &[u8]) {
        let mut kept = std::mem::take(&mut self.connections[id].input);
        let was_partial = !kept.is_empty();
        let was_idle = !was_partial && self.connections[id].awaits_head();
        if !fresh.is_empty() {
            self.account_arrival(id, was_idle);
        }
        let input = match kept.is_empty() {
            true => fresh,
            false => {
                kept.extend_from_slice(fresh);
                &kept
            }
        };
        let mut at = 0;
        loop {
            match self.step(py, id, &input[at..]) {
                Step::Used(count) => at += count,
                Step::Served(count) => {
                    at += count;
                    // A client that pipelines does not keep the others waiting for long.
                    if self.now.saturating_sub(self.woken) > TURN && at < input.len() {
                        self.connections[id].has_turn = true;
                        self.runnable.push_back(self.id(id));
                        break;
                    }
                }
                Step::Wait => break,
                Step::Closed => return,
            }
        }
        let rest = &input[at..];
        let connection = &mut self.connections[id];
        match (rest.is_empty(), kept.is_empty()) {
            (true, _) => {}
            (false, true) => connection.input.extend_from_slice(rest),
            (false, false) => {
                kept.drain(..at);
                connection.input = kept;
            }
        }
        // The time limit of a head runs from its first byte, whatever arrives later.
        let is_partial = connection.awaits_head() && !connection.is_idle();
        if is_partial && (was_idle || at > 0) {
            self.set_deadline(id, nanos(self.settings.limits.head_timeout));
        } else if was_partial && self.connections[id].is_idle() {
            // What there was has turned out to be an empty line only.
            let idle = self.settings.limits.keep_alive.unwrap_or_default();
            self.set_deadline(id, nanos(idle));
        }
        self.watch(id);
    }

    fn step(&mut self, py: Python<'_>, id: usize, input: &[u8]) -> Step {
        match &mut self.connections[id].phase {
            _ if input.is_empty() => Step::Wait,
            Phase::Proxy => self.read_proxy_header(py, id, input),
            // RFC 9112 §2.2: an empty line before a request is skipped. Some clients send one after
            // a body.
            Phase::Head { scanned } if input.starts_with(b"\r\n") => {
                *scanned = 0;
                Step::Used(2)
            }
            Phase::Head { scanned } => {
                if *scanned > 0 && !head::is_complete(input, &self.limits, scanned) {
                    return Step::Wait;
                }
                self.read_head(py, id, input)
            }
            Phase::Body { .. } => self.read_body(py, id, input),
            Phase::Flush => Step::Wait,
            Phase::Linger => Step::Used(input.len()),
        }
    }

    fn read_proxy_header(&mut self, py: Python<'_>, id: usize, input: &[u8]) -> Step {
        let Announced { len, source } = match proxy::parse(input) {
            Ok(proxy::Parsed::Complete(announced)) => announced,
            Ok(proxy::Parsed::Partial) => return Step::Wait,
            Err(proxy::Malformed) => return self.refuse(py, id, Refusal::BadProxyHeader, input),
        };
        let connection = &mut self.connections[id];
        match source {
            Source::Client(address) => connection.set_address(address),
            Source::Proxy => {}
            Source::Unknown => connection.traits.set(Traits::ANONYMOUS),
        }
        connection.phase = Phase::Head { scanned: 0 };
        Step::Used(len)
    }

    fn read_head(&mut self, py: Python<'_>, id: usize, input: &[u8]) -> Step {
        let mut scratch = head::scratch();
        let head = match head::parse(input, &self.limits, &mut scratch) {
            Ok(Parsed::Complete(head)) => head,
            Ok(Parsed::Partial) => {
                if let Phase::Head { scanned } = &mut self.connections[id].phase {
                    head::is_complete(input, &self.limits, scanned);
                }
                return Step::Wait;
            }
            Err(refusal) => return self.refuse(py, id, refusal, input),
        };
        let sender = match self.judge(id, &head) {
            Ok(sender) => sender,
            Err(refusal) => return self.refuse(py, id, refusal, input),
        };
        let limits = &self.settings.limits;
        let rest = &input[head.len..];
        let asked = |body, used| Complete {
            line: input,
            head: &head,
            sender: &sender,
            body,
            used,
        };
        match head.framing {
            Framing::None | Framing::Length(0) => {
                self.respond(py, id, asked(RequestBody::None, head.len))
            }
            Framing::Length(length) if length > limits.max_body => {
                self.refuse(py, id, Refusal::BodyTooLarge, input)
            }
            Framing::Length(length)
                if length <= rest.len() as u64 && length <= limits.body_memory =>
            {
                let length = length as usize;
                let used = head.len + length;
                let body = RequestBody::Memory(&rest[..length]);
                self.respond(py, id, asked(body, used))
            }
            framing => {
                let body = match framing {
                    Framing::Length(length) => Body::of_length(length),
                    _ => Body::chunked(limits.max_body),
                };
                // RFC 9110 §10.1.1: no 100 when the body is on its way already.
                let connection = &mut self.connections[id];
                let was_told = connection.traits.has(Traits::CONTINUED);
                if head.expects_continue && rest.is_empty() && !was_told {
                    connection.traits.set(Traits::CONTINUED);
                    connection.outlet().send_plain(py, response::CONTINUE);
                    let sent = connection.outlet().take_sent();
                    self.row.count(Counter::BytesSent, sent);
                }
                self.account_head(id, &head);
                let used = head.len;
                self.connections[id].phase = Phase::Body {
                    head: input[..used].to_vec(),
                    body,
                };
                self.set_deadline(id, nanos(self.settings.limits.body_timeout));
                Step::Used(used)
            }
        }
    }

    fn read_body(&mut self, py: Python<'_>, id: usize, input: &[u8]) -> Step {
        let Phase::Body { body, .. } = &mut self.connections[id].phase else {
            return Step::Wait;
        };
        let memory = match self.held < BODIES_IN_MEMORY {
            true => usize::try_from(self.settings.limits.body_memory).unwrap_or(usize::MAX),
            false => 0,
        };
        let storage = Storage {
            memory,
            directory: &self.temp_dir,
        };
        let before = body.in_memory();
        let progress = body.take(input, &storage);
        self.held = self.held - before + body.in_memory();
        match progress {
            Ok(Progress {
                consumed,
                done: false,
            }) => {
                self.set_deadline(id, nanos(self.settings.limits.body_timeout));
                Step::Used(consumed)
            }
            Ok(Progress { consumed, .. }) => self.run_with_body(py, id, consumed),
            Err(Failure::Refused(refusal)) => self.refuse(py, id, refusal, b""),
            Err(Failure::Storage(error)) => self.cannot_store(py, id, &error),
        }
    }

    fn run_with_body(&mut self, py: Python<'_>, id: usize, used: usize) -> Step {
        let phase = &mut self.connections[id].phase;
        let phase = std::mem::replace(phase, Phase::Head { scanned: 0 });
        let Phase::Body { head: bytes, body } = phase else {
            return Step::Wait;
        };
        self.held -= body.in_memory();
        let mut memory = Vec::new();
        let body = match body.finish() {
            Ok(received) => received.lend(&mut memory),
            Err(error) => return self.cannot_store(py, id, &error),
        };
        // The head is read a second time, which costs less than keeping what it said.
        let mut scratch = head::scratch();
        let head = match head::parse(&bytes, &self.limits, &mut scratch) {
            Ok(Parsed::Complete(head)) => head,
            _ => return self.refuse(py, id, Refusal::MalformedRequestLine, &bytes),
        };
        let sender = match self.judge(id, &head) {
            Ok(sender) => sender,
            Err(refusal) => return self.refuse(py, id, refusal, &bytes),
        };
        let complete = Complete {
            line: &bytes,
            head: &head,
            sender: &sender,
            body,
            used,
        };
        self.respond(py, id, complete)
    }

    /// Finds out who has sent a request: the peer, or somebody for whom it speaks.
    fn judge<'b>(&mut self, id: usize, head: &Head<'b, '_>) -> Result<Sender<'b>, Refusal> {
        let proxies = &self.settings.proxies;
        if proxies.trusted.is_empty() {
            return Ok(Sender::Unjudged);
        }
        let connection = &mut self.connections[id];
        let peer = connection.address();
        connection.set_client(peer);
        // Somebody whom the proxy cannot describe is not the proxy, and may have written any field.
        if connection.traits.has(Traits::ANONYMOUS) || !proxies.trust(peer) {
            return Ok(Sender::Stranger);
        }
        let trusts = |address| proxies.trust_address(address);
        let forwarded = Forwarded::read(head.fields, self.believed, trusts)?;
        match forwarded.client {
            Client::Sender => {}
            Client::At(address) => connection.set_client(Some(address)),
            Client::Unknown => connection.set_client(None),
        }
        Ok(Sender::Proxy(forwarded))
    }

    /// Reads what a refused client still sends, for a while.
    fn discard(&mut self, id: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        // A few at a time: others are waiting too.
        for _ in 0..4 {
            match self.receive(id, &mut buffer) {
                Input::Bytes(count) if count == READ => continue,
                Input::Bytes(_) | Input::Nothing => self.watch(id),
                Input::End => self.close(id),
            }
            break;
        }
        self.buffer = buffer;
    }

    pub(super) fn set_deadline(&mut self, id: usize, after: Nanos) {
        let deadline = self.now.saturating_add(after);
        self.connections[id].deadline = deadline;
        if deadline < self.next_sweep {
            self.wake_at(deadline);
        }
    }
}
