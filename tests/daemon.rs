//! `--daemon` and `--pid-file`: a server without a service manager, and the command that starts it.

mod hostile;

use crate::support::process::marked;
use crate::support::server::pid_in;
use crate::support::{
    BUILT, PATIENCE, Pid, Running, Server, copy_program, module, only_rswsgi, skip, wait_until,
};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

fn ours() -> bool {
    only_rswsgi("a daemon")
}

/// Logs into `server.log` in the directory of the test.
fn server() -> Server {
    Server::new().app("procs").arg("--log", "server.log")
}

fn pid_file(server: &Server) -> PathBuf {
    server.dir().join("server.pid")
}

fn start(server: Server) -> Running {
    let file = pid_file(&server);
    server.start_daemon(&file)
}

#[track_caller]
fn wait_logged(server: &Running, piece: &str) {
    wait_until(&format!("{piece:?} in the log"), || {
        server.file("server.log").contains(piece).then_some(())
    });
}

/// A file descriptor of a process.
fn fd(pid: Pid, number: u32) -> PathBuf {
    fs::read_link(format!("/proc/{}/fd/{number}", pid.number)).unwrap_or_default()
}

/// Session and controlling terminal: proc_pid_stat(5).
fn session(pid: Pid) -> (i32, i32) {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.number)).expect("a living process");
    let fields: Vec<i32> = text[text.rfind(')').expect("a name") + 1..]
        .split_whitespace()
        .skip(1)
        .take(4)
        .map(|field| field.parse().expect("a number"))
        .collect();
    (fields[2], fields[3])
}

#[test]
fn a_daemon_has_nothing_to_do_with_whoever_started_it() {
    if !ours() {
        return;
    }
    let script = "umask 013; exec \"$@\"";
    let server = start(server().under(["sh", "-c", script, "sh"]));
    // Nobody holds the streams of the command any more, whose end is that of the start.
    let deadline = Instant::now() + PATIENCE;
    assert!(server.log.ends_before(deadline) && server.stdout.ends_before(deadline));
    assert_eq!(server.log.text() + &server.stdout.text(), "");
    let supervisor = server.supervisor();
    for number in 0..3 {
        assert_eq!(fd(supervisor, number), Path::new("/dev/null"), "{number}");
    }
    let (session, terminal) = session(supervisor);
    assert_ne!(session, supervisor.number, "it could get a terminal");
    assert_ne!(session, nix::unistd::getsid(None).expect("ours").as_raw());
    assert_eq!(terminal, 0);
    assert_eq!(supervisor.status("Umask").as_deref(), Some("0013"));
    let directory = fs::read_link(format!("/proc/{}/cwd", supervisor.number));
    assert_eq!(directory.expect("a living process"), server.dir());
    server.get("/").assert_status(200);
    wait_logged(&server, "serving procs on");
    let file = server.dir().join("server.pid");
    assert!(file.exists());
    server.finish();
    assert!(!file.exists(), "the pid file is left");
}

#[test]
fn a_second_one_does_not_start() {
    if !ours() {
        return;
    }
    let first = start(server());
    let file = first.dir().join("server.pid");
    let text = fs::read_to_string(&file).expect("a pid file");
    for background in [true, false] {
        let mut second = server()
            .arg("--pid-file", &file)
            .expect_error("cannot lock");
        if background {
            second = second.flag("--daemon");
        }
        let finished = second.run();
        finished.assert_status(69);
        finished.assert_says_once(&format!(
            "cannot lock --pid-file {}: another process ({}) holds it; is the server running already?",
            file.display(),
            first.supervisor().number
        ));
    }
    assert_eq!(fs::read_to_string(&file).expect("a pid file"), text);
    first.get("/").assert_status(200);
    first.finish();
}

#[test]
fn the_command_that_was_launched_tells_why_the_start_failed() {
    if !ours() {
        return;
    }
    let broken = server().file("broken.py", "import nowhere_to_be_found\n");
    let file = pid_file(&broken);
    let log = broken.dir().join("server.log");
    let finished = broken
        .app("broken")
        .flag("--daemon")
        .arg("--pid-file", &file)
        .expect_error("nowhere_to_be_found")
        .run();
    finished.assert_status(78);
    finished.assert_says_once("cannot serve broken: importing broken raised ModuleNotFoundError");
    finished.assert_says_once("Traceback (most recent call last)");
    assert!(!file.exists(), "the pid file is left");
    let log = fs::read_to_string(log).expect("a log");
    assert!(log.contains("ModuleNotFoundError"), "{log}");
    // Mistakes are found before anything goes into the background, and addresses after it.
    let finished = server().flag("--daemon").arg("--workers", "x").run();
    finished.assert_status(64);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let finished = server()
        .flag("--daemon")
        .bind(&address)
        .expect_error("address already in use")
        .run();
    finished.assert_status(69);
    finished.assert_says_once(&format!("cannot bind {address}"));
}

#[test]
fn standard_streams_are_no_place_for_the_log_of_a_daemon() {
    if !ours() {
        return;
    }
    for option in ["--log", "--access-log"] {
        let finished = Server::new()
            .app("procs")
            .flag("--daemon")
            .arg(option, "stderr")
            .run();
        finished.assert_status(64);
        finished.assert_says_once(&format!(
            "{option}: a daemon has no standard streams: name a file, syslog or journal"
        ));
    }
}

#[test]
fn a_daemon_logs_to_syslog() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs").arg("--log", "syslog@own/log");
    fs::create_dir(server.dir().join("own")).expect("make a directory");
    let syslog = UnixDatagram::bind(server.dir().join("own/log")).expect("a new socket");
    syslog.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let server = start(server);
    let number = server.supervisor().number;
    let mut bytes = [0; 4096];
    loop {
        let length = syslog.recv(&mut bytes).expect("a message of the daemon");
        let text = String::from_utf8_lossy(&bytes[..length]);
        assert!(text.contains(&format!("rswsgi[{number}]: ")), "{text}");
        if text.contains("serving procs on") {
            break;
        }
    }
    server.finish();
}

#[test]
fn without_a_word_about_the_log_a_daemon_logs_to_dev_log() {
    if !ours() {
        return;
    }
    if !nix::unistd::Uid::effective().is_root() {
        return skip("only root can have a /dev/log of its own");
    }
    let server = Server::new().app("procs");
    for name in ["own", "dev"] {
        fs::create_dir(server.dir().join(name)).expect("make a directory");
    }
    let syslog = UnixDatagram::bind(server.dir().join("own/log")).expect("a new socket");
    syslog.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // Another /dev, for this server alone, with the devices of the real one.
    let script = "set -e; mount -t tmpfs tmpfs dev; mkdir dev/shm; mount -t tmpfs tmpfs dev/shm\n\
                  for name in null zero full random urandom log; do : >dev/$name; done\n\
                  for name in null zero full random urandom; do mount --bind /dev/$name dev/$name; done\n\
                  mount --bind own/log dev/log; mount --rbind dev /dev; exec \"$@\"";
    let server = start(server.under(["unshare", "--mount", "sh", "-c", script, "sh"]));
    let number = server.supervisor().number;
    let mut bytes = [0; 4096];
    loop {
        let length = syslog.recv(&mut bytes).expect("a message of the daemon");
        let text = String::from_utf8_lossy(&bytes[..length]);
        // Facility daemon is 3, info 6 (RFC 3164 4.1.1).
        let start = format!("<30>rswsgi[{number}]: supervisor: ");
        if text.starts_with(&format!("{start}serving procs on")) {
            break;
        }
        assert!(text.starts_with(&start), "{text}");
    }
    server.get("/pid").assert_status(200);
    server.finish();
}

#[test]
fn a_daemon_that_is_killed_leaves_nobody_behind() {
    if !ours() {
        return;
    }
    let server = start(server().workers(2).arg("--control", "none"));
    let _gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(server.notes.next().starts_with("waiting"));
    let crew = server.crew();
    let dir = server.dir().to_owned();
    assert_eq!(processes(&dir).len(), 4, "and supervisor and master");
    server.signal(Signal::SIGKILL);
    wait_until("the end of all", || {
        processes(&dir).is_empty().then_some(())
    });
    for pid in crew {
        pid.wait_gone();
    }
    // Its pid file is there, and in nobody's way.
    let file = dir.join("server.pid");
    let again = self::server();
    let again = again.start_daemon(&file);
    again.get("/pid").assert_status(200);
    again.finish();
    assert!(!file.exists());
    server.finish();
}

/// The processes of the test, which need no parent to be found.
fn processes(dir: &Path) -> BTreeSet<Pid> {
    marked(&format!("UNDER_TEST_DIR={}", dir.display()), dir)
}

const WAITS: &str = "import time\nfrom talk import note\nnote('importing')\ntime.sleep(600)\n";

#[test]
fn a_start_that_is_interrupted_is_given_up() {
    if !ours() {
        return;
    }
    let server = server().file("waits.py", WAITS).app("waits");
    let file = pid_file(&server);
    let mut server = server.flag("--daemon").arg("--pid-file", &file).spawn();
    server.notes.expect("importing");
    let daemon = pid_in(&file).expect("it is locked before the import");
    server.signal(Signal::SIGKILL);
    server.wait_exit();
    daemon.wait_gone();
    assert!(!file.exists(), "the pid file is left");
    wait_logged(&server, "the command that started the daemon was ended");
    server.expect_error("the command that started the daemon was ended");
    server.finish();
}

#[test]
fn a_daemon_that_dies_or_is_stopped_while_it_starts_is_a_failed_start() {
    if !ours() {
        return;
    }
    for (signal, message) in [
        (
            Signal::SIGKILL,
            "the server ended before it was ready and without a word",
        ),
        (Signal::SIGTERM, "stopped before it was ready"),
    ] {
        let server = server()
            .file("waits.py", WAITS)
            .app("waits")
            .arg("--control", "none");
        let file = pid_file(&server);
        let mut server = server.flag("--daemon").arg("--pid-file", &file).spawn();
        server.notes.expect("importing");
        let daemon = pid_in(&file).expect("it is locked before the import");
        daemon.signal(signal);
        let status = server.wait_exit();
        assert_eq!(status.code(), Some(1));
        server.log.wait_for(message);
        server.expect_error(message);
        server.expect_status(1);
        let dir = server.dir().to_owned();
        wait_until("the end of all", || {
            processes(&dir).is_empty().then_some(())
        });
        // Nobody was left to remove it, and it is in nobody's way.
        assert_eq!(file.exists(), signal == Signal::SIGKILL);
        server.finish();
    }
}

#[test]
fn a_pid_file_that_a_crash_has_left_is_replaced() {
    if !ours() {
        return;
    }
    let server = Server::new().app("procs");
    let file = pid_file(&server);
    // Of a process that lives: only the lock counts.
    fs::write(&file, "1\n").expect("a file");
    let mut server = server.arg("--pid-file", "server.pid").start();
    let first = pid_in(&file).expect("a pid file");
    assert_eq!(first, server.supervisor());
    let master = server.master();
    server.expect_status(137);
    for piece in ["killed by SIGKILL", "the supervisor is gone"] {
        server.expect_error(piece);
    }
    server.signal(Signal::SIGKILL);
    first.wait_gone();
    master.wait_gone();
    assert!(file.exists());
    let again = Server::new().app("procs").arg("--pid-file", &file).start();
    assert_eq!(pid_in(&file), Some(again.supervisor()));
    again.finish();
    assert!(!file.exists());
    server.finish();
}

#[test]
fn a_daemon_reloads_and_is_upgraded_and_stopped_by_its_pid_file() {
    if !ours() {
        return;
    }
    let server = server();
    let bin = server.dir().join("bin");
    fs::create_dir(&bin).expect("make a directory");
    copy_program(BUILT, bin.join("rswsgi"));
    let server = start(server.program("bin/rswsgi").env("RSWSGI_MODULE", module()));
    let file = server.dir().join("server.pid");
    let number = fs::read_to_string(&file).expect("a pid file");
    let inode = fs::metadata(&file).expect("a pid file").ino();
    let kill = |signal: &str| {
        let done = Command::new("sh")
            .args(["-c", "kill -$1 $(cat $2)", "sh", signal])
            .arg(&file)
            .status();
        assert!(done.expect("a shell").success());
    };
    kill("HUP");
    wait_logged(&server, "generation 2, ");
    copy_program(BUILT, bin.join("new"));
    fs::rename(bin.join("new"), bin.join("rswsgi")).expect("replace it");
    kill("USR2");
    wait_logged(&server, "upgraded from ");
    server.get("/").assert_status(200);
    assert_eq!(fs::read_to_string(&file).expect("a pid file"), number);
    assert_eq!(fs::metadata(&file).expect("a pid file").ino(), inode);
    for number in 0..3 {
        assert_eq!(fd(server.supervisor(), number), Path::new("/dev/null"));
    }
    // The lock is held by the new program, and by nobody else.
    let second = self::server()
        .arg("--pid-file", &file)
        .expect_error("cannot lock");
    second.run().assert_status(69);
    for pid in server.supervisor().descendants() {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", pid.number)).expect("it lives");
        let held = descriptors
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file));
        assert!(!held, "{} holds the pid file", pid.title());
    }
    kill("HUP");
    wait_logged(&server, "generation 3, ");
    kill("TERM");
    server.supervisor().wait_gone();
    assert!(!file.exists(), "the pid file is left");
    server.finish();
}

#[test]
fn logs_are_rotated_by_logrotate() {
    if !ours() {
        return;
    }
    let logrotate = ["/usr/sbin/logrotate", "/usr/bin/logrotate"];
    let Some(logrotate) = logrotate.into_iter().find(|path| Path::new(path).exists()) else {
        return skip("there is no logrotate");
    };
    let server = Server::new().app("procs");
    let logs = server.dir().join("logs");
    fs::create_dir(&logs).expect("make a directory");
    let server = start(
        server
            .arg("--log", "logs/server.log")
            .arg("--access-log", "logs/access.log"),
    );
    let dir = server.dir();
    let snippet = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/rswsgi.logrotate");
    let snippet = fs::read_to_string(snippet).expect("a snippet");
    let replaced = [
        ("/var/log/rswsgi/", format!("{}/", logs.display())),
        ("/run/rswsgi/", format!("{}/run/", dir.display())),
        (
            "rswsgictl ",
            format!("{} ", env!("CARGO_BIN_EXE_rswsgictl")),
        ),
        ("    su rswsgi rswsgi\n", String::new()),
    ];
    let snippet = replaced.iter().fold(snippet, |text, (from, to)| {
        assert!(text.contains(from), "the snippet has no {from}");
        text.replace(from, to)
    });
    let config = dir.join("logrotate.conf");
    fs::write(&config, snippet).expect("a file");
    server.get("/pid").assert_status(200);
    let in_file = |name: &str, piece: &str| {
        wait_until(&format!("{piece:?} in {name}"), || {
            server.file(name).contains(piece).then_some(())
        });
    };
    in_file("logs/access.log", "GET /pid ");
    let rotated = Command::new(logrotate)
        .args(["--force", "--state"])
        .arg(dir.join("logrotate.state"))
        .arg(&config)
        .output()
        .expect("logrotate");
    let said = String::from_utf8_lossy(&rotated.stderr);
    assert!(rotated.status.success() && said.is_empty(), "{said}");
    in_file("logs/access.log.1", "GET /pid ");
    in_file("logs/server.log.1", "serving procs on");
    server.get("/ready-yet").assert_status(200);
    in_file("logs/access.log", "GET /ready-yet ");
    server.signal(Signal::SIGHUP);
    in_file("logs/server.log", "generation 2, ");
    assert!(!server.file("logs/access.log.1").contains("ready-yet"));
    server.finish();
}
