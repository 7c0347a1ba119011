//! However a request ends, there is one line, and it says how.

use super::{logged, ours, wait_lines};
use crate::support::{Pid, Running, Server};
use nix::sys::signal::Signal;

fn server() -> Server {
    let server = logged().arg("--request-timeout", "1s");
    server.expect_error("provoked").expect_error("error: ")
}

/// The query of a request names it; the line that has it, which is the only one.
#[track_caller]
fn line(server: &Running, query: &str, count: usize) -> serde_json::Value {
    let lines = wait_lines(server, count);
    let named: Vec<_> = lines.iter().filter(|line| line["query"] == query).collect();
    assert_eq!(named.len(), 1, "{query} in {lines:?}");
    named[0].clone()
}

#[track_caller]
fn assert_ended(line: &serde_json::Value, status: u16, outcome: &str) {
    assert_eq!(line["status"], status, "{line}");
    assert_eq!(line["outcome"], outcome, "{line}");
}

#[test]
fn what_the_application_does_is_told() {
    if !ours() {
        return;
    }
    let server = server().start();
    let mut count = 0;
    for (path, status, outcome) in [
        ("hello", 200, "complete"),
        ("boom", 500, "failed"),
        ("late-boom", 200, "failed"),
        ("short", 200, "broken"),
        ("sleep", 504, "timed-out"),
        ("exit", 0, "crashed"),
        ("leave", 0, "crashed"),
        ("hello", 200, "complete"),
    ] {
        let mut client = server.connect();
        count += 1;
        let request =
            format!("GET /{path}?{count} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        client.send(request);
        client.read_until_end_or_reset();
        assert_ended(&line(&server, &count.to_string(), count), status, outcome);
    }
    assert_eq!(wait_lines(&server, count).len(), count);
}

#[test]
fn what_the_server_refuses_is_told() {
    if !ours() {
        return;
    }
    let server = logged()
        .arg("--head-timeout", "300ms")
        .arg("--max-body", "10");
    let server = server.arg("--limit-request-line", "300").start();
    let long = "x".repeat(400);
    let mut count = 0;
    for (head, status) in [
        ("GET /?1 HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /?{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
        (
            "POST /?3 HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n".into(),
            413,
        ),
        (
            "GET /?4 HTTP/1.1\r\nHost: x\r\nUser-Agent: slow\r\n".into(),
            408,
        ),
        ("\x16\x03\x01nonsense\r\n\r\n".into(), 400),
        ("GET /?6 HTTP/3.0\r\nHost: x\r\n\r\n".into(), 505),
    ] {
        let mut client = server.connect();
        client.send(&head);
        client.response().assert_status(status);
        count += 1;
        let lines = wait_lines(&server, count);
        assert_eq!(lines.len(), count, "{lines:?}");
        assert_ended(&lines[count - 1], status, "refused");
    }
    assert_eq!(line(&server, "4", count)["user_agent"], "slow");
    assert_eq!(line(&server, "3", count)["method"], "POST");
}

#[test]
fn a_client_that_leaves_is_told_wherever_it_leaves() {
    if !ours() {
        return;
    }
    let server = logged().start();
    let leave = |request: &str| {
        let mut client = server.connect();
        client.send(request);
        client.wait_consumed();
    };
    leave("GET /hello?1 HTTP/1.1\r\nHo");
    assert_ended(&line(&server, "1", 1), 499, "aborted");
    leave("POST /upload?2 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
    assert_ended(&line(&server, "2", 2), 499, "aborted");
    let mut client = server.connect();
    client.send("GET /big?3 HTTP/1.1\r\nHost: x\r\n\r\n");
    client.raw(1000);
    drop(client);
    let line = line(&server, "3", 3);
    assert_ended(&line, 200, "aborted");
    assert!(line["bytes"].as_u64() < Some(16 << 20), "{line}");
    // One that has asked nothing leaves no line.
    drop(server.connect());
    server.get("/hello").assert_status(200);
    assert_eq!(wait_lines(&server, 4).len(), 4);
}

#[test]
fn a_killed_worker_leaves_a_line_for_each_request_it_had() {
    if !ours() {
        return;
    }
    let server = logged().expect_error("killed by SIGKILL").start();
    let _gate = server.gate("gate");
    let worker = server.workers()[0];
    let mut slow_reader = server.connect();
    slow_reader.send("GET /big?1 HTTP/1.1\r\nHost: x\r\n\r\n");
    slow_reader.raw(1000);
    let mut uploader = server.connect();
    uploader.send("POST /upload?2 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
    uploader.wait_consumed();
    let mut done = server.connect();
    done.get("/hello?3").assert_status(200);
    let mut waiter = server.connect();
    waiter.send("GET /wait?4 HTTP/1.1\r\nHost: x\r\n\r\n");
    server.notes.expect(&format!("waiting {}", worker.number));
    worker.signal(Signal::SIGKILL);
    waiter.read_until_end_or_reset();
    for query in ["1", "2", "4"] {
        assert_ended(&line(&server, query, 4), 0, "killed");
    }
    assert_ended(&line(&server, "3", 4), 200, "complete");
    assert_eq!(wait_lines(&server, 4).len(), 4);
}

/// All processes of the generation but the workers are gone, and then those.
#[test]
fn requests_are_told_even_when_the_master_is_killed() {
    if !ours() {
        return;
    }
    let server = logged().expect_error("error: ").start();
    let _gate = server.gate("gate");
    let master = server.master();
    let mut waiter = server.connect();
    waiter.send("GET /wait?1 HTTP/1.1\r\nHost: x\r\n\r\n");
    server.notes.next();
    let worker: Pid = server.workers()[0];
    master.signal(Signal::SIGKILL);
    assert_ended(&line(&server, "1", 1), 0, "crashed");
    assert!(!server.crew().contains(&worker));
    // The generation after it logs as well.
    let mut after = server.connect();
    after.get("/hello?2").assert_status(200);
    assert_eq!(line(&server, "2", 2)["generation"], 2);
}

#[test]
fn what_is_cut_off_by_a_stop_is_told() {
    if !ours() {
        return;
    }
    let mut server = logged().start();
    let _gate = server.gate("gate");
    let mut waiter = server.connect();
    waiter.send("GET /wait?1 HTTP/1.1\r\nHost: x\r\n\r\n");
    server.notes.next();
    server.signal(Signal::SIGINT);
    server.wait_exit();
    let lines = super::lines_of(&server.file("access.log"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["status"], 0);
}
