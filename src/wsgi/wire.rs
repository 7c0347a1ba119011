//! What the WSGI layer asks of a transport.

use std::any::Any;
use std::fs::File;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::response::Response;

/// With the first bytes: the head, and the length of the whole body where it is known.
pub struct Start<'a> {
    pub response: &'a Response,
    pub length: Option<u64>,
}

/// Bytes of the body that go out now.
pub enum Body<'a, 'py> {
    Blocks(&'a [Bound<'py, PyBytes>]),
    Plain(&'a [u8]),
    File {
        file: File,
        offset: u64,
        length: u64,
    },
}

/// What is known of the rest of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More may come.
    Open,
    /// These are the last bytes.
    Here,
    /// These are the last bytes, and the application does nothing more for this request.
    Final,
}

/// Why a response cannot be sent on.
#[derive(Debug)]
pub enum Unsent {
    /// The client left, or does not take bytes any more.
    Gone,
    /// A Python signal handler raised while a slow client was waited for.
    Interrupted(PyErr),
}

/// One connection, for the length of one response.
///
/// `send` hands bytes to the kernel before it returns, or keeps a reference to them and guarantees
/// that transmission continues (PEP 3333, "Buffering and Streaming"). It may wait for a slow client.
pub trait Wire: Send + Any {
    /// Whether this response can be carried at all; if not, why.
    fn check(&self, _response: &Response) -> Result<(), String> {
        Ok(())
    }

    /// `start` comes with the first call and only then; after the end nothing more is sent.
    fn send(
        &mut self,
        py: Python<'_>,
        start: Option<Start<'_>>,
        body: Body<'_, '_>,
        end: End,
    ) -> Result<(), Unsent>;

    /// The response cannot be completed: the client must see that it was cut.
    fn cut(&mut self);
}
