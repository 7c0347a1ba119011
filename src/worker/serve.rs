//! What happens on one connection: from the bytes that arrive to the response, phase by phase.

use std::io::ErrorKind;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::Shutdown;
use pyo3::prelude::*;

use super::body::{Body, Failure, Progress, Received, Storage};
use super::connection::Phase;
use super::floor::{Lent, Page};
use super::outlet::{Outlet, Verdict};
use super::{BODIES_IN_MEMORY, Id, LINGER, Leave, READ, TURN, Worker, order};
use crate::access::Ending;
use crate::http::forwarded::{Client, Forwarded, Sender};
use crate::http::head::{self, Framing, Head, Parsed};
use crate::http::page::accept_of;
use crate::http::proxy::{self, Announced, Source};
use crate::http::response::{self, After, Asked, Method, Refused};
use crate::http::{DateCache, Refusal};
use crate::log::{self, Allowed};
use crate::relay::Traits;
use crate::scoreboard::Counter;
use crate::sys::clock::{self, Nanos, nanos};
use crate::sys::{forks, socket};
use crate::wsgi::{Application, Outcome, Request, RequestBody};

/// What one step on the input came to.
enum Step {
    /// So many bytes are used up; there may be more to do with the rest.
    Used(usize),
    /// The same, and the application has run.
    Served(usize),
    /// The rest is of no use before more arrives, or the response has been sent.
    Wait,
    Closed,
}

/// A request that has arrived as a whole.
struct Complete<'a> {
    /// What begins with its first line.
    line: &'a [u8],
    head: &'a Head<'a, 'a>,
    sender: &'a Sender<'a>,
    body: RequestBody<'a>,
    /// Bytes of the input it consisted of.
    used: usize,
}

/// What a readable socket gave.
enum Input {
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

    fn receive(&mut self, id: usize, buffer: &mut [u8]) -> Input {
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
        let memory;
        let body = match body.finish() {
            Ok(Received::Memory(bytes)) => {
                memory = bytes;
                RequestBody::Memory(&memory)
            }
            Ok(Received::File(file, length)) => RequestBody::File(file, length),
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

    /// Runs the application for a complete request.
    fn respond(&mut self, py: Python<'_>, id: usize, request: Complete<'_>) -> Step {
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

    fn flush(&mut self, py: Python<'_>, id: usize) {
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

    fn count_abort(&mut self, id: usize) {
        if self.connections[id].outlet().is_gone() {
            self.row.count(Counter::ClientAborts, 1);
        }
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

    /// Answers a request that is not served, says so once in a while, and ends the connection.
    fn refuse(&mut self, py: Python<'_>, id: usize, refusal: Refusal, line: &[u8]) -> Step {
        self.row.count_refusal(refusal);
        if let Allowed::Yes { withheld } = self.refusals.ask(self.now) {
            let (status, name) = (refusal.status(), refusal.name());
            let client = self.connections[id].describe();
            let place = match line {
                b"" => String::new(),
                line => format!(" in {:?}", printable(line)),
            };
            let more = log::more_like_this(withheld);
            log::info!("refused a request with {status}: {name}{place} from {client}{more}");
        }
        self.answer_and_linger(py, id, refusal.status(), line)
    }

    fn cannot_store(&mut self, py: Python<'_>, id: usize, error: &std::io::Error) -> Step {
        let directory = self.temp_dir.display();
        log::error!("cannot keep a request body in {directory}: {error}");
        self.answer_and_linger(py, id, 503, b"")
    }

    /// `input`: what there is of the head.
    fn answer_and_linger(&mut self, py: Python<'_>, id: usize, status: u16, input: &[u8]) -> Step {
        self.row.count_status(status);
        let connection = &mut self.connections[id];
        self.held -= connection.held();
        let phase = std::mem::replace(&mut connection.phase, Phase::Linger);
        let head = match &phase {
            Phase::Body { head, .. } => head,
            _ => input,
        };
        let (form, page) = self.application.pages().page(status, accept_of(head));
        let refused = Refused {
            status,
            method: match head.starts_with(b"HEAD ") {
                true => Method::Head,
                false => Method::Other,
            },
            form,
            page: &page,
        };
        let mut bytes = Vec::new();
        let mut date = DateCache::new();
        let date = date.render(self.unix_seconds);
        let head = response::write_refusal(&mut bytes, refused, Some(date), Some(b"rswsgi"));
        let body = (bytes.len() - head) as u64;
        connection.outlet().send_plain(py, &bytes);
        connection.shut_down(Shutdown::Write);
        let sent = connection.outlet().take_sent();
        self.row.count(Counter::BytesSent, sent);
        self.account_answer(id, input, (status, Ending::Refused), body);
        self.set_deadline(id, LINGER);
        Step::Used(0)
    }

    /// The client has not done its next step in time.
    pub(super) fn time_out(&mut self, py: Python<'_>, id: usize) {
        match self.connections[id].phase {
            Phase::Proxy | Phase::Head { .. } if self.connections[id].is_idle() => {
                // A request may have come while that of another connection ran.
                match socket::has_bytes(self.connections[id].socket()) {
                    true => self.set_deadline(id, nanos(self.settings.limits.head_timeout)),
                    false => self.close(id),
                }
            }
            Phase::Proxy | Phase::Head { .. } => self.refuse_late(py, id, Refusal::HeadTimeout),
            Phase::Body { .. } => self.refuse_late(py, id, Refusal::BodyTimeout),
            Phase::Flush => {
                self.row.count(Counter::ClientAborts, 1);
                self.connections[id].abort_on_close();
                self.close(id);
            }
            Phase::Linger => self.close(id),
        }
    }

    fn refuse_late(&mut self, py: Python<'_>, id: usize, refusal: Refusal) {
        let input = std::mem::take(&mut self.connections[id].input);
        self.refuse(py, id, refusal, &input);
        self.watch(id);
    }

    fn set_deadline(&mut self, id: usize, after: Nanos) {
        let deadline = self.now.saturating_add(after);
        self.connections[id].deadline = deadline;
        if deadline < self.next_sweep {
            self.wake_at(deadline);
        }
    }
}

/// What a client gets whose request does not come to an end.
pub(super) const LATE: u16 = 504;

pub(super) fn late_page(application: &Application) -> Page {
    let (form, text) = application.pages().page(LATE, None);
    Page { form, text }
}

/// The first line of a head for the log: printable, and not all of it.
fn printable(head: &[u8]) -> String {
    let end = head.iter().position(|b| matches!(b, b'\r' | b'\n'));
    let line = &head[..end.unwrap_or(head.len()).min(200)];
    String::from_utf8_lossy(line).into_owned()
}
