//! Tests against real processes; one module per subject.
//!
//! Each test starts its own server and ends with nothing left of it: see `support`.

// The rules of PEP 3333 are read twice: over HTTP, and behind a gateway over WAS.
#![allow(clippy::duplicate_mod)]

mod configuration;
mod control;
mod convert;
mod ctl;
mod daemon;
mod development;
mod documents;
mod elf;
mod frameworks;
mod hand_over;
mod hosting;
mod http;
mod layering;
mod limits;
mod logs;
mod manual;
mod memory;
mod mistakes;
mod packages;
mod pools;
mod privileges;
mod processes;
mod proxies;
mod regressions;
mod relay;
mod reload;
mod request;
mod service;
mod share_again;
mod start;
mod support;
mod systemd;
mod torture;
mod upgrade;
mod was;
mod wsgi;
