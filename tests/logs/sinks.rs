//! Syslog and journald, as sockets of the test.

use super::ours;
use crate::support::{PATIENCE, Server};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

fn server() -> Server {
    let server = Server::new().app("logged");
    std::fs::create_dir(server.dir().join("own")).expect("make a directory");
    server
}

struct Daemon(UnixDatagram);

impl Daemon {
    fn bind(path: &Path) -> Daemon {
        let socket = UnixDatagram::bind(path).expect("bind a socket in the test's directory");
        let patience = socket.set_read_timeout(Some(PATIENCE));
        patience.expect("thirty seconds are a valid timeout");
        Daemon(socket)
    }

    /// The next datagram that has this piece.
    #[track_caller]
    fn wait_for(&self, piece: &str) -> String {
        let mut buffer = vec![0; 1 << 17];
        loop {
            let length = self.0.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("{error} before {piece:?}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(piece) {
                return text;
            }
        }
    }
}

#[test]
fn syslog_gets_a_message_per_line_and_may_be_restarted() {
    if !ours() {
        return;
    }
    let server = server().arg("--log", "syslog:local3@own/log");
    let path = server.dir().join("own/log");
    let daemon = Daemon::bind(&path);
    let server = server.start();
    let supervisor = server.supervisor().number;
    // local3 is 19; info 6, error 3 (RFC 3164 4.1.1).
    let entry = daemon.wait_for("serving logged");
    assert!(
        entry.starts_with(&format!("<158>rswsgi[{supervisor}]: supervisor: ")),
        "{entry}"
    );
    server.get("/boom").assert_status(500);
    let entry = daemon.wait_for("the application failed");
    let worker = server.workers()[0].number;
    let start = format!("<155>rswsgi[{worker}]: worker 0 [logged gen 1]: the application");
    assert!(entry.starts_with(&start), "{entry}");
    assert!(daemon.wait_for("ValueError: provoked").starts_with("<155>"));
    server.get("/print").assert_status(200);
    // Of two streams, so in any order. Nothing is under way when the socket goes: it would be lost.
    let first = daemon.wait_for("]: printed to std");
    daemon.wait_for(match first.contains("stdout") {
        true => "]: printed to stderr",
        false => "]: printed to stdout",
    });
    drop(daemon);
    std::fs::remove_file(&path).expect("remove the socket");
    let daemon = Daemon::bind(&path);
    server.get("/print").assert_status(200);
    daemon.wait_for("]: printed to stdout");
    server.finish();
}

#[test]
fn access_lines_go_to_syslog_too() {
    if !ours() {
        return;
    }
    let server = server().arg("--access-log", "syslog@own/log");
    let daemon = Daemon::bind(&server.dir().join("own/log"));
    let server = server.start();
    server.get("/hello").assert_status(200);
    let line = daemon.wait_for("GET /hello");
    assert!(line.starts_with("<30>rswsgi[") && line.contains("\"GET /hello HTTP/1.1\" 200 6"));
    server.finish();
}

#[track_caller]
fn assert_traceback(entry: &str) {
    assert!(entry.starts_with("MESSAGE\n"), "{entry:?}");
    assert!(
        entry.contains("Traceback (most recent call last):\n"),
        "{entry:?}"
    );
    assert!(
        entry.contains("ValueError: provoked\nPRIORITY=3\n"),
        "{entry:?}"
    );
    assert!(entry.contains("\nSYSLOG_IDENTIFIER=rswsgi\n"), "{entry:?}");
    assert!(entry.contains("\nRSWSGI_APP=logged\n"), "{entry:?}");
}

#[test]
fn the_journal_gets_a_traceback_as_one_entry_with_its_level() {
    if !ours() {
        return;
    }
    let server = server().arg("--log", "journal@own/journal");
    let daemon = Daemon::bind(&server.dir().join("own/journal"));
    let server = server.start();
    let entry = daemon.wait_for("serving logged");
    assert!(entry.starts_with("MESSAGE=serving logged"), "{entry:?}");
    assert!(entry.contains("\nPRIORITY=6\n"), "{entry:?}");
    server.get("/boom").assert_status(500);
    assert_traceback(&daemon.wait_for("provoked"));
    server.finish();
}

#[test]
fn standard_error_that_is_the_journal_is_found_out() {
    if !ours() {
        return;
    }
    let tell = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec \"$@\"";
    let server = server().under(["sh", "-c", tell, "sh"]);
    let path = server.dir().join("own/journal");
    let daemon = Daemon::bind(&path);
    let server = server.env("RSWSGI_JOURNAL_SOCKET", &path).start();
    daemon.wait_for("serving logged");
    server.get("/boom").assert_status(500);
    let entry = daemon.wait_for("provoked");
    assert_traceback(&entry);
    let worker = server.workers()[0].number;
    assert!(
        entry.contains(&format!("\nSYSLOG_PID={worker}\n")),
        "{entry:?}"
    );
    // What the application prints goes where it always goes.
    server.get("/print").assert_status(200);
    server.log.wait_for("printed to stderr");
    assert_eq!(server.finish().count("rswsgi:"), 0);
}
