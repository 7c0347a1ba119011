//! The examples, word for word, with the real programs. Only what belongs to the machine is replaced:
//! addresses and paths.

use super::{Environ, ours, wait_lines};
use crate::support::neighbour::{Neighbour, free_address, replaced};
use crate::support::server::Address;
use crate::support::{Control, Load, Random, Running, Server, provision, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

const SOCKET: &str = "/run/shop/app.sock";

const VERSION: &str = "VERSION = 'one'\n";

/// A server on a Unix socket that trusts who may connect.
fn server() -> Server {
    let server = Server::new().unix().workers(2);
    let log = server.dir().join("access.log");
    server
        .file("version.py", VERSION)
        .app("neighbour")
        .arg("--trusted-proxies", "unix")
        .arg("--access-log", log)
        .arg("--access-log-format", "json")
}

fn socket(server: &Running) -> &str {
    let Address::Unix(path) = server.address() else {
        panic!("a Unix socket comes first");
    };
    path.to_str().expect("a path in UTF-8")
}

/// The directory of the program, with its configuration.
fn prepare(server: &Running, name: &str, configuration: &str) -> PathBuf {
    let dir = server.dir().join("neighbour");
    fs::create_dir(&dir).expect("create a directory");
    fs::write(dir.join(name), configuration).expect("write a configuration");
    dir
}

fn nginx(server: &Running) -> Option<Neighbour> {
    let program = provision::program("nginx", "nginx-light")?;
    let address = free_address();
    let site = replaced(
        include_str!("../../examples/nginx.conf"),
        &[
            (SOCKET, socket(server)),
            ("listen 80;", &format!("listen {address};")),
        ],
    );
    // Its workers must be able to connect: they stay who we are.
    let user = if Uid::effective().is_root() {
        "user root;"
    } else {
        ""
    };
    let main = format!(
        "daemon off; {user} worker_processes 1; pid nginx.pid; error_log error.log notice;
        events {{ worker_connections 512; }}
        http {{
            access_log off;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            scgi_temp_path scgi; uwsgi_temp_path uwsgi;
            {site}
        }}"
    );
    let dir = prepare(server, "nginx.conf", &main);
    let mut command = Command::new(program);
    command.arg("-p").arg(&dir);
    command.args(["-c", "nginx.conf", "-e", "error.log"]);
    Some(Neighbour::start(command, &dir, address))
}

fn apache(server: &Running) -> Option<Neighbour> {
    let program = provision::program("apache2", "apache2")?;
    let address = free_address();
    let site = replaced(
        include_str!("../../examples/apache.conf"),
        &[(SOCKET, socket(server)), ("*:80", &address.to_string())],
    );
    // It refuses to serve as root, and has to be let in.
    let user = match Uid::effective().is_root() {
        true => "User www-data\nGroup www-data\n",
        false => "",
    };
    let everybody = fs::Permissions::from_mode(0o666);
    fs::set_permissions(socket(server), everybody).expect("it is the test's");
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "headers"];
    let load = |name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    let modules: String = modules.into_iter().map(load).collect();
    let main = format!(
        "{modules}{user}ServerRoot \".\"\nServerName localhost\nListen {address}\nPidFile httpd.pid\n\
        DefaultRuntimeDir .\nMutex pthread\nErrorLog error.log\nStartServers 1\nServerLimit 1\n\
        ThreadsPerChild 25\nMaxRequestWorkers 25\n{site}"
    );
    let dir = prepare(server, "httpd.conf", &main);
    let main = replaced(
        &main,
        &[(
            "ServerRoot \".\"",
            &format!("ServerRoot \"{}\"", dir.display()),
        )],
    );
    fs::write(dir.join("httpd.conf"), main).expect("write a configuration");
    let mut command = Command::new(program);
    command
        .arg("-d")
        .arg(&dir)
        .arg("-f")
        .arg(dir.join("httpd.conf"));
    command.arg("-DFOREGROUND");
    Some(Neighbour::start(command, &dir, address))
}

fn caddy(server: &Running) -> Option<Neighbour> {
    let program = provision::program("caddy", "caddy")?;
    let address = free_address();
    let name = format!("http://shop.example:{}", address.port());
    let site = replaced(
        include_str!("../../examples/Caddyfile"),
        &[
            (SOCKET, socket(server)),
            ("\nshop.example {", &format!("\n{name} {{")),
        ],
    );
    let main = format!(
        "{{\n\tadmin off\n\tdefault_bind {}\n}}\n{site}",
        address.ip()
    );
    let dir = prepare(server, "Caddyfile", &main);
    let mut command = Command::new(program);
    command.args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
    Some(Neighbour::start(command, &dir, address))
}

fn haproxy(server: &Running) -> Option<Neighbour> {
    let program = provision::program("haproxy", "haproxy")?;
    let address = free_address();
    let main = replaced(
        include_str!("../../examples/haproxy.cfg"),
        &[
            (SOCKET, socket(server)),
            ("bind :80", &format!("bind {address}")),
        ],
    );
    let dir = prepare(server, "haproxy.cfg", &main);
    let mut command = Command::new(program);
    command.args(["-db", "-f", "haproxy.cfg"]);
    Some(Neighbour::start(command, &dir, address))
}

const HOST: &str = "Host: shop.example\r\n";

/// A client writes what it likes, the application sees what is so.
fn the_client_is_found(server: &Running, neighbour: &Neighbour) {
    let mut client = neighbour.connect();
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
        X-Forwarded-Port: 666\r\nForwarded: for=6.6.6.6;proto=https;host=evil.example\r\n";
    client.send(format!("GET /environ HTTP/1.1\r\n{HOST}{lies}\r\n"));
    let environ = Environ::of(&client.response());
    environ.assert("REMOTE_ADDR", "127.0.0.1");
    environ.assert("wsgi.url_scheme", "http");
    environ.assert("HTTPS", None);
    environ.assert("HTTP_X_FORWARDED_PROTO", "http");
    environ.assert("HTTP_X_FORWARDED_HOST", None);
    environ.assert("HTTP_FORWARDED", None);
    environ.assert("HTTP_HOST", "shop.example");
    environ.assert("SERVER_NAME", "shop.example");
    environ.assert("SERVER_PORT", "80");
    let lines = wait_lines(server, 1);
    assert_eq!(lines[0]["peer"], "127.0.0.1", "{}", lines[0]);
}

/// That of zlib, four bits at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (0..4).fold(sum, |sum, _| (sum >> 1) ^ ((sum & 1) * 0xedb8_8320));
    let table: Vec<u32> = (0..16).map(step).collect();
    let low = |sum: u32| (sum >> 4) ^ table[(sum & 15) as usize];
    let sum = bytes
        .iter()
        .fold(!0, |sum, byte| low(low(sum ^ u32::from(*byte))));
    !sum
}

fn bodies_arrive(neighbour: &Neighbour) {
    let bytes = Random::new(1).bytes(20 << 20);
    // Before a connection is there that would be idle for so long.
    let cases = [1, 300_000, bytes.len()].map(|length| (length, crc32(&bytes[..length])));
    let mut client = neighbour.connect();
    for (length, sum) in cases {
        let head = format!("POST /sums HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n");
        client.send(head);
        client.send(&bytes[..length]);
        client.response().assert_text(&format!("{length} {sum}"));
    }
    client.send(format!("GET /big HTTP/1.1\r\n{HOST}\r\n"));
    let response = client.response();
    assert_eq!(response.assert_status(200).body.len(), 8 << 20);
}

/// Accepted connections, and requests that were served on them.
fn counts(server: &Running) -> (u64, u64) {
    let app = Control::of(server, "neighbour").app();
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    (
        number(&app["connections"]["accepted"]),
        number(&app["requests"]["status_2xx"]),
    )
}

fn connections_are_kept(server: &Running, neighbour: &Neighbour) {
    let before = counts(server);
    for _ in 0..30 {
        let mut client = neighbour.connect();
        client.send(format!("GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"));
        client.response().assert_text("one");
    }
    let after = wait_until("thirty answers to be counted", || {
        let after = counts(server);
        (after.1 >= before.1 + 30).then_some(after)
    });
    let made = after.0 - before.0;
    assert!(made <= 10, "30 requests took {made} new connections");
}

fn pieces_arrive_as_they_are_sent(server: &Running, neighbour: &Neighbour) {
    let gate = server.gate("gate");
    let mut client = neighbour.connect();
    client.send(format!("GET /stream HTTP/1.1\r\n{HOST}\r\n"));
    client.wait_for_bytes(b"first ");
    gate.open();
    client.response().assert_text("first second");
}

fn a_reload_is_not_noticed(server: &Running, neighbour: &Neighbour) {
    let load = Load::through(neighbour.address(), 3);
    load.wait_answers(5);
    for round in ["two", "three"] {
        server.write("version.py", &VERSION.replace("one", round));
        server.read_notifications();
        server.signal(Signal::SIGHUP);
        server.wait_notified("READY=1");
        load.wait_answers(5);
        wait_until("the new version", || {
            let mut client = neighbour.connect();
            client.send(format!("GET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"));
            (client.response().assert_status(200).text() == round).then_some(())
        });
    }
    load.finish();
}

#[track_caller]
fn works_behind(start: impl Fn(&Running) -> Option<Neighbour>) {
    if !ours() {
        return;
    }
    let server = server().start();
    let Some(neighbour) = start(&server) else {
        return;
    };
    the_client_is_found(&server, &neighbour);
    bodies_arrive(&neighbour);
    connections_are_kept(&server, &neighbour);
    pieces_arrive_as_they_are_sent(&server, &neighbour);
    a_reload_is_not_noticed(&server, &neighbour);
    drop(neighbour);
}

#[test]
fn the_example_for_nginx_works() {
    works_behind(nginx);
}

#[test]
fn the_example_for_apache_works() {
    works_behind(apache);
}

#[test]
fn the_example_for_caddy_works() {
    works_behind(caddy);
}

#[test]
fn the_example_for_haproxy_works() {
    works_behind(haproxy);
}

/// One GET through a proxy that passes bytes on: the client is the one that the proxy has seen.
#[track_caller]
fn announces(server: &Running, neighbour: &Neighbour) {
    let mut client = neighbour.connect();
    let local = client.local_address();
    client.send(format!(
        "GET /environ HTTP/1.1\r\n{HOST}X-Forwarded-For: 6.6.6.6\r\n\r\n"
    ));
    let environ = Environ::of(&client.response());
    assert_eq!(environ.get("REMOTE_ADDR"), Some(&*local.ip().to_string()));
    assert_eq!(environ.get("REMOTE_PORT"), Some(&*local.port().to_string()));
    let app = Control::of(server, "neighbour").app();
    assert_eq!(app["errors"]["refused"]["bad_proxy_header"].as_u64(), None);
}

/// A server that demands the PROXY protocol on its Unix socket.
fn announced() -> Running {
    server().arg("--bind", "fd://3?proxy-protocol=on").start()
}

#[test]
fn haproxy_announces_clients_in_both_versions() {
    if !ours() {
        return;
    }
    for word in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c",
    ] {
        let server = announced();
        let Some(program) = provision::program("haproxy", "haproxy") else {
            return;
        };
        let address = free_address();
        let socket = socket(&server);
        // Health checks are connections of its own.
        let main = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
            listen web\n bind {address}\n\
            option httpchk GET /\n http-check send hdr Host shop.example\n\
            server app unix@{socket} {word} check inter 100ms\n"
        );
        let dir = prepare(&server, "haproxy.cfg", &main);
        let mut command = Command::new(program);
        command.args(["-db", "-f", "haproxy.cfg"]);
        let neighbour = Neighbour::start(command, &dir, address);
        announces(&server, &neighbour);
        // A check is no client's: it has no address.
        wait_until("a health check", || {
            let log = server.file("access.log");
            log.contains("\"path\":\"/\"").then_some(())
        });
        drop(neighbour);
    }
}

#[test]
fn nginx_announces_clients() {
    if !ours() {
        return;
    }
    let Some(module) = provision::file(
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
    ) else {
        return;
    };
    let server = announced();
    let Some(program) = provision::program("nginx", "nginx-light") else {
        return;
    };
    let (address, socket, module) = (free_address(), socket(&server), module.display());
    let user = if Uid::effective().is_root() {
        "user root;"
    } else {
        ""
    };
    let main = format!(
        "load_module {module}; daemon off; {user} worker_processes 1; pid nginx.pid; error_log error.log notice;
        events {{ worker_connections 64; }}
        stream {{ server {{ listen {address}; proxy_pass unix:{socket}; proxy_protocol on; }} }}"
    );
    let dir = prepare(&server, "nginx.conf", &main);
    let mut command = Command::new(program);
    command.arg("-p").arg(&dir);
    command.args(["-c", "nginx.conf", "-e", "error.log"]);
    let neighbour = Neighbour::start(command, &dir, address);
    announces(&server, &neighbour);
    drop(neighbour);
}
