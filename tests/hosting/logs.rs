//! Logs of an app that are its user's: written as this user, whatever is around the files.

use super::module;
use super::users::hosting;
use crate::privileges::NOBODY;
use crate::support::{Hosting, wait_until};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

/// An app of nobody whose logs are in a directory of nobody; that of the app `other` are in one of root.
fn logged() -> Option<(Hosting, PathBuf)> {
    let hosting =
        hosting("app-log = 'logs/{name}/error.log'\napp-access-log = 'logs/{name}/access.log'\n")?;
    let logs = hosting.dir().join("logs");
    for directory in [logs.clone(), logs.join("mine"), logs.join("other")] {
        fs::create_dir(&directory).expect("a new directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    chown(logs.join("mine"), Some(NOBODY), Some(NOBODY)).expect("as root");
    let loud = module("loud", "print('quite loud', flush=True)");
    let hosting = hosting
        .file("loud.py", &loud)
        .app("mine", &format!("target = 'loud'\nuser = '{NOBODY}'\n"))
        .app("other", "target = 'some'\nuser = '1'\n");
    Some((hosting, logs))
}

#[track_caller]
fn wait_for(file: &Path, text: &str) {
    wait_until(&format!("{text:?} in {}", file.display()), || {
        let found = fs::read_to_string(file).unwrap_or_default();
        found.contains(text).then_some(())
    });
}

#[test]
fn each_app_has_logs_of_its_own_that_belong_to_its_user() {
    let Some((hosting, logs)) = logged() else {
        return;
    };
    let hosted = hosting.start();
    hosted.get("mine", "/one").assert_text("loud");
    hosted.get("other", "/two").assert_text("some");
    wait_for(&logs.join("mine/error.log"), "quite loud");
    wait_for(&logs.join("mine/access.log"), "/one");
    wait_for(&logs.join("other/access.log"), "/two");
    for (file, owner) in [
        ("mine/error.log", NOBODY),
        ("mine/access.log", NOBODY),
        ("other/access.log", 1),
    ] {
        let file = fs::metadata(logs.join(file)).expect("it is there");
        assert_eq!((file.uid(), file.mode() & 0o777), (owner, 0o640));
    }
    let text = fs::read_to_string(logs.join("mine/access.log")).expect("it is there");
    assert!(!text.contains("/two"), "{text}");
    // What an app says is its own, not the server's.
    assert!(!hosted.server.log.text().contains("quite loud"));
    let said = hosted.ctl(&["--app", "mine", "logs"]).done();
    assert!(said.out.contains("quite loud"), "{said:?}");
    assert!(
        !hosted
            .ctl(&["--app", "other", "logs"])
            .done()
            .out
            .contains("quite loud")
    );
}

#[test]
fn a_log_that_its_user_moves_away_is_made_anew_without_being_asked_for() {
    let Some((hosting, logs)) = logged() else {
        return;
    };
    let hosted = hosting.start();
    let (log, old) = (logs.join("mine/access.log"), logs.join("mine/access.log.1"));
    hosted.get("mine", "/one").assert_status(200);
    wait_for(&log, "/one");
    fs::rename(&log, &old).expect("move the log away");
    hosted.get("mine", "/two").assert_status(200);
    wait_for(&log, "/two");
    assert_eq!(fs::metadata(&log).expect("it is there").uid(), NOBODY);
    assert!(
        !fs::read_to_string(&old)
            .expect("the old file")
            .contains("/two")
    );
}

#[test]
fn a_failed_start_is_told_in_the_log_of_the_app_too() {
    let Some((hosting, logs)) = logged() else {
        return;
    };
    let hosting = hosting.file("loud.py", "import no_such_module\n");
    let hosted = hosting
        .expect_error("did not come up")
        .expect_error("no_such_module")
        .start();
    wait_for(
        &logs.join("mine/error.log"),
        "No module named 'no_such_module'",
    );
    hosted.get("other", "/").assert_text("some");
}

#[test]
fn what_the_user_puts_in_the_place_of_a_log_leads_nowhere() {
    let Some((hosting, logs)) = logged() else {
        return;
    };
    let target = hosting.dir().join("target");
    fs::create_dir(&target).expect("a new directory");
    for file in ["error.log", "access.log"] {
        fs::write(target.join(file), "kept\n").expect("a file");
    }
    // A file of root by a link, and by another name.
    symlink(target.join("error.log"), logs.join("mine/error.log")).expect("a new link");
    fs::hard_link(target.join("access.log"), logs.join("mine/access.log")).expect("a new link");
    lchown(logs.join("mine/error.log"), Some(NOBODY), Some(NOBODY)).expect("as root");
    let hosted = hosting.expect_error("mine: cannot write its").start();
    hosted.get("mine", "/one").assert_text("loud");
    hosted.server.log.wait_for("mine: cannot write its log: ");
    hosted
        .server
        .log
        .wait_for("is a symbolic link of user 65534, not of root");
    hosted
        .server
        .log
        .wait_for("mine: cannot write its access log: ");
    // A whole directory.
    fs::rename(logs.join("mine"), logs.join("gone")).expect("move it away");
    symlink(&target, logs.join("mine")).expect("a new link");
    lchown(logs.join("mine"), Some(NOBODY), Some(NOBODY)).expect("as root");
    hosted.get("mine", "/two").assert_text("loud");
    hosted.get("other", "/three").assert_text("some");
    wait_for(&logs.join("other/access.log"), "/three");
    for file in ["error.log", "access.log"] {
        let text = fs::read_to_string(target.join(file)).expect("it is there");
        assert_eq!(text, "kept\n");
    }
    // When the way is free, it works again.
    fs::remove_file(logs.join("mine")).expect("a link");
    fs::create_dir(logs.join("mine")).expect("a new directory");
    chown(logs.join("mine"), Some(NOBODY), Some(NOBODY)).expect("as root");
    wait_until("the log to work again", || {
        hosted.get("mine", "/four").assert_text("loud");
        let text = fs::read_to_string(logs.join("mine/access.log")).unwrap_or_default();
        text.contains("/four").then_some(())
    });
}

#[test]
fn the_logs_of_an_app_are_for_servers_with_many() {
    if !super::ours() {
        return;
    }
    let finished = crate::support::Server::new()
        .app("logged")
        .arg("--app-log", "x")
        .run();
    finished.assert_says("--app-log: is for apps of --apps-dir; a server with one app has --log");
    finished.assert_status(64);
}
