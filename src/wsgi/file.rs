//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;

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
    /// a file: `gzip.open()` has a descriptor too, but gives other bytes.
    pub fn regular_file(&self, py: Python<'_>) -> Option<(File, u64, u64)> {
        let mut filelike = self.filelike.bind(py).clone();
        if type_name(&filelike)? == ("tempfile".into(), "_TemporaryFileWrapper".into()) {
            filelike = filelike.getattr("file").ok()?;
        }
        let raw = match type_name(&filelike)? {
            (module, name) if module == "_io" => match name.as_str() {
                "FileIO" => filelike.clone(),
                "BufferedReader" | "BufferedRandom" => filelike.getattr("raw").ok()?,
                _ => return None,
            },
            _ => return None,
        };
        if type_name(&raw)? != ("_io".into(), "FileIO".into()) {
            return None;
        }
        let fd: RawFd = raw.call_method0("fileno").ok()?.extract().ok()?;
        // Not the position of the descriptor, which is ahead by what the object has buffered.
        let offset: u64 = filelike.call_method0("tell").ok()?.extract().ok()?;
        let file = duplicate(fd).ok()?;
        let metadata = file.metadata().ok()?;
        // Files of procfs and sysfs are made when they are read: their size means nothing. They
        // occupy no blocks.
        if !metadata.is_file() || metadata.blocks() == 0 {
            return None;
        }
        Some((file, offset, metadata.len().saturating_sub(offset)))
    }
}

fn type_name(object: &Bound<'_, PyAny>) -> Option<(String, String)> {
    let kind = object.get_type();
    let module = kind.module().ok()?.to_string();
    Some((module, kind.name().ok()?.to_string()))
}

fn duplicate(fd: RawFd) -> io::Result<File> {
    sys::fd::duplicate(fd).map(File::from)
}
