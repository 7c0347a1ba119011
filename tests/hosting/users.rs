//! What the users of apps may do themselves: files in a directory for them, and the control socket.

use super::{module, ours};
use crate::privileges::{NOBODY, common_python};
use crate::support::{
    BUILT, Hosted, Hosting, Pid, Server, copy_program, module as extension, skip, wait_until,
};
use nix::unistd::Uid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

/// `daemon`, who is in every user database.
const OTHER: u32 = 1;

/// `None` where other users cannot be played.
pub fn hosting(host: &str) -> Option<Hosting> {
    if !ours() {
        return None;
    }
    let python = common_python().filter(|_| Uid::effective().is_root());
    let Some(python) = python else {
        skip("playing another user takes root and a Python that another user can execute");
        return None;
    };
    let host = format!("python = {python:?}\n{host}");
    let hosting = Hosting::on(Server::new(), &host).file("some.py", &module("some", ""));
    let bin = hosting.dir().join("bin");
    fs::create_dir(&bin).expect("a new directory");
    copy_program(BUILT, bin.join("rswsgi"));
    fs::copy(extension(), bin.join("librswsgi.so")).expect("a copy of the module");
    let control = env!("CARGO_BIN_EXE_rswsgictl");
    copy_program(control, bin.join("rswsgictl"));
    Some(hosting.change(|server| server.program(bin.join("rswsgi"))))
}

/// `rswsgictl` of another user: exit status and what it printed.
#[track_caller]
pub fn ctl_as(hosted: &Hosted, user: u32, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("setpriv")
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .arg("--clear-groups")
        .arg(hosted.dir().join("bin/rswsgictl"))
        .arg("--control")
        .arg(hosted.dir().join("run/rswsgi.control"))
        .args(words)
        .output()
        .expect("run setpriv");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn the_user_of_an_app_may_steer_it_and_nothing_of_others() {
    let Some(hosting) = hosting("control-users = true\n") else {
        return;
    };
    let hosted = hosting
        .file(
            "loud.py",
            &module("loud", "print('quite loud', flush=True)"),
        )
        .app("mine", &format!("target = 'loud'\nuser = '{NOBODY}'\n"))
        .app("theirs", &format!("target = 'some'\nuser = '{OTHER}'\n"))
        .start();
    let mine = |words: &[&str]| ctl_as(&hosted, NOBODY, words);
    let (status, list) = mine(&["app", "list"]);
    assert_eq!(status, Some(0), "{list}");
    assert!(list.contains("mine") && !list.contains("theirs"), "{list}");
    for words in [
        &["stats"][..],
        &["workers"],
        &["config"],
        &["app", "why"],
        &["ping"],
        &["trace"],
    ] {
        let (status, said) = mine(words);
        assert_eq!(status, Some(0), "{words:?}: {said}");
        assert!(!said.contains("theirs"), "{words:?}: {said}");
    }
    let (status, said) = mine(&["--app", "mine", "logs"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("quite loud"), "{said}");
    let (status, said) = mine(&["--app", "mine", "reload"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("mine: generation 2 serves"), "{said}");
    // Nothing of others, nothing of the whole, nothing that is for administrators.
    for words in [
        &["--app", "theirs", "stop"][..],
        &["--app", "theirs", "reload"],
        &["--app", "theirs", "trace"],
        &["--app", "theirs", "logs"],
        &["app", "why", "theirs"],
        &["stop"],
        &["reload"],
        &["reopen"],
        &["log-level", "debug"],
        &["--app", "mine", "scale", "9"],
    ] {
        let (status, said) = mine(words);
        assert!(
            matches!(status, Some(1 | 5)),
            "{words:?}: {status:?} {said}"
        );
    }
    assert_eq!(hosted.state("theirs"), "serving");
    let (status, said) = mine(&["--app", "mine", "stop"]);
    assert_eq!(status, Some(0), "{said}");
    wait_until("its end", || {
        (hosted.state("mine") == "stopped").then_some(())
    });
    hosted.get("theirs", "/").assert_text("some");
    // Who has no app learns that there is none.
    let (status, said) = ctl_as(&hosted, 4_000_000, &["app", "list"]);
    assert_eq!((status, said.as_str()), (Some(0), "no apps\n"));
}

#[test]
fn without_being_asked_for_users_may_not_even_connect() {
    let Some(hosting) = hosting("") else {
        return;
    };
    let hosted = hosting
        .app("mine", &format!("target = 'some'\nuser = '{NOBODY}'\n"))
        .start();
    let (status, said) = ctl_as(&hosted, NOBODY, &["app", "list"]);
    assert_eq!(status, Some(5), "{said}");
}

/// Puts a file of this user into the directory for them.
pub fn put(place: PathBuf, user: u32, text: &str) {
    fs::write(&place, text).expect("a file");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o644)).expect("it is ours");
    chown(&place, Some(user), Some(user)).expect("as root");
}

#[test]
fn a_file_of_a_user_is_an_app_of_that_user_under_strict_rules() {
    let host = "on-demand = true\nuser-apps-dir = 'users'\nuser-listen-dir = 'sockets'\n";
    let Some(hosting) = hosting(host) else {
        return;
    };
    let users = hosting.dir().join("users");
    fs::create_dir(&users).expect("a new directory");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o1777)).expect("it is ours");
    let name = |name: &str| users.join(format!("{name}.toml"));
    put(name("nobody"), NOBODY, "target = 'some'\n");
    put(
        name("nobody.two"),
        NOBODY,
        &format!(
            "target = 'some'\nbind = 'unix:{}/sockets/nobody.two.sock'\n",
            hosting.dir().display()
        ),
    );
    for (file, line) in [
        ("nobody.user", "user = 'root'"),
        ("nobody.rlimit", "rlimit = 'nofile=infinity'"),
        ("nobody.demand", "on-demand = false"),
        ("nobody.isolation", "isolation = 'off'"),
        ("nobody.place", "bind = 'unix:/tmp/nobody.place.sock'"),
        ("nobody.port", "bind = ':0'"),
        ("nobody.many", "workers = 100"),
        ("nobody.log", "log = '/etc/passwd'"),
        ("nobody.reload", "reload = true"),
        ("nobody.start", "start-timeout = '1h'"),
        ("nobody.grace", "graceful-timeout = '1h'"),
    ] {
        put(name(file), NOBODY, &format!("target = 'some'\n{line}\n"));
    }
    put(name("daemon"), NOBODY, "target = 'some'\n");
    put(name("root"), 0, "target = 'some'\n");
    symlink(hosting.dir().join("host.toml"), name("nobody.link")).expect("a link");
    let hosted = hosting.expect_error("is disabled").start();
    hosted.get("nobody", "/").assert_text("some");
    hosted.get("nobody.two", "/").assert_text("some");
    let owners = hosted.server.masters();
    let owners = owners
        .iter()
        .map(|master| master.status("Uid").expect("alive"));
    for owner in owners {
        assert!(owner.starts_with("65534\t65534"), "{owner}");
    }
    for (file, reason) in [
        ("nobody.user", "user is for the administrator"),
        ("nobody.rlimit", "rlimit is for the administrator"),
        ("nobody.demand", "on-demand is for the administrator"),
        ("nobody.isolation", "isolation is for the administrator"),
        ("nobody.place", "may listen only at unix:"),
        ("nobody.port", "may listen only at unix:"),
        ("nobody.many", "workers: at most 1"),
        ("nobody.log", "log is a setting of the server as a whole"),
        ("nobody.reload", "reload is for the administrator"),
        ("nobody.start", "start-timeout: at most "),
        ("nobody.grace", "graceful-timeout: at most "),
        ("\"daemon.toml\"", "it belongs to nobody"),
        ("root", "it belongs to root"),
        ("nobody.link", "it is a link"),
    ] {
        let app = hosted.app(file);
        assert_eq!(app["state"], "disabled", "{app}");
        let said = app["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{said}");
    }
    // What users do wrong is no failure of the administrator's reload.
    hosted
        .ctl(&["reload"])
        .done()
        .shows(&["nothing has changed"]);
}

#[test]
fn passenger_wsgi_is_served_and_a_touch_of_restart_txt_reloads_it() {
    if !ours() {
        return;
    }
    let hosted = Hosting::new("passenger = true\n")
        .file("passenger_wsgi.py", &module("one", ""))
        .app("shop", "chdir = '..'\n")
        .start();
    hosted.get("shop", "/").assert_text("one");
    hosted.server.write("passenger_wsgi.py", &module("two", ""));
    fs::create_dir(hosted.dir().join("tmp")).expect("a new directory");
    fs::write(hosted.dir().join("tmp/restart.txt"), "").expect("a file");
    wait_until("the new code", || {
        (hosted.get("shop", "/").text() == "two").then_some(())
    });
    hosted.server.log.wait_for("tmp/restart.txt was touched");
    let why = hosted.ctl(&["--json", "app", "why", "shop"]).done().json();
    let cause: &Value = &why["apps"][0]["starts"][0]["cause"];
    assert_eq!(cause, &json!("reload"));
}

/// Sockets and memory that a process has.
fn shared(master: Pid) -> BTreeSet<String> {
    let links = fs::read_dir(format!("/proc/{}/fd", master.number)).expect("alive");
    let links = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    let links = links.map(|link| link.display().to_string());
    let mut links: BTreeSet<String> = links.filter(|link| link.starts_with("socket:")).collect();
    // Memory has no number in its name.
    let maps = fs::read_to_string(format!("/proc/{}/maps", master.number)).expect("alive");
    links.extend(
        maps.lines()
            .filter(|line| line.contains("/memfd:"))
            .map(|line| {
                let mut words = line.split_whitespace().skip(4);
                format!("memory {}", words.next().unwrap_or_default())
            }),
    );
    links
}

#[test]
fn an_app_that_is_given_to_another_user_shares_nothing_with_what_it_was() {
    let Some(hosting) = hosting("") else {
        return;
    };
    let app = |user: u32| format!("target = 'some'\nuser = '{user}'\n");
    let hosted = hosting.app("shop", &app(NOBODY)).start();
    hosted.get("shop", "/").assert_text("some");
    let first = shared(hosted.server.masters()[0]);
    let next = |what: &str| {
        let old = hosted.server.masters();
        hosted.ctl(&["--app", "shop", "reload"]).done();
        wait_until(what, || {
            let new = hosted.server.masters();
            let is_new = new.len() == 1 && new[0].number != old[0].number;
            is_new.then_some(())
        });
        hosted.get("shop", "/").assert_text("some");
        shared(hosted.server.masters()[0])
    };
    // Listener and relay of the same user stay.
    let second = next("the next generation");
    assert!(
        first.intersection(&second).count() >= 3,
        "{first:?} {second:?}"
    );
    hosted.write("shop", &app(OTHER));
    let third = next("the app of the other user");
    let both: Vec<_> = second.intersection(&third).collect();
    assert!(both.is_empty(), "{both:?} of {second:?}");
    let uid = hosted.server.masters()[0].status("Uid").expect("alive");
    assert!(uid.starts_with(&format!("{OTHER}\t")), "{uid}");
}
