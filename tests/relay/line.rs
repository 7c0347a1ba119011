//! Head-of-line blocking: requests on connections of a busy worker are answered by another. All is
//! about order: the busy request ends only when the test lets it.

use super::{Pinned, ask, ask_each, assert_each_served_once, noted, ours, pin, relay};
use crate::support::client::Asked;
use crate::support::{Client, Running, Server};

/// The owner of all connections waits at the gate; what the others get meanwhile must be the sibling's.
#[track_caller]
fn assert_served_by_the_sibling(server: &Running, listener: usize) {
    let gate = server.gate("gate");
    let Pinned {
        owner,
        sibling,
        mut clients,
    } = pin(server, 12, listener);
    let sibling = sibling.number.to_string();
    let mut busy = clients.remove(0);
    ask(&mut busy, "/wait");
    assert_eq!(noted(server, "waiting"), owner);
    for client in &mut clients {
        client.get("/pid").assert_text(&sibling);
    }
    // They are its own now.
    for client in &mut clients {
        client.get("/pid").assert_text(&sibling);
    }
    assert!(!busy.has_answer());
    gate.open();
    busy.response().assert_text(&owner.number.to_string());
    busy.get("/pid").assert_status(200);
}

#[test]
fn a_busy_worker_delays_no_other_client_of_its_own() {
    if !ours() {
        return;
    }
    assert_served_by_the_sibling(&relay().start(), 0);
}

#[test]
fn the_same_over_a_unix_socket() {
    if !ours() {
        return;
    }
    assert_served_by_the_sibling(&relay().tcp().unix().start(), 1);
}

#[test]
fn all_that_wait_at_once_are_answered_while_one_is_busy() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 40, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/wait");
    noted(&server, "waiting");
    ask_each(&mut pinned.clients);
    for client in &mut pinned.clients {
        let response = client.response();
        response.assert_text(&pinned.sibling.number.to_string());
    }
    assert_each_served_once(&server, 39);
    gate.open();
    busy.response().assert_status(200);
}

/// Both workers are busy: whoever is free first serves them all, also what the relay had no room for.
#[test]
fn more_than_fits_into_the_relay_is_answered_while_one_is_busy() {
    if !ours() {
        return;
    }
    const MANY: usize = 600;
    let server = relay().start();
    let (gate, other_gate) = (server.gate("gate"), server.gate("other-gate"));
    let mut pinned = pin(&server, MANY + 1, 0);
    let mut busy = pinned.clients.remove(0);
    let (owner, sibling) = (pinned.owner, pinned.sibling);
    ask(&mut busy, "/wait");
    assert_eq!(noted(&server, "waiting"), owner);
    let mut second = server.connect();
    ask(&mut second, "/wait?other-gate");
    assert_eq!(noted(&server, "waiting"), sibling);
    ask_each(&mut pinned.clients);
    other_gate.open();
    second.response().assert_status(200);
    for client in &mut pinned.clients {
        let response = client.response();
        response.assert_text(&sibling.number.to_string());
    }
    assert_each_served_once(&server, MANY);
    gate.open();
    busy.response().assert_status(200);
}

/// The clients wait for their worker, whatever its sibling does. Who serves them when it is free again?
#[track_caller]
fn assert_wait_for_the_owner(server: Server) -> Vec<bool> {
    let server = server.start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 4, 0);
    let owner = pinned.owner.number.to_string();
    ask(&mut pinned.clients[0], "/wait");
    noted(&server, "waiting");
    for client in &mut pinned.clients[1..] {
        ask(client, "/pid");
    }
    // The sibling has time for them.
    let mut idle = server.connect();
    for _ in 0..20 {
        idle.get("/pid")
            .assert_text(&pinned.sibling.number.to_string());
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!pinned.clients.iter().any(Client::has_answer));
    gate.open();
    pinned
        .clients
        .iter_mut()
        .map(|client| client.response().text() == owner)
        .collect()
}

#[test]
fn without_the_relay_they_wait_for_their_worker() {
    if !ours() {
        return;
    }
    let by_owner = assert_wait_for_the_owner(relay().arg("--relay", "off"));
    assert_eq!(by_owner, [true; 4]);
}

#[test]
fn before_its_time_nothing_is_handed_over() {
    if !ours() {
        return;
    }
    // Then it may give some of them to its sibling, which is idle.
    assert_wait_for_the_owner(relay().arg("--relay-after", "1h"));
}

#[test]
fn a_connection_that_was_handed_over_comes_from_where_it_came() {
    if !ours() {
        return;
    }
    let server = relay().tcp().unix().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 2, 0);
    let mut local = server.connect_to(1);
    let before = local.get("/origin").text();
    let address = pinned.clients[0].local_address();
    let here = pinned.clients[0].get("/origin").text();
    let (pid, origin) = here.split_once(' ').expect("a process and an origin");
    assert_eq!(pid, pinned.owner.number.to_string());
    let start = format!("{} {} ", address.ip(), address.port());
    assert!(origin.starts_with(&start), "{origin}");
    let origin = origin.to_owned();
    let mut busy = pinned.clients.pop().expect("two clients");
    ask(&mut busy, "/wait");
    noted(&server, "waiting");
    let there = pinned.clients[0].get("/origin").text();
    assert_eq!(
        there,
        format!("{} {origin}", pinned.sibling.number),
        "{here}"
    );
    let after = local.get("/origin").text();
    let place = |text: &str| text.split_once(' ').map(|(_, place)| place.to_owned());
    assert_eq!(place(&before), place(&after));
    gate.open();
    busy.response().assert_status(200);
}

#[test]
fn idle_connections_of_a_busy_worker_stay_open_and_are_served_later() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 10, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/wait");
    noted(&server, "waiting");
    // One of them asks, so that something is handed over at all.
    pinned.clients[0].get("/pid").assert_status(200);
    assert!(!pinned.clients.iter().any(Client::has_answer));
    gate.open();
    busy.response().assert_status(200);
    for client in &mut pinned.clients {
        client.get("/pid").assert_status(200);
        client.get("/pid").assert_status(200);
    }
}

/// An end is nothing to serve, so it waits for the owner, and nobody is woken by it again and again.
#[test]
fn clients_that_leave_a_busy_worker_disturb_nobody() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 10, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/wait");
    noted(&server, "waiting");
    let (leaving, others) = pinned.clients.split_at_mut(5);
    for client in &mut *leaving {
        client.half_close();
    }
    let before = pinned.owner.run_time();
    let sibling = pinned.sibling.number.to_string();
    for client in others {
        client.get("/pid").assert_text(&sibling);
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let spent = pinned.owner.run_time() - before;
    assert!(
        spent.as_millis() < 100,
        "a waiting worker ran for {spent:?}"
    );
    gate.open();
    busy.response().assert_status(200);
    for client in leaving {
        client.expect_end();
    }
}

/// Blocks that wait for others leave while the application computes the next one (PEP 3333, "Buffering and
/// Streaming"), also where nobody else is there.
#[test]
fn blocks_in_quick_succession_do_not_wait_for_the_next_one() {
    if !ours() {
        return;
    }
    for server in [relay().workers(1), relay().arg("--relay", "off")] {
        let server = server.start();
        let gate = server.gate("gate");
        for _ in 0..20 {
            let mut client = server.connect();
            ask(&mut client, "/blocks");
            client.head(Asked::Plain);
            let mut body = Vec::new();
            while body.len() < 14 {
                body.extend(client.chunk().expect("a block before the gate is open"));
            }
            assert_eq!(body, b"one two three ");
            gate.open();
            assert_eq!(client.chunk().as_deref(), Some(b"four".as_slice()));
            assert_eq!(client.chunk(), None);
            client.get("/pid").assert_status(200);
        }
    }
}
