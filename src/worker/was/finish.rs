//! How a WAS exchange ends: answers of the server's own, what is left of a response, and what is left of a
//! request body that nobody wants.

use std::sync::Arc;

use pyo3::prelude::*;

use super::super::Worker;
use super::Phase;
use super::line::{Input, Line};
use super::serve::Step;
use crate::access::Ending;
use crate::http::Refusal;
use crate::http::response::write_field;
use crate::log::{self, Allowed};
use crate::sys::clock::nanos;

/// How far the request body has been read.
enum Drained {
    Yes,
    /// There may be more.
    Some,
    No,
}

impl Worker<'_> {
    /// Answers without the application.
    pub(super) fn refuse_was(&mut self, place: usize, status: u16) -> Step {
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
    pub(super) fn go_on_refusing(
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

    pub(super) fn flush_was(&mut self, py: Python<'_>, place: usize, line: &Arc<Line>) -> Step {
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
    pub(super) fn drain_upload(&mut self, place: usize, line: &Arc<Line>) -> Step {
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
