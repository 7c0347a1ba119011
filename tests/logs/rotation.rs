//! Log files: what goes there, moved away, not writable, not read.

use super::{lines_of, ours};
use crate::support::{Server, wait_until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

fn server() -> Server {
    Server::new().app("logged")
}

#[test]
fn everything_that_is_said_lands_in_the_file() {
    if !ours() {
        return;
    }
    let server = server().arg("--log", "server.log").start();
    server.get("/print").assert_status(200);
    server.get("/boom").assert_status(500);
    let text = wait_until("the traceback", || {
        let text = server.file("server.log");
        text.contains("ValueError: provoked").then_some(text)
    });
    assert!(
        text.contains("rswsgi: supervisor: info: serving logged"),
        "{text}"
    );
    assert!(text.contains("\nprinted to stdout\n"), "{text}");
    assert!(text.contains("\nprinted to stderr\n"), "{text}");
    let failed = "rswsgi: worker 0 [logged gen 1]: error: the application failed in \"GET /boom HTTP/1.1\"\n";
    assert!(text.contains(&format!("{failed}Traceback ")), "{text}");
    let finished = server.finish();
    assert_eq!(finished.stderr, "");
    assert_eq!(finished.stdout, "");
}

#[test]
fn as_json_everything_is_an_object() {
    if !ours() {
        return;
    }
    let server = server()
        .arg("--log", "server.log")
        .arg("--log-format", "json")
        .start();
    server.get("/print").assert_status(200);
    server.get("/boom").assert_status(500);
    let text = wait_until("the traceback", || {
        let text = server.file("server.log");
        (text.contains("provoked") && text.ends_with('\n')).then_some(text)
    });
    let entries = lines_of(&text);
    let failed = entries.iter().find(|entry| entry["level"] == "error");
    let failed = failed.expect("the failure of the application");
    assert_eq!(failed["who"], "worker 0 [logged gen 1]");
    assert_eq!(failed["app"], "logged");
    let message = failed["message"].as_str().expect("a text");
    assert!(message.contains("Traceback") && message.ends_with("ValueError: provoked"));
    let printed = entries
        .iter()
        .find(|entry| entry["message"] == "printed to stdout");
    assert_eq!(
        printed.expect("what was printed")["who"],
        "output [logged gen 1]"
    );
}

#[test]
fn json_on_standard_error() {
    if !ours() {
        return;
    }
    let server = server().arg("--log-format", "json").start();
    server.get("/pid").assert_status(200);
    let finished = server.finish();
    for entry in lines_of(&finished.stderr) {
        assert_eq!(entry["who"], "supervisor", "{entry}");
    }
    finished.assert_says("serving logged");
}

#[test]
fn levels_below_the_one_asked_for_are_not_written() {
    if !ours() {
        return;
    }
    let quiet = server().arg("--log-level", "error").start();
    quiet.get("/pid").assert_status(200);
    assert_eq!(quiet.finish().stderr, "");
    let loud = server().arg("--log-level", "debug").start();
    loud.log.wait_for("debug: worker 0 is ready");
}

#[test]
fn a_file_that_was_moved_away_is_made_anew_on_usr1() {
    if !ours() {
        return;
    }
    let server = server().arg("--log", "server.log").start();
    let path = server.dir().join("server.log");
    let old = server.dir().join("server.log.1");
    std::fs::rename(&path, &old).expect("move the log away");
    server.get("/boom").assert_status(500);
    wait_until("the entry in the old file", || {
        server
            .file("server.log.1")
            .contains("provoked")
            .then_some(())
    });
    server.signal(Signal::SIGUSR1);
    wait_until("the new file", || path.exists().then_some(()));
    server.get("/print").assert_status(200);
    wait_until("the entry in the new file", || {
        server
            .file("server.log")
            .contains("printed to stdout")
            .then_some(())
    });
}

#[test]
fn a_log_that_cannot_be_opened_stops_the_start() {
    if !ours() {
        return;
    }
    for flag in ["--log", "--access-log"] {
        let finished = server().arg(flag, "no/such/directory/log").run();
        finished.assert_says(&format!("cannot open {flag}"));
        finished.assert_says("no such file or directory");
        assert_ne!(finished.status.code(), Some(0));
    }
}

#[test]
fn a_full_disk_stops_nothing_and_is_told() {
    if !ours() {
        return;
    }
    let server = server()
        .arg("--log", "/dev/full")
        .arg("--access-log", "/dev/full");
    let server = server.expect_error("cannot write the log").start();
    for _ in 0..50 {
        server.get("/print").assert_status(200);
        server.get("/boom").assert_status(500);
    }
    let finished = server.finish();
    finished.assert_says_once("cannot write the log: no space left on device");
}

#[test]
fn an_access_log_on_a_full_disk_is_told_in_the_log() {
    if !ours() {
        return;
    }
    let server = server().arg("--access-log", "/dev/full");
    let server = server.expect_error("cannot write the access log").start();
    for _ in 0..50 {
        server.get("/hello").assert_status(200);
    }
    server
        .log
        .wait_for("cannot write the access log: No space left on device");
}

/// Nobody reads standard output, where the access log goes.
#[test]
fn a_reader_that_does_not_read_stops_nothing() {
    if !ours() {
        return;
    }
    let server = server().arg("--access-log", "-");
    let server = server.under(["sh", "-c", "exec \"$@\" >stuck", "sh"]);
    let path = server.dir().join("stuck");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("make a named pipe");
    let mut options = File::options();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let pipe = options.open(&path).expect("open the named pipe");
    let mut server = server.start();
    // More than the pipe takes.
    let mut client = server.connect();
    let long = "x".repeat(1000);
    for _ in 0..300 {
        client.get(&format!("/hello?{long}")).assert_status(200);
    }
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    drop(pipe);
}
