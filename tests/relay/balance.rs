//! Requests that come at once to a worker whose application is slow are shared with those that have nothing to do.

use super::{ask, ask_each, assert_each_served_once, noted, ours, pin, relay};
use crate::support::Control;

#[test]
fn an_idle_sibling_gets_some_of_the_requests_that_come_at_once() {
    if !ours() {
        return;
    }
    // The watcher has no part in it.
    let server = relay().arg("--relay-after", "1h").start();
    let gate = server.gate("gate");
    let mut pinned = pin(&server, 11, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/linger");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    ask_each(&mut pinned.clients);
    gate.open();
    busy.response().assert_status(200);
    let (owner, sibling) = (
        pinned.owner.number.to_string(),
        pinned.sibling.number.to_string(),
    );
    let mut given = 0;
    for client in &mut pinned.clients {
        let by = client.response().text();
        assert!(by == owner || by == sibling, "{by}");
        given += usize::from(by == sibling);
    }
    assert!((1..10).contains(&given), "{given}");
    assert_each_served_once(&server, 10);
    let relay = &Control::of(&server, "relay").app()["relay"];
    assert_eq!(relay["balance"], given, "{relay}");
    assert_eq!(relay["busy"], 0, "{relay}");
    assert_eq!(relay["taken"], given, "{relay}");
}

#[test]
fn nobody_gets_anything_who_is_busy() {
    if !ours() {
        return;
    }
    let server = relay().arg("--relay-after", "1h").start();
    let (gate, other_gate) = (server.gate("gate"), server.gate("other-gate"));
    let mut pinned = pin(&server, 11, 0);
    let mut busy = pinned.clients.remove(0);
    ask(&mut busy, "/linger");
    assert_eq!(noted(&server, "waiting"), pinned.owner);
    let mut other = server.connect();
    ask(&mut other, "/wait?other-gate");
    assert_eq!(noted(&server, "waiting"), pinned.sibling);
    ask_each(&mut pinned.clients);
    gate.open();
    busy.response().assert_status(200);
    for client in &mut pinned.clients {
        client
            .response()
            .assert_text(&pinned.owner.number.to_string());
    }
    other_gate.open();
    other.response().assert_status(200);
    let relay = &Control::of(&server, "relay").app()["relay"];
    assert_eq!(relay["taken"], 0, "{relay}");
}
