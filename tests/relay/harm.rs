//! What a hostile application and sheer numbers can do: garbage on the relay, a relay that is full, descriptors
//! that stay behind. Clients, the supervisor and the other workers do not notice.

use super::{ask, ask_each, assert_each_served_once, noted, ours, pin, relay};
use crate::support::{Client, Control, Pid, Running, Server, wait_until};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// What is thrown away is told, now and then.
fn harmed() -> Server {
    relay().expect_error("closed a connection that another worker has sent")
}

/// The sockets for messages that a worker has, in the words of /proc/PID/fd.
#[track_caller]
fn message_sockets(client: &mut Client) -> BTreeSet<String> {
    let response = client.get("/descriptors").json();
    response
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect()
}

/// Those that both workers have: the relay's.
#[track_caller]
fn relay_sockets(server: &Running) -> String {
    let gate = server.gate("look-gate");
    let mut first = server.connect();
    ask(&mut first, "/wait?look-gate");
    noted(server, "waiting");
    let there = message_sockets(&mut server.connect()); // by the other worker
    gate.open();
    first.response().assert_status(200);
    let here = message_sockets(&mut first);
    let common: Vec<String> = here.intersection(&there).cloned().collect();
    assert!(!common.is_empty(), "{here:?}, {there:?}");
    common.join(",")
}

/// What a process has open.
fn descriptors(pid: Pid) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{}/fd", pid.number));
    let entries = entries.expect("a living process").flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut links: Vec<String> = links
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    links.sort();
    links
}

/// All processes of the server with what they have open.
fn all_descriptors(server: &Running) -> Vec<(Pid, Vec<String>)> {
    let mut processes = vec![server.supervisor(), server.master()];
    processes.extend(server.crew());
    let with = |pid: Pid| (pid, descriptors(pid));
    processes.into_iter().map(with).collect()
}

/// Connections may be those of another worker by now; there are as many as before.
#[track_caller]
fn assert_descriptors(server: &Running, before: &[(Pid, Vec<String>)]) {
    let count = |all: &[(Pid, Vec<String>)]| all.iter().map(|(_, open)| open.len()).sum::<usize>();
    let mut now = Vec::new();
    for _ in 0..2000 {
        now = all_descriptors(server);
        if count(&now) == count(before) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("before: {before:#?}\nnow: {now:#?}");
}

/// The first of the clients keeps its worker busy; the others are answered by the sibling meanwhile.
#[track_caller]
fn assert_relays(server: &Running, clients: &mut [Client]) {
    let gate = server.gate("relay-gate");
    let (busy, others) = clients.split_first_mut().expect("some clients");
    ask(busy, "/wait?relay-gate");
    let owner = noted(server, "waiting").number.to_string();
    for client in others {
        assert_ne!(client.get("/pid").text(), owner);
    }
    gate.open();
    busy.response().assert_text(&owner);
    fs::remove_file(server.dir().join("relay-gate")).expect("remove a gate");
}

#[test]
fn garbage_on_the_relay_disturbs_nobody() {
    if !ours() {
        return;
    }
    let server = harmed().start();
    let sockets = relay_sockets(&server);
    let mut pinned = pin(&server, 6, 0);
    assert_relays(&server, &mut pinned.clients);
    let crew = server.crew();
    let before = all_descriptors(&server);
    for _ in 0..3 {
        let sent = server.get(&format!("/garbage?{sockets}")).text();
        let sent: usize = sent.parse().expect("a number");
        assert!(sent > 0, "nothing was sent to {sockets}");
    }
    assert_descriptors(&server, &before);
    for client in &mut pinned.clients {
        client.get("/pid").assert_status(200);
    }
    let mut pinned = pin(&server, 6, 0);
    assert_relays(&server, &mut pinned.clients);
    assert_eq!(server.crew(), crew, "nobody was replaced");
    Control::of(&server, "relay").done(json!({"do": "ping"}));
    let log = server.finish();
    assert!(
        log.stderr.lines().count() < 60,
        "what is thrown away is not told line by line:\n{}",
        log.stderr
    );
}

/// Messages that are nearly right, with descriptors that are not: the sibling finds all of them at once.
#[test]
fn messages_that_an_application_has_altered_disturb_nobody() {
    if !ours() {
        return;
    }
    let server = harmed().start();
    let sockets = relay_sockets(&server);
    let (gate, other_gate) = (server.gate("gate"), server.gate("other-gate"));
    let mut pinned = pin(&server, 6, 0);
    let crew = server.crew();
    let before = all_descriptors(&server);
    let mut hostile = pinned.clients.remove(0);
    ask(&mut hostile, &format!("/alter?{sockets}"));
    noted(&server, "busy");
    let mut other = server.connect();
    ask(&mut other, "/wait?other-gate");
    noted(&server, "waiting");
    ask_each(&mut pinned.clients);
    // They are on the relay when the owner has let go of them.
    let handed_over = || {
        let own = descriptors(pinned.owner).len();
        let was = before.iter().find(|(pid, _)| *pid == pinned.owner);
        was.is_some_and(|(_, was)| own + 5 <= was.len() + 2)
    };
    wait_until("the watcher to hand over", || handed_over().then_some(()));
    gate.open();
    let taken: usize = hostile.response().text().parse().expect("a number");
    assert!(taken > 0, "there were messages to alter");
    other_gate.open();
    other.response().assert_status(200);
    for client in &mut pinned.clients {
        client.response().assert_status(200);
    }
    assert_each_served_once(&server, 5);
    assert_eq!(server.crew(), crew, "nobody was replaced");
    drop(other);
    assert_eq!(server.get("/pid").status, 200);
}

/// Its own clients wait for it then, as they would without a relay; nothing else is different.
#[test]
fn an_application_that_closes_the_relay_harms_itself_only() {
    if !ours() {
        return;
    }
    let server = harmed().expect_error("cannot send a connection on").start();
    let sockets = relay_sockets(&server);
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 6, 0);
    let mut busy = pinned.clients.remove(0);
    let closed = busy.get(&format!("/close?{sockets}")).text();
    assert!(closed.parse::<usize>().is_ok_and(|n| n > 0), "{closed}");
    ask(&mut busy, "/wait");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    ask_each(&mut pinned.clients);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!pinned.clients.iter().any(Client::has_answer));
    let sibling = pinned.sibling.number.to_string();
    server.get("/pid").assert_text(&sibling);
    gate.open();
    busy.response().assert_status(200);
    for client in &mut pinned.clients {
        client
            .response()
            .assert_text(&pinned.owner.number.to_string());
    }
    assert_each_served_once(&server, 5);
    let mut crew = [pinned.owner, pinned.sibling];
    crew.sort();
    assert_eq!(server.crew(), crew);
    let log = server.finish();
    let told = log.count("cannot send a connection on");
    assert!((1..5).contains(&told), "told {told} times:\n{}", log.stderr);
}

/// A descriptor that does not fit into the table of whoever takes it would be closed by the kernel.
#[test]
fn a_worker_without_descriptors_takes_nothing_and_loses_nothing() {
    if !ours() {
        return;
    }
    let server = relay()
        .arg("--rlimit", "nofile=100")
        .expect_error("cannot accept a connection: Too many open files")
        .start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 6, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/wait");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    let mut other = server.connect();
    other.get("/exhaust").assert_text("Too many open files");
    for client in &mut pinned.clients {
        ask(client, "/pid");
    }
    wait_until("the watcher to hand over", || {
        let relay = &Control::of(&server, "relay").app()["relay"];
        (relay["busy"] == 5).then_some(())
    });
    gate.open();
    busy.response().assert_status(200);
    for client in &mut pinned.clients {
        client.response().assert_status(200);
    }
    let relay = &Control::of(&server, "relay").app()["relay"];
    assert_eq!(relay["refused"], 0, "{relay}");
}

#[test]
fn a_full_relay_loses_nothing() {
    if !ours() {
        return;
    }
    let server = harmed().start();
    let sockets = relay_sockets(&server);
    let (gate, other_gate) = (server.gate("gate"), server.gate("other-gate"));
    let mut pinned = pin(&server, 10, 0);
    let mut other = server.connect();
    let mut filling = pinned.clients.remove(0);
    // The owner waits first, so that the sibling is the one that accepts; then it fills, with nobody to read.
    ask(&mut filling, "/wait");
    noted(&server, "waiting");
    ask(&mut other, "/wait?other-gate");
    noted(&server, "waiting");
    filling.send(format!(
        "GET /fill?{sockets} HTTP/1.1\r\nHost: test\r\n\r\n"
    ));
    gate.open();
    filling.response().assert_status(200);
    let note = server.notes.next();
    assert!(
        note.starts_with("filled ") && !note.starts_with("filled 0 "),
        "{note}"
    );
    ask_each(&mut pinned.clients);
    // For a while there is no room; then there is.
    std::thread::sleep(Duration::from_millis(100));
    other_gate.open();
    other.response().assert_status(200);
    for client in &mut pinned.clients {
        let response = client.response();
        response.assert_text(&pinned.sibling.number.to_string());
    }
    gate.open();
    filling.response().assert_status(200);
    assert_each_served_once(&server, 9);
}

/// The same with nobody who would ever make room.
#[test]
fn connections_that_a_full_relay_does_not_take_are_served_by_their_worker() {
    if !ours() {
        return;
    }
    let server = harmed().workers(1).start();
    let gate = server.gate("gate");
    let mut clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/pid").assert_status(200);
    }
    let mut busy = clients.remove(0);
    let own = message_sockets(&mut busy);
    let supervisors: BTreeSet<String> = descriptors(server.supervisor()).into_iter().collect();
    let common: Vec<String> = own.intersection(&supervisors).cloned().collect();
    assert!(!common.is_empty(), "{own:?}, {supervisors:?}");
    ask(&mut busy, &format!("/fill?{}", common.join(",")));
    let note = server.notes.next();
    assert!(
        note.starts_with("filled ") && !note.starts_with("filled 0 "),
        "{note}"
    );
    ask_each(&mut clients);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!clients.iter().any(Client::has_answer));
    gate.open();
    busy.response().assert_status(200);
    for client in &mut clients {
        client.response().assert_status(200);
    }
    assert_each_served_once(&server, 9);
}

#[test]
fn after_thousands_of_connections_no_descriptor_is_left() {
    if !ours() {
        return;
    }
    const CLIENTS: usize = 60;
    const ROUNDS: usize = 40;
    let server = relay().start();
    let mut pinned = pin(&server, CLIENTS, 0);
    let gate = server.gate("gate");
    let open = all_descriptors(&server);
    for round in 0..ROUNDS {
        // All but the one that was busy last belong to its worker.
        let busy = round % CLIENTS;
        ask(&mut pinned.clients[busy], "/wait");
        let owner = noted(&server, "waiting").number.to_string();
        for (number, client) in pinned.clients.iter_mut().enumerate() {
            if number != busy {
                assert_ne!(client.get("/pid").text(), owner, "round {round}");
            }
        }
        gate.open();
        pinned.clients[busy].response().assert_text(&owner);
    }
    assert_descriptors(&server, &open);
    drop(pinned);
    let is_client = |name: &String| name.starts_with("socket:");
    let sockets = |all: &[(Pid, Vec<String>)]| -> Vec<usize> {
        let open = all.iter().map(|(_, open)| open.iter());
        open.map(|open| open.filter(|name| is_client(name)).count())
            .collect()
    };
    wait_until("both workers to have none of them left", || {
        let now = sockets(&all_descriptors(&server));
        let was = sockets(&open);
        let workers_alike = now[2] == now[3];
        (workers_alike && now.iter().sum::<usize>() + CLIENTS == was.iter().sum::<usize>())
            .then_some(())
    });
}
