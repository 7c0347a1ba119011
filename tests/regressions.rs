//! What hostile applications, clients and surroundings once broke. One test per bug, named by the right
//! behaviour, so that it stays broken only once.

use crate::support::{Pid, Running, Server, only_rswsgi};

mod bodies;
mod endings;
mod fairness;
mod forks;
mod process;
mod surroundings;

fn ours() -> bool {
    only_rswsgi("it withstands applications and clients that broke it before")
}

/// One worker with `tests/apps/hostile.py`.
fn hostile() -> Server {
    Server::new().app("hostile")
}

/// The only worker.
#[track_caller]
fn worker(server: &Running) -> Pid {
    server.workers()[0]
}

/// The worker that served before still does, from whoever asks.
#[track_caller]
fn assert_serves_on(server: &Running, worker: Pid) {
    for _ in 0..3 {
        server.get("/pid").assert_text(&worker.number.to_string());
    }
    assert_eq!(server.workers(), [worker]);
}
