//! Every verb, against a real server, for people and as JSON.

use super::ours;
use crate::support::{Running, Said, Server, ctl, wait_until};
use serde_json::Value;

/// An application that can wait at a gate and stand in C code with the lock of the interpreter held.
const SHOP: &str = "\
import ctypes
from talk import note, wait_at

def in_c_code(fd):
    ctypes.PyDLL(None).read(fd, ctypes.create_string_buffer(1), 1)

def application(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/wait':
        note('waiting')
        wait_at('gate')
    if path == '/stuck':
        with open('pipe', 'rb', buffering=0) as pipe:
            note('stuck')
            in_c_code(pipe.fileno())
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

fn shop() -> Server {
    let server = Server::new().app("shop").file("shop.py", SHOP);
    server.arg("--request-timeout", "0")
}

#[track_caller]
fn ask(server: &Running, words: &[&str]) -> Said {
    let control = server.dir().join("run/shop.control");
    let control = control.to_str().expect("a plain path");
    let words = [&["--control", control, "--timeout", "20s"][..], words].concat();
    ctl(server.dir(), &words)
}

#[track_caller]
fn json(server: &Running, words: &[&str]) -> Value {
    let json = ask(server, &[words, &["--json"]].concat()).done().json();
    assert_eq!(json["ok"], true, "{json}");
    json
}

#[test]
fn ping_and_stats_say_who_serves_what() {
    if !ours() {
        return;
    }
    let server = shop().workers(2).start();
    server.get("/").assert_text("ok");
    let pid = server.supervisor().number.to_string();
    let said = ask(&server, &["ping"]).done();
    said.shows(&["rswsgi 0.", &format!("process {pid}, serving"), "app shop"]);
    assert_eq!(json(&server, &["ping"])["server"]["pid"].to_string(), pid);

    let said = ask(&server, &["stats"]).done();
    let said = said.shows(&["shop (shop): ", "generation  1 serving, 2 workers", "1 2xx"]);
    assert!(!said.out.contains('\x1b'), "no attributes into a pipe");
    let stats = json(&server, &["stats"]);
    assert_eq!(stats["apps"][0]["requests"]["total"], 1);
    let said = ask(&server, &["stats", "--app", "mail"]).ended(1);
    said.complains(&["there is no app \"mail\"; rswsgictl list shows"]);

    let said = ask(&server, &["workers"]).done();
    assert_eq!(said.out.lines().count(), 3, "{said:?}");
    let crew = json(&server, &["workers"]);
    let pids = crew["workers"].as_array().expect("a list").iter();
    let mut pids: Vec<_> = pids.filter_map(|worker| worker["pid"].as_i64()).collect();
    pids.sort_unstable();
    let expected: Vec<_> = server
        .workers()
        .iter()
        .map(|pid| i64::from(pid.number))
        .collect();
    assert_eq!(pids, expected);

    let said = ask(
        &server,
        &["top", "--once", "--width", "90", "--height", "20"],
    )
    .done();
    let said = said.shows(&["shop  gen 1", "workers: 2, by running", &pid]);
    assert_eq!(said.out.lines().count(), 20);
    let widest = said.out.lines().map(|line| line.chars().count()).max();
    assert_eq!(widest, Some(90));
    ask(&server, &["top", "--once", "--interval", "100ms"])
        .done()
        .shows(&["no request"]);
}

#[test]
fn config_says_what_is_in_force_and_where_it_comes_from() {
    if !ours() {
        return;
    }
    let server = shop().env("RSWSGI_MAX_REQUESTS", "7").start();
    let said = ask(&server, &["config"]).done();
    let line = |name: &str| {
        let line = said
            .out
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {said:?}"))
            .to_owned()
    };
    let limit = line("max-requests");
    assert!(
        limit.contains("RSWSGI_MAX_REQUESTS") && limit.ends_with(" 7"),
        "{limit}"
    );
    assert!(line("workers").contains("--workers"));
    assert!(line("script-name").ends_with("\"\""));
    assert_eq!(json(&server, &["config"])["apps"][0]["app"], "shop");
}

#[test]
fn requests_and_traces_show_what_keeps_a_worker() {
    if !ours() {
        return;
    }
    let server = shop().workers(2).start();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait?for=it HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    let said = wait_until("a request of some age", || {
        let said = ask(&server, &["requests", "--older", "200ms"]).done();
        said.out.contains("GET /wait?for=it").then_some(said)
    });
    assert_eq!(said.out.lines().count(), 2, "{said:?}");
    let young = ask(&server, &["requests", "--older", "1h"]).done();
    assert_eq!(young.out, "no request is running for so long\n");
    let running = json(&server, &["requests"]);
    assert_eq!(running["requests"][0]["path"], "/wait?for=it");
    let slot = running["requests"][0]["slot"].to_string();

    for words in [&["trace", "--busy"][..], &["trace", "--worker", &slot]] {
        let said = ask(&server, words).done();
        let said = said.shows(&["GET /wait?for=it", "in wait_at", "in application"]);
        assert_eq!(said.out.matches("worker ").count(), 1, "{said:?}");
    }
    let all = ask(&server, &["trace"]).done();
    assert_eq!(all.out.matches("worker ").count(), 2, "{all:?}");
    assert_eq!(
        json(&server, &["trace"])["stacks"].as_array().map(Vec::len),
        Some(2)
    );
    ask(&server, &["trace", "--worker", "99"])
        .ended(1)
        .complains(&["no worker"]);
    gate.open();
    client.response().assert_text("ok");
}

#[test]
fn a_trace_reaches_a_worker_inside_c_code() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let pipe = server.gate("pipe");
    let mut client = server.connect();
    client.send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("stuck");
    let said = ask(&server, &["trace", "--busy"]).done();
    let said = said.shows(&[
        "worker 0 [shop gen 1]",
        "GET /stuck",
        "in in_c_code",
        "in application",
    ]);
    let (inner, outer) = (said.out.find("in_c_code"), said.out.find("application"));
    assert!(inner < outer, "the innermost call first: {said:?}");
    pipe.open();
    client.response().assert_text("ok");
}

#[test]
fn reload_waits_for_the_outcome_and_shows_the_traceback_of_a_failed_one() {
    if !ours() {
        return;
    }
    let mut server = shop().start();
    let said = ask(&server, &["reload"]).done();
    said.shows(&["shop: generation 2 serves, after "]);
    assert_eq!(json(&server, &["reload"])["reloaded"][0]["generation"], 3);

    server.expect_error("ZeroDivisionError");
    server.expect_error("reload failed");
    server.write("shop.py", "1 / 0\n");
    let said = ask(&server, &["reload"]).ended(1);
    assert_eq!(said.out, "");
    said.complains(&[
        "rswsgictl: reload failed: ",
        "Traceback (most recent call last):",
        "1 / 0",
    ]);
    let said = ask(&server, &["reload", "--json"]).ended(1);
    assert_eq!(said.err, "");
    assert_eq!(said.json()["ok"], false);
    let traceback = said.json()["traceback"].to_string();
    assert!(traceback.contains("ZeroDivisionError"), "{traceback}");
    server.get("/").assert_text("ok");
    ask(&server, &["stats"])
        .done()
        .shows(&["reload      failed", "3 serving"]);
}

#[test]
fn pools_are_resized_and_workers_replaced() {
    if !ours() {
        return;
    }
    let server = shop().workers(1).start();
    assert_eq!(
        ask(&server, &["scale", "3"]).done().out,
        "shop: 3 workers\n"
    );
    wait_until("three workers", || (server.crew().len() == 3).then_some(()));
    assert_eq!(
        ask(&server, &["scale", "-1"]).done().out,
        "shop: 2 workers\n"
    );
    wait_until("two workers", || (server.crew().len() == 2).then_some(()));
    assert_eq!(json(&server, &["scale", "+1"])["scaled"][0]["max"], 3);
    wait_until("three workers", || (server.crew().len() == 3).then_some(()));
    ask(&server, &["scale", "0"])
        .ended(1)
        .complains(&["at least one worker"]);

    let before = server.crew();
    let said = ask(&server, &["recycle", "--worker", "0"]).done();
    assert_eq!(said.out, "1 worker is being replaced\n");
    let changed = |number| {
        let now = server.crew();
        let new = now.iter().filter(|pid| !before.contains(pid)).count();
        (now.len() == 3 && new == number).then_some(())
    };
    wait_until("another worker", || changed(1));
    assert_eq!(json(&server, &["recycle"])["recycling"], 3);
    wait_until("other workers", || changed(3));
    ask(&server, &["recycle", "--worker", "77"])
        .ended(1)
        .complains(&["no worker"]);
}

#[test]
fn logs_are_steered() {
    if !ours() {
        return;
    }
    let server = shop().start();
    ask(&server, &["reopen"]).done();
    server.log.wait_for("opening log files anew");
    assert_eq!(json(&server, &["log-level"])["level"], "info");
    assert_eq!(json(&server, &["log-level", "debug"])["level"], "debug");
    assert_eq!(json(&server, &["log-level"])["level"], "debug");
    // The workers hear of it, too.
    ask(&server, &["recycle"]).done();
    server.log.wait_for("debug: ");
    ask(&server, &["log-level", "sideways"])
        .ended(1)
        .complains(&["a level is error, warning, info or debug"]);
}

#[test]
fn stop_returns_when_the_server_has_ended() {
    if !ours() {
        return;
    }
    let mut server = shop().start();
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    // The request that runs is finished first.
    let control = server.dir().join("run/shop.control");
    let control = control.to_str().expect("a plain path");
    let words = ["--control", control, "--timeout", "1s", "stop"];
    let said = ctl(server.dir(), &words).ended(4);
    said.complains(&["has not ended in time"]);
    gate.open();
    client.response().assert_text("ok");
    server.wait_exit();
    let said = ask(&server, &["ping"]).ended(3);
    said.complains(&["cannot connect"]);

    let mut server = shop().start();
    let _gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    let said = ask(&server, &["stop", "--now"]).done();
    said.shows(&["stopped, after"]);
    server.wait_exit();
}
