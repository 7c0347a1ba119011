//! The time limit of the running request, as the application can see and move it.
//!
//! The deadline stands in the worker's row of the scoreboard, where the master watches it. When it
//! has passed, the master sends a real-time signal; its Python handler, [`_soft_deadline`], raises
//! [`RequestTimeout`] in the main thread, also inside a system call (PEP 475).

use std::sync::OnceLock;

use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::scoreboard::{Row, State};
use crate::sys::clock::{self, Nanos, SECOND};

pyo3::create_exception!(
    rswsgi,
    RequestTimeout,
    PyBaseException,
    "The request has taken longer than --request-timeout."
);

/// The row of this worker; none in a master.
static ROW: OnceLock<&'static Row> = OnceLock::new();

/// From now on this process is the worker of `row`.
pub fn belongs_to(row: &'static Row) {
    let _ = ROW.set(row);
}

/// A time limit as `time.monotonic()` would tell it.
pub fn seconds(deadline: Nanos) -> f64 {
    match deadline {
        Nanos::MAX => f64::INFINITY,
        deadline => deadline as f64 / SECOND as f64,
    }
}

/// Waits for a slow client: the application's time stands still, and its master knows why.
pub fn suspended<T>(wait: impl FnOnce() -> T) -> T {
    let Some(row) = ROW.get() else {
        return wait();
    };
    let (state, began) = (row.state(), clock::now());
    row.set_state(State::Writing);
    let result = wait();
    let waited = clock::now().saturating_sub(began);
    row.set_deadline(row.deadline().saturating_add(waited));
    row.set_state(state);
    result
}

/// Gives the running request at least `seconds` more from now on. Returns its deadline.
#[pyfunction]
pub fn extend_deadline(seconds: f64) -> PyResult<f64> {
    let row = ROW
        .get()
        .filter(|row| row.request_since().is_some())
        .ok_or_else(|| PyRuntimeError::new_err("no request is running"))?;
    if !(0.0..=1e9).contains(&seconds) {
        let text = "the seconds are to be between 0 and 1e9";
        return Err(PyValueError::new_err(text));
    }
    let more = clock::now().saturating_add((seconds * SECOND as f64) as Nanos);
    row.set_deadline(row.deadline().max(more));
    Ok(self::seconds(row.deadline()))
}

/// The handler of the master's signal. One that comes too late, for a request that is over, does
/// nothing.
#[pyfunction]
pub fn _soft_deadline(_signal: i32, _frame: &Bound<'_, PyAny>) -> PyResult<()> {
    let late = |row: &&Row| row.request_since().is_some() && row.deadline() <= clock::now();
    match ROW.get().filter(|row| late(row)) {
        Some(_) => Err(RequestTimeout::new_err("the request takes too long")),
        None => Ok(()),
    }
}
