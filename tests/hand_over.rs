//! What becomes of connections when their generation leaves: the next one goes on with them.

use crate::reload::{busy, ours, shop, two_of_one_worker, version};
use nix::sys::signal::Signal;

#[test]
fn without_the_relay_connections_end_with_their_worker() {
    if !ours() {
        return;
    }
    let server = shop().arg("--relay", "off").start();
    let gate = server.gate("gate");
    let master = server.master();
    let mut idle = server.connect();
    idle.get("/").assert_text("one");
    let mut client = busy(&server);
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    gate.open();
    idle.expect_end();
    client.response().assert_text("one");
    client.expect_end();
    master.wait_gone();
}

#[test]
fn half_a_head_and_half_a_body_are_finished_by_the_next_generation() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let master = server.master();
    let mut head = server.connect();
    head.get("/").assert_text("one");
    head.send("GET / HT");
    let mut body = server.connect();
    let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\n";
    body.send(format!("{post}abc"));
    for client in [&head, &body] {
        client.wait_consumed();
    }
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    master.wait_gone();
    head.send("TP/1.1\r\nHost: test\r\n\r\n");
    body.send("def");
    for client in [&mut head, &mut body] {
        client.response().assert_text("two");
        client.get("/").assert_text("two");
    }
}

#[test]
fn a_body_that_cannot_travel_is_finished_where_it_began() {
    if !ours() {
        return;
    }
    let server = shop().arg("--graceful-timeout", "1h").start();
    let master = server.master();
    let mut coded = server.connect();
    let post = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    coded.send(format!("{post}3\r\nabc\r\n"));
    let mut large = server.connect();
    let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n";
    large.send(post);
    large.send(vec![b'x'; 100_000]);
    for client in [&coded, &large] {
        client.wait_consumed();
    }
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    coded.send("0\r\n\r\n");
    large.send(vec![b'x'; 100_000]);
    for client in [&mut coded, &mut large] {
        let response = client.response();
        response.assert_text("one");
        assert!(!response.says_close(), "{response:?}");
    }
    master.wait_gone();
    for client in [&mut coded, &mut large] {
        client.get("/").assert_text("two");
    }
}

#[test]
fn a_worker_that_does_not_leave_in_time_costs_one_request() {
    if !ours() {
        return;
    }
    let server = shop().arg("--graceful-timeout", "1s").start();
    let _gate = server.gate("gate");
    let (mut stuck, mut idle) = two_of_one_worker(&server);
    let master = server.master();
    stuck.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    server.signal(Signal::SIGHUP);
    let response = stuck.response();
    response.assert_status(504);
    assert!(response.says_close(), "{response:?}");
    stuck.expect_end();
    idle.get("/").assert_text("one");
    master.wait_gone();
    idle.get("/").assert_text("one");
    server.finish().assert_says_once("does not leave in time");
}
