//! The lines are those of the requests, no more and no less, while workers are killed, generations and
//! the supervisor's own program replaced, and log files moved away.

use super::{logged, ours};
use crate::support::{Client, Random, Running, wait_until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CLIENTS: u64 = 4;
const KILLS: usize = 8;

/// What became of the requests of one client: by its query, whether it was answered.
type Seen = BTreeMap<String, bool>;

/// Asks until it is told to stop. A client whose request fails goes on with a new connection.
fn ask(server: &Running, number: u64, stop: &AtomicBool, answers: &AtomicU64) -> Seen {
    let mut seen = Seen::new();
    let mut client: Option<Client> = None;
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut connected = client.take().unwrap_or_else(|| server.connect());
        let query = format!("{number}-{round}");
        let request = format!("GET /hello?{query} HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = connected
            .try_send(&request)
            .and_then(|()| connected.try_response());
        let is_answered = response.is_ok();
        if let Ok(response) = response {
            response.assert_text("hello\n");
            answers.fetch_add(1, Ordering::Relaxed);
            client = Some(connected).filter(|_| !response.says_close());
        }
        seen.insert(query, is_answered);
    }
    seen
}

/// Runs clients while `trouble` does its work; what they have seen.
fn storm(server: &Running, trouble: impl FnOnce(&dyn Fn(u64))) -> Seen {
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (stop, answers) = (&stop, &answers);
                scope.spawn(move || ask(server, number, stop, answers))
            })
            .collect();
        let more = |count| {
            let goal = answers.load(Ordering::Relaxed) + count;
            wait_until("answers", || {
                (answers.load(Ordering::Relaxed) >= goal).then_some(())
            });
        };
        trouble(&more);
        stop.store(true, Ordering::Relaxed);
        let seen = clients.into_iter().flat_map(|client| {
            let seen = client.join();
            seen.expect("a client has failed")
        });
        seen.collect()
    })
}

/// Each answered request has one line, the others one or none, and there are no further lines. A worker
/// may be killed between an answer and its line: so often at most is an answered request told as killed.
#[track_caller]
fn assert_told(text: &str, seen: &Seen, kills: usize) {
    let mut cut = 0;
    let mut told: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for line in super::lines_of(text) {
        let query = line["query"].as_str().expect("a query").to_owned();
        told.entry(query).or_default().push(line);
    }
    for (query, is_answered) in seen {
        let lines = told.remove(query).unwrap_or_default();
        match is_answered {
            true => {
                assert_eq!(lines.len(), 1, "{query}: {lines:?}");
                match lines[0]["outcome"].as_str() {
                    Some("killed") => cut += 1,
                    _ => assert_eq!(lines[0]["status"], 200, "{lines:?}"),
                }
            }
            false => assert!(lines.len() <= 1, "{query}: {lines:?}"),
        }
    }
    assert!(told.is_empty(), "nobody asked for {told:?}");
    assert!(cut <= kills, "{cut} answered requests are told as killed");
}

#[test]
fn killed_workers_lose_no_line_and_make_none() {
    if !ours() {
        return;
    }
    let mut server = logged()
        .workers(3)
        .expect_error("killed by SIGKILL")
        .start();
    let seen = storm(&server, |more| {
        let mut random = Random::new(4);
        for _ in 0..KILLS {
            more(150);
            let crew = server.crew();
            if !crew.is_empty() {
                crew[random.below(crew.len())].signal(Signal::SIGKILL);
            }
        }
        more(150);
    });
    assert!(seen.values().filter(|answered| **answered).count() >= 1350);
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    assert_told(&server.file("access.log"), &seen, KILLS);
}

#[test]
fn reloads_upgrades_and_rotations_lose_no_line() {
    if !ours() {
        return;
    }
    let mut server = logged().workers(2).start();
    let mut moved = 0;
    let seen = storm(&server, |more| {
        for step in 0..9 {
            more(100);
            match step % 3 {
                0 => {
                    let path = server.dir().join("access.log");
                    let old = server.dir().join(format!("access.log.{moved}"));
                    std::fs::rename(&path, old).expect("move the log away");
                    moved += 1;
                    server.signal(Signal::SIGUSR1);
                    wait_until("the new file", || path.exists().then_some(()));
                }
                1 => {
                    server.signal(Signal::SIGHUP);
                    let generation = format!("generation {}", 2 + step / 3);
                    server.log.wait_for(&generation);
                }
                _ => {
                    server.signal(Signal::SIGUSR2);
                    let count = 1 + step / 3;
                    server.log.wait("an upgrade", |text| {
                        (text.matches("upgraded from").count() == count).then_some(())
                    });
                }
            }
        }
        more(100);
    });
    assert!(seen.values().all(|answered| *answered), "{seen:?}");
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    let mut text: String = (0..moved)
        .map(|number| server.file(&format!("access.log.{number}")))
        .collect();
    text.push_str(&server.file("access.log"));
    assert_told(&text, &seen, 0);
}
