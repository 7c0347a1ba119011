//! How processes end when the application would rather stay, and when nobody is there to see it.

use super::{assert_serves_on, hostile, ours, worker};
use crate::support::{Pid, Running, Server, wait_until};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

#[test]
fn a_master_that_waits_for_a_slow_worker_sleeps() {
    if !ours() {
        return;
    }
    let mut server = hostile().env("SLOW_EXIT", "1").start();
    let gate = server.gate("gate");
    let (master, worker) = (server.master(), worker(&server));
    server.signal(Signal::SIGTERM);
    server.notes.expect(&format!("leaving {}", worker.number));
    let before = master.run_time();
    std::thread::sleep(Duration::from_secs(1)); // what is measured, not something to wait for
    let spent = master.run_time() - before;
    assert!(worker.is_alive() && master.is_alive() && !server.has_exited());
    gate.open();
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(spent.as_millis() < 50, "it ran for {spent:?} of a second");
}

#[test]
fn a_worker_told_to_leave_is_replaced_although_a_thread_keeps_it() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let _gate = server.gate("gate");
    let worker = worker(&server);
    server
        .get("/thread")
        .assert_text(&worker.number.to_string());
    worker.signal(Signal::SIGTERM);
    // Whoever comes too early is served by the old one.
    wait_until("a replacement to serve", || {
        let pid = server.get("/pid").text();
        (pid != worker.number.to_string()).then_some(())
    });
    assert!(worker.is_alive(), "its thread waits at the gate");
    server.get("/pid").assert_status(200);
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind_although_a_thread_runs_since_the_import() {
    if !ours() {
        return;
    }
    let mut server = hostile().env("THREAD_AT_IMPORT", "1").start();
    server.expect_error("the supervisor is gone");
    let all = server.supervisor().descendants();
    assert_eq!(all.len(), 2, "a master and a worker: {all:?}");
    server.signal(Signal::SIGKILL);
    server.wait_exit();
    all.iter().for_each(|pid| pid.wait_gone());
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind_although_the_import_hangs() {
    if !ours() {
        return;
    }
    let text = "import signal\nfrom talk import note\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                note('importing')\nwhile True: signal.pause()\n";
    let mut server = Server::new().file("hangs.py", text).app("hangs").spawn();
    server.expect_error("the supervisor is gone");
    server.notes.expect("importing");
    let all = server.supervisor().descendants();
    assert!(!all.is_empty(), "somebody imports");
    server.signal(Signal::SIGKILL);
    server.wait_exit();
    all.iter().for_each(|pid| pid.wait_gone());
}

#[test]
fn a_check_ends_although_a_thread_runs_since_the_import() {
    if !ours() {
        return;
    }
    let check = hostile().env("THREAD_AT_IMPORT", "1").flag("--check");
    check.run().assert_status(0);
}

/// A pipe that this test holds open and never reads.
struct Unread(File);

impl Unread {
    fn new(server: &Server) -> Unread {
        let path = server.dir().join("unread");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("make a named pipe");
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(OFlag::O_NONBLOCK.bits());
        Unread(options.open(path).expect("open the named pipe"))
    }

    fn fill(&self) {
        // Pages first, then what is left of the last one (pipe(7)).
        for size in [4096, 1] {
            while (&self.0).write_all(&[b'x'; 4096][..size]).is_ok() {}
        }
        let last = nix::unistd::write(&self.0, b"x");
        assert_eq!(last, Err(Errno::EAGAIN), "the pipe is full");
    }
}

/// Two workers whose stderr is full from now on.
#[track_caller]
fn with_full_log() -> (Running, Unread) {
    let server = hostile().workers(2);
    let unread = Unread::new(&server);
    let script = "exec \"$@\" 2>\"$UNDER_TEST_DIR/unread\"";
    let server = server.under(["sh", "-c", script, "sh"]).start();
    unread.fill();
    (server, unread)
}

#[test]
fn a_log_that_nobody_reads_holds_no_request_up() {
    if !ours() {
        return;
    }
    let (server, _unread) = with_full_log();
    for _ in 0..20 {
        let mut refused = server.connect();
        refused.send("BAD\r\n\r\n");
        refused.response().assert_status(400);
        server.get("/raise").assert_status(500);
        server.get("/pid").assert_status(200);
    }
}

#[test]
fn a_log_that_nobody_reads_holds_no_process_up() {
    if !ours() {
        return;
    }
    let (mut server, _unread) = with_full_log();
    let old = server.workers()[0];
    old.signal(Signal::SIGKILL); // the master has something to say
    wait_until("a new worker", || {
        Some(server.workers()).filter(|workers| !workers.contains(&old))
    });
    server.get("/pid").assert_status(200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn a_server_whose_log_nobody_reads_stops() {
    if !ours() {
        return;
    }
    let (mut server, _unread) = with_full_log();
    server.get("/pid").assert_status(200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn a_hangup_ends_no_worker() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let worker = worker(&server);
    worker.signal(Signal::SIGHUP);
    assert_serves_on(&server, worker);
}

#[test]
fn a_hangup_ends_no_master() {
    if !ours() {
        return;
    }
    let mut server = hostile().start();
    server.expect_error("killed by SIGKILL");
    let (master, old) = (server.master(), worker(&server));
    master.signal(Signal::SIGHUP);
    old.signal(Signal::SIGKILL);
    // It takes the hangup before it can see that end.
    let new = wait_until("a new worker", || {
        let mut all = server.supervisor().descendants().into_iter();
        all.find(|pid| pid.title().contains("worker") && *pid != old)
    });
    assert_eq!(server.master(), master);
    assert_serves_on(&server, new);
}

#[test]
fn the_application_may_have_a_handler_for_hangups() {
    if !ours() {
        return;
    }
    let text = "import os, signal\nfrom talk import note\nfrom hostile import application\n\
                signal.signal(signal.SIGHUP, lambda *_: note('hangup in %d' % os.getpid()))\n";
    let server = Server::new()
        .file("handles.py", text)
        .app("handles")
        .start();
    let worker = worker(&server);
    worker.signal(Signal::SIGHUP);
    let Pid { number, .. } = worker;
    server.notes.expect(&format!("hangup in {number}"));
    assert_serves_on(&server, worker);
}
