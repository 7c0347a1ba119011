//! An idle server sleeps: no thread of it is woken, however many connections were handed over before.

use super::{ask, noted, ours, pin, relay};
use crate::support::{Pid, Running};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often each thread of a process was taken off a CPU, by its number.
fn switches(pid: Pid) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.number));
    let tasks = tasks.expect("a living process").flatten();
    tasks
        .map(|task| {
            let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let counts = text.lines().filter(|line| line.contains("ctxt_switches"));
            let numbers = counts.filter_map(|line| line.split('\t').nth(1)?.parse::<u64>().ok());
            let name = task.file_name().to_string_lossy().into_owned();
            (name, numbers.sum())
        })
        .collect()
}

fn all(server: &Running) -> Vec<(Pid, BTreeMap<String, u64>)> {
    let crew = server.crew().into_iter();
    crew.map(|pid| (pid, switches(pid))).collect()
}

/// Longer than every interval at which anything of a worker could want to look at something.
const PERIOD: Duration = Duration::from_millis(2500);

#[test]
fn an_idle_worker_is_never_woken() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 20, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/wait");
    noted(&server, "waiting");
    for client in &mut pinned.clients {
        client.get("/pid").assert_status(200);
    }
    gate.open();
    busy.response().assert_status(200);
    // What follows a request ends by itself; then nothing more is to come.
    std::thread::sleep(Duration::from_millis(1000));
    let before = all(&server);
    assert_eq!(before.len(), 2);
    std::thread::sleep(PERIOD);
    assert_eq!(all(&server), before);
    for client in &mut pinned.clients {
        client.get("/pid").assert_status(200);
    }
    assert_ne!(all(&server), before, "the count counts");
}

/// Signals are for the main thread, and for Python.
#[test]
fn the_watcher_takes_no_signal() {
    if !ours() {
        return;
    }
    let server = relay().start();
    server.get("/pid").assert_status(200);
    let mut found = 0;
    for worker in server.crew() {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", worker.number));
        for task in tasks.expect("a living process").flatten() {
            let text = std::fs::read_to_string(task.path().join("status")).expect("a thread");
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::trim).expect("a field").to_owned()
            };
            if field("Name:") == "rswsgi-watcher" {
                // All but KILL, STOP and the two that the C library keeps for itself.
                let blocked = u64::from_str_radix(&field("SigBlk:"), 16).expect("a mask");
                let free = 1 << 8 | 1 << 18 | 1 << 31 | 1 << 32;
                assert_eq!(!blocked & !free, 0, "{blocked:x}");
                found += 1;
            }
        }
    }
    assert!(found > 0, "no watcher");
}
