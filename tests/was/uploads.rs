//! Request bodies: complete ones reach the application, others never do.

use super::{one, ours, with};
use crate::support::Server;
use crate::support::was_client::*;

#[test]
fn bodies_of_every_size_are_received() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for size in [0, 1, 70_000, 1_048_576, 1_048_577, 3_000_000] {
        let body = vec![b'x'; size];
        let answer = client.ask(Asking::post("/sums", &body));
        let length = answer.text();
        assert!(length.starts_with(&format!("{size} ")), "{length}");
    }
}

#[test]
fn the_length_may_come_before_in_the_middle_or_at_the_end() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let body = vec![b'y'; 300_000];
    for at in [0, 1, 150_000, 300_000] {
        client.send(Asking::new(3, "/sums").opening());
        client.put(&body[..at]);
        client.send(number(LENGTH, 300_000));
        client.put(&body[at..]);
        assert!(client.answer().text().starts_with("300000 "));
        client.assert_idle();
    }
}

#[test]
fn a_body_that_nobody_reads_is_gone_before_the_response_ends() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for _ in 0..50 {
        let answer = client.ask(Asking::post("/unread", &[b'z'; 100_000]));
        answer.assert_text("not read");
        assert!(!answer.stopped, "a body that has come is not stopped");
    }
}

/// The client gives up: the application does not see a part, the client gets an answer.
#[test]
fn a_premature_end_never_reaches_the_application() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    for (put, announced) in [
        (0, None),
        (10, None),
        (10, Some(1000)),
        (200_000, Some(5_000_000)),
    ] {
        client.send(Asking::new(3, "/body-or-close").opening());
        if let Some(announced) = announced {
            client.send(number(LENGTH, announced));
        }
        client.put(&vec![b'p'; put]);
        client.send(number(PREMATURE, put as u64));
        client.answer().assert_status(400);
        client.assert_idle();
    }
    let answer = client.ask(Asking::post("/body-or-close", b"whole"));
    answer.assert_text("ok");
    server.notes.expect("read 5");
    assert!(server.notes.so_far().is_empty());
}

/// The server says STOP, the client how much it has sent; then comes the response.
#[test]
fn a_large_body_is_stopped() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = with(Server::new().arg("--max-body", "100k"));
    for announced in [Some(50_000_000), None] {
        client.send(Asking::new(3, "/hello").opening());
        if let Some(announced) = announced {
            client.send(number(LENGTH, announced));
        }
        let mut put = client.put_some(&vec![b'x'; 60_000]) as u64;
        if announced.is_none() {
            client.put(&vec![b'x'; 100_000]);
            put += 100_000;
        }
        let stopped = client.answer();
        assert!(stopped.stopped, "{stopped:?}");
        client.send(number(PREMATURE, put));
        client.answer().assert_status(413);
        client.assert_idle();
    }
    // The client had finished when STOP came: it says LENGTH, or has said it.
    client.send(Asking::new(3, "/hello").opening());
    client.put(&vec![b'x'; 150_000]);
    assert!(client.answer().stopped);
    client.send(number(LENGTH, 150_000));
    client.answer().assert_status(413);
    client.assert_idle();
    client.get("/hello").assert_status(200);
}

#[test]
fn a_refused_request_with_a_small_body_is_not_stopped() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = with(Server::new().arg("--max-body", "1k"));
    for size in [2000, 200_000] {
        let answer = client.ask(Asking::post("/hello", &vec![b'x'; size]));
        answer.assert_status(413);
        assert!(!answer.stopped);
    }
    let mut unknown = Asking::post("/hello", b"body");
    unknown = unknown.with(METHOD, 3u32.to_ne_bytes());
    client.ask(unknown).assert_status(200);
    client.send(Asking::new(99, "/hello").opening());
    client.send(number(LENGTH, 4));
    client.put(b"body");
    client.answer().assert_status(501);
    client.assert_idle();
}

#[test]
fn a_body_that_does_not_come_is_408() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = with(Server::new().arg("--body-timeout", "1s"));
    client.send(Asking::new(3, "/hello").opening());
    client.put(b"some");
    assert!(client.answer().stopped);
    client.send(number(PREMATURE, 4));
    client.answer().assert_status(408);
    client.assert_idle();
    client.get("/hello").assert_status(200);
}

/// 6 connections, 1500 requests each, as in the test of the production client.
#[test]
fn many_ignored_bodies_lose_no_connection() {
    if !ours() {
        return;
    }
    // `RSWSGI_TEST_LONG=1` (continuous integration) is the number that is promised.
    let rounds = match std::env::var_os("RSWSGI_TEST_LONG").is_some_and(|value| value == "1") {
        true => 1500,
        false => 500,
    };
    let (_server, multi, mut first) = one();
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let mut client = multi.connect();
            std::thread::spawn(move || {
                for round in 0..rounds {
                    let size = [0, 5, 5000, 100_000][round % 4];
                    let answer = client.ask(Asking::post("/unread", &vec![b'x'; size]));
                    answer.assert_text("not read");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("all answers are right");
    }
    first.get("/hello").assert_status(200);
}
