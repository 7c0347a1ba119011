//! What users of apps can do at the cost of others without breaking out: names, numbers and noise.

use super::isolation::two_users;
use super::module;
use super::users::{hosting as of_users, put};
use crate::privileges::NOBODY;
use crate::support::{Hosted, Hosting, Pid, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// `daemon`, who is in every user database.
const OTHER: u32 = 1;

/// With a directory for the files of users.
fn shared(host: &str) -> Option<(Hosting, PathBuf)> {
    let host = format!(
        "on-demand = true\ncontrol-users = true\nuser-apps-dir = 'users'\n\
         user-listen-dir = 'sockets'\n{host}"
    );
    let hosting = of_users(&host)?;
    let users = hosting.dir().join("users");
    fs::create_dir(&users).expect("a new directory");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o1777)).expect("it is ours");
    Some((hosting, users))
}

#[test]
fn a_file_under_the_name_of_another_takes_nothing_from_that_one() {
    let Some((hosting, users)) = shared("") else {
        return;
    };
    let forged = "2026-01-01T00:00:00.000Z rswsgi: supervisor: error: forged";
    // Its name comes before that of the rightful one.
    put(users.join("daemon.toml"), NOBODY, "target = 'some'\n");
    put(
        users.join(format!("nobody.x\n{forged}.toml")),
        NOBODY,
        "target = 'some'\n",
    );
    put(users.join("daemon.yaml"), OTHER, "target: some\n");
    put(users.join("shop.toml"), NOBODY, "target = 'some'\n");
    let hosted = hosting
        .app("shop", "target = 'some'\n")
        .expect_error("is disabled")
        .start();
    hosted.get("daemon", "/").assert_text("some");
    hosted.get("shop", "/").assert_text("some");
    hosted.ctl(&["reload"]).done();
    for name in ["daemon", "shop"] {
        let app = hosted.app(name);
        assert_eq!(app["state"], "serving", "{app}");
        assert_eq!(app["reason"], json!(null), "{app}");
    }
    let squatter = hosted.app("\"daemon.toml\"");
    assert_eq!(squatter["state"], "disabled");
    let log = hosted.server.log.text();
    assert!(!log.lines().any(|line| line.starts_with(forged)), "{log}");
}

#[test]
fn a_user_has_no_more_apps_than_the_host_gives() {
    let Some((hosting, users)) = shared("") else {
        return;
    };
    for number in 10..60 {
        let name = format!("nobody.{number}.toml");
        put(users.join(name), NOBODY, "target = 'some'\n");
    }
    put(users.join("nobody.toml"), NOBODY, "target = 'some'\n");
    put(users.join("daemon.toml"), OTHER, "target = 'some'\n");
    let hosted = hosting.expect_error("which is the most").start();
    let list = hosted.ctl(&["--json", "app", "list"]).done().json();
    let apps = list["apps"].as_array().expect("a list").iter();
    let own = apps.filter(|app| app["app"].as_str().is_some_and(|n| n.starts_with("nobody")));
    let (rest, disabled): (Vec<_>, Vec<_>) = own.partition(|app| app["state"] == "at rest");
    assert_eq!((rest.len(), disabled.len()), (32, 1), "{disabled:?}");
    hosted.get("nobody", "/").assert_text("some");
    hosted.get("daemon", "/").assert_text("some");
}

/// Asks on one connection as `NOBODY`: how many were done, and how many came too fast.
fn ask_on_and_on(hosted: &Hosted, request: &str, times: u32) -> (usize, usize) {
    let script = "
import os, socket, sys
place, user, request, times = sys.argv[1:]
os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
client = socket.socket(socket.AF_UNIX)
client.connect(place)
stream = client.makefile('rwb')
for _ in range(int(times)):
    stream.write(request.encode() + b'\\n'); stream.flush()
    sys.stdout.write(stream.readline().decode())
";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(hosted.dir().join("run/rswsgi.control"))
        .args([&NOBODY.to_string(), request, &times.to_string()])
        .output()
        .expect("run a Python");
    let said = String::from_utf8_lossy(&output.stdout);
    let of = |piece: &str| said.lines().filter(|line| line.contains(piece)).count();
    let counts = (of("\"ok\":true"), of("\"kind\":\"busy\""));
    let all = usize::try_from(times).expect("a small number");
    assert_eq!(counts.0 + counts.1, all, "{output:?}");
    counts
}

#[test]
fn a_user_who_asks_on_and_on_does_not_fill_the_log_of_the_server() {
    let Some((hosting, users)) = shared("") else {
        return;
    };
    put(users.join("nobody.toml"), NOBODY, "target = 'some'\n");
    let hosted = hosting.start();
    let set = r#"{"v":1,"do":"log-level","app":"nobody","level":"error"}"#;
    let (done, refused) = ask_on_and_on(&hosted, set, 1000);
    assert!(refused > 0, "{done} were done");
    let told = || {
        let log = hosted.server.log.text();
        log.matches("log-level was asked for").count()
    };
    wait_until("a line for each that was done", || {
        (told() >= done).then_some(())
    });
    assert_eq!(told(), done);
    // To look is free, and what an administrator asks for is not counted.
    let look = r#"{"v":1,"do":"log-level","app":"nobody"}"#;
    assert_eq!(ask_on_and_on(&hosted, look, 100), (100, 0));
    for _ in 0..10 {
        hosted.ctl(&["--app", "nobody", "log-level", "info"]).done();
    }
}

#[test]
fn a_master_that_is_ready_again_and_again_is_told_of_once() {
    let module = format!(
        "{}
import json, socket
report = json.dumps({{'Ready': {{'python': '3', 'import_millis': 1}}}}).encode()
for fd in os.listdir('/proc/self/fd'):
    try:
        if os.readlink('/proc/self/fd/' + fd).startswith('socket:'):
            end = socket.socket(fileno=os.dup(int(fd)))
            if end.type == socket.SOCK_SEQPACKET:
                for _ in range(50):
                    end.send(report, socket.MSG_DONTWAIT)
            end.close()
    except OSError:
        pass
",
        super::isolation::TRIES
    );
    let Some(hosting) = two_users("isolation = 'webspace'\nmemory-max = '512m'\n", &module) else {
        return;
    };
    let hosted = hosting.expect_error("one").expect_error("two").start();
    super::isolation::ask(&hosted, "one", &json!({"hog": 1}));
    let log = hosted.server.log.text();
    let told = log.matches("one: --isolation goes without").count();
    let app = hosted.app("one");
    let starts = app["generation"].as_u64().expect("a number");
    assert!(told as u64 <= starts, "{told} of {starts}: {log}");
    // What is lacking is known after an upgrade, too.
    hosted.server.signal(Signal::SIGUSR2);
    hosted.server.log.wait_for("upgraded from ");
    assert_eq!(hosted.app("one")["lacks"], app["lacks"]);
}

#[test]
fn what_the_starter_of_the_server_has_left_is_not_of_an_app() {
    let Some(hosting) = of_users("") else {
        return;
    };
    let dir = hosting.dir().to_owned();
    let script = dir.join("start");
    // A daemon that comes to the server, because what has started it is gone.
    let text = format!(
        "#!/bin/sh\n\
         cd {dir:?}\n\
         (while [ ! -e go ]; do sleep 0.05; done\n \
          setsid sh -c 'echo $$ > new; mv new daemon-of-starter; exec sleep 600' &) \
          < /dev/null > /dev/null 2>&1 &\n\
         exec {:?} \"$@\"\n",
        dir.join("bin/rswsgi")
    );
    fs::write(&script, text).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let app = "
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
";
    let hosted = hosting
        .file("shop.py", &module("shop", app))
        .app("shop", &format!("target = 'shop'\nuser = '{NOBODY}'\n"))
        .change(|server| server.program(script))
        .start();
    fs::write(dir.join("go"), "").expect("a file");
    let number = wait_until("the daemon", || {
        fs::read_to_string(dir.join("daemon-of-starter")).ok()
    });
    let daemon = Pid::of(number.trim().parse().expect("a number")).expect("alive");
    let supervisor = hosted.server.supervisor();
    wait_until("its new parent", || {
        supervisor.children().contains(&daemon).then_some(())
    });
    let left = hosted.server.masters()[0].children();
    hosted.ctl(&["--app", "shop", "stop"]).done();
    // What the app has left ends.
    left.into_iter().for_each(Pid::wait_gone);
    hosted.server.signal(Signal::SIGUSR2);
    hosted.server.log.wait_for("upgraded from ");
    hosted.ctl(&["--app", "shop", "reload"]).done();
    hosted.ctl(&["--app", "shop", "stop"]).done();
    assert!(daemon.is_alive(), "it is not of an app");
    daemon.signal(Signal::SIGKILL);
    daemon.wait_gone();
}

#[test]
fn a_file_that_is_nested_without_end_disables_its_app_alone() {
    let Some((hosting, users)) = shared("") else {
        return;
    };
    put(users.join("daemon.toml"), OTHER, "target = 'some'\n");
    let hosted = hosting.expect_error("is disabled").start();
    let deep = 30_000;
    for (name, text) in [
        ("nobody.a.yaml", format!("x:\n{}\n", "- ".repeat(deep))),
        ("nobody.b.yaml", format!("x: {}\n", "[".repeat(deep))),
        ("nobody.c.toml", format!("x = {}\n", "[".repeat(deep))),
        ("nobody.d.toml", format!("a{} = 1\n", ".a".repeat(deep))),
    ] {
        put(users.join(name), NOBODY, &text);
    }
    hosted.ctl(&["reload"]).done();
    for name in ["nobody.a", "nobody.b", "nobody.c", "nobody.d"] {
        assert_eq!(hosted.state(name), "disabled");
    }
    hosted.get("daemon", "/").assert_text("some");
}
