//! The extension module `rswsgi`: what the interpreter of a master loads, and what applications may
//! import.

use pyo3::prelude::*;

#[pymodule]
mod rswsgi {
    use super::*;

    #[pymodule_export]
    use crate::wsgi::FileWrapper;
    #[pymodule_export]
    use crate::wsgi::deadline::_soft_deadline;
    #[pymodule_export]
    use crate::wsgi::deadline::RequestTimeout;
    #[pymodule_export]
    use crate::wsgi::deadline::extend_deadline;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", crate::link::VERSION)
    }

    /// Hooks of `os.register_at_fork`, for forks that the application makes in a worker.
    #[pyfunction]
    fn _before_fork() {
        crate::worker::before_fork();
        crate::sys::forks::before(&crate::worker::SIGNALS);
    }

    #[pyfunction]
    fn _forked_in_parent() {
        crate::sys::forks::in_parent();
        crate::worker::after_fork();
    }

    #[pyfunction]
    fn _forked_in_child() {
        crate::sys::forks::in_child();
    }

    /// The entry of a master process; of no use to applications.
    #[pyfunction]
    fn _master(py: Python<'_>, channel: i32, version: &str) {
        crate::master::live(py, channel, version)
    }
}
