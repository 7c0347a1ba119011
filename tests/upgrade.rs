//! Upgrade on SIGUSR2: another program in the same process, with the same listeners and workers.

use crate::support::server::Address;
use crate::support::{
    BUILT, Client, Load, Running, Server, copy_program, module, only_rswsgi, wait_until,
    write_program,
};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn ours() -> bool {
    only_rswsgi("an upgrade in the same process")
}

/// A server that runs from a copy of the program, `bin/rswsgi` in the directory of the test.
fn copied(server: Server) -> Server {
    let bin = server.dir().join("bin");
    fs::create_dir(&bin).expect("make a directory");
    copy_program(BUILT, bin.join("rswsgi"));
    server
        .program(bin.join("rswsgi"))
        .env("RSWSGI_MODULE", module())
}

fn procs() -> Server {
    copied(Server::new().app("procs").workers(2).tcp().unix())
}

/// Puts another file into the place of the program, as a package manager does.
fn replace(server: &Running, make: impl FnOnce(&Path)) {
    let new = server.dir().join("bin/new");
    make(&new);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("make it executable");
    fs::rename(&new, server.dir().join("bin/rswsgi")).expect("replace the program");
}

fn replace_by_script(server: &Running, script: &str) {
    let text = format!("#!/bin/sh\n{script}\n");
    replace(server, |new| write_program(new, &text));
}

#[track_caller]
fn upgrade(server: &Running) {
    server.signal(Signal::SIGUSR2);
    let message = server.wait_notified("RELOADING=1");
    assert!(message[1].starts_with("MONOTONIC_USEC="), "{message:?}");
    assert_eq!(message[2], "STATUS=upgrading");
    let message = server.wait_notified("READY=1");
    assert!(
        message[1].starts_with("STATUS=serving procs"),
        "{message:?}"
    );
}

#[track_caller]
fn count(server: &Running, piece: &str) -> usize {
    server.log.text().matches(piece).count()
}

#[track_caller]
fn wait_one_generation(server: &Running) {
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
}

#[test]
fn the_log_keeps_its_form_over_an_upgrade() {
    if !ours() {
        return;
    }
    let server = procs().arg("--log-format", "json").start();
    upgrade(&server);
    server.log.wait_for("upgraded from ");
    for line in server.log.text().lines() {
        let entry: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(entry.is_ok(), "{line}");
    }
}

#[test]
fn an_upgrade_changes_the_program_and_nothing_else() {
    if !ours() {
        return;
    }
    let mut server = procs().start();
    let (supervisor, master) = (server.supervisor(), server.master());
    let workers = server.workers();
    let mut client = server.connect();
    client.get("/pid").assert_status(200);
    let exe = format!("/proc/{}/exe", supervisor.number);
    for _ in 0..2 {
        let before = fs::File::open(&exe).expect("a living process"); // its inode is not used again
        replace(&server, |new| {
            copy_program(BUILT, new);
        });
        upgrade(&server);
        let program = fs::metadata(server.dir().join("bin/rswsgi")).expect("the new program");
        let now = fs::metadata(&exe).expect("a living process");
        assert_eq!(now.ino(), program.ino());
        assert_ne!(now.ino(), before.metadata().expect("an open file").ino());
        assert_eq!(server.supervisor(), supervisor);
        assert_eq!(server.masters(), [master]);
        assert_eq!(server.workers(), workers);
        assert!(supervisor.title().starts_with("rswsgi: supervisor"));
        client.get("/pid").assert_status(200);
        server.get("/pid").assert_status(200);
    }
    assert_eq!(count(&server, "upgraded from "), 2);
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    wait_one_generation(&server);
    workers.iter().for_each(|worker| worker.wait_gone());
    server.get("/pid").assert_status(200);
    let environment = server.get("/environment").json();
    assert!(environment.get("RSWSGI_HAND_OVER").is_none());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    let finished = server.finish();
    finished.assert_says("stopped procs: 7 requests");
}

#[test]
fn the_socket_file_is_removed_by_the_last_program() {
    if !ours() {
        return;
    }
    let server = copied(Server::new().app("procs"));
    let path = server.dir().join("own.sock");
    let mut server = server.bind(&format!("unix:{}", path.display())).start();
    let inode = fs::metadata(&path).expect("a socket").ino();
    upgrade(&server);
    upgrade(&server);
    let mut client = Client::try_connect(&Address::Unix(path.clone())).expect("it listens");
    client.get("/pid").assert_status(200);
    assert_eq!(fs::metadata(&path).expect("a socket").ino(), inode);
    drop(client);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_program_that_does_not_work_is_refused() {
    if !ours() {
        return;
    }
    let server = procs().expect_error("upgrade refused").start();
    let (master, workers) = (server.master(), server.workers());
    let load = Load::start(&server, 1);
    type Change = fn(&Running);
    let changes: [(Change, &str); 5] = [
        (
            |server| replace_by_script(server, "exit 1"),
            "exited with status 1 when it was checked",
        ),
        (
            |server| replace_by_script(server, "exit 0"),
            "did not say that it can take over",
        ),
        (
            |server| replace_by_script(server, "kill -9 $$"),
            "killed by SIGKILL when it was checked",
        ),
        (
            |server| replace(server, |new| fs::write(new, "junk").expect("write a file")),
            "exited with status 127 when it was checked", // execvp(3) lets a shell try
        ),
        (
            |server| fs::remove_file(server.dir().join("bin/rswsgi")).expect("remove the program"),
            "no such file or directory",
        ),
    ];
    for (number, (change, said)) in changes.into_iter().enumerate() {
        change(&server);
        server.signal(Signal::SIGUSR2);
        server.log.wait_for(said);
        wait_until("the refusal", || {
            (count(&server, "upgrade refused: ") == number + 1).then_some(())
        });
        load.wait_answers(3);
        assert_eq!(server.masters(), [master]);
        assert_eq!(server.workers(), workers);
    }
    load.finish();
    // A good one is welcome at any time.
    replace(&server, |new| {
        copy_program(BUILT, new);
    });
    upgrade(&server);
    assert_eq!(server.workers(), workers);
}

#[test]
fn a_program_that_does_not_answer_is_refused() {
    if !ours() {
        return;
    }
    let server = procs().expect_error("upgrade refused").start();
    replace_by_script(&server, "exec sleep 1000");
    server.signal(Signal::SIGUSR2);
    server.log.wait_for("upgrading (SIGUSR2)");
    server.signal(Signal::SIGUSR2);
    server.log.wait_for("under way already");
    server.get("/pid").assert_status(200);
    server.log.wait_for("took longer than 10 s to be checked");
    wait_one_generation(&server);
}

#[test]
fn a_program_that_cannot_take_over_after_all_goes_back() {
    if !ours() {
        return;
    }
    let server = procs().expect_error("cannot take over").start();
    let (supervisor, workers) = (server.supervisor(), server.workers());
    // The check is passed. When it counts, the new program is shown another state, and as the program
    // before it something that knows the true ones.
    let python = crate::support::python::default().path;
    let back = server.dir().join("back");
    let script = format!(
        "#!{}\nimport os, sys\n\
         os.environ['RSWSGI_HAND_OVER'] = 'return ' + os.environ['TRUE_STATE']\n\
         os.execv('/proc/self/fd/' + os.environ['TRUE_STATE'].split()[1], ['rswsgi'] + sys.argv[1:])\n",
        python.display()
    );
    write_program(&back, &script);
    fs::set_permissions(&back, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let script = format!(
        "#!{}\nimport os, sys\n\
         task, numbers = os.environ['RSWSGI_HAND_OVER'].split(' ', 1)\n\
         if task == 'take-over':\n    \
             files = os.open('/dev/null', os.O_RDONLY), os.open('{}', os.O_RDONLY)\n    \
             [os.set_inheritable(file, True) for file in files]\n    \
             os.environ['TRUE_STATE'] = numbers\n    \
             os.environ['RSWSGI_HAND_OVER'] = 'take-over %d %d' % files\n\
         os.execv('{BUILT}', sys.argv)\n",
        python.display(),
        back.display()
    );
    replace(&server, |new| {
        fs::write(new, &script).expect("write a script");
    });
    let load = Load::start(&server, 1);
    upgrade(&server);
    load.wait_answers(3);
    assert_eq!(count(&server, "cannot take over: unreadable state"), 1);
    assert_eq!(count(&server, "upgrade failed; "), 1);
    assert_eq!(server.supervisor(), supervisor);
    assert_eq!(server.workers(), workers);
    replace(&server, |new| {
        copy_program(BUILT, new);
    });
    upgrade(&server);
    load.wait_answers(3);
    load.finish();
    assert_eq!(count(&server, "upgraded from "), 1);
    assert_eq!(server.workers(), workers);
}

#[test]
fn under_load_upgrades_and_reloads_lose_no_request() {
    if !ours() {
        return;
    }
    let server = procs().start();
    let load = Load::start(&server, 2);
    for round in 0..6 {
        upgrade(&server);
        load.wait_answers(5);
        if round % 2 == 1 {
            server.signal(Signal::SIGHUP);
            server.wait_notified("READY=1");
        }
    }
    load.finish();
    wait_one_generation(&server);
    assert_eq!(count(&server, "upgraded from "), 6);
}

/// A request that waits in the application.
#[track_caller]
fn busy(server: &Running) -> Client {
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    let note = server.notes.next();
    assert!(note.starts_with("waiting "), "{note}");
    client
}

#[test]
fn running_requests_survive_an_upgrade_also_in_a_generation_that_leaves() {
    if !ours() {
        return;
    }
    let server = procs().arg("--graceful-timeout", "1h").start();
    let gate = server.gate("gate");
    let old = server.master();
    let mut first = busy(&server);
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    let mut second = busy(&server);
    upgrade(&server);
    assert_eq!(server.masters().len(), 2);
    gate.open();
    gate.open();
    first.response().assert_status(200);
    second.response().assert_status(200);
    old.wait_gone();
    // The generation that serves goes on with it.
    first.get("/").assert_status(200);
    wait_one_generation(&server);
}

#[test]
fn an_upgrade_waits_for_a_reload_that_is_under_way() {
    if !ours() {
        return;
    }
    let server = copied(Server::new().app("shop").workers(1));
    let text = |import: &str| {
        format!(
            "from talk import note, wait_at\n{import}\ndef application(environ, start_response):\n    \
             start_response('200 OK', [])\n    return [b'served']\n"
        )
    };
    let server = server.file("shop.py", &text("")).start();
    let gate = server.gate("gate");
    server.write("shop.py", &text("note('importing'); wait_at('gate')"));
    server.signal(Signal::SIGHUP);
    server.notes.expect("importing");
    server.signal(Signal::SIGUSR2);
    server.log.wait_for("upgrading (SIGUSR2)");
    server.get("/").assert_text("served");
    assert_eq!(count(&server, "upgraded from "), 0);
    gate.open();
    server.log.wait_for("upgraded from ");
    wait_one_generation(&server);
    assert!(server.master().title().contains("gen 2]"));
    server.get("/").assert_text("served");
}

#[test]
fn signals_that_arrive_during_an_upgrade_are_obeyed() {
    if !ours() {
        return;
    }
    for round in 0..6 {
        let mut server = procs().start();
        let master = server.master();
        server.signal(Signal::SIGUSR2);
        if round % 2 == 0 {
            server.log.wait_for("executing ");
        }
        if round < 3 {
            server.signal(Signal::SIGHUP);
            server.log.wait_for("reloaded: ");
            master.wait_gone();
            server.log.wait_for("upgraded from ");
            server.get("/pid").assert_status(200);
        }
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait_exit().code(), Some(0));
    }
}

#[test]
fn after_an_upgrade_the_dead_are_replaced_and_nothing_is_left_behind() {
    if !ours() {
        return;
    }
    let mut server = procs().start();
    for piece in ["killed by SIGKILL", "the supervisor is gone"] {
        server.expect_error(piece);
    }
    let fds = |server: &Running| {
        let path = format!("/proc/{}/fd", server.supervisor().number);
        fs::read_dir(path).expect("our own process").count()
    };
    upgrade(&server);
    let before = fds(&server);
    upgrade(&server);
    upgrade(&server);
    assert_eq!(fds(&server), before, "descriptors of the supervisor");
    let (master, workers) = (server.master(), server.workers());
    workers[0].signal(Signal::SIGKILL);
    wait_until("a new worker", || {
        (!server.workers().contains(&workers[0])).then_some(())
    });
    master.signal(Signal::SIGKILL);
    master.wait_gone();
    wait_until("a new master", || {
        let masters = server.masters();
        (masters.len() == 1 && masters[0] != master).then_some(())
    });
    let all = server.supervisor().descendants();
    server.signal(Signal::SIGKILL);
    server.wait_exit();
    all.iter().for_each(|pid| pid.wait_gone());
}
