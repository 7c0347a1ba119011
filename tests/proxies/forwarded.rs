//! What trusted proxies say, and what others do not get believed.

use super::{Environ, environ, logged, ours, wait_lines};
use crate::support::{Client, Control, Server};
use serde_json::json;

/// A TCP and a Unix listener.
fn server() -> Server {
    logged(Server::new().tcp().unix())
}

const ALL: &str = "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: other.example\r\nX-Forwarded-Port: 8443\r\nForwarded: for=1.2.3.4;proto=https\r\n\
    X-Real-IP: 192.0.2.7\r\nX-Forwarded-Prefix: /a\r\n";

#[test]
fn nobody_is_trusted_who_is_not_named() {
    if !ours() {
        return;
    }
    let server = server().start();
    for listener in [0, 1] {
        let environ = environ(&mut server.connect_to(listener), ALL);
        environ.assert("REMOTE_ADDR", if listener == 0 { "127.0.0.1" } else { "" });
        environ.assert("wsgi.url_scheme", "http");
        environ.assert("HTTP_HOST", "shop.example");
        environ.assert("HTTPS", None);
        // The application may know better.
        environ.assert("HTTP_X_FORWARDED_FOR", "6.6.6.6, 192.0.2.7");
        environ.assert("HTTP_X_FORWARDED_PROTO", "https");
        environ.assert("HTTP_FORWARDED", "for=1.2.3.4;proto=https");
    }
}

#[test]
fn a_trusted_proxy_names_client_and_scheme() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "unix").start();
    let mut proxy = server.connect_to(1);
    let found = environ(&mut proxy, ALL);
    found.assert("REMOTE_ADDR", "192.0.2.7");
    found.assert("REMOTE_PORT", "");
    found.assert("wsgi.url_scheme", "https");
    found.assert("HTTPS", "on");
    found.assert("SERVER_NAME", "shop.example");
    found.assert("SERVER_PORT", "443");
    found.assert("HTTP_HOST", "shop.example");
    // What is believed is left to be seen, what is not is gone.
    found.assert("HTTP_X_FORWARDED_FOR", "6.6.6.6, 192.0.2.7");
    found.assert("HTTP_X_FORWARDED_PROTO", "https");
    found.assert("HTTP_X_FORWARDED_PREFIX", "/a");
    found.assert("HTTP_X_REAL_IP", "192.0.2.7");
    found.assert("HTTP_X_FORWARDED_HOST", None);
    found.assert("HTTP_X_FORWARDED_PORT", None);
    found.assert("HTTP_FORWARDED", None);
    assert_eq!(wait_lines(&server, 1)[0]["peer"], "192.0.2.7");
    // The next request on the same connection is somebody else's, or nobody's.
    let fields = "X-Forwarded-For: [2001:db8::7]:4711\r\n";
    let other = environ(&mut proxy, fields);
    other.assert("REMOTE_ADDR", "2001:db8::7");
    other.assert("REMOTE_PORT", "4711");
    other.assert("wsgi.url_scheme", "http");
    other.assert("HTTPS", None);
    other.assert("SERVER_PORT", "80");
    environ(&mut proxy, "").assert("REMOTE_ADDR", "");
    environ(&mut proxy, "X-Forwarded-For: unknown\r\n").assert("REMOTE_ADDR", "");
    let lines = wait_lines(&server, 4);
    assert_eq!(lines[1]["peer"], "2001:db8::7");
}

#[test]
fn a_stranger_is_its_own_client() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "unix,10.0.0.0/8").start();
    let found = environ(&mut server.connect_to(0), ALL);
    found.assert("REMOTE_ADDR", "127.0.0.1");
    found.assert("wsgi.url_scheme", "http");
    found.assert("HTTP_HOST", "shop.example");
    for name in ["FOR", "PROTO", "HOST", "PORT", "PREFIX"] {
        assert_eq!(found.get(&format!("HTTP_X_FORWARDED_{name}")), None);
    }
    found.assert("HTTP_FORWARDED", None);
    found.assert("HTTP_X_REAL_IP", None);
}

#[test]
fn a_chain_of_proxies_over_tcp_is_walked() {
    if !ours() {
        return;
    }
    let server = server()
        .arg("--trusted-proxies", "127.0.0.0/8")
        .arg("--trusted-proxies", "10.0.0.0/8")
        .start();
    let fields = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n";
    let found = environ(&mut server.connect_to(0), fields);
    found.assert("REMOTE_ADDR", "192.0.2.7");
    found.assert("SERVER_NAME", "shop.example");
    found.assert("SERVER_PORT", "80");
    // Whoever comes over the Unix socket was not named.
    environ(&mut server.connect_to(1), fields).assert("REMOTE_ADDR", "");
}

#[test]
fn host_and_port_are_believed_when_they_are_named() {
    if !ours() {
        return;
    }
    let fields = "x-forwarded-for,x-forwarded-proto,x-forwarded-host,X-Forwarded-Port";
    let server = server()
        .arg("--trusted-proxies", "unix")
        .arg("--forwarded-fields", fields)
        .start();
    let found = environ(&mut server.connect_to(1), ALL);
    found.assert("HTTP_HOST", "other.example:8443");
    found.assert("SERVER_NAME", "other.example");
    found.assert("SERVER_PORT", "8443");
    found.assert("HTTP_X_FORWARDED_HOST", "other.example");
    found.assert("HTTP_FORWARDED", None);
    environ(&mut server.connect_to(0), ALL).assert("HTTP_HOST", "shop.example");
}

#[test]
fn forwarded_is_believed_when_it_is_named() {
    if !ours() {
        return;
    }
    let server = server()
        .arg("--trusted-proxies", "unix,10.0.0.0/8")
        .arg("--forwarded-fields", "forwarded")
        .start();
    let mut proxy = server.connect_to(1);
    let forwarded = "Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https;host=other.example\r\n\
        Forwarded: for=10.0.0.1;proto=http\r\nX-Forwarded-For: 6.6.6.6\r\n";
    let found = environ(&mut proxy, forwarded);
    found.assert("REMOTE_ADDR", "2001:db8::7");
    found.assert("REMOTE_PORT", "4711");
    found.assert("wsgi.url_scheme", "https");
    found.assert("HTTP_HOST", "other.example");
    found.assert("SERVER_PORT", "443");
    found.assert("HTTP_X_FORWARDED_FOR", None);
}

#[test]
fn what_makes_no_sense_is_refused_and_counted() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "unix").start();
    let bad = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: ftp\r\n\r\n";
    let mut proxy = server.connect_to(1);
    proxy.send(bad);
    proxy.response().assert_status(400);
    let app = Control::of(&server, "basic").app();
    assert_eq!(app["errors"]["refused"]["bad_forwarded"], 1);
    // A stranger may say what it likes.
    let mut stranger = server.connect_to(0);
    stranger.send(bad);
    stranger.response().assert_status(200);
}

#[test]
fn a_disguised_field_is_not_taken_for_that_of_a_proxy() {
    if !ours() {
        return;
    }
    let server = server()
        .arg("--trusted-proxies", "unix")
        .arg("--underscore-fields", "keep")
        .start();
    let fields = "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\nX_Forwarded-Proto: https\r\nX_Other: a\r\n";
    let found = environ(&mut server.connect_to(1), fields);
    found.assert("REMOTE_ADDR", "192.0.2.7");
    found.assert("HTTP_X_FORWARDED_FOR", "192.0.2.7");
    found.assert("HTTP_X_FORWARDED_PROTO", None);
    found.assert("HTTP_X_OTHER", "a");
}

#[test]
fn the_client_of_a_body_is_found_too() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "unix").start();
    let head = "POST /environ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nContent-Length: 4\r\n\r\n";
    let mut proxy = server.connect_to(1);
    proxy.send(head);
    proxy.send("body");
    Environ::of(&proxy.response()).assert("REMOTE_ADDR", "192.0.2.7");
    // One that is refused is that client's, too.
    proxy.send(
        head.replace("length: 4", "")
            .replace("Length: 4", "Length: 999999999999"),
    );
    proxy.response().assert_status(413);
    let lines = wait_lines(&server, 2);
    let who = lines.iter().map(|line| &line["peer"]);
    assert!(who.clone().all(|peer| peer == "192.0.2.7"), "{lines:?}");
}

#[test]
fn what_cannot_be_read_is_nobodys_whom_the_proxy_has_served_before() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "unix").start();
    let mut proxy = server.connect_to(1);
    environ(&mut proxy, "X-Forwarded-For: 192.0.2.7\r\n").assert("REMOTE_ADDR", "192.0.2.7");
    proxy.send("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For : 192.0.2.8\r\n\r\n");
    proxy.response().assert_status(400);
    let lines = wait_lines(&server, 2);
    assert_eq!(lines[0]["peer"], "192.0.2.7");
    assert_eq!(lines[1]["peer"], "", "{}", lines[1]);
    server
        .log
        .wait_for("400: space_before_colon in \"GET / HTTP/1.1\" from a local client");
}

#[test]
fn statistics_show_who_is_served() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "unix").start();
    let gate = server.gate("gate");
    let mut proxy: Client = server.connect_to(1);
    proxy.send("GET /wait HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    assert!(server.notes.next().starts_with("waiting"));
    let mut control = Control::of(&server, "basic");
    let workers = control.done(json!({"v": 1, "do": "stats"}));
    assert!(
        workers.to_string().contains("\"peer\":\"192.0.2.7\""),
        "{workers}"
    );
    gate.open();
    proxy.response().assert_status(200);
}
