//! What the server answers in the place of the application: requests that break a rule, and those that
//! take too long to arrive.

use std::io;

use nix::sys::socket::Shutdown;
use pyo3::prelude::*;

use super::connection::Phase;
use super::floor::Page;
use super::serve::Step;
use super::{LINGER, Worker};
use crate::access::Ending;
use crate::http::page::accept_of;
use crate::http::response::{self, Method, Refused};
use crate::http::{DateCache, Refusal};
use crate::log::{self, Allowed};
use crate::scoreboard::Counter;
use crate::sys::clock::nanos;
use crate::sys::socket;
use crate::wsgi::Application;

impl Worker<'_> {
    /// Answers a request that is not served, says so once in a while, and ends the connection.
    pub(super) fn refuse(
        &mut self,
        py: Python<'_>,
        id: usize,
        refusal: Refusal,
        line: &[u8],
    ) -> Step {
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

    pub(super) fn cannot_store(&mut self, py: Python<'_>, id: usize, error: &io::Error) -> Step {
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
}

/// What a client gets whose request does not come to an end.
pub(super) const LATE: u16 = 504;

pub(super) fn late_page(application: &Application) -> Page {
    let (form, text) = application.pages().page(LATE, None);
    Page { form, text }
}

/// The first line of a head for the log: printable, and not all of it.
pub(super) fn printable(head: &[u8]) -> String {
    let end = head.iter().position(|b| matches!(b, b'\r' | b'\n'));
    let line = &head[..end.unwrap_or(head.len()).min(200)];
    String::from_utf8_lossy(line).into_owned()
}
