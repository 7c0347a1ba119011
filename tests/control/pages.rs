//! The pages for curl and exporters.

use super::ours;
use crate::support::{Control, Running, Server, promtool, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Status, head and body of a page on the control socket.
#[track_caller]
fn page(server: &Running, request: &str) -> (u16, String, String) {
    let mut control = Control::of(server, "basic");
    control.send(format!("{request}\r\nHost: x\r\n\r\n"));
    split(&String::from_utf8(control.rest()).expect("it is text"))
}

#[track_caller]
fn split(text: &str) -> (u16, String, String) {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), head.into(), body.into())
}

#[test]
fn the_control_socket_has_three_pages() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").start();
    let (status, head, body) = page(&server, "GET /health HTTP/1.1");
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    assert!(head.contains("Content-Type: text/plain"), "{head}");
    let (status, _, body) = page(&server, "HEAD /health HTTP/1.1");
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, head, body) = page(&server, "GET /stats HTTP/1.1");
    assert_eq!(status, 200);
    assert!(head.contains("Content-Type: application/json"), "{head}");
    let stats: Value = serde_json::from_str(&body).expect("it is JSON");
    assert_eq!(stats["apps"][0]["name"], "basic");
    let (status, _, body) = page(&server, "GET /metrics HTTP/1.1");
    assert_eq!(status, 200);
    assert!(body.contains("rswsgi_up{app=\"basic\"} 1\n"), "{body}");
    for (request, expected) in [
        ("GET / HTTP/1.1", 404),
        ("POST /stats HTTP/1.1", 405),
        ("GET /stats HTTP/3.0", 505),
        ("GET /sta ts HTTP/1.1", 400),
    ] {
        assert_eq!(page(&server, request).0, expected, "{request}");
    }
}

/// A server with a TCP listener for metrics, and its address.
fn with_metrics() -> (Running, String) {
    let server = Server::new()
        .app("basic")
        .arg("--metrics-bind", "127.0.0.1:0")
        .tcp()
        .unix()
        .start();
    let address = server.log.wait("the address", |text| {
        let (_, rest) = text.split_once("metrics: http://")?;
        Some(rest.lines().next()?.to_owned())
    });
    (server, address)
}

#[track_caller]
fn fetch(address: &str, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("connect to the metrics");
    stream.write_all(request.as_bytes()).expect("send");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a whole answer");
    split(&text)
}

#[test]
fn metrics_have_a_listener_of_their_own_with_nothing_else_on_it() {
    if !ours() {
        return;
    }
    let (server, address) = with_metrics();
    let get = |path: &str| fetch(&address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(get("/health").0, 200);
    assert_eq!(get("/stats").0, 404);
    let (_, head, body) = get("/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(
        body.contains("# TYPE rswsgi_requests_total counter\n"),
        "{body}"
    );
    let accept = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    let (_, head, body) = fetch(&address, accept);
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.contains("# TYPE rswsgi_requests counter\n"), "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    // The other language is not spoken there.
    let (status, _, _) = fetch(&address, "{\"v\":1,\"do\":\"stop\"}\n");
    assert_eq!(status, 400);
    assert_eq!(fetch(&address, "\0\n").0, 400);
    assert!(server.supervisor().is_alive());
}

#[test]
fn health_tells_that_nothing_serves_any_more() {
    if !ours() {
        return;
    }
    let (server, address) = with_metrics();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.next();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until("the server to say so", || {
        let (status, _, _) = fetch(&address, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        (status == 503).then_some(())
    });
    gate.open();
    client.response().assert_status(200);
}

#[test]
fn promtool_accepts_the_metrics() {
    if !ours() {
        return;
    }
    if !promtool::is_here() {
        return;
    }
    let (server, address) = with_metrics();
    for listener in [0, 1] {
        server.connect_to(listener).get("/hello").assert_status(200);
    }
    let mut client = server.connect();
    client.send("GET / HTTP/9.9\r\n\r\n");
    client.response().assert_status(505);
    Control::of(&server, "basic").done(serde_json::json!({"do": "reload"}));
    let (_, _, body) = fetch(&address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    promtool::assert_accepts(&body);
}
