//! Apps without processes: the first connection starts one, idleness stops it, and there is only so much
//! room and so many starts at once.

use super::{module, ours};
use crate::support::{Hosted, Hosting, wait_until};
use serde_json::json;

fn on_demand(host: &str) -> Hosting {
    Hosting::new(&format!("on-demand = true\n{host}"))
        .file("shop.py", &module("shop", ""))
        .app("shop", "target = 'shop'\n")
}

fn processes(hosted: &Hosted) -> usize {
    hosted.server.supervisor().descendants().len()
}

#[test]
fn there_is_no_process_until_somebody_connects_and_none_when_nobody_asks_any_more() {
    if !ours() {
        return;
    }
    let hosted = on_demand("idle-exit = '300ms'\n").start();
    assert_eq!(processes(&hosted), 0);
    assert_eq!(hosted.state("shop"), "at rest");
    hosted.get("shop", "/").assert_text("shop");
    assert!(processes(&hosted) > 0);
    wait_until("the end of its processes", || {
        (processes(&hosted) == 0).then_some(())
    });
    assert_eq!(hosted.state("shop"), "at rest");
    hosted.get("shop", "/").assert_text("shop");
    hosted
        .server
        .log
        .wait_for("nobody has asked for anything for --idle-exit");
    let why = hosted.ctl(&["--json", "app", "why", "shop"]).done().json();
    let starts = why["apps"][0]["starts"].as_array().expect("a list");
    assert_eq!(starts.len(), 2);
    for start in starts {
        assert_eq!(
            (&start["cause"], &start["result"]),
            (&json!("connection"), &json!("served"))
        );
        assert!(start["imported_seconds"].as_f64() <= start["took_seconds"].as_f64());
    }
}

#[test]
fn everybody_who_comes_while_it_starts_is_served() {
    if !ours() {
        return;
    }
    let hosted = on_demand("")
        .file("shop.py", &module("shop", "wait_at('import')"))
        .start();
    let gate = hosted.server.gate("import");
    let mut clients: Vec<_> = (0..20).map(|_| hosted.connect("shop")).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    }
    wait_until("the start", || {
        (hosted.state("shop") == "starting").then_some(())
    });
    gate.open();
    for mut client in clients {
        client.response().assert_text("shop");
    }
}

#[test]
fn an_app_that_is_busy_does_not_stop() {
    if !ours() {
        return;
    }
    let hosted = on_demand("idle-exit = '100ms'\n")
        .file("other.py", &module("other", ""))
        .app("other", "target = 'other'\n")
        .start();
    let gate = hosted.server.gate("gate");
    let mut client = hosted.connect("shop");
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(hosted.server.notes.next(), "waiting");
    // Another one comes and goes meanwhile.
    hosted.get("other", "/").assert_text("other");
    wait_until("the end of the other", || {
        (hosted.state("other") == "at rest").then_some(())
    });
    assert_eq!(hosted.state("shop"), "serving");
    gate.open();
    client.response().assert_text("shop");
}

#[test]
fn an_app_that_cannot_start_says_so_and_is_tried_again() {
    if !ours() {
        return;
    }
    let hosted = on_demand("")
        .file("shop.py", "raise RuntimeError('not today')\n")
        .expect_error("RuntimeError")
        .expect_error("did not come up")
        .start();
    let response = hosted.get("shop", "/");
    response.assert_status(503);
    assert_eq!(response.field("Retry-After"), Some("5"));
    let app = hosted.app("shop");
    assert!(app["turned_away"].as_u64() >= Some(1), "{app}");
    let reason = app["reason"].as_str().expect("a text");
    assert!(reason.contains("RuntimeError: not today"), "{reason}");
    assert_eq!(processes(&hosted), 0);
    // Who has sent much gets the answer all the same.
    let mut client = hosted.connect("shop");
    let body = "x".repeat(100_000);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.response().assert_status(503);
    hosted.server.write("shop.py", &module("mended", ""));
    wait_until("another try", || {
        let response = hosted.get("shop", "/");
        (response.status == 200).then_some(())
    });
    assert_eq!(hosted.app("shop")["reason"], json!(null));
}

#[test]
fn a_reload_of_a_failing_app_tries_at_once() {
    if !ours() {
        return;
    }
    let hosted = on_demand("")
        .file("shop.py", "raise RuntimeError('not today')\n")
        .expect_error("RuntimeError")
        .expect_error("did not come up")
        .start();
    hosted.get("shop", "/").assert_status(503);
    hosted.server.write("shop.py", &module("mended", ""));
    let said = hosted.ctl(&["reload"]).done();
    said.shows(&["shop: generation 2 serves"]);
    wait_until("the new code", || {
        (hosted.get("shop", "/").status == 200).then_some(())
    });
}

#[test]
fn an_app_that_is_stopped_starts_with_the_next_connection_if_it_is_on_demand() {
    if !ours() {
        return;
    }
    let hosted = on_demand("")
        .app("always", "target = 'shop'\non-demand = false\n")
        .start();
    hosted.get("shop", "/").assert_text("shop");
    hosted.get("always", "/").assert_text("shop");
    for name in ["shop", "always"] {
        let said = hosted.ctl(&["--app", name, "stop"]).done();
        said.shows(&["its processes leave"]);
    }
    wait_until("the end of all processes", || {
        (processes(&hosted) == 0).then_some(())
    });
    hosted.get("shop", "/").assert_text("shop");
    hosted.get("always", "/").assert_status(503);
    assert_eq!(hosted.state("always"), "stopped");
    hosted.ctl(&["--app", "always", "reload"]).done();
    hosted.get("always", "/").assert_text("shop");
}

/// Apps `a0`, `a1` and so on of one module.
fn many(host: &str, count: usize, import: &str) -> Hosting {
    let mut hosting = on_demand(host).file("some.py", &module("some", import));
    for number in 0..count {
        hosting = hosting.app(&format!("a{number}"), "target = 'some'\n");
    }
    hosting
}

#[test]
fn the_one_that_has_been_idle_for_longest_makes_room() {
    if !ours() {
        return;
    }
    let hosted = many("max-processes = 4\n", 3, "").start();
    for name in ["a0", "a1", "a2", "a0", "a1", "a2"] {
        hosted.get(name, "/").assert_text("some");
        assert!(processes(&hosted) <= 4, "the cap holds");
    }
    hosted
        .server
        .log
        .wait_for("others wait, and --max-processes has no room for them");
}

#[test]
fn an_app_that_does_not_fit_into_the_cap_is_disabled() {
    if !ours() {
        return;
    }
    let hosted = many("max-processes = 4\n", 1, "")
        .app("big", "target = 'some'\nworkers = 4\n")
        .expect_error("big is disabled")
        .start();
    let big = hosted.app("big");
    assert_eq!(big["state"], "disabled");
    assert!(
        big["reason"]
            .as_str()
            .is_some_and(|r| r.contains("it may have 5 processes"))
    );
    hosted.get("a0", "/").assert_text("some");
}

#[test]
fn room_that_is_reserved_is_not_taken_by_others() {
    if !ours() {
        return;
    }
    let hosted = many("max-processes = 4\n", 1, "")
        .app("a1", "target = 'some'\nstart-timeout = '3s'\n")
        .expect_error("did not come up")
        .app("kept", "target = 'some'\nreserve = true\n")
        .start();
    // One of the two holds what is not reserved, and is busy.
    let gate = hosted.server.gate("gate");
    let mut client = hosted.connect("a0");
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(hosted.server.notes.next(), "waiting");
    hosted.get("a1", "/").assert_status(503);
    hosted.get("kept", "/").assert_text("some");
    gate.open();
    client.response().assert_text("some");
    wait_until("room for the other", || {
        (hosted.get("a1", "/").status == 200).then_some(())
    });
}

#[test]
fn only_so_many_start_at_once_and_all_get_their_turn() {
    if !ours() {
        return;
    }
    let hosted = many(
        "max-starting = 2\n",
        6,
        "note('import ' + str(os.getpid()))\nwait_at('import')",
    )
    .start();
    let gate = hosted.server.gate("import");
    let mut clients: Vec<_> = (0..6)
        .map(|number| hosted.connect(&format!("a{number}")))
        .collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    }
    let mut most = 0;
    for _ in 0..6 {
        assert!(hosted.server.notes.next().starts_with("import "));
        let list = hosted.ctl(&["--json", "app", "list"]).done().json();
        let apps = list["apps"].as_array().expect("a list");
        let starting = apps.iter().filter(|app| app["state"] == "starting").count();
        most = most.max(starting);
        gate.open();
    }
    // A start that takes long is not counted any more, so that on a slow machine it may be one more.
    assert!((1..6).contains(&most), "{most} at once");
    for mut client in clients {
        client.response().assert_text("some");
    }
}

#[test]
fn a_server_with_one_app_can_be_on_demand_too() {
    if !ours() {
        return;
    }
    let server = crate::support::Server::new()
        .app("basic")
        .workers(1)
        .arg("--idle-exit", "300ms")
        .flag("--on-demand")
        .start();
    assert_eq!(server.masters().len(), 0);
    server.get("/hello").assert_text("hello\n");
    wait_until("the end of its processes", || {
        server.masters().is_empty().then_some(())
    });
    server.get("/hello").assert_text("hello\n");
}
