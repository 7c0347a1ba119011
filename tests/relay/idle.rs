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
