//! Listeners that speak the PROXY protocol.

use super::{Environ, environ, logged, ours, wait_lines};
use crate::support::{Control, Running, Server};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// A TCP and a Unix listener that demand the header, and a TCP listener that knows nothing of it.
fn server() -> Server {
    logged(Server::new().tcp().unix().tcp())
        .arg("--bind", "fd://3?proxy-protocol=on")
        .arg("--bind", "fd://4?proxy-protocol=on")
}

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";
const LINE_6: &[u8] = b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n";
const REQUEST: &[u8] = b"GET /environ HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// Version 2, with something behind the addresses that is to be skipped.
fn block() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12".to_vec();
    bytes.extend([192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xbb]);
    bytes.extend(b"\x04\0\x03abc");
    bytes
}

#[track_caller]
fn refusals(server: &Running) -> u64 {
    let app = Control::of(server, "basic").app();
    // Only reasons that occurred are there.
    let refused = &app["errors"]["refused"]["bad_proxy_header"];
    refused.as_u64().unwrap_or_default()
}

#[test]
fn the_header_names_the_client() {
    if !ours() {
        return;
    }
    let server = server().start();
    let mut asked = 0;
    for listener in [0, 1] {
        for (header, address) in [
            (LINE, "192.0.2.7"),
            (LINE_6, "2001:db8::7"),
            (&block(), "192.0.2.7"),
        ] {
            let mut client = server.connect_to(listener);
            client.send([header, REQUEST].concat());
            // It holds for all requests of the connection.
            for again in [false, true] {
                let environ = match again {
                    false => Environ::of(&client.response()),
                    true => environ(&mut client, ""),
                };
                environ.assert("REMOTE_ADDR", address);
                environ.assert("REMOTE_PORT", "4711");
                environ.assert("wsgi.url_scheme", "http");
                asked += 1;
                let lines = wait_lines(&server, asked);
                assert_eq!(lines[asked - 1]["peer"], address);
            }
        }
    }
    assert_eq!(refusals(&server), 0);
}

#[test]
fn the_header_may_come_in_pieces() {
    if !ours() {
        return;
    }
    let server = server().arg("--head-timeout", "5m").start();
    for header in [LINE, &block()] {
        let bytes = [header, REQUEST].concat();
        for cut in 1..=header.len() + 1 {
            let mut client = server.connect_to(0);
            client.send_split(&bytes, &[cut]);
            Environ::of(&client.response()).assert("REMOTE_ADDR", "192.0.2.7");
        }
        let mut client = server.connect_to(0);
        let every: Vec<usize> = (1..bytes.len()).collect();
        client.send_split(&bytes, &every);
        Environ::of(&client.response()).assert("REMOTE_ADDR", "192.0.2.7");
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    if !ours() {
        return;
    }
    let server = server().start();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for header in [&b"PROXY UNKNOWN\r\n"[..], local] {
        let mut tcp = server.connect_to(0);
        let port = tcp.local_address().port().to_string();
        tcp.send([header, REQUEST].concat());
        let environ = Environ::of(&tcp.response());
        environ.assert("REMOTE_ADDR", "127.0.0.1");
        assert_eq!(environ.get("REMOTE_PORT"), Some(&*port));
        let mut unix = server.connect_to(1);
        unix.send([header, REQUEST].concat());
        Environ::of(&unix.response()).assert("REMOTE_ADDR", "");
    }
}

#[test]
fn a_connection_without_the_header_is_refused_and_counted() {
    if !ours() {
        return;
    }
    let server = server().start();
    for (count, start) in [
        REQUEST,
        b"\r\nPROXY UNKNOWN\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11",
        b"\x16\x03\x01\0\xa5",
    ]
    .iter()
    .enumerate()
    {
        let mut client = server.connect_to(count % 2);
        client.send(start);
        client.response().assert_status(400);
        client.half_close();
        client.expect_end();
        assert_eq!(refusals(&server), count as u64 + 1);
    }
    server
        .log
        .wait_for("400: bad_proxy_header in \"GET /environ HTTP/1.1\" from 127.0.0.1");
    // Where it is not asked for it is no request.
    let mut client = server.connect_to(2);
    client.send([LINE, REQUEST].concat());
    client.response().assert_status(400);
    assert_eq!(refusals(&server), 5);
}

#[test]
fn the_header_has_the_time_of_a_head() {
    if !ours() {
        return;
    }
    let server = server().arg("--head-timeout", "1s").start();
    let start = Instant::now();
    let mut silent = server.connect_to(0);
    let mut slow = server.connect_to(0);
    slow.send(&LINE[..9]);
    slow.response().assert_status(408);
    silent.expect_end();
    assert!(start.elapsed() >= Duration::from_secs(1), "not too early");
    // One that has sent it has its time for the head, and one that has sent all is served.
    let mut client = server.connect_to(0);
    client.send(LINE);
    environ(&mut client, "").assert("REMOTE_ADDR", "192.0.2.7");
}

#[test]
fn reloads_and_upgrades_keep_the_protocol() {
    if !ours() {
        return;
    }
    let server = server().start();
    let ask = || {
        let mut client = server.connect_to(0);
        client.send([LINE, REQUEST].concat());
        Environ::of(&client.response()).assert("REMOTE_ADDR", "192.0.2.7");
        let mut client = server.connect_to(1);
        client.send(REQUEST);
        client.response().assert_status(400);
    };
    ask();
    server.read_notifications();
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    ask();
    server.read_notifications();
    server.signal(Signal::SIGUSR2);
    server.wait_notified("READY=1");
    ask();
}

#[test]
fn connections_keep_their_client_over_a_reload() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "127.0.0.1").start();
    let mut unknown = server.connect_to(0);
    unknown.send(b"PROXY UNKNOWN\r\n");
    environ(&mut unknown, FIELDS).assert("REMOTE_ADDR", "127.0.0.1");
    let mut served = server.connect_to(0);
    served.send(LINE);
    environ(&mut served, "").assert("REMOTE_ADDR", "192.0.2.7");
    let mut named = server.connect_to(1);
    named.send(LINE_6);
    let mut begun = server.connect_to(0);
    begun.send_split(&LINE[..9], &[5]);
    begun.wait_consumed();
    let mut fresh = server.connect_to(1);
    let first = server.workers();
    server.read_notifications();
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    first.into_iter().for_each(crate::support::Pid::wait_gone);
    environ(&mut unknown, FIELDS).assert("REMOTE_ADDR", "127.0.0.1");
    environ(&mut served, "").assert("REMOTE_ADDR", "192.0.2.7");
    environ(&mut named, "").assert("REMOTE_ADDR", "2001:db8::7");
    begun.send(&LINE[9..]);
    environ(&mut begun, "").assert("REMOTE_PORT", "4711");
    fresh.send(LINE_6);
    environ(&mut fresh, "").assert("REMOTE_ADDR", "2001:db8::7");
}

#[test]
fn a_second_header_is_no_request() {
    if !ours() {
        return;
    }
    let server = server().start();
    for second in [LINE_6, &block()] {
        // At once behind the first one, and after a request.
        let mut client = server.connect_to(0);
        client.send([LINE, second, REQUEST].concat());
        client.response().assert_status(400);
        client.expect_end();
        let mut client = server.connect_to(1);
        client.send([LINE, REQUEST].concat());
        Environ::of(&client.response()).assert("REMOTE_ADDR", "192.0.2.7");
        client.send([second, REQUEST].concat());
        client.response().assert_status(400);
        client.expect_end();
    }
    // The header itself was a good one.
    assert_eq!(refusals(&server), 0);
}

const FIELDS: &str = "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n";

/// A proxy that speaks for itself is asked for its own address. Who is behind it otherwise, is not the proxy,
/// whose word counts: its fields are those of a stranger.
#[test]
fn a_proxy_that_speaks_for_itself_is_trusted_or_not_by_its_own_address() {
    if !ours() {
        return;
    }
    let local = &b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..];
    // Addresses in a LOCAL one are to be skipped.
    let local_with_addresses = &{
        let mut bytes = block();
        bytes[12] = 0x20;
        bytes
    }[..];
    let unknown = &b"PROXY UNKNOWN\r\n"[..];
    let unknown_with_addresses = &b"PROXY UNKNOWN 192.0.2.7 10.0.0.1 4711 443\r\n"[..];
    let unspecified = &b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"[..];
    let unix = &{
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".to_vec();
        bytes.extend([b'/'; 216]);
        bytes
    }[..];
    for (trusted, over_tcp, over_unix) in [
        ("127.0.0.1,unix", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1", ""),
        ("192.0.2.7", "127.0.0.1", ""),
    ] {
        let server = server().arg("--trusted-proxies", trusted).start();
        for header in [local, local_with_addresses] {
            for (listener, address) in [(0, over_tcp), (1, over_unix)] {
                let mut client = server.connect_to(listener);
                client.send(header);
                let environ = environ(&mut client, FIELDS);
                environ.assert("REMOTE_ADDR", address);
            }
        }
        for header in [unknown, unknown_with_addresses, unspecified, unix] {
            for (listener, address) in [(0, "127.0.0.1"), (1, "")] {
                let mut client = server.connect_to(listener);
                client.send(header);
                let environ = environ(&mut client, FIELDS);
                environ.assert("REMOTE_ADDR", address);
                environ.assert("wsgi.url_scheme", "http");
                assert_eq!(environ.get("HTTP_X_FORWARDED_FOR"), None);
            }
        }
        server.finish();
    }
}

/// The peer that counts for `--trusted-proxies` is the one that the header names.
#[test]
fn whoever_the_header_names_is_trusted_or_not() {
    if !ours() {
        return;
    }
    let server = server().arg("--trusted-proxies", "unix,192.0.2.7").start();
    for (header, address) in [(LINE, "198.51.100.1"), (LINE_6, "2001:db8::7")] {
        let mut client = server.connect_to(1);
        client.send(header);
        let environ = environ(&mut client, "X-Forwarded-For: 198.51.100.1\r\n");
        environ.assert("REMOTE_ADDR", address);
    }
}
