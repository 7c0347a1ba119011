//! Counters are monotonic, whatever becomes of the processes that count.

use super::ours;
use crate::support::{Control, Server, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every number below these objects, by its path.
fn counters(app: &Value) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for group in ["requests", "bytes", "errors", "processes"] {
        for (name, value) in app[group].as_object().expect("an object") {
            if let Some(count) = value.as_u64().filter(|_| name != "in_flight") {
                found.insert(format!("{group}.{name}"), count);
            }
        }
    }
    for name in ["latency", "queue"] {
        let count = app[name]["count"].as_u64().expect("a number");
        found.insert(format!("{name}.count"), count);
    }
    let accepted = app["connections"]["accepted"].as_u64();
    found.insert("connections.accepted".into(), accepted.expect("a number"));
    found
}

#[track_caller]
fn assert_grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for (name, count) in before {
        assert!(after[name] >= *count, "{name}: {count} -> {}", after[name]);
    }
}

#[test]
fn counters_outlive_workers_masters_and_the_program() {
    if !ours() {
        return;
    }
    let mut server = Server::new()
        .app("basic")
        .workers(2)
        .tcp()
        .unix()
        .expect_error("killed by SIGKILL")
        .start();
    let serve = |count| {
        for index in 0..count {
            let mut client = server.connect_to(index % 2);
            client.get("/hello").assert_status(200);
        }
    };
    let stats = || counters(&Control::of(&server, "basic").app());
    serve(10);
    // A client has its answer a moment before it is counted.
    let mut seen = wait_until("ten answers to be counted", || {
        let seen = stats();
        let done = ["requests.status_2xx", "latency.count"];
        done.iter().all(|name| seen[*name] >= 10).then_some(seen)
    });
    for name in ["requests.total", "requests.status_2xx", "latency.count"] {
        assert_eq!(seen[name], 10, "{name}");
    }
    assert!(
        seen["queue.count"] >= 1 && seen["queue.count"] <= 5,
        "{seen:?}"
    );
    assert_eq!(seen["processes.spawns"], 2);
    let mut step = |what: &str, total: u64| {
        serve(10);
        let now = stats();
        eprintln!("after {what}: {now:?}"); // shown when the test fails
        assert_grown(&seen, &now);
        assert_eq!(now["requests.total"], total, "after {what}");
        seen = now;
    };
    let victim = server.workers()[0];
    victim.signal(Signal::SIGKILL);
    victim.wait_gone();
    server.workers();
    step("kill -9 of a worker", 20);
    Control::of(&server, "basic").done(json!({"do": "reload"}));
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
    step("a reload", 30);
    server.signal(Signal::SIGUSR2);
    server.log.wait_for("upgraded from");
    step("an upgrade", 40);
    let master = server.master();
    master.signal(Signal::SIGKILL);
    master.wait_gone();
    server.log.wait_for("generation 3, ");
    step("the loss of a master", 50);
    let last = stats();
    assert_eq!(last["errors.crashes"], 1);
    assert_eq!(last["errors.master_crashes"], 1);
    assert_eq!(last["processes.reloads"], 1);
    assert_eq!(last["processes.spawns"], 7);
    server.expect_error("generation 2");
    server.expect_error("the supervisor");
}

#[test]
fn a_running_request_is_shown_and_its_wait_in_the_queue_is_counted() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").workers(1).tcp().unix().start();
    let gate = server.gate("gate");
    let mut first = server.connect();
    first.send("GET /wait?first HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.next();
    // Nobody is free for these.
    let mut second = server.connect();
    second.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut third = server.connect_to(1);
    third.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut control = Control::of(&server, "basic");
    let app = control.app();
    let request = &app["workers"][0]["request"];
    assert_eq!(
        (&request["method"], &request["path"]),
        (&json!("GET"), &json!("/wait?first"))
    );
    let peer = request["peer"].as_str().expect("it came over TCP");
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    assert_eq!(app["requests"]["in_flight"], 1);
    assert_eq!(
        (&app["pool"]["busy"], &app["pool"]["idle"]),
        (&json!(1), &json!(0))
    );
    for listener in app["listeners"].as_array().expect("a list") {
        assert_eq!(listener["backlog"], 1, "{listener}");
        assert!(listener["backlog_limit"].as_u64() > Some(0), "{listener}");
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    gate.open();
    for client in [&mut first, &mut second, &mut third] {
        client.response().assert_status(200);
    }
    let app = control.app();
    let waited = app["queue"]["max_seconds"].as_f64().expect("a sample");
    assert!((0.25..30.0).contains(&waited), "{waited}");
    let ran = app["latency"]["max_seconds"]
        .as_f64()
        .expect("a request ended");
    assert!((0.3..30.0).contains(&ran), "{ran}");
    let memory = &app["memory"];
    assert!(memory["pss_bytes"].as_u64() > Some(1 << 20), "{memory}");
    assert_eq!(memory["workers"], 1);
}

#[test]
fn rates_are_known_without_anybody_having_asked_before() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").start();
    for _ in 0..20 {
        server.get("/hello").assert_status(200);
    }
    let mut control = Control::of(&server, "basic");
    wait_until("the second to be over", || {
        let rates = control.app()["rates"].clone();
        let last: u64 = rates["last_minute"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_u64)
            .sum();
        let mean = rates["per_second_1m"].as_f64().expect("a number");
        (last == 20 && mean > 0.3).then_some(())
    });
}
