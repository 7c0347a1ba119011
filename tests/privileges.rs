//! `--user` and what goes with it, as root: who the application is, and that there is no way back.

use crate::support::{
    BUILT, Running, Server, copy_program, module, only_rswsgi, python, skip, wait_until,
};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `nobody`, by convention.
pub const NOBODY: u32 = 65_534;

const APPLICATION: &str = r#"
import ctypes, json, os, resource

def attempt(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return type(error).__name__
    return "allowed"

def status():
    with open("/proc/self/status") as lines:
        return dict(line.rstrip("\n").split(":\t", 1) for line in lines)

def look():
    found = status()
    return {
        "ids": [*os.getresuid(), *os.getresgid()],
        "groups": sorted(os.getgroups()),
        "capabilities": [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "no-new-privileges": found["NoNewPrivs"],
        "home": os.environ.get("HOME"),
        "user": os.environ.get("USER"),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "back": [
            attempt(os.setuid, 0),
            attempt(os.setresuid, -1, 0, -1),
            attempt(os.setgid, 0),
            attempt(os.setgroups, []),
            attempt(os.chroot, "/"),
        ],
    }

with open("out/imported", "w") as file:
    file.write("by the master")
AT_IMPORT = look()

def application(environ, start_response):
    with open("out/served", "w") as file:
        file.write("by a worker")
    body = json.dumps([AT_IMPORT, look()]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

/// An interpreter that another user can execute; where one was built in root's home, it cannot.
pub fn common_python() -> Option<PathBuf> {
    let found = python::pythons().into_iter().map(|python| python.path);
    let usable = |path: &PathBuf| {
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let check = "import sys, json, resource, ctypes; assert sys.version_info >= (3, 10)";
        let done = Command::new("setpriv")
            .args(ids)
            .arg("--clear-groups")
            .arg(path)
            .args(["-c", check])
            .current_dir("/")
            .stderr(Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
    };
    ["/usr/bin/python3", "/usr/local/bin/python3"]
        .map(PathBuf::from)
        .into_iter()
        .chain(found)
        .find(usable)
}

/// A server in a directory that everybody may read, with a directory `out` that belongs to nobody.
fn server() -> Option<Server> {
    if !only_rswsgi("giving up privileges") {
        return None;
    }
    if !Uid::effective().is_root() {
        skip("only root can become another user");
        return None;
    }
    let Some(python) = common_python() else {
        skip("no Python 3.10 or later that another user could execute");
        return None;
    };
    let server = Server::new().file("who.py", APPLICATION);
    let (bin, out) = (server.dir().join("bin"), server.dir().join("out"));
    for directory in [&bin, &out] {
        fs::create_dir(directory).expect("a new directory");
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    chown(&out, Some(NOBODY), Some(NOBODY)).expect("as root");
    let built = Path::new(BUILT);
    copy_program(built, bin.join("rswsgi"));
    copy_program(module(), bin.join("librswsgi.so"));
    let directory = server.dir().to_owned();
    Some(
        server
            .app("who")
            .program(bin.join("rswsgi"))
            .python(python)
            .arg("--chdir", directory),
    )
}

/// What master and worker see: the same.
#[track_caller]
fn look(server: &Running) -> serde_json::Value {
    let response = server.get("/");
    response.assert_status(200);
    let seen: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(seen[0], seen[1], "master and worker differ");
    seen[0].clone()
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).expect("the application has made it");
    (found.uid(), found.gid(), found.mode() & 0o777)
}

#[test]
fn the_application_becomes_another_user_for_good() {
    let Some(server) = server() else {
        return;
    };
    let server = server
        .arg("--user", "nobody")
        .arg("--umask", "027")
        .arg("--rlimit", "nofile=500:600")
        .start();
    let seen = look(&server);
    let gid = seen["ids"][3].as_u64().expect("a number") as u32;
    let id = |number: u32| serde_json::json!([NOBODY, NOBODY, NOBODY, number, number, number]);
    assert_eq!(seen["ids"], id(gid));
    assert_ne!(gid, 0);
    assert_eq!(seen["groups"], serde_json::json!([gid]));
    let none = ["0000000000000000"; 5];
    assert_eq!(seen["capabilities"], serde_json::json!(none));
    assert_eq!(seen["no-new-privileges"], "1");
    assert_eq!(seen["nofile"], serde_json::json!([500, 600]));
    assert_eq!(seen["user"], "nobody");
    assert_eq!(
        seen["back"],
        serde_json::json!(vec!["PermissionError"; 5]),
        "a privilege was regained"
    );
    for file in ["out/imported", "out/served"] {
        assert_eq!(
            owner(&server.dir().join(file)),
            (NOBODY, gid, 0o640),
            "{file}"
        );
    }
    assert_eq!(
        server.supervisor().status("Uid").as_deref(),
        Some("0\t0\t0\t0")
    );
    server.finish();
}

#[test]
fn a_group_and_numbers_will_do() {
    let Some(server) = server() else {
        return;
    };
    let server = server
        .arg("--user", NOBODY.to_string())
        .arg("--group", "54321")
        .flag("--allow-new-privileges")
        .start();
    let seen = look(&server);
    let expected = serde_json::json!([NOBODY, NOBODY, NOBODY, 54321, 54321, 54321]);
    assert_eq!(seen["ids"], expected);
    assert_eq!(seen["no-new-privileges"], "0");
    assert_eq!(seen["back"], serde_json::json!(vec!["PermissionError"; 5]));
    server.finish();
}

#[test]
fn what_has_become_another_user_is_still_looked_after() {
    let Some(server) = server() else {
        return;
    };
    let server = server.arg("--user", "nobody").workers(2).start();
    let (master, workers) = (server.master(), server.workers());
    workers[0].signal(Signal::SIGKILL);
    wait_until("a replacement", || {
        let now = server.workers();
        (!now.contains(&workers[0]) && now.contains(&workers[1])).then_some(())
    });
    server.signal(Signal::SIGHUP);
    server.log.wait_for("generation 2, ");
    master.wait_gone();
    look(&server);
    // The parent-death signal has survived the change of user.
    let (master, workers) = (server.master(), server.workers());
    let mut server = server;
    server.expect_status(137);
    for piece in ["killed by SIGKILL", "the supervisor is gone"] {
        server.expect_error(piece);
    }
    server.signal(Signal::SIGKILL);
    master.wait_gone();
    workers.iter().for_each(|worker| worker.wait_gone());
}

#[test]
fn an_import_that_hangs_dies_with_the_supervisor_as_another_user_too() {
    let Some(server) = server() else {
        return;
    };
    let server = server
        .file(
            "hangs.py",
            "open('out/hangs', 'w').close()\nimport time\ntime.sleep(600)\n",
        )
        .app("hangs")
        .arg("--user", "nobody");
    let mut server = server.spawn();
    let file = server.dir().join("out/hangs");
    wait_until("the import", || file.exists().then_some(()));
    let master = server.master();
    server.expect_status(137);
    server.signal(Signal::SIGKILL);
    master.wait_gone();
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_named() {
    let Some(server) = server() else {
        return;
    };
    let directory = server.dir().join("private");
    fs::create_dir(&directory).expect("a new directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let finished = server
        .arg("--user", "nobody")
        .arg("--chdir", &directory)
        .expect_error("cannot execute")
        .run();
    finished.assert_status(77);
    finished
        .assert_says_once("as user nobody: permission denied; nobody has to be allowed to enter");
}

#[test]
fn who_is_not_root_cannot_become_another() {
    let Some(server) = server() else {
        return;
    };
    let finished = server
        .within(&[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .arg("--user", "daemon")
        .expect_error("only root can")
        .run();
    finished.assert_status(77);
    finished.assert_says_once("cannot run the application with --user daemon: only root can");
}

#[test]
fn an_unknown_user_is_named() {
    let Some(server) = server() else {
        return;
    };
    let finished = server
        .arg("--user", "no-such-user")
        .expect_error("no such user")
        .run();
    finished.assert_status(78);
    finished.assert_says_once("--user: there is no user \"no-such-user\"");
}
