//! Who may talk to the server, and where its socket is.

use super::ours;
use crate::support::control::path;
use crate::support::{Control, Running, Server, skip};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

const NOBODY: &str = "65534";
const GROUP: &str = "54321";

/// Sends one request as another user; `None` when that one may not even connect.
#[track_caller]
fn ask_as(server: &Running, group: &str, request: &str) -> Option<Value> {
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\n\
        try:\n    s.connect(sys.argv[1])\n\
        except PermissionError:\n    sys.exit(3)\n\
        f = s.makefile('rw')\n\
        f.write(sys.argv[2] + '\\n')\n\
        try:\n    f.flush()\n\
        except OSError:\n    pass\n\
        sys.stdout.write(f.readline())\n";
    let output = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", group, "--clear-groups"])
        .args(["/usr/bin/python3", "-c", script])
        .arg(path(server, "basic"))
        .arg(request)
        .output()
        .expect("run setpriv");
    if output.status.code() == Some(3) {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    Some(serde_json::from_slice(&output.stdout).expect("a reply"))
}

fn others_can_be_played() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    let tools = ["setpriv", "/usr/bin/python3"];
    let found = tools
        .iter()
        .all(|tool| Command::new(tool).arg("--version").output().is_ok());
    if !is_root || !found {
        skip("playing another user takes root, setpriv and /usr/bin/python3");
    }
    is_root && found
}

const PING: &str = "{\"v\":1,\"do\":\"ping\"}";
const STOP: &str = "{\"v\":1,\"do\":\"stop\"}";

#[test]
fn only_the_own_user_and_root_may_connect_and_are_asked_again() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").start();
    let socket = path(&server, "basic");
    let mode = |path| {
        std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
    };
    assert_eq!(mode(&socket) & 0o777, 0o600);
    if !others_can_be_played() {
        return;
    }
    assert_eq!(ask_as(&server, NOBODY, PING), None);
    let everybody = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(&socket, everybody).expect("change the mode");
    for request in [PING, STOP] {
        let reply = ask_as(&server, NOBODY, request).expect("it may connect");
        assert_eq!(
            (&reply["ok"], &reply["kind"]),
            (&json!(false), &json!("no-permission"))
        );
    }
    server.get("/hello").assert_status(200);
}

#[test]
fn the_control_group_may_look_but_not_steer() {
    if !ours() || !others_can_be_played() {
        return;
    }
    let server = Server::new()
        .app("basic")
        .arg("--control-group", GROUP)
        .start();
    let reply = ask_as(&server, GROUP, PING).expect("it may connect");
    assert_eq!(reply["ok"], true);
    for verb in ["stats", "trace", "config"] {
        let request = json!({"v": 1, "do": verb}).to_string();
        let reply = ask_as(&server, GROUP, &request).expect("it may connect");
        assert_eq!(reply["ok"], true, "{verb}");
    }
    for verb in ["stop", "reload", "recycle", "reopen"] {
        let request = json!({"v": 1, "do": verb}).to_string();
        let reply = ask_as(&server, GROUP, &request).expect("it may connect");
        assert_eq!(reply["kind"], "no-permission", "{verb}");
    }
    assert_eq!(ask_as(&server, NOBODY, PING), None);
    Control::of(&server, "basic").done(json!({"do": "recycle"}));
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_one_in_use_is_not() {
    if !ours() {
        return;
    }
    let leave = |server: Server, listens: bool| {
        let place = server.dir().join("run/basic.control");
        let listener = UnixListener::bind(place).expect("bind a socket");
        let listener = listens.then_some(listener);
        (server, listener)
    };
    let (server, _) = leave(Server::new().app("basic"), false);
    let server = server.start();
    Control::of(&server, "basic").done(json!({"do": "ping"}));
    drop(server);

    // Somebody else's, at a place that nobody has named: the server starts without.
    let (server, listener) = leave(Server::new().app("basic"), true);
    let server = server.start();
    server.log.wait_for("another process is listening on it");
    server
        .log
        .wait_for("tells which; --control names another place");
    drop(listener);
    std::fs::remove_file(path(&server, "basic")).expect("remove our own socket");
    drop(server);

    // At a place that was named: it does not start.
    let (server, _listener) = leave(Server::new().app("basic"), true);
    let place = server.dir().join("run/basic.control");
    let mut running = server
        .arg("--control", &place)
        .expect_error("cannot bind")
        .spawn();
    running.expect_status(69);
    assert_eq!(running.wait_exit().code(), Some(69));
    std::fs::remove_file(place).expect("remove our own socket");
}

#[test]
fn the_place_can_be_named_and_the_socket_left_out() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic");
    let place = server.dir().join("here.sock");
    let server = server.arg("--control", &place).start();
    Control::connect(&place).done(json!({"do": "ping"}));
    assert!(!path(&server, "basic").exists());
    drop(server);
    let server = Server::new().app("basic").arg("--control", "none").start();
    assert!(!path(&server, "basic").exists());
    server.get("/hello").assert_status(200);
}
