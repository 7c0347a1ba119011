//! From field names to environ keys, and from values that repeat to Python strings that exist already.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::python::latin1;

/// Places in the cache; a power of two. A request has at most 100 fields, most of them common.
const PLACES: usize = 256;
/// Longer values are not kept.
const VALUE_BYTES: usize = 160;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// Joined by `, ` when repeated (RFC 9110 §5.3).
    List,
    /// Joined by `; ` when repeated (RFC 9113 §8.2.3); never kept.
    Cookie,
    /// Not kept, because it is a secret.
    Secret,
    /// Only the first counts.
    Single,
    /// Not shown to the application.
    Hidden,
}

struct Name {
    /// As received, in any case.
    name: Box<[u8]>,
    key: Py<PyString>,
    treatment: Treatment,
    /// The request that set it last.
    request: u64,
    value: Option<Py<PyString>>,
    value_bytes: [u8; VALUE_BYTES],
    value_length: usize,
}

/// From field names to environ keys: directly mapped, so it is bounded whatever clients send, and a
/// collision costs time only.
pub struct NameCache {
    /// Boxed: what no request names costs a worker no page of its own.
    places: Box<[Option<Box<Name>>]>,
    request: u64,
}

impl NameCache {
    pub fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| None).collect(),
            request: 0,
        }
    }

    pub fn new_request(&mut self) {
        self.request += 1;
    }

    pub fn set(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        name: &[u8],
        value: &[u8],
        careful: bool,
    ) -> PyResult<()> {
        let place = &mut self.places[place(name)];
        let known = place
            .as_ref()
            .is_some_and(|known| known.name.eq_ignore_ascii_case(name));
        if !known {
            *place = Some(Box::new(Name::new(py, name)));
        }
        let entry = place.as_mut().expect("it has just been put there");
        // The record of what this request has set is lost with a replaced entry.
        let maybe_repeated = careful || !known || entry.request == self.request;
        entry.request = self.request;
        let key = entry.key.bind(py);
        if maybe_repeated && let Some(before) = environ.get_item(key)? {
            let joint = match entry.treatment {
                Treatment::Single | Treatment::Hidden => return Ok(()),
                Treatment::Cookie => "; ",
                Treatment::List | Treatment::Secret => ", ",
            };
            let value = latin1(py, value)?;
            return environ.set_item(key, before.add(joint)?.add(value)?);
        }
        match entry.treatment {
            Treatment::Hidden => Ok(()),
            Treatment::List | Treatment::Single if value.len() <= VALUE_BYTES => {
                let value = entry.keep(py, value)?;
                environ.set_item(entry.key.bind(py), value)
            }
            _ => environ.set_item(key, latin1(py, value)?),
        }
    }
}

/// Equal for names that are equal without regard to case.
fn place(name: &[u8]) -> usize {
    let at = |index: usize| usize::from(name[index] | 0x20);
    match name.len() {
        0 => 0,
        length => {
            let (first, middle, last) = (at(0), at(length / 2), at(length - 1));
            (length * 37 + first * 7 + middle * 3 + last * 11) % PLACES
        }
    }
}

impl Name {
    fn new(py: Python<'_>, name: &[u8]) -> Self {
        let mut key = String::with_capacity(name.len() + 5);
        let treatment = match name.to_ascii_lowercase().as_slice() {
            b"content-type" | b"content-length" => Treatment::Single,
            b"cookie" => Treatment::Cookie,
            b"authorization" | b"proxy-authorization" => Treatment::Secret,
            // HTTP_PROXY would be taken for the variable of that name ("httpoxy", CVE-2016-5385).
            b"proxy" => Treatment::Hidden,
            // The application reads the decoded body, whose length it is told.
            b"transfer-encoding" => Treatment::Hidden,
            _ => Treatment::List,
        };
        if treatment != Treatment::Single {
            key.push_str("HTTP_");
        }
        key.extend(name.iter().map(|byte| match byte {
            b'-' => '_',
            other => char::from(other.to_ascii_uppercase()),
        }));
        Self {
            name: name.into(),
            key: PyString::intern(py, &key).unbind(),
            treatment,
            request: 0,
            value: None,
            value_bytes: [0; VALUE_BYTES],
            value_length: 0,
        }
    }

    /// The value as a Python string: the last one, when it is the same again.
    fn keep<'py>(&mut self, py: Python<'py>, value: &[u8]) -> PyResult<Bound<'py, PyString>> {
        if let Some(kept) = &self.value
            && self.value_bytes[..self.value_length] == *value
        {
            return Ok(kept.bind(py).clone());
        }
        let text = latin1(py, value)?;
        self.value_bytes[..value.len()].copy_from_slice(value);
        self.value_length = value.len();
        self.value = Some(text.clone().unbind());
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_share_a_place() {
        for (a, b) in [("Host", "hOST"), ("X-Forwarded-For", "x-forwarded-for")] {
            assert_eq!(place(a.as_bytes()), place(b.as_bytes()));
        }
        assert_eq!(place(b""), 0);
    }
}
