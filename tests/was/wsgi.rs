//! The rules of PEP 3333 over WAS: the same tests as over HTTP, behind a gateway.

use crate::support::server::Address;
use crate::support::{Running, Server, was_gateway};

#[path = "../wsgi/environ.rs"]
mod environ;
#[path = "../wsgi/failures.rs"]
mod failures;
#[path = "../wsgi/input.rs"]
mod input;
#[path = "../wsgi/response.rs"]
mod response;

/// One worker with `tests/apps/rules.py`.
fn rules() -> Running {
    served(Server::new().app("rules"))
}

fn served(server: Server) -> Running {
    let (server, multi) = super::multi(server);
    let path = server.dir().join("own-gateway.sock");
    was_gateway::open(&path, multi);
    server.reach_by(Address::Unix(path))
}

fn over_was() -> bool {
    true
}
