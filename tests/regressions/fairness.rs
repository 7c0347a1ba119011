//! One worker, more clients than it can serve at once: everybody has a turn. Time is counted in requests.

use super::{hostile, ours, worker};
use crate::support::{Load, Running, Server, wait_until};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How many requests the worker had taken, says the response.
fn number(response: &crate::support::Response) -> u64 {
    let text = response.assert_status(200).text();
    text.parse().unwrap_or_else(|_| panic!("{text:?}"))
}

#[test]
fn a_new_client_has_its_turn_among_busy_ones() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let taken = AtomicU64::new(0);
    // The busy ones stop by themselves, or a starved client would only show by waiting.
    let last = AtomicU64::new(u64::MAX);
    let done = AtomicBool::new(false);
    let busy = || {
        let mut client = server.connect();
        while !done.load(SeqCst) && taken.load(SeqCst) < last.load(SeqCst) {
            taken.fetch_max(number(&client.get("/count")), SeqCst);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(busy);
        }
        wait_until("all of them to be served", || {
            (taken.load(SeqCst) > 100).then_some(())
        });
        for _ in 0..3 {
            let mut client = server.connect();
            client.send("GET /count HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            let before = taken.load(SeqCst);
            last.store(before + 1000, SeqCst);
            let turn = number(&client.response());
            if turn > before + 200 {
                done.store(true, SeqCst);
                panic!("it came after {} others", turn - before);
            }
        }
        done.store(true, SeqCst);
    });
}

/// A client that has sent so many requests in one piece; the first is in the application already.
fn greedy(server: &Running, requests: usize) -> crate::support::Client {
    let mut client = server.connect();
    let one = "GET /count HTTP/1.1\r\nHost: test\r\n\r\n";
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n".to_owned() + &one.repeat(requests));
    let note = server.notes.next();
    assert!(note.starts_with("waiting "), "{note}");
    client
}

#[test]
fn a_client_that_pipelines_hundreds_of_requests_does_not_hold_off_another() {
    if !ours() {
        return;
    }
    let server = hostile().start();
    let gate = server.gate("gate");
    let mut known = server.connect();
    known.get("/pid").assert_status(200);
    let mut greedy = greedy(&server, 500);
    let mut new = server.connect();
    for client in [&mut known, &mut new] {
        client.send("GET /count HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    gate.open();
    let turns = [number(&known.response()), number(&new.response())];
    assert!(
        turns.iter().all(|turn| *turn < 100),
        "they came after so many requests: {turns:?}"
    );
    greedy.response().assert_status(200);
    for _ in 0..500 {
        greedy.response().assert_status(200);
    }
}

#[test]
fn term_is_obeyed_between_pipelined_requests() {
    if !ours() {
        return;
    }
    let mut server = hostile().workers(2).arg("--graceful-timeout", "1h").start();
    let gate = server.gate("gate");
    let workers = server.workers();
    let mut client = greedy(&server, 2000);
    server.signal(Signal::SIGTERM);
    // The idle worker leaves at once: the order has arrived.
    wait_until("the idle worker to leave", || {
        (workers.iter().filter(|pid| pid.is_alive()).count() == 1).then_some(())
    });
    gate.open();
    client.response().assert_status(200);
    client.read_until_over();
    assert_eq!(server.wait_exit().code(), Some(0));
    let served = server.file("counted").lines().count();
    assert!(served < 500, "{served} more requests after the order");
}

#[test]
fn a_new_client_takes_the_place_of_the_longest_idle_one() {
    if !ours() {
        return;
    }
    let server = hostile()
        .arg("--max-connections", "4")
        .arg("--keep-alive", "1h")
        .start();
    let worker = worker(&server);
    let mut idle: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut idle {
        client.get("/pid").assert_status(200);
    }
    let own = worker.number.to_string();
    let mut new = server.connect();
    new.get("/pid").assert_text(&own);
    idle[0].expect_end();
    for client in &mut idle[1..] {
        client.get("/pid").assert_text(&own);
    }
    new.get("/pid").assert_text(&own);
}

/// Each client has been idle for long enough to be closed when the next one comes.
#[test]
fn nobody_makes_room_while_a_sibling_has_some() {
    if !ours() {
        return;
    }
    let server = plain().workers(3).arg("--max-connections", "4").start();
    let mut clients: Vec<_> = (0..12)
        .map(|_| {
            let mut client = server.connect();
            client.get("/").assert_status(200);
            let now = Instant::now();
            wait_until("a client to be quiet", || {
                (now.elapsed() > Duration::from_millis(150)).then_some(())
            });
            client
        })
        .collect();
    for client in &mut clients {
        client.get("/").assert_status(200);
    }
}

/// Two places and never more than two clients: each finds one at once, whichever worker has it. With a pause
/// of a worker in the way, half of them would wait for 100 ms.
#[test]
fn who_has_left_clients_to_a_sibling_takes_them_again_when_it_has_room() {
    if !ours() {
        return;
    }
    let server = plain().workers(2).arg("--max-connections", "1").start();
    let mut other = None;
    let mut times: Vec<_> = (0..41)
        .map(|_| {
            let now = Instant::now();
            let mut client = server.connect();
            client.get("/").assert_status(200);
            other = Some(client);
            now.elapsed()
        })
        .collect();
    drop(other);
    times.sort_unstable();
    let most = times[times.len() * 3 / 4];
    assert!(most < Duration::from_millis(50), "{times:?}");
}

#[test]
fn a_new_client_takes_the_descriptor_of_the_longest_idle_one() {
    if !ours() {
        return;
    }
    let notice = "closing idle connections to accept others";
    let server = hostile().arg("--rlimit", "nofile=40");
    let server = server.expect_error(notice).start();
    let mut clients: Vec<_> = (0..60)
        .map(|_| {
            let mut client = server.connect();
            client.get("/pid").assert_status(200);
            client
        })
        .collect();
    clients[0].expect_end();
    clients[59].get("/pid").assert_status(200);
    server.finish().assert_says(notice);
}

/// An application that tells nobody that it was called, with the listeners of [`Load`].
fn plain() -> Server {
    let text = "def application(environ, start_response):\n    \
                    start_response('200 OK', [])\n    \
                    return [b'plain']\n";
    let server = Server::new().file("plain.py", text).app("plain");
    server.tcp().unix()
}

#[test]
fn more_clients_than_places_take_turns_and_lose_no_request() {
    if !ours() {
        return;
    }
    let server = plain().arg("--max-connections", "4").start();
    let load = Load::start(&server, 8);
    load.wait_answers(200);
    load.finish();
}

#[test]
fn busy_workers_that_exchange_connections_close_none() {
    if !ours() {
        return;
    }
    let server = plain().workers(4).arg("--relay-after", "1ms").start();
    let load = Load::start(&server, 24);
    load.wait_answers(100);
    load.finish();
}
