//! "Native strings" of PEP 3333: `str` objects that hold bytes as Latin-1 code points.

use std::borrow::Cow;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// A native string of these bytes.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = bytes.len() as ffi::Py_ssize_t;
    // SAFETY: attached (`py`); the pointer is valid for `length` bytes, null errors means strict.
    let object =
        unsafe { ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null()) };
    // SAFETY: a new reference, or null with an exception set.
    let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
    // SAFETY: the function above only ever returns `str`.
    Ok(unsafe { object.cast_into_unchecked() })
}

/// What a value that should be a native string turned out to be.
pub enum Native<'a> {
    Bytes(Cow<'a, [u8]>),
    /// A `str` with code points above U+00FF.
    NotLatin1,
    NotStr,
}

/// The bytes of a native string, without a copy when it is ASCII.
pub fn native<'a>(value: &'a Bound<'_, PyAny>) -> Native<'a> {
    let Ok(text) = value.cast::<PyString>() else {
        return Native::NotStr;
    };
    if let Ok(utf8) = text.to_str()
        && utf8.is_ascii()
    {
        return Native::Bytes(Cow::Borrowed(utf8.as_bytes()));
    }
    // SAFETY: attached (`value` is bound); `text` is a `str`.
    let bytes = unsafe { ffi::PyUnicode_AsLatin1String(text.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set, which is taken here.
    match unsafe { Bound::from_owned_ptr_or_err(value.py(), bytes) } {
        Ok(bytes) => match bytes.cast::<PyBytes>() {
            Ok(bytes) => Native::Bytes(Cow::Owned(bytes.as_bytes().to_vec())),
            Err(_) => Native::NotLatin1,
        },
        Err(_) => Native::NotLatin1,
    }
}
