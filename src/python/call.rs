//! Calls and iteration on the request path, with as little between as the stable ABI allows.

use pyo3::ffi;
use pyo3::prelude::*;

/// `callable(a, b)` without building a tuple.
pub fn call2<'py>(
    callable: &Bound<'py, PyAny>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let end: *mut ffi::PyObject = std::ptr::null_mut();
    // SAFETY: attached; the variadic arguments are live objects, ended by a null pointer.
    let result = unsafe {
        ffi::PyObject_CallFunctionObjArgs(callable.as_ptr(), a.as_ptr(), b.as_ptr(), end)
    };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}

/// `iter(value)`.
pub fn iterate<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; `value` is a live object.
    let iterator = unsafe { ffi::PyObject_GetIter(value.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(value.py(), iterator) }
}

/// The next item of an iterator that [`iterate`] returned; `None` at its end.
pub fn next<'py>(iterator: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: attached; `PyObject_GetIter` guarantees the iterator protocol.
    let item = unsafe { ffi::PyIter_Next(iterator.as_ptr()) };
    // SAFETY: a new reference, or null: with an exception set on failure, without at the end.
    match unsafe { Bound::from_owned_ptr_or_opt(iterator.py(), item) } {
        Some(item) => Ok(Some(item)),
        None => match PyErr::take(iterator.py()) {
            Some(error) => Err(error),
            None => Ok(None),
        },
    }
}

/// Whether `len(value)` is known without running it as an iterator, and 1.
pub fn has_length_one(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: attached; `value` is a live object.
    if unsafe { ffi::PyIter_Check(value.as_ptr()) } != 0 {
        return false;
    }
    value.len().is_ok_and(|length| length == 1)
}

/// Number of references to an object. To be compared with what the caller knows of, never more:
/// immortal objects have absurd ones (PEP 683).
pub fn references<T>(object: &Bound<'_, T>) -> isize {
    // SAFETY: attached; the object is alive, because it is borrowed.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}
