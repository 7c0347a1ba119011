//! What an application answers and how it arrives.

use super::{over_was, rules};
use crate::support::client::{Asked, Framing};
use crate::support::{Server, UnderTest, only_rswsgi, under_test};

#[test]
fn a_single_block_gets_a_content_length() {
    let server = rules();
    let mut client = server.connect();
    let response = client.get("/length-one");
    response.assert_text("one block");
    let ours = under_test() == UnderTest::Rswsgi;
    assert!(
        !ours || response.framing == Framing::Length(9),
        "{response:?}"
    );
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn several_blocks_are_chunked_and_an_empty_one_does_not_end_them() {
    if over_was() {
        return;
    }
    let server = rules();
    let mut client = server.connect();
    let response = client.get("/length-many");
    response.assert_text("several blocks");
    assert_eq!(response.framing, Framing::Chunked);
    client.get("/list-of-many").assert_text("a list of blocks");
    client.get("/subclass").assert_text("subclass");
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn an_http_1_0_body_of_unknown_length_ends_with_the_connection() {
    if over_was() {
        return;
    }
    let server = rules();
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut client = server.connect();
        client.send(format!("GET /length-many HTTP/1.0\r\n{keep_alive}\r\n"));
        let response = client.response_to(Asked::Old);
        response.assert_text("several blocks");
        assert_eq!(response.framing, Framing::UntilEnd);
    }
}

#[test]
fn a_body_of_unknown_length_may_end_before_the_client_reads_it() {
    let server = Server::new().app("rules").unix().start();
    for asked in [Asked::Old, Asked::Plain] {
        let mut client = server.connect();
        let version = if asked == Asked::Old { "1.0" } else { "1.1" };
        client.send(format!(
            "GET /waiting HTTP/{version}\r\nHost: test\r\nConnection: close\r\n\r\n"
        ));
        server.notes.expect("all is given");
        let response = client.response_to(asked);
        assert!(response.body == [b'x'; 800_000]);
        client.expect_end();
    }
}

#[test]
fn an_empty_iterable_is_an_empty_body() {
    let server = rules();
    let mut client = server.connect();
    for path in ["/empty", "/empty-generator"] {
        client.get(path).assert_text("");
    }
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn blocks_are_sent_as_they_are_yielded() {
    let server = rules();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /steps HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head(Asked::Plain).framing, Framing::Chunked);
    assert_eq!(client.chunk().as_deref(), Some(b"first ".as_slice()));
    gate.open(); // the second block is only made now
    assert_eq!(client.chunk().as_deref(), Some(b"second".as_slice()));
    assert_eq!(client.chunk(), None);
    server.notes.expect("closed");
}

#[test]
fn write_sends_at_once() {
    let server = rules();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /write HTTP/1.1\r\nHost: test\r\n\r\n");
    client.head(Asked::Plain);
    assert_eq!(client.chunk().as_deref(), Some(b"by write, ".as_slice()));
    server.notes.expect("written");
    gate.open();
    let rest: Vec<u8> = std::iter::from_fn(|| client.chunk()).flatten().collect();
    assert_eq!(rest, b"again, by iterable");
    client.get("/write-length").assert_text("1234567890");
}

#[test]
fn start_response_may_be_called_in_a_generator() {
    let server = rules();
    let mut client = server.connect();
    let response = client.get("/late");
    response.assert_status(201);
    assert_eq!(response.text(), "late");
}

#[test]
fn exc_info_replaces_headers_that_were_not_sent() {
    if over_was() {
        return;
    }
    let server = rules();
    let response = server.get("/exc-info");
    response.assert_status(503);
    assert_eq!(response.reason, "Service Unavailable");
    assert_eq!(
        (response.field("X-First"), response.field("X-Second")),
        (None, Some("2"))
    );
    assert_eq!(response.text(), "replaced");
}

#[test]
fn set_cookie_is_kept_apart_and_latin_1_kept() {
    let response = rules().get("/cookies");
    assert_eq!(response.all("Set-Cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(response.field("X-Latin"), Some("caf\u{e9}"));
}

#[test]
fn the_applications_own_date_and_server_are_used() {
    if over_was() {
        return;
    }
    if !only_rswsgi("one Date, the application's when it sends one") {
        return;
    }
    let response = rules().get("/own-headers");
    assert_eq!(
        response.field("Date"),
        Some("Sat, 01 Jan 2000 00:00:00 GMT")
    );
    assert_eq!(response.field("Server"), Some("mine"));
}

#[test]
fn statuses_without_a_body_have_none() {
    let server = rules();
    let mut client = server.connect();
    for status in [204, 304] {
        let response = client.get(&format!("/bodiless?{status}"));
        response.assert_status(status);
        assert_eq!(response.field("X-Kept"), Some("1"));
        server.notes.expect("closed");
        client.get("/hello").assert_text("hello\n");
    }
    let response = client.get("/not-modified");
    response.assert_status(304);
    assert_eq!(response.field("ETag"), Some("\"x\""));
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn head_has_no_body_and_close_is_called() {
    let server = rules();
    let mut client = server.connect();
    for path in ["/closes", "/steps"] {
        let gate = (path == "/steps").then(|| server.gate("gate"));
        gate.iter().for_each(|gate| gate.open());
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.response_to(Asked::Head).assert_status(200);
        server.notes.expect("closed");
        client.get("/hello").assert_text("hello\n");
    }
}

#[test]
fn close_is_called_after_success() {
    let server = rules();
    server.get("/closes").assert_text("some blocks");
    server.notes.expect("closed");
}

#[test]
fn close_is_called_when_the_client_is_gone() {
    let server = rules();
    let mut client = server.connect();
    client.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    client.head(Asked::Plain);
    client.chunk().expect("a first block");
    drop(client);
    server.notes.expect("closed");
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn a_client_that_goes_between_two_blocks_ends_the_iteration() {
    let server = rules();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /steps HTTP/1.1\r\nHost: test\r\n\r\n");
    client.head(Asked::Plain);
    client.chunk().expect("a first block");
    drop(client);
    gate.open();
    server.notes.expect("closed");
    server.get("/hello").assert_text("hello\n");
}

fn served_file(size: usize) -> (Server, Vec<u8>) {
    let content: Vec<u8> = (0..size)
        .map(|index| (index * 31 + index / 253) as u8)
        .collect();
    let server = Server::new().app("rules");
    std::fs::write(server.dir().join("served"), &content).expect("write a file to serve");
    (server, content)
}

#[test]
fn a_real_file_is_sent_from_its_offset() {
    let (server, content) = served_file(3_000_000);
    let server = server.tcp().unix().start();
    for listener in [0, 1] {
        let mut client = server.connect_to(listener);
        for offset in [0, 1, 2_999_999, 3_000_000] {
            let response = client.get(&format!("/file?{offset}"));
            response.assert_status(200);
            assert!(
                response.body == content[offset..],
                "{} bytes from {offset}",
                response.body.len()
            );
        }
        client.get("/hello").assert_text("hello\n");
    }
}

#[test]
fn a_file_longer_than_its_content_length_is_cut_there() {
    if !only_rswsgi("more than Content-Length is caught for files, too") {
        return;
    }
    let (server, content) = served_file(100_000);
    let server = server.expect_error("Content-Length").start();
    let mut client = server.connect();
    let response = client.get("/file-with-length?50000");
    assert!(
        response.body == content[..50_000],
        "{} bytes",
        response.body.len()
    );
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn a_file_shorter_than_its_content_length_cuts_the_connection() {
    if !only_rswsgi("less than Content-Length is caught") {
        return;
    }
    let (server, content) = served_file(100_000);
    let mut server = server.start();
    server.expect_error("Content-Length");
    let mut client = server.connect();
    client.send("GET /file-with-length?100001 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head(Asked::Plain).framing, Framing::Length(100_001));
    assert!(client.read_until_over() == content);
    server.log.wait_for("content-length");
}

#[test]
fn a_file_may_follow_what_was_written() {
    let (server, bytes) = served_file(300_000);
    let server = server.start();
    let mut client = server.connect();
    let response = client.get("/file-after-write");
    assert!(response.body == [b"written ", &bytes[..]].concat());
    assert_eq!(response.framing, Framing::Chunked);
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn the_file_wrapper_takes_any_file_and_closes_it() {
    let server = rules();
    let mut client = server.connect();
    client
        .get("/file-in-memory")
        .assert_text(&"x".repeat(100_000));
    client.get("/file-closed").assert_text("in memory");
    server.notes.expect("file closed");
    client.get("/file-unused").assert_text(&"ABC".repeat(1000));
}

#[test]
fn head_for_a_file_sends_none_of_it() {
    let (server, _) = served_file(100_000);
    let server = server.start();
    let mut client = server.connect();
    client.send("HEAD /file?0 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response_to(Asked::Head).assert_status(200);
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn a_big_response_reaches_a_slow_reader_whole() {
    let server = rules();
    let mut client = server.connect();
    client.send("GET /big?20000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(
        client.head(Asked::Plain).framing,
        Framing::Length(20_000_000)
    );
    for _ in 0..20 {
        let part = client.raw(1_000_000);
        assert!(part.iter().all(|&byte| byte == b'x'));
        std::thread::yield_now();
    }
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn a_slow_reader_does_not_occupy_the_only_worker() {
    if !only_rswsgi("a complete body is sent by the event loop") {
        return;
    }
    let server = Server::new()
        .app("rules")
        .arg("--output-buffer", "64m")
        .start();
    let mut slow = server.connect();
    slow.send("GET /big?20000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("big");
    server.get("/hello").assert_text("hello\n"); // 20 MB do not fit into the sockets: it is still being sent
    let response = slow.response();
    assert_eq!(response.body.len(), 20_000_000);
}

#[test]
fn a_reader_that_stops_is_given_up() {
    if !only_rswsgi("--send-timeout") {
        return;
    }
    let server = Server::new()
        .app("rules")
        .arg("--send-timeout", "1s")
        .start();
    let mut stopped = server.connect();
    stopped.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    stopped.head(Asked::Plain);
    server.notes.expect("closed");
    server.get("/hello").assert_text("hello\n");
    drop(stopped);
}

#[test]
fn wsgiref_validate_has_no_complaint() {
    let server = Server::new()
        .app("rules")
        .env("PYTHONWARNINGS", "error")
        .start();
    let mut client = server.connect();
    client.get("/valid").assert_text("valid ");
    client.get("/valid?write").assert_text("written ");
    client.get("/valid?empty").assert_status(204);
    client.post("/valid", b"body").assert_text("valid body");
    client.send("HEAD /valid?empty HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response_to(Asked::Head).assert_status(204);
    let log = server.finish().stderr;
    assert!(
        !log.contains("Traceback") && !log.contains("Warning"),
        "{log}"
    );
}
