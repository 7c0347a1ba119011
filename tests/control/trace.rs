//! Stacks of workers that are in whatever they are in.

use super::ours;
use crate::support::{Control, Pid, Running, Server, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[track_caller]
fn occupied(server: &Running, path: &str) -> crate::support::Client {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    client
}

fn stacks(reply: &Value) -> Vec<&Value> {
    reply["stacks"].as_array().expect("a list").iter().collect()
}

#[test]
fn a_worker_inside_c_code_shows_where_it_is() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("limits")
        .workers(2)
        .arg("--graceful-timeout", "1s")
        .start();
    let _client = occupied(&server, "/hold");
    assert_eq!(server.notes.next(), "holding");
    let mut control = Control::of(&server, "limits");
    let reply = control.done(json!({"do": "trace", "busy": true}));
    let [stack] = stacks(&reply)[..] else {
        panic!("one worker is busy: {reply}");
    };
    assert_eq!(stack["request"], "GET /hold HTTP/1.1");
    assert_eq!(
        (&stack["app"], &stack["generation"]),
        (&json!("limits"), &json!(1))
    );
    assert_eq!(stack["error"], Value::Null);
    let text = stack["stack"].as_str().expect("a text");
    for piece in [
        "in hold_the_interpreter",
        "in stand_beside",
        "in application",
    ] {
        assert!(text.contains(piece), "no {piece:?} in {text}");
    }
    let all = control.done(json!({"do": "trace"}));
    assert_eq!(stacks(&all).len(), 2);
    let one = control.done(json!({"do": "trace", "worker": stack["slot"]}));
    assert_eq!(stacks(&one)[0]["pid"], stack["pid"]);
    control.refused(json!({"do": "trace", "worker": 999}), "no-such-worker");
    // The others go on, and nothing of it is in the log.
    server.get("/pid").assert_status(200);
    assert!(!server.log.text().contains("hold_the_interpreter"));
}

#[test]
fn one_that_is_stopped_does_not_keep_the_others_from_answering() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").workers(2).start();
    let workers = server.workers();
    workers[0].signal(Signal::SIGSTOP);
    wait_until("the worker to stop", || {
        let state = workers[0].status("State")?;
        state.starts_with('T').then_some(())
    });
    let mut control = Control::of(&server, "basic");
    let reply = control.done(json!({"do": "trace"}));
    let of = |pid: Pid| {
        let mut all = stacks(&reply).into_iter();
        all.find(|stack| stack["pid"] == pid.number)
            .expect("its stack")
            .clone()
    };
    let error = of(workers[0])["error"].clone();
    assert_eq!(error, "the process does not react to signals");
    assert_eq!(of(workers[1])["error"], Value::Null);
    workers[0].signal(Signal::SIGCONT);
    // What it prints now was asked for by nobody any more: it goes to the log.
    server.log.wait_for("the threads of worker");
}

#[test]
fn a_signal_prints_the_stacks_into_the_log() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").start();
    let gate = server.gate("gate");
    let mut client = occupied(&server, "/wait");
    server.notes.next();
    let worker = server.workers()[0].number;
    let done = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("kill -s RTMIN+2 {worker} || kill -36 {worker}"),
        ])
        .status();
    assert!(done.expect("run kill").success());
    server.log.wait_for("in wait_at");
    gate.open();
    client.response().assert_status(200);
}

#[test]
fn a_slow_request_is_logged_once_with_its_stack() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("basic")
        .arg("--slow-request", "200ms")
        .start();
    let gate = server.gate("gate");
    server.get("/hello").assert_status(200);
    for path in ["/wait?first", "/wait?second"] {
        let mut client = occupied(&server, path);
        server.notes.next();
        server
            .log
            .wait_for(&format!("has run \"GET {path} HTTP/1.1\""));
        server.log.wait("its stack", |text| {
            let (_, after) = text.split_once(path)?;
            after.contains("in wait_at").then_some(())
        });
        gate.open();
        client.response().assert_status(200);
    }
    let finished = server.finish();
    assert_eq!(finished.count("slow request:"), 2);
    assert_eq!(finished.count("/hello"), 0);
}

#[test]
fn a_worker_that_is_killed_as_stuck_still_shows_where_it_was() {
    if !ours() {
        return;
    }
    let server = Server::new()
        .app("limits")
        .arg("--request-timeout", "300ms")
        .arg("--kill-timeout", "300ms")
        .expect_error("is stuck in")
        .expect_error("killed by SIGKILL")
        .start();
    let _client = occupied(&server, "/hold");
    server.log.wait_for("in hold_the_interpreter");
    server.log.wait_for("killed by SIGKILL");
    let mut control = Control::of(&server, "limits");
    wait_until("the counters to say so", || {
        let errors = control.app()["errors"].clone();
        (errors["hard_timeouts"] == 1 && errors["crashes"] == 1).then_some(())
    });
}
