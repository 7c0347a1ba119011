//! `--share-again`: an idle worker drops its copies of what has not changed. Nothing but the memory
//! it takes may show that.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Running, Server, only_rswsgi, pythons};

/// Many small objects, and requests that look at all of them or change some.
const APP: &str = "\
import hashlib, os, threading
from talk import append

WORDS = ['word %d' % n for n in range(200000)]
TABLE = {word: [word] for word in WORDS[::10]}

def digest():
    found = hashlib.sha256()
    for word in WORDS:
        found.update(word.encode())
    for word, values in TABLE.items():
        found.update((word + ''.join(values)).encode())
    return found.hexdigest()

def change(number):
    for n in range(number, len(WORDS), 997):
        WORDS[n] += '!'
    for values in list(TABLE.values())[number::83]:
        values.append(str(number))
    for word in list(TABLE)[number::991]:
        del TABLE[word]

def child():
    if os.fork() == 0:
        append('child', digest())
        os._exit(0)

def counts(stop=threading.Event()):
    threading.Thread(target=stop.wait, daemon=True).start()

def application(environ, start_response):
    what, _, number = environ['PATH_INFO'].strip('/').partition('/')
    if what == 'change':
        change(int(number))
    elif what == 'fork':
        child()
    elif what == 'thread':
        counts()
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [digest().encode()]
";

fn app() -> Server {
    Server::new().file("words.py", APP).app("words")
}

/// KiB that only this worker has.
fn private(server: &Running) -> u64 {
    let worker = server.workers()[0].number;
    let path = format!("/proc/{worker}/smaps_rollup");
    let text = fs::read_to_string(path).expect("read the memory of a worker");
    let line = text.lines().find_map(|l| l.strip_prefix("Private_Dirty:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|n| n.trim().parse().ok()).expect("a size")
}

fn wait_until_below(server: &Running, kib: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while private(server) >= kib {
        assert!(Instant::now() < deadline, "{} KiB", private(server));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_for_file(server: &Running, name: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = server.file(name);
        if text.ends_with('\n') {
            return text;
        }
        assert!(Instant::now() < deadline, "{name}: {text:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_idle_worker_shares_again_what_it_has_not_changed_and_keeps_what_it_has() {
    if !only_rswsgi("--share-again") {
        return;
    }
    for python in pythons() {
        let plain = app().python(&python.path).start();
        let sharing = app().python(&python.path).arg("--share-again", "50ms");
        let sharing = sharing.start();
        let mut asks = (plain.connect(), sharing.connect());
        let asked = [
            "/",
            "/change/3",
            "/",
            "/fork",
            "/change/500",
            "/change/501",
            "/",
        ];
        for path in asked {
            let expected = asks.0.get(path).text();
            assert_eq!(asks.1.get(path).text(), expected, "{path} {python:?}");
            if !path.starts_with("/change") {
                // What was changed before adds up to less.
                wait_until_below(&sharing, private(&plain) * 3 / 4);
            }
        }
        assert!(private(&plain) > 10_000, "{} KiB", private(&plain));
        let told = [&sharing, &plain].map(|server| wait_for_file(server, "child"));
        assert_eq!(told[0], told[1], "{python:?}");
    }
}

#[test]
fn a_worker_whose_application_has_threads_keeps_its_memory() {
    if !only_rswsgi("--share-again") {
        return;
    }
    let server = app().arg("--share-again", "50ms").start();
    let before = server.get("/").text();
    wait_until_below(&server, 10_000);
    server.get("/thread").assert_status(200);
    server
        .log
        .wait_for("memory is not shared again: other threads run");
    assert!(private(&server) > 10_000, "{} KiB", private(&server));
    assert_eq!(server.get("/").text(), before);
}

#[test]
fn a_worker_keeps_its_memory_unless_asked_to_share() {
    if !only_rswsgi("--share-again") {
        return;
    }
    let server = app().start();
    server.get("/").assert_status(200);
    std::thread::sleep(Duration::from_millis(500));
    assert!(private(&server) > 10_000, "{} KiB", private(&server));
    let worker = server.workers()[0].number;
    let maps = fs::read_to_string(format!("/proc/{worker}/maps")).expect("read the mappings");
    assert!(!maps.contains("rswsgi-image"), "{maps}");
}
