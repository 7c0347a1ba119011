//! rswsgi: a prefork WSGI application server.
//!
//! The map, in the order of the layers: a module uses only what stands above it
//! (`tests/layering.rs` checks).
//!
//! ```text
//! sys         kernel: processes, descriptors, shared memory, sockets, signals (unsafe island 1)
//! error       program errors and exit statuses
//! log         entries: levels, forms, sinks
//! access      the access log: from a request in a worker to a line
//! config      settings: one declaration each, from the command line to `Settings`
//! http        HTTP/1.1 without I/O: heads, chunked bodies, response encoding
//! was         WAS without I/O: packets, requests, responses, the state of a connection
//! schedule    decisions about processes, without processes
//! scoreboard  what each worker is doing: shared memory
//! control     the language of the control socket, without I/O
//! metrics     statistics as metrics, without I/O
//! relay       connections on their way from one worker to another
//! convert     configurations of other servers as ours, without I/O
//! net         listeners: bound, adopted
//! link        what supervisor and master say to each other
//! python      CPython: strings, calls, forks, tracebacks (unsafe island 2)
//! wsgi        PEP 3333: from a request to a response
//! worker      the process that serves: event loop, connections
//! master      the process that imports the application and forks workers
//! supervisor  the process that starts and replaces masters; never Python
//! ctl         the program that asks and steers a server on its control socket; never Python
//! ```
//!
//! Three processes, one library: `rswsgi` (the binary) is the supervisor; it starts an interpreter,
//! which loads this library as the extension module `rswsgi` and becomes a master; workers are its
//! forks.

mod access;
pub mod config;
pub mod control;
mod convert;
pub mod ctl;
pub mod error;
pub mod http;
mod link;
mod log;
mod master;
mod metrics;
pub mod net;
mod python;
mod relay;
mod schedule;
mod scoreboard;
pub mod supervisor;
pub mod sys;
pub mod was;
mod worker;
mod wsgi;
