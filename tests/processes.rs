//! Supervisor, master and workers as processes: who forks whom, who replaces whom, how they end.

use crate::support::{Pid, Running, Server, only_rswsgi, wait_until};
use nix::sys::signal::Signal;

/// The tree is ours alone; the protocol modules are what a peer can be asked.
fn ours() -> bool {
    only_rswsgi("the supervisor, its master and their signals")
}

fn procs() -> Server {
    Server::new().app("procs")
}

/// A request that has reached the application and waits there; its worker is busy.
#[track_caller]
fn busy(server: &Running) -> crate::support::Client {
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    let note = server.notes.next();
    assert!(note.starts_with("waiting "), "{note}");
    client
}

/// A new process in the place of `old`, among `count` workers.
#[track_caller]
fn wait_replaced(server: &Running, old: Pid) -> Vec<Pid> {
    wait_until("a new worker", || {
        Some(server.workers()).filter(|workers| !workers.contains(&old))
    })
}

#[test]
fn the_application_is_imported_once_and_workers_are_forks() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(3).start();
    server.expect_error("killed by SIGKILL");
    let master = server.master();
    let workers = server.workers();
    assert_eq!(server.file("imports"), format!("{}\n", master.number));
    server.get("/pid").assert_status(200);
    workers[0].signal(Signal::SIGKILL);
    wait_replaced(&server, workers[0]);
    server.get("/pid").assert_status(200);
    assert_eq!(
        server.file("imports").lines().count(),
        1,
        "a replaced worker is a fork, too"
    );
}

#[test]
fn requests_are_served_by_the_workers() {
    if !ours() {
        return;
    }
    let server = procs().workers(2).start();
    let workers = server.workers();
    for _ in 0..20 {
        let pid: i32 = server.get("/pid").text().parse().expect("a process number");
        assert!(
            workers.iter().any(|worker| worker.number == pid),
            "{pid} is none of {workers:?}"
        );
    }
}

#[test]
fn fork_hooks_of_the_application_run() {
    if !ours() {
        return;
    }
    let server = procs().workers(2).start();
    let master = server.master().number.to_string();
    let mut expected: Vec<String> = server
        .workers()
        .iter()
        .map(|pid| pid.number.to_string())
        .collect();
    let in_children = wait_until("the hooks in the workers", || {
        Some(server.file("child")).filter(|text| text.lines().count() == 2)
    });
    let mut in_children: Vec<String> = in_children.lines().map(str::to_owned).collect();
    in_children.sort();
    expected.sort();
    assert_eq!(in_children, expected);
    for name in ["before", "parent"] {
        let lines = server.file(name);
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [master.as_str(), master.as_str()],
            "{name}"
        );
    }
}

#[test]
fn threads_started_at_import_are_named_in_a_warning() {
    if !ours() {
        return;
    }
    let server = procs().env("START_THREAD", "1").start();
    server.log.wait_for("started-at-import");
    drop(server);
    let silent = procs().start();
    silent.get("/pid").assert_status(200);
    assert!(
        !silent.finish().stderr.to_lowercase().contains("thread"),
        "no thread, no warning"
    );
}

#[test]
fn process_names_have_no_spaces() {
    if !ours() {
        return;
    }
    let server = procs().workers(2).start();
    for pid in server.supervisor().descendants() {
        // os.fork() of Python 3.12 and later splits /proc/self/stat at spaces to count the threads: it
        // warns of a multi-threaded process, in the master and in every application that forks.
        let name = pid.status("Name").unwrap_or_default();
        assert!(!name.is_empty() && !name.contains(' '), "{name:?}");
    }
    server.get("/pid").assert_status(200);
}

#[test]
fn titles_say_what_a_process_is() {
    if !ours() {
        return;
    }
    let server = procs().workers(2).start();
    assert!(
        server
            .supervisor()
            .title()
            .starts_with("rswsgi: supervisor"),
        "{}",
        server.supervisor().title()
    );
    let master = server.master().title();
    assert!(
        master.starts_with("rswsgi: master [procs gen 1]"),
        "{master}"
    );
    let mut names: Vec<String> = server.workers().iter().map(|pid| name(*pid)).collect();
    names.sort();
    let numbers =
        |first: u32| [first, first + 1].map(|n| format!("rswsgi: worker {n} [procs gen 1]"));
    assert!(names == numbers(0) || names == numbers(1), "{names:?}");
}

/// The title without the state behind it.
fn name(pid: Pid) -> String {
    let title = pid.title();
    title
        .find(']')
        .map_or(title.clone(), |end| title[..=end].to_owned())
}

#[test]
fn a_killed_worker_is_replaced_in_its_slot() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).start();
    server.expect_error("killed by SIGKILL");
    for _ in 0..3 {
        let workers = server.workers();
        let mut names: Vec<String> = workers.iter().map(|pid| name(*pid)).collect();
        workers[1].signal(Signal::SIGKILL);
        let replaced = wait_replaced(&server, workers[1]);
        assert!(
            replaced.contains(&workers[0]),
            "the other worker is left alone"
        );
        names.sort();
        wait_until("the same names again", || {
            let mut again: Vec<String> = replaced.iter().map(|pid| name(*pid)).collect();
            again.sort();
            (again == names).then_some(())
        });
        server.get("/pid").assert_status(200);
    }
    server.log.wait("the signal", |text| {
        (text.contains("signal 9") || text.contains("SIGKILL")).then_some(())
    });
}

#[test]
fn the_only_worker_is_replaced_and_waiting_requests_are_served() {
    if !ours() {
        return;
    }
    let mut server = procs().start();
    server.expect_error("worker");
    server.expect_error("Fatal Python error: Aborted");
    for path in ["/die", "/abort"] {
        let old = server.workers()[0];
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(
            client.read_until_over(),
            b"",
            "the client of a dead worker sees an end"
        );
        let pid = server.get("/pid").text();
        assert_ne!(pid, old.number.to_string());
    }
    server.log.wait("the exit status", |text| {
        text.contains("status 7").then_some(())
    });
    server.log.wait_for("Fatal Python error: Aborted");
    server.log.wait_for("in application");
}

#[test]
fn term_finishes_the_running_request() {
    graceful(Signal::SIGTERM);
}

#[test]
fn quit_finishes_the_running_request() {
    graceful(Signal::SIGQUIT);
}

#[track_caller]
fn graceful(signal: Signal) {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).arg("--graceful-timeout", "1h").start();
    let gate = server.gate("gate");
    let workers = server.workers();
    let mut client = busy(&server);
    server.signal(signal);
    // The idle worker leaves at once: the order has arrived.
    wait_until("the idle worker to leave", || {
        (workers.iter().filter(|pid| pid.is_alive()).count() == 1).then_some(())
    });
    assert!(!server.has_exited());
    gate.open();
    client.response().assert_status(200);
    client.expect_end();
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn idle_connections_are_closed_on_term() {
    if !ours() {
        return;
    }
    let mut server = procs().tcp().unix().start();
    let mut idle = server.connect();
    let mut other = server.connect_to(1);
    let mut silent = server.connect();
    idle.get("/pid").assert_status(200);
    other.get("/pid").assert_status(200);
    server.signal(Signal::SIGTERM);
    idle.expect_end();
    other.expect_end();
    assert_eq!(silent.read_until_over(), b"");
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn int_stops_at_once() {
    if !ours() {
        return;
    }
    let mut server = procs().arg("--graceful-timeout", "1h").start();
    let _gate = server.gate("gate");
    let mut client = busy(&server);
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(client.read_until_over(), b"");
}

#[test]
fn a_second_term_stops_at_once() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).arg("--graceful-timeout", "1h").start();
    let _gate = server.gate("gate");
    let workers = server.workers();
    let mut client = busy(&server);
    server.signal(Signal::SIGTERM);
    wait_until("the idle worker to leave", || {
        (workers.iter().filter(|pid| pid.is_alive()).count() == 1).then_some(())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(client.read_until_over(), b"");
}

#[test]
fn a_request_that_never_ends_is_given_up_after_graceful_timeout() {
    if !ours() {
        return;
    }
    let mut server = procs().arg("--graceful-timeout", "1s").start();
    let _gate = server.gate("gate");
    let mut client = busy(&server);
    let began = std::time::Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(
        began.elapsed().as_millis() >= 900,
        "too early: {:?}",
        began.elapsed()
    );
    assert_eq!(client.read_until_over(), b"");
}

#[test]
fn ctrl_c_reaches_everybody_and_ends_cleanly() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).start();
    let all = server.supervisor().descendants();
    // What a terminal does: the whole foreground group gets it.
    all.iter().for_each(|pid| pid.signal(Signal::SIGINT));
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit().code(), Some(0));
    assert!(!server.finish().stderr.contains("KeyboardInterrupt"));
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).start();
    server.expect_error("the supervisor is gone");
    let all = server.supervisor().descendants();
    assert_eq!(all.len(), 3, "a master and two workers: {all:?}");
    server.signal(Signal::SIGKILL);
    server.wait_exit();
    all.iter().for_each(|pid| pid.wait_gone());
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind_even_when_a_worker_is_busy() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).start();
    server.expect_error("the supervisor is gone");
    let gate = server.gate("gate");
    let all = server.supervisor().descendants();
    let mut client = busy(&server);
    server.signal(Signal::SIGKILL);
    server.wait_exit();
    gate.open();
    client.read_until_over();
    all.iter().for_each(|pid| pid.wait_gone());
}

#[test]
fn a_killed_master_is_replaced_with_all_its_workers() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).start();
    server.expect_error("master");
    server.expect_error("killed by SIGKILL");
    let master = server.master();
    let workers = server.workers();
    master.signal(Signal::SIGKILL);
    master.wait_gone();
    workers.iter().for_each(|pid| pid.wait_gone());
    server.get("/pid").assert_status(200); // waits in the listener until somebody serves again
    assert_ne!(server.master(), master);
    assert!(server.workers().iter().all(|pid| !workers.contains(pid)));
    server.log.wait("the end of the master", |text| {
        (text.contains("signal 9") || text.contains("SIGKILL")).then_some(())
    });
}

#[test]
fn workers_hold_only_descriptors_they_need() {
    if !ours() {
        return;
    }
    let mut server = procs().workers(2).start();
    server.expect_error("killed by SIGKILL");
    let first = server.get("/fds").json();
    let known = [
        "socket:",
        "pipe:",
        "anon_inode:",
        "/memfd:",
        "/dev/null",
        "/proc/",
    ];
    for (number, target) in first.as_object().expect("an object") {
        let target = target.as_str().unwrap_or_default();
        assert!(
            known.iter().any(|start| target.starts_with(start)),
            "descriptor {number} is {target}"
        );
    }
    let count = first.as_object().map_or(0, serde_json::Map::len);
    assert!(count <= 24, "{count} descriptors: {first}");
    // A replacement inherits what the first had, not the remains of the dead.
    for _ in 0..5 {
        let old = server.workers()[0];
        old.signal(Signal::SIGKILL);
        wait_replaced(&server, old);
    }
    for _ in 0..10 {
        let again = server.get("/fds").json();
        let now = again.as_object().map_or(0, serde_json::Map::len);
        assert!(
            now <= count + 1,
            "{now} descriptors, at first {count}: {again}"
        );
    }
}

#[test]
fn programs_of_the_application_inherit_nothing_unusual() {
    if !ours() {
        return;
    }
    let server = procs().tcp().unix().start();
    let text = server.get("/child").text();
    let mask = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name} in {text}"));
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a mask of signals")
    };
    assert_eq!(mask("SigBlk"), 0, "blocked signals: {text}");
    // Whoever started the tests may ignore some; the server adds none.
    assert_eq!(
        mask("SigIgn") & !ignored_here(),
        0,
        "ignored signals: {text}"
    );
    // What the tests themselves were given without close-on-exec is not of the server's making.
    let given: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .expect("read our own descriptors")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("fd: ")) {
        let (number, target) = line.split_once(' ').expect("a number and a target");
        let own = number.parse().is_ok_and(|number: u32| number <= 2) || target.is_empty();
        assert!(
            own || target.starts_with("/proc/") || given.iter().any(|known| known == target),
            "{line} was left open for a program of the application:\n{text}"
        );
    }
}

/// The signals this process ignores, except those that Rust sets back for its children.
fn ignored_here() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read our own status");
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(line.expect("a line of every status").trim(), 16);
    mask.expect("a mask of signals") & !(1 << (Signal::SIGPIPE as u32 - 1))
}

#[test]
fn the_application_can_wait_for_its_own_children() {
    if !ours() {
        return;
    }
    let server = procs().start();
    for _ in 0..3 {
        server.get("/child-status").assert_text("5 6 7");
    }
}

#[test]
fn signals_of_the_application_stay_its_own() {
    if !ours() {
        return;
    }
    let text = procs().start().get("/signals").text();
    let mask = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("the line is in every status");
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a mask of signals")
    };
    // SIGHUP has a handler that does nothing, until the application sets its own.
    let taken = mask("SigCgt") | mask("SigIgn") | mask("SigBlk");
    for signal in [
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGCHLD,
    ] {
        assert_eq!(
            taken & (1 << (signal as u32 - 1)),
            0,
            "{signal} is taken: {text}"
        );
    }
}

#[test]
fn the_variables_of_systemd_do_not_reach_the_application() {
    if !ours() {
        return;
    }
    let environment = procs().start().get("/environment").json();
    for name in ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"] {
        assert!(
            environment.get(name).is_none(),
            "{name} would mislead the application's children"
        );
    }
}
