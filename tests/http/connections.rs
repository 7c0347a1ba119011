//! What lives longer than one request: keep-alive, pipelining, half-closed and vanished clients.

use super::basic;
use crate::support::client::{Asked, Framing};
use crate::support::{Server, only_rswsgi};

#[test]
fn a_connection_serves_many_requests() {
    let server = basic();
    let mut client = server.connect();
    for number in 0..1000 {
        let body = number.to_string();
        client.post("/echo", body.as_bytes()).assert_text(&body);
    }
}

#[test]
fn connection_close_is_answered_and_obeyed() {
    let server = basic();
    for value in ["close", "Close", "x, close", "close, x"] {
        let mut client = server.connect();
        client.send(format!(
            "GET /hello HTTP/1.1\r\nHost: test\r\nConnection: {value}\r\n\r\n"
        ));
        let response = client.response();
        response.assert_text("hello\n");
        assert!(response.says_close(), "for {value}: {response:?}");
        client.expect_end();
    }
}

#[test]
fn http_1_0_closes_unless_keep_alive_is_asked_for() {
    let server = basic();
    let mut client = server.connect();
    client.send("GET /hello HTTP/1.0\r\n\r\n");
    client.response_to(Asked::Old).assert_text("hello\n");
    client.expect_end();

    let mut client = server.connect();
    for _ in 0..3 {
        client.send("GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let response = client.response_to(Asked::Old);
        response.assert_text("hello\n");
        assert_eq!(response.framing, Framing::Length(6));
        let connection = response
            .field("Connection")
            .unwrap_or_default()
            .to_lowercase();
        assert_eq!(
            connection, "keep-alive",
            "an old client must be told: {response:?}"
        );
    }
    client.send("GET /hello HTTP/1.0\r\n\r\n");
    client.response_to(Asked::Old).assert_text("hello\n");
    client.expect_end();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::new().app("basic").tcp().unix().start();
    for listener in [0, 1] {
        let mut client = server.connect_to(listener);
        client.send(
            "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n\
             POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc\
             HEAD /hello HTTP/1.1\r\nHost: test\r\n\r\n\
             POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n\
             GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n\
             GET /called HTTP/1.1\r\nHost: test\r\n\r\n",
        );
        client.response().assert_text("hello\n");
        client.response().assert_text("abc");
        client.response_to(Asked::Head).assert_status(200);
        client.response().assert_text("def");
        client.response().assert_text("hello\n");
        // Nothing after a close is served (RFC 9112 §9.6); bytes that stay unread may cost a reset.
        assert!(client.read_until_over().is_empty());
        super::assert_never_called(&server);
    }
}

#[test]
fn hundreds_of_requests_in_one_write_are_answered_in_order() {
    let server = basic();
    let mut client = server.connect();
    let mut requests = String::new();
    for number in 0..500 {
        let body = format!("request {number}");
        requests += &format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    client.send(requests);
    for number in 0..500 {
        client.response().assert_text(&format!("request {number}"));
    }
}

#[test]
fn pipelining_does_not_starve_other_clients() {
    if !only_rswsgi("fairness between the connections of one worker") {
        return;
    }
    let server = basic();
    let gate = server.gate("gate");
    let mut greedy = server.connect();
    greedy.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n".repeat(2));
    let mut other = server.connect();
    other.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(server.notes.next().starts_with("waiting"));
    gate.open();
    // The second of the greedy client waits at the gate, which opens only after the other is served.
    greedy.response().assert_status(200);
    if server.notes.next().starts_with("waiting") {
        gate.open();
    }
    other.response().assert_text("hello\n");
    greedy.response().assert_status(200);
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let server = Server::new().app("basic").tcp().unix().start();
    for listener in [0, 1] {
        let mut client = server.connect_to(listener);
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc");
        client.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
        client.half_close();
        client.response().assert_text("abc");
        client.response().assert_text("hello\n");
        client.expect_end();
    }
}

#[test]
fn a_client_that_half_closes_while_the_application_runs_gets_its_answer() {
    let server = basic();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(server.notes.next().starts_with("waiting"));
    client.half_close();
    gate.open();
    client.response().assert_status(200);
    client.expect_end();
}

#[test]
fn connections_that_send_nothing_harm_nobody() {
    let server = basic();
    let idle: Vec<_> = (0..50).map(|_| server.connect()).collect();
    let mut half = server.connect();
    half.send("GET /hello HTTP/1.1\r\nHo");
    server.get("/hello").assert_text("hello\n");
    drop(idle);
    half.send("st: test\r\n\r\n");
    half.response().assert_text("hello\n");
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn a_slow_sender_does_not_occupy_the_worker() {
    if !only_rswsgi("the request is read before the application is called") {
        return;
    }
    let server = basic();
    let mut slow = server.connect();
    slow.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello");
    slow.wait_consumed();
    server.get("/hello").assert_text("hello\n");
    slow.send("world");
    slow.response().assert_text("helloworld");
}

#[test]
fn clients_that_vanish_at_any_point_harm_nobody() {
    let server = basic();
    let workers = server.workers();
    let request = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
    for cut in 0..=request.len() {
        let mut client = server.connect();
        client.send(&request[..cut]);
        drop(client);
    }
    server.get("/hello").assert_text("hello\n");
    assert_eq!(server.workers(), workers, "a worker ended");
}

/// The last response and the end of the connection go out together; what the client has sent besides
/// turns the close into a reset, which is not to take the response with it. Where the kernel paces what
/// it sends, now and then one is lost all the same, as with any server that closes at once.
#[test]
fn the_last_response_reaches_a_client_that_goes_on_sending() {
    let server = basic();
    let mut answered = 0;
    for _ in 0..20 {
        let mut client = server.connect();
        let request = "GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        // More than is read at once. The reset may come while it is being sent.
        let _ = client.try_send(format!("{request}{}", "x".repeat(200_000)));
        if let Ok(response) = client.try_response() {
            response.assert_text("hello\n");
            answered += 1;
        }
    }
    assert!(answered > 10, "{answered} of 20 were answered");
}

#[test]
fn the_last_response_does_not_wait_for_what_the_application_does_after_it() {
    if !only_rswsgi("how soon bytes are sent") {
        return;
    }
    let application = r#"
from talk import wait_at

class Response:
    def __iter__(self):
        yield b"hello\n"

    def __len__(self):
        return 1

    def close(self):
        wait_at("gate")

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return Response()
"#;
    let server = Server::new()
        .app("closing")
        .file("closing.py", application)
        .start();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    client.response().assert_text("hello\n");
    gate.open();
    client.expect_end();
    server.finish();
}
