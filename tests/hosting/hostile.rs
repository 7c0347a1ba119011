//! One app does its worst while another one is asked all the time: whoever asks the other one is answered,
//! and so is whoever asks the supervisor.

use super::isolation::{TRIES, ask, two_users};
use crate::support::control::Control;
use crate::support::{Client, Hosted, Hosting, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// To the app that behaves.
const REQUESTS: usize = 200;

/// The app `one` has this module, `two` one that behaves.
fn beside(host: &str, module: &str) -> Option<Hosting> {
    let hosting = two_users(host, TRIES)?;
    fs::write(hosting.dir().join("one/tries.py"), module).expect("it is ours");
    Some(hosting)
}

/// What the client of the other app has meanwhile. How long it takes is told, not judged: machines differ.
#[track_caller]
fn two_serves(hosted: &Hosted, while_one: &str) {
    let mut times = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        let start = Instant::now();
        assert_eq!(ask(hosted, "two", &json!({"hog": 1})), "allowed");
        times.push(start.elapsed());
        if number % 20 == 0 {
            Control::of(&hosted.server, "rswsgi").done(json!({"do": "ping"}));
        }
    }
    times.sort_unstable();
    let at = |share: usize| times[(REQUESTS - 1) * share / 100];
    eprintln!(
        "{while_one}: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
    assert_eq!(hosted.state("two"), "serving");
}

/// A request to the app that misbehaves, whose answer nobody waits for.
fn provoke(hosted: &Hosted, query: &Value) -> Client {
    let mut client = hosted.connect("one");
    let body = query.to_string();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client
}

#[test]
fn a_fork_bomb_leaves_the_other_app_alone() {
    let module = format!(
        "{TRIES}\n\
         def bomb():\n    \
             while True:\n        \
                 try:\n            os.fork()\n        \
                 except OSError:\n            open('bounded', 'w').close()\n\
         plain = application\n\
         def application(environ, start_response):\n    \
             if environ['REQUEST_METHOD'] == 'POST':\n        bomb()\n    \
             return plain(environ, start_response)\n"
    );
    let Some(hosting) = beside(
        "rlimit = 'nproc=40'\nrequest-timeout = '5s'\nkill-timeout = '1s'\n",
        &module,
    ) else {
        return;
    };
    let hosted = hosting
        .expect_error("worker")
        .expect_error("master")
        .expect_error("Traceback")
        .expect_error("thread")
        .expect_error("BlockingIOError")
        .expect_error("RequestTimeout")
        .start();
    let client = provoke(&hosted, &json!({}));
    wait_until("its limit", || {
        hosted.dir().join("one/bounded").exists().then_some(())
    });
    two_serves(&hosted, "a fork bomb");
    drop(client);
    end_one(&hosted);
}

/// Ends what is left of it by force: its user's processes are its own.
fn end_one(hosted: &Hosted) {
    hosted.remove("one");
    hosted.ctl(&["reload"]).done();
    wait_until("the end of what one has started", || {
        let left = crate::support::process::marked("UNDER_TEST_DIR", hosted.dir());
        let own = |pid: &&crate::support::Pid| {
            let uid = pid.status("Uid").unwrap_or_default();
            uid.starts_with(&crate::privileges::NOBODY.to_string())
        };
        let left: Vec<_> = left.iter().filter(own).copied().collect();
        left.iter()
            .for_each(|pid| pid.signal(nix::sys::signal::Signal::SIGKILL));
        left.is_empty().then_some(())
    });
}

#[test]
fn a_memory_hog_leaves_the_other_app_alone() {
    let Some(hosting) = beside("rlimit = 'as=1g'\nworkers = 2\n", TRIES) else {
        return;
    };
    let hosted = hosting.start();
    let clients: Vec<_> = (0..4)
        .map(|_| provoke(&hosted, &json!({"hog": 4u64 << 30})))
        .collect();
    two_serves(&hosted, "a memory hog");
    for mut client in clients {
        let response = client.response();
        assert_eq!(response.json(), "MemoryError");
    }
}

#[test]
fn an_endless_import_leaves_the_other_app_alone() {
    let Some(hosting) = beside("start-timeout = '1s'\n", "while True:\n    pass\n") else {
        return;
    };
    let hosted = hosting
        .expect_error("generation")
        .expect_error("one")
        .start();
    hosted
        .server
        .log
        .wait_for("took longer than --start-timeout");
    two_serves(&hosted, "an endless import");
    // Now and then it is tried again.
    wait_until("its failure", || {
        let why = hosted.ctl(&["--json", "app", "why", "one"]).done().json();
        (why["apps"][0]["state"] == "failing").then_some(())
    });
}

#[test]
fn a_crash_loop_leaves_the_other_app_alone() {
    let module =
        format!("{TRIES}\nos.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), 11))\n");
    let Some(hosting) = beside("start-timeout = '2s'\n", &module) else {
        return;
    };
    let hosted = hosting
        .expect_error("worker")
        .expect_error("generation")
        .expect_error("Traceback")
        .expect_error("fault")
        .start();
    hosted.server.log.wait_for("SIGSEGV");
    two_serves(&hosted, "a crash loop");
    assert_ne!(hosted.state("one"), "serving");
}

#[test]
fn a_flood_of_output_leaves_the_other_app_alone() {
    let module = format!(
        "{TRIES}\nimport threading\n\
         plain = application\n\
         def application(environ, start_response):\n    \
             if environ['REQUEST_METHOD'] == 'POST':\n        \
                 while True:\n            os.write(1, b'x' * 4000 + b'\\n')\n    \
             return plain(environ, start_response)\n"
    );
    let host = "app-log = '{name}/log'\ngraceful-timeout = '1s'\n";
    let Some(hosting) = beside(host, &module) else {
        return;
    };
    let hosted = hosting
        .expect_error("one")
        .expect_error("generation")
        .start();
    let client = provoke(&hosted, &json!({}));
    wait_until("the flood", || {
        let log = fs::metadata(hosted.dir().join("one/log"));
        log.is_ok_and(|log| log.len() > 1 << 20).then_some(())
    });
    two_serves(&hosted, "a flood of output");
    drop(client);
}

#[test]
fn a_full_disk_leaves_the_other_app_alone() {
    let host = "app-log = '{name}/log'\napp-access-log = '{name}/access'\n";
    let loud = format!("{TRIES}\nos.write(1, b'y' * 200000 + b'\\n')\n");
    let Some(hosting) = beside(host, &loud) else {
        return;
    };
    // The directory of the one app is a file system of 64 KiB, in a namespace of the server's own.
    let (one, program) = (hosting.dir().join("one"), hosting.dir().join("bin/rswsgi"));
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'cp {one}/tries.py {dir}/tries.py && \
         mount -t tmpfs -o size=64k,mode=755,uid=65534,gid=65534 tmpfs {one} && cp {dir}/tries.py {one}/ && \
         exec {program} \"$@\"' sh \"$@\"\n",
        one = one.display(),
        dir = hosting.dir().display(),
        program = program.display(),
    );
    let wrapper = hosting.dir().join("bin/small");
    fs::write(&wrapper, script).expect("a file");
    executable(&wrapper);
    let hosted = hosting
        .change(|server| server.program(wrapper))
        .expect_error("one: cannot write its")
        .start();
    hosted
        .server
        .log
        .wait_for("one: cannot write its log: No space left on device");
    for _ in 0..20 {
        assert_eq!(ask(&hosted, "one", &json!({"hog": 1})), "allowed");
    }
    two_serves(&hosted, "a full disk");
    // What the other one logs is there.
    let text = fs::read_to_string(hosted.dir().join("two/access")).expect("it is there");
    assert!(text.lines().count() > 0);
}

fn executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, PermissionsExt::from_mode(0o755)).expect("it is ours");
}

/// Somebody who holds a lease on a file: whoever opens it waits until it is given up, or for
/// /proc/sys/fs/lease-break-time.
struct Lease(Child);

impl Lease {
    fn hold(file: &Path) -> Lease {
        let script = "import fcntl, signal, sys, time\n\
            signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
            file = open(sys.argv[1], 'r+b')\n\
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
            print('held', flush=True)\n\
            time.sleep(600)\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start python3");
        let mut said = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output)
            .read_line(&mut said)
            .expect("its word");
        assert_eq!(said, "held\n");
        Lease(child)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_interpreter_that_cannot_be_executed_yet_leaves_the_other_app_alone() {
    let Some(hosting) = two_users("start-timeout = '120s'\n", TRIES) else {
        return;
    };
    let python = hosting.dir().join("one/python");
    let real = crate::privileges::common_python().expect("there is one");
    fs::write(
        &python,
        format!("#!/bin/sh\nexec {} \"$@\"\n", real.display()),
    )
    .expect("a file");
    executable(&python);
    let app = "target = 'tries'\nuser = '65534'\ngroup = '65534'\npython = 'one/python'\non-demand = true\n";
    let app = app.replace("one/python", &python.display().to_string());
    let hosted = hosting.app("one", &app).start();
    let lease = Lease::hold(&python);
    let client = provoke(&hosted, &json!({"hog": 1}));
    let begun = Instant::now();
    wait_until("its start", || {
        (hosted.state("one") == "starting").then_some(())
    });
    two_serves(&hosted, "an interpreter that is held back");
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "before the kernel takes the lease away"
    );
    drop(lease);
    let mut client = client;
    client.response().assert_status(200);
}

#[test]
fn what_an_app_says_is_not_taken_for_what_the_server_says() {
    if !super::ours() {
        return;
    }
    let forged = "2026-01-01T00:00:00.000Z rswsgi: supervisor: error: forged";
    let module = format!(
        "import os\n\
         os.write(2, b'\\x1e1 0 0 7 master [liar gen 1]\\x1ftext\\x1d{forged}\\n')\n\
         print('{forged}', flush=True)\n\
         raise ValueError('no\\n{forged}\\x1b[2J')\n"
    );
    let hosted = Hosting::new("")
        .file("liar.py", &module)
        .app("liar", "target = 'liar'\n")
        .app(
            "bad",
            "target = 'x'\nchdir = \"/no\\n2026-01-01\\u001b[2J\"\n",
        )
        .expect_error("forged")
        .expect_error("did not come up")
        .expect_error("ValueError")
        .start();
    hosted.server.log.wait_for("liar: generation 1");
    hosted.server.log.wait_for("bad: generation 1");
    let log = hosted.server.log.text();
    assert_eq!(log.matches("forged").count(), 4, "{log}");
    assert!(!log.contains('\u{1b}'), "{log:?}");
    let starts = |line: &str| line.starts_with("2026-01-01");
    assert!(!log.lines().any(starts), "{log}");
    hosted.remove("liar");
    hosted.remove("bad");
}

#[test]
fn an_app_that_never_stops_talking_does_not_fill_the_log_of_the_server() {
    if !super::ours() {
        return;
    }
    let loud = super::module(
        "loud",
        "for _ in range(4000):\n    os.write(1, b'x' * 1000 + b'\\n')\nos.write(1, b'it is imported\\n')",
    );
    let loud = loud.replace(
        "    body = b'loud'",
        "    os.write(1, b'a word\\n')\n    body = b'loud'",
    );
    let hosted = Hosting::new("")
        .file("loud.py", &loud)
        .app("loud", "target = 'loud'\n")
        .start();
    hosted.get("loud", "/").assert_text("loud");
    wait_until("the number of lines that were not logged", || {
        hosted.get("loud", "/").assert_text("loud");
        let log = hosted.server.log.text();
        log.contains("entries of loud were not logged")
            .then_some(())
    });
    let log = hosted.server.log.text();
    assert!(log.len() < 2 << 20, "{} bytes", log.len());
    // Whoever asks for them gets the last ones all the same.
    let said = hosted.ctl(&["--app", "loud", "logs"]).done();
    assert!(said.out.contains("a word"), "{said:?}");
}
