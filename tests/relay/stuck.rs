//! A worker stuck in C code costs the one request that is stuck. No signal and no limit of the application's time
//! reaches it; its other connections are served all the same.

use super::{Pinned, ask, ask_each, assert_each_served_once, noted, ours, pin, relay};
use crate::support::client::Asked;
use crate::support::{Control, Running, Server, wait_until};
use nix::sys::signal::Signal;

const OTHERS: usize = 20;

fn killing(server: Server) -> Server {
    server
        .arg("--request-timeout", "400ms")
        .arg("--kill-timeout", "400ms")
        .expect_error("is stuck in")
        .expect_error("killed by SIGKILL")
        .expect_error("is up")
}

fn access_log(server: &Running) -> Vec<String> {
    server.file("access").lines().map(str::to_owned).collect()
}

/// The only worker is stuck with twenty more connections: one 504, and the next worker serves them.
#[track_caller]
fn assert_costs_one_request(path: &str) {
    if !ours() {
        return;
    }
    let server = relay().workers(1);
    let access = server.dir().join("access");
    let server = killing(server).arg("--access-log", access).start();
    let worker = server.workers()[0];
    let mut clients: Vec<_> = (0..OTHERS).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/pid").assert_text(&worker.number.to_string());
    }
    let mut victim = server.connect();
    ask(&mut victim, path);
    assert_eq!(noted(&server, "stuck"), worker);
    ask_each(&mut clients);
    let response = victim.response();
    response.assert_status(504);
    assert!(response.says_close(), "{response:?}");
    victim.expect_end();
    for client in &mut clients {
        let response = client.response();
        response.assert_status(200);
        assert_ne!(response.text(), worker.number.to_string());
        client.get("/pid").assert_status(200);
    }
    worker.wait_gone();
    assert_each_served_once(&server, OTHERS);
    let stats = wait_until("the worker to be counted", || {
        let stats = Control::of(&server, "relay").app();
        (stats["errors"]["hard_timeouts"] == 1).then_some(stats)
    });
    assert_eq!(stats["requests"]["status_5xx"], 1, "{stats}");
    let expected = 3 * OTHERS + 1;
    let lines = wait_until("all lines of the access log", || {
        let lines = access_log(&server);
        (lines.len() >= expected).then_some(lines)
    });
    assert_eq!(lines.len(), expected, "{lines:#?}");
    let of_victim = format!("\"GET {path} HTTP/1.1\" 504 ");
    let found = lines.iter().filter(|line| line.contains(&of_victim));
    assert_eq!(found.count(), 1, "{lines:#?}");
    let failed = lines.iter().filter(|line| !line.contains(" 200 "));
    assert_eq!(failed.count(), 1, "{lines:#?}");
    let log = server.finish();
    log.assert_says_once(&format!("is stuck in \"GET {path} HTTP/1.1\""));
    log.assert_says_once("killed by SIGKILL");
}

#[test]
fn c_code_that_holds_the_interpreter_and_sleeps_costs_one_request() {
    assert_costs_one_request("/stuck-asleep");
}

#[test]
fn c_code_that_holds_the_interpreter_and_computes_costs_one_request() {
    assert_costs_one_request("/stuck-computing");
}

/// Nobody is killed yet: the sibling serves the others for as long as it takes.
#[test]
fn connections_of_a_stuck_worker_do_not_wait_for_its_end() {
    if !ours() {
        return;
    }
    let mut server = relay().arg("--request-timeout", "1h").start();
    let Pinned {
        owner,
        sibling,
        mut clients,
    } = pin(&server, OTHERS + 1, 0);
    let mut victim = clients.remove(0);
    ask(&mut victim, "/stuck-asleep");
    assert_eq!(noted(&server, "stuck"), owner);
    ask_each(&mut clients);
    for client in &mut clients {
        client.response().assert_text(&sibling.number.to_string());
    }
    assert_each_served_once(&server, OTHERS);
    assert!(!victim.has_answer());
    server.expect_error("killed by SIGKILL");
    owner.signal(Signal::SIGKILL);
    assert_eq!(victim.read_until_over(), b"");
}

/// Bytes of the response have left: whatever followed would be taken for a part of it.
#[test]
fn a_response_that_has_begun_is_cut_and_gets_no_504() {
    if !ours() {
        return;
    }
    let server = killing(relay().workers(1)).start();
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.get("/pid").assert_status(200);
    }
    let mut victim = server.connect();
    ask(&mut victim, "/stuck-within");
    victim.head(Asked::Plain);
    let worker = noted(&server, "stuck");
    ask_each(&mut clients);
    let rest = victim.read_until_over();
    assert_eq!(String::from_utf8_lossy(&rest), "4\r\nsome\r\n");
    for client in &mut clients {
        client.response().assert_status(200);
    }
    worker.wait_gone();
    assert_each_served_once(&server, 3);
}

/// What the stuck client has sent behind its request is nobody's.
#[test]
fn requests_behind_the_stuck_one_are_not_run() {
    if !ours() {
        return;
    }
    let server = killing(relay().workers(1)).start();
    let mut victim = server.connect();
    victim.send(
        "GET /stuck-asleep HTTP/1.1\r\nHost: test\r\n\r\n\
         GET /served?0 HTTP/1.1\r\nHost: test\r\n\r\n",
    );
    let worker = noted(&server, "stuck");
    victim.response().assert_status(504);
    assert_eq!(victim.read_until_over(), b"");
    worker.wait_gone();
    server.get("/pid").assert_status(200);
    assert_each_served_once(&server, 0);
}

/// A worker that is killed by somebody else has nobody who could answer for it; its connections are lost with it,
/// but those that were handed over before live on.
#[test]
fn what_was_handed_over_survives_the_worker() {
    if !ours() {
        return;
    }
    let mut server = relay().arg("--request-timeout", "1h").start();
    let mut pinned = pin(&server, 5, 0);
    let mut victim = pinned.clients.remove(0);
    ask(&mut victim, "/stuck-asleep");
    noted(&server, "stuck");
    let sibling = pinned.sibling.number.to_string();
    for client in &mut pinned.clients {
        client.get("/pid").assert_text(&sibling);
    }
    server.expect_error("killed by SIGKILL");
    pinned.owner.signal(Signal::SIGKILL);
    pinned.owner.wait_gone();
    for client in &mut pinned.clients {
        client.get("/pid").assert_text(&sibling);
    }
    assert_eq!(victim.read_until_over(), b"");
}

/// The application comes back between the answer that its client got and the end of its process: it is one request.
#[test]
fn an_answer_to_a_request_that_comes_back_after_all_is_counted_once() {
    if !ours() {
        return;
    }
    let server = killing(relay().workers(1))
        .expect_error("the time of")
        .start();
    let gate = server.gate("gate");
    let mut victim = server.connect();
    ask(&mut victim, "/stubborn");
    let worker = noted(&server, "stuck");
    victim.response().assert_status(504);
    gate.open();
    worker.wait_gone();
    let mut client = server.connect();
    client.get("/pid").assert_status(200);
    let stats = wait_until("the last request to be counted", || {
        let stats = Control::of(&server, "relay").app();
        (stats["requests"]["status_2xx"] == 1).then_some(stats)
    });
    assert_eq!(stats["requests"]["status_5xx"], 1, "{stats}");
}
