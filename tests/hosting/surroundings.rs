//! What one app has around it, many have too: WAS, a background, a monitor, metrics.

use super::{module, ours};
use crate::support::control::Control;
use crate::support::server::Address;
use crate::support::{Client, Hosted, Hosting, MultiClient, Scratch, promtool, wait_until};
use rswsgi::sys::passing::receive;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};

fn two(host: &str) -> Hosting {
    Hosting::new(host)
        .file("some.py", &module("some", ""))
        .file("other.py", &module("other", ""))
        .app("shop", "target = 'some'\n")
        .app("blog", "target = 'other'\n")
}

#[test]
fn an_app_that_listens_for_was_wakes_for_its_clients_and_leaves_again() {
    if !ours() {
        return;
    }
    let hosting = two("on-demand = true\nidle-exit = '1s'\n");
    let path = hosting.dir().join("sockets/was");
    let bind = format!("target = 'some'\nbind = 'was:{}'\n", path.display());
    let hosted = hosting.app("shop", &bind).start();
    assert_eq!(hosted.state("shop"), "at rest");
    for _ in 0..2 {
        let multi = MultiClient::remote(&path);
        multi.connect().get("/").assert_text("some");
        hosted.get("blog", "/").assert_text("other");
        drop(multi);
        wait_until("its rest", || {
            (hosted.state("shop") == "at rest").then_some(())
        });
    }
}

#[test]
fn a_daemon_serves_many_apps() {
    if !ours() {
        return;
    }
    let server = two("log = 'server.log'\n").into_server();
    let pid_file = server.dir().join("server.pid");
    let server = server.start_daemon(&pid_file);
    let hosted = Hosted { server };
    // It was launched when all of them served.
    for name in ["shop", "blog"] {
        assert_eq!(hosted.state(name), "serving");
    }
    hosted.get("shop", "/").assert_text("some");
    hosted.get("blog", "/").assert_text("other");
    hosted.server.finish();
}

#[test]
fn promtool_accepts_the_metrics_of_many_apps() {
    if !ours() {
        return;
    }
    if !promtool::is_here() {
        return;
    }
    let hosted = two("on-demand = true\n").start();
    hosted.get("shop", "/").assert_text("some");
    let mut control = Control::of(&hosted.server, "rswsgi");
    control.send("GET /metrics HTTP/1.0\r\n\r\n");
    let page = String::from_utf8(control.rest()).expect("text");
    let (_, body) = page.split_once("\r\n\r\n").expect("a head");
    // Every sample is one app's, but those of the server as a whole.
    let of = |app: &str| body.matches(&format!("app=\"{app}\"")).count();
    assert!(of("shop") > 10 && of("blog") > 10, "{body}");
    promtool::assert_accepts(body);
}

#[test]
fn top_shows_every_app() {
    if !ours() {
        return;
    }
    let hosted = two("on-demand = true\n").start();
    for verb in [&["top", "--once"][..], &["stats"]] {
        let said = hosted.ctl(&[&["--app", "shop"], verb].concat()).done();
        assert!(said.out.contains("at rest"), "{said:?}");
    }
    let said = hosted.ctl(&["--app", "shop", "top", "--once"]).done();
    assert!(said.out.contains("no process"), "{said:?}");
    hosted.get("shop", "/").assert_text("some");
    hosted.ctl(&["top", "--once"]).done().shows(&["(1/2)"]);
    for (name, target) in [("shop", "some"), ("blog", "other")] {
        let said = hosted.ctl(&["--app", name, "top", "--once"]).done();
        assert!(
            said.out.contains(name) && said.out.contains(target),
            "{said:?}"
        );
    }
}

/// The listeners that are given to the service manager until it is told that all is ready.
fn kept(notify: &UnixDatagram) -> Vec<OwnedFd> {
    let mut kept = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let received = wait_until("a message to the manager", || {
            receive(notify.as_fd(), &mut bytes).expect("a message")
        });
        let text = String::from_utf8_lossy(&bytes[..received.length]).into_owned();
        if text.starts_with("FDSTORE=1\nFDNAME=rswsgi-listener\n") {
            kept.extend(received.descriptors);
        }
        if text.starts_with("READY=1\n") {
            return kept;
        }
    }
}

#[test]
fn the_service_manager_keeps_the_listeners_of_all_apps_over_a_restart() {
    if !ours() {
        return;
    }
    let beside = Scratch::new();
    let manager = beside.file("manager");
    let notify = UnixDatagram::bind(&manager).expect("a new socket");
    let hosting = || {
        let bind = format!(
            "on-demand = true\nbind = 'unix:{}/{{name}}'\n",
            beside.path().display()
        );
        two(&bind).change(|server| server.env("FDSTORE", "8").env("NOTIFY_SOCKET", &manager))
    };
    let first = hosting().into_server().spawn();
    let listeners = kept(&notify);
    assert_eq!(listeners.len(), 2);
    first.finish();
    // Nobody serves, and still nobody is refused.
    let mut waiting = Vec::new();
    for name in ["shop", "blog"] {
        let address = Address::Unix(beside.file(name));
        let mut client = Client::try_connect(&address).expect("the manager's copy listens");
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        waiting.push(client);
    }
    let second = hosting().change(|server| {
        let names = vec!["rswsgi-listener"; listeners.len()].join(":");
        // The harness watches over a file for each; those of the sockets may go.
        let passed = listeners.into_iter();
        let server = passed.fold(server, |server, fd| server.pass_socket(manager.clone(), fd));
        server.env("LISTEN_FDNAMES", names)
    });
    let second = second.into_server().spawn();
    assert_eq!(kept(&notify).len(), 2);
    for (mut client, text) in waiting.into_iter().zip(["some", "other"]) {
        client.response().assert_text(text);
    }
    // One that is gone is kept no longer, and its file is gone with it.
    let hosted = Hosted { server: second };
    hosted.remove("blog");
    hosted.ctl(&["reload"]).done();
    assert!(!beside.file("blog").exists());
    assert!(beside.file("shop").exists());
    hosted.server.finish();
}

#[test]
fn a_manager_that_has_no_room_for_all_listeners_is_told_of() {
    if !ours() {
        return;
    }
    let beside = Scratch::new();
    let bind = format!(
        "on-demand = true\nbind = 'unix:{}/{{name}}'\n",
        beside.path().display()
    );
    let hosting = two(&bind).change(|server| server.env("FDSTORE", "1"));
    let hosted = hosting.start();
    hosted
        .server
        .log
        .wait_for("keeps 1 listeners over a restart (FileDescriptorStoreMax=); 1 more");
    hosted.server.finish();
    // What is not kept leaves no file behind.
    let left = ["shop", "blog"].map(|name| beside.file(name).exists());
    assert_eq!(left.iter().filter(|left| **left).count(), 1);
}

#[test]
fn an_app_may_have_a_socket_that_systemd_passes_under_a_name() {
    if !ours() {
        return;
    }
    let hosting = two("").app("shop", "target = 'some'\nbind = 'fd://web'\n");
    let path = hosting.dir().join("sockets/shop.sock");
    let listener = UnixListener::bind(&path).expect("a new socket");
    let hosting = hosting.change(|server| {
        let server = server.pass_socket(path, listener.into());
        server.env("LISTEN_FDNAMES", "web")
    });
    let hosted = hosting.start();
    hosted.get("shop", "/").assert_text("some");
    hosted.get("blog", "/").assert_text("other");
}

#[test]
fn a_name_under_which_nothing_is_passed_disables_the_app_alone() {
    if !ours() {
        return;
    }
    let hosted = two("")
        .app("shop", "target = 'some'\nbind = 'fd://web'\n")
        .expect_error("shop is disabled")
        .start();
    let app = hosted.app("shop");
    assert_eq!(app["state"], "disabled");
    hosted.get("blog", "/").assert_text("other");
}
