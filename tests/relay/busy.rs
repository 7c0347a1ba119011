//! Reload, recycling and scaling under many busy keep-alive clients: no request fails, no connection is
//! closed, and the statistics count what the clients have counted.

use super::{ours, relay};
use crate::support::{Control, PATIENCE, Running, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;

/// How long a storm lasts; `RSWSGI_TEST_LONG=1` (continuous integration) is the length that is promised.
fn length() -> Duration {
    match std::env::var_os("RSWSGI_TEST_LONG").is_some_and(|value| value == "1") {
        true => Duration::from_secs(30),
        false => Duration::from_secs(5),
    }
}

/// From one reload to the next; where one takes longer, the next one follows at once.
const PACE: Duration = Duration::from_millis(200);

/// What all clients together have seen.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    workers: BTreeSet<String>,
    failures: Vec<String>,
}

/// One connection for all requests of a client. Any end of it is a failure, also an announced one.
fn client(server: &Running, number: usize, answers: &AtomicUsize, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut client = server.connect();
    while !over.load(Ordering::Relaxed) {
        let what = format!("{number}-{}", seen.answers);
        let sent = client.try_send(format!("GET /echo?{what} HTTP/1.1\r\nHost: test\r\n\r\n"));
        match sent.and_then(|()| client.try_response()) {
            Ok(response) if response.status == 200 && !response.says_close() => {
                assert_eq!(response.text(), format!("{what}:"));
                let worker = response.field("X-Pid").unwrap_or_default();
                seen.workers.insert(worker.to_owned());
                seen.answers += 1;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(response) => {
                seen.failures.push(format!("{what}: {response:?}"));
                break;
            }
            Err(error) => {
                seen.failures.push(format!("{what}: {error}"));
                break;
            }
        }
    }
    seen
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All clients are busy while `storm` runs, which is told how many answers there have been.
#[track_caller]
fn under_load(server: &Running, storm: impl FnOnce(&dyn Fn() -> usize)) -> Seen {
    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (over, answers) = (&over, &answers);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(server, number, answers, over)))
            .collect();
        // A panic must let the clients go, too.
        let guard = Over(over);
        storm(&|| answers.load(Ordering::Relaxed));
        // Whatever has happened, everybody gets one more answer after it.
        let wanted = answers.load(Ordering::Relaxed) + 4 * CLIENTS;
        let deadline = Instant::now() + PATIENCE;
        while answers.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(guard);
        let mut all = Seen::default();
        for client in clients {
            let one = client.join().expect("the client has not panicked");
            all.answers += one.answers;
            all.workers.extend(one.workers);
            all.failures.extend(one.failures);
        }
        all
    })
}

#[track_caller]
fn assert_nobody_noticed(server: &Running, seen: &Seen) {
    println!("{} answers by {} workers", seen.answers, seen.workers.len());
    assert!(
        seen.failures.is_empty(),
        "{} of {CLIENTS} clients failed after {} answers: {:#?}",
        seen.failures.len(),
        seen.answers,
        &seen.failures[..seen.failures.len().min(5)]
    );
    // A client has its answer a moment before it is counted.
    let stats = wait_until("all answers to be counted", || {
        let stats = Control::of(server, "relay").app();
        let counted = stats["requests"]["status_2xx"].as_u64() >= Some(seen.answers as u64);
        // Whatever was handed over arrives, once.
        let relay = &stats["relay"];
        let sent = ["busy", "drain", "stuck", "balance"].map(|cause| relay[cause].as_u64());
        let sent: u64 = sent.into_iter().flatten().sum();
        (counted && relay["taken"] == sent).then_some(stats)
    });
    assert_eq!(stats["requests"]["total"], seen.answers, "{stats}");
    assert_eq!(stats["requests"]["status_2xx"], seen.answers, "{stats}");
    assert_eq!(stats["connections"]["accepted"], CLIENTS, "{stats}");
    assert_eq!(stats["relay"]["refused"], 0, "{stats}");
    for error in ["client_aborts", "broken_responses", "crashes", "exceptions"] {
        assert_eq!(stats["errors"][error], 0, "{stats}");
    }
}

fn count(server: &Running, piece: &str) -> usize {
    server.log.text().matches(piece).count()
}

#[test]
fn reloads_under_many_busy_clients_go_unnoticed() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let seen = under_load(&server, |_| {
        let start = Instant::now();
        for number in 1.. {
            let began = Instant::now();
            server.read_notifications();
            server.signal(Signal::SIGHUP);
            if number % 5 == 0 {
                // Another one takes the place of the one that has begun.
                std::thread::sleep(PACE / 10);
                server.signal(Signal::SIGHUP);
            }
            wait_until("the reload", || {
                (count(&server, "reloaded: ") >= number).then_some(())
            });
            if start.elapsed() > length() && number >= 5 {
                return;
            }
            std::thread::sleep(PACE.saturating_sub(began.elapsed()));
        }
    });
    assert_nobody_noticed(&server, &seen);
    let reloads = count(&server, "reloaded: ");
    println!("{reloads} reloads");
    assert!(reloads >= 5, "{reloads}");
    assert_eq!(count(&server, "reload failed"), 0);
    assert!(seen.workers.len() > reloads, "{seen:?}");
}

#[test]
fn recycling_under_many_busy_clients_goes_unnoticed() {
    if !ours() {
        return;
    }
    let server = relay()
        .arg("--max-requests", "300")
        .arg("--max-requests-jitter", "100")
        .start();
    let seen = under_load(&server, |answers| {
        wait_until("many answers", || (answers() > 6000).then_some(()));
    });
    assert_nobody_noticed(&server, &seen);
    assert!(seen.workers.len() >= 8, "{:?}", seen.workers);
}

#[test]
fn scaling_under_many_busy_clients_goes_unnoticed() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let mut control = Control::of(&server, "relay");
    let seen = under_load(&server, |answers| {
        for to in [4, 1, 3, 1, 2] {
            control.done(json!({"do": "scale", "to": to}));
            wait_until("as many workers", || {
                (server.crew().len() == to).then_some(())
            });
            let before = answers();
            wait_until("answers of theirs", || {
                (answers() > before + 300).then_some(())
            });
        }
    });
    assert_nobody_noticed(&server, &seen);
    assert!(seen.workers.len() >= 3, "{:?}", seen.workers);
}

#[test]
fn an_upgrade_under_many_busy_clients_goes_unnoticed() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let seen = under_load(&server, |answers| {
        for number in 1..=3 {
            server.read_notifications();
            server.signal(Signal::SIGUSR2);
            wait_until("the upgrade", || {
                (count(&server, "upgraded from") == number).then_some(())
            });
            let before = answers();
            wait_until("answers after it", || {
                (answers() > before + 300).then_some(())
            });
            server.signal(Signal::SIGHUP);
            wait_until("a reload", || {
                (count(&server, "reloaded: ") == number).then_some(())
            });
        }
    });
    assert_nobody_noticed(&server, &seen);
}

/// What the others are compared with: nothing happens, and everything is counted.
#[test]
fn many_busy_clients_are_counted() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let seen = under_load(&server, |answers| {
        wait_until("many answers", || (answers() > 3000).then_some(()));
    });
    assert_nobody_noticed(&server, &seen);
    assert_eq!(seen.workers.len(), 2);
}
