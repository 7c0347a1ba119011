//! Sizes and times: what is too much, and that what is just enough is served.

use super::{assert_never_called, basic};
use crate::support::{Running, Server, only_rswsgi};
use std::time::{Duration, Instant};

fn limited(name: &str, value: &str) -> Running {
    Server::new().app("basic").arg(name, value).start()
}

/// As [`super::assert_refused`], but the client may still be sending when it is refused.
#[track_caller]
fn assert_refused_while_sending(server: &Running, bytes: Vec<u8>, status: u16) {
    let mut client = server.connect();
    let mut sender = client.second();
    let sending = std::thread::spawn(move || sender.try_send(bytes).is_ok());
    client.response().assert_status(status);
    client.read_until_over();
    let _ = sending.join().expect("sending does not panic"); // refused bytes may or may not have been taken
    assert_never_called(server);
}

#[test]
fn a_request_line_over_the_limit_is_414() {
    let server = basic();
    let line = |length: usize| {
        format!(
            "GET /hello?{} HTTP/1.1\r\nHost: test\r\n\r\n",
            "q".repeat(length)
        )
    };
    let mut client = server.connect();
    client.send(line(8000 - 30));
    assert!(
        matches!(client.response().status, 200),
        "8000 bytes are within 8 KiB"
    );
    super::assert_refused(&server, line(8192), 414);
    assert_refused_while_sending(&server, line(1 << 20).into_bytes(), 414);
    // Without an end: it is refused when it is too long, not when it ends.
    assert_refused_while_sending(&server, [b"GET /".as_slice(), &[b'x'; 9000]].concat(), 414);
}

#[test]
fn the_limit_of_the_request_line_can_be_set() {
    if !only_rswsgi("--limit-request-line") {
        return;
    }
    let server = limited("--limit-request-line", "512");
    let line = |length: usize| {
        format!(
            "GET /hello?{} HTTP/1.1\r\nHost: test\r\n\r\n",
            "q".repeat(length)
        )
    };
    let mut client = server.connect();
    client.send(line(400));
    client.response().assert_text("hello\n");
    super::assert_refused(&server, line(600), 414);
}

fn with_fields(count: usize, value: usize) -> Vec<u8> {
    let mut request = String::from("GET /hello HTTP/1.1\r\nHost: test\r\n");
    for number in 1..count {
        request.push_str(&format!("X-{number}: {}\r\n", "v".repeat(value)));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

#[test]
fn more_than_a_hundred_fields_are_431() {
    let server = basic();
    let mut client = server.connect();
    client.send(with_fields(100, 1));
    client.response().assert_text("hello\n");
    super::assert_refused(&server, with_fields(101, 1), 431);
    assert_refused_while_sending(&server, with_fields(2000, 1), 431);
}

#[test]
fn a_header_block_over_64_kib_is_431() {
    if !only_rswsgi("a limit of the whole block") {
        return;
    }
    let server = basic();
    let mut client = server.connect();
    client.send(with_fields(60, 1000));
    client.response().assert_text("hello\n");
    client.send(with_fields(2, 60_000));
    client.response().assert_text("hello\n");
    assert_refused_while_sending(&server, with_fields(2, 70_000), 431);
    assert_refused_while_sending(&server, with_fields(80, 1000), 431);
    // Without an end: refused when it is too much, not when it ends.
    let endless = [
        b"GET / HTTP/1.1\r\nHost: test\r\nX: ".as_slice(),
        &[b'v'; 80_000],
    ]
    .concat();
    assert_refused_while_sending(&server, endless, 431);
}

#[test]
fn the_limits_of_the_head_can_be_set() {
    if !only_rswsgi("--limit-head, --limit-fields") {
        return;
    }
    let server = Server::new()
        .app("basic")
        .arg("--limit-request-line", "1k")
        .arg("--limit-head", "2k")
        .arg("--limit-fields", "10")
        .start();
    let mut client = server.connect();
    client.send(with_fields(10, 100));
    client.response().assert_text("hello\n");
    super::assert_refused(&server, with_fields(11, 1), 431);
    super::assert_refused(&server, with_fields(3, 1500), 431);
}

#[test]
fn a_content_length_over_the_limit_is_413_before_the_body() {
    if !only_rswsgi("--max-body") {
        return;
    }
    let server = limited("--max-body", "1k");
    server
        .connect()
        .post("/echo", &[b'x'; 1024])
        .assert_text(&"x".repeat(1024));
    super::assert_refused(
        &server,
        "POST /called HTTP/1.1\r\nHost: test\r\nContent-Length: 1025\r\n\r\n",
        413,
    );
    let huge = "POST /called HTTP/1.1\r\nHost: test\r\nContent-Length: 9223372036854775807\r\n\r\n";
    super::assert_refused(&server, huge, 413);
}

#[test]
fn a_chunked_body_over_the_limit_is_413_when_it_grows() {
    if !only_rswsgi("--max-body") {
        return;
    }
    let server = limited("--max-body", "1k");
    let head = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |size: usize| format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let mut client = server.connect();
    client.send(format!("{head}{}{}0\r\n\r\n", chunk(512), chunk(512)));
    client.response().assert_text(&"x".repeat(1024));
    let mut client = server.connect();
    client.send(format!("{head}{}", chunk(512)));
    client.send(chunk(513));
    client.response().assert_status(413);
    client.expect_end();
    // The size alone is enough, before its data.
    let mut client = server.connect();
    client.send(format!("{head}400000\r\n"));
    client.response().assert_status(413);
    client.expect_end();
}

#[test]
fn a_client_that_is_still_sending_its_body_reads_the_413() {
    if !only_rswsgi("--max-body") {
        return;
    }
    let server = Server::new()
        .app("basic")
        .arg("--max-body", "64k")
        .tcp()
        .unix()
        .start();
    for listener in [0, 1] {
        for round in 0..10 {
            let mut client = server.connect_to(listener);
            let mut sender = client.second();
            let sending = std::thread::spawn(move || {
                let _ = sender.try_send(
                    "POST /called HTTP/1.1\r\nHost: test\r\nContent-Length: 20000000\r\n\r\n",
                );
                let _ = sender.try_send(vec![b'x'; 2_000_000]); // the server may stop listening at any time
            });
            let response = client.response();
            assert_eq!(response.status, 413, "round {round} on listener {listener}");
            client.read_until_over();
            sending.join().expect("sending does not panic");
        }
    }
    assert_never_called(&server);
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_408() {
    if !only_rswsgi("--head-timeout") {
        return;
    }
    let server = limited("--head-timeout", "1s");
    let began = Instant::now();
    let mut client = server.connect();
    client.send("GET /called HTTP/1.1\r\nHost: te");
    client.response().assert_status(408);
    client.expect_end();
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "too early: {:?}",
        began.elapsed()
    );
    assert_never_called(&server);
}

#[test]
fn a_head_that_trickles_in_is_408_all_the_same() {
    if !only_rswsgi("--head-timeout") {
        return;
    }
    let server = limited("--head-timeout", "1s");
    let mut client = server.connect();
    let head = format!(
        "GET /called HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n",
        "x".repeat(2000)
    );
    client.trickle(head.as_bytes(), Duration::from_millis(50));
    client.response().assert_status(408);
    assert_never_called(&server);
}

#[test]
fn a_head_in_pieces_within_the_limit_is_served() {
    if !only_rswsgi("--head-timeout") {
        return;
    }
    let server = limited("--head-timeout", "20s");
    let mut client = server.connect();
    client.trickle(
        b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n",
        Duration::from_millis(10),
    );
    client.response().assert_text("hello\n");
}

#[test]
fn the_time_for_a_head_starts_with_each_request() {
    if !only_rswsgi("--head-timeout") {
        return;
    }
    let server = limited("--head-timeout", "5s");
    let mut client = server.connect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        client.trickle(
            b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n",
            Duration::from_millis(5),
        );
        client.response().assert_text("hello\n");
    }
}

#[test]
fn a_body_without_progress_is_given_up() {
    if !only_rswsgi("--body-timeout") {
        return;
    }
    let server = limited("--body-timeout", "1s");
    for framing in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        let began = Instant::now();
        let mut client = server.connect();
        client.send(format!("POST /called HTTP/1.1\r\nHost: test\r\n{framing}"));
        client.response().assert_status(408);
        client.expect_end();
        assert!(
            began.elapsed() >= Duration::from_millis(900),
            "too early: {:?}",
            began.elapsed()
        );
    }
    assert_never_called(&server);
}

#[test]
fn a_slow_body_with_progress_is_served() {
    if !only_rswsgi("--body-timeout") {
        return;
    }
    let server = limited("--body-timeout", "3s");
    let body = [b'x'; 40];
    let mut client = server.connect();
    client.send(format!(
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    // Longer than the limit in all, far shorter between two bytes.
    client.trickle(&body, Duration::from_millis(100));
    client.response().assert_text(&"x".repeat(40));
}

#[test]
fn an_idle_connection_is_closed_after_keep_alive_and_not_before() {
    if !only_rswsgi("--keep-alive takes a duration") {
        return;
    }
    let server = limited("--keep-alive", "1s");
    let mut client = server.connect();
    client.get("/hello").assert_text("hello\n");
    let idle_since = Instant::now();
    client.get("/hello").assert_text("hello\n");
    client.expect_end();
    assert!(
        idle_since.elapsed() >= Duration::from_millis(900),
        "too early: {:?}",
        idle_since.elapsed()
    );
}

#[test]
fn a_request_that_runs_longer_than_keep_alive_is_answered() {
    if !only_rswsgi("--keep-alive takes a duration") {
        return;
    }
    let server = limited("--keep-alive", "100ms");
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(server.notes.next().starts_with("waiting"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(50));
    }
    gate.open();
    client.response().assert_status(200);
}

#[test]
fn keep_alive_zero_closes_after_each_response() {
    if !only_rswsgi("--keep-alive takes a duration") {
        return;
    }
    let server = limited("--keep-alive", "0");
    let mut client = server.connect();
    let response = client.get("/hello");
    assert!(response.says_close(), "{response:?}");
    client.expect_end();
}
