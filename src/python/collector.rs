//! Python's garbage collector between requests.

use pyo3::prelude::*;

/// The collector runs where objects are made, in the middle of a request, and takes what the request
/// still needs for long-lived; what of that is cyclic garbage later stays until a collection of everything,
/// after some hundred requests. Between requests all of it can be seen to be dead.
pub struct Collector {
    is_enabled: Py<PyAny>,
    get_count: Py<PyAny>,
    collect: Py<PyAny>,
}

/// Nothing older is looked at.
const YOUNG: u32 = 1;

impl Collector {
    /// To be made in the master: what it refers to is shared then.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let gc = py.import("gc")?;
        let function = |name| Ok::<_, PyErr>(gc.getattr(name)?.unbind());
        Ok(Self {
            is_enabled: function("isenabled")?,
            get_count: function("get_count")?,
            collect: function("collect")?,
        })
    }

    /// Collects young garbage if the collector has taken something for older since it last did so,
    /// unless the application has turned it off.
    pub fn tidy(&self, py: Python<'_>) -> PyResult<()> {
        let (_, middle, _) = self.get_count.call0(py)?.extract::<(u32, u32, u32)>(py)?;
        if middle > 0 && self.is_enabled.call0(py)?.is_truthy(py)? {
            self.collect.call1(py, (YOUNG,))?;
        }
        Ok(())
    }
}
