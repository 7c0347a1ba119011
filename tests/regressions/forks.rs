//! Applications that fork and start threads within a request.

use super::{assert_serves_on, hostile, ours, worker};
use crate::support::{Pid, Running};

/// The child that the application has forked and told of.
#[track_caller]
fn told_child(server: &Running) -> Pid {
    let note = server.notes.next();
    let number = note.strip_prefix("child ").and_then(|n| n.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{note}"));
    Pid::of(number).unwrap_or_else(|| panic!("the child {number} has ended"))
}

#[test]
fn a_connection_ends_although_a_forked_child_lives_on() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let gate = server.gate("gate");
    let worker = worker(&server);
    let mut client = server.connect();
    client.send("GET /fork-and-stay HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let child = told_child(&server);
    client.response().assert_text("forked");
    client.expect_end();
    assert!(child.is_alive(), "the end must not need that of the child");
    assert_serves_on(&server, worker);
    gate.open();
    child.wait_gone();
}

#[test]
fn bytes_on_a_connection_that_only_a_forked_child_has_open_harm_nobody() {
    if !ours() {
        return;
    }
    let server = hostile().arg("--head-timeout", "1s").start();
    let gate = server.gate("gate");
    let worker = worker(&server);
    let mut client = server.connect();
    client.get("/pid").assert_status(200); // the event loop knows the connection
    client.send("GET /fork-and-stay HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let child = told_child(&server);
    client.response().assert_text("forked");
    let _ = client.try_send("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n"); // it may have ended
    assert_serves_on(&server, worker);
    // Nobody is woken by them for ever: meanwhile a limit of one second passes.
    let before = worker.run_time();
    let mut slow = server.connect();
    slow.send("GET /pid HT");
    slow.response().assert_status(408);
    let spent = worker.run_time() - before;
    assert!(spent.as_millis() < 100, "an idle worker ran for {spent:?}");
    assert_serves_on(&server, worker);
    gate.open();
    child.wait_gone();
}

#[test]
fn a_keep_alive_connection_serves_on_although_a_forked_child_lives_on() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let gate = server.gate("gate");
    let worker = worker(&server);
    let mut client = server.connect();
    for _ in 0..3 {
        client.get("/fork-and-stay").assert_text("forked");
        let child = told_child(&server);
        client.get("/pid").assert_text(&worker.number.to_string());
        gate.open();
        child.wait_gone();
    }
    assert_serves_on(&server, worker);
}

#[test]
fn the_application_can_terminate_its_own_processes() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let _gate = server.gate("gate");
    let worker = worker(&server);
    for _ in 0..2 {
        server.get("/terminate").assert_text("-15");
        assert_serves_on(&server, worker);
    }
}

#[test]
fn a_child_can_be_terminated_before_it_has_run() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let _gate = server.gate("gate");
    let worker = worker(&server);
    server.get("/fork-and-reap").assert_text("-15");
    // Nor has the worker taken the signal for its own.
    assert_serves_on(&server, worker);
}

#[test]
fn the_application_can_use_a_pool_of_processes() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let _gate = server.gate("gate");
    let worker = worker(&server);
    server.get("/pool").assert_text("[1, 2]");
    assert_serves_on(&server, worker);
}

/// The application forks in the request for `path`, and both processes give `body`, or each its number.
#[track_caller]
fn assert_one_answer(path: &str, body: Option<&str>) {
    let mut server = hostile().start();
    server.expect_error("fork");
    let worker = worker(&server);
    let own = worker.number.to_string();
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client.response().assert_text(body.unwrap_or(&own));
    let pids = [server.notes.next(), server.notes.next()];
    assert!(pids.contains(&own), "{pids:?} without the worker {own}");
    for pid in pids.iter().filter(|pid| **pid != own) {
        if let Some(child) = Pid::of(pid.parse().expect("a process number")) {
            child.wait_gone();
        }
    }
    // What the child might have sent would be here before the next response.
    client.get("/pid").assert_text(&own);
    client.send("GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    client.response().assert_text(&own);
    client.expect_end();
    assert_serves_on(&server, worker);
    server.finish();
}

#[test]
fn a_forked_child_that_returns_from_the_application_ends_and_answers_nobody() {
    if ours() {
        assert_one_answer("/fork-and-return", None);
    }
}

#[test]
fn a_child_forked_between_two_blocks_ends_and_answers_nobody() {
    if ours() {
        assert_one_answer("/fork-in-block", Some("before, after"));
    }
}

#[test]
fn a_forked_child_that_fails_in_the_application_ends_and_answers_nobody() {
    if ours() {
        assert_one_answer("/fork-and-fail", None);
    }
}

#[test]
fn a_thread_in_write_does_not_hold_up_the_worker_for_ever() {
    if !ours() {
        return;
    }
    let mut server = hostile().start();
    server.expect_error("another thread is sending");
    server.expect_error("the application failed");
    let gate = server.gate("gate");
    let mut paused = server.connect();
    paused.send("GET /write-in-thread HTTP/1.1\r\nHost: test\r\n\r\n");
    paused.head(crate::support::client::Asked::Plain);
    paused.raw(100_000); // the thread is in write(), which is far from its end
    gate.open();
    server.notes.expect("over"); // and now the request ends
    drop(paused);
    let worker = worker(&server);
    assert_serves_on(&server, worker);
    let end = server.notes.next();
    assert!(end.starts_with("thread: "), "{end}");
    server.finish();
}
