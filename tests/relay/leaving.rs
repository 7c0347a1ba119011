//! Connections of a worker that leaves while requests run: whoever else is there takes them, and where nobody
//! is left, it serves them itself.

use super::{ask, ask_each, assert_each_served_once, noted, ours, pin, relay};
use crate::support::{Control, wait_until};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::time::Duration;

/// The server stops, the sibling has gone already, and the worker is told only after the request that runs: what
/// its watcher has sent on meanwhile comes back to it.
#[test]
fn what_was_sent_on_while_the_server_stops_is_served() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 6, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/linger?gate");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    server.signal(Signal::SIGTERM);
    pinned.sibling.wait_gone();
    ask_each(&mut pinned.clients);
    gate.open();
    let owner = pinned.owner.number.to_string();
    busy.response().assert_text(&owner);
    for client in &mut pinned.clients {
        client.response().assert_text(&owner);
    }
    assert_each_served_once(&server, 5);
}

/// The same with a worker that has been told: nobody is there to whom its watcher could send anything.
#[test]
fn nothing_is_sent_on_by_a_worker_that_knows_that_the_server_stops() {
    if !ours() {
        return;
    }
    let server = relay().tcp().arg("--head-timeout", "1h").start();
    let (gate, late) = (server.gate("gate"), server.gate("late"));
    let mut pinned = pin(&server, 5, 0);
    let mut busy = pinned.clients.remove(0);
    // In the middle of a request, so that they have time.
    let paths = ["/pid", "/pid", "/linger?late", "/served?0"];
    for (client, path) in pinned.clients.iter_mut().zip(paths) {
        client.send(format!("GET {path} HTTP/1.1\r\nHost:"));
        client.wait_consumed();
    }
    ask(&mut busy, "/wait?gate");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    server.signal(Signal::SIGTERM);
    pinned.sibling.wait_gone();
    gate.open();
    let owner = pinned.owner.number.to_string();
    busy.response().assert_text(&owner);
    // Now it has found its order, and has had time to follow it.
    let [first, second, third, fourth] = &mut pinned.clients[..] else {
        panic!("four clients");
    };
    for client in [first, second] {
        client.send(" test\r\n\r\n");
        client.response().assert_text(&owner);
    }
    third.send(" test\r\n\r\n");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    fourth.send(" test\r\n\r\n");
    late.open();
    third.response().assert_text(&owner);
    fourth.response().assert_text(&owner);
    assert_each_served_once(&server, 1);
}

/// A request takes longer than a leaving worker looks for somebody who takes its connections: it still tries.
#[test]
fn a_connection_is_handed_over_after_a_long_request_too() {
    if !ours() {
        return;
    }
    let server = relay().workers(1).tcp().arg("--body-timeout", "1h").start();
    let late = server.gate("late");
    let old = server.workers()[0];
    // What is in a file stays where it is until it has its response.
    let half = vec![b'x'; 2_000_000];
    let mut upload = server.connect();
    upload.send("POST /wait?late HTTP/1.1\r\nHost: test\r\nContent-Length: 4000000\r\n\r\n");
    upload.send(&half);
    upload.wait_consumed();
    server.read_notifications();
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    upload.send(&half);
    assert_eq!(noted(&server, "waiting"), old);
    // The time itself is what it is about.
    std::thread::sleep(Duration::from_millis(5_500));
    late.open();
    let response = upload.response();
    response.assert_text(&old.number.to_string());
    assert!(!response.says_close(), "{response:?}");
    old.wait_gone();
    let next: i32 = upload.get("/pid").text().parse().expect("a number");
    assert_ne!(next, old.number);
    let log = server.finish();
    assert_eq!(log.count("nobody takes over"), 0, "{}", log.stderr);
}

/// A request that the access log knows of stays with its worker: if that dies, the line is its own.
#[test]
fn an_upload_that_the_access_log_knows_of_waits_for_its_worker() {
    if !ours() {
        return;
    }
    let server = relay().arg("--body-timeout", "1h");
    let access = server.dir().join("access");
    let server = server.arg("--access-log", access).tcp().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 3, 0);
    let [busy, upload, other] = &mut pinned.clients[..] else {
        panic!("three clients");
    };
    upload.send("POST /echo?up HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\nhalf");
    upload.wait_consumed();
    ask(busy, "/wait");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    upload.send("half");
    other
        .get("/pid")
        .assert_text(&pinned.sibling.number.to_string());
    gate.open();
    let owner = pinned.owner.number.to_string();
    busy.response().assert_text(&owner);
    let response = upload.response();
    response.assert_text("up:halfhalf");
    assert_eq!(response.field("X-Pid"), Some(&*owner));
    let lines = wait_until("the line of the upload", || {
        let text = server.file("access");
        let lines = text.lines().filter(|line| line.contains("/echo?up"));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    });
    server.finish();
    assert_eq!(lines.len(), 1, "{lines:?}");
}

/// The next generation has no relay, and the last worker that could take from it is killed: what is on it ends as
/// it would without a relay, instead of waiting for ever.
#[test]
fn what_is_on_a_relay_that_nobody_has_any_more_ends() {
    if !ours() {
        return;
    }
    let server = relay()
        .tcp()
        .arg("--graceful-timeout", "3s")
        .file("rswsgi.toml", "relay = \"on\"\n");
    let path = server.dir().join("rswsgi.toml");
    let server = server.arg("--config", path).start();
    let _gate = server.gate("gate");
    let mut pinned = pin(&server, 3, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/wait?gate");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    server.write("rswsgi.toml", "relay = \"off\"\n");
    server.signal(Signal::SIGHUP);
    pinned.sibling.wait_gone();
    for client in &mut pinned.clients {
        ask(client, "/pid");
    }
    wait_until("them to be on the relay", || {
        let relay = &Control::of(&server, "relay").app()["relay"];
        (relay["busy"] == 2).then_some(())
    });
    pinned.owner.wait_gone();
    busy.expect_end();
    for client in &mut pinned.clients {
        // It has not been read, so the end is a reset.
        let answer = client.try_response();
        assert_ne!(
            answer.map_err(|error| error.kind()).unwrap_err(),
            ErrorKind::WouldBlock
        );
    }
    server.get("/pid").assert_status(200);
}
