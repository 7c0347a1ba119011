//! Reload on SIGHUP: the next generation replaces the old one when it serves, and not before.

use crate::support::python;
use crate::support::{Client, Load, Pid, Running, Server, only_rswsgi, wait_until};
use nix::sys::signal::Signal;
use std::os::unix::fs::symlink;

pub fn ours() -> bool {
    only_rswsgi("verified reload")
}

/// An application that answers with its version; `import` runs when it is imported.
pub fn version(answer: &str, import: &str) -> String {
    format!(
        "import os, sys, time\n\
         from talk import note, wait_at\n\
         {import}\n\
         def application(environ, start_response):\n    \
             if environ['PATH_INFO'] == '/wait':\n        \
                 note('waiting')\n        \
                 wait_at('gate')\n    \
             if environ['PATH_INFO'] == '/slow':\n        \
                 note('slow')\n        \
                 time.sleep(0.6)\n    \
             body = b'{answer}'\n    \
             if environ['PATH_INFO'] == '/pid':\n        \
                 body = str(os.getpid()).encode()\n    \
             start_response('200 OK', [('Content-Length', str(len(body)))])\n    \
             return [body]\n"
    )
}

pub fn shop() -> Server {
    Server::new()
        .app("shop")
        .workers(2)
        .tcp()
        .unix()
        .file("shop.py", &version("one", ""))
}

/// The server replaces generation `number - 1` by this one.
#[track_caller]
fn wait_generation(server: &Running, number: u32) -> Vec<Pid> {
    server.log.wait_for(&format!("generation {number}, "));
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
    let master = server.master();
    let title = format!("rswsgi: master [shop gen {number}]");
    assert!(master.title().starts_with(&title), "{}", master.title());
    server.workers()
}

#[track_caller]
fn count(server: &Running, piece: &str) -> usize {
    server.log.text().matches(piece).count()
}

/// After `change` a reload fails and says this once; clients notice nothing; the next one works.
#[track_caller]
fn assert_keeps_serving(server: Server, change: impl FnOnce(&Running), said: &[&str]) {
    let mut server = server.start();
    // The log shows what went wrong; what else may be wrong would show in the answers.
    for piece in ["rror", "workers end before"] {
        server.expect_error(piece);
    }
    let (master, workers) = (server.master(), server.workers());
    let mut client = server.connect();
    client.get("/").assert_text("one");
    let load = Load::start(&server, 1);
    load.wait_answers(1);
    change(&server);
    server.signal(Signal::SIGHUP);
    let message = server.wait_notified("READY=1");
    let status = &message[1];
    assert!(status.starts_with("STATUS=reload failed: "), "{message:?}");
    assert!(
        status.ends_with("generation 1 keeps serving"),
        "{message:?}"
    );
    load.wait_answers(5);
    load.finish();
    client.get("/").assert_text("one");
    assert_eq!(server.masters(), [master]);
    assert_eq!(server.workers(), workers);
    for piece in said
        .iter()
        .chain(&["reload failed: ", "; generation 1 keeps serving"])
    {
        // The log is written by a thread of its own.
        wait_until(piece, || (count(&server, piece) > 0).then_some(()));
        assert_eq!(
            count(&server, piece),
            1,
            "{piece:?} in the log:\n{}",
            server.log.text()
        );
    }
    assert!(count(&server, "Traceback") <= 1, "{}", server.log.text());
}

/// As above, for a module that cannot be imported; afterwards a good one can.
#[track_caller]
fn assert_module_refused(server: Server, import: &str, said: &[&str]) {
    let text = version("two", import);
    assert_keeps_serving(server, |server| server.write("shop.py", &text), said);
}

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
fn a_syntax_error_is_refused() {
    if !ours() {
        return;
    }
    let said = [
        "SyntaxError: invalid syntax",
        "importing shop raised SyntaxError",
    ];
    assert_keeps_serving(
        shop(),
        |server| server.write("shop.py", "def broken(:\n"),
        &said[1..],
    );
}

#[test]
fn an_exception_at_import_is_refused_with_its_traceback() {
    if !ours() {
        return;
    }
    let said = [
        "Traceback (most recent call last)",
        "importing shop raised LookupError: told once;",
    ];
    assert_module_refused(shop(), "raise LookupError('told once')", &said);
}

#[test]
fn a_missing_module_is_refused() {
    if !ours() {
        return;
    }
    let said = ["importing shop raised ModuleNotFoundError", "Traceback"];
    assert_module_refused(shop(), "import no_such_module_anywhere", &said);
    let remove = |server: &Running| {
        std::fs::remove_file(server.dir().join("shop.py")).expect("remove the module");
    };
    assert_keeps_serving(shop(), remove, &["there is no module 'shop'"]);
}

#[test]
fn an_application_that_leaves_at_import_is_refused() {
    if !ours() {
        return;
    }
    assert_module_refused(
        shop(),
        "sys.exit(3)",
        &["importing shop called sys.exit(3)"],
    );
    let said = ["the master ended, exited with status 4"];
    assert_module_refused(shop(), "os._exit(4)", &said);
    let said = ["the master ended, killed by SIGABRT"];
    assert_module_refused(shop(), "os.abort()", &said);
}

#[test]
fn what_is_no_application_is_refused() {
    if !ours() {
        return;
    }
    let remove = |server: &Running| server.write("shop.py", "");
    assert_keeps_serving(shop(), remove, &["no attribute 'application' or 'app'"]);
}

#[test]
fn an_import_that_hangs_is_given_up_after_start_timeout() {
    if !ours() {
        return;
    }
    let server = shop().arg("--start-timeout", "4s");
    // C code that holds the interpreter and ignores TERM does not outlive it either.
    let import = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); wait_at('never')";
    let said = ["took longer than --start-timeout (4s)"];
    let text = version("two", import);
    let began = std::time::Instant::now();
    let hang = |server: &Running| {
        std::mem::forget(server.gate("never"));
        server.write("shop.py", &text);
    };
    assert_keeps_serving(server, hang, &said);
    assert!(began.elapsed().as_secs() >= 4, "given up too early");
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
fn workers_that_die_at_once_are_refused() {
    if !ours() {
        return;
    }
    let import = "os.register_at_fork(after_in_child=lambda: os._exit(3))";
    assert_module_refused(shop(), import, &["its workers end before they are ready"]);
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
fn an_interpreter_that_is_gone_is_refused() {
    if !ours() {
        return;
    }
    let python = crate::support::python::default().path;
    for arguments in ["--python", "--venv"] {
        let server = shop().any_python();
        let venv = server.dir().join("venv");
        std::fs::create_dir_all(venv.join("bin")).expect("make a directory");
        let program = venv.join("bin/python");
        symlink(&python, &program).expect("link to the interpreter");
        let (value, said) = match arguments {
            "--python" => (program.clone(), "there is no such program"),
            _ => (venv, "it has no bin/python"),
        };
        let server = server.arg(arguments, value);
        let remove = |_: &Running| std::fs::remove_file(&program).expect("remove the link");
        assert_keeps_serving(server, remove, &[said]);
    }
}

#[test]
fn an_interpreter_that_does_not_work_is_refused() {
    if !ours() {
        return;
    }
    let python = crate::support::python::default().path;
    let server = shop();
    let link = server.dir().join("python");
    symlink(&python, &link).expect("link to the interpreter");
    let break_it = |_: &Running| {
        std::fs::remove_file(&link).expect("remove the link");
        symlink("/bin/false", &link).expect("link to another program");
    };
    let said = ["the master ended, exited with status 1"];
    assert_keeps_serving(server.python(&link), break_it, &said);
}

#[test]
fn a_directory_that_is_gone_is_refused() {
    if !ours() {
        return;
    }
    let server = shop();
    let code = server.dir().join("code");
    std::fs::create_dir(&code).expect("make a directory");
    let remove = |_: &Running| std::fs::remove_dir(&code).expect("remove a directory");
    assert_keeps_serving(
        server.arg("--chdir", &code),
        remove,
        &["is not a directory"],
    );
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
fn under_load_reloads_lose_no_request() {
    if !ours() {
        return;
    }
    let server = shop().expect_error("reload failed").start();
    let load = Load::start(&server, 3);
    load.wait_answers(3);
    for number in 2..8 {
        match number % 3 {
            0 => server.write("shop.py", "import sys; sys.exit('no')"),
            _ => server.write("shop.py", &version("good", "")),
        }
        server.signal(Signal::SIGHUP);
        server.wait_notified("READY=1");
        load.wait_answers(10);
    }
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
    load.finish();
    assert_eq!(count(&server, "reload failed"), 2);
    assert_eq!(count(&server, "reloaded: "), 4);
}

/// A request that waits in the application.
#[track_caller]
pub fn busy(server: &Running) -> Client {
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    client
}

#[test]
fn a_running_request_survives_a_reload() {
    if !ours() {
        return;
    }
    let server = shop().arg("--graceful-timeout", "1h").start();
    let gate = server.gate("gate");
    let (master, workers) = (server.master(), server.workers());
    let mut client = busy(&server);
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    server.wait_notified("READY=1");
    wait_until("the idle worker to leave", || {
        (workers.iter().filter(|worker| worker.is_alive()).count() == 1).then_some(())
    });
    server.get("/").assert_text("two");
    assert!(master.is_alive());
    // One more is in the socket when the worker learns that it is to leave.
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.open();
    // Whoever has read it answers it, and the connection goes on with the next generation.
    for _ in 0..2 {
        let response = client.response();
        response.assert_status(200);
        assert!(!response.says_close(), "{response:?}");
    }
    client.get("/").assert_text("two");
    master.wait_gone();
    client.get("/").assert_text("two");
    wait_generation(&server, 2);
}

#[test]
fn a_request_on_an_idle_connection_is_answered_while_the_worker_drains() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let mut silent = server.connect();
    silent.get("/").assert_text("one");
    let mut idle = server.connect();
    let number: i32 = idle.get("/pid").text().parse().expect("a process number");
    // The worker finds the request and the order to drain at the same time.
    let worker = Pid::of(number).expect("a living worker");
    worker.signal(Signal::SIGSTOP);
    let workers = server.workers();
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    let mut others = workers.iter().filter(|other| **other != worker);
    others.next().expect("two workers").wait_gone();
    idle.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    worker.signal(Signal::SIGCONT);
    let response = idle.response();
    response.assert_text("one");
    assert!(!response.says_close(), "{response:?}");
    worker.wait_gone();
    idle.get("/").assert_text("two");
    silent.get("/").assert_text("two");
}

#[test]
fn a_request_that_comes_while_the_last_one_runs_is_answered() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let (mut first, mut second) = two_of_one_worker(&server);
    let number: i32 = first.get("/pid").text().parse().expect("a process number");
    let worker = Pid::of(number).expect("a living worker");
    // It reads the order first and then runs a request for longer than it waits for another one.
    worker.signal(Signal::SIGSTOP);
    let workers = server.workers();
    server.signal(Signal::SIGHUP);
    let mut others = workers.iter().filter(|other| **other != worker);
    others.next().expect("two workers").wait_gone();
    first.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    worker.signal(Signal::SIGCONT);
    server.notes.expect("slow");
    second.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    for client in [&mut first, &mut second] {
        let response = client.response();
        response.assert_text("one");
        assert!(!response.says_close(), "{response:?}");
        client.get("/").assert_text("one");
    }
    worker.wait_gone();
    first.get("/").assert_text("one");
}

#[test]
fn a_stop_closes_idle_connections_as_ever() {
    if !ours() {
        return;
    }
    let mut server = shop().start();
    let mut idle = server.connect();
    idle.get("/").assert_text("one");
    server.signal(Signal::SIGTERM);
    idle.expect_end();
    assert!(server.wait_exit().success());
}

/// Two connections, both of which have been served by the same worker.
#[track_caller]
pub fn two_of_one_worker(server: &Running) -> (Client, Client) {
    let mut known: Vec<(String, Client)> = Vec::new();
    wait_until("two connections of one worker", || {
        let mut client = server.connect();
        let pid = client.get("/pid").text();
        match known.iter().position(|(other, _)| *other == pid) {
            Some(index) => Some((known.swap_remove(index).1, client)),
            None => {
                known.push((pid, client));
                None
            }
        }
    })
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

/// With a configuration file that says this.
fn configured(text: &str) -> Server {
    let server = shop().file("rswsgi.toml", text);
    let path = server.dir().join("rswsgi.toml");
    server.arg("--config", path)
}

#[test]
fn the_configuration_file_is_read_again() {
    if !ours() {
        return;
    }
    let server = configured("workers = 2\n").default_workers().start();
    let workers = |count: usize| {
        wait_until(&format!("{count} workers of one master"), || {
            let masters = server.masters();
            (masters.len() == 1 && masters[0].children().len() == count).then_some(())
        });
    };
    workers(2);
    server.write("rswsgi.toml", "workers = 3\n");
    server.signal(Signal::SIGHUP);
    server.log.wait_for("generation 2, ");
    workers(3);
    server.get("/").assert_text("one");
    server.finish();
}

#[test]
fn a_mistake_in_the_configuration_file_is_refused() {
    if !ours() {
        return;
    }
    for (text, said) in [
        (
            "keep-alive = 'long'\n",
            "rswsgi.toml:1: keep-alive: \"long\" is not a duration",
        ),
        (
            "\nkeepalive = 2\n",
            "rswsgi.toml:2: unknown setting \"keepalive\"; did you mean \"keep-alive\"?",
        ),
        ("keep-alive = ", "rswsgi.toml:1: "),
    ] {
        assert_keeps_serving(
            configured("keep-alive = 30\n"),
            |server| server.write("rswsgi.toml", text),
            &[said],
        );
    }
}

#[test]
fn a_configuration_file_that_is_gone_is_refused() {
    if !ours() {
        return;
    }
    assert_keeps_serving(
        configured("keep-alive = 30\n"),
        |server| std::fs::remove_file(server.dir().join("rswsgi.toml")).expect("it was there"),
        &["cannot read the configuration "],
    );
}

/// The server is in a session of its own, where no terminal is.
fn without_a_terminal(server: Server) -> Server {
    let script = "import os, sys\nos.setsid()\nos.execv(sys.argv[1], sys.argv[1:])";
    let python = python::default().path;
    let python = python.to_str().expect("a path in UTF-8").to_owned();
    server.under([&python, "-c", script])
}

#[test]
fn what_is_told_to_rest_finishes_and_serves_again_after_a_reload() {
    if !ours() {
        return;
    }
    let server = without_a_terminal(shop()).start();
    let gate = server.gate("gate");
    let mut running = server.connect();
    running.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    server.signal(Signal::SIGWINCH);
    server.log.wait_for("accepting no more connections");
    gate.open();
    running.response().assert_text("one");
    wait_until("the generation to leave", || {
        server.crew().is_empty().then_some(())
    });
    // It is taken by the kernel and waits.
    let mut waiting = server.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(server.masters().is_empty());
    server.write("shop.py", &version("two", ""));
    server.signal(Signal::SIGHUP);
    waiting.response().assert_text("two");
}

#[test]
fn what_rests_can_be_stopped() {
    if !ours() {
        return;
    }
    let server = without_a_terminal(shop()).start();
    server.signal(Signal::SIGWINCH);
    wait_until("the generation to leave", || {
        server.masters().is_empty().then_some(())
    });
    server.finish().assert_status(0);
}
