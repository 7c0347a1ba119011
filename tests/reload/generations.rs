//! One generation takes the place of another, whatever happens meanwhile.

use super::{busy, count, ours, shop, version, wait_generation};
use crate::support::{Load, Running, Server, wait_until};
use nix::sys::signal::Signal;
use std::os::unix::fs::symlink;

#[test]
fn a_reload_replaces_the_code_and_every_process() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let (supervisor, workers) = (server.supervisor(), server.workers());
    server.get("/").assert_text("one");
    for (number, answer) in [(2, "two"), (3, "three")] {
        server.write("shop.py", &version(answer, ""));
        server.signal(Signal::SIGHUP);
        let message = server.wait_notified("RELOADING=1");
        let micros = message[1].strip_prefix("MONOTONIC_USEC=");
        let micros: u64 = micros.and_then(|n| n.parse().ok()).expect("a time");
        assert!(micros > 0);
        let message = server.wait_notified("READY=1");
        assert_eq!(
            message[1],
            format!("STATUS=serving shop (generation {number})")
        );
        let now = wait_generation(&server, number);
        server.get("/").assert_text(answer);
        assert!(now.iter().all(|worker| !workers.contains(worker)));
    }
    workers.iter().for_each(|worker| worker.wait_gone());
    assert_eq!(server.supervisor(), supervisor);
    assert_eq!(count(&server, "reloaded: serving shop"), 2);
    server.finish().assert_says("stopped shop: 3 requests");
}

#[test]
fn a_generation_serves_nobody_before_all_of_it_is_ready() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let gate = server.gate("second");
    // Counted in the master: the second child waits.
    let import = "import itertools; forks = itertools.count()\n\
                  def born():\n    \
                      if next(forks) == 1:\n        \
                          note('second'); wait_at('second')\n\
                  os.register_at_fork(after_in_parent=lambda: next(forks), after_in_child=born)";
    server.write("shop.py", &version("two", import));
    server.signal(Signal::SIGHUP);
    server.notes.expect("second");
    for _ in 0..50 {
        server.get("/").assert_text("one");
    }
    gate.open();
    wait_generation(&server, 2);
    server.get("/").assert_text("two");
}

#[test]
fn a_master_that_is_killed_is_no_reason_to_stop_serving() {
    if !ours() {
        return;
    }
    let text = version("two", "note('importing'); wait_at('never')");
    let kill = |server: &Running| {
        std::mem::forget(server.gate("never"));
        let old = server.master();
        server.write("shop.py", &text);
        server.signal(Signal::SIGHUP);
        server.notes.expect("importing");
        let masters = server.masters();
        let new = masters.iter().find(|master| **master != old);
        new.expect("a second master").signal(Signal::SIGKILL);
        server.log.wait_for("reload failed");
        server.wait_notified("READY=1"); // of this failure
        server.write("shop.py", "import sys; sys.exit('another')");
    };
    let mut server = shop().start();
    server.expect_error("reload failed");
    let workers = server.workers();
    kill(&server);
    server.get("/").assert_text("one");
    assert_eq!(server.workers(), workers);
    assert_eq!(count(&server, "the master ended, killed by SIGKILL"), 1);
}

#[test]
fn a_link_to_the_current_release_is_followed_anew() {
    if !ours() {
        return;
    }
    let server = Server::new().app("shop").workers(2);
    let current = server.dir().join("current");
    for name in ["one", "two"] {
        let release = server.dir().join(name);
        std::fs::create_dir(&release).expect("make a directory");
        std::fs::write(release.join("shop.py"), version(name, "")).expect("write a module");
    }
    symlink("one", &current).expect("link to a release");
    let server = server.arg("--chdir", &current).start();
    server.get("/").assert_text("one");
    std::fs::remove_file(&current).expect("remove the link");
    symlink("two", &current).expect("link to a release");
    server.signal(Signal::SIGHUP);
    wait_generation(&server, 2);
    server.get("/").assert_text("two");
}

#[test]
fn after_a_failed_reload_the_next_one_works() {
    if !ours() {
        return;
    }
    let server = shop().expect_error("reload failed").start();
    for round in 0..3 {
        server.write("shop.py", "import sys; sys.exit('no')");
        server.signal(Signal::SIGHUP);
        let serving = round * 2 + 1;
        let message = server.wait_notified("READY=1");
        let goes_on = format!("generation {serving} keeps serving");
        assert!(message[1].ends_with(&goes_on), "{message:?}");
        server.write("shop.py", &version(&format!("good {round}"), ""));
        server.signal(Signal::SIGHUP);
        server.wait_notified("READY=1");
        wait_generation(&server, round * 2 + 3);
        server.get("/").assert_text(&format!("good {round}"));
    }
}

#[test]
fn many_reloads_in_a_row_leave_exactly_one_generation() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let first = server.master();
    let load = Load::start(&server, 1);
    for round in 0..30 {
        server.write("shop.py", &version(&format!("round {round}"), ""));
        server.signal(Signal::SIGHUP);
        server.read_notifications();
        let masters = server.masters();
        assert!(masters.len() <= 6, "{masters:?}");
        if round % 10 == 9 {
            load.wait_answers(3);
        }
    }
    wait_until("the last version", || {
        server.read_notifications();
        (server.get("/").text() == "round 29").then_some(())
    });
    wait_until("one generation", || {
        let masters = server.masters();
        (masters.len() == 1 && masters[0] != first).then_some(())
    });
    server.read_notifications();
    server.workers();
    load.wait_answers(3);
    load.finish();
}

#[test]
fn a_reload_takes_the_place_of_one_that_hangs() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let _gate = server.gate("never");
    server.write(
        "shop.py",
        &version("two", "note('importing'); wait_at('never')"),
    );
    server.signal(Signal::SIGHUP);
    server.notes.expect("importing");
    server.write("shop.py", &version("three", ""));
    server.signal(Signal::SIGHUP);
    wait_generation(&server, 3);
    server.get("/").assert_text("three");
    assert_eq!(count(&server, "giving up generation 2"), 1);
}

#[test]
fn a_reload_during_the_first_start_starts_afresh() {
    if !ours() {
        return;
    }
    let server = shop().file(
        "shop.py",
        &version("one", "note('importing'); wait_at('never')"),
    );
    let server = server.spawn();
    let _gate = server.gate("never");
    server.notes.expect("importing");
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    loop {
        let message = server.notification();
        let reloads = message.iter().any(|line| line == "RELOADING=1");
        assert!(!reloads, "nothing was reloaded: {message:?}");
        if message[0] == "READY=1" {
            break;
        }
    }
    server.get("/").assert_text("two");
    wait_generation(&server, 2);
}

#[test]
fn term_during_a_reload_leaves_nothing() {
    if !ours() {
        return;
    }
    let mut server = shop().arg("--graceful-timeout", "1h").start();
    let (gate, _never) = (server.gate("gate"), server.gate("never"));
    let mut client = busy(&server);
    server.write(
        "shop.py",
        &version("two", "note('importing'); wait_at('never')"),
    );
    server.signal(Signal::SIGHUP);
    server.notes.expect("importing");
    server.signal(Signal::SIGTERM);
    server.log.wait_for("stopping: ");
    // Too late for that.
    server.signal(Signal::SIGHUP);
    server.log.wait_for("not reloading");
    wait_until("the new generation to leave", || {
        (server.masters().len() == 1).then_some(())
    });
    gate.open();
    client.response().assert_text("one");
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn a_generation_lost_during_a_reload_is_replaced_by_the_next() {
    if !ours() {
        return;
    }
    let mut server = shop().start();
    server.expect_error("generation 1");
    server.expect_error("the supervisor is gone");
    let gate = server.gate("import");
    let master = server.master();
    server.write(
        "shop.py",
        &version("two", "note('importing'); wait_at('import')"),
    );
    server.signal(Signal::SIGHUP);
    server.notes.expect("importing");
    master.signal(Signal::SIGKILL);
    server.log.wait_for("generation 1 (pid");
    gate.open();
    wait_generation(&server, 2);
    server.get("/").assert_text("two");
    // And a reload while the lost one is being replaced.
    server.expect_error("generation 2");
    server.write("shop.py", &version("three", ""));
    server.master().signal(Signal::SIGKILL);
    server.signal(Signal::SIGHUP);
    wait_until("the new version", || {
        (server.get("/").text() == "three").then_some(())
    });
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
}
