//! Forking and leaving a process that runs Python.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use nix::unistd::Pid;
use pyo3::prelude::*;

use super::startup::{Startup, Threads, traceback};
use crate::log;
use crate::sys::process::exit_now;

pub enum Fork {
    Parent(Pid),
    Child,
}

/// `os.fork()`: by way of Python, so that `os.register_at_fork` hooks run and the interpreter
/// repairs its own state in the child.
pub fn fork(py: Python<'_>, startup: &Startup) -> PyResult<Fork> {
    // What is buffered now would be written once by each process.
    startup.flush(py);
    match py.import("os")?.call_method0("fork")?.extract::<i32>()? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(pid))),
    }
}

/// Has the main thread call a function when it comes to run Python code the next time, after what it is
/// doing. For one function per process.
pub fn soon(function: fn()) {
    SOON.get_or_init(|| function);
    // SAFETY: `call` has the form that is asked for and needs no argument; the interpreter exists as long
    // as the process.
    unsafe { pyo3::ffi::Py_AddPendingCall(Some(call), std::ptr::null_mut()) };
}

static SOON: OnceLock<fn()> = OnceLock::new();

extern "C" fn call(_: *mut c_void) -> c_int {
    if let Some(function) = SOON.get() {
        function();
    }
    0
}

/// Leaves as Python would at the end of a script, but without tearing the interpreter down: waits
/// for non-daemon threads where asked to, runs `atexit` functions, flushes the standard streams.
pub fn leave(py: Python<'_>, startup: &Startup, threads: Threads, status: i32) -> ! {
    startup.finish(py, threads);
    exit_now(status)
}

/// Handlers that the application has set with `signal.signal` run now; what they raise is logged.
pub fn run_signal_handlers(py: Python<'_>) {
    if let Err(error) = py.check_signals() {
        let text = traceback(py, &error);
        log::error!("a signal handler of the application raised\n{text}");
    }
}
