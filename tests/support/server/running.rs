//! A server that a test has started: what is asked of it, how it ends, and that nothing of it is left.

use super::{Address, TestDir};
use crate::support::log::{Log, complaints};
use crate::support::notes::{Gate, Notes};
use crate::support::process::{Pid, marked};
use crate::support::{Client, PATIENCE, Response, UnderTest, under_test};
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a command that ended by itself ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stderr: String,
    pub stdout: String,
    /// What the test still wants to look at.
    pub(super) _dir: Arc<TestDir>,
}

impl Finished {
    #[track_caller]
    pub fn assert_status(&self, code: i32) -> &Finished {
        assert_eq!(
            self.status.code(),
            Some(code),
            "exit status; {}\n{}",
            self.status,
            self.stderr
        );
        self
    }

    /// Ignoring case, how often the text on stderr has this piece.
    pub fn count(&self, piece: &str) -> usize {
        self.stderr
            .to_lowercase()
            .matches(&piece.to_lowercase())
            .count()
    }

    #[track_caller]
    pub fn assert_says(&self, piece: &str) -> &Finished {
        assert!(
            self.count(piece) > 0,
            "expected {piece:?} on stderr:\n{}",
            self.stderr
        );
        self
    }

    #[track_caller]
    pub fn assert_says_once(&self, piece: &str) -> &Finished {
        assert_eq!(
            self.count(piece),
            1,
            "expected {piece:?} once on stderr:\n{}",
            self.stderr
        );
        self
    }
}

/// A server that was started. Going out of scope stops it and checks what it leaves behind.
pub struct Running {
    pub(super) child: Child,
    /// As systemd would, it listens for the whole life of the server.
    pub(super) notify: UnixDatagram,
    pub(super) supervisor: Pid,
    pub(super) wrapped: bool,
    pub(super) status: Option<ExitStatus>,
    /// The server is not the process that was started.
    pub(super) daemon: bool,
    pub(super) checked: bool,
    pub(super) command: String,
    pub(super) addresses: Vec<Address>,
    pub(super) bound: Vec<String>,
    pub(super) workers: Option<usize>,
    pub(super) expected: Vec<String>,
    pub(super) right_status: i32,
    pub log: Log,
    pub stdout: Log,
    pub notes: Notes,
    pub(super) dir: Arc<TestDir>,
}

impl Running {
    pub(super) fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        self.notify
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("twenty milliseconds are a valid timeout");
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = self.notify.recv(&mut message)
                && message[..length]
                    .split(|&byte| byte == b'\n')
                    .any(|line| line == b"READY=1")
            {
                return Ok(());
            }
            // A peer sends no notification: it is ready when it answers. rswsgi must say so itself.
            if under_test() != UnderTest::Rswsgi
                && Client::try_connect(&self.addresses[0]).is_ok_and(Client::answers)
            {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                self.status = Some(status);
                return Err(format!("the server left before it was ready: {status}"));
            }
            if Instant::now() > deadline {
                return Err("the server never said READY=1".into());
            }
        }
    }

    /// What the server tells the service manager next, as lines.
    #[track_caller]
    pub fn notification(&self) -> Vec<String> {
        let patience = self.notify.set_read_timeout(Some(PATIENCE));
        patience.expect("thirty seconds are a valid timeout");
        let mut message = [0; 4096];
        let length = loop {
            // signal(7): with a time limit a freeze of the machine is enough to interrupt a read.
            match self.notify.recv(&mut message) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.expect("a notification of the server"),
            }
        };
        let text = String::from_utf8_lossy(&message[..length]);
        text.lines().map(str::to_owned).collect()
    }

    /// The same, unless nothing comes for so long.
    pub fn notification_within(&self, time: Duration) -> Option<Vec<String>> {
        let patience = self.notify.set_read_timeout(Some(time));
        patience.expect("a valid timeout");
        let mut message = [0; 4096];
        let length = self.notify.recv(&mut message).ok()?;
        let text = String::from_utf8_lossy(&message[..length]);
        Some(text.lines().map(str::to_owned).collect())
    }

    /// What the server has told and nobody has read; a service manager always reads.
    pub fn read_notifications(&self) {
        let waiting = self.notify.set_nonblocking(true);
        waiting.expect("a socket can be made non-blocking");
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        let waiting = self.notify.set_nonblocking(false);
        waiting.expect("a socket can be made blocking");
    }

    /// Skips notifications until one has this line.
    #[track_caller]
    pub fn wait_notified(&self, line: &str) -> Vec<String> {
        loop {
            let message = self.notification();
            if message.iter().any(|other| other == line) {
                return message;
            }
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Changes what the application is made of, for the next generation.
    pub fn write(&self, name: &str, text: &str) {
        // Renamed into its place: nobody reads half of it.
        let new = self.dir().join("new");
        std::fs::write(&new, text).expect("write into the test's directory");
        std::fs::rename(&new, self.dir().join(name)).expect("rename within the test's directory");
    }

    pub fn gate(&self, name: &str) -> Gate {
        Gate::new(self.dir(), name)
    }

    /// A file that the application wrote for the test; empty when there is none.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir().join(name)).unwrap_or_default()
    }

    pub fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// The listeners that were passed, in order.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Clients find it there.
    pub fn reach_by(mut self, address: Address) -> Running {
        self.addresses = vec![address];
        self
    }

    /// A connection to the first listener.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    #[track_caller]
    pub fn connect_to(&self, listener: usize) -> Client {
        let address = &self.addresses[listener];
        Client::try_connect(address)
            .unwrap_or_else(|error| panic!("cannot connect to {address:?}: {error}"))
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        let mut client = self.connect();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ));
        let response = client.response();
        client.expect_end();
        response
    }

    pub fn supervisor(&self) -> Pid {
        self.supervisor
    }

    /// The process that forks the workers: the supervisor's only child; for a peer the first process itself.
    #[track_caller]
    pub fn master(&self) -> Pid {
        if under_test() != UnderTest::Rswsgi {
            return self.supervisor;
        }
        let masters = self.supervisor.children();
        assert_eq!(masters.len(), 1, "one app has one master: {masters:?}");
        masters[0]
    }

    /// The masters, also those of generations that come or go.
    pub fn masters(&self) -> Vec<Pid> {
        let mut masters = self.supervisor.children();
        masters.sort();
        masters
    }

    /// The workers, in the order of their process numbers, once there are as many as were asked for.
    #[track_caller]
    pub fn workers(&self) -> Vec<Pid> {
        crate::support::wait_until("all workers to run", || {
            let mut workers = self.master().children();
            workers.sort();
            (Some(workers.len()) == self.workers).then_some(workers)
        })
    }

    /// The workers there are now, of all masters, however many, in the order of their process numbers.
    pub fn crew(&self) -> Vec<Pid> {
        let masters = self.supervisor.children().into_iter();
        let mut workers: Vec<Pid> = masters.flat_map(Pid::children).collect();
        workers.sort();
        workers
    }

    /// More pieces that lines about errors may have, for what a test provokes on the way.
    pub fn expect_error(&mut self, piece: &str) {
        self.expected.push(piece.into());
    }

    pub fn expect_status(&mut self, status: i32) {
        self.right_status = status;
    }

    pub fn signal(&self, signal: Signal) {
        self.supervisor.signal(signal);
    }

    /// Waits for the end of the first process.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let status = self.exit_before(Instant::now() + PATIENCE);
        status.unwrap_or_else(|| panic!("the server does not end"))
    }

    pub fn has_exited(&mut self) -> bool {
        self.exit_before(Instant::now()).is_some()
    }

    fn exit_before(&mut self, deadline: Instant) -> Option<ExitStatus> {
        while self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for our own child");
            if self.status.is_none() {
                if Instant::now() >= deadline {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.status
    }

    /// Stops the server (TERM, unless it already ended) and checks what is left; dropping does the same.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let verdict = self.stop();
        self.checked = true;
        if let Err(reason) = verdict {
            self.fail(&reason);
        }
        Finished {
            status: self.status.expect("the server was stopped"),
            stderr: self.log.text(),
            stdout: self.stdout.text(),
            _dir: Arc::clone(&self.dir),
        }
    }

    fn stop(&mut self) -> Result<(), String> {
        if self.status.is_none() || self.daemon {
            self.supervisor.signal(Signal::SIGTERM);
        }
        let Some(status) = self.exit_before(Instant::now() + PATIENCE) else {
            return Err("the server does not stop on TERM".into());
        };
        if status.code() != Some(self.right_status) && status.signal() != Some(9) {
            return Err(format!(
                "the server ended with {status}, not with {}",
                self.right_status
            ));
        }
        self.nothing_left()?;
        if under_test() != UnderTest::Rswsgi {
            self.expected.push("[ERROR]".into()); // a peer words its reports as it likes
        }
        let complaints = complaints(&self.log.text(), &self.expected);
        if !complaints.is_empty() {
            return Err(format!(
                "unexpected lines in the log:\n{}",
                complaints.join("\n")
            ));
        }
        Ok(())
    }

    /// No process, no socket file of the server's making, and the passed socket files where they were.
    pub(super) fn nothing_left(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let left = loop {
            let left = self.survivors();
            if left.is_empty() || Instant::now() > deadline {
                break left;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if !left.is_empty() {
            return Err(format!("processes are left: {}", self.describe(left)));
        }
        if !self.log.ends_before(deadline) || !self.stdout.ends_before(deadline) {
            return Err("somebody still holds the server's stderr or stdout".into());
        }
        if under_test() != UnderTest::Rswsgi {
            return Ok(());
        }
        let passed = self.addresses.iter().filter_map(|address| match address {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        });
        let mut ours: Vec<PathBuf> = passed.collect();
        if let Some(lost) = ours.iter().find(|path| !path.exists()) {
            return Err(format!(
                "the server removed a socket that was passed to it: {}",
                lost.display()
            ));
        }
        ours.push(self.dir().join("notify"));
        let mut sockets = sockets_below(self.dir());
        sockets.retain(|path| !ours.contains(path) && !path.starts_with(self.dir().join("own")));
        if self.status.and_then(|status| status.signal()) == Some(9) {
            // Nobody was left to remove it; the next start replaces it.
            sockets.retain(|path| path.extension() != Some(OsStr::new("control")));
        }
        match sockets.first() {
            Some(path) => Err(format!("a socket file is left: {}", path.display())),
            None => Ok(()),
        }
    }

    fn survivors(&self) -> Vec<Pid> {
        let mark = format!("UNDER_TEST_DIR={}", self.dir().display());
        marked(&mark, self.dir()).into_iter().collect()
    }

    fn describe(&self, processes: Vec<Pid>) -> String {
        let mut text = String::new();
        for pid in processes {
            let state = pid.status("State").unwrap_or_default();
            let _ = write!(text, "\n  {} {} ({state})", pid.number, pid.title());
        }
        text
    }

    /// Everything a person needs to see why, then nothing of the server is left, then the panic.
    #[track_caller]
    pub(super) fn fail(&mut self, reason: &str) -> ! {
        self.report();
        self.kill();
        self.checked = true;
        panic!("{reason}");
    }

    fn report(&self) {
        eprintln!("--- command: {}", self.command);
        eprintln!("--- listeners: {:?} {:?}", self.addresses, self.bound);
        eprintln!("--- kept: {}", self.dir().display());
        eprintln!("--- processes: {}", self.describe(self.survivors()));
        for (name, log) in [("stdout", &self.stdout), ("stderr", &self.log)] {
            let text = log.text();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(80)..];
            eprintln!(
                "--- {name}, last {} of {} lines:\n{}",
                tail.len(),
                lines.len(),
                tail.join("\n")
            );
        }
        eprintln!("---");
    }

    fn kill(&mut self) {
        if self.status.is_none() {
            // Its only way to fail is a child that has ended, which is what we want.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Somebody may be forking meanwhile.
        for _ in 0..100 {
            let left = self.survivors();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|pid| pid.signal(Signal::SIGKILL));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if !self.checked {
                self.report();
                self.kill();
            }
        } else if !self.checked
            && let Err(reason) = self.stop()
        {
            self.fail(&reason);
        }
    }
}

/// The living process that a pid file names.
pub fn pid_in(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    Pid::of(text.trim().parse().ok()?)
}

fn sockets_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() => found.extend(sockets_below(&entry.path())),
            _ => {}
        }
    }
    found
}
