//! The WAS front end: what a client of that protocol says and gets, in all three modes.

use crate::support::server::Standard;
use crate::support::{MultiClient, Running, Server, WasClient, only_rswsgi};

mod environ;
mod failures;
mod hostile;
mod modes;
mod records;
mod requests;
mod responses;
mod retire;
mod room;
mod shut_in;
mod steps;
mod stops;
mod upgrade;
mod uploads;
mod watcher;
mod wsgi;

fn ours() -> bool {
    only_rswsgi("WAS")
}

/// A server that a Multi-WAS client has started.
fn multi(server: Server) -> (Running, MultiClient) {
    let (client, stdin) = MultiClient::pair();
    let standard = Standard {
        stdin,
        output_and_control: None,
    };
    (server.standard(standard).start(), client)
}

/// One worker and one connection.
fn one() -> (Running, MultiClient, WasClient) {
    with(Server::new())
}

fn with(server: Server) -> (Running, MultiClient, WasClient) {
    let (server, multi) = multi(server.app("was_app"));
    let client = multi.connect();
    (server, multi, client)
}
