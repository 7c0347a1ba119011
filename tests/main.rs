//! Tests against real processes; one module per subject.
//!
//! Each test starts its own server and ends with nothing left of it: see `support`.

mod elf;
mod frameworks;
mod http;
mod layering;
mod limits;
mod memory;
mod pools;
mod processes;
mod regressions;
mod reload;
mod share_again;
mod start;
mod support;
mod torture;
mod upgrade;
mod wsgi;
