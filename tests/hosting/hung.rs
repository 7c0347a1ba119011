//! A file system that does not answer, such as that of a server of files that is gone: the app that has its
//! files there waits, and nobody else.

use super::isolation::{TRIES, ask, two_users};
use crate::support::{Client, Hosted, Hosting, skip, wait_until};
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Mounts a file system whose server never reads a request, for as long as the program lives that it
/// becomes (mount.fuse(8)).
const MOUNTS: &str = r#"
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
place, program, arguments = sys.argv[1], sys.argv[2], sys.argv[2:]
fuse = os.open("/dev/fuse", os.O_RDWR)
options = "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fuse
if libc.mount(b"hung", place.encode(), b"fuse", 6, options.encode()) == -1:
    sys.exit("cannot mount: " + os.strerror(ctypes.get_errno()))
if os.fork() == 0:
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    os.closerange(0, 3)
    while True:
        time.sleep(3600)
os.close(fuse)
os.execv(program, arguments)
"#;

const SOME: &str = "\
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '4')])
    return [b'some']
";

/// Apps of two users, and a directory that nobody can look into.
fn hung(host: &str) -> Option<(Hosting, PathBuf)> {
    let hosting = two_users(host, TRIES)?;
    if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
        assert_ne!(error.kind(), ErrorKind::AlreadyExists);
        skip(&format!("no file system of its own: /dev/fuse: {error}"));
        return None;
    }
    let place = hosting.dir().join("hung");
    fs::create_dir(&place).expect("a new directory");
    let bin = hosting.dir().join("bin");
    fs::write(bin.join("mounts.py"), MOUNTS).expect("a file");
    // In a namespace of the server's own: nobody else comes across it, and it ends with the server.
    let script = format!(
        "#!/bin/sh\nexec unshare --mount python3 {bin}/mounts.py {place} {bin}/rswsgi \"$@\"\n",
        bin = bin.display(),
        place = place.display(),
    );
    let wrapper = bin.join("where-it-hangs");
    fs::write(&wrapper, script).expect("a file");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let hosting = hosting.file("some.py", SOME);
    let hosting = hosting.change(|server| server.program(wrapper));
    Some((hosting, place))
}

fn knock(hosted: &Hosted, name: &str) -> Client {
    let mut client = hosted.connect(name);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    client
}

/// Everybody else is served, started and told about.
#[track_caller]
fn all_else_works(hosted: &Hosted, name: &str) {
    for app in ["one", "two"] {
        assert_eq!(ask(hosted, app, &json!({"hog": 1})), "allowed");
    }
    hosted.ctl(&["stats"]).done();
    hosted.write(
        name,
        "target = 'some'\nuser = '65533'\ngroup = '65533'\nchdir = '..'\non-demand = true\n",
    );
    // Apps that have failed are tried again, and fail again.
    let said = hosted.ctl(&["reload"]);
    assert!(matches!(said.status, Some(0 | 1)), "{said:?}");
    hosted.get(name, "/").assert_text("some");
    hosted.ctl(&["--app", name, "stop"]).done();
}

#[test]
fn a_file_system_that_does_not_answer_is_that_of_one_app() {
    for isolation in ["off", "webspace"] {
        let host = format!("isolation = '{isolation}'\nstart-timeout = '8s'\nmax-starting = 8\n");
        let Some((mut hosting, place)) = hung(&host) else {
            return;
        };
        let place = place.display();
        let apps = [
            ("directory", format!("chdir = '{place}/x'\n")),
            ("python", format!("python = '{place}/bin/python'\n")),
            ("restart", format!("restart-file = '{place}/restart'\n")),
            ("store", format!("temp-dir = '{place}/tmp'\n")),
            ("writes", format!("writable = '{place}/data'\n")),
        ];
        for (name, line) in &apps {
            let app = format!(
                "target = 'tries'\nuser = '65534'\ngroup = '65534'\non-demand = true\n{line}"
            );
            let chdir = if *name == "directory" {
                ""
            } else {
                "chdir = '../one'\n"
            };
            hosting = hosting.app(name, &(app + chdir));
        }
        let hosted = hosting
            .expect_error("generation")
            .expect_error("reload failed")
            .start();
        let mut clients = Vec::new();
        for (number, (name, _)) in apps.iter().enumerate() {
            // Without isolation nobody looks there.
            if *name == "writes" && isolation == "off" {
                continue;
            }
            clients.push(knock(&hosted, name));
            all_else_works(&hosted, &format!("new-{number}"));
        }
        for (name, _) in &apps {
            let why = hosted.ctl(&["--json", "app", "why", name]).done().json();
            assert_eq!(why["apps"].as_array().map(Vec::len), Some(1), "{why}");
        }
        // Its time limit holds all the same.
        wait_until("a client that is turned away", || {
            (hosted.state("directory") == "failing").then_some(())
        });
        assert_eq!(ask(&hosted, "two", &json!({"hog": 1})), "allowed");
        drop(clients);
    }
}

#[test]
fn a_log_on_a_file_system_that_does_not_answer_holds_up_nobody() {
    let Some((hosting, place)) = hung("") else {
        return;
    };
    let place = place.display();
    let text = format!(
        "target = 'tries'\nuser = '65534'\ngroup = '65534'\nchdir = '../one'\n\
         app-log = '{place}/log'\napp-access-log = '{place}/access'\n"
    );
    let hosted = hosting.app("logged", &text).start();
    for number in 0..3 {
        assert_eq!(ask(&hosted, "logged", &json!({"hog": 1})), "allowed");
        all_else_works(&hosted, &format!("new-{number}"));
    }
    // It reaches the end, too.
    hosted.server.finish();
}
