//! One request as the application sees it: `start_response` and `write`.

use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::{
    PyAssertionError, PyConnectionAbortedError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyList, PyString};

use super::response::Response;
use super::wire::{Body, End, Start, Unsent, Wire};
use crate::http::page::Form;
use crate::http::response;
use crate::python;

/// How far the response has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No request, or one whose response is over.
    Over,
    /// `start_response` has not been called.
    Open,
    /// It has, but nothing has been sent.
    Started,
    Sent,
}

/// The object behind `start_response` and `write`.
#[pyclass(module = "rswsgi", frozen)]
pub struct Exchange(Mutex<State>);

struct State {
    phase: Phase,
    is_head: bool,
    response: Response,
    wire: Option<Box<dyn Wire>>,
    sent: u64,
    /// Bytes the application gave beyond its Content-Length.
    excess: u64,
    /// The wire has been told that the response is complete.
    ended: bool,
    /// The client left before that.
    is_deserted: bool,
}

/// The callables of one exchange, kept together so that they can be used again.
pub struct Callables {
    pub exchange: Py<Exchange>,
    pub start_response: Py<PyAny>,
}

impl Callables {
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let exchange = Py::new(
            py,
            Exchange(Mutex::new(State {
                phase: Phase::Over,
                is_head: false,
                response: Response::default(),
                wire: None,
                sent: 0,
                excess: 0,
                ended: false,
                is_deserted: false,
            })),
        )?;
        let start_response = exchange.bind(py).getattr("start_response")?.unbind();
        Ok(Self {
            exchange,
            start_response,
        })
    }

    /// Whether the application has kept neither `start_response` nor a `write` of it.
    pub fn are_unshared(&self, py: Python<'_>) -> bool {
        // `start_response` holds the second reference to the exchange; each `write` another.
        python::references(self.start_response.bind(py)) == 1
            && python::references(self.exchange.bind(py)) == 2
    }
}

/// What keeps a block from being sent.
pub enum Refused {
    Gone,
    /// The application's own doing.
    Error(PyErr),
}

impl From<PyErr> for Refused {
    fn from(error: PyErr) -> Self {
        Refused::Error(error)
    }
}

impl From<Unsent> for Refused {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Gone => Refused::Gone,
            Unsent::Interrupted(error) => Refused::Error(error),
        }
    }
}

pub const NOT_STARTED: &str = "the application gave a body without calling start_response()";

#[pymethods]
impl Exchange {
    #[pyo3(signature = (status, headers, /, exc_info = None))]
    fn start_response<'py>(
        this: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let exc_info = exc_info.filter(|info| !info.is_none());
        // Whatever may run Python code comes before the lock.
        let converted;
        let headers = match headers.cast_exact::<PyList>() {
            Ok(list) => list,
            Err(_) => {
                converted = as_list(headers)?;
                &converted
            }
        };
        let mut state = this.get().lock()?;
        match (state.phase, exc_info) {
            (Phase::Over, _) => {
                let text = "start_response() was called after the end of its request";
                return Err(PyRuntimeError::new_err(text));
            }
            (Phase::Sent, Some(info)) => {
                drop(state);
                return Err(reraise(info)?);
            }
            (Phase::Started | Phase::Sent, None) => {
                let text = "start_response() was called again without exc_info";
                return Err(PyAssertionError::new_err(text));
            }
            (Phase::Open, _) | (Phase::Started, Some(_)) => {}
        }
        state.phase = Phase::Open;
        state.response.take_over(status, headers)?;
        if let Some(wire) = &state.wire {
            wire.check(&state.response).map_err(PyValueError::new_err)?;
        }
        state.phase = Phase::Started;
        drop(state);
        this.getattr(pyo3::intern!(py, "write"))
    }

    /// The `write()` callable of PEP 3333: for applications that cannot return an iterable.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let block = as_bytes(data)?;
        match self.send(py, std::slice::from_ref(block), End::Open) {
            Ok(()) => Ok(()),
            Err(Refused::Gone) => Err(PyConnectionAbortedError::new_err("the client has gone")),
            Err(Refused::Error(error)) => Err(error),
        }
    }
}

impl Exchange {
    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        let busy = |_| PyRuntimeError::new_err("another thread is sending this response");
        self.0.try_lock().map_err(busy)
    }

    pub fn begin(&self, py: Python<'_>, wire: Box<dyn Wire>, is_head: bool, date: &[u8; 29]) {
        let mut state = self.own(py);
        let state = &mut *state;
        state.phase = Phase::Open;
        state.is_head = is_head;
        state.response.clear();
        state.response.date = *date;
        state.wire = Some(wire);
        state.sent = 0;
        state.excess = 0;
        state.ended = false;
        state.is_deserted = false;
    }

    /// Ends the request, however it went: gives the wire back, and the status.
    pub fn end(&self, py: Python<'_>) -> (Box<dyn Wire>, u16) {
        let mut state = self.own(py);
        state.phase = Phase::Over;
        let wire = state.wire.take().expect("begin() put it there");
        (wire, state.response.status)
    }

    /// For the worker itself. A thread of the application may be inside a `write()` and may need
    /// the interpreter to come out of it, so the wait is a detached one.
    fn own(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        self.0
            .lock_py_attached(py)
            .expect("no holder of the lock can panic and go on")
    }

    /// Whether `start_response` has been called and nothing been sent: what comes next may be framed
    /// as the whole body.
    pub fn awaits_body(&self, py: Python<'_>) -> bool {
        self.own(py).phase == Phase::Started
    }

    /// Whether this is what `write()` has told the application about a client that left: then it has
    /// merely passed on what is no fault of its own.
    pub fn is_desertion(&self, py: Python<'_>, error: &PyErr) -> bool {
        self.own(py).is_deserted && error.is_instance_of::<PyConnectionAbortedError>(py)
    }

    /// Whether further blocks would be for nothing.
    pub fn wants_no_more(&self, py: Python<'_>) -> bool {
        let state = self.own(py);
        state.excess > 0 || (state.phase == Phase::Sent && state.is_bodyless())
    }

    /// Sends the next blocks. Empty ones send nothing, not even the head: the application may still
    /// change it.
    pub fn send(
        &self,
        py: Python<'_>,
        blocks: &[Bound<'_, PyBytes>],
        end: End,
    ) -> Result<(), Refused> {
        let mut state = self.lock()?;
        let length = blocks
            .iter()
            .map(|block| block.as_bytes().len() as u64)
            .sum();
        if length == 0 && end == End::Open {
            return Ok(());
        }
        match state.admit(length)? {
            Admitted::Nothing => state.transmit(py, Body::Plain(&[]), 0, end),
            Admitted::All => state.transmit(py, Body::Blocks(blocks), length, end),
            Admitted::First(allowed) => {
                let mut left = usize::try_from(allowed).unwrap_or(usize::MAX);
                let mut cut = Vec::new();
                for block in blocks {
                    let bytes = block.as_bytes();
                    let taken = &bytes[..bytes.len().min(left)];
                    left -= taken.len();
                    cut.push(PyBytes::new(py, taken));
                }
                state.transmit(py, Body::Blocks(&cut), allowed, end)
            }
        }
    }

    /// Sends a file as the whole body.
    pub fn send_file(
        &self,
        py: Python<'_>,
        file: std::fs::File,
        offset: u64,
        length: u64,
    ) -> Result<(), Refused> {
        let mut state = self.lock()?;
        // A file longer than the Content-Length is the usual way to send a part of it.
        let length = state.response.declared_length.unwrap_or(length).min(length);
        match state.admit(length)? {
            Admitted::Nothing => state.transmit(py, Body::Plain(&[]), 0, End::Here),
            Admitted::All | Admitted::First(_) => {
                let body = Body::File {
                    file,
                    offset,
                    length,
                };
                state.transmit(py, body, length, End::Here)
            }
        }
    }

    /// Completes the response after the last block. An error text if it does not keep its promise.
    pub fn finish(&self, py: Python<'_>) -> Result<Option<String>, Refused> {
        if !self.own(py).ended {
            self.send(py, &[], End::Here)?;
        }
        let mut state = self.own(py);
        let declared = state.response.declared_length;
        match declared {
            None if state.excess > 0 => Ok(Some(format!(
                "the application gave {} bytes after the only block that its len() announced",
                state.excess
            ))),
            Some(declared) if state.excess > 0 => Ok(Some(format!(
                "the application gave {} bytes more than its Content-Length of {declared}",
                state.excess
            ))),
            Some(declared) if !state.is_bodyless() && state.sent < declared => {
                let text = format!(
                    "the application gave {} bytes instead of its Content-Length of {declared}",
                    state.sent
                );
                state.cut();
                Ok(Some(text))
            }
            _ => Ok(None),
        }
    }

    /// Replaces a response of which nothing has been sent by an error page, or cuts it.
    pub fn fail(&self, py: Python<'_>, status: u16, form: Form, page: &[u8]) {
        let mut state = self.own(py);
        if state.phase == Phase::Sent {
            if !state.ended {
                state.cut();
            }
            return;
        }
        let line = format!("{status} {}", response::reason(status));
        let length = page.len() as u64;
        let response = &mut state.response;
        response.clear();
        response.status = status;
        response.status_line.extend_from_slice(line.as_bytes());
        response::write_field(&mut response.fields, b"Content-Type", form.content_type());
        response.declared_length = Some(length);
        state.phase = Phase::Started;
        state.sent = 0;
        let _ = state.transmit(py, Body::Plain(page), length, End::Here);
    }
}

enum Admitted {
    /// The response has no body (HEAD, 204, 304), or all of it has been sent.
    Nothing,
    All,
    /// Only this many bytes: the rest is beyond the Content-Length.
    First(u64),
}

impl State {
    fn is_bodyless(&self) -> bool {
        self.is_head || response::forbids_body(self.response.status)
    }

    fn cut(&mut self) {
        self.ended = true;
        if let Some(wire) = &mut self.wire {
            wire.cut();
        }
    }

    /// How much of `length` more bytes may be sent.
    fn admit(&mut self, length: u64) -> PyResult<Admitted> {
        match self.phase {
            Phase::Over => {
                let text = "write() was called after the end of its request";
                return Err(PyRuntimeError::new_err(text));
            }
            Phase::Open => return Err(PyAssertionError::new_err(NOT_STARTED)),
            Phase::Started | Phase::Sent => {}
        }
        if self.is_bodyless() {
            return Ok(Admitted::Nothing);
        }
        let Some(declared) = self.response.declared_length else {
            if self.ended {
                self.excess += length;
            }
            return Ok(Admitted::All);
        };
        let allowed = length.min(declared - self.sent);
        self.excess += length - allowed;
        Ok(match allowed {
            0 => Admitted::Nothing,
            _ if allowed == length => Admitted::All,
            _ => Admitted::First(allowed),
        })
    }

    fn transmit(
        &mut self,
        py: Python<'_>,
        body: Body<'_, '_>,
        length: u64,
        end: End,
    ) -> Result<(), Refused> {
        if self.ended {
            return Ok(());
        }
        self.sent += length;
        // The application need not say that it is done when its Content-Length says so.
        let complete = match self.response.declared_length {
            Some(declared) => self.sent == declared || self.is_bodyless(),
            None => self.is_bodyless(),
        };
        let short = self.response.declared_length.is_some() && !complete;
        let ended = complete || (end != End::Open && !short);
        let known = match (self.response.declared_length, end) {
            (Some(declared), _) => Some(declared),
            // Without a body there is nothing to know the length from.
            (None, End::Here | End::Final) if !self.is_bodyless() => Some(length),
            (None, _) => None,
        };
        let start = (self.phase == Phase::Started).then_some(Start {
            response: &self.response,
            length: known,
        });
        if start.is_none() && length == 0 && !ended {
            return Ok(());
        }
        self.phase = Phase::Sent;
        self.ended = ended;
        let wire = self.wire.as_mut().expect("begin() put it there");
        let end = match (ended, end) {
            (false, _) => End::Open,
            (true, End::Final) => End::Final,
            (true, _) => End::Here,
        };
        let sent = wire.send(py, start, body, end);
        self.is_deserted |= matches!(sent, Err(Unsent::Gone));
        Ok(sent?)
    }
}

/// PEP 3333 asks for a list; other servers take any iterable of pairs but a string or a mapping.
fn as_list<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    if headers.is_instance_of::<PyString>() {
        let text = "response headers are to be a list of tuples, not str";
        return Err(PyTypeError::new_err(text));
    }
    let list = PyList::empty(headers.py());
    for item in headers.try_iter()? {
        list.append(item?)?;
    }
    Ok(list)
}

pub fn as_bytes<'a, 'py>(block: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    block.cast::<PyBytes>().map_err(|_| {
        let kind = block.get_type().name();
        let kind = kind.map_or_else(|_| "another type".into(), |name| name.to_string());
        PyTypeError::new_err(format!("a block of the body is to be bytes, not {kind}"))
    })
}

/// The exception of an `exc_info` tuple, to be raised again (PEP 3333, "The start_response()
/// Callable").
fn reraise(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let error = PyErr::from_value(exc_info.get_item(1)?);
    let trace = exc_info.get_item(2)?;
    if !trace.is_none() {
        error
            .value(exc_info.py())
            .call_method1("with_traceback", (trace,))?;
    }
    Ok(error)
}
