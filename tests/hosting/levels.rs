//! How much is logged of each app: by its processes, and by the supervisor about it.

use super::users::{ctl_as, hosting as of_users, put};
use super::{module, ours};
use crate::privileges::NOBODY;
use crate::support::{Hosted, Hosting, wait_until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

/// What a master says of each worker at the level `debug`.
const DEBUG: &str = "debug: worker ";

/// A worker that is ready again, so that its master has something to say.
fn recycle(hosted: &Hosted, name: &str) {
    let pid = hosted.get(name, "/pid").text();
    hosted.ctl(&["--app", name, "recycle"]).done();
    wait_until("another worker", || {
        (hosted.get(name, "/pid").text() != pid).then_some(())
    });
}

fn says(hosted: &Hosted, name: &str) -> usize {
    let log = hosted.server.log.text();
    let own = |line: &&str| line.contains(&format!("[{name} gen ")) && line.contains(DEBUG);
    log.lines().filter(own).count()
}

#[track_caller]
fn level(hosted: &Hosted, name: &str, new: &[&str]) -> String {
    let words = [&["--app", name, "log-level"], new].concat();
    hosted.ctl(&words).done().out.trim().to_owned()
}

fn some() -> Hosting {
    let hosting = Hosting::new("").file("some.py", &module("some", ""));
    hosting
        .app("loud", "target = 'some'\nlog-level = 'debug'\n")
        .app("quiet", "target = 'some'\nlog-level = 'error'\n")
        .app("usual", "target = 'some'\n")
}

#[test]
fn the_level_in_the_file_of_an_app_holds_for_that_app_alone() {
    if !ours() {
        return;
    }
    let hosted = some().start();
    wait_until("what its master says", || {
        (says(&hosted, "loud") == 1).then_some(())
    });
    for name in ["quiet", "usual"] {
        recycle(&hosted, name);
        assert_eq!(says(&hosted, name), 0, "{name}");
    }
    let log = hosted.server.log.text();
    assert!(log.contains("info: usual: serving some on"), "{log}");
    // What the supervisor has to say about it, too.
    assert!(!log.contains("info: quiet: "), "{log}");
    assert!(!log.contains("master [quiet gen 1]: info"), "{log}");
    assert_eq!(level(&hosted, "loud", &[]), "debug");
    assert_eq!(level(&hosted, "quiet", &[]), "error");
    assert_eq!(level(&hosted, "usual", &[]), "info");
    // A change of it replaces no process.
    let pid = hosted.get("quiet", "/master").text();
    hosted.write("quiet", "target = 'some'\nlog-level = 'debug'\n");
    hosted
        .ctl(&["reload"])
        .done()
        .shows(&["nothing has changed"]);
    assert_eq!(level(&hosted, "quiet", &[]), "debug");
    recycle(&hosted, "quiet");
    wait_until("what its master says", || {
        (says(&hosted, "quiet") == 1).then_some(())
    });
    assert_eq!(hosted.get("quiet", "/master").text(), pid);
    let app = hosted.app("quiet");
    assert_eq!(app["generation"], 1);
}

#[test]
fn the_level_of_one_app_is_changed_while_it_runs() {
    if !ours() {
        return;
    }
    let hosted = some().app("other", "target = 'some'\n").start();
    assert_eq!(level(&hosted, "usual", &["debug"]), "debug");
    for name in ["usual", "other"] {
        recycle(&hosted, name);
    }
    wait_until("what its master says", || {
        (says(&hosted, "usual") == 1).then_some(())
    });
    assert_eq!(says(&hosted, "other"), 0);
    // That of the server is another one, and holds for whoever has none of its own.
    assert_eq!(hosted.ctl(&["log-level"]).done().out, "info\n");
    assert_eq!(hosted.ctl(&["log-level", "error"]).done().out, "error\n");
    assert_eq!(level(&hosted, "other", &[]), "error");
    assert_eq!(level(&hosted, "usual", &[]), "debug");
    // So it is for the next generation, and for what the supervisor says about it.
    hosted.ctl(&["--app", "usual", "reload"]).done();
    hosted.ctl(&["--app", "other", "reload"]).done();
    hosted
        .server
        .log
        .wait_for("usual: reloaded: serving some on");
    wait_until("what its next master says", || {
        (says(&hosted, "usual") == 2).then_some(())
    });
    let log = hosted.server.log.text();
    assert!(!log.contains("other: reloaded: "), "{log}");
    hosted
        .ctl(&["--app", "usual", "log-level", "loud"])
        .ended(1)
        .complains(&["a level is error, warning, info or debug"]);
    hosted.ctl(&["log-level", "info"]).done();
}

#[test]
fn a_user_decides_about_the_own_app_but_does_not_fill_the_log_of_the_server() {
    let Some(hosting) = of_users("control-users = true\n") else {
        return;
    };
    let own = hosting.dir().join("own-log");
    fs::create_dir(&own).expect("a new directory");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).expect("it is ours");
    chown(&own, Some(NOBODY), Some(NOBODY)).expect("as root");
    let app = format!("target = 'some'\nuser = '{NOBODY}'\n");
    let log = own.join("log");
    let hosted = hosting
        .app("mine", &app)
        .app("logged", &format!("{app}app-log = {log:?}\n"))
        .app("theirs", "target = 'some'\nuser = '1'\n")
        .start();
    let set = |app: &str, level: &str| ctl_as(&hosted, NOBODY, &["--app", app, "log-level", level]);
    let (status, said) = set("mine", "debug");
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("app-log"), "{said}");
    assert_eq!(set("mine", "error"), (Some(0), "error\n".into()));
    assert_eq!(set("mine", "info"), (Some(0), "info\n".into()));
    // In a log of the user's own it is the user's affair.
    assert_eq!(set("logged", "debug"), (Some(0), "debug\n".into()));
    recycle(&hosted, "logged");
    wait_until("what its master says", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains(DEBUG).then_some(())
    });
    assert_eq!(says(&hosted, "logged"), 0);
    // Nothing of others, nothing of the whole.
    let (status, _) = set("theirs", "error");
    assert_eq!(status, Some(1));
    for words in [&["log-level"][..], &["log-level", "error"]] {
        let (status, said) = ctl_as(&hosted, NOBODY, words);
        assert_eq!(status, Some(5), "{said}");
    }
    assert_eq!(level(&hosted, "theirs", &[]), "info");
    // What the supervisor has to say stays in the log of the server.
    assert_eq!(set("mine", "error"), (Some(0), "error\n".into()));
    hosted.ctl(&["--app", "mine", "reload"]).done();
    hosted
        .server
        .log
        .wait_for("mine: reloaded: serving some on");
}

#[test]
fn the_file_of_a_user_asks_for_no_more_than_the_server_logs() {
    let host = "user-apps-dir = 'users'\nuser-listen-dir = 'sockets'\n";
    let Some(hosting) = of_users(host) else {
        return;
    };
    let users = hosting.dir().join("users");
    fs::create_dir(&users).expect("a new directory");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o1777)).expect("it is ours");
    put(
        users.join("nobody.toml"),
        NOBODY,
        "target = 'some'\nlog-level = 'debug'\n",
    );
    let hosted = hosting.start();
    recycle(&hosted, "nobody");
    assert_eq!(says(&hosted, "nobody"), 0);
    assert_eq!(level(&hosted, "nobody", &[]), "info");
    // Once the server logs as much, it does.
    hosted.ctl(&["log-level", "debug"]).done();
    recycle(&hosted, "nobody");
    wait_until("what its master says", || {
        (says(&hosted, "nobody") == 1).then_some(())
    });
}
