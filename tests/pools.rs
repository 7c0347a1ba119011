//! How many workers there are, and which: recycling, elastic pools, respawn, back-off, and what a
//! first process of a container has to do besides.

use crate::support::{Client, Pid, Running, Server, only_rswsgi, skip, wait_until};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

fn ours() -> bool {
    only_rswsgi("pools and what replaces what")
}

fn pools() -> Server {
    Server::new().app("pools")
}

fn ask(server: &Running, path: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client
}

/// The lines `pid time` that the application left in a file, in order.
fn records(server: &Running, file: &str) -> Vec<(i32, f64)> {
    let text = server.file(file);
    let lines = text.lines().map(|line| {
        let (pid, time) = line.split_once(' ').expect("a process and a time");
        let pid = pid.parse().expect("a process number");
        (pid, time.parse().expect("seconds"))
    });
    lines.collect()
}

/// What a client that goes on and on has seen.
#[derive(Debug, Default)]
struct Seen {
    by_worker: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Seen {
    fn count(&self) -> usize {
        self.by_worker.values().sum()
    }

    fn add(&mut self, other: Seen) {
        for (pid, count) in other.by_worker {
            *self.by_worker.entry(pid).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// A new connection for each request.
    Fresh,
    /// One connection for as long as the server keeps it. A close that is announced, or that is seen
    /// before a request is sent, is the server's right.
    Keeping,
}

/// One request after the other until `enough` says so.
fn go_on(server: &Running, habit: Habit, enough: impl Fn(usize) -> bool) -> Seen {
    let mut seen = Seen::default();
    let mut kept: Option<Client> = None;
    let mut number = 0;
    while !enough(number) {
        number += 1;
        let mut client = match kept.take().filter(|client| !client.has_answer()) {
            Some(client) => client,
            None => server.connect(),
        };
        let end = match habit {
            Habit::Fresh => "Connection: close\r\n",
            Habit::Keeping => "",
        };
        let sent = client.try_send(format!("GET /pid HTTP/1.1\r\nHost: test\r\n{end}\r\n"));
        match sent.and_then(|()| client.try_response()) {
            Ok(response) => {
                response.assert_status(200);
                *seen.by_worker.entry(response.text()).or_default() += 1;
                if habit == Habit::Keeping && !response.says_close() {
                    kept = Some(client);
                }
            }
            Err(error) => seen.failures.push(format!("request {number}: {error}")),
        }
    }
    seen
}

/// Runs the clients beside `meanwhile`; they stop when it is over and each has had `least` answers.
fn under_load(server: &Running, habits: &[Habit], least: usize, meanwhile: impl FnOnce()) -> Seen {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = habits
            .iter()
            .map(|habit| {
                let enough = |number| number >= least && over.load(Ordering::Relaxed);
                scope.spawn(move || go_on(server, *habit, enough))
            })
            .collect();
        // A panic in `meanwhile` must let the clients go, too.
        let guard = Over(&over);
        meanwhile();
        drop(guard);
        let mut all = Seen::default();
        for client in clients {
            all.add(client.join().expect("the client has not panicked"));
        }
        all
    })
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_worker_is_replaced_after_its_number_of_requests() {
    if !ours() {
        return;
    }
    let server = pools().arg("--max-requests", "5").start();
    // In the order of their first request: old and new serve side by side for a moment.
    let mut order: Vec<(String, usize)> = Vec::new();
    while order.len() < 4 {
        let pid = server.get("/pid").text();
        match order.iter_mut().find(|(known, _)| *known == pid) {
            Some((_, count)) => *count += 1,
            None => order.push((pid, 1)),
        }
    }
    order.pop();
    assert!(
        order.iter().all(|(_, count)| *count >= 5),
        "too early: {order:?}"
    );
    server
        .finish()
        .assert_says("has served its number of requests");
}

#[test]
fn the_jitter_only_adds_to_the_number_of_requests() {
    if !ours() {
        return;
    }
    let server = pools()
        .workers(2)
        .arg("--max-requests", "5")
        .arg("--max-requests-jitter", "5")
        .start();
    let replaced = || server.log.text().matches("its number of requests").count();
    while replaced() < 6 {
        let pid = server.get("/served").text();
        assert!(!pid.is_empty());
    }
    let mut served: BTreeMap<i32, usize> = BTreeMap::new();
    for (pid, _) in records(&server, "served") {
        *served.entry(pid).or_default() += 1;
    }
    let log = server.log.text();
    let gone = server.crew();
    let leavers = served
        .iter()
        .filter(|(pid, _)| !gone.iter().any(|worker| worker.number == **pid));
    let counts: Vec<usize> = leavers.map(|(_, count)| *count).collect();
    assert!(counts.len() >= 4, "{served:?}\n{log}");
    assert!(counts.iter().all(|count| *count >= 5), "{served:?}\n{log}");
}

#[test]
fn a_worn_worker_serves_until_its_replacement_is_ready() {
    if !ours() {
        return;
    }
    let server = pools().arg("--max-requests", "3").start();
    let gate = server.gate("fork-gate");
    let old = server.workers()[0];
    std::fs::write(server.dir().join("hold-after-fork"), "").expect("write a file");
    for _ in 0..3 {
        server.get("/pid").assert_text(&old.number.to_string());
    }
    let note = server.notes.next(); // the replacement has been forked and is held
    let new = note.strip_prefix("held ").expect("a note of the hook");
    for _ in 0..10 {
        server.get("/pid").assert_text(&old.number.to_string());
    }
    std::fs::remove_file(server.dir().join("hold-after-fork")).expect("remove a file");
    gate.open();
    old.wait_gone();
    server.get("/pid").assert_text(new);
}

#[test]
fn a_worn_worker_finishes_its_request() {
    if !ours() {
        return;
    }
    let server = pools().workers(2).arg("--max-requests", "2").start();
    let gate = server.gate("gate");
    let mut busy = ask(&server, "/wait");
    let note = server.notes.next();
    let pid = note
        .strip_prefix("waiting ")
        .expect("a note of the request");
    let old = Pid::of(pid.parse().expect("a process number")).expect("a living worker");
    // The second request of this worker wears it out, and it gets a third before it is replaced.
    busy.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n".repeat(2));
    gate.open();
    busy.response().assert_text(pid);
    server.notes.expect(&note);
    gate.open();
    busy.response().assert_text(pid);
    server.notes.expect(&note);
    // Its replacement serves beside it.
    wait_until("a third worker", || {
        (server.crew().len() == 3).then_some(())
    });
    assert!(old.is_alive());
    gate.open();
    busy.response().assert_text(pid);
    old.wait_gone();
}

#[test]
fn no_client_notices_that_workers_are_recycled() {
    if !ours() {
        return;
    }
    let server = pools()
        .workers(2)
        .arg("--max-requests", "40")
        .arg("--max-requests-jitter", "20")
        .start();
    let habits = [Habit::Fresh, Habit::Fresh, Habit::Keeping, Habit::Keeping];
    let seen = under_load(&server, &habits, 500, || {});
    assert!(
        seen.by_worker.len() >= 8,
        "recycled too seldom: {:?}",
        seen.by_worker
    );
    assert!(
        seen.failures.is_empty(),
        "{} of {} requests failed, with {} workers:\n{}",
        seen.failures.len(),
        seen.count(),
        seen.by_worker.len(),
        seen.failures.join("\n")
    );
    let log = server.finish();
    assert_eq!(log.count("warning"), 0, "{}", log.stderr);
}

#[test]
fn a_worker_is_replaced_at_its_age_and_not_before() {
    if !ours() {
        return;
    }
    let server = pools().workers(2).arg("--max-age", "1s").start();
    let seen = under_load(&server, &[Habit::Fresh, Habit::Fresh], 10, || {
        wait_until("two generations of workers", || {
            (records(&server, "forks").len() >= 6).then_some(())
        });
    });
    assert!(seen.failures.is_empty(), "{:?}", seen.failures);
    let forks = records(&server, "forks");
    // A replacement is not forked before the worker it replaces has reached its age.
    let first = forks[0].1;
    assert!(forks[2].1 >= first + 1.0, "too early: {forks:?}");
    assert!(forks[4].1 >= first + 2.0, "too early: {forks:?}");
    server.finish().assert_says("has reached its age");
}

#[test]
fn a_worker_that_leaks_is_replaced_and_one_that_does_not_is_not() {
    if !ours() {
        return;
    }
    let server = pools().workers(2).arg("--max-memory", "64m").start();
    let workers = server.workers();
    let mut client = server.connect();
    let pid = client.get("/leak?100").text();
    let leaking = |worker: &&Pid| worker.number.to_string() == pid;
    let fat = *workers.iter().find(leaking).expect("one of the workers");
    let slim = *workers.iter().find(|w| !leaking(w)).expect("the other");
    fat.wait_gone();
    wait_until("two workers again", || {
        (server.crew().len() == 2).then_some(())
    });
    assert!(slim.is_alive());
    server.get("/pid").assert_status(200);
    let log = server.finish();
    log.assert_says_once("of its own: replacing it");
}

#[test]
fn an_elastic_pool_grows_while_requests_wait_and_shrinks_when_they_do_not() {
    if !ours() {
        return;
    }
    let server = pools().pool("1..4").arg("--idle-timeout", "1s").start();
    let gate = server.gate("gate");
    assert_eq!(server.crew().len(), 1);
    let mut clients: Vec<Client> = (0..5).map(|_| ask(&server, "/wait")).collect();
    // Four run at the same time: nobody has passed the gate.
    let running: BTreeSet<String> = (0..4).map(|_| server.notes.next()).collect();
    assert_eq!(running.len(), 4, "each in a worker of its own: {running:?}");
    assert_eq!(server.crew().len(), 4);
    (0..5).for_each(|_| gate.open());
    for client in &mut clients {
        client.response().assert_status(200);
    }
    server.notes.next(); // the fifth, which has waited for a worker
    wait_until("the pool to shrink", || {
        (server.crew().len() == 1).then_some(())
    });
    server.get("/pid").assert_status(200);
    let last = records(&server, "served")
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    let left = records(&server, "exits");
    assert_eq!(left.len(), 3, "{left:?}");
    for (pid, time) in left {
        assert!(time >= last[&pid] + 1.0, "worker {pid} left too early");
    }
    let log = server.finish();
    assert_eq!(log.count("starting another"), 3, "{}", log.stderr);
    assert_eq!(log.count("has nothing to do"), 3, "{}", log.stderr);
}

#[test]
fn an_elastic_pool_grows_again_after_it_has_shrunk() {
    if !ours() {
        return;
    }
    let server = pools().pool("1..2").arg("--idle-timeout", "1s").start();
    let gate = server.gate("gate");
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..2).map(|_| ask(&server, "/wait")).collect();
        let running: BTreeSet<String> = (0..2).map(|_| server.notes.next()).collect();
        assert_eq!(running.len(), 2);
        (0..2).for_each(|_| gate.open());
        for client in &mut clients {
            client.response().assert_status(200);
        }
        wait_until("the pool to shrink", || {
            (server.crew().len() == 1).then_some(())
        });
    }
}

#[test]
fn an_elastic_pool_does_not_grow_while_the_cpus_are_the_limit() {
    if !ours() {
        return;
    }
    let cpus = std::thread::available_parallelism().map_or(1, Into::into);
    let server = pools().pool(&format!("{cpus}..{}", cpus * 3)).start();
    let workers = server.crew();
    std::thread::scope(|scope| {
        for _ in 0..cpus * 4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    server.get("/burn").assert_status(200);
                }
            });
        }
    });
    assert_eq!(server.crew(), workers);
    let log = server.finish();
    assert_eq!(log.count("starting another"), 0, "{}", log.stderr);
}

#[test]
fn signals_make_a_pool_larger_and_smaller() {
    if !ours() {
        return;
    }
    let server = pools().start();
    let first = server.crew();
    let wait_for = |count| {
        let what = format!("{count} workers");
        wait_until(&what, || (server.crew().len() == count).then_some(()));
    };
    assert_eq!(first.len(), 1);
    server.signal(Signal::SIGTTIN);
    wait_for(2);
    server.signal(Signal::SIGTTIN);
    wait_for(3);
    server.signal(Signal::SIGTTOU);
    wait_for(2);
    server.signal(Signal::SIGTTOU);
    wait_for(1);
    server.get("/pid").assert_status(200);
}

#[test]
fn a_fixed_pool_never_grows() {
    if !ours() {
        return;
    }
    let server = pools().workers(2).start();
    let gate = server.gate("gate");
    let workers = server.workers();
    let mut clients: Vec<Client> = (0..6).map(|_| ask(&server, "/wait")).collect();
    let expected: BTreeSet<String> = workers
        .iter()
        .map(|worker| format!("waiting {}", worker.number))
        .collect();
    let running: BTreeSet<String> = (0..2).map(|_| server.notes.next()).collect();
    assert_eq!(running, expected);
    for _ in 0..4 {
        gate.open();
        let next = server.notes.next();
        assert!(expected.contains(&next), "{next} is none of {expected:?}");
    }
    (0..2).for_each(|_| gate.open());
    for client in &mut clients {
        client.response().assert_status(200);
    }
    assert_eq!(server.workers(), workers);
    assert_eq!(server.finish().count("starting another"), 0);
}

/// How often the master has slept and been woken.
fn wake_ups(master: Pid) -> u64 {
    let count = master.status("voluntary_ctxt_switches");
    count.and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn the_master_of_a_fixed_pool_sleeps_while_its_workers_are_busy() {
    if !ours() {
        return;
    }
    let server = pools().workers(1).start();
    let before = wake_ups(server.master());
    let seen = under_load(&server, &[Habit::Fresh; 4], 1000, || {});
    let woken = wake_ups(server.master()) - before;
    assert!(woken < 20, "{woken} wake-ups for {} requests", seen.count());
    server.finish();
}

#[test]
fn the_master_of_an_elastic_pool_looks_now_and_then_only() {
    if !ours() {
        return;
    }
    let server = pools().pool("1..2").start();
    let (began, before) = (Instant::now(), wake_ups(server.master()));
    let seen = under_load(&server, &[Habit::Fresh; 4], 1000, || {});
    let woken = u128::from(wake_ups(server.master()) - before);
    // It looks every 4 ms at most; a slow machine gives it more time and fewer reasons.
    let most = began.elapsed().as_millis() / 2 + 50;
    assert!(
        woken < most,
        "{woken} wake-ups for {} requests, at most {most} expected",
        seen.count()
    );
    server.finish();
}

#[test]
fn a_crashed_worker_is_replaced_at_once_while_the_other_is_busy() {
    if !ours() {
        return;
    }
    let mut server = pools().workers(2).start();
    server.expect_error("exited with status 7");
    let gate = server.gate("gate");
    let mut busy = ask(&server, "/wait");
    server.notes.next();
    // As many as there are workers may crash in a row before it counts as a loop.
    for _ in 0..2 {
        let mut client = ask(&server, "/crash");
        assert_eq!(client.read_until_over(), b"");
        // Only the replacement can answer this.
        server.get("/pid").assert_status(200);
    }
    gate.open();
    busy.response().assert_status(200);
    let forks = records(&server, "forks");
    assert_eq!(forks.len(), 4, "{forks:?}");
}

#[test]
fn a_crash_under_load_costs_the_requests_of_one_worker_only() {
    if !ours() {
        return;
    }
    let mut server = pools().workers(2).start();
    server.expect_error("killed by SIGKILL");
    let mut killed = Vec::new();
    let habits = [Habit::Fresh, Habit::Fresh, Habit::Keeping, Habit::Keeping];
    let seen = under_load(&server, &habits, 300, || {
        let victim = server.workers()[0];
        victim.signal(Signal::SIGKILL);
        wait_until("a replacement", || {
            Some(server.workers()).filter(|workers| !workers.contains(&victim))
        });
        killed.push(victim.number.to_string());
    });
    // Its request, and those that were sent on other connections that it held.
    assert!(seen.failures.len() <= habits.len(), "{:?}", seen.failures);
    assert!(seen.count() + seen.failures.len() >= 1200);
    let workers = server.workers();
    for worker in workers {
        let count = seen.by_worker.get(&worker.number.to_string());
        assert!(count.is_some(), "{worker:?} has served nobody: {seen:?}");
    }
    assert_eq!(server.finish().count("; replacing it"), 1);
}

#[test]
fn start_failures_are_slowed_down_and_overcome() {
    if !ours() {
        return;
    }
    let mut server = pools().start();
    server.expect_error("exited with status 3");
    server.expect_error("killed by SIGKILL");
    std::fs::write(server.dir().join("die-after-fork"), "").expect("write a file");
    server.workers()[0].signal(Signal::SIGKILL);
    let forks = wait_until("four failed starts", || {
        Some(records(&server, "forks")).filter(|forks| forks.len() >= 6)
    });
    let gaps: Vec<f64> = forks.windows(2).map(|two| two[1].1 - two[0].1).collect();
    for (gap, least) in gaps[1..].iter().zip([0.1, 0.2, 0.4, 0.8]) {
        assert!(*gap >= least, "too soon: {gaps:?}");
    }
    std::fs::remove_file(server.dir().join("die-after-fork")).expect("remove a file");
    server.get("/pid").assert_status(200); // has waited in the listener
    assert!(!server.has_exited());
}

#[test]
fn a_generation_whose_workers_die_at_once_ends_with_a_reason() {
    if !ours() {
        return;
    }
    let finished = pools().workers(2).file("die-after-fork", "").run();
    finished.assert_status(78);
    finished.assert_says_once("cannot serve pools: its workers end before they are ready");
    finished.assert_says("exited with status 3");
}

/// The server as the first process of a pid namespace, as in a container. None: not possible here.
fn first_process() -> Option<Server> {
    let words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let trial = Command::new(words[0])
        .args(&words[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status();
    match trial {
        Ok(status) if status.success() => Some(pools().within(&words)),
        _ => {
            skip("a pid namespace takes root and unshare(1)");
            None
        }
    }
}

#[test]
fn the_first_process_of_a_container_stops_on_term() {
    if !ours() {
        return;
    }
    let Some(server) = first_process() else {
        return;
    };
    let mut server = server.workers(2).start();
    assert_eq!(
        server.supervisor().status("NSpid").as_deref(),
        Some(&*format!("{}\t1", server.supervisor().number))
    );
    server.get("/pid").assert_status(200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn the_first_process_of_a_container_reaps_strangers() {
    if !ours() {
        return;
    }
    let Some(server) = first_process() else {
        return;
    };
    let server = server.start();
    let workers = server.crew();
    for number in 1..=10 {
        server.get("/orphan").assert_text("left");
        wait_until("the orphan to end", || {
            (server.file("orphans").lines().count() == number).then_some(())
        });
    }
    wait_until("the orphans to be reaped", || {
        let supervisor = server.supervisor();
        (supervisor.zombies() == 0 && supervisor.children().len() == 1).then_some(())
    });
    assert_eq!(server.crew(), workers);
    server.get("/pid").assert_status(200);
}

#[test]
fn the_first_process_of_a_container_still_learns_of_its_own_children() {
    if !ours() {
        return;
    }
    let Some(server) = first_process() else {
        return;
    };
    let mut server = server.start();
    server.expect_error("killed by SIGKILL");
    let master = server.master();
    master.signal(Signal::SIGKILL);
    master.wait_gone();
    server.get("/pid").assert_status(200);
    server.log.wait_for("the master ended, killed by SIGKILL");
}
