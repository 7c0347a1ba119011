//! As root: the application may own the directory of the logs, and leads root nowhere by what it puts there.

use super::ours;
use crate::support::{Server, skip, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::PathBuf;

/// `nobody`, by convention.
const NOBODY: u32 = 65_534;

/// A server with a directory `logs` that belongs to nobody, and the path of a log in it.
fn server() -> Option<(Server, PathBuf)> {
    if !ours() {
        return None;
    }
    if !Uid::effective().is_root() {
        skip("only root has files that others must not lead it to");
        return None;
    }
    let server = Server::new().app("logged");
    let logs = server.dir().join("logs");
    fs::create_dir(&logs).expect("a new directory");
    chown(&logs, Some(NOBODY), Some(NOBODY)).expect("as root");
    Some((server, logs.join("x.log")))
}

#[test]
fn a_link_of_another_user_stops_the_start() {
    for flag in ["--log", "--access-log"] {
        let Some((server, log)) = server() else {
            return;
        };
        let target = server.dir().join("target");
        symlink(&target, &log).expect("a new link");
        lchown(&log, Some(NOBODY), Some(NOBODY)).expect("as root");
        let finished = server.arg(flag, &log).run();
        finished.assert_says(&format!("cannot open {flag} {}: ", log.display()));
        finished.assert_says("is a symbolic link of user 65534");
        finished.assert_status(71);
        assert!(!target.exists(), "root has made a file through the link");
    }
}

#[test]
fn nor_is_one_in_the_place_of_a_directory_followed() {
    let Some((server, log)) = server() else {
        return;
    };
    let (target, way) = (server.dir().join("target"), log.with_file_name("way"));
    fs::create_dir(&target).expect("a new directory");
    symlink(&target, &way).expect("a new link");
    lchown(&way, Some(NOBODY), Some(NOBODY)).expect("as root");
    let finished = server.arg("--log", way.join("x.log")).run();
    finished.assert_says(&format!("{} is a symbolic link of user", way.display()));
    finished.assert_status(71);
    let made = fs::read_dir(&target).expect("a directory").count();
    assert_eq!(made, 0, "root has made a file through the link");
}

#[test]
fn a_link_of_another_user_is_not_followed_on_usr1() {
    let Some((server, log)) = server() else {
        return;
    };
    let (target, old) = (server.dir().join("target"), log.with_extension("1"));
    fs::write(&target, "kept\n").expect("a file");
    let server = server
        .arg("--access-log", &log)
        .expect_error("cannot open the access log anew");
    let server = server.start();
    fs::rename(&log, &old).expect("move the log away");
    symlink(&target, &log).expect("a new link");
    lchown(&log, Some(NOBODY), Some(NOBODY)).expect("as root");
    server.signal(Signal::SIGUSR1);
    server
        .log
        .wait_for("is a symbolic link of user 65534, not of root; the old file is used on");
    server.get("/pid").assert_status(200);
    wait_until("the line in the old file", || {
        let text = fs::read_to_string(&old).expect("the old file");
        text.contains("/pid").then_some(())
    });
    let finished = server.finish();
    finished.assert_says(&format!(
        "cannot open the access log anew: {}",
        log.display()
    ));
    assert_eq!(fs::read_to_string(&target).expect("a file"), "kept\n");
}

#[test]
fn a_link_of_root_is_followed_as_long_as_no_other_takes_over() {
    let Some((server, log)) = server() else {
        return;
    };
    let (target, foreign) = (server.dir().join("target"), log.with_extension("2"));
    symlink("../target", &log).expect("a new link");
    let server = server.arg("--log", &log).arg("--access-log", "/dev/stdout");
    let server = server.start();
    server.get("/pid").assert_status(200);
    let finished = server.finish();
    assert!(finished.stdout.contains("/pid"), "{}", finished.stdout);
    let text = fs::read_to_string(&target).expect("made through the link");
    assert!(text.contains("serving logged"), "{text}");

    let (server, log) = self::server().expect("as before");
    let target = server.dir().join("target");
    let foreign = log.with_file_name(foreign.file_name().expect("a name"));
    symlink(&foreign, &log).expect("a new link");
    symlink(&target, &foreign).expect("a new link");
    lchown(&foreign, Some(NOBODY), Some(NOBODY)).expect("as root");
    let finished = server.arg("--log", &log).run();
    finished.assert_says(&format!("{} is a symbolic link", foreign.display()));
    assert!(!target.exists(), "root has made a file through the links");
}

#[test]
fn a_file_of_two_names_stops_the_start() {
    let Some((server, log)) = server() else {
        return;
    };
    let target = server.dir().join("target");
    fs::write(&target, "kept\n").expect("a file");
    fs::hard_link(&target, &log).expect("a new link");
    let finished = server.arg("--log", &log).run();
    finished.assert_says("has further hard links");
    finished.assert_status(71);
    assert_eq!(fs::read_to_string(&target).expect("a file"), "kept\n");
}
