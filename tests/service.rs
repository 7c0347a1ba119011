//! What a service manager sees: signs of life, time limits, kept sockets, an exit when idle.

use crate::support::{Server, only_rswsgi, wait_until};
use nix::cmsg_space;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

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
