//! The harness: real servers, a raw HTTP client, a look at `/proc`.
//!
//! A test never sleeps to let something happen: it waits for an event (a note from the application,
//! a line in the log, the end of a process, bytes from a socket) and gives up after [`PATIENCE`],
//! which is long because the machines that run this are slow and shared. Nothing is global: every
//! test has its own directory, sockets and processes.

pub mod client;
pub mod control;
pub mod ctl;
pub mod curl;
pub mod fake;
pub mod hosting;
pub mod kernel;
pub mod load;
pub mod log;
pub mod neighbour;
pub mod nginx;
pub mod notes;
pub mod peer;
pub mod process;
pub mod promtool;
pub mod provision;
pub mod python;
pub mod server;
pub mod was_client;
pub mod was_gateway;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use client::{Client, Response};
pub use control::Control;
pub use ctl::{Said, ctl};
pub use curl::Curl;
pub use fake::{Answer, FakeServer};
pub use hosting::{Hosted, Hosting};
pub use load::Load;
pub use nginx::Nginx;
pub use peer::{UnderTest, only_rswsgi, under_test};
pub use process::Pid;
pub use python::pythons;
pub use server::{Finished, Running, Server, TestDir as Scratch};
pub use was_client::{MultiClient, WasClient};

/// How long an event may take before the test is given up as hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until there is an answer; for facts that have no event of their own (`/proc`, the file system).
#[track_caller]
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says on the real stderr, which libtest does not capture, that a test proves nothing here.
/// With `RSWSGI_TEST_NO_SKIP=1` (continuous integration) that is a failure.
#[track_caller]
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    let line = format!("\nSKIPPED: {name}: {reason}\n");
    // Nothing can be done about a closed stderr, and a skip must not become a failure by it.
    let _ = std::io::stderr().write_all(line.as_bytes());
    let forbidden = std::env::var_os("RSWSGI_TEST_NO_SKIP").is_some_and(|value| value == "1");
    assert!(
        !forbidden,
        "skipped ({reason}) although RSWSGI_TEST_NO_SKIP=1"
    );
}

/// The program that was built.
pub const BUILT: &str = env!("CARGO_BIN_EXE_rswsgi");

/// The extension module that goes with it, where the supervisor finds it, too.
pub fn module() -> PathBuf {
    if let Some(named) = std::env::var_os("RSWSGI_MODULE") {
        return named.into();
    }
    let places = ["librswsgi.so", "deps/librswsgi.so"];
    let places = places.map(|name| PathBuf::from(BUILT).with_file_name(name));
    let age = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).ok();
    let there = places.into_iter().filter(|path| path.exists());
    there.max_by_key(age).expect("cargo has built it")
}

/// The directory of the applications under `tests/`.
pub fn apps() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}

/// Small reproducible pseudo-random numbers (xorshift64*): a failing test names its seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.max(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 40) as u8).collect()
    }
}

/// Copies a program that is to be executed. Not by this process: a child that another test has just forked
/// would have the copy open for writing for a moment, and it could not be executed (ETXTBSY, execve(2)).
#[track_caller]
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let status = Command::new("cp")
        .args([from.as_ref(), to.as_ref()])
        .status();
    assert!(status.expect("cp").success(), "{}", to.as_ref().display());
}

/// The same for a script.
#[track_caller]
pub fn write_program(to: impl AsRef<Path>, text: &str) {
    let mut tee = Command::new("tee");
    let tee = tee
        .arg(to.as_ref())
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut tee = tee.spawn().expect("tee");
    let mut inlet = tee.stdin.take().expect("a pipe");
    inlet.write_all(text.as_bytes()).expect("tee reads");
    drop(inlet);
    assert!(
        tee.wait().expect("a child").success(),
        "{}",
        to.as_ref().display()
    );
}
