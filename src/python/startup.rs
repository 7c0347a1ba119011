//! The part of a master's start that is better said in Python (`startup.py`): finding the target,
//! telling what went wrong, looking for threads, running exit functions.

use std::os::fd::RawFd;

use libc::SIGRTMIN;
use pyo3::prelude::*;
use pyo3::types::PyModule;

use crate::sys::signal::mark_end;

/// Real-time signals a master sends, as offsets from SIGRTMIN: print the stacks; time is up.
pub const PRINT_STACKS: i32 = 2;
pub const SOFT_DEADLINE: i32 = 3;

/// What becomes of non-daemon threads at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    Join,
    /// A master serves nobody, and what was started at import belongs to no worker.
    Abandon,
}

pub struct Startup {
    module: Py<PyModule>,
}

/// Why a target could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    /// As Python prints it, without our own frames; empty where it would say nothing more.
    pub traceback: String,
}

/// What is called around forks of the application in a worker (`os.register_at_fork`).
pub struct ForkHooks<'py> {
    pub before: Bound<'py, PyAny>,
    pub in_parent: Bound<'py, PyAny>,
    pub in_child: Bound<'py, PyAny>,
}

impl Startup {
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let code = concat!(include_str!("startup.py"), "\0");
        let code = std::ffi::CStr::from_bytes_with_nul(code.as_bytes())
            .expect("the source ends with the only NUL in it");
        let module = PyModule::from_code(py, code, c"<rswsgi>", c"_rswsgi_startup")?;
        // `from_code` leaves it in sys.modules, where the application has no business with it.
        py.import("sys")?
            .getattr("modules")?
            .del_item("_rswsgi_startup")?;
        Ok(Self {
            module: module.unbind(),
        })
    }

    /// Sets `sys.path` and `sys.argv` and makes `print()` appear line by line.
    pub fn prepare(&self, py: Python<'_>, directory: &str, paths: &[String]) -> PyResult<()> {
        self.module
            .bind(py)
            .call_method1("prepare", (directory, paths))?;
        Ok(())
    }

    /// Imports `module` and evaluates `expression` in it.
    pub fn load(
        &self,
        py: Python<'_>,
        module: &str,
        expression: Option<&str>,
        names: [&str; 2],
    ) -> PyResult<Result<Py<PyAny>, Failure>> {
        let result = self
            .module
            .bind(py)
            .call_method1("load", (module, expression, names))?;
        let (application, failure): (Py<PyAny>, Option<(String, String)>) = result.extract()?;
        Ok(match failure {
            None => Ok(application),
            Some((reason, traceback)) => Err(Failure { reason, traceback }),
        })
    }

    /// What tells the directories of modules on this pipe, those since its last call; of the first call also
    /// these and the working directory.
    pub fn teller(&self, py: Python<'_>, pipe: RawFd, paths: &[String]) -> PyResult<Py<PyAny>> {
        let teller = self.module.bind(py).call_method1("teller", (pipe, paths))?;
        Ok(teller.unbind())
    }

    /// An application for when there is none.
    pub fn placeholder(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.module.bind(py).getattr("placeholder")?.unbind())
    }

    /// Prepares, in the master, what [`Startup::obey`] does in its workers. `soft_deadline` is the handler
    /// of [`SOFT_DEADLINE`].
    pub fn arm(
        &self,
        py: Python<'_>,
        soft_deadline: &Bound<'_, PyAny>,
        forks: &ForkHooks<'_>,
    ) -> PyResult<()> {
        let (before, in_parent, in_child) = (&forks.before, &forks.in_parent, &forks.in_child);
        let functions = (soft_deadline, before, in_parent, in_child);
        self.module.bind(py).call_method1("arm", functions)?;
        Ok(())
    }

    /// Takes the signals that a worker gets from its master. `wakeup` is written to when a signal has
    /// arrived for a Python handler; `stacks` is what [`PRINT_STACKS`] prints to, followed by a NUL
    /// byte, open for the life of the process.
    pub fn obey(&self, py: Python<'_>, wakeup: RawFd, stacks: RawFd) -> PyResult<()> {
        self.module
            .bind(py)
            .call_method1("obey", (wakeup, stacks))?;
        mark_end(SIGRTMIN() + PRINT_STACKS, stacks)?;
        Ok(())
    }

    /// Names of the threads that a fork would leave behind.
    pub fn threads(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.module.bind(py).call_method0("threads")?.extract()
    }

    pub fn collect(&self, py: Python<'_>) -> PyResult<()> {
        py.import("gc")?.call_method0("collect")?;
        Ok(())
    }

    /// Moves all objects out of the collector's sight, so that no later collection writes to pages
    /// that workers share.
    pub fn freeze(&self, py: Python<'_>) -> PyResult<()> {
        py.import("gc")?.call_method0("freeze")?;
        Ok(())
    }

    pub fn flush(&self, py: Python<'_>) {
        let _ = self.module.bind(py).call_method0("flush");
    }

    pub fn finish(&self, py: Python<'_>, threads: Threads) {
        let join = threads == Threads::Join;
        let _ = self.module.bind(py).call_method1("finish", (join,));
    }
}

/// The traceback of an exception as Python prints it.
pub fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let format = || -> PyResult<String> {
        let lines = py.import("traceback")?.call_method1(
            "format_exception",
            (error.get_type(py), error.value(py), error.traceback(py)),
        )?;
        let text = pyo3::types::PyString::new(py, "").call_method1("join", (lines,))?;
        // Source lines may hold lone surrogates, which no UTF-8 log can take.
        let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
        let bytes: Vec<u8> = bytes.extract()?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    format().unwrap_or_else(|_| format!("{error}\n"))
}
