//! Clients that want no more: STOP at every point.

use super::{one, ours, with};
use crate::support::Server;
use crate::support::was_client::*;

#[test]
fn a_stop_before_the_application_runs() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    for _ in 0..3 {
        // With the request: it is not served.
        let mut bytes = Asking::get("/body-or-close").bytes();
        bytes.extend(packet(STOP, b""));
        client.send(&bytes);
        assert_eq!(client.stopped_after(0), 0);
        client.assert_idle();
    }
    client.get("/hello").assert_status(200);
    assert!(server.notes.so_far().is_empty());
}

#[test]
fn a_stop_while_the_body_is_sent() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    for known in [true, false] {
        client.send(Asking::new(3, "/body-or-close").opening());
        if known {
            client.send(number(LENGTH, 1_000_000));
        }
        client.put(b"some of it");
        client.send(packet(STOP, b""));
        client.send(number(PREMATURE, 10));
        assert_eq!(client.stopped_after(0), 0);
        client.get("/hello").assert_status(200);
    }
    assert!(server.notes.so_far().is_empty());
}

#[test]
fn a_stop_between_two_blocks_closes_the_iterator() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    let gate = server.gate("gate");
    client.send(Asking::get("/slow-blocks").bytes());
    assert_eq!(client.read_some(5), b"first");
    server.notes.expect("between");
    client.send(packet(STOP, b""));
    gate.open();
    // It had read five bytes.
    let sent = client.stopped_after(5);
    assert_eq!(sent, 5);
    server.notes.expect("closed");
    client.get("/hello").assert_status(200);
}

#[test]
fn a_stop_while_an_iterator_waits_for_its_reader() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    for _ in 0..3 {
        client.send(Asking::get("/endless").bytes());
        client.read_some(100_000);
        client.send(packet(STOP, b""));
        let sent = client.stopped_after(100_000);
        assert!(sent >= 100_000);
        server.notes.expect("closed");
        client.assert_idle();
    }
    client.get("/hello").assert_status(200);
}

#[test]
fn what_a_client_says_does_not_shorten_its_time() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = with(Server::new().arg("--send-timeout", "30s"));
    client.send(Asking::get("/endless").bytes());
    client.read_some(100_000);
    // Each of them wakes the server, which waits in steps of a tenth of a second.
    for _ in 0..1000 {
        client.send(packet(NOP, b""));
        dawdle(std::time::Duration::from_millis(1));
    }
    // More than was in the pipe: it was not given up.
    let read = client.read_some(5_000_000).len() as u64;
    assert_eq!(read, 5_000_000);
    drop(client);
    server.notes.expect("closed");
}

#[test]
fn a_stop_while_the_rest_waits_for_the_pipe() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for path in ["/big?5000000", "/big-length?5000000"] {
        client.send(Asking::get(path).bytes());
        client.read_some(1000);
        client.send(packet(STOP, b""));
        let sent = client.stopped_after(1000);
        assert!((1000..5_000_000).contains(&sent), "{sent}");
        client.assert_idle();
        client.get("/hello").assert_status(200);
    }
}

#[test]
fn a_stop_after_the_end_is_answered_with_the_old_count() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for (path, count) in [
        ("/hello", 6),
        ("/length-many", 14),
        ("/status?304", 0),
        ("/big?100000", 100_000),
    ] {
        client.get(path);
        client.send(packet(STOP, b""));
        assert_eq!(client.stopped_after(count), count, "{path}");
        client.assert_idle();
        client.get("/hello").assert_status(200);
    }
}

#[test]
fn a_second_stop_is_not_answered_again() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    client.get("/hello");
    client.send([packet(STOP, b""), packet(STOP, b"")].concat());
    assert_eq!(client.stopped_after(6), 6);
    client.get("/hello").assert_status(200);
}

#[test]
fn a_client_that_leaves_in_the_middle_closes_the_iterator() {
    if !ours() {
        return;
    }
    let (server, multi, mut client) = one();
    client.send(Asking::get("/endless").bytes());
    client.read_some(100_000);
    drop(client);
    server.notes.expect("closed");
    multi.connect().get("/hello").assert_status(200);
}

/// Whatever the moment, the answer is exact, and the next exchange is right.
#[test]
fn stops_at_random_moments_keep_the_connection_in_step() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let paths = [
        "/hello",
        "/length-many",
        "/big?300000",
        "/list-of-many",
        "/status?204",
    ];
    for round in 0..400u32 {
        let path = paths[round as usize % paths.len()];
        client.send(Asking::get(path).bytes());
        for _ in 0..(round * 7919) % 300 {
            std::thread::yield_now();
        }
        client.send(packet(STOP, b""));
        client.stopped_after(0);
        client.assert_idle();
        if round % 10 == 0 {
            client.get("/hello").assert_text("hello\n");
        }
    }
}
