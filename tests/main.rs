//! Tests against real processes; one module per subject.
//!
//! Each test starts its own server and ends with nothing left of it: see `support`.

mod elf;
mod http;
mod layering;
mod processes;
mod reload;
mod start;
mod support;
mod upgrade;
mod wsgi;
