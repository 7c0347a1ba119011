//! What `start_response` is given, checked and rendered.

use std::borrow::Cow;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::http::response::{self, BadResponse, FieldKind};
use crate::python::{self, Native};

/// Status and fields of a response as the application gave them, checked and rendered.
#[derive(Debug, Default)]
pub struct Response {
    pub status: u16,
    /// `200 OK`
    pub status_line: Vec<u8>,
    /// `Name: value\r\n`, without Content-Length.
    pub fields: Vec<u8>,
    pub declared_length: Option<u64>,
    pub has_date: bool,
    pub has_server: bool,
    /// The value for `Date` where the application gave none.
    pub date: [u8; 29],
}

impl Response {
    pub fn clear(&mut self) {
        self.status = 0;
        self.status_line.clear();
        self.fields.clear();
        self.declared_length = None;
        self.has_date = false;
        self.has_server = false;
    }

    /// Checks and renders what the application passed to `start_response`.
    pub fn take_over(
        &mut self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyList>,
    ) -> PyResult<()> {
        self.clear();
        let line = bytes_of(status, || "status".into())?;
        self.status = response::check_status(&line).map_err(bad)?;
        self.status_line.extend_from_slice(&line);
        for header in headers.iter() {
            let pair = header.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
            let Some(pair) = pair else {
                let text = "each response header is to be a tuple of name and value";
                return Err(PyTypeError::new_err(text));
            };
            let (name, value) = (pair.get_item(0)?, pair.get_item(1)?);
            let name = bytes_of(&name, || "the name of a header".into())?;
            let value = bytes_of(&value, || {
                format!("the value of header {}", String::from_utf8_lossy(&name))
            })?;
            match response::check_field(&name, &value).map_err(bad)? {
                FieldKind::ContentLength(length) => {
                    if self.declared_length.is_some_and(|other| other != length) {
                        return Err(bad(BadResponse::RepeatedLength));
                    }
                    self.declared_length = Some(length);
                    continue;
                }
                FieldKind::Date => self.has_date = true,
                FieldKind::Server => self.has_server = true,
                FieldKind::Plain => {}
            }
            response::write_field(&mut self.fields, &name, &value);
        }
        Ok(())
    }
}

fn bad(reason: BadResponse) -> PyErr {
    PyValueError::new_err(reason.to_string())
}

fn bytes_of<'a>(value: &'a Bound<'_, PyAny>, what: impl Fn() -> String) -> PyResult<Cow<'a, [u8]>> {
    match python::native(value) {
        Native::Bytes(bytes) => Ok(bytes),
        Native::NotLatin1 => Err(PyValueError::new_err(format!(
            "{} holds characters that are not Latin-1 (PEP 3333, \"Unicode Issues\")",
            what()
        ))),
        Native::NotStr => {
            let kind = value.get_type().name()?;
            let text = format!("{} is to be str, not {kind}", what());
            Err(PyTypeError::new_err(text))
        }
    }
}
