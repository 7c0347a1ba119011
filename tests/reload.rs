//! Reload on SIGHUP: the next generation replaces the old one when it serves, and not before.

use crate::support::{Client, Load, Pid, Running, Server, only_rswsgi, wait_until};
use nix::sys::signal::Signal;

mod clients;
mod configuration;
mod generations;
mod refused;

pub fn ours() -> bool {
    only_rswsgi("verified reload")
}

/// An application that answers with its version; `import` runs when it is imported.
pub fn version(answer: &str, import: &str) -> String {
    format!(
        "import os, sys, time\n\
         from talk import note, wait_at\n\
         {import}\n\
         def application(environ, start_response):\n    \
             if environ['PATH_INFO'] == '/wait':\n        \
                 note('waiting')\n        \
                 wait_at('gate')\n    \
             if environ['PATH_INFO'] == '/slow':\n        \
                 note('slow')\n        \
                 time.sleep(0.6)\n    \
             body = b'{answer}'\n    \
             if environ['PATH_INFO'] == '/pid':\n        \
                 body = str(os.getpid()).encode()\n    \
             start_response('200 OK', [('Content-Length', str(len(body)))])\n    \
             return [body]\n"
    )
}

pub fn shop() -> Server {
    Server::new()
        .app("shop")
        .workers(2)
        .tcp()
        .unix()
        .file("shop.py", &version("one", ""))
}

/// The server replaces generation `number - 1` by this one.
#[track_caller]
fn wait_generation(server: &Running, number: u32) -> Vec<Pid> {
    server.log.wait_for(&format!("generation {number}, "));
    wait_until("one generation", || {
        (server.masters().len() == 1).then_some(())
    });
    let master = server.master();
    let title = format!("rswsgi: master [shop gen {number}]");
    assert!(master.title().starts_with(&title), "{}", master.title());
    server.workers()
}

#[track_caller]
fn count(server: &Running, piece: &str) -> usize {
    server.log.text().matches(piece).count()
}

/// After `change` a reload fails and says this once; clients notice nothing; the next one works.
#[track_caller]
fn assert_keeps_serving(server: Server, change: impl FnOnce(&Running), said: &[&str]) {
    let mut server = server.start();
    // The log shows what went wrong; what else may be wrong would show in the answers.
    for piece in ["rror", "workers end before"] {
        server.expect_error(piece);
    }
    let (master, workers) = (server.master(), server.workers());
    let mut client = server.connect();
    client.get("/").assert_text("one");
    let load = Load::start(&server, 1);
    load.wait_answers(1);
    change(&server);
    server.signal(Signal::SIGHUP);
    let message = server.wait_notified("READY=1");
    let status = &message[1];
    assert!(status.starts_with("STATUS=reload failed: "), "{message:?}");
    assert!(
        status.ends_with("generation 1 keeps serving"),
        "{message:?}"
    );
    load.wait_answers(5);
    load.finish();
    client.get("/").assert_text("one");
    assert_eq!(server.masters(), [master]);
    assert_eq!(server.workers(), workers);
    for piece in said
        .iter()
        .chain(&["reload failed: ", "; generation 1 keeps serving"])
    {
        // The log is written by a thread of its own.
        wait_until(piece, || (count(&server, piece) > 0).then_some(()));
        assert_eq!(
            count(&server, piece),
            1,
            "{piece:?} in the log:\n{}",
            server.log.text()
        );
    }
    assert!(count(&server, "Traceback") <= 1, "{}", server.log.text());
}

/// A request that waits in the application.
#[track_caller]
pub fn busy(server: &Running) -> Client {
    let mut client = server.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    server.notes.expect("waiting");
    client
}

/// Two connections, both of which have been served by the same worker.
#[track_caller]
pub fn two_of_one_worker(server: &Running) -> (Client, Client) {
    let mut known: Vec<(String, Client)> = Vec::new();
    wait_until("two connections of one worker", || {
        let mut client = server.connect();
        let pid = client.get("/pid").text();
        match known.iter().position(|(other, _)| *other == pid) {
            Some(index) => Some((known.swap_remove(index).1, client)),
            None => {
                known.push((pid, client));
                None
            }
        }
    })
}
