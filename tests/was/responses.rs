//! What may be said in responses, and when they are over.

use super::{multi, one, ours};
use crate::support::Server;
use crate::support::was_client::*;

#[test]
fn head_and_statuses_without_a_body_get_no_data() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let answer = client.ask(Asking::head("/hello"));
    assert_eq!((answer.status, answer.end), (200, End::NoData));
    let answer = client.ask(Asking::head("/length-only"));
    assert_eq!(answer.header("content-length"), Some("4711"));
    assert_eq!(answer.end, End::NoData);
    for status in ["204", "205", "304"] {
        for path in ["status", "status-with-length"] {
            for asking in [Asking::get, Asking::head] {
                let answer = client.ask(asking(&format!("/{path}?{status}")));
                answer.assert_status(status.parse().expect("a number"));
                assert_eq!(answer.end, End::NoData);
            }
        }
    }
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn statuses_that_clients_do_not_know_become_those_of_their_class() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    for (status, sent) in [
        ("299", 200),
        ("418", 418),
        ("420", 400),
        ("599", 500),
        ("207", 207),
    ] {
        let answer = client.get(&format!("/status?{status}"));
        answer.assert_status(sent).assert_text("with that status");
    }
    server.log.wait_for("status 299 was sent as 200");
}

/// As a final status, an interim one makes a browser wait for ever.
#[test]
fn an_interim_status_is_an_error_of_the_application() {
    if !ours() {
        return;
    }
    let (mut server, _multi, mut client) = one();
    server.expect_error("the application failed");
    server.expect_error("ValueError");
    for status in ["100", "101", "103", "199"] {
        for asking in [Asking::get, Asking::head] {
            let answer = client.ask(asking(&format!("/status?{status}")));
            answer.assert_status(500);
        }
    }
    server.log.wait_for("interim");
    client.get("/hello").assert_status(200);
}

#[test]
fn the_length_comes_with_data_where_it_is_known() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for (path, at_once) in [
        ("/length-one", true),
        ("/list-of-many", true),
        ("/empty", true),
        ("/big-length?5000", true),
        ("/length-many", false),
        ("/empty-generator", true),
    ] {
        let answer = client.get(path);
        assert_eq!(answer.end, End::Complete, "{path}");
        // What comes in two pieces may be read as one.
        assert!(answer.length_at_once || !at_once, "{path}");
    }
}

/// Bytes as strace shows them with `-xx`.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// A client that has the head without the length waits for it before it goes on.
#[test]
fn status_headers_and_length_leave_in_one_system_call() {
    if !ours() {
        return;
    }
    let mut strace = std::process::Command::new("strace");
    let traces = strace.args(["-qq", "-o", "/dev/null", "true"]).output();
    if !traces.is_ok_and(|output| output.status.success()) {
        return crate::support::skip("strace is missing, or not allowed");
    }
    let server = Server::new().app("was_app");
    let trace = server.dir().join("trace");
    let path = trace.to_str().expect("a path of ASCII");
    let traced = ["strace", "-f", "-qq", "-xx", "-s", "4096", "-o", path, "-e"];
    let server = server.within(&[&traced[..], &["trace=sendto,sendmsg,splice"]].concat());
    let (server, multi) = multi(server);
    let mut client = multi.connect();
    let paths = ["/length-one", "/list-of-many", "/empty", "/big-length?5000"];
    for path in paths {
        assert_eq!(client.get(path).end, End::Complete, "{path}");
    }
    std::fs::write(server.dir().join("served"), [b'x'; 10_000]).expect("write a file");
    assert_eq!(client.get("/file").body.len(), 10_000);
    let head = shown(&packet(STATUS, 200u32.to_ne_bytes()));
    let data = shown(&packet(DATA, b""));
    let length = shown(&number(LENGTH, 0)[..4]);
    let calls = crate::support::wait_until("the trace", || {
        let text = std::fs::read_to_string(&trace).ok()?;
        let sends = text.lines().filter(|line| line.contains(&head)).count();
        (sends > paths.len() && text.contains("splice(")).then_some(text)
    });
    let heads = calls.lines().filter(|line| line.contains(&head));
    for line in heads {
        assert!(line.contains(&data) && line.contains(&length), "{line}");
    }
}

#[test]
fn headers_are_passed_on_as_they_are() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let answer = client.get("/cookies");
    let all: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        all,
        [
            "content-type=text/plain",
            "set-cookie=a=1",
            "set-cookie=b=2",
            "server=mine",
            "x-name=caf\u{fffd}"
        ]
    );
}

#[test]
fn headers_that_the_client_does_not_take_are_an_error_of_the_application() {
    if !ours() {
        return;
    }
    let (mut server, _multi, mut client) = one();
    server.expect_error("the application failed");
    server.expect_error("ValueError");
    client.get("/headers?8191").assert_status(200);
    client.get("/headers?8192").assert_status(500);
    client.get("/headers?8000,8").assert_status(200);
    client.get("/headers?8000,9").assert_status(500);
    client.get("/hello").assert_status(200);
    server
        .log
        .wait_for("header 'X' has 8192 bytes, a WAS client takes 8191");
    server.log.wait_for("a WAS client takes 65535");
}

#[test]
fn large_bodies_go_through_a_small_pipe() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for path in ["/big?5000000", "/big-length?5000000"] {
        let answer = client.get(path);
        assert_eq!((answer.body.len(), answer.end), (5_000_000, End::Complete));
        assert!(answer.length_at_once);
    }
}

#[test]
fn a_file_goes_into_the_pipe_without_a_copy() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    std::fs::write(server.dir().join("served"), &content).expect("write a file");
    let answer = client.get("/file");
    assert!(answer.body == content && answer.length_at_once);
    let answer = client.get("/file?1000001");
    assert!(answer.body == content[1_000_001..]);
    let answer = client.get("/file-with-length?5");
    assert!(answer.body == content[..5]);
    let answer = client.get("/file-after-write");
    assert!(answer.body[8..] == content);
    assert_eq!(client.ask(Asking::head("/file")).end, End::NoData);
    client.get("/hello").assert_text("hello\n");
}

/// What the kernel counts as written by write(2) and its kin: splice(2) is none of them (proc_pid_io(5)).
fn written(pid: crate::support::Pid) -> u64 {
    let counters = std::fs::read_to_string(format!("/proc/{}/io", pid.number));
    let counters = counters.expect("a process of ours");
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|number| number.parse().ok())
        .expect("a number")
}

#[test]
fn a_file_goes_into_the_pipe_by_splice_and_a_body_in_memory_by_write() {
    if !ours() {
        return;
    }
    const SIZE: u64 = 3_000_000;
    let (server, _multi, mut client) = one();
    std::fs::write(server.dir().join("served"), vec![b'x'; SIZE as usize]).expect("write a file");
    let worker = server.workers()[0];
    for (path, is_written) in [("/file", false), ("/big?3000000", true), ("/file", false)] {
        let before = written(worker);
        assert_eq!(client.get(path).body.len() as u64, SIZE);
        let more = written(worker) - before;
        assert_eq!(
            more >= SIZE,
            is_written,
            "{path}: {more} bytes were written"
        );
        assert!(
            is_written || more < 10_000,
            "{path}: {more} bytes were written"
        );
    }
}

#[test]
fn a_slow_reader_does_not_occupy_the_worker() {
    if !ours() {
        return;
    }
    let (_server, multi, mut slow) = one();
    slow.send(Asking::get("/big-length?3000000").bytes());
    slow.read_some(10);
    let mut quick = multi.connect();
    quick.get("/hello").assert_text("hello\n");
    slow.read_some(2_999_990);
    quick.get("/hello").assert_text("hello\n");
}

#[test]
fn printing_goes_to_the_log() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    client.get("/printing").assert_text("clean");
    client.get("/hello").assert_text("hello\n");
    server.log.wait_for("printed by the application");
    server.log.wait_for("printed by a child");
}

#[test]
fn metrics_come_when_they_are_asked_for() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for asking in [
        Asking::get("/hello"),
        Asking::get("/length-many"),
        Asking::head("/hello"),
        Asking::get("/status?304"),
    ] {
        let plain = client.ask(asking.clone());
        assert!(plain.metrics.is_empty());
        let counted = client.ask(asking.with(METRIC, b""));
        let names: Vec<_> = counted
            .metrics
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["rswsgi_requests", "rswsgi_python_seconds"]);
        assert_eq!(counted.metrics[0].1, 1.0);
        let place = |command| counted.commands.iter().position(|other| *other == command);
        assert!(place(METRIC) < place(LENGTH).or(place(NO_DATA)));
    }
}
