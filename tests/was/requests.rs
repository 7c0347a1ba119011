//! How requests may come: their packets, cut and joined, malformed, too large, in the wrong order.

use super::{one, ours, with};
use crate::support::Server;
use crate::support::was_client::*;

#[test]
fn a_request_is_answered_and_the_next_one_too() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    for _ in 0..3 {
        let answer = client.get("/hello");
        answer.assert_status(200).assert_text("hello\n");
        assert_eq!(answer.end, End::Complete);
        assert_eq!(answer.commands, [STATUS, HEADER, DATA, LENGTH]);
    }
    drop(client);
    server.log.text();
}

#[test]
fn packets_may_be_cut_anywhere() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let bytes = Asking::get("/environ").header("x-name=value").bytes();
    for cut in 1..bytes.len() {
        client.send(&bytes[..cut]);
        if cut % 16 == 0 {
            // Sometimes the server has seen the first part alone.
            dawdle(std::time::Duration::from_millis(2));
        }
        client.send(&bytes[cut..]);
        let answer = client.answer();
        assert_eq!(answer.json()["HTTP_X_NAME"][1], "value");
        client.assert_idle();
    }
}

#[test]
fn nops_and_unknown_commands_are_skipped() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    client.send(packet(NOP, b"anything"));
    let mut asking = Asking::get("/hello").with(NOP, b"");
    asking = asking.with(99, b"from the future");
    let answer = client.ask(asking);
    answer.assert_status(200);
    client.send(packet(NOP, b""));
    client.get("/hello").assert_status(200);
}

#[test]
fn methods_come_as_two_or_four_bytes() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for (number, name) in [(3u32, "POST"), (4, "PUT"), (8, "PROPFIND"), (17, "QUERY")] {
        let answer = client.ask(Asking::new(number, "/environ"));
        assert_eq!(answer.json()["REQUEST_METHOD"][1], name);
        let short = u16::try_from(number).expect("a small number");
        let asking = Asking::get("/environ").with(METHOD, short.to_ne_bytes());
        assert_eq!(client.ask(asking).json()["REQUEST_METHOD"][1], name);
    }
    let answer = client.get("/environ");
    assert_eq!(answer.json()["REQUEST_METHOD"][1], "GET");
}

#[test]
fn an_unknown_method_is_501_and_costs_nothing() {
    if !ours() {
        return;
    }
    let (server, _multi, mut client) = one();
    for number in [0, 18, 4711] {
        client.ask(Asking::new(number, "/hello")).assert_status(501);
    }
    client.get("/hello").assert_status(200);
    server.log.wait_for("refused a request with 501");
}

#[test]
fn a_long_address_is_414_and_much_metadata_is_431() {
    if !ours() {
        return;
    }
    let server = Server::new().arg("--limit-request-line", "1k");
    let (_server, _multi, mut client) =
        with(server.arg("--limit-head", "8k").arg("--limit-fields", "20"));
    let long = format!("/hello?{}", "x".repeat(2000));
    client.get(&long).assert_status(414);
    let large = format!("x={}", "v".repeat(9000));
    client
        .ask(Asking::get("/hello").header(&large))
        .assert_status(431);
    client
        .ask(Asking::get("/hello").with(PARAMETER, &large))
        .assert_status(431);
    let many = (0..21).fold(Asking::get("/hello"), |asking, _| asking.header("a=b"));
    client.ask(many).assert_status(431);
    let largest = format!("x={}", "v".repeat(65_533));
    client
        .ask(Asking::get("/hello").header(&largest))
        .assert_status(431);
    client.get("/hello").assert_status(200);
}

#[test]
fn a_whole_payload_is_taken_where_the_limits_allow_it() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = with(Server::new().arg("--limit-head", "256k"));
    let value = "v".repeat(65_533);
    let answer = client.ask(Asking::get("/environ").header(&format!("x={value}")));
    assert_eq!(answer.json()["HTTP_X"][1], value.as_str());
}

#[test]
fn headers_that_http_does_not_have_are_400() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for bad in ["a b=c", "x=1\r\ny: 2", "x=\0", "a:=b"] {
        client
            .ask(Asking::get("/hello").header(bad))
            .assert_status(400);
    }
    client.get("/hello").assert_status(200);
}

/// What puts the two sides out of step ends the connection, and that connection only.
#[test]
fn a_client_out_of_step_loses_its_connection() {
    if !ours() {
        return;
    }
    let (server, multi, mut other) = one();
    let request = || packet(REQUEST, b"");
    let wrong: Vec<Vec<u8>> = vec![
        packet(METHOD, 2u32.to_ne_bytes()),
        packet(DATA, b""),
        packet(99, b""),
        number(LENGTH, 1),
        number(PREMATURE, 1),
        [request(), request()].concat(),
        [request(), packet(METHOD, b"abc")].concat(),
        [
            request(),
            packet(METHOD, 2u32.to_ne_bytes()),
            packet(METHOD, 3u32.to_ne_bytes()),
        ]
        .concat(),
        [request(), packet(URI, b"/"), packet(URI, b"/")].concat(),
        [request(), packet(HEADER, b"no equals sign")].concat(),
        [request(), packet(HEADER, b"=no name")].concat(),
        [request(), packet(PARAMETER, b"nothing")].concat(),
        [request(), packet(STATUS, 200u32.to_ne_bytes())].concat(),
        [request(), packet(STOP, b"")].concat(),
        [
            request(),
            packet(URI, b"/"),
            packet(DATA, b""),
            packet(URI, b"/"),
        ]
        .concat(),
        [
            request(),
            packet(URI, b"/"),
            packet(DATA, b""),
            packet(LENGTH, b"four"),
        ]
        .concat(),
        [
            request(),
            packet(URI, b"/"),
            packet(DATA, b""),
            number(LENGTH, 5),
            number(LENGTH, 6),
        ]
        .concat(),
        [
            request(),
            packet(URI, b"/"),
            packet(DATA, b""),
            number(LENGTH, 5),
            number(PREMATURE, 6),
        ]
        .concat(),
        [request(), packet(URI, b"/"), packet(DATA, b""), request()].concat(),
    ];
    for bytes in wrong {
        let mut client = multi.connect();
        client.send(&bytes);
        client.expect_closed();
    }
    other.get("/hello").assert_status(200);
    server.log.wait_for("the client is out of step");
}

#[test]
fn garbage_ends_a_connection_and_nothing_else() {
    if !ours() {
        return;
    }
    let (_server, multi, mut other) = one();
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..40 {
        let mut client = multi.connect();
        let bytes: Vec<u8> = (0..random() % 3000).map(|_| random() as u8).collect();
        let _ = client.try_send(&bytes);
        drop(client);
        other.get("/hello").assert_status(200);
    }
}

#[test]
fn channels_that_close_at_any_point_leave_the_server_well() {
    if !ours() {
        return;
    }
    let (_server, multi, mut other) = one();
    let post = Asking::post("/hello", b"12345").bytes();
    for cut in (0..post.len()).step_by(3) {
        let mut client = multi.connect();
        client.send(&post[..cut]);
        drop(client);
        // The pipes alone.
        let mut client = multi.connect();
        client.send(&post);
        client.upload = None;
        client.expect_closed();
    }
    other.get("/hello").assert_status(200);
    let mut client = multi.connect();
    client.send(Asking::get("/big?1000000").bytes());
    client.read_some(10);
    let (_, other_ends) = crate::support::WasClient::pair();
    client.download = std::fs::File::from(other_ends.input);
    client.expect_closed();
    other.get("/hello").assert_status(200);
}
