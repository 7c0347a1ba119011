//! More connections than a worker has room for.

use super::{multi, ours};
use crate::support::control::Control;
use crate::support::was_client::*;
use crate::support::{Server, WasClient};

#[test]
fn a_worker_takes_no_more_connections_than_it_may_have() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app").workers(2);
    let (server, multi) = multi(server.arg("--max-connections", "2"));
    let mut clients: Vec<WasClient> = (0..4).map(|_| multi.connect()).collect();
    for client in &mut clients {
        client.get("/pid").assert_status(200);
    }
    // Nobody has room for a fifth one: it waits, and the others are none the worse for it.
    let mut fifth = multi.connect();
    fifth.send(Asking::get("/pid").bytes());
    for _ in 0..5 {
        for client in &mut clients {
            client.get("/pid").assert_status(200);
        }
    }
    let stats = Control::of(&server, "was_app").app();
    assert_eq!(stats["connections"]["open"], 4, "{}", stats["connections"]);
    for worker in stats["workers"].as_array().expect("a list") {
        assert_eq!(worker["connections"], 2, "{worker}");
    }
    drop(clients.pop());
    fifth.answer().assert_status(200);
    fifth.assert_idle();
    for client in &mut clients {
        client.get("/hello").assert_status(200);
    }
}

#[test]
fn without_descriptors_a_connection_waits_and_the_socket_stays() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app").arg("--rlimit", "nofile=64");
    let (mut server, multi) = multi(server);
    server.expect_error("cannot accept a connection");
    let mut clients: Vec<WasClient> = (0..30).map(|_| multi.connect()).collect();
    server.log.wait_for("cannot accept a connection");
    for client in &mut clients[..5] {
        client.get("/hello").assert_text("hello\n");
    }
    // Those that could not be taken have lost nothing: they are served when others go.
    let mut last = clients.pop().expect("there are thirty");
    last.send(Asking::get("/hello").bytes());
    clients.truncate(5);
    last.answer().assert_text("hello\n");
    for client in &mut clients {
        client.get("/hello").assert_text("hello\n");
    }
    multi.connect().get("/hello").assert_text("hello\n");
}
