//! What a service manager sees: signs of life, time limits, kept sockets, an exit when idle.

mod passed_control;

use crate::support::server::Address;
use crate::support::{Client, Control, PATIENCE, Running, Server, only_rswsgi, skip, wait_until};
use nix::cmsg_space;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn ours() -> bool {
    only_rswsgi("what a service manager is told")
}

#[test]
fn signs_of_life_come_twice_in_the_time_that_is_waited_for_them() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("procs")
        .env("WATCHDOG_USEC", "400000")
        .start();
    for _ in 0..3 {
        server.wait_notified("WATCHDOG=1");
    }
    server.finish();
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("procs")
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1")
        .start();
    server.signal(Signal::SIGHUP);
    loop {
        let message = server.notification();
        assert!(!message.contains(&"WATCHDOG=1".to_owned()), "{message:?}");
        if message[0] == "READY=1" {
            break;
        }
    }
    server.finish();
}

#[test]
fn the_managers_time_limits_are_extended_by_our_own() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("procs")
        .arg("--start-timeout", "200s")
        .arg("--graceful-timeout", "100s")
        .start();
    server.signal(Signal::SIGHUP);
    server.wait_notified("RELOADING=1");
    server.wait_notified("EXTEND_TIMEOUT_USEC=205000000");
    server.wait_notified("READY=1");
    server.signal(Signal::SIGTERM);
    server.wait_notified("STOPPING=1");
    server.wait_notified("EXTEND_TIMEOUT_USEC=105000000");
    server.finish();
}

#[test]
fn a_first_import_is_given_the_time_that_it_may_take() {
    if !ours() {
        return;
    }
    let importing = "from talk import note, wait_at\nnote('importing')\nwait_at('import')\n\
                     from procs import application\n";
    let server = Server::new()
        .file("gated.py", importing)
        .app("gated")
        .arg("--start-timeout", "200s")
        .spawn();
    let import = server.gate("import");
    server.wait_notified("EXTEND_TIMEOUT_USEC=205000000");
    server.notes.expect("importing");
    assert_not_ready(&server);
    import.open();
    server.wait_notified("READY=1");
    server.finish();
}

/// What was told so far, after the supervisor has done all that it had to do.
#[track_caller]
fn assert_not_ready(server: &Running) {
    for _ in 0..2 {
        Control::of(server, "gated").done(serde_json::json!({"do": "ping"}));
    }
    while let Some(message) = server.notification_within(Duration::from_millis(100)) {
        assert!(!message.contains(&"READY=1".to_owned()), "{message:?}");
    }
}

#[test]
fn ready_is_said_when_a_worker_accepts_and_not_before() {
    if !ours() {
        return;
    }
    let importing = "import os\nfrom talk import note, wait_at\n\
                     note('importing')\nwait_at('import')\n\
                     def born():\n    note('born'); wait_at('born')\n\
                     os.register_at_fork(after_in_child=born)\n\
                     from procs import application\n";
    let server = Server::new().file("gated.py", importing).app("gated");
    let server = server.spawn();
    let (import, born) = (server.gate("import"), server.gate("born"));
    server.notes.expect("importing");
    assert_not_ready(&server);
    import.open();
    server.notes.expect("born");
    assert_not_ready(&server);
    let mut client = server.connect();
    client.send("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n");
    born.open();
    let message = server.wait_notified("READY=1");
    let status = "STATUS=serving gated (generation 1)";
    assert!(
        message.iter().any(|line| line.starts_with(status)),
        "{message:?}"
    );
    client.response().assert_status(200);
    server.finish();
}

/// The next message, and whether a descriptor came with it. It stays open, as in the manager.
fn receive(socket: &UnixDatagram) -> (String, bool) {
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a valid timeout");
    let mut bytes = [0; 1024];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags);
    let received = received.expect("a message");
    let mut messages = received.cmsgs().expect("room for one");
    let fd = messages.any(|message| matches!(message, ControlMessageOwned::ScmRights(_)));
    let length = received.bytes;
    (String::from_utf8_lossy(&bytes[..length]).into_owned(), fd)
}

/// A directory beside that of the test, in which sockets may be left.
struct Beside(PathBuf);

impl Beside {
    fn new() -> Beside {
        let path = std::env::temp_dir().join(format!("rswsgi-kept-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a new directory");
        Beside(path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_bound_is_given_to_the_manager_and_the_file_stays() {
    if !ours() {
        return;
    }
    let beside = Beside::new();
    let (path, manager) = (beside.0.join("app"), beside.0.join("manager"));
    let notify = UnixDatagram::bind(&manager).expect("a new socket");
    let server = Server::new()
        .app("procs")
        .env("FDSTORE", "8")
        .bind(&format!("unix:{}", path.display()))
        .env("NOTIFY_SOCKET", &manager)
        .spawn();
    let mut kept = false;
    loop {
        let (message, fd) = receive(&notify);
        kept |= fd && message.starts_with("FDSTORE=1\nFDNAME=rswsgi-listener\n");
        if message.starts_with("READY=1\n") {
            break;
        }
    }
    assert!(kept, "the listener was not sent");
    server.finish();
    // Nobody serves, and still nobody is refused.
    UnixStream::connect(&path).expect("the manager's copy listens");
}

#[test]
fn an_activated_service_leaves_when_nobody_asks() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs").arg("--exit-idle", "1s").start();
    let mut client = server.connect();
    client.get("/").assert_status(200);
    let mut server = server;
    // A client that only keeps its connection is somebody.
    assert!(!server.has_exited());
    drop(client);
    wait_until("the exit", || server.has_exited().then_some(()));
    server
        .log
        .wait_for("stopping: nobody has asked for anything for --exit-idle");
}

#[test]
fn who_binds_its_sockets_itself_never_leaves() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs").arg("--exit-idle", "100ms");
    let path = server.dir().join("own.sock");
    let server = server.bind(&format!("unix:{}", path.display())).start();
    server.log.wait_for("--exit-idle is ignored");
    UnixStream::connect(&path).expect("it serves");
    server.finish();
}

/// Waits until no sign of life has come for a time in which there would be ten.
#[track_caller]
fn wait_silent(server: &Running) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < deadline, "signs of life go on");
        let message = server.notification_within(Duration::from_millis(500));
        if message.is_some_and(|lines| lines.contains(&"WATCHDOG=1".to_owned())) {
            last = Instant::now();
        }
    }
}

#[test]
fn there_is_no_sign_of_life_while_no_worker_takes_connections() {
    if !ours() {
        return;
    }
    for unix in [false, true] {
        let server = Server::new().app("procs").env("WATCHDOG_USEC", "400000");
        let server = if unix { server.unix() } else { server.tcp() }.start();
        let (master, worker) = (server.master(), server.workers()[0]);
        let mut control = Control::of(&server, "procs");
        wait_until("an idle worker", || {
            (control.app()["pool"]["idle"] == 1).then_some(())
        });
        for process in [master, worker] {
            process.signal(Signal::SIGSTOP);
        }
        let mut client = server.connect();
        client.send("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_silent(&server);
        for process in [master, worker] {
            process.signal(Signal::SIGCONT);
        }
        client.response().assert_status(200);
        server.wait_notified("WATCHDOG=1");
        server.finish();
    }
}

#[test]
fn there_is_no_sign_of_life_while_all_workers_are_stuck_for_good() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("procs")
        .env("WATCHDOG_USEC", "400000")
        .arg("--request-timeout", "200ms")
        .arg("--kill-timeout", "100ms")
        .start();
    let master = server.master();
    let gate = server.gate("gate");
    // Its master would have done something about it.
    master.signal(Signal::SIGSTOP);
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_silent(&server);
    gate.open();
    client.response().assert_status(200);
    server.wait_notified("WATCHDOG=1");
    master.signal(Signal::SIGCONT);
    server.finish();
}

#[test]
fn the_status_tells_rates() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs").workers(2).start();
    for _ in 0..20 {
        server.get("/pid").assert_status(200);
    }
    loop {
        let message = server.notification();
        let status = message.iter().find_map(|line| line.strip_prefix("STATUS="));
        let Some((what, rest)) = status.and_then(|status| status.split_once(" requests/s, "))
        else {
            continue;
        };
        let (said, rate) = what.split_once(": ").expect("what it serves");
        assert_eq!(said, "serving procs (generation 1)");
        let rate: f64 = rate.parse().expect("a number");
        assert!(rate > 0.0 && rate <= 20.0, "{rate}");
        assert_eq!(rest, "0 of 2 workers busy");
        break;
    }
    server.finish();
}

#[test]
fn passed_sockets_are_found_by_their_names() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("procs")
        .tcp()
        .unix()
        .env("LISTEN_FDNAMES", "statistics:web")
        .arg("--bind", "fd://web")
        .arg("--metrics-bind", "fd://statistics")
        .start();
    let ask = |listener: usize, path: &str| {
        let mut client = server.connect_to(listener);
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ));
        client.response()
    };
    let page = ask(0, "/metrics");
    page.assert_status(200);
    assert!(page.text().contains("rswsgi_"), "{}", page.text());
    ask(1, "/pid").assert_status(200);
    server.log.wait_for("serving procs on unix:");
    server.finish();
}

#[test]
fn a_name_that_was_not_passed_and_a_socket_that_nobody_names_are_mistakes() {
    if !ours() {
        return;
    }
    for (bind, message) in [
        (
            "fd://wbe",
            "cannot listen on fd://wbe: no socket of this name was passed, there are web, admin; see",
        ),
        (
            "fd://web",
            "descriptor 4 (admin) was passed, and no setting names it",
        ),
    ] {
        let finished = Server::new()
            .app("procs")
            .tcp()
            .unix()
            .env("LISTEN_FDNAMES", "web:admin")
            .arg("--bind", bind)
            .run();
        finished.assert_status(78);
        finished.assert_says_once(message);
    }
}

#[test]
fn the_file_of_a_passed_socket_stays_as_it_is() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs").unix();
    let path = server.dir().join("passed.sock");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o606)).expect("it is ours");
    let facts = || {
        let found = std::fs::symlink_metadata(&path).expect("it is there");
        (
            found.ino(),
            found.mode(),
            found.uid(),
            found.gid(),
            found.ctime_nsec(),
        )
    };
    let before = facts();
    let server = server.start();
    server.get("/pid").assert_status(200);
    server.signal(Signal::SIGHUP);
    server.log.wait_for("generation 2, ");
    assert_eq!(facts(), before);
    let mut server = server;
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    assert_eq!(facts(), before);
    server.finish();
}

/// What starts a program for the first connection, as systemd does for a socket unit.
fn activated(server: Server, options: &[&str]) -> Option<(Running, Address)> {
    const ACTIVATE: &str = "systemd-socket-activate";
    let there = std::process::Command::new(ACTIVATE)
        .arg("--version")
        .output();
    if there.is_err() {
        skip("there is no systemd-socket-activate");
        return None;
    }
    let path = server.dir().join("own").join("activated.sock");
    std::fs::create_dir(server.dir().join("own")).expect("make a directory");
    let listen = format!("--listen={}", path.display());
    let mut command = vec![ACTIVATE, &listen];
    command.extend(options);
    // It passes few variables on by itself.
    let variables = [
        "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE",
        "UNDER_TEST_DIR",
        "NOTIFY_SOCKET",
        "RUNTIME_DIRECTORY",
    ];
    let variables = variables.map(|name| format!("--setenv={name}"));
    command.extend(variables.iter().map(String::as_str));
    let server = server.within(&command).spawn();
    let address = Address::Unix(path);
    Some((server, address))
}

#[track_caller]
fn connect(address: &Address) -> Client {
    wait_until("somebody who listens", || Client::try_connect(address).ok())
}

#[test]
fn socket_activation_as_systemd_does_it() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs").bind("fd://web");
    let Some((server, address)) = activated(server, &["--fdname=web"]) else {
        return;
    };
    let mut client = connect(&address);
    client.get("/pid").assert_status(200);
    server.log.wait_for("serving procs on unix:");
    drop(client);
    let Address::Unix(path) = &address else {
        panic!("{address:?}");
    };
    let mut server = server;
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    assert!(path.exists(), "it was removed");
    server.finish();
}

#[test]
fn a_connection_in_place_of_a_listener_is_refused_with_the_reason() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs").bind("fd://3");
    let Some((mut server, address)) = activated(server, &["--accept"]) else {
        return;
    };
    let mut client = connect(&address);
    server
        .log
        .wait_for("it is a connection, not a listening socket; the socket unit needs Accept=no");
    client.expect_end();
    server.signal(Signal::SIGKILL);
    server.wait_exit();
    server.expect_error("it is a connection, not a listening socket");
    server.finish();
}

#[test]
fn an_application_is_told_nothing_of_the_service_manager() {
    if !ours() {
        return;
    }
    let importing = "import os\nopen('environment', 'w').write('\\n'.join(os.environ))\n\
                     from procs import application\n";
    let server = Server::new()
        .file("looks.py", importing)
        .app("looks")
        .env("LISTEN_FDNAMES", "web")
        .env("LISTEN_PIDFDID", "1")
        .env("WATCHDOG_USEC", "60000000")
        .env("WATCHDOG_PID", "1")
        .env("FDSTORE", "8")
        .start();
    let seen = server.file("environment");
    let names: Vec<&str> = seen.lines().collect();
    assert!(names.contains(&"RUNTIME_DIRECTORY"), "{seen}");
    for private in [
        "LISTEN_",
        "WATCHDOG_",
        "NOTIFY_SOCKET",
        "FDSTORE",
        "RSWSGI_HAND_OVER",
    ] {
        assert!(
            !names.iter().any(|name| name.starts_with(private)),
            "{private}: {seen}"
        );
    }
    server.finish();
}
