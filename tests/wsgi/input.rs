//! `wsgi.input` is a file: every method, for bodies in memory and in a temporary file.

use super::{over_was, rules};
use crate::support::{Running, only_rswsgi};
use serde_json::{Value, json};

#[track_caller]
fn calls(server: &Running, calls: &str, body: &[u8]) -> Value {
    server
        .connect()
        .post(&format!("/input?{calls}"), body)
        .json()
}

#[test]
fn read_takes_sizes() {
    let server = rules();
    assert_eq!(calls(&server, "read", b"0123456789"), json!(["0123456789"]));
    assert_eq!(
        calls(&server, "read,-1&read", b"0123456789"),
        json!(["0123456789", ""])
    );
    assert_eq!(
        calls(
            &server,
            "read,3&read,0&read,3&read,99&read,1",
            b"0123456789"
        ),
        json!(["012", "", "345", "6789", ""])
    );
    assert_eq!(
        calls(&server, "read&read,5&readline", b""),
        json!(["", "", ""])
    );
}

#[test]
fn readline_takes_sizes() {
    let server = rules();
    let body = b"one\ntwo\r\n\nlast";
    let expected = json!(["one\n", "two\r\n", "\n", "last", ""]);
    assert_eq!(
        calls(
            &server,
            "readline&readline&readline&readline&readline",
            body
        ),
        expected
    );
    assert_eq!(
        calls(
            &server,
            "readline,2&readline,99&readline,0&readline,-1",
            body
        ),
        json!(["on", "e\n", "", "two\r\n"])
    );
}

#[test]
fn lines_can_be_read_and_iterated() {
    let server = rules();
    let body = b"one\ntwo\nthree";
    assert_eq!(
        calls(&server, "readlines", body),
        json!([["one\n", "two\n", "three"]])
    );
    assert_eq!(
        calls(&server, "readlines,1&read", body),
        json!([["one\n"], "two\nthree"])
    );
    assert_eq!(
        calls(&server, "readline&iter&read", body),
        json!(["one\n", ["two\n", "three"], ""])
    );
}

#[test]
fn it_is_a_real_file() {
    if !only_rswsgi("every method of a file") {
        return;
    }
    let server = rules();
    assert_eq!(
        calls(
            &server,
            "read,3&tell&seek,1&read&seek,0,2&readable&seekable",
            b"012345"
        ),
        json!(["012", 3, 1, "12345", 6, true, true])
    );
    assert_eq!(
        calls(&server, "read1,2&read1,-1", b"0123"),
        json!(["01", "23"])
    );
    server
        .connect()
        .post("/readinto", b"0123456")
        .assert_text("0123");
    let large = vec![b'x'; 3 << 20];
    assert_eq!(
        calls(&server, "seek,3145720&read&seek,0&read,2&tell", &large),
        json!([3_145_720, "xxxxxxxx", 0, "xx", 2])
    );
}

#[test]
fn large_bodies_arrive_whole() {
    if over_was() {
        return;
    }
    let server = rules();
    let mut client = server.connect();
    for size in [
        1,
        65_535,
        65_536,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        20_000_000,
    ] {
        let body: Vec<u8> = (0..size)
            .map(|index: usize| (index * 7 + index / 251) as u8)
            .collect();
        let expected = format!("{size} {}", crc32(&body));
        client.post("/sums", &body).assert_text(&expected);
        // The same in chunks.
        client.send("POST /sums HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(100_000) {
            client.send(format!("{:x}\r\n", piece.len()));
            client.send(piece);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        client.response().assert_text(&expected);
    }
}

#[test]
fn lines_of_a_large_body_are_whole() {
    let server = rules();
    let body: String = (0..200_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    let lines = calls(&server, "readlines", body.as_bytes());
    assert_eq!(lines[0].as_array().expect("a list").len(), 200_000);
    assert_eq!(lines[0][199_999], "line 199999\n");
}

#[test]
fn a_body_nobody_reads_does_not_disturb_the_next_request() {
    let server = rules();
    let mut client = server.connect();
    for size in [5, 100_000, 3_000_000] {
        client
            .post("/unread", &vec![b'x'; size])
            .assert_text("not read");
        client.get("/hello").assert_text("hello\n");
    }
}

/// As in `zlib.crc32`.
fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0_u32; 256];
    for (number, entry) in (0_u32..).zip(table.iter_mut()) {
        *entry = (0..8).fold(number, |value, _| {
            if value & 1 == 1 {
                0xEDB8_8320 ^ (value >> 1)
            } else {
                value >> 1
            }
        });
    }
    !bytes.iter().fold(!0, |sum, byte| {
        table[usize::from(sum as u8 ^ byte)] ^ (sum >> 8)
    })
}
