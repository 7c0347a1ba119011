//! Applications that break the rules or fail: what the client sees, what the log says, and that the
//! worker and the connection are none the worse for it.

use super::{rules, served};
use crate::support::client::{Asked, Framing};
use crate::support::{Server, only_rswsgi};

#[test]
fn start_response_refuses_what_it_must() {
    if !only_rswsgi("all checks of start_response") {
        return;
    }
    let mut server = served(
        Server::new()
            .app("rules")
            .expect_error("Error")
            .expect_error("error"),
    );
    let names = server.get("/bad-call-names").text();
    assert!(names.contains("hop-connection"), "{names}");
    for name in names.split(' ') {
        eprintln!("start_response: {name}"); // shown when the test fails
        let response = server.get(&format!("/bad-call?{name}"));
        assert_eq!(response.status, 500, "{name}: {response:?}");
        assert_eq!(response.field("X-Injected"), None, "{name}");
        assert!(!response.text().contains("never"), "{name}: {response:?}");
    }
    server.log.wait_for("app_bad_call"); // the traceback names the function
    server.expect_error("");
}

#[test]
fn start_response_cannot_inject_a_header() {
    let server = served(Server::new().app("rules").expect_error(""));
    for name in ["value-crlf", "value-newline", "name-crlf", "status-crlf"] {
        let response = server.get(&format!("/bad-call?{name}"));
        assert_eq!(response.status, 500, "{name}: {response:?}");
        assert_eq!(response.field("X-Injected"), None, "{name}");
    }
}

#[test]
fn an_application_that_never_calls_start_response_gets_500() {
    let server = served(
        Server::new()
            .app("rules")
            .expect_error("start_response")
            .expect_error("the application failed")
            .expect_error("app_no_start"),
    );
    for path in ["/no-start", "/no-start-empty"] {
        server.get(path).assert_status(500);
    }
    server.log.wait_for("start_response");
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn a_second_start_response_needs_exc_info() {
    let server = served(Server::new().app("rules").expect_error(""));
    server.get("/twice").assert_status(500);
    server.log.wait_for("app_twice");
}

#[test]
fn a_block_before_start_response_gets_500() {
    let server = served(Server::new().app("rules").expect_error(""));
    server.get("/too-late").assert_status(500);
    server.log.wait_for("start_response");
}

#[test]
fn blocks_that_are_not_bytes_get_500() {
    let server = served(Server::new().app("rules").expect_error(""));
    for path in ["/text-body", "/none", "/write-text"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 500, "{path}: {response:?}");
    }
    server.log.wait_for("bytes");
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn an_exception_gives_500_and_a_traceback() {
    let server = served(
        Server::new()
            .app("rules")
            .expect_error("LookupError")
            .expect_error("the application failed"),
    );
    let worker = server.get("/pid").text();
    for (path, words) in [
        ("/raise", "raised at once"),
        ("/raise-started", "raised after start_response"),
        ("/raise-first", "raised for the first block"),
    ] {
        let response = server.get(path);
        response.assert_status(500);
        assert_eq!(response.field("X-Lost"), None, "{path}");
        assert!(
            !response.text().contains("raised"),
            "the client must not see the reason: {response:?}"
        );
        server.log.wait_for(&format!("LookupError: {words}"));
    }
    server.log.wait_for("Traceback (most recent call last)");
    server.notes.expect("closed"); // of /raise-first
    assert_eq!(server.get("/pid").text(), worker, "the worker goes on");
}

#[test]
fn the_connection_survives_an_exception_before_any_byte() {
    if !only_rswsgi("a 500 is a response like others") {
        return;
    }
    let server = served(
        Server::new()
            .app("rules")
            .expect_error("LookupError")
            .expect_error("the application failed"),
    );
    let mut client = server.connect();
    client.get("/raise").assert_status(500);
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn an_exception_after_bytes_cuts_the_connection() {
    let server = served(
        Server::new()
            .app("rules")
            .expect_error("LookupError")
            .expect_error("the application failed"),
    );
    for (path, framing) in [
        ("/raise-later", Framing::Chunked),
        ("/raise-later-length", Framing::Length(100)),
    ] {
        let gate = server.gate("gate");
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.head(Asked::Plain).framing, framing);
        gate.open();
        let rest = client.read_until_over();
        let text = String::from_utf8_lossy(&rest);
        assert!(
            text.contains("sent") && !text.contains("0\r\n\r\n") && !text.contains("HTTP/1.1"),
            "{text:?}"
        );
        server.notes.expect("closed");
        drop(gate);
        std::fs::remove_file(server.dir().join("gate")).expect("remove the gate");
    }
    server.log.wait_for("LookupError: raised after a block");
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn exc_info_after_bytes_raises_in_the_application() {
    let server = served(
        Server::new()
            .app("rules")
            .expect_error("RuntimeError")
            .expect_error("the application failed"),
    );
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /exc-info-late HTTP/1.1\r\nHost: test\r\n\r\n");
    client.head(Asked::Plain);
    assert_eq!(client.chunk().as_deref(), Some(b"sent".as_slice()));
    gate.open();
    let rest = client.read_until_over();
    assert!(
        !String::from_utf8_lossy(&rest).contains("never"),
        "{rest:?}"
    );
    server.log.wait_for("RuntimeError: too late to be hidden");
}

#[test]
fn an_exception_in_close_harms_nobody() {
    let server = served(
        Server::new()
            .app("rules")
            .expect_error("LookupError")
            .expect_error("the application failed")
            .expect_error("close"),
    );
    server
        .connect()
        .get("/raise-in-close")
        .assert_text("all sent");
    server.log.wait_for("raised by close");
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn more_than_content_length_is_cut_and_logged() {
    let mut server = rules();
    server.expect_error("Content-Length");
    server.expect_error("Response body");
    for path in ["/more", "/more-in-block"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.response().assert_text("12345");
        // The server may close or go on, but the client never sees what was too much.
        let next =
            client.try_send("GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let rest = client.read_until_over();
        let text = String::from_utf8_lossy(&rest);
        assert!(!text.contains("Forged"), "{path}: {text:?}");
        assert!(
            text.is_empty() || next.is_ok() && text.contains("hello\n"),
            "{path}: {text:?}"
        );
    }
    if only_rswsgi("the log line") {
        server.log.wait_for("content-length");
    }
}

#[test]
fn less_than_content_length_cuts_the_connection_and_is_logged() {
    if !only_rswsgi("less than Content-Length is caught") {
        return;
    }
    let mut server = rules();
    server.expect_error("Content-Length");
    let mut client = server.connect();
    client
        .send("GET /less HTTP/1.1\r\nHost: test\r\n\r\nGET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head(Asked::Plain).framing, Framing::Length(50));
    assert_eq!(
        client.read_until_over(),
        b"1234567890",
        "nothing may follow that the client would take for the body"
    );
    server.notes.expect("closed");
    server.log.wait_for("content-length");
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn head_may_declare_a_length_without_a_body() {
    let server = rules();
    let mut client = server.connect();
    client.send("HEAD /less HTTP/1.1\r\nHost: test\r\n\r\n");
    let response = client.response_to(Asked::Head);
    assert_eq!(response.field("Content-Length"), Some("50"));
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn an_application_cannot_end_its_worker() {
    if !only_rswsgi("SystemExit and KeyboardInterrupt do not end the worker") {
        return;
    }
    let mut server = rules();
    let worker = server.get("/pid").text();
    for how in ["exit", "interrupt", "generator", "late"] {
        let response = server.get(&format!("/leave?{how}"));
        assert_eq!(response.status, 500, "{how}: {response:?}");
        assert_eq!(server.get("/pid").text(), worker, "after {how}");
    }
    server.log.wait_for("SystemExit");
    server.log.wait_for("KeyboardInterrupt");
    server.expect_error("");
}

#[test]
fn endless_recursion_is_an_exception_like_others() {
    let server = served(
        Server::new()
            .app("rules")
            .expect_error("Recursion")
            .expect_error("the application failed"),
    );
    let worker = server.get("/pid").text();
    server.get("/recursion").assert_status(500);
    server.log.wait_for("RecursionError");
    assert_eq!(server.get("/pid").text(), worker);
}
