//! More connections than a worker has room for.

use super::{multi, ours};
use crate::support::control::Control;
use crate::support::was_client::*;
use crate::support::{MultiClient, Server, WasClient};

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

/// The supervisor lets clients in, and has its own descriptors.
#[test]
fn a_supervisor_without_descriptors_waits_and_keeps_its_clients() {
    if !ours() {
        return;
    }
    let message = "cannot let WAS clients in";
    let server = Server::new().app("was_app").expect_error(message);
    let path = server.dir().join("was.sock");
    let few = ["sh", "-c", "ulimit -n 48; exec \"$@\"", "sh"];
    let server = server.under(few).bind(&format!("was:{}", path.display()));
    let server = server.start();
    let first = MultiClient::remote(&path);
    let mut client = first.connect();
    client.get("/hello").assert_text("hello\n");
    let others: Vec<_> = (0..40).map(|_| MultiClient::remote(&path)).collect();
    server.log.wait_for(message);
    for _ in 0..50 {
        client.get("/hello").assert_text("hello\n");
    }
    let told = server.log.text().matches(message).count();
    assert!(told < 20, "told {told} times: it does not pause");
    drop(others);
    let last = MultiClient::remote(&path);
    last.connect().get("/hello").assert_text("hello\n");
    first.connect().get("/hello").assert_text("hello\n");
}
