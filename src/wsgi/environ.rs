//! The environ dictionary of PEP 3333 (and of RFC 3875, from which its CGI variables come).
//!
//! Made for speed: what is constant per listener is copied as one dictionary, which also holds the
//! keys that every request overwrites, so that the copy has its final size; keys, and short values
//! that repeat from request to request, are kept as Python strings ([`NameCache`]).

use std::borrow::Cow;
use std::fs::File;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString};

use super::deadline::seconds;
use super::file::FileWrapper;
use super::gateway;
use super::names::NameCache;
use crate::http::forwarded::{Believed, Forwarded, Sender, is_shown};
use crate::http::head::environ_worthy;
use crate::http::target::{percent_decode, split_host};
use crate::http::{Head, Version};
use crate::python::latin1;
use crate::sys::clock::Nanos;
use crate::was;

use crate::http::Underscores as UnderscoreFields;

/// What is the same for all requests of one listener.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Address and port of a TCP listener; over a Unix socket the Host field decides.
    pub server: Option<(String, u16)>,
    /// The mount prefix, for SCRIPT_NAME.
    pub script_name: String,
}

/// Where a client is, as far as the connection tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    UnixSocket,
    Loopback,
    Elsewhere,
}

/// Who sent the request: strings made once per connection.
pub struct Peer {
    address: Py<PyString>,
    port: Py<PyString>,
    place: Place,
}

impl Peer {
    /// A client on a Unix socket has no address: the empty string says so. (`127.0.0.1` would make
    /// everybody behind a proxy look like a trusted local user.) Nor has a port that is 0, which is one
    /// that a proxy has not told.
    pub fn new(py: Python<'_>, address: Option<std::net::SocketAddr>) -> Self {
        let place = match address {
            None => Place::UnixSocket,
            Some(address) if address.ip().to_canonical().is_loopback() => Place::Loopback,
            Some(_) => Place::Elsewhere,
        };
        let (ip, port) = match address {
            Some(address) if address.port() == 0 => (address.ip().to_string(), String::new()),
            Some(address) => (address.ip().to_string(), address.port().to_string()),
            None => Default::default(),
        };
        Self {
            address: PyString::new(py, &ip).unbind(),
            port: PyString::new(py, &port).unbind(),
            place,
        }
    }

    /// The address is that of somebody else than the client.
    pub fn placed_elsewhere(self) -> Self {
        let place = Place::Elsewhere;
        Self { place, ..self }
    }

    pub fn place(&self) -> Place {
        self.place
    }
}

pub enum RequestBody<'a> {
    None,
    Memory(&'a [u8]),
    /// An unlinked file, read from its start.
    File(File, u64),
}

pub struct Request<'a> {
    pub head: &'a Head<'a, 'a>,
    pub body: RequestBody<'a>,
    /// Index of the listener.
    pub origin: usize,
    pub sender: &'a Sender<'a>,
    pub peer: &'a Peer,
    /// When the response has to be complete, of the monotonic clock.
    pub deadline: Nanos,
    /// Its name in the access log, where there is one.
    pub id: Option<&'a [u8]>,
    /// What a WAS client has said beside it.
    pub was: Option<&'a was::Request>,
}

/// Keys that every request sets; those it shares with the template stand there too.
struct Keys {
    request_method: Py<PyString>,
    path_info: Py<PyString>,
    query_string: Py<PyString>,
    raw_uri: Py<PyString>,
    request_uri: Py<PyString>,
    script_name: Py<PyString>,
    server_protocol: Py<PyString>,
    server_name: Py<PyString>,
    server_port: Py<PyString>,
    remote_addr: Py<PyString>,
    remote_port: Py<PyString>,
    content_length: Py<PyString>,
    wsgi_input: Py<PyString>,
    deadline: Py<PyString>,
    request_id: Py<PyString>,
    http_host: Py<PyString>,
    url_scheme: Py<PyString>,
    https: Py<PyString>,
}

/// Values that repeat.
struct Values {
    empty: Py<PyString>,
    slash: Py<PyString>,
    get: Py<PyString>,
    post: Py<PyString>,
    head: Py<PyString>,
    http_10: Py<PyString>,
    http_11: Py<PyString>,
    https: Py<PyString>,
    on: Py<PyString>,
}

pub struct Builder {
    templates: Vec<(Origin, Py<PyDict>)>,
    keys: Keys,
    values: Values,
    bytes_io: Py<PyAny>,
    open: Py<PyAny>,
    names: NameCache,
    fields: FieldPolicy,
    path: Vec<u8>,
}

/// Which fields an application sees.
#[derive(Debug, Clone, Copy)]
pub struct FieldPolicy {
    pub underscores: UnderscoreFields,
    /// What trusted proxies are known to set.
    pub believed: Believed,
}

fn interned(py: Python<'_>, text: &str) -> Py<PyString> {
    PyString::intern(py, text).unbind()
}

impl Builder {
    pub fn new(py: Python<'_>, origins: &[Origin], fields: FieldPolicy) -> PyResult<Self> {
        let key = |name| interned(py, name);
        let keys = Keys {
            request_method: key("REQUEST_METHOD"),
            path_info: key("PATH_INFO"),
            query_string: key("QUERY_STRING"),
            raw_uri: key("RAW_URI"),
            request_uri: key("REQUEST_URI"),
            script_name: key("SCRIPT_NAME"),
            server_protocol: key("SERVER_PROTOCOL"),
            server_name: key("SERVER_NAME"),
            server_port: key("SERVER_PORT"),
            remote_addr: key("REMOTE_ADDR"),
            remote_port: key("REMOTE_PORT"),
            content_length: key("CONTENT_LENGTH"),
            wsgi_input: key("wsgi.input"),
            deadline: key("rswsgi.deadline"),
            request_id: key("rswsgi.request_id"),
            http_host: key("HTTP_HOST"),
            url_scheme: key("wsgi.url_scheme"),
            https: key("HTTPS"),
        };
        let values = Values {
            empty: key(""),
            slash: key("/"),
            get: key("GET"),
            post: key("POST"),
            head: key("HEAD"),
            http_10: key("HTTP/1.0"),
            http_11: key("HTTP/1.1"),
            https: key("https"),
            on: key("on"),
        };
        let io = py.import("io")?;
        let templates = origins
            .iter()
            .map(|origin| Ok((origin.clone(), template(py, origin, &keys)?)))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            templates,
            keys,
            values,
            bytes_io: io.getattr("BytesIO")?.unbind(),
            open: io.getattr("open")?.unbind(),
            names: NameCache::new(),
            fields,
            path: Vec::new(),
        })
    }

    pub fn build<'py>(
        &mut self,
        py: Python<'py>,
        request: Request<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let Request {
            head,
            body,
            origin,
            sender,
            peer,
            deadline,
            id,
            was,
        } = request;
        let (origin, template) = &self.templates[origin];
        let environ = template.bind(py).copy()?;
        let (keys, values) = (&self.keys, &self.values);
        let set = |key: &Py<PyString>, value: &Bound<'py, PyString>| {
            environ.set_item(key.bind(py), value)
        };

        let method = match head.method {
            b"GET" => values.get.bind(py).clone(),
            b"POST" => values.post.bind(py).clone(),
            b"HEAD" => values.head.bind(py).clone(),
            other => latin1(py, other)?,
        };
        set(&keys.request_method, &method)?;
        set(
            &keys.server_protocol,
            match head.version {
                Version::Http10 => values.http_10.bind(py),
                Version::Http11 => values.http_11.bind(py),
            },
        )?;

        let target = &head.target;
        let uri = match target.raw {
            b"/" => values.slash.bind(py).clone(),
            raw => latin1(py, raw)?,
        };
        set(&keys.raw_uri, &uri)?;
        set(&keys.request_uri, &uri)?;
        let query = match target.query {
            b"" => values.empty.bind(py).clone(),
            query => latin1(py, query)?,
        };
        set(&keys.query_string, &query)?;
        let path = percent_decode(target.path, &mut self.path);
        let (script_name, path) = split_mount(path, origin.script_name.as_bytes());
        if script_name.is_empty() && !origin.script_name.is_empty() {
            set(&keys.script_name, values.empty.bind(py))?;
        }
        if path == target.raw {
            set(&keys.path_info, &uri)?;
        } else {
            set(&keys.path_info, &latin1(py, path)?)?;
        }

        set(&keys.remote_addr, peer.address.bind(py))?;
        set(&keys.remote_port, peer.port.bind(py))?;
        let forwarded = match sender {
            Sender::Proxy(forwarded) => Some(forwarded),
            Sender::Unjudged | Sender::Stranger => None,
        };
        let is_https = forwarded.is_some_and(Forwarded::is_https);
        if is_https {
            set(&keys.url_scheme, values.https.bind(py))?;
            set(&keys.https, values.on.bind(py))?;
        }
        let host = match forwarded {
            Some(forwarded) => forwarded.host(head.host),
            None => head.host.map(Cow::Borrowed),
        };
        let host = host.as_deref();
        // The client has named the proxy, not the address to which the proxy connects.
        if (origin.server.is_none() || forwarded.is_some())
            && let Some(host) = host
        {
            let (name, port) = split_host(host);
            // PEP 3333: SERVER_NAME is never empty.
            if !name.is_empty() {
                set(&keys.server_name, &latin1(py, name)?)?;
            }
            let port = match port {
                Some(port) => latin1(py, port)?,
                None if is_https => PyString::new(py, "443"),
                None => PyString::new(py, "80"),
            };
            set(&keys.server_port, &port)?;
        }

        let deadline = PyFloat::new(py, seconds(deadline));
        environ.set_item(keys.deadline.bind(py), deadline)?;
        if let Some(id) = id {
            set(&keys.request_id, &latin1(py, id)?)?;
        }

        self.names.new_request();
        let FieldPolicy {
            underscores,
            believed,
        } = self.fields;
        let careful = head.has_underscores && underscores == UnderscoreFields::Keep;
        let is_judged = *sender != Sender::Unjudged;
        for field in head.fields {
            let name = field.name.as_bytes();
            if head.has_underscores && !environ_worthy(name, underscores) {
                continue;
            }
            if is_judged && !is_shown(name, sender, believed) {
                continue;
            }
            self.names.set(py, &environ, name, field.value, careful)?;
        }
        if (target.authority.is_some() || host != head.host)
            && let Some(host) = host
        {
            // RFC 9112 §3.2.2: the authority of an absolute-form target replaces the Host field; so does
            // what a trusted proxy says that the client has asked for.
            environ.set_item(keys.http_host.bind(py), latin1(py, host)?)?;
        }

        if let Some(was) = was {
            gateway::apply(py, &environ, was)?;
        }

        let input = match body {
            RequestBody::None => self.bytes_io.bind(py).call0()?,
            RequestBody::Memory(bytes) => {
                set_length(py, &environ, keys, bytes.len() as u64)?;
                let bytes = pyo3::types::PyBytes::new(py, bytes);
                self.bytes_io.bind(py).call1((bytes,))?
            }
            RequestBody::File(file, length) => {
                set_length(py, &environ, keys, length)?;
                let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
                // The file object owns the descriptor from here on.
                self.open.bind(py).call1((fd, "rb"))?
            }
        };
        environ.set_item(keys.wsgi_input.bind(py), input)?;
        Ok(environ)
    }
}

fn set_length(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    keys: &Keys,
    length: u64,
) -> PyResult<()> {
    let text = PyString::new(py, &length.to_string());
    environ.set_item(keys.content_length.bind(py), text)
}

/// SCRIPT_NAME and PATH_INFO: the mount prefix applies only at a segment boundary.
fn split_mount<'a>(path: &'a [u8], prefix: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest[0] == b'/' => (prefix, rest),
        _ => (b"", path),
    }
}

fn template(py: Python<'_>, origin: &Origin, keys: &Keys) -> PyResult<Py<PyDict>> {
    let environ = PyDict::new(py);
    let text = |text: &str| PyString::new(py, text);
    environ.set_item("wsgi.version", (1, 0))?;
    environ.set_item("wsgi.url_scheme", "http")?;
    environ.set_item("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
    environ.set_item("wsgi.multithread", false)?;
    environ.set_item("wsgi.multiprocess", true)?;
    environ.set_item("wsgi.run_once", false)?;
    environ.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
    environ.set_item("wsgi.input_terminated", true)?;
    environ.set_item("GATEWAY_INTERFACE", "CGI/1.1")?;
    let software = concat!("rswsgi/", env!("CARGO_PKG_VERSION"));
    environ.set_item("SERVER_SOFTWARE", software)?;
    environ.set_item(keys.script_name.bind(py), text(&origin.script_name))?;
    let (name, port) = match &origin.server {
        Some((name, port)) => (name.as_str(), port.to_string()),
        None => ("localhost", "80".into()),
    };
    environ.set_item(keys.server_name.bind(py), text(name))?;
    environ.set_item(keys.server_port.bind(py), text(&port))?;
    // Placeholders: the copy is to have its final size (over 21 keys make a table for 42).
    for key in [
        &keys.request_method,
        &keys.path_info,
        &keys.query_string,
        &keys.raw_uri,
        &keys.request_uri,
        &keys.server_protocol,
        &keys.remote_addr,
        &keys.remote_port,
        &keys.wsgi_input,
        &keys.deadline,
    ] {
        environ.set_item(key.bind(py), text(""))?;
    }
    Ok(environ.unbind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_prefix_applies_at_segments_only() {
        assert_eq!(split_mount(b"/app/x", b"/app"), (&b"/app"[..], &b"/x"[..]));
        assert_eq!(split_mount(b"/app", b"/app"), (&b"/app"[..], &b""[..]));
        assert_eq!(split_mount(b"/apple", b"/app"), (&b""[..], &b"/apple"[..]));
        assert_eq!(split_mount(b"/x", b""), (&b""[..], &b"/x"[..]));
    }
}
