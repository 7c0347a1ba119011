//! RFC 9110 and RFC 9112 by raw bytes: what is refused, what is served, what ends a connection.

use crate::support::{Running, Server};

mod connections;
mod limits;
mod refusals;
mod requests;

/// One worker with `tests/apps/basic.py`; one worker makes "it was never called" certain.
fn basic() -> Running {
    Server::new().app("basic").start()
}

/// The bytes get this status on a new connection, which is closed then; the application is not called
/// and the worker goes on.
#[track_caller]
fn assert_refused(server: &Running, bytes: impl AsRef<[u8]>, status: u16) {
    let shown = String::from_utf8_lossy(bytes.as_ref())
        .chars()
        .take(200)
        .collect::<String>();
    eprintln!("refused with {status}? {shown:?}"); // shown when the test fails
    let mut client = server.connect();
    client.send(bytes);
    let response = client.response();
    assert_eq!(response.status, status, "for {shown:?}: {response:?}");
    assert!(
        response.says_close(),
        "no Connection: close for {shown:?}: {response:?}"
    );
    client.expect_end();
    assert_never_called(server);
}

#[track_caller]
fn assert_never_called(server: &Running) {
    // The only worker has answered this one later, so whatever it noted before is there.
    server.get("/hello").assert_text("hello\n");
    assert_eq!(
        server.notes.so_far(),
        Vec::<String>::new(),
        "the application was called"
    );
}
