//! `--user` and what goes with it, as root: who the application is, and that there is no way back.

mod terminal;

use crate::support::server::Address;
use crate::support::{
    BUILT, Client, Response, Running, Server, copy_program, module, only_rswsgi, python, skip,
    wait_until,
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
        "session": os.getsid(0),
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
    same(&server.get("/"))
}

#[track_caller]
fn same(response: &Response) -> serde_json::Value {
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
    // The terminal that root has started the server at is that of another session: nothing can be typed there.
    assert_eq!(seen["session"], server.master().number);
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
fn what_root_has_open_is_not_open_in_the_application() {
    let Some(server) = server() else {
        return;
    };
    let secret = server.dir().join("secret");
    fs::write(&secret, "of root\n").expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let application = "import os\n\
        def look(name):\n    \
            found = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')]\n    \
            open('out/' + name, 'w').write('\\n'.join(found))\n\
        look('master')\n\
        def application(environ, start_response):\n    look('worker')\n    \
            start_response('204 No Content', [])\n    return []\n";
    let script = format!("exec 9<{}; exec \"$@\"", secret.display());
    let server = server
        .file("open.py", application)
        .app("open")
        .arg("--user", "nobody")
        .under(["sh", "-c", &script, "sh"])
        .start();
    server.get("/").assert_status(204);
    let path = secret.to_str().expect("a plain path");
    let supervisor = format!("/proc/{}/fd/9", server.supervisor().number);
    assert_eq!(fs::read_link(supervisor).expect("it lives"), secret);
    for who in ["master", "worker"] {
        let open = server.file(&format!("out/{who}"));
        assert!(open.contains("socket:"), "{who}: {open}");
        assert!(!open.contains(path), "{who}: {open}");
    }
    server.finish();
}

/// The user could do neither: bind in a directory of root, or a port of the system.
#[test]
fn sockets_are_bound_while_that_is_allowed() {
    let Some(server) = server() else {
        return;
    };
    let path = server.dir().join("of-root/app.sock");
    let place = path.parent().expect("a directory");
    fs::create_dir(place).expect("a new directory");
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("it is ours");
    // A network of its own, where port 80 is free.
    let script = "ip link set lo up 2>/dev/null; exec \"$@\"";
    let server = server
        .under(["unshare", "--net", "sh", "-c", script, "sh"])
        .arg("--user", "nobody")
        .bind(&format!("unix:{}?group={NOBODY}", path.display()))
        .bind("0.0.0.0:80")
        .start();
    assert_eq!(owner(&path), (0, NOBODY, 0o660));
    server.log.wait_for("http://0.0.0.0:80");
    let address = Address::Unix(path.clone());
    let user = || {
        let mut client = Client::try_connect(&address).expect("somebody listens");
        same(&client.get("/"))["ids"][0].clone()
    };
    assert_eq!(user(), NOBODY);
    server.signal(Signal::SIGHUP);
    server.log.wait_for("generation 2, ");
    assert_eq!(user(), NOBODY);
    // The user could not remove it either.
    server.finish();
    assert!(!path.exists(), "it is left");
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
fn the_supplementary_groups_are_those_of_the_user() {
    let Some(server) = server() else {
        return;
    };
    // In a view of its own of the user database: nobody is in two more groups, and in no other.
    let groups = server.dir().join("group");
    let mut text = fs::read_to_string("/etc/group").expect("the groups of this system");
    text.push_str(
        "rswsgi-a:x:54321:nobody\nrswsgi-b:x:54322:daemon,nobody\nrswsgi-c:x:54323:daemon\n",
    );
    fs::write(&groups, text).expect("a file");
    let script = format!(
        "mount --bind {} /etc/group && exec \"$@\"",
        groups.display()
    );
    let as_root_in = ["setpriv", "--groups=0,4,54323"];
    let view = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let [setpriv, root_groups] = as_root_in;
    let [unshare, mount, sh, c, script, zero] = view;
    let server = server
        .under([setpriv, root_groups, unshare, mount, sh, c, script, zero])
        .arg("--user", "nobody")
        .start();
    let seen = look(&server);
    let gid = seen["ids"][3].as_u64().expect("a number");
    assert_eq!(seen["groups"], serde_json::json!([54321, 54322, gid]));
    server.finish();
}

#[test]
fn what_could_be_regained_is_found_out_before_the_application_starts() {
    let Some(server) = server() else {
        return;
    };
    // capabilities(7): capabilities stay when the user changes.
    let finished = server
        .under(["setpriv", "--securebits", "+no_setuid_fixup"])
        .arg("--user", "nobody")
        .expect_error("cannot execute")
        .run();
    finished.assert_status(77);
    finished.assert_says_once("as user nobody: operation not permitted");
    assert!(!Path::new("out/imported").exists());
}

#[test]
fn the_interpreter_may_belong_to_the_user_and_nobody_else_runs_it() {
    let Some(server) = server() else {
        return;
    };
    let Some(python) = common_python() else {
        return skip("no Python 3.10 or later that another user could execute");
    };
    let venv = server.dir().join("out/venv");
    let made = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(python)
        .args(["-m", "venv", "--copies", "--without-pip"])
        .arg(&venv)
        .current_dir("/")
        .output()
        .expect("setpriv");
    let said = String::from_utf8_lossy(&made.stderr);
    if said.contains("ensurepip") || said.contains("No module named venv") {
        return skip("this Python has no venv");
    }
    assert!(made.status.success(), "{said}");
    // Each start of the interpreter is noted, long before the application is imported.
    let note = format!(
        "import os; open({:?}, 'a').write('%d\\n' % os.getuid())\n",
        server.dir().join("out/starts")
    );
    let libraries = fs::read_dir(venv.join("lib")).expect("a venv").flatten();
    for library in libraries {
        let packages = library.path().join("site-packages");
        fs::write(packages.join("note.pth"), &note).expect("as root");
    }
    fs::set_permissions(&venv, fs::Permissions::from_mode(0o700)).expect("as root");
    let server = server
        .any_python()
        .arg("--venv", &venv)
        .arg("--user", "nobody")
        .start();
    look(&server);
    server.signal(Signal::SIGHUP);
    server.log.wait_for("generation 2, ");
    let (uid, _, _) = owner(&venv.join("bin/python"));
    assert_eq!(uid, NOBODY);
    let starts = server.file("out/starts");
    assert!(starts.lines().count() >= 2, "{starts}");
    assert!(
        starts.lines().all(|uid| uid == NOBODY.to_string()),
        "{starts}"
    );
    server.finish();
}

/// Where root itself may raise limits (CAP_SYS_RESOURCE), which containers often take from it.
fn may_raise() -> bool {
    let raise = "ulimit -Sn 64; ulimit -Hn 128; ulimit -Hn 256";
    let done = Command::new("sh")
        .args(["-c", raise])
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

#[test]
fn limits_are_set_while_that_is_allowed_and_for_the_application_alone() {
    let Some(server) = server() else {
        return;
    };
    let (soft, hard) = if may_raise() {
        (3000, 5000)
    } else {
        (700, 900)
    };
    let server = server
        .under(["prlimit", "--nofile=1024:2048"])
        .arg("--user", "nobody")
        .arg("--rlimit", format!("nofile={soft}:{hard}"))
        .start();
    assert_eq!(look(&server)["nofile"], serde_json::json!([soft, hard]));
    let limits = format!("/proc/{}/limits", server.supervisor().number);
    let limits = fs::read_to_string(limits).expect("it lives");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let line = line.expect("a line for each limit");
    assert!(line.contains(" 1024 ") && line.contains(" 2048 "), "{line}");
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
