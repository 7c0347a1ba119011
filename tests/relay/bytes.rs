//! Connections that change their worker in the middle of a request: no byte is lost, none comes twice,
//! answers stay in their order.

use super::{ask, noted, ours, relay};
use crate::support::{Client, Control, Pid, Running, Server, wait_until};
use nix::sys::signal::Signal;

/// No half of a request waits for too long, however slow the machine is.
fn patient() -> Server {
    relay()
        .arg("--head-timeout", "1h")
        .arg("--body-timeout", "1h")
}

/// The next generation serves, the last one is gone.
#[track_caller]
fn reload(server: &Running, old: &[Pid]) {
    server.read_notifications();
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    for worker in old {
        worker.wait_gone();
    }
}

/// A client that is in the middle of a head when its worker leaves: the next one reads on.
#[test]
fn half_a_head_goes_to_the_next_generation() {
    if !ours() {
        return;
    }
    let server = patient().workers(1).start();
    let old = server.workers();
    let request = "GET /echo?half HTTP/1.1\r\nHost: test\r\n\r\n";
    // One that has had an answer before, one that has not; cut in the line and in a field.
    let mut served = server.connect();
    served.get("/pid").assert_text(&old[0].number.to_string());
    let mut fresh = server.connect();
    for (client, cut) in [(&mut served, 7), (&mut fresh, 30)] {
        client.send(&request[..cut]);
        client.wait_consumed();
    }
    reload(&server, &old);
    for (client, cut) in [(&mut served, 7), (&mut fresh, 30)] {
        client.send(&request[cut..]);
        let response = client.response();
        response.assert_text("half:");
        assert!(!response.says_close(), "{response:?}");
        assert_ne!(response.field("X-Pid"), Some(&*old[0].number.to_string()));
    }
}

/// With a body whoever has begun to read it may finish it; it is whole in any case.
#[test]
fn half_a_body_is_read_to_its_end() {
    if !ours() {
        return;
    }
    for size in [10, 5_000, 400_000, 3_000_000] {
        let server = patient().workers(1).start();
        let body: Vec<u8> = (0..size).map(|n: u32| b'a' + (n % 26) as u8).collect();
        let mut client = server.connect();
        client.get("/pid").assert_status(200);
        client.send(format!(
            "POST /echo?{size} HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"
        ));
        let (first, second) = body.split_at(body.len() / 2);
        client.send(first);
        client.wait_consumed();
        server.read_notifications();
        server.signal(Signal::SIGHUP);
        server.wait_notified("READY=1");
        client.send(second);
        let response = client.response();
        response.assert_status(200);
        let expected = format!("{size}:{}", String::from_utf8_lossy(&body));
        assert!(response.text() == expected, "{size}: another body");
    }
}

/// Requests that were sent together before the worker had to leave are answered in their order, by
/// whomever, on the same connection.
#[test]
fn pipelined_requests_go_on_over_a_reload() {
    if !ours() {
        return;
    }
    let server = patient().workers(1).start();
    let gate = server.gate("gate");
    let old = server.workers();
    let mut client = server.connect();
    let mut requests = String::from("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    for number in 0..50 {
        requests += &format!(
            "POST /echo?{number} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n{number:03}"
        );
    }
    requests += "GET /echo?unfini";
    client.send(&requests);
    noted(&server, "waiting");
    server.read_notifications();
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    gate.open();
    client.response().assert_text(&old[0].number.to_string());
    for number in 0..50 {
        client
            .response()
            .assert_text(&format!("{number}:{number:03}"));
    }
    old[0].wait_gone();
    client.send("shed HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response().assert_text("unfinished:");
    client.get("/pid").assert_status(200);
}

/// The same while the worker is busy with another client: the watcher finds what has come.
#[test]
fn a_request_that_comes_in_pieces_to_a_busy_worker_is_whole() {
    if !ours() {
        return;
    }
    let server = patient().start();
    let gate = server.gate("gate");
    let mut pinned = super::pin(&server, 4, 0);
    let mut busy = pinned.clients.remove(0);
    let requests: Vec<String> = (0..3)
        .map(|n| {
            let length = 100 * n;
            let body = "b".repeat(length);
            format!(
                "POST /echo?{n} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        })
        .collect();
    // Read by the owner, as far as it has come.
    for (client, request) in pinned.clients.iter_mut().zip(&requests) {
        client.send(&request[..20]);
        client.wait_consumed();
    }
    ask(&mut busy, "/wait");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    for (client, request) in pinned.clients.iter_mut().zip(&requests) {
        for byte in request.as_bytes()[20..].chunks(9) {
            client.send(byte);
        }
    }
    for (n, client) in pinned.clients.iter_mut().enumerate() {
        let response = client.response();
        response.assert_text(&format!("{n}:{}", "b".repeat(100 * n)));
        let sibling = pinned.sibling.number.to_string();
        assert_eq!(response.field("X-Pid"), Some(&*sibling));
    }
    gate.open();
    busy.response().assert_status(200);
}

/// Byte by byte, through as many reloads as there is time for.
#[test]
fn a_client_that_sends_byte_by_byte_through_reloads_is_understood() {
    if !ours() {
        return;
    }
    let server = patient().workers(1).start();
    let mut slow = server.connect();
    let mut quick = server.connect();
    let body = "x".repeat(40);
    let request = format!(
        "POST /echo?slow HTTP/1.1\r\nHost: test\r\nContent-Length: 40\r\n\r\n{body}\
         GET /echo?again HTTP/1.1\r\nHost: test\r\n\r\n"
    );
    let mut generations = 0;
    for (at, byte) in request.bytes().enumerate() {
        slow.send([byte]);
        if at % 12 == 0 {
            let old = server.crew();
            server.read_notifications();
            server.signal(Signal::SIGHUP);
            server.wait_notified("READY=1");
            // A body that it has begun to read may be finished by the worker that began.
            if at < request.find("\r\n\r\n").expect("the end of the head") {
                old.into_iter().for_each(Pid::wait_gone);
            }
            generations += 1;
        }
        quick.get("/pid").assert_status(200);
    }
    assert!(generations > 10, "{generations}");
    slow.response().assert_text(&format!("slow:{body}"));
    slow.response().assert_text("again:");
    slow.get("/pid").assert_status(200);
    quick.get("/pid").assert_status(200);
}

/// An end that comes while nobody looks is an end, not a request.
#[test]
fn a_client_that_leaves_in_the_middle_is_no_request() {
    if !ours() {
        return;
    }
    let server = patient().workers(1).start();
    let old = server.workers();
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/pid").assert_status(200);
        client.send("GET /served?0 HTTP/1.1\r\nHo");
        client.wait_consumed();
    }
    reload(&server, &old);
    for mut client in clients {
        client.half_close();
        assert_eq!(client.read_until_over(), b"");
    }
    server.get("/pid").assert_status(200);
    super::assert_each_served_once(&server, 0);
}

/// The header of the PROXY protocol comes once: whoever goes on with the connection knows the client, or that it is
/// still to be named.
#[test]
fn the_header_of_the_proxy_protocol_goes_with_its_connection() {
    if !ours() {
        return;
    }
    let server = patient()
        .workers(1)
        .tcp()
        .arg("--bind", "fd://3?proxy-protocol=on")
        .start();
    let line = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";
    let request = "GET /origin HTTP/1.1\r\nHost: test\r\n\r\n";
    // After a request, after the header, in the middle of it, and before it.
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let sent = [line.len(), line.len(), 20, 0];
    for (client, sent) in clients.iter_mut().zip(sent) {
        client.send(&line[..sent]);
        client.wait_consumed();
    }
    let first = |client: &mut Client| {
        let text = client.response().text();
        let (pid, origin) = text.split_once(' ').expect("a process and an origin");
        assert!(origin.starts_with("192.0.2.7 4711 "), "{origin}");
        pid.to_owned()
    };
    clients[0].send(request);
    first(&mut clients[0]);
    // The worker has accepted the last one, too.
    let old = server.workers();
    wait_until("all connections to be accepted", || {
        let app = Control::of(&server, "relay").app();
        (app["connections"]["open"] == 4).then_some(())
    });
    reload(&server, &old);
    for (client, sent) in clients.iter_mut().zip(sent) {
        client.send([&line[sent..], request].concat());
        assert_ne!(first(client), old[0].number.to_string());
    }
}
