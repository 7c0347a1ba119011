//! `--isolation webspace`: applications that try to break out, one try per claim.

use super::ours;
use crate::privileges::{NOBODY, common_python};
use crate::support::control::Control;
use crate::support::{BUILT, Hosted, Hosting, Server, copy_program, module, skip, wait_until};
use nix::unistd::Uid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Another user, who need not be in the user database.
const OTHER: u32 = 65_533;

pub const TRIES: &str = r#"
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    done = libc.syscall(number, *arguments)
    return "allowed" if done != -1 else os.strerror(ctypes.get_errno())

def attempt(what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        return type(error).__name__
    return "allowed"

def write(path):
    with open(path, "w") as file:
        file.write("x")

def read(path):
    with open(path, "rb") as file:
        file.read(1)

def connect_family(family):
    socket.socket(family, socket.SOCK_DGRAM).close()

def others():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat("/proc/" + name).st_uid != os.getuid():
                    found.append(name)
            except OSError:
                pass
    return found

def status():
    with open("/proc/self/status") as lines:
        return dict(line.rstrip("\n").split(":\t", 1) for line in lines)

def descriptors():
    links = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            stat = os.stat("/proc/self/fd/" + fd)
            links[fd] = [os.readlink("/proc/self/fd/" + fd), "%d:%d" % (stat.st_dev, stat.st_ino)]
        except OSError:
            pass
    return links

def fork_all(most):
    children = []
    try:
        while len(children) < most:
            pid = os.fork()
            if pid == 0:
                import time
                time.sleep(600)
            children.append(pid)
        return "allowed"
    except OSError as error:
        return type(error).__name__
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

def hog(size):
    try:
        return "allowed" if bytearray(size) else ""
    except MemoryError as error:
        return type(error).__name__

def look(query):
    other = query["other"]
    x86 = os.uname().machine == "x86_64"
    return {
        "etc": attempt(write, "/etc/rswsgi-was-here"),
        "usr": attempt(write, "/usr/rswsgi-was-here"),
        "own": attempt(write, "mark"),
        "tmp": attempt(write, query["tmp"]),
        "other": attempt(read, other),
        "ptrace": call(101 if x86 else 117, 0, 0, 0, 0),
        "unshare": call(272 if x86 else 97, 0x10000000),
        "mount": call(165 if x86 else 40, None, b"/", None, 0, None),
        "packet": attempt(connect_family, 17),
        "others": others(),
        "environ": attempt(read, "/proc/%s/environ" % query["pid"]),
        "cmdline": attempt(read, "/proc/%s/cmdline" % query["pid"]),
        "status": [status()[name] for name in ("NoNewPrivs", "Seccomp")],
        "descriptors": descriptors(),
        "pid": os.getppid(),
    }

def application(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    query = json.loads(environ["wsgi.input"].read(length) or b"{}")
    if "fork" in query:
        answer = fork_all(query["fork"])
    elif "hog" in query:
        answer = hog(query["hog"])
    else:
        answer = look(query)
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

/// Two apps of two users, each with a directory of its own; `None` where that cannot be had.
pub fn two_users(host: &str, module_text: &str) -> Option<Hosting> {
    if !ours() {
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
    let host = format!("python = {python:?}\nchdir = '{{name}}'\nidle-exit = '1h'\n{host}");
    let mut hosting = Hosting::on(Server::outside_tmp(), &host);
    let bin = hosting.dir().join("bin");
    fs::create_dir(&bin).expect("a new directory");
    copy_program(BUILT, bin.join("rswsgi"));
    fs::copy(module(), bin.join("librswsgi.so")).expect("a copy of the module");
    hosting = hosting.change(|server| server.program(bin.join("rswsgi")));
    for (name, user) in [("one", NOBODY), ("two", OTHER)] {
        let directory = hosting.dir().join(name);
        fs::create_dir(&directory).expect("a new directory");
        fs::write(directory.join("tries.py"), module_text).expect("a file");
        fs::write(directory.join("secret"), "x").expect("a file");
        chown(&directory, Some(user), Some(user)).expect("as root");
        for file in ["", "tries.py", "secret"] {
            let mode = if file.is_empty() { 0o755 } else { 0o644 };
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(directory.join(file), mode).expect("it is ours");
        }
        hosting = hosting.app(
            name,
            &format!("target = 'tries'\nuser = '{user}'\ngroup = '{user}'\n"),
        );
    }
    Some(hosting)
}

#[track_caller]
pub fn ask(hosted: &Hosted, name: &str, query: &Value) -> Value {
    let body = query.to_string();
    let mut client = hosted.connect(name);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ));
    let response = client.response();
    response.assert_status(200);
    response.json()
}

/// A file that an app of this test makes in what it takes for /tmp.
fn outside(hosted: &Hosted) -> PathBuf {
    let name = hosted.dir().file_name().expect("a directory");
    Path::new("/tmp").join(format!("{}-was-here", name.display()))
}

#[track_caller]
fn look(hosted: &Hosted, name: &str, other: &str, pid: &Value) -> Value {
    let query = json!({
        "other": hosted.dir().join(other).join("secret"),
        "tmp": outside(hosted),
        "pid": pid,
    });
    ask(hosted, name, &query)
}

#[test]
fn a_webspace_cannot_break_out() {
    let Some(hosting) = two_users("isolation = 'webspace'\n", TRIES) else {
        return;
    };
    let hosted = hosting.start();
    let two = look(&hosted, "two", "one", &json!(1));
    let one = look(&hosted, "one", "two", &two["pid"]);
    let refused = |name: &str, how: &[&str]| {
        let answer = one[name].as_str().expect("a text");
        assert!(how.contains(&answer), "{name}: {answer}");
    };
    // A read-only system says EROFS, Landlock and the user's rights EACCES.
    refused("etc", &["OSError", "PermissionError"]);
    refused("usr", &["OSError", "PermissionError"]);
    refused("own", &["allowed"]);
    refused("tmp", &["allowed"]);
    assert!(
        !fs::exists(outside(&hosted)).expect("/tmp is there"),
        "its /tmp is ours"
    );
    refused("other", &["PermissionError"]);
    for call in ["ptrace", "unshare", "mount"] {
        refused(call, &["Operation not permitted"]);
    }
    refused("packet", &["PermissionError"]);
    assert_eq!(one["others"], json!([]), "processes of others are seen");
    refused("environ", &["FileNotFoundError", "PermissionError"]);
    refused("cmdline", &["FileNotFoundError", "PermissionError"]);
    assert_eq!(one["status"], json!(["1", "2"]));
    let app = hosted.app("one");
    let lacks = app["lacks"].as_array().expect("a list");
    let only_cgroup = lacks.iter().all(|lack| lack.to_string().contains("cgroup"));
    assert!(only_cgroup, "{app}");
}

#[test]
fn what_is_shared_within_an_app_is_not_inherited_by_another() {
    let Some(hosting) = two_users("", TRIES) else {
        return;
    };
    let hosted = hosting.start();
    let inherited = |name: &str, other: &str| {
        let seen = look(&hosted, name, other, &json!(1));
        let descriptors = seen["descriptors"].as_object().expect("a map").clone();
        let shared = descriptors.into_iter().filter(|(_, link)| {
            let path = link[0].as_str().unwrap_or_default();
            !path.starts_with("/dev/") && !path.starts_with("anon_inode:")
        });
        let shared = shared.map(|(_, link)| link[1].to_string());
        shared.collect::<BTreeSet<_>>()
    };
    let (one, two) = (inherited("one", "two"), inherited("two", "one"));
    let both: Vec<_> = one.intersection(&two).collect();
    assert!(both.is_empty(), "{both:?} of {one:?}");
    assert!(one.len() > 2, "a worker has descriptors: {one:?}");
    // Nobody is shut in here.
    fs::remove_file(outside(&hosted)).expect("an app has made it");
}

#[test]
fn a_fork_bomb_and_a_memory_hog_end_at_their_limits_and_the_other_app_serves() {
    let host = "rlimit = ['nproc=80', 'as=1g']\n";
    let Some(hosting) = two_users(host, TRIES) else {
        return;
    };
    // Threads count, too: a worker that has none left for its watcher says so.
    let hosted = hosting.expect_error("cannot start the thread").start();
    assert_eq!(
        ask(&hosted, "one", &json!({"fork": 500})),
        "BlockingIOError"
    );
    assert_eq!(
        ask(&hosted, "one", &json!({"hog": 4u64 << 30})),
        "MemoryError"
    );
    assert_eq!(ask(&hosted, "two", &json!({"hog": 1})), "allowed");
}

/// Writes garbage to whatever the master has in common with the supervisor.
const LIAR: &str = r#"
import json, mmap, os, random, socket
chance = random.Random(7)
reports = [
    b"", b"{", b"null", b"\xff" * 100, b"[" * 10000, b"x" * 100000,
    json.dumps({"Ready": {"python": "\x1b[2J" * 1000, "import_millis": 2 ** 64 - 1}}).encode(),
    json.dumps({"Failed": {"reason": "\x00" * 5000, "traceback": "\n" * 5000}}).encode(),
    json.dumps({"Done": {"ticket": 1, "done": {"Resized": {"min": 4294967295, "max": 0}}}}).encode(),
    json.dumps({"Done": {"ticket": 2 ** 64 - 1, "done": "Traced"}}).encode(),
    json.dumps({"More": {"ticket": 1, "slot": 4294967295, "text": "x" * 50000}}).encode(),
]
for fd in os.listdir("/proc/self/fd"):
    fd = int(fd)
    try:
        link = os.readlink("/proc/self/fd/%d" % fd)
        if link.startswith("socket:"):
            end = socket.socket(fileno=os.dup(fd))
            if end.type == socket.SOCK_SEQPACKET:
                for report in reports * 20:
                    try:
                        end.send(report, socket.MSG_DONTWAIT)
                    except OSError:
                        pass
            end.close()
        elif link.startswith("/memfd:"):
            size = os.fstat(fd).st_size
            memory = mmap.mmap(fd, size)
            for _ in range(2000):
                at = chance.randrange(size - 8)
                memory[at:at + 8] = chance.randbytes(8)
            try:
                os.ftruncate(fd, 0)
            except OSError:
                pass
    except OSError:
        pass
os.write(2, b"\x1e0 0 0 0 supervisor\x1fforged\n" * 100 + b"\xff" * 300000 + b"\n")
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"#;

#[test]
fn a_master_that_lies_harms_itself_alone() {
    if !ours() {
        return;
    }
    let hosted = Hosting::new("")
        .file("good.py", &super::module("good", ""))
        .file("liar.py", LIAR)
        .app("good", "target = 'good'\n")
        .app("liar", "target = 'liar'\non-demand = true\n")
        .expect_error("liar")
        .expect_error("generation")
        .expect_error("\u{fffd}")
        .expect_error("worker")
        .expect_error("Traceback")
        .start();
    hosted.get("good", "/").assert_text("good");
    let mut client = hosted.connect("liar");
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    wait_until("the lies", || {
        let why = hosted.ctl(&["--json", "app", "why", "liar"]).done().json();
        (why["apps"][0]["starts"].as_array().map(Vec::len) > Some(0)).then_some(())
    });
    // Whatever has become of it: everybody else is served, and everything can be asked.
    for _ in 0..20 {
        hosted.get("good", "/").assert_text("good");
        let mut control = Control::of(&hosted.server, "rswsgi");
        for verb in ["stats", "apps", "why", "config", "logs"] {
            control.done(json!({"do": verb}));
        }
        control.send("GET /metrics HTTP/1.0\r\n\r\n");
        assert!(control.rest().starts_with(b"HTTP/1.1 200"));
    }
    let said = hosted.ctl(&["app", "list"]).done();
    assert!(!said.out.contains('\u{1b}'), "{said:?}");
    assert_eq!(hosted.state("good"), "serving");
    drop(client);
    hosted.remove("liar");
    hosted.ctl(&["reload"]).done();
    wait_until("the end of the liar", || {
        (hosted.server.masters().len() == 1).then_some(())
    });
    let log = hosted.server.log.text();
    assert!(!log.contains("rswsgi: supervisor: error: forged"), "{log}");
}
