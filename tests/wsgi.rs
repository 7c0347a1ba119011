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

/// A server of its own, as a test describes it.
fn served(server: Server) -> Running {
    server.start()
}

/// Whether these tests run behind the gateway of the WAS tests: what they say of chunks, versions, dates,
/// reason phrases and addresses would be said of it.
fn over_was() -> bool {
    false
}
