//! `--reload`: files change, the application follows, and what is wrong is shown.

use crate::support::{Running, Server, skip, wait_until};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

const APP: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [ANSWER]
";

fn version(answer: &str) -> String {
    format!("ANSWER = b'{answer}'\n{APP}")
}

const BROKEN: &str = "def application(environ, start_response:  # <b>\n";

/// `shop.py`, in a directory that holds nothing else: the harness writes beside it.
fn shop(text: &str) -> Server {
    let server = Server::new().default_workers().flag("--reload").app("shop");
    fs::create_dir(server.dir().join("src")).expect("make a directory");
    fs::write(server.dir().join("src/shop.py"), text).expect("write a module");
    let src = server.dir().join("src");
    server.arg("--chdir", src)
}

/// As an editor does that overwrites the file.
fn save(server: &Running, name: &str, text: &str) {
    fs::write(server.dir().join("src").join(name), text).expect("save a file");
}

#[track_caller]
fn reloads(server: &Running) -> usize {
    server.log.text().matches("info: reloading: ").count()
}

#[track_caller]
fn wait_answer(server: &Running, answer: &str) {
    wait_until(&format!("the answer {answer}"), || {
        (server.get("/").text() == answer).then_some(())
    });
}

#[track_caller]
fn wait_status(server: &Running, status: u16) {
    wait_until(&format!("status {status}"), || {
        (server.get("/").status == status).then_some(())
    });
}

fn ask(server: &Running, fields: &str) -> crate::support::Response {
    ask_as(server, "localhost", fields)
}

fn ask_as(server: &Running, host: &str, fields: &str) -> crate::support::Response {
    let mut client = server.connect();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n"
    ));
    client.response()
}

#[test]
fn a_save_is_served_whichever_way_the_editor_writes() {
    let server = shop(&version("one")).start();
    server.get("/").assert_text("one");
    server.log.wait_for("with 1 worker ");
    save(&server, "shop.py", &version("two"));
    wait_answer(&server, "two");
    // A new file that is renamed into the place of the old one.
    save(&server, "4913", "");
    save(&server, "shop.py.new", &version("three"));
    let src = server.dir().join("src");
    fs::rename(src.join("shop.py.new"), src.join("shop.py")).expect("rename a file");
    wait_answer(&server, "three");
    // A link to another file.
    save(&server, "other.txt", &version("four"));
    fs::remove_file(src.join("shop.py")).expect("remove a file");
    symlink("other.txt", src.join("shop.py")).expect("make a link");
    wait_answer(&server, "four");
    let finished = server.finish();
    assert!(
        finished.stderr.contains("src/shop.py has changed"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_broken_save_is_shown_and_the_next_one_serves() {
    let mut server = shop(&version("one")).start();
    server.expect_error("reload failed");
    server.expect_error("Error: ");
    server.get("/").assert_text("one");
    let worker = server.crew();
    save(&server, "shop.py", BROKEN);
    wait_status(&server, 500);
    let page = ask(&server, "Accept: text/html,*/*;q=0.1\r\n");
    let text = page.text();
    page.assert_status(500);
    assert_eq!(page.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(
        text.contains("SyntaxError") && text.contains("shop.py&quot;, line 1"),
        "{text}"
    );
    assert!(
        text.contains("&lt;b&gt;") && !text.contains("<b>"),
        "{text}"
    );
    let plain = ask(&server, "");
    assert!(plain.text().contains("# <b>"), "{}", plain.text());
    let json = ask(&server, "Accept: application/json\r\n").json();
    assert!(
        json["detail"]
            .as_str()
            .expect("a text")
            .contains("SyntaxError"),
        "{json}"
    );
    // The old generation goes on, as after any reload that fails.
    assert_eq!(server.crew(), worker);
    save(&server, "shop.py", &version("two"));
    wait_answer(&server, "two");
    let finished = server.finish();
    finished
        .assert_says_once("reload failed: cannot serve shop: importing shop raised SyntaxError");
}

#[test]
fn a_traceback_is_for_clients_of_this_machine() {
    let mut server = shop(&version("one")).start();
    server.expect_error("reload failed");
    server.expect_error("Error: ");
    save(&server, "shop.py", BROKEN);
    wait_status(&server, 500);
    for fields in [
        "X-Forwarded-For: 203.0.113.9\r\n",
        "forwarded: for=203.0.113.9\r\n",
        "Via: 1.1 proxy\r\n",
        "X-Real-IP: 203.0.113.9\r\n",
    ] {
        let page = ask(&server, fields);
        page.assert_status(500);
        assert!(
            !page.text().contains("SyntaxError"),
            "{fields}{}",
            page.text()
        );
    }
    assert!(ask(&server, "").text().contains("SyntaxError"));
    // Whoever rules over a name may let it mean this machine.
    let rebound = ask_as(&server, "rebound.example", "");
    assert!(
        !rebound.text().contains("SyntaxError"),
        "{}",
        rebound.text()
    );
    drop(server);
    for (whom, fields, is_shown) in [("nobody", "", false), ("everyone", "Via: 1.1 x\r\n", true)] {
        let server = shop(&version("one")).arg("--reload-page", whom);
        let mut server = server.start();
        server.expect_error("reload failed");
        server.expect_error("Error: ");
        save(&server, "shop.py", BROKEN);
        wait_status(&server, 500);
        assert_eq!(
            ask(&server, fields).text().contains("SyntaxError"),
            is_shown,
            "{whom}"
        );
    }
}

#[test]
fn a_client_that_a_proxy_cannot_describe_is_not_of_this_machine() {
    let bind = "fd://3?proxy-protocol=on";
    let mut server = shop(&version("one")).tcp().arg("--bind", bind).start();
    server.expect_error("reload failed");
    server.expect_error("Error: ");
    let ask = |header: &[u8]| {
        let mut client = server.connect_to(0);
        client.send([header, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
        client.response()
    };
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    ask(local).assert_text("one");
    save(&server, "shop.py", BROKEN);
    wait_until("the page", || (ask(local).status == 500).then_some(()));
    let page = ask(b"PROXY UNKNOWN\r\n");
    page.assert_status(500);
    assert!(!page.text().contains("SyntaxError"), "{}", page.text());
    assert!(ask(local).text().contains("SyntaxError"));
}

#[test]
fn a_first_start_that_fails_waits_for_a_save() {
    let mut server = shop(BROKEN)
        .expect_error("cannot serve shop")
        .expect_error("Error: ")
        .start();
    server.expect_error("reload failed");
    server.expect_error("Error: ");
    let page = ask(&server, "Accept: text/html\r\n");
    page.assert_status(500);
    assert!(page.text().contains("SyntaxError"), "{}", page.text());
    save(&server, "shop.py", "import no_such_module\n");
    wait_until("the next traceback", || {
        let text = ask(&server, "").text();
        text.contains("No module named &#39;no_such_module&#39;")
            .then_some(())
            .or(text
                .contains("No module named 'no_such_module'")
                .then_some(()))
    });
    // The module that was missing is made: a package, by and by.
    let package = server.dir().join("src/no_such_module");
    fs::create_dir(&package).expect("make a directory");
    fs::write(package.join("__init__.py"), version("made")).expect("write a module");
    save(
        &server,
        "shop.py",
        "from no_such_module import application\n",
    );
    wait_answer(&server, "made");
    fs::write(package.join("__init__.py"), version("again")).expect("write a module");
    wait_answer(&server, "again");
}

#[test]
fn a_crash_at_the_first_import_waits_too_but_a_wrong_option_does_not() {
    let mut server = shop("import os\nos._exit(3)\n")
        .expect_error("cannot serve shop")
        .expect_error("Error: ")
        .start();
    server.expect_error("reload failed");
    server.expect_error("Error: ");
    let text = ask(&server, "").text();
    assert!(text.contains("exited with status 3"), "{text}");
    save(&server, "shop.py", &version("one"));
    wait_answer(&server, "one");
    let server = shop(&version("one")).python("/no/such/python");
    server
        .run()
        .assert_status(78)
        .assert_says("there is no such program");
}

#[test]
fn modules_that_a_worker_imports_later_are_watched_too() {
    let server = shop(
        "def application(environ, start_response):\n    import inner.late\n    start_response('200 OK', [])\n    \
         return [inner.late.ANSWER]\n",
    );
    let inner = server.dir().join("src/inner");
    fs::create_dir(&inner).expect("make a package");
    fs::write(inner.join("late.py"), "ANSWER = b'one'").expect("write a module");
    let server = server.start();
    server.get("/").assert_text("one");
    fs::write(inner.join("late.py"), "ANSWER = b'two'").expect("write a module");
    wait_answer(&server, "two");
    assert_eq!(reloads(&server), 1, "{}", server.log.text());
    // A module that is removed is missed.
    let mut server = server;
    server.expect_error("the application failed");
    server.expect_error("Error: ");
    fs::remove_file(inner.join("late.py")).expect("remove a module");
    wait_status(&server, 500);
    fs::write(inner.join("late.py"), "ANSWER = b'three'").expect("write a module");
    wait_answer(&server, "three");
}

#[test]
fn other_files_are_watched_as_they_are_named() {
    let server = shop(
        "import pathlib\nANSWER = pathlib.Path('templates/deep/page.html').read_bytes() + pathlib.Path('extra').read_bytes()\n\
         def application(environ, start_response):\n    start_response('200 OK', [])\n    return [ANSWER]\n",
    );
    let dir = server.dir().to_owned();
    let src = dir.join("src");
    fs::create_dir_all(src.join("templates/deep")).expect("make directories");
    fs::write(src.join("templates/deep/page.html"), "one").expect("write a file");
    fs::write(src.join("extra"), "-a").expect("write a file");
    fs::write(dir.join("shop.toml"), "env = []\n").expect("write a configuration");
    let server = server
        .arg("--reload-extra", src.join("templates"))
        .arg("--reload-extra", src.join("extra"))
        .arg("--config", dir.join("shop.toml"))
        .start();
    server.get("/").assert_text("one-a");
    save(&server, "templates/deep/page.html", "two");
    wait_answer(&server, "two-a");
    // Rewritten by a rename, as a configuration management does.
    save(&server, "new", "-b");
    fs::rename(src.join("new"), src.join("extra")).expect("rename a file");
    wait_answer(&server, "two-b");
    fs::create_dir(src.join("templates/more")).expect("make a directory");
    save(&server, "templates/more/x.html", "");
    server.log.wait_for("templates/more/x.html has changed");
    let mut server = server;
    server.expect_error("reload failed");
    server.expect_error("Error: ");
    fs::write(dir.join("shop.toml"), "no-such-thing = 1\n").expect("write a configuration");
    wait_status(&server, 500);
    assert!(
        ask(&server, "")
            .text()
            .contains("shop.toml:1: unknown setting")
    );
    fs::write(dir.join("shop.toml"), "").expect("write a configuration");
    wait_answer(&server, "two-b");
}

#[test]
fn what_is_no_change_reloads_nothing() {
    let server = shop(&version("one"))
        .arg("--reload-extra", "signal")
        .start();
    let cache = server.dir().join("src/__pycache__");
    fs::create_dir(&cache).expect("make a directory");
    for name in [
        "__pycache__/shop.cpython-311.pyc",
        "shop.pyc",
        ".shop.py.swp",
        ".#shop.py",
    ] {
        save(&server, name, "x");
    }
    for name in ["shop.py~", "notes.txt", "#shop.py#", "__pycache__/x.py"] {
        save(&server, name, "x");
        fs::remove_file(server.dir().join("src").join(name)).expect("remove a file");
    }
    fs::read(server.dir().join("src/shop.py")).expect("read the module");
    // Events come in their order, and a reload names the first file that made it.
    fs::write(server.dir().join("signal"), "").expect("write a file");
    server.log.wait_for("info: reloading: ");
    server.log.wait_for("reloaded: serving");
    let text = server.log.text();
    assert!(text.contains("/signal has changed"), "{text}");
    assert_eq!(reloads(&server), 1, "{text}");
}

#[test]
fn many_files_that_are_saved_at_once_make_one_reload() {
    let server = shop(&version("one")).start();
    for number in 0..50 {
        save(&server, &format!("module{number}.py"), "x = 1\n");
    }
    save(&server, "shop.py", &version("two"));
    wait_answer(&server, "two");
    let count = reloads(&server);
    // On a slow machine they may not come at once.
    assert!(count <= 5, "{count}: {}", server.log.text());
}

#[test]
fn an_application_that_changes_its_own_files_is_slowed_down_and_told() {
    let changing = "import time\nopen('made.py', 'w').write(str(time.time()))\n";
    let server = shop(&format!("{changing}{}", version("one"))).start();
    save(&server, "shop.py", &format!("{changing}{}", version("two")));
    server
        .log
        .wait_for("made.py changes whenever the application starts: reloading more slowly");
    // Slow enough for a generation to come up in between.
    wait_answer(&server, "two");
}

#[test]
fn nobody_is_woken_while_nothing_changes() {
    let server = shop(&version("one")).start();
    server.get("/").assert_text("one");
    let wakes = || {
        let supervisor = server.supervisor();
        let count = supervisor.status("voluntary_ctxt_switches");
        count
            .and_then(|count| count.parse::<u64>().ok())
            .expect("a number")
    };
    // Statistics of the start are told for a while.
    wait_until("a supervisor that rests", || {
        let before = wakes();
        std::thread::sleep(Duration::from_millis(500));
        (wakes() - before <= 5).then_some(())
    });
    assert_eq!(reloads(&server), 0);
}

#[test]
fn a_limit_of_the_kernel_is_told_once() {
    let can = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            "echo 9 > /proc/sys/user/max_inotify_watches",
        ])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip("no user namespace, or no limit of watches in it");
    }
    let script = "echo 3 > /proc/sys/user/max_inotify_watches; exec \"$@\"";
    let server = shop(&version("one"))
        .under([
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .start();
    server.get("/").assert_text("one");
    server.log.wait_for(
        "for changes: the limit is reached; sysctl fs.inotify.max_user_watches allows more",
    );
    // What is the application's own was watched first.
    save(&server, "shop.py", &version("two"));
    wait_answer(&server, "two");
    server.finish().assert_says_once("cannot watch");
}
