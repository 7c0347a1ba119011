//! Malformed requests: 400 (or what the rule says), a closed connection, and no call of the application.

use super::{assert_refused, basic};
use crate::support::{Random, Server, only_rswsgi};

/// A POST with these framing fields and a body that one reading of them would take.
fn framed(fields: &str) -> String {
    format!("POST /called HTTP/1.1\r\nHost: test\r\n{fields}\r\nhello")
}

#[test]
fn refuses_content_length_with_transfer_encoding() {
    let server = basic();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\nContent-Length: 0\r\n",
    ] {
        let request = format!("POST /called HTTP/1.1\r\nHost: test\r\n{fields}\r\n0\r\n\r\n");
        assert_refused(&server, request, 400);
    }
}

#[test]
fn refuses_differing_content_lengths() {
    let server = basic();
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nX-Between: x\r\ncontent-length: 4\r\n",
        "Content-Length: 5, 6\r\n",
    ] {
        assert_refused(&server, framed(fields), 400);
    }
}

#[test]
fn refuses_a_malformed_content_length() {
    let server = basic();
    for value in [
        "",
        " ",
        "abc",
        "-1",
        "+5",
        "5 5",
        "0x5",
        "5a",
        "5;",
        "1e3",
        "5.0",
        "\u{665}",
        ",5",
        "5,",
        "18446744073709551616",
        "99999999999999999999999999999999",
    ] {
        assert_refused(
            &server,
            framed(&format!("Content-Length: {value}\r\n")),
            400,
        );
    }
}

#[test]
fn refuses_transfer_codings_other_than_one_chunked() {
    let server = basic();
    for fields in [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        let request =
            format!("POST /called HTTP/1.1\r\nHost: test\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_refused(&server, request, 400);
    }
}

#[test]
fn refuses_transfer_encoding_in_http_1_0() {
    let request = "POST /called HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_refused(&basic(), request, 400);
}

#[test]
fn refuses_a_bare_cr() {
    let server = basic();
    for request in [
        "GET /called HTTP/1.1\rHost: test\r\n\r\n",
        "GET /called HTTP/1.1\r\nHost: test\rX: y\r\n\r\n",
        "GET /called HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n",
        "GET /called HTTP/1.1\r\nHost: test\r\nX\r: a\r\n\r\n",
        "GET /called HTTP/1.1\r\nHost: test\r\nX: a\r\r\n\r\n",
        "GET /cal\rled HTTP/1.1\r\nHost: test\r\n\r\n",
    ] {
        assert_refused(&server, request, 400);
    }
}

#[test]
fn refuses_a_bare_lf() {
    if !only_rswsgi("RFC 9112 §2.2 leaves it open; we are strict") {
        return;
    }
    let server = basic();
    for request in [
        "GET /called HTTP/1.1\nHost: test\n\n",
        "GET /called HTTP/1.1\r\nHost: test\nX: y\r\n\r\n",
        "GET /called HTTP/1.1\r\nHost: test\r\n\n",
    ] {
        assert_refused(&server, request, 400);
    }
}

#[test]
fn refuses_folded_lines() {
    let server = basic();
    for fields in ["X: a\r\n b\r\n", "X: a\r\n\tb\r\n", "X: a\r\n \r\n"] {
        assert_refused(
            &server,
            format!("GET /called HTTP/1.1\r\nHost: test\r\n{fields}\r\n"),
            400,
        );
    }
    assert_refused(&server, "GET /called HTTP/1.1\r\n Host: test\r\n\r\n", 400);
}

#[test]
fn refuses_white_space_before_the_colon() {
    let server = basic();
    for field in [
        "X : a",
        "X\t: a",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "Host : other",
    ] {
        assert_refused(
            &server,
            format!("POST /called HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n"),
            400,
        );
    }
}

#[test]
fn refuses_control_bytes_in_a_head() {
    let server = basic();
    for byte in (0..0x20)
        .chain([0x7f])
        .filter(|byte| !b"\t\r\n".contains(byte))
    {
        let mut request = b"GET /called HTTP/1.1\r\nHost: test\r\nX: a".to_vec();
        request.push(byte);
        request.extend_from_slice(b"b\r\n\r\n");
        assert_refused(&server, request, 400);
    }
    for byte in [0, 1, b'\t', 0x1f, 0x7f] {
        for (before, after) in [
            ("GET /cal", "led HTTP/1.1\r\nHost: test\r\n\r\n"),
            ("GE", "T /called HTTP/1.1\r\nHost: test\r\n\r\n"),
            ("GET /called HTTP/1.1\r\nHost: test\r\nX", "Y: a\r\n\r\n"),
        ] {
            let request = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            assert_refused(&server, request, 400);
        }
    }
}

#[test]
fn refuses_field_names_that_are_no_tokens() {
    let server = basic();
    for field in [
        "",
        ": a",
        "no colon",
        "X Y: a",
        "X(: a",
        "X/Y: a",
        "\u{e9}: a",
        "X[]: a",
        "X\"Y\": a",
    ] {
        if field.is_empty() {
            continue; // that is the end of the head
        }
        assert_refused(
            &server,
            format!("GET /called HTTP/1.1\r\nHost: test\r\n{field}\r\n\r\n"),
            400,
        );
    }
}

#[test]
fn refuses_a_missing_host_in_http_1_1() {
    let server = basic();
    assert_refused(&server, "GET /called HTTP/1.1\r\n\r\n", 400);
    assert_refused(&server, "GET /called HTTP/1.1\r\nX-Host: test\r\n\r\n", 400);
    let mut old = server.connect();
    old.send("GET /hello HTTP/1.0\r\n\r\n");
    assert_eq!(
        old.response_to(crate::support::client::Asked::Old).text(),
        "hello\n"
    );
}

#[test]
fn refuses_a_second_host() {
    let server = basic();
    for fields in [
        "Host: test\r\nHost: other\r\n",
        "Host: test\r\nHost: test\r\n",
        "Host: test\r\nX: y\r\nhost:\r\n",
    ] {
        assert_refused(
            &server,
            format!("GET /called HTTP/1.1\r\n{fields}\r\n"),
            400,
        );
    }
}

#[test]
fn refuses_a_host_that_is_none() {
    let server = basic();
    for host in [
        "a b",
        "a/b",
        "a@b",
        "a,b",
        "test:80:80",
        "test:x",
        "[::1",
        "a#b",
        "a?b",
    ] {
        assert_refused(
            &server,
            format!("GET /called HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
        );
    }
}

#[test]
fn refuses_a_malformed_request_line() {
    let server = basic();
    for line in [
        "GET",
        "GET /called",
        "GET  /called HTTP/1.1",
        "GET /called  HTTP/1.1",
        "GET /called HTTP/1.1 ",
        " GET /called HTTP/1.1",
        "GET /called HTTP/1.1 more",
        "GET /cal led HTTP/1.1",
        "GET /called http/1.1",
        "GET /called HTTP/1",
        "GET /called HTTP/1.",
        "GET /called HTTP/1.10",
        "GET /called HTTPS/1.1",
        "GET /called XTTP/1.1",
        "G@T /called HTTP/1.1",
        "GET called HTTP/1.1",
        "GET * HTTP/1.1",
        "GET HTTP/1.1",
        " /called HTTP/1.1",
        "GET http:///called HTTP/1.1",
        "GET /called\u{e9} HTTP/1.1",
        "GET /called#fragment HTTP/1.1",
        "CONNECT test:80 HTTP/1.1",
    ] {
        assert_refused(&server, format!("{line}\r\nHost: test\r\n\r\n"), 400);
    }
}

#[test]
fn refuses_a_version_that_is_none() {
    // RFC 9112 §2.3: one digit, a dot, one digit; 505 is for versions there could be.
    let server = basic();
    for version in ["HTTP/1.01", "HTTP/11", "HTTP/a.b", "HTTP/-1.1", "HTTP/ 1.1"] {
        assert_refused(
            &server,
            format!("GET /called {version}\r\nHost: test\r\n\r\n"),
            400,
        );
    }
}

#[test]
fn refuses_other_versions_of_http() {
    let server = basic();
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3.0"] {
        assert_refused(
            &server,
            format!("GET /called {version}\r\nHost: test\r\n\r\n"),
            505,
        );
    }
}

#[test]
fn refuses_the_tls_and_http_2_of_lost_clients() {
    let server = basic();
    assert_refused(
        &server,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        400,
    );
    let mut client = server.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(matches!(client.response().status, 400 | 505));
    client.expect_end();
}

fn chunked(body: &str) -> String {
    format!("POST /called HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[test]
fn refuses_bad_chunk_sizes() {
    let server = basic();
    for size in [
        "",
        " ",
        "x",
        "g",
        "-5",
        "+5",
        "0x5",
        " 5",
        "5x",
        "5 5",
        "5,",
        "1_0",
        "\u{665}",
        "FFFFFFFFFFFFFFFFF",
        "10000000000000000",
        "-0",
    ] {
        assert_refused(
            &server,
            chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")),
            400,
        );
    }
}

#[test]
fn refuses_bad_ends_of_chunks() {
    let server = basic();
    for body in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\rX0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
    ] {
        assert_refused(&server, chunked(body), 400);
    }
}

#[test]
fn refuses_bad_trailers() {
    let server = basic();
    for trailer in [
        "no colon",
        "X : y",
        " X: y",
        "X: a\rb",
        "X: \0",
        "X: a\nY: b",
    ] {
        assert_refused(
            &server,
            chunked(&format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n")),
            400,
        );
    }
}

#[test]
fn refuses_oversize_chunk_extensions() {
    let server = basic();
    let extension = "x".repeat(64 * 1024);
    assert_refused(
        &server,
        chunked(&format!("5;{extension}\r\nhello\r\n0\r\n\r\n")),
        400,
    );
}

#[test]
fn accepts_small_chunk_extensions() {
    let server = basic();
    let mut client = server.connect();
    client.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: Chunked\r\n\r\n\
         5;a=b\r\nhello\r\n000A;c=\"d;e\"\r\n, chunked \r\n1\r\n!\r\n0;last\r\n\r\n",
    );
    client.response().assert_text("hello, chunked !");
}

#[test]
fn fields_with_underscores_are_dropped_by_default() {
    let server = basic();
    let mut client = server.connect();
    client.send(
        "GET /environ HTTP/1.1\r\nHost: test\r\nX_User: forged\r\nX-User: true\r\nX_User: again\r\nX_Only: forged\r\n\
         Content_Length: 7\r\nContent_Type: forged\r\n\r\n",
    );
    let environ = client.response().json();
    assert_eq!(environ["HTTP_X_USER"], "true");
    for key in [
        "HTTP_X_ONLY",
        "HTTP_CONTENT_LENGTH",
        "HTTP_CONTENT_TYPE",
        "CONTENT_TYPE",
    ] {
        assert!(environ.get(key).is_none(), "{key} in {environ}");
    }
    assert_ne!(environ["CONTENT_LENGTH"], "7");
}

#[test]
fn fields_with_underscores_can_be_refused() {
    if !only_rswsgi("--underscore-fields") {
        return;
    }
    let server = Server::new()
        .app("basic")
        .arg("--underscore-fields", "refuse")
        .start();
    assert_refused(
        &server,
        "GET /called HTTP/1.1\r\nHost: test\r\nX_User: a\r\n\r\n",
        400,
    );
    server.get("/hello").assert_text("hello\n");
}

#[test]
fn fields_with_underscores_can_be_kept() {
    if !only_rswsgi("--underscore-fields") {
        return;
    }
    let server = Server::new()
        .app("basic")
        .arg("--underscore-fields", "keep")
        .start();
    let mut client = server.connect();
    client.send(
        "GET /environ HTTP/1.1\r\nHost: test\r\nX_User: kept\r\nTransfer_Encoding: chunked\r\n\r\n",
    );
    let environ = client.response().json();
    assert_eq!(environ["HTTP_X_USER"], "kept");
    assert_eq!(
        environ["HTTP_TRANSFER_ENCODING"], "chunked",
        "kept, but no framing"
    );
}

#[test]
fn the_second_of_two_pipelined_requests_is_refused_after_the_first_is_answered() {
    let server = basic();
    let mut client = server.connect();
    client.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\nGET /called HTTP/1.1\r\n\r\n");
    client.response().assert_text("hello\n");
    client.response().assert_status(400);
    client.expect_end();
    super::assert_never_called(&server);
}

#[test]
fn refusals_are_logged_at_a_bounded_rate() {
    if !only_rswsgi("bounded logging of malformed requests") {
        return;
    }
    let server = basic();
    for _ in 0..500 {
        let mut client = server.connect();
        client.send("GET /called HTTP/1.1\r\nHost: test\r\nHost: test\r\n\r\n");
        client.response().assert_status(400);
    }
    server.log.wait("a line about the repeated Host", |text| {
        let text = text.to_lowercase();
        (text.contains("repeated_host") || text.contains("repeated host") || text.contains("host"))
            .then_some(())
    });
    let lines = server.log.text().lines().count();
    assert!(
        lines < 200,
        "{lines} lines in the log for 500 malformed requests"
    );
}

#[test]
fn random_bytes_never_end_a_worker() {
    let server = Server::new().app("basic").workers(2).start();
    let workers = server.workers();
    let valid = b"POST /echo HTTP/1.1\r\nHost: test\r\nX-Y: z\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n";
    let mut random = Random::new(0x5eed);
    for round in 0..400 {
        let bytes = if round % 4 == 0 {
            let length = random.below(2000);
            random.bytes(length)
        } else {
            mutated(valid, &mut random)
        };
        let mut client = server.connect();
        // The server may have refused and closed already: that is a right answer.
        let _ = client.try_send(&bytes);
        client.try_half_close();
        let answer = client.read_until_over();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "round {round}: {bytes:?} got {answer:?}"
        );
    }
    server.get("/hello").assert_text("hello\n");
    assert_eq!(server.workers(), workers, "a worker ended");
}

/// A valid request with a few bytes changed, removed, doubled or cut off.
fn mutated(valid: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.below(256) as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, b"\r\n\0 :;,-0f\xff"[random.below(11)]),
            3 => bytes.extend_from_within(at..),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let server = basic();
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n");
    let answer = client.read_to_end();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}
