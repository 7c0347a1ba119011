//! Requests that are fine: methods, targets, bodies, versions, in any number of pieces.

use super::basic;
use crate::support::client::Asked;
use crate::support::{Server, only_rswsgi};

#[test]
fn serves_over_tcp_and_unix_sockets_at_once() {
    let server = Server::new().app("basic").tcp().unix().start();
    for listener in [0, 1, 0] {
        let mut client = server.connect_to(listener);
        client.get("/hello").assert_text("hello\n");
        client.post("/echo", b"body").assert_text("body");
    }
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let server = basic();
    let mut client = server.connect();
    client.send("HEAD /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.response_to(Asked::Head);
    assert_eq!(
        (head.status, head.field("Content-Length")),
        (200, Some("6"))
    );
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn chunked_requests_arrive_whole_and_their_trailers_do_not() {
    let server = basic();
    let mut client = server.connect();
    let request = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             5\r\nhello\r\nA\r\n in chunks\r\n0\r\nX-Sum: 15\r\nX-Forged: 1\r\n\r\n"
        )
    };
    client.send(request("/echo"));
    client.response().assert_text("hello in chunks");
    client.send(request("/environ"));
    let environ = client.response().json();
    assert!(environ.get("HTTP_X_SUM").is_none(), "{environ}");
    assert!(environ.get("HTTP_X_FORGED").is_none(), "{environ}");
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn an_empty_chunked_body_is_an_empty_body() {
    let server = basic();
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    client.response().assert_text("");
    client.post("/echo", b"").assert_text("");
}

#[test]
fn an_absolute_target_gives_path_and_host() {
    let server = basic();
    let mut client = server.connect();
    client.send("GET http://other.example:81/environ?x=1 HTTP/1.1\r\nHost: test\r\n\r\n");
    let environ = client.response().json();
    assert_eq!(environ["PATH_INFO"], "/environ");
    assert_eq!(environ["QUERY_STRING"], "x=1");
    assert_eq!(
        environ["HTTP_HOST"], "other.example:81",
        "RFC 9112 §3.2.2: it replaces Host"
    );
}

#[test]
fn options_asterisk_reaches_the_application() {
    let server = basic();
    let mut client = server.connect();
    client.send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response().assert_text("called");
    let note = server.notes.next();
    assert!(
        note.starts_with("OPTIONS ") && note.ends_with(" 0"),
        "{note}"
    );
}

#[test]
fn unusual_methods_reach_the_application() {
    let server = basic();
    let mut client = server.connect();
    for method in ["DELETE", "PATCH", "PROPFIND", "M-SEARCH"] {
        client.send(format!(
            "{method} /called HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nab"
        ));
        client.response().assert_text("called");
        server.notes.expect(&format!("{method} /called 2"));
    }
}

#[test]
fn an_expected_100_comes_before_the_body_and_the_response_after() {
    let server = basic();
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.interim().status, 100);
        client.send("hello");
        client.response().assert_text("hello");
    }
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n");
    assert_eq!(client.interim().status, 100);
    client.send("5\r\nhello\r\n0\r\n\r\n");
    client.response().assert_text("hello");
}

#[test]
fn no_100_when_the_body_is_there_already() {
    let server = basic();
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    client.response().assert_text("hello");
    client.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    );
    client.response().assert_text("");
}

#[test]
fn no_100_when_the_head_is_refused() {
    if !only_rswsgi("--max-body") {
        return;
    }
    let server = Server::new().app("basic").arg("--max-body", "1k").start();
    let head = "POST /called HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n";
    super::assert_refused(&server, format!("{head}Content-Length: 9999\r\n\r\n"), 413);
    super::assert_refused(&server, format!("{head}Content-Length: x\r\n\r\n"), 400);
}

#[test]
fn no_100_for_http_1_0() {
    let server = basic();
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    client.wait_consumed();
    client.send("hello");
    assert_eq!(client.response_to(Asked::Old).text(), "hello");
}

#[test]
fn a_request_may_be_split_at_every_byte() {
    // On a busy machine a hundred single bytes take longer than a head may by default.
    let server = Server::new()
        .app("basic")
        .arg("--head-timeout", "5m")
        .start();
    let request =
        b"POST /echo?a=b HTTP/1.1\r\nHost: test\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: u\r\n\r\n";
    let mut client = server.connect();
    for cut in 1..request.len() {
        client.send_split(request, &[cut]);
        client.response().assert_text("hello world");
    }
    let every: Vec<usize> = (1..request.len()).collect();
    client.send_split(request, &every);
    client.response().assert_text("hello world");
    let counted = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello world";
    let every: Vec<usize> = (1..counted.len()).collect();
    client.send_split(counted, &every);
    client.response().assert_text("hello world");
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    let server = basic();
    let mut client = server.connect();
    client.send("\r\nGET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    client.response().assert_text("hello\n");
    // RFC 9112 §2.2: what old clients add after a body.
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nab\r\n");
    client.response().assert_text("ab");
    client.get("/hello").assert_text("hello\n");
}

#[test]
fn optional_white_space_around_values_is_taken_off() {
    let server = basic();
    let mut client = server.connect();
    client.send("GET /environ HTTP/1.1\r\nhOST:test\r\nX-A: \t a b\t \r\nX-B:\r\n\r\n");
    let environ = client.response().json();
    assert_eq!(environ["HTTP_X_A"], "a b");
    assert_eq!(environ["HTTP_X_B"], "");
    assert_eq!(environ["HTTP_HOST"], "test");
}

#[test]
fn a_body_that_is_cut_off_never_reaches_the_application() {
    let server = basic();
    for framing in [
        "Content-Length: 10\r\n\r\nhello",
        "Content-Length: 10\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
    ] {
        eprintln!("cut off: {framing:?}");
        let mut client = server.connect();
        client.send(format!("POST /called HTTP/1.1\r\nHost: test\r\n{framing}"));
        client.half_close();
        let answer = client.read_until_over();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        super::assert_never_called(&server);
    }
}

#[test]
fn a_large_body_that_is_cut_off_never_reaches_the_application() {
    let server = basic();
    let mut client = server.connect();
    client.send("POST /called HTTP/1.1\r\nHost: test\r\nContent-Length: 5000000\r\n\r\n");
    client.send(vec![b'x'; 4_999_999]);
    client.half_close();
    let answer = client.read_until_over();
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    super::assert_never_called(&server);
}
