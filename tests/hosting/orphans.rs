//! What the processes of an app leave behind: whatever it does to get away, it ends with the app.

use super::isolation::two_users;
use super::{module, ours};
use crate::support::{Hosted, Hosting, Pid, Server, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::path::Path;

/// Makes daemons as manuals tell it. Their numbers are in `daemons-NAME`.
const DAEMONS: &str = "
import os, signal, time

def note_it(name):
    with open('daemons-' + name, 'a') as file:
        file.write('%d\\n' % os.getpid())

def rest(name):
    note_it(name)
    while True:
        time.sleep(3600)

def deaf(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    rest(name)

# Whoever of them is ended is replaced by another.
def hydra(name):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        above = os.getpid()
        if os.fork() == 0:
            note_it(name)
            while os.getppid() == above:
                time.sleep(0.01)
        else:
            while True:
                if os.fork() == 0:
                    rest(name)
                os.wait()

def daemon(what, name):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            what(name)
        os._exit(0)
    os.wait()
";

fn daemons(dir: &Path, name: &str) -> Vec<Pid> {
    let text = fs::read_to_string(dir.join(format!("daemons-{name}"))).unwrap_or_default();
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    numbers.filter_map(Pid::of).collect()
}

#[track_caller]
fn one(dir: &Path, name: &str) -> Pid {
    wait_until(&format!("a daemon of {name}"), || {
        let daemons = daemons(dir, name);
        (daemons.len() == 1).then(|| daemons[0])
    })
}

#[track_caller]
fn none(dir: &Path, name: &str) {
    wait_until(&format!("the end of what {name} has left"), || {
        daemons(dir, name).is_empty().then_some(())
    });
}

fn app(what: &str, name: &str) -> String {
    module(name, &format!("{DAEMONS}\ndaemon({what}, '{name}')"))
}

fn two() -> Hosting {
    Hosting::new("")
        .file("shop.py", &app("deaf", "shop"))
        .file("blog.py", &app("rest", "blog"))
        .app("shop", "target = 'shop'\n")
        .app("blog", "target = 'blog'\n")
}

fn master(hosted: &Hosted, name: &str) -> Pid {
    let masters = hosted.server.masters().into_iter();
    let title = format!("rswsgi: master [{name} gen ");
    let mut masters = masters.filter(|master| master.title().starts_with(&title));
    masters.next().expect("it has a master")
}

#[test]
fn what_an_app_has_left_running_ends_with_it_however_it_ends() {
    if !ours() {
        return;
    }
    let hosted = two().expect_error("shop").start();
    let (shop, blog) = (one(hosted.dir(), "shop"), one(hosted.dir(), "blog"));
    // While the app is there, it is the app's affair.
    let parent = master(&hosted, "shop");
    wait_until("its new parent", || {
        parent.children().contains(&shop).then_some(())
    });
    hosted.ctl(&["--app", "shop", "stop"]).done();
    none(hosted.dir(), "shop");
    hosted
        .server
        .log
        .wait_for("ended 1 processes that an app has left behind");
    // The same when nobody gets to say anything.
    hosted.ctl(&["--app", "shop", "reload"]).done();
    let shop = one(hosted.dir(), "shop");
    master(&hosted, "shop").signal(Signal::SIGKILL);
    shop.wait_gone();
    let shop = one(hosted.dir(), "shop");
    hosted.get("shop", "/").assert_text("shop");
    // With a reload its generation ends.
    hosted.ctl(&["--app", "shop", "reload"]).done();
    shop.wait_gone();
    one(hosted.dir(), "shop");
    hosted.remove("shop");
    hosted.ctl(&["reload"]).done();
    none(hosted.dir(), "shop");
    assert!(blog.is_alive(), "nobody else's is ended");
    hosted.get("blog", "/").assert_text("blog");
    assert_eq!(hosted.server.supervisor().zombies(), 0);
    // Of the other one nothing is left when the server stops, or the test fails.
}

#[test]
fn an_app_that_cannot_be_imported_leaves_nothing_behind() {
    if !ours() {
        return;
    }
    let broken = format!("{}\nraise ValueError('broken')\n", app("rest", "shop"));
    let hosted = two()
        .file("shop.py", &broken)
        .expect_error("broken")
        .start();
    wait_until("a failure", || {
        (hosted.state("shop") == "failing").then_some(())
    });
    hosted.remove("shop");
    hosted.ctl(&["reload"]).done();
    none(hosted.dir(), "shop");
    assert!(one(hosted.dir(), "blog").is_alive());
}

#[test]
fn whoever_replaces_what_is_ended_is_ended_too() {
    if !ours() {
        return;
    }
    let hosted = two().file("shop.py", &app("hydra", "shop")).start();
    wait_until("some of them", || {
        (daemons(hosted.dir(), "shop").len() >= 2).then_some(())
    });
    hosted.ctl(&["--app", "shop", "stop"]).done();
    none(hosted.dir(), "shop");
}

#[test]
fn orphans_end_with_a_supervisor_that_is_killed() {
    if !ours() {
        return;
    }
    let hosted = two().expect_error("the supervisor is gone").start();
    one(hosted.dir(), "shop");
    hosted.server.signal(Signal::SIGKILL);
    for name in ["shop", "blog"] {
        none(hosted.dir(), name);
        // Nobody was left to remove it; the next start replaces it.
        fs::remove_file(hosted.socket(name)).expect("it is there");
    }
}

#[test]
fn an_app_that_does_not_want_its_orphans_does_not_keep_them() {
    if !ours() {
        return;
    }
    // prctl(2), PR_SET_CHILD_SUBREAPER.
    let sly = format!(
        "import ctypes\nctypes.CDLL(None).prctl(36, 0, 0, 0, 0)\n{}",
        app("deaf", "shop")
    );
    let hosted = two().file("shop.py", &sly).start();
    hosted.get("shop", "/").assert_text("shop");
    none(hosted.dir(), "shop");
    hosted.get("shop", "/").assert_text("shop");
    let daemons = fs::read_to_string(hosted.dir().join("daemons-shop"));
    assert_eq!(daemons.expect("it was there").lines().count(), 1);
}

#[test]
fn what_a_worker_leaves_behind_goes_on_until_its_app_ends() {
    if !ours() {
        return;
    }
    let module = format!(
        "{DAEMONS}
def application(environ, start_response):
    body = str(os.getpid()).encode()
    if environ['PATH_INFO'] == '/fork':
        if os.fork() == 0:
            rest('shop')
    if environ['PATH_INFO'] == '/short':
        daemon(note_it, 'short')
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
"
    )
    .replace(
        "            what(name)\n",
        "            what(name)\n            os._exit(0)\n",
    );
    let hosted = two().file("shop.py", &module).start();
    let worker = hosted.get("shop", "/fork").text();
    let child = one(hosted.dir(), "shop");
    hosted.ctl(&["--app", "shop", "recycle"]).done();
    wait_until("another worker", || {
        (hosted.get("shop", "/pid").text() != worker).then_some(())
    });
    let master = master(&hosted, "shop");
    wait_until("its new parent", || {
        master.children().contains(&child).then_some(())
    });
    // Those that have ended are waited for, whoever was their parent.
    for _ in 0..3 {
        hosted.get("shop", "/short").assert_status(200);
    }
    wait_until("the ends of some", || (master.zombies() > 0).then_some(()));
    wait_until("the master to wait for them", || {
        (master.zombies() == 0).then_some(())
    });
    assert!(child.is_alive());
    hosted.ctl(&["--app", "shop", "stop"]).done();
    none(hosted.dir(), "shop");
}

#[test]
fn nothing_of_a_webspace_is_left_behind_either() {
    for isolation in ["off", "webspace"] {
        let text = format!(
            "{DAEMONS}\ndaemon(deaf, 'shop')\n{}",
            super::isolation::TRIES
        );
        let Some(hosting) = two_users(&format!("isolation = '{isolation}'\n"), &text) else {
            return;
        };
        let hosted = hosting.expect_error("one: generation").start();
        let dir = hosted.dir().join("one");
        super::isolation::ask(&hosted, "one", &json!({"hog": 1}));
        let first = one(&dir, "shop");
        master(&hosted, "one").signal(Signal::SIGKILL);
        first.wait_gone();
        one(&dir, "shop");
        hosted.ctl(&["--app", "one", "stop"]).done();
        none(&dir, "shop");
        one(&hosted.dir().join("two"), "shop");
    }
}

#[test]
fn the_daemon_of_a_single_application_is_left_alone() {
    if !ours() {
        return;
    }
    let mut server = Server::new()
        .app("shop")
        .file("shop.py", &app("rest", "shop"))
        .start();
    let daemon = one(server.dir(), "shop");
    server.get("/").assert_text("shop");
    server.signal(Signal::SIGTERM);
    server.wait_exit();
    assert!(daemon.is_alive(), "it was started on purpose");
    daemon.signal(Signal::SIGKILL);
    daemon.wait_gone();
}
