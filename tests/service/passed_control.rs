//! The control socket as one that the service manager has bound (`--control fd://NAME`).

use super::{activated, ours};
use crate::support::{Control, Said, Server, ctl, skip, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server whose second passed socket, `passed.sock`, is to be its control socket.
fn server() -> Server {
    Server::new()
        .app("procs")
        .tcp()
        .unix()
        .env("LISTEN_FDNAMES", "web:orders")
        .arg("--bind", "fd://web")
        .arg("--control", "fd://orders")
}

/// What nobody but its creator may change.
fn facts(path: &Path) -> (u64, u32, u32, u32, i64) {
    let found = fs::symlink_metadata(path).expect("it is there");
    let (inode, mode, changed) = (found.ino(), found.mode(), found.ctime_nsec());
    (inode, mode, found.uid(), found.gid(), changed)
}

fn asked(dir: &Path, socket: &Path, verb: &str) -> Said {
    let socket = socket.to_str().expect("the test has named it");
    ctl(dir, &["--control", socket, verb])
}

#[test]
fn a_passed_socket_is_the_control_socket_and_is_left_as_it_is() {
    if !ours() {
        return;
    }
    let server = server().arg("--control-group", "54321");
    let path = server.dir().join("passed.sock");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o606)).expect("it is ours");
    if Uid::effective().is_root() {
        chown(&path, Some(65_534), Some(65_534)).expect("as root");
    }
    let before = facts(&path);
    let mut server = server.start();
    let dir = server.dir().to_owned();
    let told = format!("control socket: unix:{}", path.display());
    server.log.wait_for(&told);
    assert!(
        fs::read_dir(dir.join("run"))
            .expect("it is there")
            .next()
            .is_none(),
        "there is another one"
    );
    asked(&dir, &path, "ping").done();
    asked(&dir, &path, "reload").done();
    server.log.wait_for("generation 2, ");
    assert_eq!(facts(&path), before);
    // The program that takes over goes on with the same socket, as somebody else's.
    server.read_notifications();
    server.signal(Signal::SIGUSR2);
    server.wait_notified("READY=1");
    server.log.wait_for("upgraded from ");
    asked(&dir, &path, "reload").done();
    server.get("/pid").assert_status(200);
    assert_eq!(facts(&path), before);
    asked(&dir, &path, "stop").done();
    server.wait_exit();
    assert_eq!(facts(&path), before);
    server.finish();
}

#[test]
fn who_asks_there_is_asked_for_as_ever() {
    if !ours() {
        return;
    }
    if !Uid::effective().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        return skip("playing another user takes root and setpriv");
    }
    let server = server().arg("--control-group", "54321");
    let path = server.dir().join("passed.sock");
    // As a socket unit makes it that says nothing else.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("it is ours");
    let server = server.start();
    let ask_as = |group: &str, verb: &str| {
        let script = "import socket, sys\n\
            s = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
            f = s.makefile('rw')\n\
            try:\n    f.write('{\"v\":1,\"do\":\"%s\"}\\n' % sys.argv[2]); f.flush()\n\
            except OSError:\n    pass\n\
            sys.stdout.write(f.readline())\n";
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid", group, "--clear-groups"])
            .args(["/usr/bin/python3", "-c", script])
            .args([path.as_os_str(), verb.as_ref()])
            .output()
            .expect("run setpriv");
        let reply: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a reply");
        reply["kind"].as_str().unwrap_or("done").to_owned()
    };
    assert_eq!(ask_as("65534", "ping"), "no-permission");
    assert_eq!(ask_as("65534", "stop"), "no-permission");
    assert_eq!(ask_as("54321", "ping"), "done");
    assert_eq!(ask_as("54321", "stop"), "no-permission");
    Control::connect(&path).done(json!({"do": "recycle"}));
    server.finish();
}

#[test]
fn what_cannot_be_a_control_socket_is_refused_by_name() {
    if !ours() {
        return;
    }
    for (names, bind, message) in [
        (
            "orders:web",
            "fd://web",
            "as control socket: who asks is known on a Unix stream socket alone",
        ),
        (
            "web:other",
            "fd://web",
            "cannot listen on fd://orders: no socket of this name was passed, there are web, other",
        ),
        (
            "web:orders",
            "fd://orders",
            "cannot listen on fd://orders: no socket of this name was passed",
        ),
    ] {
        let finished = Server::new()
            .app("procs")
            .tcp()
            .unix()
            .env("LISTEN_FDNAMES", names)
            .arg("--bind", bind)
            .arg("--control", "fd://orders")
            .expect_error("cannot")
            .run();
        finished.assert_status(78);
        finished.assert_says_once(message);
    }
    let finished = server().arg("--control", "fd://1").run();
    finished.assert_status(64);
    finished.assert_says_once("descriptor 1 is a standard stream");
}

#[test]
fn who_asks_starts_the_service_as_whoever_connects() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("procs")
        .bind("unix:web.sock")
        .arg("--control", "fd://orders");
    let Some((mut server, address)) = activated(server, &["--fdname=orders"]) else {
        return;
    };
    let crate::support::server::Address::Unix(path) = address else {
        panic!("{address:?}");
    };
    wait_until("the socket", || path.exists().then_some(()));
    let dir = server.dir().to_owned();
    asked(&dir, &path, "ping").done();
    let web: PathBuf = dir.join("web.sock");
    wait_until("the listener", || web.exists().then_some(()));
    asked(&dir, &path, "stop").done();
    server.wait_exit();
    assert!(path.exists(), "it was removed");
    server.finish();
}
