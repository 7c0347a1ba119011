//! What clients notice of a reload: nothing.

use super::{busy, count, ours, shop, two_of_one_worker, version, wait_generation};
use crate::support::{Load, Pid, Server, python, wait_until};
use nix::sys::signal::Signal;

/// The server is in a session of its own, where no terminal is.
fn without_a_terminal(server: Server) -> Server {
    let script = "import os, sys\nos.setsid()\nos.execv(sys.argv[1], sys.argv[1:])";
    let python = python::default().path;
    let python = python.to_str().expect("a path in UTF-8").to_owned();
    server.under([&python, "-c", script])
}

#[test]
fn under_load_reloads_lose_no_request() {
    if !ours() {
        return;
    }
    let server = shop().expect_error("reload failed").start();
    let load = Load::start(&server, 3);
    load.wait_answers(3);
    for number in 2..8 {
        match number % 3 {
            0 => server.write("shop.py", "import sys; sys.exit('no')"),
            _ => server.write("shop.py", &version("good", "")),
        }
        server.signal(Signal::SIGHUP);
        server.wait_notified("READY=1");
        load.wait_answers(10);
    }
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
    load.finish();
    assert_eq!(count(&server, "reload failed"), 2);
    assert_eq!(count(&server, "reloaded: "), 4);
}

#[test]
fn a_running_request_survives_a_reload() {
    if !ours() {
        return;
    }
    let server = shop().arg("--graceful-timeout", "1h").start();
    let gate = server.gate("gate");
    let (master, workers) = (server.master(), server.workers());
    let mut client = busy(&server);
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    wait_until("the idle worker to leave", || {
        (workers.iter().filter(|worker| worker.is_alive()).count() == 1).then_some(())
    });
    server.get("/").assert_text("two");
    assert!(master.is_alive());
    // One more is in the socket when the worker learns that it is to leave.
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.open();
    // Whoever has read it answers it, and the connection goes on with the next generation.
    for _ in 0..2 {
        let response = client.response();
        response.assert_status(200);
        assert!(!response.says_close(), "{response:?}");
    }
    client.get("/").assert_text("two");
    master.wait_gone();
    client.get("/").assert_text("two");
    wait_generation(&server, 2);
}

#[test]
fn a_request_on_an_idle_connection_is_answered_while_the_worker_drains() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let mut silent = server.connect();
    silent.get("/").assert_text("one");
    let mut idle = server.connect();
    let number: i32 = idle.get("/pid").text().parse().expect("a process number");
    // The worker finds the request and the order to drain at the same time.
    let worker = Pid::of(number).expect("a living worker");
    worker.signal(Signal::SIGSTOP);
    let workers = server.workers();
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    let mut others = workers.iter().filter(|other| **other != worker);
    others.next().expect("two workers").wait_gone();
    idle.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    worker.signal(Signal::SIGCONT);
    let response = idle.response();
    response.assert_text("one");
    assert!(!response.says_close(), "{response:?}");
    worker.wait_gone();
    idle.get("/").assert_text("two");
    silent.get("/").assert_text("two");
}

#[test]
fn a_request_that_comes_while_the_last_one_runs_is_answered() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let (mut first, mut second) = two_of_one_worker(&server);
    let number: i32 = first.get("/pid").text().parse().expect("a process number");
    let worker = Pid::of(number).expect("a living worker");
    // It reads the order first and then runs a request for longer than it waits for another one.
    worker.signal(Signal::SIGSTOP);
    let workers = server.workers();
    server.signal(Signal::SIGHUP);
    let mut others = workers.iter().filter(|other| **other != worker);
    others.next().expect("two workers").wait_gone();
    first.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    worker.signal(Signal::SIGCONT);
    server.notes.expect("slow");
    second.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    for client in [&mut first, &mut second] {
        let response = client.response();
        response.assert_text("one");
        assert!(!response.says_close(), "{response:?}");
        client.get("/").assert_text("one");
    }
    worker.wait_gone();
    first.get("/").assert_text("one");
}

#[test]
fn a_stop_closes_idle_connections_as_ever() {
    if !ours() {
        return;
    }
    let mut server = shop().start();
    let mut idle = server.connect();
    idle.get("/").assert_text("one");
    server.signal(Signal::SIGTERM);
    idle.expect_end();
    assert!(server.wait_exit().success());
}

#[test]
fn what_is_told_to_rest_finishes_and_serves_again_after_a_reload() {
    if !ours() {
        return;
    }
    let server = without_a_terminal(shop()).start();
    let gate = server.gate("gate");
    let mut running = server.connect();
    running.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    server.signal(Signal::SIGWINCH);
    server.log.wait_for("accepting no more connections");
    gate.open();
    running.response().assert_text("one");
    wait_until("the generation to leave", || {
        server.masters().is_empty().then_some(())
    });
    // It is taken by the kernel and waits.
    let mut waiting = server.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(server.masters().is_empty());
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    waiting.response().assert_text("two");
}

#[test]
fn what_rests_can_be_stopped() {
    if !ours() {
        return;
    }
    let server = without_a_terminal(shop()).start();
    server.signal(Signal::SIGWINCH);
    wait_until("the generation to leave", || {
        server.masters().is_empty().then_some(())
    });
    server.finish().assert_status(0);
}
