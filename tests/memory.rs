//! What happens between import and fork: warm-up requests, the fork-safety audit, memory that stays
//! shared.

use crate::support::{Finished, Running, Server, only_rswsgi, pythons};
use std::os::unix::net::UnixListener;

fn ours() -> bool {
    only_rswsgi("what it does before it forks")
}

const APP: &str = "\
import gc, os, sys
from talk import append

class Body(list):
    def close(self):
        append('closed', 'once')

def application(environ, start_response):
    path = environ['PATH_INFO']
    append('asked', '%d %s %s %s' % (os.getpid(), environ['HTTP_HOST'], environ['REMOTE_ADDR'], path))
    if path == '/raises':
        raise LookupError('not warm yet')
    status = {'/broken': '503 Broken', '/missing': '404 Not Found'}.get(path, '200 OK')
    start_response(status, [('Content-Type', 'text/plain')])
    return Body([str(gc.get_freeze_count()).encode()])
";

fn app() -> Server {
    Server::new().file("warm.py", APP).app("warm")
}

fn lines(server: &Running, file: &str) -> Vec<String> {
    server.file(file).lines().map(str::to_owned).collect()
}

#[test]
fn warm_up_requests_run_once_in_the_master_before_the_fork() {
    if !ours() {
        return;
    }
    let server = app()
        .workers(3)
        .arg("--warm-up", "/one?x=y")
        .arg("--warm-up", "http://shop.example:81/two")
        .start();
    let master = server.master().number;
    let asked = lines(&server, "asked");
    let expected = [
        format!("{master} localhost 127.0.0.1 /one"),
        format!("{master} shop.example:81 127.0.0.1 /two"),
    ];
    assert_eq!(asked, expected);
    assert_eq!(lines(&server, "closed").len(), 2, "close() was not called");
    server.log.wait_for("warm-up /two answered 200");
    server.get("/three").assert_status(200);
    let asked = lines(&server, "asked");
    assert!(!asked[2].starts_with(&master.to_string()), "{asked:?}");
}

#[test]
fn a_warm_up_that_fails_is_told_and_the_rest_goes_on() {
    if !ours() {
        return;
    }
    let mut server = app()
        .arg("--warm-up", "/raises")
        .arg("--warm-up", "/missing")
        .arg("--warm-up", "/fine")
        .start();
    server.expect_error("LookupError");
    for piece in [
        "the warm-up request for /raises failed",
        "LookupError: not warm yet",
        "the warm-up request for /missing was answered 404",
        "warm-up /fine answered 200",
    ] {
        server.log.wait_for(piece);
    }
    server.get("/").assert_status(200);
}

#[test]
fn a_warm_up_that_fails_can_be_a_reason_not_to_start() {
    if !ours() {
        return;
    }
    let refuse = |path: &str| -> Finished {
        let server = app().arg("--warm-up", path);
        server.arg("--warm-up-failure", "refuse").run()
    };
    refuse("/raises")
        .assert_status(78)
        .assert_says_once("Traceback (most recent call last)")
        .assert_says("the warm-up request for /raises failed");
    refuse("/broken")
        .assert_status(78)
        .assert_says("the warm-up request for /broken was answered 503");
    let fine = app().arg("--warm-up", "/fine");
    let fine = fine.arg("--warm-up-failure", "refuse").start();
    fine.get("/").assert_status(200);
}

#[test]
fn workers_start_with_their_objects_out_of_the_collectors_sight() {
    if !ours() {
        return;
    }
    let server = app().start();
    let frozen: u64 = server.get("/").text().parse().expect("a number");
    assert!(frozen > 1000, "{frozen} objects are frozen");
}

/// Garbage in a cycle that the collector has looked at while the request still needed it.
const CYCLES: &str = "\
import gc, os

class Node:
    alive = 0
    def __init__(self):
        self.me = self
        Node.alive += 1
    def __del__(self):
        Node.alive -= 1

if os.environ.get('COLLECTOR') == 'off':
    gc.disable()

def application(environ, start_response):
    node = Node()
    gc.collect(0)
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [str(Node.alive).encode()]
";

#[test]
fn garbage_is_collected_between_requests_unless_the_application_does_not_want_it() {
    if !ours() {
        return;
    }
    let alive_after = |server: &Running, requests: u32| -> u32 {
        let mut client = server.connect();
        let answers: Vec<String> = (0..requests).map(|_| client.get("/").text()).collect();
        answers[answers.len() - 1].parse().expect("a number")
    };
    let cycles = || Server::new().file("cycles.py", CYCLES).app("cycles");
    for python in pythons() {
        let server = cycles().python(&python.path).start();
        let alive = alive_after(&server, 64);
        assert!(alive < 32, "{alive} of 64 are alive with {python:?}");
    }
    let server = cycles().env("COLLECTOR", "off").start();
    assert_eq!(alive_after(&server, 64), 64);
}

// --- fork safety

/// An application that holds, as `KEPT`, what `code` makes.
fn holds(code: &str) -> Server {
    let text = format!("import os, socket\n{code}\n{APP}");
    Server::new().file("holds.py", &text).app("holds")
}

const THREAD: &str = "import threading\n\
                      threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()";

#[test]
fn connections_and_files_left_open_by_the_import_are_named() {
    if !ours() {
        return;
    }
    let database = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    let address = database.local_addr().expect("it is bound");
    let code = format!(
        "import sqlite3\n\
         KEPT = socket.create_connection(('127.0.0.1', {}))\n\
         here = os.path.dirname(os.path.abspath(__file__))\n\
         LISTENER = socket.create_server(('127.0.0.1', 0))\n\
         PAIR = socket.socketpair()\n\
         SYSLOG = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         OTHER = socket.socket(socket.AF_UNIX)\n\
         OTHER.connect(os.path.join(here, 'own', '.s.PGSQL.5432'))\n\
         BASE = sqlite3.connect(os.path.join(here, 'shop.sqlite3'))\n\
         BASE.execute('create table t (x)')\n\
         BASE.commit()\n",
        address.port()
    );
    let server = holds(&code);
    let own = server.dir().join("own");
    std::fs::create_dir(&own).expect("make a directory");
    let _postgres = UnixListener::bind(own.join(".s.PGSQL.5432")).expect("bind a socket");
    let server = server.start();
    server.get("/").assert_status(200);
    let finished = server.finish();
    finished
        .assert_says(&format!("connections (to {address} from 127.0.0.1:"))
        .assert_says(".s.PGSQL.5432, probably PostgreSQL")
        .assert_says("shop.sqlite3")
        .assert_says("the application listens for connections itself (127.0.0.1:")
        .assert_says("socket pairs")
        .assert_says("os.register_at_fork");
    assert_eq!(finished.count(" warning: "), 4, "{}", finished.stderr);
}

#[test]
fn what_a_warm_up_leaves_open_is_found_too() {
    if !ours() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let code = format!(
        "import socket\n\
         def application(environ, start_response):\n    \
             global KEPT\n    \
             KEPT = socket.create_connection(('127.0.0.1', {port}))\n    \
             start_response('200 OK', [])\n    \
             return [b'']\n"
    );
    let server = Server::new().file("late.py", &code).app("late");
    let server = server.arg("--warm-up", "/").start();
    server.log.wait_for(&format!("to 127.0.0.1:{port} from"));
}

#[test]
fn an_application_that_leaves_nothing_open_gets_no_warning() {
    if !ours() {
        return;
    }
    let server = app()
        .arg("--warm-up", "/")
        .arg("--fork-safety", "refuse")
        .start();
    server.get("/").assert_status(200);
    assert_eq!(server.finish().count(" warning: "), 0);
}

#[test]
fn fork_safety_can_refuse_or_be_off() {
    if !ours() {
        return;
    }
    holds(THREAD)
        .arg("--fork-safety", "refuse")
        .run()
        .assert_status(78)
        .assert_says("not safe to fork")
        .assert_says("poller");
    let server = holds(THREAD).arg("--fork-safety", "off").start();
    server.get("/").assert_status(200);
    assert_eq!(server.finish().count("poller"), 0);
}

// --- immortal objects

const MORTALS: &str = "\
import gc, io, json, os, sys, weakref
from talk import append

class Plain: pass
class Finalized:
    def __del__(self): append('finalized', str(os.getpid()))

PLAIN, FINALIZED, WATCHED = Plain(), Finalized(), Plain()
WATCHER = weakref.ref(WATCHED, lambda gone: append('gone', str(os.getpid())))
FILE = open(os.path.join(os.environ['UNDER_TEST_DIR'], 'written'), 'w')
NAMES = {str(n): [n, (n,), str(n) * 2] for n in range(1000)}
COUNTER = iter(range(10**9))

def grow(text):
    for n in range(100):
        text += str(n)
    return text

def application(environ, start_response):
    global FINALIZED, WATCHED, FILE
    answer = {
        'plain': sys.getrefcount(PLAIN),
        'constant': sys.getrefcount(grow.__code__.co_consts),
        'grown': grow('x' * 100) == 'x' * 100 + ''.join(map(str, range(100))),
        'count': next(COUNTER),
        'version': sys.version_info[:2],
    }
    NAMES.pop(str(answer['count']), None)
    FINALIZED = WATCHED = None
    if FILE:
        FILE.write('to the end')
    FILE = None
    gc.collect()
    start_response('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps(answer).encode()]
";

#[test]
fn immortal_objects_behave_and_what_somebody_waits_for_still_dies() {
    if !ours() {
        return;
    }
    for python in pythons() {
        let server = Server::new().file("mortals.py", MORTALS).app("mortals");
        let server = server.python(&python.path).flag("--immortal").start();
        let is_known = matches!(python.version, (3, 12 | 13));
        let mut client = server.connect();
        for n in 0..300 {
            let answer = client.get("/").json();
            assert_eq!(answer["count"], n, "{answer}");
            assert_eq!(answer["grown"], true, "{answer}");
            for object in ["plain", "constant"] {
                let references = answer[object].as_u64().expect("a number");
                assert_eq!(references == u64::from(u32::MAX), is_known, "{answer}");
            }
        }
        assert_eq!(server.file("written"), "to the end", "{python:?}");
        for file in ["finalized", "gone"] {
            assert_eq!(server.file(file).lines().count(), 1, "{file} {python:?}");
        }
        drop(client);
        let told = server.finish().count("--immortal is ignored");
        assert_eq!(told, usize::from(!is_known), "{python:?}");
    }
}
