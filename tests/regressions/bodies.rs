//! Responses made in unusual ways, and how they are framed.

use super::{assert_serves_on, hostile, ours, worker};
use crate::support::client::{Asked, Framing, Over};
use crate::support::{Client, Response, Running, Server};

/// What write() has sent and then a file, of several sizes, asked for by `ask`.
#[track_caller]
fn file_after_write(ask: impl Fn(&mut Client, usize) -> Response) {
    for size in [300, 0, 3_000_000] {
        let content = "D".repeat(size);
        let server = hostile().file("served", &content).start();
        let worker = worker(&server);
        let response = ask(&mut server.connect(), size);
        response.assert_status(200);
        let right = response.body == format!("x{content}").as_bytes();
        assert!(right, "{} bytes for {size}", response.body.len());
        assert_serves_on(&server, worker);
    }
}

#[test]
fn a_file_after_write_continues_a_chunked_body() {
    if !ours() {
        return;
    }
    file_after_write(|client, _| {
        let response = client.get("/write-then-file");
        assert_eq!(response.framing, Framing::Chunked);
        client.get("/pid").assert_status(200);
        response
    });
}

#[test]
fn a_file_after_write_continues_a_body_of_known_length() {
    if !ours() {
        return;
    }
    file_after_write(|client, size| {
        let response = client.get(&format!("/write-then-file?{}", size + 1));
        assert_eq!(response.framing, Framing::Length(size + 1));
        client.get("/pid").assert_status(200);
        response
    });
}

#[test]
fn a_file_after_write_continues_a_body_up_to_the_end_of_the_connection() {
    if !ours() {
        return;
    }
    file_after_write(|client, _| {
        client.send("GET /write-then-file HTTP/1.0\r\n\r\n");
        let response = client.response_to(Asked::Old);
        assert_eq!(response.framing, Framing::UntilEnd);
        response
    });
}

#[test]
fn a_file_object_that_decodes_is_read_and_not_its_descriptor() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let mut client = server.connect();
    client
        .get("/gzip")
        .assert_text(&"to be compressed ".repeat(10_000));
    client.get("/pid").assert_status(200);
}

#[track_caller]
fn assert_sent_whole(path: &str) {
    let content = std::fs::read_to_string(path).expect("every Linux has this file");
    let server = hostile().start();
    let mut client = server.connect();
    client.get(&format!("/file?{path}")).assert_text(&content);
    client.get("/pid").assert_status(200);
}

#[test]
fn a_file_that_seems_empty_is_sent_whole() {
    if ours() {
        assert_sent_whole("/proc/version"); // proc(5) gives the size 0
    }
}

#[test]
fn a_file_that_is_shorter_than_it_seems_is_sent_whole() {
    if ours() {
        assert_sent_whole("/sys/devices/system/cpu/possible"); // sysfs(5) gives the size of a page
    }
}

#[test]
fn exc_info_may_be_given_by_keyword() {
    let server = hostile().start();
    server.get("/keyword").assert_text("by keyword");
}

#[test]
fn an_iterable_that_yields_more_than_its_length_is_logged() {
    if !ours() {
        return;
    }
    let server = hostile().expect_error("len()").start();
    let mut client = server.connect();
    client.send("GET /two-for-one HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response().assert_text("one");
    server.log.wait_for("len()");
    server.get("/pid").assert_status(200);
}

/// A request that has been answered and a stray CR LF behind its body (RFC 9112 §2.2).
#[track_caller]
fn with_stray_line_end(server: Server) -> (Running, Client) {
    let server = server.start();
    let mut client = server.connect();
    client.send("POST /pid HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody\r\n");
    client.response().assert_status(200);
    client.wait_consumed();
    (server, client)
}

fn limits(keep_alive: &str) -> Server {
    let server = hostile().arg("--head-timeout", "2s");
    server.arg("--keep-alive", keep_alive)
}

#[test]
fn a_stray_line_end_behind_a_body_is_not_the_start_of_a_request() {
    if !ours() {
        return;
    }
    let (_server, mut client) = with_stray_line_end(limits("4s"));
    client.expect_end(); // idle, it ends without a word
}

/// The limit for heads has passed for something that came later, and the connection still serves.
#[track_caller]
fn assert_outlives_the_limit_for_heads(server: &Running, mut client: Client) {
    let mut other = server.connect();
    other.send("GET /pid HTTP/1.1\r\n");
    other.response().assert_status(408);
    client.get("/pid").assert_status(200);
}

#[test]
fn a_stray_line_end_behind_a_body_leaves_the_connection_open() {
    if !ours() {
        return;
    }
    let (server, client) = with_stray_line_end(limits("1h"));
    assert_outlives_the_limit_for_heads(&server, client);
}

#[test]
fn a_stray_line_end_in_two_pieces_leaves_the_connection_open() {
    if !ours() {
        return;
    }
    let server = limits("1h").start();
    let mut client = server.connect();
    client.get("/pid").assert_status(200);
    for piece in ["\r", "\n"] {
        client.send(piece);
        client.wait_consumed();
    }
    assert_outlives_the_limit_for_heads(&server, client);
}

#[test]
fn a_stray_line_end_behind_a_body_does_not_delay_the_stop() {
    if !ours() {
        return;
    }
    let server = hostile().arg("--head-timeout", "1h");
    let (server, mut client) = with_stray_line_end(server.arg("--graceful-timeout", "1h"));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    client.expect_end();
    server.finish();
}

#[test]
fn a_response_of_unknown_length_that_is_cut_ends_with_a_reset() {
    if !ours() {
        return;
    }
    let server = hostile().arg("--send-timeout", "1s").start();
    let mut stopped = server.connect();
    stopped.send("GET /endless HTTP/1.0\r\n\r\n");
    assert_eq!(stopped.head(Asked::Old).framing, Framing::UntilEnd);
    server.notes.expect("closed");
    let (_, over) = stopped.read_until_end_or_reset();
    assert_eq!(over, Over::Reset, "an end would say that the body is whole");
    server.get("/pid").assert_status(200);
}
