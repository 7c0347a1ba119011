//! What happens while Python is busy: clients are answered, and other connections go elsewhere.

use super::{multi, one, ours, with};
use crate::support::was_client::*;
use crate::support::{Running, Server, wait_until};
use nix::sys::signal::Signal;

#[test]
fn a_stop_is_answered_while_python_computes() {
    if !ours() {
        return;
    }
    let (server, _multi, client) = one();
    stop_while_python_computes(&server, client);
}

/// Whatever other connections may do.
#[test]
fn a_stop_is_answered_while_python_computes_also_without_a_relay() {
    if !ours() {
        return;
    }
    for [flag, value] in [["--relay", "off"], ["--relay-after", "1h"]] {
        for workers in [1, 2] {
            let server = Server::new().workers(workers).arg(flag, value);
            let (server, _multi, client) = with(server);
            stop_while_python_computes(&server, client);
        }
    }
}

/// Others go nowhere before their time, although somebody is listened to.
#[test]
fn who_is_listened_to_early_sends_nobody_away_early() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app").workers(2);
    let (server, multi) = multi(server.arg("--relay-after", "1h"));
    // Of three, two have the same worker.
    let mut clients = [multi.connect(), multi.connect(), multi.connect()];
    let pids = clients.each_mut().map(|client| client.get("/pid").text());
    let (one, other) = match () {
        () if pids[0] == pids[1] => (0, 1),
        () if pids[0] == pids[2] => (0, 2),
        () => (1, 2),
    };
    let first = pids[one].clone();
    let [one, other] = clients
        .get_disjoint_mut([one, other])
        .expect("two of three");
    one.send(Asking::get("/compute").bytes());
    server.notes.expect("computing");
    other.send(Asking::get("/pid").bytes());
    one.send(packet(STOP, b""));
    assert_eq!(one.stopped_after(0), 0);
    other.assert_idle();
    server.write("enough", "");
    assert_eq!(other.answer().text(), first);
}

fn stop_while_python_computes(server: &Running, mut client: WasClient) {
    for (path, sent) in [("/compute", 0), ("/compute-after-block", 5)] {
        client.send(Asking::get(path).bytes());
        server.notes.expect("computing");
        client.send(packet(STOP, b""));
        // The application goes on until the test says otherwise.
        assert_eq!(client.stopped_after(0), sent, "{path}");
        server.write("enough", "");
        if sent > 0 {
            server.notes.expect("closed");
        }
        client.get("/hello").assert_text("hello\n");
        std::fs::remove_file(server.dir().join("enough")).expect("the file is there");
    }
}

#[test]
fn a_busy_worker_delays_no_other_connection() {
    if !ours() {
        return;
    }
    let (server, multi) = multi(Server::new().app("was_app").pool("1..2"));
    let gate = server.gate("gate1");
    let (mut one, mut other) = (multi.connect(), multi.connect());
    let first = one.get("/pid").text();
    assert_eq!(other.get("/pid").text(), first, "one worker has both");
    one.send(Asking::get("/meet?gate1").bytes());
    server.notes.expect("arrived");
    assert_ne!(other.get("/pid").text(), first);
    // It stays in step, also for a late STOP, and can travel again.
    let count = other.get("/hello").body.len() as u64;
    other.send(packet(STOP, b""));
    assert_eq!(other.stopped_after(count), count);
    other.get("/hello").assert_text("hello\n");
    gate.open();
    assert_eq!(one.answer().text(), first);
}

#[test]
fn a_reload_keeps_idle_connections() {
    if !ours() {
        return;
    }
    let app = |text: &str| {
        format!(
            "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{text}']\n"
        )
    };
    let server = Server::new().file("shown.py", &app("one")).app("shown");
    let (server, multi) = multi(server);
    let mut clients: Vec<_> = (0..5).map(|_| multi.connect()).collect();
    for client in &mut clients {
        client.get("/").assert_text("one");
    }
    server.write("shown.py", &app("two"));
    server.signal(Signal::SIGHUP);
    server.log.wait_for("reloaded");
    for client in &mut clients {
        wait_until("the new generation to answer", || {
            (client.get("/").text() == "two").then_some(())
        });
    }
}

#[test]
fn a_worker_that_is_replaced_keeps_its_connections() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = with(Server::new().arg("--max-requests", "5"));
    let first = client.get("/pid").text();
    // It serves on until its successor is there.
    wait_until("another worker", || {
        (client.get("/pid").text() != first).then_some(())
    });
    for _ in 0..60 {
        client.get("/pid").assert_status(200);
    }
}

#[test]
fn a_stuck_request_is_answered_before_its_worker_is_killed() {
    if !ours() {
        return;
    }
    let server = Server::new().arg("--request-timeout", "1s");
    let (mut server, multi, mut client) = with(server.arg("--kill-timeout", "1s"));
    for piece in ["worker", "the time of", "Timeout", "killed"] {
        server.expect_error(piece);
    }
    client.send(Asking::get("/hang").bytes());
    server.notes.expect("hanging");
    let answer = client.answer();
    answer.assert_status(504);
    assert_eq!(answer.end, End::NoData);
    client.expect_closed();
    multi.connect().get("/hello").assert_status(200);
}
