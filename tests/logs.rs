//! The access log has one line for every request, whatever becomes of it; logs reach every kind of sink;
//! no sink stops or slows the service; the server's own answers suit their client.

use crate::support::{Running, Server, only_rswsgi, wait_until};

mod access;
mod endings;
mod links;
mod pages;
mod rotation;
mod sinks;
mod storm;

fn ours() -> bool {
    only_rswsgi("its logs are its own")
}

/// One worker with `tests/apps/logged.py` and a JSON line per request in `access.log`.
fn logged() -> Server {
    let server = Server::new()
        .app("logged")
        .arg("--access-log", "access.log");
    server.arg("--access-log-format", "json")
}

fn lines_of(text: &str) -> Vec<serde_json::Value> {
    let read = |line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the line {line:?}"))
    };
    text.lines().map(read).collect()
}

/// Waits for so many lines.
#[track_caller]
fn wait_lines(server: &Running, count: usize) -> Vec<serde_json::Value> {
    wait_until("the lines of the access log", || {
        let text = server.file("access.log");
        let is_whole = text.is_empty() || text.ends_with('\n');
        (is_whole && text.lines().count() >= count).then(|| lines_of(&text))
    })
}
