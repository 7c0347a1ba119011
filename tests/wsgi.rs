//! PEP 3333 rule by rule: what an application is told, what it may answer, what happens when it fails.

use crate::support::{Running, Server};

mod environ;
mod failures;
mod input;
mod response;

/// One worker with `tests/apps/rules.py`.
fn rules() -> Running {
    Server::new().app("rules").start()
}
