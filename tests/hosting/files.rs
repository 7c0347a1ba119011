//! `--apps-dir`: what the files say, and what a reload makes of changes.

use super::{module, ours};
use crate::support::control::Control;
use crate::support::{Hosted, Hosting, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;

fn two() -> Hosting {
    Hosting::new("")
        .file("shop.py", &module("shop", ""))
        .file("blog.py", &module("blog", ""))
        .app("shop", "target = 'shop'\n")
        .app("blog", "target = 'blog'\nenv = ['A=b']\n")
}

fn master(hosted: &Hosted, name: &str) -> String {
    let response = hosted.get(name, "/master");
    response.assert_status(200);
    String::from_utf8(response.body).expect("a number")
}

#[track_caller]
fn reload(hosted: &Hosted) {
    hosted.server.read_notifications();
    hosted.server.signal(Signal::SIGHUP);
    hosted.server.wait_notified("READY=1");
    wait_until("the end of the reload", || {
        let list = hosted.ctl(&["--json", "app", "list"]).done().json();
        let moving = ["starting", "reloading", "waiting"].map(|word| json!(word));
        let apps = list["apps"].as_array().expect("a list");
        (!apps.iter().any(|app| moving.contains(&app["state"]))).then_some(())
    });
}

#[test]
fn an_app_that_is_always_there_is_started_with_the_server() {
    if !ours() {
        return;
    }
    let seconds = |value: &serde_json::Value| value.as_f64().expect("a number");
    let delay = || {
        let hosted = two().start();
        hosted.get("shop", "/").assert_text("shop");
        let stats = Control::of(&hosted.server, "rswsgi").done(json!({"do": "stats"}));
        let age = seconds(&stats["apps"][1]["generation"]["age_seconds"]);
        seconds(&stats["server"]["uptime_seconds"]) - age
    };
    // A busy machine may take its time, but not always as long as the supervisor sleeps.
    let mut delays = std::iter::repeat_with(delay).take(5);
    assert!(delays.any(|delay| delay < 0.5));
}

#[test]
fn each_file_is_an_app_with_processes_a_name_and_statistics_of_its_own() {
    if !ours() {
        return;
    }
    let hosted = two().start();
    hosted.get("shop", "/").assert_text("shop");
    hosted.get("blog", "/").assert_text("blog");
    assert_ne!(master(&hosted, "shop"), master(&hosted, "blog"));
    assert_eq!(hosted.server.masters().len(), 2);
    let titles: Vec<_> = hosted.server.masters().iter().map(|m| m.title()).collect();
    for name in ["shop", "blog"] {
        let title = format!("rswsgi: master [{name} gen 1]");
        assert!(titles.iter().any(|t| t.starts_with(&title)), "{titles:?}");
        assert_eq!(hosted.state(name), "serving");
    }
    let mut control = Control::of(&hosted.server, "rswsgi");
    let stats = control.done(json!({"do": "stats"}));
    let requests = |name: &str| {
        let apps = stats["apps"].as_array().expect("a list");
        let app = apps.iter().find(|app| app["name"] == name).expect("there");
        app["requests"]["total"].clone()
    };
    assert_eq!((requests("shop"), requests("blog")), (json!(2), json!(2)));
    let config = control.done(json!({"do": "config", "app": "blog"}));
    let shown = config["apps"][0]["settings"].as_array().expect("a list");
    let target = shown.iter().find(|s| s["name"] == "target").expect("there");
    let source = target["source"].as_str().expect("a text");
    assert!(source.ends_with("/apps/blog.toml:1"), "{source}");
    let log = hosted.server.log.text();
    assert!(
        log.contains("supervisor: info: shop: serving shop on unix:"),
        "{log}"
    );
    hosted
        .server
        .finish()
        .assert_says("stopped blog: 2 requests");
}

#[test]
fn metrics_have_the_name_of_the_app_as_label() {
    if !ours() {
        return;
    }
    let hosted = two().start();
    hosted.get("shop", "/").assert_text("shop");
    let mut control = Control::of(&hosted.server, "rswsgi");
    control.send("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
    let page = String::from_utf8(control.rest()).expect("text");
    assert!(
        page.contains("rswsgi_requests_total{app=\"shop\"} 1"),
        "{page}"
    );
    assert!(
        page.contains("rswsgi_requests_total{app=\"blog\"} 0"),
        "{page}"
    );
}

#[test]
fn what_an_app_prints_is_told_apart() {
    if !ours() {
        return;
    }
    let hosted = two()
        .file(
            "shop.py",
            &module("shop", "print('hello from here', flush=True)"),
        )
        .start();
    let line = hosted.server.log.wait("the print", |text| {
        let mut lines = text.lines();
        lines
            .find(|line| line.contains("hello from here"))
            .map(str::to_owned)
    });
    assert!(line.contains("app [shop gen 1]"), "{line}");
}

#[test]
fn a_file_with_a_mistake_disables_its_app_alone() {
    if !ours() {
        return;
    }
    let hosted = two()
        .app("wrong", "target = 'shop'\nworker = 3\n")
        .app("broken", "target = 'broken'\n")
        .file("broken.py", "raise RuntimeError('not today')\n")
        .expect_error("is disabled")
        .expect_error("not today")
        .expect_error("did not come up")
        .start();
    hosted.get("shop", "/").assert_text("shop");
    let wrong = hosted.app("wrong");
    assert_eq!(wrong["state"], "disabled");
    let reason = wrong["reason"].as_str().expect("a text");
    let end = "/apps/wrong.toml:2: unknown setting \"worker\"; did you mean \"workers\"?";
    assert!(reason.ends_with(end), "{reason}");
    assert!(!hosted.socket("wrong").exists());
    wait_until("the failure", || {
        (hosted.state("broken") == "failing").then_some(())
    });
    // Between two tries: while one is under way the story is another.
    let says = |verb: &[&str], pieces: &[&str]| {
        wait_until("the story of the failure", || {
            let said = hosted.ctl(verb).done();
            pieces
                .iter()
                .all(|piece| said.out.contains(piece))
                .then_some(())
        });
    };
    says(
        &["app", "why", "broken"],
        &[
            "failing",
            "RuntimeError: not today",
            "in <module>",
            "next try put off by",
        ],
    );
    says(&["app", "list"], &["disabled", "wrong.toml:2", "not today"]);
    // Mended, it is there with the next reload; the others are as they were.
    let shop = master(&hosted, "shop");
    hosted.write("wrong", "target = 'shop'\nworkers = 1\n");
    hosted.remove("broken");
    reload(&hosted);
    hosted.get("wrong", "/").assert_text("shop");
    assert_eq!(master(&hosted, "shop"), shop);
}

#[test]
fn a_reload_touches_only_what_has_changed() {
    if !ours() {
        return;
    }
    let hosted = two().start();
    let (shop, blog) = (master(&hosted, "shop"), master(&hosted, "blog"));
    // Said otherwise, it is the same; another app changes, one goes, one comes.
    hosted.write("shop", "# a comment\ntarget = \"shop\"\n");
    hosted.write("blog", "target = 'blog'\nenv = ['A=c']\n");
    hosted.write("news", "target = 'blog'\n");
    let said = hosted.ctl(&["reload"]).done();
    said.shows(&["blog: generation 2 serves", "news: new"]);
    assert_eq!(master(&hosted, "shop"), shop);
    wait_until("the new master", || {
        (master(&hosted, "blog") != blog).then_some(())
    });
    wait_until("the new app", || {
        (hosted.state("news") == "serving").then_some(())
    });
    hosted.get("news", "/").assert_text("blog");
    hosted
        .ctl(&["reload"])
        .done()
        .shows(&["nothing has changed"]);
    hosted.remove("blog");
    hosted.ctl(&["reload"]).done().shows(&["blog: removed"]);
    assert!(!hosted.socket("blog").exists());
    wait_until("the end of its processes", || {
        (hosted.server.masters().len() == 2).then_some(())
    });
    assert_eq!(master(&hosted, "shop"), shop);
    hosted.server.log.wait_for("removed blog: ");
    let list = hosted.ctl(&["app", "list"]).done();
    assert!(!list.out.contains("blog"), "{list:?}");
}

#[test]
fn one_app_is_reloaded_by_its_name_although_nothing_has_changed() {
    if !ours() {
        return;
    }
    let hosted = two().start();
    let (shop, blog) = (master(&hosted, "shop"), master(&hosted, "blog"));
    hosted.server.write("shop.py", &module("new", ""));
    let said = hosted.ctl(&["--app", "shop", "reload"]).done();
    said.shows(&["shop: generation 2 serves"]);
    // Workers of the old generation may answer a little longer.
    wait_until("the new code", || {
        (hosted.get("shop", "/").text() == "new").then_some(())
    });
    wait_until("the new master", || {
        (master(&hosted, "shop") != shop).then_some(())
    });
    assert_eq!(master(&hosted, "blog"), blog);
    let said = hosted.ctl(&["--app", "other", "reload"]).ended(1);
    said.complains(&["there is no file of other"]);
}

#[test]
fn a_reload_that_fails_leaves_the_app_as_it_is() {
    if !ours() {
        return;
    }
    let hosted = two()
        .expect_error("reload failed")
        .expect_error("RuntimeError")
        .start();
    let shop = master(&hosted, "shop");
    hosted
        .server
        .write("shop.py", "raise RuntimeError('broken')\n");
    let said = hosted.ctl(&["--app", "shop", "reload"]).ended(1);
    said.complains(&["shop: ", "RuntimeError: broken"]);
    hosted.write("shop", "target = 'shop'\nworkers = 'x'\n");
    let said = hosted.ctl(&["reload"]).ended(1);
    said.complains(&["shop.toml:2: workers: \"x\""]);
    assert_eq!(master(&hosted, "shop"), shop);
    let app = hosted.app("shop");
    assert_eq!(app["state"], "serving");
    assert!(
        app["reason"]
            .as_str()
            .is_some_and(|r| r.contains("shop.toml:2")),
        "{app}"
    );
    hosted.server.write("shop.py", &module("good", ""));
    hosted.write("shop", "target = 'shop'\n");
    hosted.ctl(&["--app", "shop", "reload"]).done();
    assert_eq!(hosted.app("shop")["reason"], json!(null));
    wait_until("the good code", || {
        (hosted.get("shop", "/").text() == "good").then_some(())
    });
}

#[test]
fn the_later_of_two_apps_at_one_address_is_disabled() {
    if !ours() {
        return;
    }
    let address = "bind = 'unix:../sockets/one.sock'\n";
    let hosted = Hosting::new("")
        .file("shop.py", &module("shop", ""))
        .app("a", &format!("target = 'shop'\n{address}"))
        .app("b", &format!("target = 'shop'\n{address}"))
        .expect_error("b is disabled")
        .start();
    hosted.get("one", "/").assert_text("shop");
    assert_eq!(hosted.state("a"), "serving");
    let b = hosted.app("b");
    assert_eq!(b["state"], "disabled");
    let reason = b["reason"].as_str().expect("a text");
    assert!(reason.starts_with("a listens on unix:"), "{reason}");
    // When the first is gone, the second takes its place.
    hosted.remove("a");
    hosted.server.signal(Signal::SIGHUP);
    wait_until("the other app", || {
        (hosted.state("b") == "serving").then_some(())
    });
    hosted.get("one", "/").assert_text("shop");
}

#[test]
fn an_app_that_listens_elsewhere_is_started_anew_there() {
    if !ours() {
        return;
    }
    let hosted = two().start();
    hosted.write(
        "shop",
        "target = 'shop'\nbind = 'unix:../sockets/other.sock'\n",
    );
    hosted.ctl(&["reload"]).done();
    wait_until("the app", || {
        (hosted.state("shop") == "serving").then_some(())
    });
    hosted.get("other", "/").assert_text("shop");
    assert!(!hosted.socket("shop").exists());
}

#[test]
fn a_master_that_is_killed_is_replaced_and_the_others_notice_nothing() {
    if !ours() {
        return;
    }
    let hosted = two().expect_error("killed by SIGKILL").start();
    let blog = master(&hosted, "blog");
    let shop = master(&hosted, "shop");
    let masters = hosted.server.masters();
    let killed = masters.iter().find(|m| m.number.to_string() == shop);
    killed.expect("its master").signal(Signal::SIGKILL);
    hosted.server.log.wait_for("shop: generation 1");
    wait_until("another master", || {
        (master(&hosted, "shop") != shop).then_some(())
    });
    assert_eq!(master(&hosted, "blog"), blog);
}

#[test]
fn an_upgrade_keeps_all_apps() {
    if !ours() {
        return;
    }
    let hosted = two()
        .app("idle", "target = 'blog'\non-demand = true\n")
        .app("wrong", "x = 1\n")
        .expect_error("wrong is disabled")
        .start();
    let (shop, blog) = (master(&hosted, "shop"), master(&hosted, "blog"));
    hosted.server.signal(Signal::SIGUSR2);
    hosted.server.log.wait_for("upgraded from ");
    assert_eq!(
        (master(&hosted, "shop"), master(&hosted, "blog")),
        (shop, blog.clone())
    );
    assert_eq!(hosted.state("idle"), "at rest");
    assert_eq!(hosted.state("wrong"), "disabled");
    hosted.get("idle", "/").assert_text("blog");
    hosted.write("blog", "target = 'blog'\nenv = ['A=c']\n");
    hosted
        .ctl(&["reload"])
        .ended(1)
        .complains(&["wrong.toml:1"]);
    wait_until("the new master", || {
        (master(&hosted, "blog") != blog).then_some(())
    });
}

#[test]
fn check_imports_every_app() {
    if !ours() {
        return;
    }
    let good = two()
        .change(|server| server.flag("--check"))
        .into_server()
        .run();
    good.assert_status(0);
    assert_eq!(
        good.stdout.matches(": ok (Python").count(),
        2,
        "{}",
        good.stdout
    );
    let bad = two()
        .app("wrong", "target = 'nowhere_at_all'\n")
        .change(|server| server.flag("--check").expect_error("nowhere_at_all"))
        .into_server()
        .run();
    bad.assert_status(78)
        .assert_says("wrong: ")
        .assert_says_once("1 app cannot be served");
}
