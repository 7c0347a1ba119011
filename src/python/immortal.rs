//! Immortal objects (PEP 683): their reference counts are never written, so that the pages they lie
//! in stay shared between workers.
//!
//! CPython 3.12 and 3.13 take an object for immortal when the lower half of its reference count is
//! all ones: both `Py_INCREF` and `Py_DECREF` then leave it alone, and the collector moves it out of
//! its sight. We give that count to what is alive after the import. It is far above any number of
//! references, so even code that was compiled for older versions, and counts regardless, can never
//! bring it down to zero.
//!
//! Left out is what somebody waits for to die: objects with a finalizer (`__del__`, files, sockets,
//! generators) and objects, other than classes, functions and modules, with weak references. Frames
//! are left out because they are taken apart while they run.

use std::collections::{HashMap, HashSet};
use std::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyType};

/// The reference count of an immortal object, as far as CPython looks at it (`Include/object.h`).
const IMMORTAL: u32 = u32::MAX;

/// Makes what is alive immortal, and returns how many objects that were.
///
/// # Errors
/// A `RuntimeError` that says why this interpreter is not one whose objects are known; nothing has
/// been changed then. Or what Python raises.
pub fn make_immortal(py: Python<'_>) -> PyResult<usize> {
    check_interpreter(py)?;
    let mut walk = Walk::new(py)?;
    // The application may have frozen what it imported; the collector names no frozen objects.
    walk.gc.call_method0("unfreeze")?;
    let roots = walk.gc.call_method0("get_objects")?.cast_into::<PyList>()?;
    let mut next: Vec<Bound<'_, PyAny>> = roots.iter().collect();
    drop(roots);
    while !next.is_empty() {
        next = walk.step(next)?;
    }
    let Walk { found, .. } = walk;
    let count = found.len();
    for object in &found {
        let word = object.as_ptr().cast::<u32>();
        // SAFETY: the object is alive (a reference is held). `check_interpreter` has seen that its
        // first four bytes are the lower half of the reference count; the interpreter lock keeps
        // everybody else from it. The new count is above the number of references, so it is valid.
        unsafe { word.write(IMMORTAL) };
    }
    Ok(count)
}

/// Proves the layout this module relies on rather than trusting a version number alone.
fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    let refuse = |text: &str| Err(PyRuntimeError::new_err(text.to_owned()));
    let version = py.version_info();
    if !matches!((version.major, version.minor), (3, 12 | 13)) {
        return refuse("it is known for CPython 3.12 and 3.13 only");
    }
    let sys = py.import("sys")?;
    let name: String = sys.getattr("implementation")?.getattr("name")?.extract()?;
    let object = py.get_type::<PyAny>();
    let size: usize = object.getattr("__basicsize__")?.extract()?;
    // Free-threaded and tracing builds have larger headers, debug builds count all references.
    let is_debug = sys.hasattr("gettotalrefcount")?;
    if name != "cpython" || size != 16 || is_debug || cfg!(target_endian = "big") {
        return refuse("it is known for release builds with a global interpreter lock only");
    }
    let mortal = object.call0()?;
    match (first_word(py.None().bind(py)), first_word(&mortal)) {
        (IMMORTAL, 1) => Ok(()),
        _ => refuse("its objects do not look like those of CPython 3.12 and 3.13"),
    }
}

fn first_word(object: &Bound<'_, PyAny>) -> u32 {
    // SAFETY: every object is at least 16 bytes long and aligned to as many; it is alive.
    unsafe { object.as_ptr().cast::<u32>().read() }
}

/// A search through everything that can be reached from what the collector knows. Strings, numbers,
/// code objects and the like are not known to it, but referred to.
struct Walk<'py> {
    gc: Bound<'py, PyModule>,
    get_referents: Bound<'py, PyAny>,
    count_weak_references: Bound<'py, PyAny>,
    code_type: Bound<'py, PyAny>,
    frame_type: Bound<'py, PyAny>,
    /// Types whose instances are hot and outlive what refers to them weakly.
    durable: [Bound<'py, PyAny>; 4],
    has_finalizer: HashMap<*mut ffi::PyTypeObject, bool>,
    /// By address; each is in `found`, `left_out` or immortal anyway, so no address is used again.
    seen: HashSet<usize>,
    found: Vec<Bound<'py, PyAny>>,
    left_out: Vec<Bound<'py, PyAny>>,
}

/// Objects asked for their referents at once.
const BATCH: usize = 4096;

impl<'py> Walk<'py> {
    fn new(py: Python<'py>) -> PyResult<Self> {
        let gc = py.import("gc")?;
        let types = py.import("types")?;
        Ok(Self {
            get_referents: gc.getattr("get_referents")?,
            count_weak_references: py.import("weakref")?.getattr("getweakrefcount")?,
            code_type: types.getattr("CodeType")?,
            frame_type: types.getattr("FrameType")?,
            durable: [
                py.get_type::<PyType>().into_any(),
                types.getattr("FunctionType")?,
                types.getattr("BuiltinFunctionType")?,
                types.getattr("ModuleType")?,
            ],
            has_finalizer: HashMap::new(),
            seen: HashSet::new(),
            found: Vec::new(),
            left_out: Vec::new(),
            gc,
        })
    }

    /// Judges `objects` and returns what they refer to, as far as that is new.
    fn step(&mut self, objects: Vec<Bound<'py, PyAny>>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut new = Vec::new();
        for object in objects {
            if self.seen.insert(object.as_ptr().addr()) {
                new.push(object);
            }
        }
        let mut referents = Vec::new();
        for object in &new {
            if object.get_type().is(&self.code_type) {
                // The collector does not look into them.
                for name in CODE_PARTS {
                    referents.push(object.getattr(name)?);
                }
            }
        }
        for batch in new.chunks(BATCH) {
            let batch = PyTuple::new(self.gc.py(), batch)?;
            let listed = self.get_referents.call1(batch)?.cast_into::<PyList>()?;
            referents.extend(listed.iter());
        }
        for object in new {
            match first_word(&object) != IMMORTAL && self.may_live_forever(&object)? {
                true => self.found.push(object),
                false => self.left_out.push(object),
            }
        }
        Ok(referents)
    }

    fn may_live_forever(&mut self, object: &Bound<'py, PyAny>) -> PyResult<bool> {
        let kind = object.get_type();
        if kind.is(&self.frame_type) || self.has_finalizer(&kind) {
            return Ok(false);
        }
        if self.durable.iter().any(|durable| kind.is(durable)) || object.is_instance_of::<PyType>()
        {
            return Ok(true);
        }
        let references = self.count_weak_references.call1((object,))?;
        Ok(references.extract::<usize>()? == 0)
    }

    fn has_finalizer(&mut self, kind: &Bound<'py, PyType>) -> bool {
        let kind = kind.as_type_ptr();
        *self.has_finalizer.entry(kind).or_insert_with(|| {
            // SAFETY: attached; `kind` is the type of a live object; from 3.10 on the slots of static
            // types may be asked for too.
            let finalize = unsafe { ffi::PyType_GetSlot(kind, ffi::Py_tp_finalize) };
            // SAFETY: as above.
            let delete = unsafe { ffi::PyType_GetSlot(kind, ffi::Py_tp_del) };
            !ptr::eq(finalize, ptr::null()) || !ptr::eq(delete, ptr::null())
        })
    }
}

const CODE_PARTS: [&str; 7] = [
    "co_consts",
    "co_names",
    "co_name",
    "co_qualname",
    "co_filename",
    "co_linetable",
    "co_exceptiontable",
];
