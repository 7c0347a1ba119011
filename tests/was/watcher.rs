//! What happens while Python is busy: clients are answered, and other connections go elsewhere.

use super::{multi, one, ours, with};
use crate::support::was_client::*;
use crate::support::{Server, wait_until};
use nix::sys::signal::Signal;

#[test]
fn a_stop_is_answered_while_python_computes() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
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
