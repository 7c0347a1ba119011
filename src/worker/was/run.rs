//! One WAS request and the application: what it is told, and what came of it.

use std::borrow::Cow;
use std::sync::Arc;

use pyo3::prelude::*;

use super::super::floor::Lent;
use super::super::{Leave, Worker};
use super::line::Line;
use super::serve::Step;
use super::spout::Spout;
use super::{Phase, was};
use crate::http::forwarded::Sender;
use crate::http::target::is_host;
use crate::http::{self, Head, Target, Version};
use crate::log::{self, Allowed};
use crate::sys::clock::{self, nanos};
use crate::sys::forks;
use crate::was::client_status;
use crate::wsgi::{Peer, Request, RequestBody};

impl Worker<'_> {
    pub(super) fn run_was_with_body(
        &mut self,
        py: Python<'_>,
        place: usize,
        line: &Arc<Line>,
    ) -> Step {
        let phase = &mut self.was.open[place].phase;
        let Phase::Body(body) = std::mem::replace(phase, Phase::Flush) else {
            return Step::Wait;
        };
        self.held -= body.in_memory();
        let mut memory = Vec::new();
        let body = match body.finish() {
            Ok(received) => received.lend(&mut memory),
            Err(error) => {
                log::error!("cannot read a request body again: {error}");
                return self.refuse_was(place, 503);
            }
        };
        self.run_was(py, place, line, body)
    }

    /// Runs the application.
    pub(super) fn run_was(
        &mut self,
        py: Python<'_>,
        place: usize,
        line: &Arc<Line>,
        body: RequestBody<'_>,
    ) -> Step {
        let request = std::mem::take(&mut self.was.open[place].request);
        let uri = uri(&request);
        let fields: Vec<httparse::Header<'_>> = fields(&request);
        let method = request.method().name().unwrap_or_default().as_bytes();
        let head = head(&request, method, &uri, &fields);
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
}

/// The address; put together where the client has only told its parts.
fn uri(request: &was::Request) -> Cow<'_, [u8]> {
    if let Some(uri) = request.uri() {
        return Cow::Borrowed(uri);
    }
    let mut uri = Vec::new();
    uri.extend_from_slice(request.script_name().unwrap_or_default());
    uri.extend_from_slice(request.path_info().unwrap_or_default());
    if let Some(query) = request.query_string() {
        uri.push(b'?');
        uri.extend_from_slice(query);
    }
    Cow::Owned(uri)
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
