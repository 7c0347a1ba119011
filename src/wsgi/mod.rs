//! PEP 3333: from a complete request to a complete response, whatever carries them.
//!
//! A front end gives a [`Request`] and a [`Wire`] to [`Application::serve`] and gets the wire back
//! with the [`Outcome`]. One request runs at a time; nothing here knows of sockets or event loops.

pub mod deadline;
mod deliver;
mod development;
mod environ;
mod exchange;
mod file;
mod gateway;
mod names;
mod response;
mod wire;

pub use development::Development;
pub use environ::{FieldPolicy, Origin, Peer, Request, RequestBody};
pub use file::FileWrapper;
pub use response::Response;
pub use wire::{Body, End, Start, Unsent, Wire};

use pyo3::prelude::*;

use crate::http::{DateCache, Pages};
use crate::python;

/// How one request ended, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    /// The client left before it had everything.
    ClientGone,
    /// The application raised; the text is its traceback. The client got a 500, or a cut response
    /// when some of it had been sent.
    Failed(String),
    /// The same, by `RequestTimeout`; the client got a 504.
    TimedOut(String),
    /// The application broke a rule of its own response (too many or too few bytes).
    Broken(String),
}

/// The application and what all its requests share.
pub struct Application {
    callable: Py<PyAny>,
    environs: environ::Builder,
    /// Kept from one request to the next when the application has let go of it.
    exchange: Option<exchange::Callables>,
    date: DateCache,
    pages: Pages,
    development: Option<Development>,
}

impl Application {
    /// `origins`: what is constant per listener, in their order.
    pub fn new(
        py: Python<'_>,
        callable: Py<PyAny>,
        origins: &[Origin],
        fields: FieldPolicy,
        pages: Pages,
    ) -> PyResult<Self> {
        Ok(Self {
            callable,
            pages,
            environs: environ::Builder::new(py, origins, fields)?,
            exchange: None,
            date: DateCache::new(),
            development: None,
        })
    }

    /// From now on modules are told, and what keeps a reload from succeeding is shown.
    pub fn develop(&mut self, development: Development) {
        self.development = Some(development);
    }

    /// For the responses that the server itself makes.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Runs the application for one request. `unix_seconds` is the time, for `Date`.
    pub fn serve(
        &mut self,
        py: Python<'_>,
        request: Request<'_>,
        wire: Box<dyn Wire>,
        unix_seconds: u64,
    ) -> (Box<dyn Wire>, u16, Outcome) {
        let callables = match self.exchange.take().filter(|kept| kept.are_unshared(py)) {
            Some(callables) => callables,
            None => match exchange::Callables::new(py) {
                Ok(callables) => callables,
                Err(error) => return (wire, 500, Outcome::Failed(error.to_string())),
            },
        };
        let exchange = callables.exchange.bind(py).get();
        let is_head = request.head.method == b"HEAD";
        let fallback = deliver::Fallback {
            pages: &self.pages,
            head: request.head,
        };
        exchange.begin(py, wire, is_head, self.date.render(unix_seconds));
        let development = self.development.as_ref();
        let notice = development.and_then(|d| d.page(request.head, request.peer, &self.pages));
        if let Some((form, page)) = notice {
            exchange.fail(py, 500, form, &page);
            let (wire, status) = exchange.end(py);
            self.exchange = Some(callables);
            return (wire, status, Outcome::Complete);
        }
        let outcome = match self.environs.build(py, request) {
            Ok(environ) => {
                let start_response = callables.start_response.bind(py);
                let result = python::call2(self.callable.bind(py), &environ, start_response);
                // The environ may hold the last reference to large or locked things: it goes now.
                drop(environ);
                deliver::deliver(py, exchange, result, &fallback)
            }
            Err(error) => deliver::fail(py, exchange, &error, &fallback),
        };
        let (wire, status) = exchange.end(py);
        self.exchange = Some(callables);
        if let Some(development) = &self.development {
            development.tell(py);
        }
        (wire, status, outcome)
    }
}
