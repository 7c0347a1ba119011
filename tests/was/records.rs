//! What is known of WAS requests afterwards: the access log and the statistics.

use super::{multi, ours};
use crate::support::control::Control;
use crate::support::was_client::*;
use crate::support::{Running, Server, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};

fn logged() -> Server {
    let server = Server::new().app("was_app");
    let server = server.arg("--access-log", "access.log");
    server.arg("--access-log-format", "json")
}

#[track_caller]
fn wait_lines(server: &Running, count: usize) -> Vec<Value> {
    wait_until("the lines of the access log", || {
        let text = server.file("access.log");
        let is_whole = text.is_empty() || text.ends_with('\n');
        let is_there = is_whole && text.lines().count() >= count;
        is_there.then(|| {
            let lines = text.lines().map(serde_json::from_str);
            lines.collect::<Result<_, _>>().expect("lines of JSON")
        })
    })
}

#[test]
fn every_exchange_has_its_line_in_the_access_log() {
    if !ours() {
        return;
    }
    let (mut server, multi) = multi(logged());
    let mut client = multi.connect();
    let asking = Asking::get("/hello?a=b")
        .with(REMOTE_HOST, "2001:db8::1")
        .header("user-agent=me")
        .header("referer=http://x/");
    client.ask(asking).assert_status(200);
    client
        .ask(Asking::post("/sums", &[b'x'; 5000]))
        .assert_status(200);
    client.get("/status?404").assert_status(404);
    client.ask(Asking::head("/hello")).assert_status(200);
    server.expect_error("before anything");
    server.expect_error("the application failed");
    client.get("/fail").assert_status(500);
    client.ask(Asking::new(99, "/x")).assert_status(501);
    let lines = wait_lines(&server, 6);
    let expected = [
        ("GET", "/hello", 200, 6, "complete"),
        ("POST", "/sums", 200, -1, "complete"),
        ("GET", "/status", 404, -1, "complete"),
        ("HEAD", "/hello", 200, 0, "complete"),
        ("GET", "/fail", 500, -1, "failed"),
        ("?", "/x", 501, -1, "refused"),
    ];
    for (line, (method, path, status, bytes, outcome)) in lines.iter().zip(expected) {
        assert_eq!(line["method"], method, "{line}");
        assert_eq!(line["path"], path, "{line}");
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["outcome"], outcome, "{line}");
        let sent = line["bytes"].as_i64().expect("a number");
        assert!(bytes == sent || (bytes < 0 && sent > 0), "{line}");
        let total = line["total_ms"].as_f64().expect("a number");
        let app = line["app_ms"].as_f64().unwrap_or_default();
        assert!(total >= app, "{line}");
        assert_eq!(app > 0.0, outcome != "refused", "{line}");
    }
    let [first, second] = [&lines[0], &lines[1]];
    assert_eq!(first["peer"], "2001:db8::1", "{first}");
    assert_eq!(first["query"], "a=b", "{first}");
    assert_eq!(first["user_agent"], "me", "{first}");
    assert_eq!(first["referer"], "http://x/", "{first}");
    assert_ne!(
        second["peer"], "2001:db8::1",
        "the visitor of another request"
    );
}

/// The client has all of its answer while the application still runs, and asks again: this is heard by
/// whoever listens meanwhile.
#[test]
fn a_request_that_was_heard_while_another_ran_has_its_own_time_of_arrival() {
    if !ours() {
        return;
    }
    let (server, multi) = multi(logged());
    let mut client = multi.connect();
    let gate = server.gate("gate");
    client.get("/late-close").assert_text("all of it");
    server.notes.expect("closing");
    dawdle(Duration::from_secs(1));
    let asked = Instant::now();
    client.send(Asking::get("/hello").bytes());
    // So that it is.
    dawdle(Duration::from_millis(200));
    gate.open();
    client.answer().assert_status(200);
    let lines = wait_lines(&server, 2);
    let most = asked.elapsed().as_secs_f64() * 1000.0;
    let total = lines[1]["total_ms"].as_f64().expect("a number");
    assert!(total <= most, "{total} of {most} ms: {}", lines[1]);
    assert!(
        lines[0]["total_ms"].as_f64() >= Some(1000.0),
        "{}",
        lines[0]
    );
}

/// The time in the queue begins when all of the request is there.
#[test]
fn an_upload_that_takes_its_time_does_not_count_as_a_queue() {
    if !ours() {
        return;
    }
    let (server, multi) = multi(logged());
    let mut client = multi.connect();
    for ends_with_length in [false, true] {
        client.send(Asking::new(3, "/sums").opening());
        if !ends_with_length {
            client.send(number(LENGTH, 10));
        }
        client.put(b"12345");
        dawdle(Duration::from_secs(1));
        let complete = Instant::now();
        client.put(b"67890");
        if ends_with_length {
            client.send(number(LENGTH, 10));
        }
        client.answer().assert_status(200);
        let lines = wait_lines(&server, 1 + usize::from(ends_with_length));
        let most = complete.elapsed().as_secs_f64() * 1000.0;
        let line = lines.last().expect("there is one");
        assert!(line["queue_ms"].as_f64() <= Some(most), "{most}: {line}");
        assert!(line["total_ms"].as_f64() >= Some(500.0), "{line}");
    }
}

#[test]
fn what_the_client_did_not_take_is_in_the_access_log() {
    if !ours() {
        return;
    }
    let (server, multi) = multi(logged());
    let mut client = multi.connect();
    // Stopped in the middle of the response.
    client.send(Asking::get("/big?4000000").bytes());
    client.read_some(1000);
    client.send(packet(STOP, b""));
    let sent = client.stopped_after(1000);
    client.assert_idle();
    // Cut upload.
    client.send(Asking::new(3, "/sums").opening());
    client.send(number(PREMATURE, 0));
    client.answer().assert_status(400);
    // Gone in the middle of a response.
    client.send(Asking::get("/endless").bytes());
    client.read_some(1000);
    drop(client);
    server.notes.expect("closed");
    let lines = wait_lines(&server, 3);
    assert_eq!(lines[0]["outcome"], "aborted", "{}", lines[0]);
    assert_eq!(lines[0]["bytes"], sent, "{}", lines[0]);
    assert_eq!(lines[1]["status"], 400, "{}", lines[1]);
    assert_eq!(lines[2]["outcome"], "aborted", "{}", lines[2]);
    assert!(lines[2]["bytes"].as_u64() >= Some(1000), "{}", lines[2]);
}

#[test]
fn a_request_that_a_crash_has_ended_is_in_the_access_log() {
    if !ours() {
        return;
    }
    let (mut server, multi) = multi(logged());
    server.expect_error("worker");
    let mut client = multi.connect();
    client.send(Asking::get("/crash").with(REMOTE_HOST, "192.0.2.7").bytes());
    client.expect_closed();
    let lines = wait_lines(&server, 1);
    assert_eq!(lines[0]["outcome"], "crashed", "{}", lines[0]);
    assert_eq!(lines[0]["path"], "/crash", "{}", lines[0]);
    assert_eq!(lines[0]["peer"], "192.0.2.7", "{}", lines[0]);
}

#[test]
fn statistics_count_exchanges_bytes_and_connections() {
    if !ours() {
        return;
    }
    let (mut server, multi) = multi(Server::new().app("was_app"));
    let mut control = Control::of(&server, "was_app");
    let mut clients = [multi.connect(), multi.connect()];
    for client in &mut clients {
        client.get("/hello").assert_status(200);
        client.ask(Asking::post("/sums", &[b'x'; 5000]));
        assert_eq!(client.get("/big?100000").body.len(), 100_000);
        client.get("/status?404").assert_status(404);
    }
    server.expect_error("before anything");
    server.expect_error("the application failed");
    clients[0].get("/fail").assert_status(500);
    // The last response is counted when all of it has been taken.
    let stats = wait_until("the statistics", || {
        let stats = control.app();
        (stats["requests"]["status_5xx"] == 1
            && stats["bytes"]["sent_bytes"].as_u64() > Some(200_000))
        .then_some(stats)
    });
    let requests = &stats["requests"];
    assert_eq!(requests["total"], 9, "{requests}");
    assert_eq!(requests["status_2xx"], 6, "{requests}");
    assert_eq!(requests["status_4xx"], 2, "{requests}");
    assert_eq!(requests["status_5xx"], 1, "{requests}");
    assert_eq!(stats["connections"]["open"], 2, "{}", stats["connections"]);
    assert!(
        stats["bytes"]["received_bytes"].as_u64() > Some(10_000),
        "{}",
        stats["bytes"]
    );
    assert!(
        stats["latency"]["count"].as_u64() >= Some(8),
        "{}",
        stats["latency"]
    );
    // Who runs what.
    let gate = server.gate("gate0");
    let asking = Asking::get("/meet?gate0").with(REMOTE_HOST, "192.0.2.9");
    clients[1].send(asking.bytes());
    server.notes.expect("arrived");
    let worker = control.app()["workers"][0].clone();
    assert_eq!(worker["state"], "running", "{worker}");
    let text = worker.to_string();
    assert!(
        text.contains("/meet?gate0") && text.contains("192.0.2.9"),
        "{text}"
    );
    gate.open();
    clients[1].answer().assert_status(200);
}
