//! The dictionary an application is called with, and the streams in it.

use super::{over_was, rules, served};
use crate::support::{Response, Running, Server, UnderTest, only_rswsgi, under_test};
use serde_json::Value;

/// The type and the text of one value; panics when the key is missing.
#[track_caller]
fn entry(environ: &Value, key: &str) -> (String, String) {
    let pair = environ
        .get(key)
        .unwrap_or_else(|| panic!("no {key} in {environ}"));
    (
        pair[0].as_str().unwrap_or_default().into(),
        pair[1].as_str().unwrap_or_default().into(),
    )
}

#[track_caller]
fn assert_str(environ: &Value, key: &str, value: &str) {
    assert_eq!(entry(environ, key), ("str".into(), value.into()), "{key}");
}

#[track_caller]
fn ask(server: &Running, request: &str) -> Value {
    let mut client = server.connect();
    client.send(request);
    client.response().json()
}

#[test]
fn the_request_line_is_in_environ() {
    let server = rules();
    let environ = ask(
        &server,
        "PUT /environ/a%20b%2Fc%e9;p?x=%20y&z HTTP/1.1\r\nHost: test:81\r\nContent-Length: 0\r\n\r\n",
    );
    assert_str(&environ, "REQUEST_METHOD", "PUT");
    assert_str(&environ, "PATH_INFO", "/environ/a b/c\u{e9};p");
    assert_str(&environ, "SCRIPT_NAME", "");
    assert_str(&environ, "QUERY_STRING", "x=%20y&z");
    assert_str(&environ, "SERVER_PROTOCOL", "HTTP/1.1");
    assert_str(&environ, "HTTP_HOST", "test:81");
    assert_str(&environ, "RAW_URI", "/environ/a%20b%2Fc%e9;p?x=%20y&z");
    assert_eq!(
        entry(&environ, "(type)").0,
        "dict",
        "PEP 3333: a builtin dict, not a subclass"
    );
    for key in environ.as_object().expect("an object").keys() {
        let latin = entry(&environ, key).1.chars().all(|c| c <= '\u{ff}');
        assert!(latin, "{key} is not Latin-1: {environ}");
    }
}

#[test]
fn request_uri_is_the_raw_target() {
    if !only_rswsgi("REQUEST_URI as uWSGI and mod_wsgi give it") {
        return;
    }
    let environ = ask(
        &rules(),
        "GET /environ/%41?b HTTP/1.1\r\nHost: test\r\n\r\n",
    );
    assert_str(&environ, "REQUEST_URI", "/environ/%41?b");
    assert_str(&environ, "RAW_URI", "/environ/%41?b");
}

#[test]
fn a_path_of_utf_8_arrives_as_its_bytes() {
    let environ = ask(
        &rules(),
        "GET /environ/%E2%82%AC HTTP/1.1\r\nHost: test\r\n\r\n",
    );
    assert_str(&environ, "PATH_INFO", "/environ/\u{e2}\u{82}\u{ac}");
}

#[test]
fn the_query_string_is_empty_when_there_is_none() {
    let server = rules();
    let environ = ask(&server, "GET /environ HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_str(&environ, "QUERY_STRING", "");
    if over_was() {
        return;
    }
    let environ = ask(&server, "GET /environ? HTTP/1.0\r\n\r\n");
    assert_str(&environ, "QUERY_STRING", "");
    assert_str(&environ, "SERVER_PROTOCOL", "HTTP/1.0");
}

#[test]
fn a_mount_prefix_becomes_script_name() {
    if !only_rswsgi("--script-name") {
        return;
    }
    let server = served(Server::new().app("basic").arg("--script-name", "/shop"));
    let under: Response = server.get("/shop/environ");
    // basic.py looks at PATH_INFO, so reaching /environ is half of the proof.
    assert_eq!(under.json()["SCRIPT_NAME"], "/shop");
    assert_eq!(under.json()["PATH_INFO"], "/environ");
    assert_eq!(under.json()["RAW_URI"], "/shop/environ");
}

#[test]
fn tcp_clients_are_named_by_address_and_port() {
    if over_was() {
        return;
    }
    let server = rules();
    let mut client = server.connect();
    let here = client.local_address();
    let environ = client.get("/environ").json();
    assert_str(&environ, "REMOTE_ADDR", "127.0.0.1");
    assert_str(&environ, "REMOTE_PORT", &here.port().to_string());
    let crate::support::server::Address::Tcp(address) = server.address() else {
        unreachable!("the default is TCP")
    };
    assert_str(&environ, "SERVER_PORT", &address.port().to_string());
    assert_eq!(entry(&environ, "SERVER_NAME").0, "str");
    assert_ne!(entry(&environ, "SERVER_NAME").1, "");
}

#[test]
fn clients_of_a_unix_socket_have_sensible_values() {
    if over_was() || !only_rswsgi("values where the protocol has none") {
        return;
    }
    let server = served(Server::new().app("rules").unix());
    let environ = server.connect().get("/environ").json();
    for key in ["REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT"] {
        assert_eq!(entry(&environ, key).0, "str", "{key}");
    }
    assert_ne!(
        entry(&environ, "SERVER_NAME").1,
        "",
        "PEP 3333: never empty"
    );
    let port = entry(&environ, "SERVER_PORT").1;
    assert!(
        port.parse::<u16>().is_ok(),
        "PEP 3333: SERVER_PORT is never empty; wsgiref makes a number of it: {port:?}"
    );
}

#[test]
fn the_keys_of_wsgi_are_there() {
    let server = served(Server::new().app("rules").workers(2));
    let environ = ask(&server, "GET /environ HTTP/1.1\r\nHost: test\r\n\r\n");
    let expected = [
        ("wsgi.version", "tuple", "(1, 0)"),
        ("wsgi.url_scheme", "str", "http"),
        ("wsgi.multithread", "bool", "False"),
        ("wsgi.multiprocess", "bool", "True"),
        ("wsgi.run_once", "bool", "False"),
        ("wsgi.input_terminated", "bool", "True"),
    ];
    for (key, kind, value) in expected {
        if key == "wsgi.multithread" && under_test() != UnderTest::Rswsgi {
            continue; // the peer serves in threads to have keep-alive at all
        }
        assert_eq!(entry(&environ, key), (kind.into(), value.into()), "{key}");
    }
    for key in ["wsgi.input", "wsgi.errors", "wsgi.file_wrapper"] {
        entry(&environ, key);
    }
}

#[test]
fn headers_become_http_keys() {
    let environ = ask(
        &rules(),
        "POST /environ HTTP/1.1\r\nHost: test\r\nX-Some-Thing: a\r\nCONTENT-TYPE: text/x\r\nContent-Length: 2\r\n\
         Accept: a\r\nX-Latin: \u{e9}\r\naccept: b\r\nCookie: a=1\r\nACCEPT: c, d\r\nCookie: b=2\r\n\r\nab",
    );
    assert_str(&environ, "HTTP_X_SOME_THING", "a");
    assert_str(&environ, "CONTENT_TYPE", "text/x");
    assert_str(&environ, "CONTENT_LENGTH", "2");
    assert!(
        environ.get("HTTP_CONTENT_TYPE").is_none() && environ.get("HTTP_CONTENT_LENGTH").is_none(),
        "{environ}"
    );
    assert_str(&environ, "HTTP_X_LATIN", "\u{c3}\u{a9}"); // two bytes of UTF-8 are two characters of Latin-1
    let accept = entry(&environ, "HTTP_ACCEPT").1;
    assert_eq!(accept.replace(", ", ","), "a,b,c,d");
}

#[test]
fn repeated_headers_are_joined_as_the_rfc_says() {
    if !only_rswsgi("RFC 9110 §5.3 with a space, RFC 9113 §8.2.3 for Cookie") {
        return;
    }
    let request = "GET /environ HTTP/1.1\r\nHost: test\r\nAccept: a\r\nCookie: a=1\r\nAccept: b\r\nCookie: b=2\r\n\r\n";
    let environ = ask(&rules(), request);
    assert_str(&environ, "HTTP_ACCEPT", "a, b");
    assert_str(&environ, "HTTP_COOKIE", "a=1; b=2");
}

#[test]
fn requests_do_not_see_each_other_in_environ() {
    let server = rules();
    let mut client = server.connect();
    client
        .send("GET /environ HTTP/1.1\r\nHost: test\r\nX-First: 1\r\nContent-Type: text/x\r\n\r\n");
    client.response().assert_status(200);
    let environ = client.get("/environ").json();
    assert!(
        environ.get("HTTP_X_FIRST").is_none() && environ["CONTENT_TYPE"][1] != "text/x",
        "{environ}"
    );
}

#[test]
fn wsgi_errors_goes_to_the_log() {
    let server = rules();
    server.get("/errors").assert_text("written");
    for piece in [
        "to the log by write: caf",
        "to the log by writelines",
        "and one more",
        "to the log by print",
    ] {
        server.log.wait_for(piece);
    }
}

#[test]
fn print_works() {
    let server = rules();
    server.get("/print").assert_text("printed");
    server.log.wait_for("printed to stderr");
    let finished = server.finish();
    let printed = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(
        printed.matches("printed by the application").count(),
        1,
        "{printed}"
    );
}
