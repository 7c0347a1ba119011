//! The relay: no connection depends on one worker. Requests behind a busy one, reloads that no client
//! notices, stuck workers that cost one request; and that nothing is lost, doubled or left behind.

use crate::support::{Client, Pid, Running, Server, only_rswsgi};

mod balance;
mod busy;
mod bytes;
mod forks;
mod harm;
mod idle;
mod leaving;
mod line;
mod model;
mod stuck;
mod waking;

fn ours() -> bool {
    only_rswsgi("connections that are not tied to workers")
}

/// Two workers and the application that is busy in every way.
fn relay() -> Server {
    Server::new().app("relay").workers(2)
}

fn ask(client: &mut Client, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
}

/// Each of them for what [`assert_each_served_once`] counts.
fn ask_each(clients: &mut [Client]) {
    for (number, client) in clients.iter_mut().enumerate() {
        ask(client, &format!("/served?{number}"));
    }
}

/// The process that a note names behind `word`.
#[track_caller]
fn noted(server: &Running, word: &str) -> Pid {
    let note = server.notes.next();
    let number = note.strip_prefix(word).map(str::trim);
    let number = number.and_then(|number| number.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{note:?} instead of {word:?}"));
    Pid::of(number).unwrap_or_else(|| panic!("process {number} has ended"))
}

/// Two workers, with all connections at the first.
struct Pinned {
    owner: Pid,
    sibling: Pid,
    clients: Vec<Client>,
}

/// Keeps one worker busy while the other accepts. `listener` is where the clients come in.
#[track_caller]
fn pin(server: &Running, count: usize, listener: usize) -> Pinned {
    let gate = server.gate("pin-gate");
    let mut busy = server.connect();
    ask(&mut busy, "/wait?pin-gate");
    let sibling = noted(server, "waiting");
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect_to(listener)).collect();
    let owners: Vec<String> = clients.iter_mut().map(|c| c.get("/pid").text()).collect();
    let owner: i32 = owners[0].parse().expect("a process number");
    assert!(owners.iter().all(|other| *other == owners[0]), "{owners:?}");
    gate.open();
    busy.response().assert_status(200);
    std::fs::remove_file(server.dir().join("pin-gate")).expect("remove a gate");
    let owner = Pid::of(owner).expect("a living worker");
    assert_ne!(owner, sibling);
    Pinned {
        owner,
        sibling,
        clients,
    }
}

/// What `/served?WHAT` has left: each of these once, nothing else.
#[track_caller]
fn assert_each_served_once(server: &Running, count: usize) {
    let file = server.file("served");
    let mut served: Vec<usize> = file
        .lines()
        .map(|line| {
            let what = line.split(' ').next().unwrap_or_default();
            what.parse().expect("a number")
        })
        .collect();
    served.sort_unstable();
    assert_eq!(served, (0..count).collect::<Vec<_>>());
}
