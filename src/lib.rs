//! rswsgi: a prefork WSGI application server.
//!
//! The map, in the order of the layers: a module uses only what stands above it
//! (`tests/layering.rs` checks).
//!
//! ```text
//! sys         kernel: processes, descriptors, shared memory, epoll (unsafe island 1)
//! error       program errors and exit statuses
//! config      settings: one declaration each, command line to `Settings`
//! http        HTTP/1.1 without I/O: heads, chunked bodies, response encoding
//! net         listeners: bind, adopt
//! ```

pub mod config;
pub mod error;
pub mod http;
pub mod net;
pub mod sys;
