//! Planned ends under load, with a client that does what the production client does: as soon as a
//! process says that it takes no more connections, requests go to another one, also those that would
//! have had an idle connection. A request whose connection ends with nothing said is asked again.

use super::{multi, ours};
use crate::support::was_client::*;
use crate::support::{MultiClient, Running, Server, WasClient};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// The process that takes connections, and how many there have been.
struct Current {
    number: usize,
    multi: MultiClient,
}

struct Balancer {
    current: Mutex<Current>,
    old: Mutex<Vec<Running>>,
    stop: AtomicBool,
    asked: AtomicU64,
    again: AtomicU64,
}

fn start() -> (Running, MultiClient) {
    multi(Server::new().app("was_app").workers(2))
}

impl Balancer {
    fn current(&self) -> MutexGuard<'_, Current> {
        let mut current = self.current.lock().expect("nobody has panicked");
        if current.multi.is_retired() {
            let (server, multi) = start();
            self.old.lock().expect("nobody has panicked").push(server);
            let number = current.number + 1;
            *current = Current { number, multi };
        }
        current
    }

    fn ask_on(&self) {
        let mut mine: Option<(usize, WasClient)> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let id = self.asked.fetch_add(1, Ordering::Relaxed);
            let asking = Asking::get(&format!("/seen?{id}")).bytes();
            loop {
                let current = self.current();
                let client = match mine.take() {
                    Some((number, client)) if number == current.number => client,
                    _ => current.multi.connect(),
                };
                let number = current.number;
                drop(current);
                let (_, client) = mine.insert((number, client));
                let answer = client
                    .try_send(&asking)
                    .ok()
                    .and_then(|()| client.try_answer());
                if let Some(answer) = answer {
                    answer.assert_text("seen");
                    break;
                }
                mine = None;
                self.again.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn planned_ends_under_load_lose_no_request_and_run_none_twice() {
    if !ours() {
        return;
    }
    let (server, multi) = start();
    let balancer = Balancer {
        current: Mutex::new(Current { number: 0, multi }),
        old: Mutex::new(vec![server]),
        stop: AtomicBool::new(false),
        asked: AtomicU64::new(0),
        again: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..6).map(|_| scope.spawn(|| balancer.ask_on())).collect();
        for round in 0..4 {
            let before = balancer.asked.load(Ordering::Relaxed);
            crate::support::wait_until("more answers", || {
                let is_over = askers.iter().any(|asker| asker.is_finished());
                (is_over || balancer.asked.load(Ordering::Relaxed) > before + 100).then_some(())
            });
            let old = balancer.old.lock().expect("nobody has panicked");
            old[round].signal(Signal::SIGTERM);
            drop(old);
            crate::support::wait_until("the next process", || {
                let is_over = askers.iter().any(|asker| asker.is_finished());
                let count = balancer.old.lock().map(|old| old.len()).unwrap_or_default();
                (is_over || count > round + 1).then_some(())
            });
        }
        balancer.stop.store(true, Ordering::Relaxed);
    });
    drop(balancer.current.into_inner());
    let mut seen = Vec::new();
    for mut server in balancer.old.into_inner().expect("nobody has panicked") {
        assert!(server.wait_exit().success());
        seen.extend(server.file("seen").lines().map(str::to_owned));
    }
    let asked = balancer.asked.load(Ordering::Relaxed);
    let different: BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len() as u64, different.len() as u64), (asked, asked));
}

/// The production client says TERM as soon as it has the last answer. What the application does after that
/// (`close`) is a part of the request.
#[test]
fn the_term_of_the_client_cuts_nothing_that_the_application_still_does() {
    if !ours() {
        return;
    }
    for first in [Some(Signal::SIGTERM), None] {
        let (mut server, multi) = multi(Server::new().app("was_app"));
        let gate = server.gate("gate");
        let mut client = multi.connect();
        client.get("/late-close").assert_text("all of it");
        server.notes.expect("closing");
        if let Some(signal) = first {
            server.signal(signal);
            multi.wait_retired();
        }
        drop((client, multi));
        server.log.wait_for("stopping: ");
        server.signal(Signal::SIGTERM);
        server.log.wait_for("still finishing what runs");
        gate.open();
        server.notes.expect("closed");
        assert!(server.wait_exit().success());
    }
}
