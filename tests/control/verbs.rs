//! What each verb does to the server.

use super::ours;
use crate::support::{Control, Load, Running, Server, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;

/// An application that answers with a word.
fn answering(word: &str) -> String {
    format!(
        "def application(environ, start_response):\n    \
             start_response('200 OK', [('Content-Length', '{}')])\n    \
             return [b'{word}']\n",
        word.len()
    )
}

fn shop() -> Server {
    Server::new().app("shop").file("shop.py", &answering("one"))
}

#[track_caller]
fn wait_crew(server: &Running, count: usize) {
    wait_until("so many workers", || {
        (server.crew().len() == count).then_some(())
    });
}

#[test]
fn a_pool_is_scaled_by_a_number_or_to_one() {
    if !ours() {
        return;
    }
    let server = shop().workers(2).start();
    let mut control = Control::of(&server, "shop");
    let reply = control.done(json!({"do": "scale", "by": 2}));
    let app = json!([{"app": "shop", "min": 4, "max": 4}]);
    assert_eq!(reply["scaled"], app);
    wait_crew(&server, 4);
    let reply = control.done(json!({"do": "scale", "to": 1, "app": "shop"}));
    assert_eq!(reply["scaled"][0]["min"], 1);
    wait_crew(&server, 1);
    wait_until("the statistics to say so", || {
        let pool = control.app()["pool"].clone();
        let settled = pool["idle"] == 1 && pool["draining"] == 0;
        settled.then(|| assert_eq!((&pool["max"], &pool["target"]), (&json!(1), &json!(1))))
    });
    control.refused(json!({"do": "scale", "to": 0}), "bad-argument");
    for more in [
        json!({"do": "scale", "to": 500}),
        json!({"do": "scale", "by": 500}),
    ] {
        let refused = control.refused(more, "bad-argument");
        let error = refused["error"].to_string();
        assert!(error.contains("room for 10 workers"), "{error}");
    }
    assert_eq!(control.app()["pool"]["max"], 1);
    control.refused(json!({"do": "scale", "to": 1, "app": "x"}), "no-such-app");
}

#[test]
fn all_workers_are_recycled_without_a_failed_request() {
    if !ours() {
        return;
    }
    let server = shop().workers(3).tcp().unix().start();
    let mut control = Control::of(&server, "shop");
    let before = server.workers();
    let load = Load::start(&server, 2);
    let reply = control.done(json!({"do": "recycle"}));
    assert_eq!(reply["recycling"], 3);
    wait_until("three other workers", || {
        let crew = server.crew();
        let new = crew.iter().all(|worker| !before.contains(worker));
        (new && crew.len() == 3).then_some(())
    });
    load.finish();
    let app = control.app();
    assert_eq!(app["processes"]["recycled_asked"], 3);
    assert_eq!(app["processes"]["spawns"], 6);
    assert_eq!(app["errors"]["crashes"], 0);
    let slot = app["workers"][0]["slot"].clone();
    let reply = control.done(json!({"do": "recycle", "worker": slot}));
    assert_eq!(reply["recycling"], 1);
    control.refused(json!({"do": "recycle", "worker": 999}), "no-such-worker");
}

#[test]
fn a_reload_is_answered_when_it_has_ended_well_or_not() {
    if !ours() {
        return;
    }
    let server = shop()
        .expect_error("reload failed")
        .expect_error("RuntimeError")
        .start();
    let mut control = Control::of(&server, "shop");
    server.write("shop.py", &answering("two"));
    let reply = control.done(json!({"do": "reload"}));
    assert_eq!(reply["reloaded"][0]["generation"], 2);
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
    server.get("/").assert_text("two");
    server.write(
        "shop.py",
        "def f():\n    raise RuntimeError('broken')\nf()\n",
    );
    let reply = control.refused(json!({"do": "reload"}), "failed");
    let text = reply["error"].as_str().expect("a reason");
    assert!(text.contains("raised RuntimeError: broken"), "{text}");
    let traceback = reply["traceback"].as_str().expect("a traceback");
    assert!(traceback.contains("line 2, in f"), "{traceback}");
    server.get("/").assert_text("two");
    let app = control.app();
    assert_eq!(app["generation"]["number"], 2);
    assert_eq!(app["reload"]["result"], "failed");
    assert_eq!(app["reload"]["error"], reply["error"]);
    assert_eq!(app["errors"]["failed_reloads"], 1);
    assert_eq!(app["processes"]["reloads"], 1);
}

#[test]
fn reloads_asked_for_together_get_the_same_answer() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let mut clients: Vec<_> = (0..3).map(|_| Control::of(&server, "shop")).collect();
    for client in &mut clients {
        client.send("{\"v\":1,\"do\":\"reload\"}\n");
    }
    let replies: Vec<_> = clients.iter_mut().map(Control::reply).collect();
    let serving = clients[0].app()["generation"]["number"].clone();
    for reply in replies {
        assert_eq!(reply["ok"], true, "{reply}");
        assert!(reply["reloaded"][0]["generation"].as_u64() <= serving.as_u64());
    }
}

#[test]
fn the_server_stops_as_asked_and_its_socket_goes() {
    if !ours() {
        return;
    }
    for (request, piece) in [
        (json!({"do": "stop"}), "stopped shop"),
        (json!({"do": "stop", "how": "now"}), "stopped shop"),
    ] {
        let mut server = shop().start();
        let path = crate::support::control::path(&server, "shop");
        let mut control = Control::connect(&path);
        control.done(request);
        assert_eq!(control.line(), "");
        assert_eq!(server.wait_exit().code(), Some(0));
        assert!(!path.exists());
        server.log.wait_for(piece);
    }
}

#[test]
fn the_control_socket_answers_while_the_server_drains_and_after_an_upgrade() {
    if !ours() {
        return;
    }
    let server = Server::new().app("basic").start();
    let mut control = Control::of(&server, "basic");
    server.signal(Signal::SIGUSR2);
    server.log.wait_for("upgraded from");
    assert_eq!(control.line(), "", "connections do not outlive an upgrade");
    let mut control = Control::of(&server, "basic");
    control.done(json!({"do": "reload"}));
    let gate = server.gate("gate");
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.next();
    control.done(json!({"do": "stop"}));
    let reply = control.done(json!({"do": "stats"}));
    assert_eq!(reply["server"]["state"], "draining");
    control.refused(json!({"do": "reload"}), "unavailable");
    gate.open();
    client.response().assert_status(200);
}

#[test]
fn the_level_of_the_log_changes_at_once_in_every_process() {
    if !ours() {
        return;
    }
    let server = shop().start();
    let mut control = Control::of(&server, "shop");
    let level = |control: &mut Control, request| control.done(request)["level"].clone();
    assert_eq!(level(&mut control, json!({"do": "log-level"})), "info");
    let request = json!({"do": "log-level", "level": "debug"});
    assert_eq!(level(&mut control, request), "debug");
    control.done(json!({"do": "recycle"}));
    server.log.wait_for("debug: worker");
    let request = json!({"do": "log-level", "level": "error"});
    assert_eq!(level(&mut control, request), "error");
    control.refused(json!({"do": "log-level", "level": "loud"}), "bad-argument");
    // What was written before the change may be read later.
    server.log.wait("both changes", |text| {
        (text.matches("log-level was asked for").count() == 2).then_some(())
    });
    control.done(json!({"do": "reload"}));
    let finished = server.finish();
    assert_eq!(finished.count("reload"), 0, "nothing of it is an error");
    assert_eq!(finished.count("stopped shop"), 0);
}

#[test]
fn log_files_are_opened_anew() {
    if !ours() {
        return;
    }
    let server = shop();
    let (place, moved) = (server.dir().join("log"), server.dir().join("log.1"));
    let server = server.arg("--log", &place).start();
    let mut control = Control::of(&server, "shop");
    std::fs::rename(&place, &moved).expect("rename a file");
    control.done(json!({"do": "reopen"}));
    wait_until("another file", || place.exists().then_some(()));
    control.done(json!({"do": "recycle"}));
    wait_until("an entry in it", || {
        let text = std::fs::read_to_string(&place).ok()?;
        text.contains("recycle was asked for").then_some(())
    });
    let old = std::fs::read_to_string(&moved).expect("read a file");
    assert!(
        old.contains("serving shop") && !old.contains("recycle"),
        "{old}"
    );
}
