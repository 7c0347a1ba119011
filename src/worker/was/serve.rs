//! What happens on one WAS connection, phase by phase.

use std::sync::Arc;

use pyo3::prelude::*;

use super::super::body::{Body, Failure, Received, Storage};
use super::super::floor::Lent;
use super::super::{BODIES_IN_MEMORY, Leave, Worker};
use super::line::{Input, Line, Lost};
use super::spout::{Asked, Spout};
use super::{Phase, was};
use crate::access::Ending;
use crate::http::forwarded::Sender;
use crate::http::response::write_field;
use crate::http::target::is_host;
use crate::http::{self, Head, Refusal, Target, Version};
use crate::log::{self, Allowed};
use crate::scoreboard::Counter;
use crate::sys::clock::{self, nanos};
use crate::sys::forks;
use crate::was::{Happened, Upload, client_status};
use crate::wsgi::{Peer, Request, RequestBody};

/// What one step came to.
pub(super) enum Step {
    /// There may be more to do.
    Again,
    /// Something has to happen first.
    Wait,
    Closed,
}

impl Worker<'_> {
    /// One of its channels is ready.
    pub(in crate::worker) fn serve_was(&mut self, py: Python<'_>, token: u64) {
        let Some(place) = self.was.find(token) else {
            return;
        };
        if self.leave == Some(Leave::Child) {
            // All of them are the parent's.
            return;
        }
        let line = Arc::clone(&self.was.open[place].line);
        let mut buffer = std::mem::take(&mut self.buffer);
        let heard = line.hold().hear(&mut buffer);
        self.buffer = buffer;
        if let Input::Bytes(count) = heard {
            self.was.open[place].received = self.woken;
            self.row.count(Counter::BytesReceived, count as u64);
        }
        self.go_on_was(py, place);
    }

    /// Does all that can be done now.
    pub(super) fn go_on_was(&mut self, py: Python<'_>, place: usize) {
        loop {
            let line = Arc::clone(&self.was.open[place].line);
            let step = match &self.was.open[place].phase {
                Phase::Head => self.read_was_head(py, place, &line),
                Phase::Body(_) => self.read_was_body(py, place, &line),
                Phase::Refuse(status) => {
                    let status = *status;
                    self.go_on_refusing(py, place, &line, status)
                }
                Phase::Flush => self.flush_was(py, place, &line),
                Phase::Drain => self.drain_upload(place, &line),
            };
            let lost = match step {
                Step::Closed => return,
                _ => line.hold().lost(),
            };
            match (step, lost) {
                (_, Some(lost)) => return self.lose_was(place, lost),
                (Step::Again, None) => {}
                _ => break,
            }
        }
        let line = Arc::clone(&self.was.open[place].line);
        line.hold().speak();
        self.watch_was(place);
    }

    /// Takes packets up to the end of the metadata, and those that came with it.
    fn read_was_head(&mut self, py: Python<'_>, place: usize, line: &Arc<Line>) -> Step {
        let limits = was::Limits {
            uri: self.settings.limits.request_line,
            metadata: self.settings.limits.head,
            fields: self.settings.limits.fields,
        };
        let connection = &mut self.was.open[place];
        let mut hold = line.hold();
        let (mut begun, mut complete) = (false, false);
        loop {
            let taken = match hold.next() {
                None => break,
                Some(Happened::Begun) => {
                    connection.request.clear();
                    connection.arrived = connection.received;
                    connection.counted = 0;
                    begun = true;
                    Ok(())
                }
                Some(Happened::Metadata(command, payload)) => {
                    connection.request.take(command, payload, &limits)
                }
                Some(Happened::Complete) => {
                    complete = true;
                    Ok(())
                }
                Some(Happened::Announced | Happened::Cut | Happened::Stopped) => Ok(()),
            };
            if let Err(violation) = taken {
                hold.lose(Lost::Violation(violation));
            }
        }
        let is_between = hold.session().is_between();
        drop(hold);
        match complete {
            true => self.take_was_request(py, place, line),
            false => {
                // The limit runs from the first packet, whatever comes later.
                match (begun, is_between) {
                    (true, _) => {
                        self.set_was_deadline(place, nanos(self.settings.limits.head_timeout))
                    }
                    (false, true) => self.rest_was(place),
                    (false, false) => {}
                }
                Step::Wait
            }
        }
    }

    /// The metadata is complete.
    fn take_was_request(&mut self, py: Python<'_>, place: usize, line: &Arc<Line>) -> Step {
        let connection = &mut self.was.open[place];
        let asked = Asked {
            is_head: connection.request.method().name() == Some("HEAD"),
            wants_metrics: connection.request.wants_metrics(),
            began: self.now,
        };
        connection.spout().expect(asked);
        let (is_stopped, upload, length) = {
            let hold = line.hold();
            let session = hold.session();
            (
                session.is_stopped(),
                session.upload(),
                session.upload_length(),
            )
        };
        if is_stopped {
            return self.leave_unserved(place);
        }
        let underscores = self.limits.underscores == http::Underscores::Refuse
            && connection.request.has_underscores();
        let refusal = match connection.request.refusal() {
            _ if underscores => Some((400, Refusal::UnderscoreField)),
            Some(refusal) => Some((refusal.status(), counted_as(refusal))),
            None if length.is_some_and(|length| length > self.settings.limits.max_body) => {
                Some((413, Refusal::BodyTooLarge))
            }
            None => None,
        };
        if let Some((status, reason)) = refusal {
            self.count_was_refusal(place, status, reason);
            return self.refuse_was(py, place, status);
        }
        if upload == Upload::Complete {
            return self.run_was(py, place, line, RequestBody::None);
        }
        self.account_was_head(place);
        self.was.open[place].phase = Phase::Body(Body::open());
        self.set_was_deadline(place, nanos(self.settings.limits.body_timeout));
        Step::Again
    }

    /// The client wants no answer: it is not asked of the application.
    fn leave_unserved(&mut self, place: usize) -> Step {
        self.row.count(Counter::ClientAborts, 1);
        let connection = &mut self.was.open[place];
        self.held -= connection.held();
        connection.phase = Phase::Drain;
        self.account_was_left(place);
        self.set_was_deadline(place, nanos(self.settings.limits.body_timeout));
        Step::Again
    }

    fn read_was_body(&mut self, py: Python<'_>, place: usize, line: &Arc<Line>) -> Step {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut hold = line.hold();
        while hold.next().is_some() {}
        let input = hold.read(&mut buffer);
        let (is_stopped, upload) = (hold.session().is_stopped(), hold.session().upload());
        drop(hold);
        let stored = match input {
            Input::Bytes(count) => self.store_was(place, &buffer[..count]),
            Input::Nothing => Ok(()),
        };
        self.buffer = buffer;
        match stored {
            _ if is_stopped => return self.leave_unserved(place),
            Ok(()) => {}
            Err(Failure::Refused(refusal)) => {
                let status = refusal.status();
                self.count_was_refusal(place, status, refusal);
                return self.refuse_was(py, place, status);
            }
            Err(Failure::Storage(error)) => {
                let directory = self.temp_dir.display();
                log::error!("cannot keep a request body in {directory}: {error}");
                return self.refuse_was(py, place, 503);
            }
        }
        match (upload, input) {
            (Upload::Complete, _) => self.run_was_with_body(py, place, line),
            (Upload::Cut, _) => {
                // A part of a body never reaches the application.
                self.row.count(Counter::ClientAborts, 1);
                self.refuse_was(py, place, 400)
            }
            (Upload::Open, Input::Bytes(_)) => {
                self.set_was_deadline(place, nanos(self.settings.limits.body_timeout));
                Step::Again
            }
            (Upload::Open, Input::Nothing) => Step::Wait,
        }
    }

    fn store_was(&mut self, place: usize, bytes: &[u8]) -> Result<(), Failure> {
        self.row.count(Counter::BytesReceived, bytes.len() as u64);
        let limits = &self.settings.limits;
        let memory = match self.held < BODIES_IN_MEMORY {
            true => usize::try_from(limits.body_memory).unwrap_or(usize::MAX),
            false => 0,
        };
        let Phase::Body(body) = &mut self.was.open[place].phase else {
            return Ok(());
        };
        let (before, directory) = (body.in_memory(), &self.temp_dir);
        if body.length().saturating_add(bytes.len() as u64) > limits.max_body {
            return Err(Failure::Refused(Refusal::BodyTooLarge));
        }
        let taken = body.take(bytes, &Storage { memory, directory });
        self.held = self.held - before + body.in_memory();
        taken.map(drop)
    }

    fn run_was_with_body(&mut self, py: Python<'_>, place: usize, line: &Arc<Line>) -> Step {
        let phase = &mut self.was.open[place].phase;
        let Phase::Body(body) = std::mem::replace(phase, Phase::Flush) else {
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
            Err(error) => {
                log::error!("cannot read a request body again: {error}");
                return self.refuse_was(py, place, 503);
            }
        };
        self.run_was(py, place, line, body)
    }

    /// Runs the application.
    fn run_was(
        &mut self,
        py: Python<'_>,
        place: usize,
        line: &Arc<Line>,
        body: RequestBody<'_>,
    ) -> Step {
        let request = std::mem::take(&mut self.was.open[place].request);
        let mut uri = Vec::new();
        let uri = match request.uri() {
            Some(uri) => uri,
            None => {
                uri.extend_from_slice(request.script_name().unwrap_or_default());
                uri.extend_from_slice(request.path_info().unwrap_or_default());
                if let Some(query) = request.query_string() {
                    uri.push(b'?');
                    uri.extend_from_slice(query);
                }
                &uri
            }
        };
        let fields: Vec<httparse::Header<'_>> = fields(&request);
        let method = request.method().name().unwrap_or_default().as_bytes();
        let head = head(&request, method, uri, &fields);
        let mut first_line = Vec::with_capacity(method.len() + uri.len() + 10);
        first_line.extend_from_slice(method);
        first_line.push(b' ');
        first_line.extend_from_slice(&uri[..uri.len().min(4096)]);
        first_line.extend_from_slice(b" HTTP/1.1");

        let deadline = self.now.saturating_add(self.request_timeout);
        self.row.set_peer(super::account::visitor(&request));
        self.row.begin_request(&first_line, self.now, deadline);
        self.account_was_start(place, &head);
        let peer = self.was.peer.get_or_insert_with(|| Peer::new(py, None));
        let connection = &mut self.was.open[place];
        connection.deadline = clock::Nanos::MAX;
        let spout = connection.spout.take().expect("no other request runs");
        let asked = Request {
            head: &head,
            body,
            origin: connection.origin,
            peer,
            deadline,
            id: self.pen.as_ref().map(|pen| pen.id()),
            was: Some(&request),
            // The client speaks for itself, and its headers are the application's business.
            sender: &Sender::Unjudged,
        };
        let seconds = self.unix_seconds;
        // It has no place among those of HTTP clients.
        let lent = Lent {
            place: usize::MAX,
            is_head: method == b"HEAD",
        };
        let began = self.now;
        self.connections.was().begin(Arc::clone(line));
        self.connections.release(lent, began);
        let (wire, status, outcome) = self.application.serve(py, asked, spout, seconds);
        let wire: Box<dyn std::any::Any> = wire;
        let spout = wire.downcast::<Spout>().expect("it is the one we gave");
        let connection = &mut self.was.open[place];
        connection.spout = Some(spout);
        if forks::is_child() {
            // The parent answers; the epoll set is the parent's, too.
            self.leave = Some(Leave::Child);
            return Step::Closed;
        }
        self.connections.retake(began);
        self.now = clock::now();
        self.forget_gone();
        let (status, outcome) = self.come_back(status, outcome);
        let connection = &mut self.was.open[place];
        connection.phase = Phase::Flush;
        self.row.end_request(self.now);
        self.wear();
        self.account_was_outcome(place, status, &outcome, self.now.saturating_sub(began));
        if client_status(status) != status {
            self.tell_other_status(status);
        }
        self.record(&first_line, status, outcome);
        drop(fields);
        self.was.open[place].request = request;
        // What it has not sent by now it will not send.
        let is_fresh = line.hold().session().is_fresh();
        if is_fresh {
            self.was.open[place].spout().send_plain(py, 500, b"", b"");
        }
        self.set_was_deadline(place, nanos(self.settings.limits.send_timeout));
        Step::Again
    }

    fn tell_other_status(&mut self, status: u16) {
        if let Allowed::Yes { withheld } = self.refusals.ask(self.now) {
            let sent = client_status(status);
            log::warning!(
                "status {status} was sent as {sent}, which WAS clients know ({withheld} more like this were not logged)"
            );
        }
    }

    /// Answers without the application.
    pub(super) fn refuse_was(&mut self, py: Python<'_>, place: usize, status: u16) -> Step {
        let _ = py;
        let connection = &mut self.was.open[place];
        self.held -= connection.held();
        connection.phase = Phase::Refuse(status);
        connection.line.hold().refuse_upload();
        self.set_was_deadline(place, nanos(self.settings.limits.body_timeout));
        Step::Again
    }

    pub(super) fn count_was_refusal(&mut self, place: usize, status: u16, reason: Refusal) {
        self.row.count_refusal(reason);
        if let Allowed::Yes { withheld } = self.refusals.ask(self.now) {
            let uri = self.was.open[place].request.uri().unwrap_or_default();
            let shown = String::from_utf8_lossy(&uri[..uri.len().min(200)]);
            let more = log::more_like_this(withheld);
            let name = reason.name();
            log::info!(
                "refused a request with {status}: {name} in {shown:?} from a WAS client{more}"
            );
        }
    }

    /// The answer goes out when nothing of the request is under way any more.
    fn go_on_refusing(
        &mut self,
        py: Python<'_>,
        place: usize,
        line: &Arc<Line>,
        status: u16,
    ) -> Step {
        match self.discard_upload(line) {
            Drained::Yes => {}
            Drained::Some => return Step::Again,
            Drained::No => return Step::Wait,
        }
        let is_fresh = line.hold().session().is_fresh();
        let connection = &mut self.was.open[place];
        connection.phase = Phase::Flush;
        if is_fresh {
            let accept = connection
                .request
                .headers()
                .find(|(name, _)| name.eq_ignore_ascii_case(b"accept"));
            let (form, page) = self
                .application
                .pages()
                .page(status, accept.map(|(_, value)| value));
            let mut fields = Vec::new();
            write_field(&mut fields, b"content-type", form.content_type());
            connection.spout().send_plain(py, status, &fields, &page);
            self.row.count_status(status);
            self.account_was_answer(place, status, Ending::Refused);
        }
        self.set_was_deadline(place, nanos(self.settings.limits.send_timeout));
        Step::Again
    }

    fn flush_was(&mut self, py: Python<'_>, place: usize, line: &Arc<Line>) -> Step {
        {
            let mut hold = line.hold();
            while hold.next().is_some() {}
        }
        let connection = &mut self.was.open[place];
        if connection.spout().flush(py) {
            self.set_was_deadline(place, nanos(self.settings.limits.send_timeout));
        }
        self.count_was_sent(place);
        let connection = &mut self.was.open[place];
        let (is_answered, is_stopped) = {
            let hold = line.hold();
            (hold.session().is_answered(), hold.session().is_stopped())
        };
        match is_answered && !connection.spout().is_pending() {
            true => {
                connection.phase = Phase::Drain;
                self.account_was_end(place, is_stopped);
                Step::Again
            }
            false => Step::Wait,
        }
    }

    /// The response is over; the next request may be read when nothing of this one is left.
    fn drain_upload(&mut self, place: usize, line: &Arc<Line>) -> Step {
        match self.discard_upload(line) {
            Drained::Some => return Step::Again,
            Drained::No => return Step::Wait,
            Drained::Yes => {}
        }
        let mut hold = line.hold();
        hold.speak();
        if hold.has_to_say() || !hold.session_mut().rest() {
            return Step::Wait;
        }
        drop(hold);
        self.was.open[place].phase = Phase::Head;
        Step::Again
    }

    /// Reads what nobody wants.
    fn discard_upload(&mut self, line: &Line) -> Drained {
        let mut hold = line.hold();
        while hold.next().is_some() {}
        if hold.session().is_drained() {
            return Drained::Yes;
        }
        match hold.read(&mut self.buffer) {
            Input::Bytes(_) => Drained::Some,
            Input::Nothing => Drained::No,
        }
    }
}

/// How far the request body has been read.
enum Drained {
    Yes,
    /// There may be more.
    Some,
    No,
}

/// The label under which refusals are counted.
fn counted_as(refusal: was::Refusal) -> Refusal {
    match refusal {
        was::Refusal::UriTooLong => Refusal::RequestLineTooLong,
        was::Refusal::MetadataTooLarge => Refusal::HeadTooLarge,
        was::Refusal::BadField => Refusal::BadFieldValue,
        was::Refusal::NoUri => Refusal::BadTarget,
        was::Refusal::UnknownMethod => Refusal::BadMethod,
    }
}

/// The headers for the environ. That of the length is left out: the body that came decides.
fn fields(request: &was::Request) -> Vec<httparse::Header<'_>> {
    let headers = request.headers();
    let mut fields = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        if let Ok(name) = std::str::from_utf8(name)
            && !name.eq_ignore_ascii_case("content-length")
        {
            fields.push(httparse::Header { name, value });
        }
    }
    fields
}

/// The request as an HTTP client would have sent it.
fn head<'b, 's>(
    request: &'b was::Request,
    method: &'b [u8],
    uri: &'b [u8],
    fields: &'s [httparse::Header<'b>],
) -> Head<'b, 's> {
    let (path, query) = match memchr::memchr(b'?', uri) {
        Some(at) => (&uri[..at], &uri[at + 1..]),
        None => (uri, &b""[..]),
    };
    // What the client has cut off is no part of PATH_INFO.
    let path = match request.script_name() {
        Some(script) if path.starts_with(script) => &path[script.len()..],
        _ => path,
    };
    let mut hosts = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().map(|field| field.value);
    Head {
        method,
        target: Target {
            raw: uri,
            path,
            query: request.query_string().unwrap_or(query),
            authority: None,
            form: http::Form::Origin,
        },
        version: Version::Http11,
        fields,
        framing: http::Framing::None,
        keep_alive: true,
        expects_continue: false,
        has_underscores: request.has_underscores(),
        host: host.filter(|host| is_host(host)),
        len: 0,
    }
}
