//! What a WAS client has found out and an HTTP client does not say: it overrides what was read from the
//! request itself.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::http::target::split_host;
use crate::python::latin1;
use crate::was;

/// The header by which the client tells of TLS between another proxy and itself.
const HTTPS_HEADER: &[u8] = b"x-cm4all-https";

pub fn apply(py: Python<'_>, environ: &Bound<'_, PyDict>, request: &was::Request) -> PyResult<()> {
    let set = |key: &str, value: &[u8]| environ.set_item(key, latin1(py, value)?);
    for (key, value) in [
        ("SCRIPT_NAME", request.script_name()),
        // Decoded already: a `%` in it is one.
        ("PATH_INFO", request.path_info()),
        ("REMOTE_ADDR", request.remote_host()),
        ("DOCUMENT_ROOT", request.document_root()),
    ] {
        if let Some(value) = value {
            set(key, value)?;
        }
    }
    if is_https(request) {
        environ.set_item("HTTPS", "on")?;
        environ.set_item("wsgi.url_scheme", "https")?;
        let host = request
            .headers()
            .find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
        if host.is_none_or(|(_, host)| split_host(host).1.is_none()) {
            environ.set_item("SERVER_PORT", "443")?;
        }
    }
    let parameters = PyDict::new(py);
    for (name, value) in request.parameters() {
        parameters.set_item(latin1(py, name)?, latin1(py, value)?)?;
    }
    environ.set_item("was.parameters", parameters)?;
    Ok(())
}

fn is_https(request: &was::Request) -> bool {
    let says_on = |(name, value): (&[u8], &[u8])| {
        name.eq_ignore_ascii_case(HTTPS_HEADER) && value.eq_ignore_ascii_case(b"on")
    };
    request.is_tls() || request.headers().any(says_on)
}
