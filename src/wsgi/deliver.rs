//! From what the application returned to the end of the response; `close()` is called on every way.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::Outcome;
use super::deadline::RequestTimeout;
use super::exchange::{Exchange, Refused, as_bytes};
use super::file::FileWrapper;
use super::wire::End;
use crate::http::{Head, Pages};
use crate::python;

/// What the client gets where the application gives nothing.
pub struct Fallback<'a> {
    pub pages: &'a Pages,
    pub head: &'a Head<'a, 'a>,
}

impl Fallback<'_> {
    fn send(&self, py: Python<'_>, exchange: &Exchange, status: u16) {
        let mut fields = self.head.fields.iter();
        let accept = fields.find(|field| field.name.eq_ignore_ascii_case("accept"));
        let (form, page) = self.pages.page(status, accept.map(|field| field.value));
        exchange.fail(py, status, form, &page);
    }
}

/// `result` is what the call of the application came to.
pub fn deliver(
    py: Python<'_>,
    exchange: &Exchange,
    result: PyResult<Bound<'_, PyAny>>,
    fallback: &Fallback<'_>,
) -> Outcome {
    let iterable = match result {
        Ok(iterable) => iterable,
        Err(error) => return fail(py, exchange, &error, fallback),
    };
    let outcome = match transmit(py, exchange, &iterable) {
        Ok(None) => Outcome::Complete,
        Ok(Some(broken)) => Outcome::Broken(broken),
        Err(Refused::Gone) => Outcome::ClientGone,
        Err(Refused::Error(error)) => fail(py, exchange, &error, fallback),
    };
    match close(&iterable) {
        Ok(()) => outcome,
        // The response is out; the exception is still the application's and is to be seen.
        Err(error) => match outcome {
            Outcome::Failed(first) => Outcome::Failed(first + &python::traceback(py, &error)),
            _ => Outcome::Failed(python::traceback(py, &error)),
        },
    }
}

/// Ends a response whose application raised.
pub fn fail(
    py: Python<'_>,
    exchange: &Exchange,
    error: &PyErr,
    fallback: &Fallback<'_>,
) -> Outcome {
    if exchange.is_desertion(py, error) {
        return Outcome::ClientGone;
    }
    let traceback = python::traceback(py, error);
    if error.is_instance_of::<RequestTimeout>(py) {
        fallback.send(py, exchange, 504);
        return Outcome::TimedOut(traceback);
    }
    fallback.send(py, exchange, 500);
    Outcome::Failed(traceback)
}

fn transmit(
    py: Python<'_>,
    exchange: &Exchange,
    iterable: &Bound<'_, PyAny>,
) -> Result<Option<String>, Refused> {
    if let Ok(list) = iterable.cast_exact::<PyList>() {
        return match list.len() {
            1 => one(py, exchange, &list.get_item(0)?),
            _ => many(py, exchange, list.iter()),
        };
    }
    if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
        return match tuple.len() {
            1 => one(py, exchange, &tuple.get_item(0)?),
            _ => many(py, exchange, tuple.iter()),
        };
    }
    if let Ok(wrapper) = iterable.cast_exact::<FileWrapper>()
        && exchange.awaits_body(py)
        && let Some((file, offset, length)) = wrapper.get().regular_file(py)
    {
        exchange.send_file(py, file, offset, length)?;
        return exchange.finish(py);
    }
    iterate(py, exchange, iterable)
}

fn one(
    py: Python<'_>,
    exchange: &Exchange,
    block: &Bound<'_, PyAny>,
) -> Result<Option<String>, Refused> {
    let block = as_bytes(block)?;
    exchange.send(py, std::slice::from_ref(block), End::Final)?;
    exchange.finish(py)
}

/// All blocks exist already: nothing that the application does between them could be waited for.
fn many<'py>(
    py: Python<'py>,
    exchange: &Exchange,
    blocks: impl Iterator<Item = Bound<'py, PyAny>>,
) -> Result<Option<String>, Refused> {
    let blocks: PyResult<Vec<Bound<'py, PyBytes>>> =
        blocks.map(|block| as_bytes(&block).cloned()).collect();
    exchange.send(py, &blocks?, End::Final)?;
    exchange.finish(py)
}

fn iterate(
    py: Python<'_>,
    exchange: &Exchange,
    iterable: &Bound<'_, PyAny>,
) -> Result<Option<String>, Refused> {
    // PEP 3333, "Handling the Content-Length Header": the length of a single block is that of the
    // body.
    let single = python::has_length_one(iterable);
    let iterator = python::iterate(iterable)?;
    while let Some(block) = python::next(&iterator)? {
        let block = as_bytes(&block)?;
        let end = if single { End::Here } else { End::Open };
        exchange.send(py, std::slice::from_ref(block), end)?;
        // Once the length is reached the iterator still runs to its end: code behind its last
        // `yield` is executed, and a block too many is found.
        if exchange.wants_no_more(py) {
            break;
        }
    }
    exchange.finish(py)
}

fn close(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = iterable.py();
    if iterable.is_exact_instance_of::<PyList>() || iterable.is_exact_instance_of::<PyTuple>() {
        return Ok(());
    }
    match iterable.getattr_opt(pyo3::intern!(py, "close"))? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}
