//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

use std::fs::File;
use std::io;
use std::os::fd::RawFd;

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;

use crate::sys;

/// Wraps a file-like object; an iterable of its blocks for whoever does not know better.
#[pyclass(module = "rswsgi", frozen)]
pub struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    blksize: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize = 8192))]
    fn new(filelike: Py<PyAny>, blksize: usize) -> Self {
        Self { filelike, blksize }
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let block = self
            .filelike
            .bind(py)
            .call_method1("read", (self.blksize,))?;
        if block.is_truthy()? {
            Ok(block)
        } else {
            Err(PyStopIteration::new_err(()))
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.filelike.bind(py).getattr_opt("close")? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }
}

impl FileWrapper {
    /// The rest of a regular file, from where the object stands, under a descriptor of our own:
    /// it may be closed before everything has been sent. `None` for everything that only looks like
    /// a file.
    pub fn regular_file(&self, py: Python<'_>) -> Option<(File, u64, u64)> {
        let filelike = self.filelike.bind(py);
        let fd: RawFd = filelike.call_method0("fileno").ok()?.extract().ok()?;
        // Not the position of the descriptor, which is ahead by what the object has buffered.
        let offset: u64 = filelike.call_method0("tell").ok()?.extract().ok()?;
        // A text stream has a descriptor too, but other bytes than the file.
        let mode: Option<String> = filelike.getattr("mode").and_then(|m| m.extract()).ok();
        if mode.is_some_and(|mode| !mode.contains('b')) {
            return None;
        }
        let file = duplicate(fd).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        Some((file, offset, metadata.len().saturating_sub(offset)))
    }
}

fn duplicate(fd: RawFd) -> io::Result<File> {
    sys::fd::duplicate(fd).map(File::from)
}
