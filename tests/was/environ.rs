//! What the application is told.

use super::{one, ours, with};
use crate::support::Server;
use crate::support::was_client::*;
use serde_json::Value;

fn value(environ: &Value, key: &str) -> Option<String> {
    environ
        .get(key)
        .map(|pair| pair[1].as_str().expect("a pair of texts").to_owned())
}

fn asking(uri: &str) -> Asking {
    Asking::get(uri).with(PATH_INFO, b"/environ")
}

#[test]
fn the_address_is_taken_from_its_packets() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let asking = Asking::get("/app/environ/x y?q=%41")
        .with(SCRIPT_NAME, b"/app")
        .with(PATH_INFO, b"/environ/x y%41")
        .with(QUERY_STRING, b"q=%41")
        .with(REMOTE_HOST, b"2001:db8::1")
        .with(DOCUMENT_ROOT, b"/var/www/app")
        .header("host=[::1]:8080");
    let environ = client.ask(asking).json();
    for (key, expected) in [
        ("SCRIPT_NAME", "/app"),
        // Decoded by the client: what looks encoded is not.
        ("PATH_INFO", "/environ/x y%41"),
        ("QUERY_STRING", "q=%41"),
        ("REQUEST_URI", "/app/environ/x y?q=%41"),
        ("RAW_URI", "/app/environ/x y?q=%41"),
        ("REMOTE_ADDR", "2001:db8::1"),
        ("DOCUMENT_ROOT", "/var/www/app"),
        ("SERVER_NAME", "[::1]"),
        ("SERVER_PORT", "8080"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_METHOD", "GET"),
        ("wsgi.url_scheme", "http"),
        ("wsgi.multiprocess", "True"),
        ("wsgi.input_terminated", "True"),
        ("wsgi.run_once", "False"),
    ] {
        assert_eq!(value(&environ, key).as_deref(), Some(expected), "{key}");
    }
    let software = value(&environ, "SERVER_SOFTWARE").expect("a name of the server");
    assert!(software.starts_with("rswsgi/"));
    assert!(environ.get("CONTENT_LENGTH").is_none() && environ.get("HTTPS").is_none());
}

#[test]
fn without_packets_the_address_is_that_of_the_uri() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let environ = client.get("/environ/%41b?x=1?y").json();
    assert_eq!(value(&environ, "PATH_INFO").as_deref(), Some("/environ/Ab"));
    assert_eq!(value(&environ, "QUERY_STRING").as_deref(), Some("x=1?y"));
    assert_eq!(value(&environ, "SCRIPT_NAME").as_deref(), Some(""));
    assert_eq!(value(&environ, "REMOTE_ADDR").as_deref(), Some(""));
    assert_eq!(value(&environ, "SERVER_NAME").as_deref(), Some("localhost"));
    assert_eq!(value(&environ, "SERVER_PORT").as_deref(), Some("80"));
    let asking = Asking::get("/environ/a/environ").with(SCRIPT_NAME, b"/environ/a");
    let environ = client.ask(asking).json();
    assert_eq!(value(&environ, "PATH_INFO").as_deref(), Some("/environ"));
    // Nor need there be a URI.
    let mut packets = packet(REQUEST, b"");
    packets.extend(packet(SCRIPT_NAME, b"/s"));
    packets.extend(packet(PATH_INFO, b"/environ"));
    packets.extend(packet(QUERY_STRING, b"q"));
    packets.extend(packet(NO_DATA, b""));
    client.send(&packets);
    let environ = client.answer().json();
    assert_eq!(
        value(&environ, "REQUEST_URI").as_deref(),
        Some("/s/environ?q")
    );
    // But something has to.
    client.send([packet(REQUEST, b""), packet(NO_DATA, b"")].concat());
    client.answer().assert_status(400);
}

#[test]
fn https_is_told_by_packet_or_header() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    for secure in [
        asking("/").with(TLS, b"").header("host=example.org"),
        asking("/")
            .header("x-cm4all-https=on")
            .header("host=example.org"),
    ] {
        let environ = client.ask(secure.clone()).json();
        assert_eq!(value(&environ, "HTTPS").as_deref(), Some("on"));
        assert_eq!(value(&environ, "wsgi.url_scheme").as_deref(), Some("https"));
        assert_eq!(
            value(&environ, "SERVER_NAME").as_deref(),
            Some("example.org")
        );
        assert_eq!(value(&environ, "SERVER_PORT").as_deref(), Some("443"));
    }
    let environ = client
        .ask(asking("/").with(TLS, b"").header("host=example.org:8443"))
        .json();
    assert_eq!(value(&environ, "SERVER_PORT").as_deref(), Some("8443"));
    let environ = client
        .ask(asking("/").with(TLS, b"").header("host=[::1]"))
        .json();
    assert_eq!(value(&environ, "SERVER_PORT").as_deref(), Some("443"));
    assert_eq!(value(&environ, "SERVER_NAME").as_deref(), Some("[::1]"));
    let environ = client.ask(asking("/").header("x-cm4all-https=off")).json();
    assert_eq!(
        value(&environ, "HTTPS"),
        None,
        "nothing is left of the request before"
    );
    assert_eq!(value(&environ, "wsgi.url_scheme").as_deref(), Some("http"));
}

#[test]
fn repeated_headers_are_joined() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let asking = asking("/")
        .header("cookie=a=1")
        .header("cookie=b=2")
        .header("x-list=one")
        .header("x-list=two")
        .header("content-type=text/plain; charset=x")
        .header("x-latin=caf\u{e9}");
    let environ = client.ask(asking).json();
    assert_eq!(value(&environ, "HTTP_COOKIE").as_deref(), Some("a=1; b=2"));
    assert_eq!(value(&environ, "HTTP_X_LIST").as_deref(), Some("one, two"));
    assert_eq!(
        value(&environ, "CONTENT_TYPE").as_deref(),
        Some("text/plain; charset=x")
    );
    assert_eq!(
        value(&environ, "HTTP_X_LATIN").as_deref(),
        Some("caf\u{c3}\u{a9}")
    );
}

#[test]
fn what_could_be_forged_is_left_out() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let forged = asking("/")
        .header("x_forwarded_for=1.2.3.4")
        .header("proxy=http://evil")
        .header("content-length=7")
        .header("transfer-encoding=chunked");
    let environ = client.ask(forged.clone()).json();
    for key in [
        "HTTP_X_FORWARDED_FOR",
        "HTTP_PROXY",
        "CONTENT_LENGTH",
        "HTTP_CONTENT_LENGTH",
        "HTTP_TRANSFER_ENCODING",
    ] {
        assert_eq!(value(&environ, key), None, "{key}");
    }
    let (_server, _multi, mut client) = with(Server::new().arg("--underscore-fields", "refuse"));
    client.ask(forged).assert_status(400);
    client.get("/hello").assert_status(200);
}

#[test]
fn parameters_are_a_dictionary() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let asking = asking("/")
        .with(PARAMETER, b"KEY=value=1")
        .with(PARAMETER, b"other=");
    let environ = client.ask(asking).json();
    assert_eq!(environ["was.parameters"][0], "dict");
    assert_eq!(
        environ["was.parameters"][1],
        "{'KEY': 'value=1', 'other': ''}"
    );
    let environ = client.get("/environ").json();
    assert_eq!(environ["was.parameters"][1], "{}");
}

#[test]
fn the_length_of_the_body_is_known_whatever_the_client_says_and_when() {
    if !ours() {
        return;
    }
    let (_server, _multi, mut client) = one();
    let environ = client.ask(Asking::post("/environ", b"12345")).json();
    assert_eq!(value(&environ, "CONTENT_LENGTH").as_deref(), Some("5"));
    let asking = Asking::new(3, "/environ");
    client.send(asking.opening());
    client.put(b"123456");
    client.send(number(LENGTH, 6));
    let environ = client.answer().json();
    assert_eq!(value(&environ, "CONTENT_LENGTH").as_deref(), Some("6"));
}
