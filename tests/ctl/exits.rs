//! The exit statuses, and what is said along with them; most by a server that does what it is told.

use crate::support::ctl::{apart, command, settle, stranger};
use crate::support::{Answer, FakeServer, Said, Scratch, ctl};
use rswsgi::control::{HowToStop, Kind, Level, Refused, Reply, Resize, Stopping, Verb};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn refusing(kind: Kind) -> impl Fn(&rswsgi::control::Request) -> Answer {
    move |_| {
        Answer::from(Refused {
            kind,
            error: "because of \x1b[2J".into(),
            traceback: "Traceback:\n  here\n".into(),
        })
    }
}

#[test]
fn a_refusal_is_1_and_shows_the_reason_and_the_traceback() {
    let dir = Scratch::new();
    let _server = FakeServer::with_app(&dir.file("a.control"), "a", refusing(Kind::Failed));
    let said = ctl(dir.path(), &["reload"]).ended(1);
    assert_eq!(said.out, "");
    let expected = "rswsgictl: reload failed: because of \\x1b[2J\nTraceback:\n  here\n";
    assert_eq!(said.err, expected);
    let said = ctl(dir.path(), &["--json", "reload"]).ended(1);
    assert_eq!(said.err, "");
    assert_eq!(said.json()["kind"], "failed");
    assert_eq!(said.json()["traceback"], "Traceback:\n  here\n");
    ctl(dir.path(), &["scale", "2"])
        .ended(1)
        .complains(&["rswsgictl: because of"]);
}

#[test]
fn what_the_server_does_not_allow_is_5_and_what_takes_it_too_long_is_4() {
    let dir = Scratch::new();
    let server = FakeServer::with_app(&dir.file("a.control"), "a", refusing(Kind::NoPermission));
    ctl(dir.path(), &["stats"]).ended(5).complains(&["because"]);
    drop(server);
    let _server = FakeServer::with_app(&dir.file("a.control"), "a", refusing(Kind::TimedOut));
    ctl(dir.path(), &["trace"]).ended(4).complains(&["because"]);
    ctl(dir.path(), &["top", "--once"])
        .ended(4)
        .complains(&["because"]);
}

#[test]
fn a_server_that_does_not_answer_is_4_and_one_that_hangs_up_is_1() {
    let dir = Scratch::new();
    let path = dir.file("a.control");
    let server = FakeServer::with_app(&path, "a", |_| Answer::Silence);
    let said = ctl(dir.path(), &["--timeout", "100ms", "stats"]).ended(4);
    said.complains(&["did not answer in time"]);
    // Not found by name, because it answers to nothing at all.
    drop(server);
    let server = FakeServer::new(&path, |_| Answer::Silence);
    ctl(dir.path(), &["--timeout", "100ms", "stats"]).ended(4);
    drop(server);
    let server = FakeServer::with_app(&path, "a", |_| Answer::Close);
    let said = ctl(dir.path(), &["stats"]).ended(1);
    said.complains(&["closed the connection without an answer"]);
    drop(server);
    let _server = FakeServer::with_app(&path, "a", |_| Answer::Text("220 mail.example.org\n"));
    ctl(dir.path(), &["stats"])
        .ended(1)
        .complains(&["unreadable reply"]);
}

#[test]
fn a_socket_for_clients_is_told_from_a_control_socket() {
    let dir = Scratch::new();
    let path = dir.file("a.sock");
    let bad_request = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let _server = FakeServer::with_app(&path, "a", move |_| Answer::Text(bad_request));
    let path = path.to_str().expect("a plain path");
    ctl(dir.path(), &["--control", path, "stats"])
        .ended(1)
        .complains(&["is a socket for clients of the application"]);
}

#[test]
fn no_server_is_3() {
    let dir = Scratch::new();
    let path = dir.file("x.control");
    let path = path.to_str().expect("a plain path");
    let said = ctl(dir.path(), &["--control", path, "ping"]).ended(3);
    said.complains(&["cannot connect to", "it does not exist"]);
    drop(std::os::unix::net::UnixListener::bind(path).expect("bind a socket"));
    let said = ctl(dir.path(), &["--control", path, "ping"]).ended(3);
    said.complains(&["nobody listens there"]);
    let variable = Said::of(command(dir.path(), &["ping"]).env("RSWSGI_CONTROL", path));
    variable.ended(3).complains(&[path]);
    if stranger().is_none() {
        let said = ctl(dir.path(), &["stats"]).ended(3);
        said.complains(&["no server found", "skipped: cannot connect to", path]);
        ctl(dir.path(), &["list"])
            .ended(3)
            .complains(&["no server found"]);
    }
}

#[test]
fn wrong_usage_is_2() {
    let dir = Scratch::new();
    for words in [
        &[][..],
        &["fly"],
        &["scale"],
        &["scale", "many"],
        &["scale", "--5"],
        &["ping", "more"],
        &["trace", "--worker", "1", "--busy"],
        &["--timeout", "soon", "ping"],
        &["top", "--interval", "1ms"],
        &["top", "--width", "5"],
        &["top", "--once", "--json"],
        &["completions", "csh"],
        // Not into a pipe.
        &["top"],
    ] {
        let said = ctl(dir.path(), words).ended(2);
        assert_eq!(said.out, "", "{words:?}");
        assert!(said.err.len() > 20, "{said:?}");
    }
    ctl(dir.path(), &["--help"])
        .done()
        .shows(&["Verbs:", "Exit status"]);
    ctl(dir.path(), &["--version"])
        .done()
        .shows(&["rswsgictl "]);
}

/// Another user, where this one may be another user; else a socket nobody may use.
#[test]
fn no_permission_is_5() {
    let dir = Scratch::new();
    let server = FakeServer::with_app(&dir.file("a.control"), "a", |_| Answer::Silence);
    let mode = |path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("change the mode of a file");
    };
    let words = [
        "--control",
        server.path.to_str().expect("a plain path"),
        "ping",
    ];
    let program = dir.file("rswsgictl");
    // By another process: a child of another test would inherit the file while it is written, and what
    // is being written cannot be executed.
    let copy = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_rswsgictl"))
        .arg(&program)
        .status();
    assert!(
        copy.is_ok_and(|status| status.success()),
        "copy the program"
    );
    let as_other = |words: &[&str]| match nix::unistd::geteuid().is_root() {
        false => ctl(dir.path(), words),
        true => {
            let mut command = apart("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            command.arg(&program).args(words);
            settle(&mut command, dir.path());
            Said::of(&mut command)
        }
    };
    mode(server.path.as_path(), 0);
    as_other(&words).ended(5).complains(&["no permission"]);
    if stranger().is_none() {
        as_other(&["ping"]).ended(5).complains(&["no permission"]);
        as_other(&["list"]).ended(5).complains(&["no permission"]);
        as_other(&["wait"]).ended(5).complains(&["no permission"]);
        mode(server.path.as_path(), 0o666);
        as_other(&["ping"]).done();
    }
}

#[test]
fn requests_say_what_the_command_line_said() {
    let dir = Scratch::new();
    let path = dir.file("a.control");
    let server = FakeServer::new(&path, |_| Refused::new(Kind::Unavailable, "no").into());
    let place = path.to_str().expect("a plain path");
    for (words, verb) in [
        (&["ping"][..], Verb::Ping),
        (&["reload"], Verb::Reload),
        (&["stop"], Verb::Stop(HowToStop::Graceful)),
        (&["stop", "--now"], Verb::Stop(HowToStop::Now)),
        (&["scale", "+2"], Verb::Scale(Resize::By(2))),
        (&["scale", "-2"], Verb::Scale(Resize::By(-2))),
        (&["scale", "2"], Verb::Scale(Resize::To(2))),
        (&["recycle"], Verb::Recycle { worker: None }),
        (
            &["recycle", "--worker", "3"],
            Verb::Recycle { worker: Some(3) },
        ),
        (&["reopen"], Verb::Reopen),
        (&["log-level"], Verb::LogLevel { level: None }),
        (
            &["log-level", "debug"],
            Verb::LogLevel {
                level: Some("debug".into()),
            },
        ),
        (&["requests"], Verb::Stats),
        (&["workers"], Verb::Stats),
        (&["top", "--once"], Verb::Stats),
    ] {
        let words = [words, &["--control", place, "--app", "shop"]].concat();
        ctl(dir.path(), &words).ended(1).complains(&["rswsgictl: "]);
        let asked = server.asked();
        let last = asked.last().expect("a request");
        assert_eq!(last.verb, verb, "{words:?}");
        assert_eq!(last.app.as_deref(), Some("shop"), "{words:?}");
    }
}

#[test]
fn replies_without_numbers_are_shown_too() {
    let dir = Scratch::new();
    let server = FakeServer::with_app(&dir.file("a.control"), "a", |request| match &request.verb {
        Verb::Reopen => Answer::Reply(Reply::Reopened {}),
        Verb::LogLevel { level } => {
            let level = level.clone().unwrap_or("info".into());
            Answer::Reply(Reply::Level(Level { level }))
        }
        _ => Answer::Silence,
    });
    let said = ctl(dir.path(), &["reopen"]).done();
    assert_eq!(said.out, "log files opened anew\n");
    assert_eq!(
        ctl(dir.path(), &["reopen", "--json"]).done().out,
        "{\"ok\":true}\n"
    );
    assert_eq!(ctl(dir.path(), &["log-level"]).done().out, "info\n");
    let said = ctl(dir.path(), &["log-level", "debug", "--json"]).done();
    assert_eq!(said.out, "{\"ok\":true,\"level\":\"debug\"}\n");
    assert_eq!(server.asked().len(), 8, "each time ping and the verb");
}

#[test]
fn stop_waits_for_the_end_and_not_for_ever() {
    let dir = Scratch::new();
    let _server = FakeServer::with_app(&dir.file("a.control"), "a", |request| {
        let stopping = match request.verb {
            Verb::Stop(how) => how,
            _ => return Answer::Silence,
        };
        Answer::Reply(Reply::Stopping(Stopping {
            stopping,
            app: None,
        }))
    });
    let said = ctl(dir.path(), &["--timeout", "1s", "stop"]).ended(4);
    said.complains(&["has not ended in time"]);
}
