//! Applications that fork, use multiprocessing and threads while connections of their worker are handed
//! over: no warning (CPython warns of a fork in a process with threads from 3.12 on), no hang, nothing
//! served twice, and no child that keeps a connection open.

use super::{ask, ask_each, assert_each_served_once, noted, ours, pin, relay};
use crate::support::{Running, pythons};

/// On every CPython that is here; a deprecation warning is an exception.
#[track_caller]
fn on_each_python(prove: impl Fn(&Running)) {
    if !ours() {
        return;
    }
    for python in pythons() {
        println!("CPython {:?}", python.version);
        let server = relay()
            .python(python.path)
            .env("PYTHONWARNINGS", "error::DeprecationWarning")
            .start();
        server.get("/warnings").assert_text("errors");
        prove(&server);
        let log = server.finish();
        assert_eq!(log.count("warning"), 0, "{}", log.stderr);
    }
}

/// The application does `path` while ten other connections of its worker are served by the sibling.
#[track_caller]
fn assert_undisturbed(path: &str, answer: &str) {
    on_each_python(|server| {
        let gate = server.gate("gate");
        let mut pinned = pin(server, 11, 0);
        let sibling = pinned.sibling.number.to_string();
        let mut busy = pinned.clients.remove(0);
        ask(&mut busy, path);
        assert_eq!(noted(server, "busy"), pinned.owner);
        // Half of them before, half of them at the same time.
        let (first, second) = pinned.clients.split_at_mut(5);
        for (number, client) in first.iter_mut().enumerate() {
            ask(client, &format!("/served?{number}"));
            client.response().assert_text(&sibling);
        }
        for (number, client) in second.iter_mut().enumerate() {
            ask(client, &format!("/served?{}", 5 + number));
        }
        gate.open();
        busy.response().assert_text(answer);
        for client in second {
            client.response().assert_status(200);
        }
        for client in &mut pinned.clients {
            client.get("/pid").assert_status(200);
        }
        assert_each_served_once(server, 10);
        let mut crew = server.crew();
        crew.sort();
        let mut both = [pinned.owner, pinned.sibling];
        both.sort();
        assert_eq!(crew, both, "nobody was replaced");
    });
}

#[test]
fn fork() {
    assert_undisturbed("/fork", "child 7");
}

/// The child has the hooks of its parent, and copies of its connections.
#[test]
fn a_child_that_forks() {
    assert_undisturbed("/fork-twice", "threads 1");
}

#[test]
fn a_pool_of_forked_processes() {
    assert_undisturbed("/pool-by-fork", "[2, 4, 6]");
}

#[test]
fn a_pool_of_spawned_processes() {
    assert_undisturbed("/pool-by-spawn", "[2, 4, 6]");
}

#[test]
fn threads() {
    assert_undisturbed("/threads", "[0, 2, 4, 6, 8], 1 left");
}

/// The child comes back from the application as its parent does: it serves nothing.
#[test]
fn a_child_that_returns_serves_nothing() {
    on_each_python(|server| {
        let gate = server.gate("gate");
        let mut pinned = pin(server, 11, 0);
        let mut busy = pinned.clients.remove(0);
        ask(&mut busy, "/fork-and-return");
        noted(server, "busy");
        ask_each(&mut pinned.clients);
        gate.open();
        for client in &mut pinned.clients {
            client.response().assert_status(200);
        }
        busy.response()
            .assert_text(&pinned.owner.number.to_string());
        let both = [server.notes.next(), server.notes.next()];
        let own = format!("returns {}", pinned.owner.number);
        assert!(both.contains(&own), "{both:?}");
        busy.get("/pid").assert_status(200);
        assert_each_served_once(server, 10);
    });
}

/// The child has every connection of its parent open, also those that are somebody else's by now.
#[test]
fn a_connection_ends_although_a_child_of_its_former_worker_lives_on() {
    if !ours() {
        return;
    }
    let server = relay().start();
    let (gate, child_gate) = (server.gate("gate"), server.gate("child-gate"));
    let mut pinned = pin(&server, 4, 0);
    let sibling = pinned.sibling.number.to_string();
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/fork-and-stay");
    noted(&server, "busy");
    gate.open();
    busy.response().assert_text("forked");
    let child = noted(&server, "child");
    // The worker is busy again, and its connections, of which the child has copies, go to the sibling.
    ask(&mut busy, "/wait");
    noted(&server, "waiting");
    for client in &mut pinned.clients {
        client.get("/pid").assert_text(&sibling);
        client.send("GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        client.response().assert_text(&sibling);
        client.expect_end();
    }
    assert!(child.is_alive(), "the end must not need that of the child");
    child_gate.open();
    child.wait_gone();
    gate.open();
    busy.response().assert_status(200);
}

/// The interpreter lock goes to and fro between the request and a thread of the application.
#[test]
fn a_thread_that_works_on_disturbs_nobody() {
    on_each_python(|server| {
        let gate = server.gate("gate");
        let mut pinned = pin(server, 11, 0);
        pinned.clients[0].get("/thread-stays").assert_status(200);
        let mut busy = pinned.clients.remove(0);
        for round in 0..3 {
            let owner: String = busy.get("/pid").text();
            ask(&mut busy, "/wait");
            assert_eq!(noted(server, "waiting").number.to_string(), owner);
            for (number, client) in pinned.clients.iter_mut().enumerate() {
                ask(client, &format!("/served?{}", 10 * round + number));
            }
            for client in &mut pinned.clients {
                client.response().assert_status(200);
            }
            gate.open();
            busy.response().assert_text(&owner);
        }
        assert_each_served_once(server, 30);
    });
}

/// While its request goes on after a fork, others of the worker are served by the sibling.
#[track_caller]
fn assert_watched_after(path: &str, word: &str) {
    if !ours() {
        return;
    }
    let server = relay().start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 4, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, path);
    assert_eq!(noted(&server, word), pinned.owner);
    let sibling = pinned.sibling.number.to_string();
    for client in &mut pinned.clients {
        client.get("/pid").assert_text(&sibling);
    }
    gate.open();
    busy.response()
        .assert_text(&pinned.owner.number.to_string());
}

#[test]
fn a_request_that_waits_for_its_child_keeps_nobody_waiting() {
    assert_watched_after("/fork-and-join", "joined");
}

/// The main thread has nothing of Python to run before its request is over.
#[test]
fn a_request_during_which_a_thread_forks_keeps_nobody_waiting() {
    assert_watched_after("/thread-forks", "forked");
}
