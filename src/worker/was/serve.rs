//! What happens on one WAS connection, phase by phase: the way of a request up to the application.
//! [`super::run`] is about the application, [`super::finish`] about the way of the response.

use std::sync::Arc;

use nix::sys::epoll::EpollFlags;
use pyo3::prelude::*;

use super::super::body::{Body, Failure, Storage};
use super::super::{BODIES_IN_MEMORY, Leave, Worker};
use super::line::{Input, Line, Lost};
use super::spout::Asked;
use super::{Phase, was};
use crate::http::{self, Refusal};
use crate::log;
use crate::scoreboard::Counter;
use crate::sys::clock::nanos;
use crate::was::{Happened, Upload};
use crate::wsgi::RequestBody;

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
    pub(in crate::worker) fn serve_was(&mut self, py: Python<'_>, token: u64, events: EpollFlags) {
        let Some(place) = self.was.find(token) else {
            return;
        };
        if self.leave == Some(Leave::Child) {
            // All of them are the parent's.
            return;
        }
        let connection = &mut self.was.open[place];
        if let Some(spout) = &mut connection.spout {
            spout.look_again();
        }
        // Room for what we say is no news of the client.
        if events != EpollFlags::EPOLLOUT {
            let line = Arc::clone(&connection.line);
            let mut buffer = std::mem::take(&mut self.buffer);
            let heard = line.hold().hear(&mut buffer, self.woken);
            self.buffer = buffer;
            if let Input::Bytes(count) = heard {
                self.row.count(Counter::BytesReceived, count as u64);
            }
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
                    connection.arrived = hold.heard();
                    connection.counted = 0;
                    begun = true;
                    Ok(())
                }
                Some(Happened::Metadata(command, payload)) => {
                    connection.request.take(command, payload, &limits)
                }
                Some(Happened::Complete) => {
                    connection.received = hold.heard();
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
            return self.refuse_was(place, status);
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
        while hold.next().is_some() {
            self.was.open[place].received = hold.heard();
        }
        let input = hold.read(&mut buffer);
        if let Input::Bytes(_) = input {
            self.was.open[place].received = self.woken;
        }
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
                return self.refuse_was(place, status);
            }
            Err(Failure::Storage(error)) => {
                let directory = self.temp_dir.display();
                log::error!("cannot keep a request body in {directory}: {error}");
                return self.refuse_was(place, 503);
            }
        }
        match (upload, input) {
            (Upload::Complete, _) => self.run_was_with_body(py, place, line),
            (Upload::Cut, _) => {
                // A part of a body never reaches the application.
                self.row.count(Counter::ClientAborts, 1);
                self.refuse_was(place, 400)
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
