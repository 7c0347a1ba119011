//! Starts one server for one test, and makes sure that nothing of it is left.

use super::log::{Log, complaints};
use super::notes::{Gate, Notes};
use super::process::{Pid, marked};
use super::{Client, PATIENCE, Response, UnderTest, apps, python, under_test};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::Signal;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The directory of one test: sockets, pipes, log. Kept when the test fails.
#[derive(Debug)]
pub struct TestDir(PathBuf);

impl TestDir {
    pub fn new() -> TestDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Short: the path of a Unix socket has 108 bytes at most (unix(7)).
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("rswsgi-test-{}-{number}", std::process::id()));
        // What a test that failed has kept, of a process that had the same number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("run")).expect("create the directory of the test");
        TestDir(path.canonicalize().expect("the directory was just made"))
    }
}

impl TestDir {
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // A leftover in the temporary directory fails no test.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

enum Sockets {
    /// The test binds and passes; the server finds them from descriptor 3 on.
    Passed(Vec<(Address, OwnedFd)>),
    /// The server binds; for tests about binding.
    Bound(Vec<String>),
}

pub struct Server {
    target: Option<String>,
    workers: Option<String>,
    args: Vec<OsString>,
    wrapper: Vec<OsString>,
    under: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    unset: Vec<OsString>,
    python: Option<PathBuf>,
    program: PathBuf,
    sockets: Sockets,
    expected: Vec<String>,
    status: i32,
    notes: Notes,
    dir: TestDir,
}

impl Server {
    /// One worker, no application yet, one TCP listener unless something else is asked for.
    pub fn new() -> Server {
        let dir = TestDir::new();
        Server {
            target: None,
            workers: Some("1".into()),
            args: Vec::new(),
            wrapper: Vec::new(),
            under: Vec::new(),
            env: Vec::new(),
            unset: Vec::new(),
            python: Some(python::default().path),
            program: env!("CARGO_BIN_EXE_rswsgi").into(),
            sockets: Sockets::Passed(Vec::new()),
            expected: Vec::new(),
            status: 0,
            notes: Notes::new(&dir.0),
            dir,
        }
    }

    /// The target as on the command line; modules of `tests/apps` can be imported.
    pub fn app(mut self, target: &str) -> Server {
        self.target = Some(target.into());
        self
    }

    pub fn workers(mut self, workers: u32) -> Server {
        self.workers = Some(workers.to_string());
        self
    }

    /// An elastic pool: `MIN..MAX`.
    pub fn pool(mut self, bounds: &str) -> Server {
        self.workers = Some(bounds.into());
        self
    }

    /// Runs the server by way of another program, which becomes the parent of all (`unshare --fork`).
    pub fn within(mut self, wrapper: &[&str]) -> Server {
        self.wrapper = wrapper.iter().map(|word| (*word).into()).collect();
        self
    }

    /// Leaves `--workers` out.
    pub fn default_workers(mut self) -> Server {
        self.workers = None;
        self
    }

    pub fn arg(mut self, name: &str, value: impl AsRef<OsStr>) -> Server {
        self.args.extend([name.into(), value.as_ref().to_owned()]);
        self
    }

    pub fn flag(mut self, name: &str) -> Server {
        self.args.push(name.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Server {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub fn unset(mut self, name: &str) -> Server {
        self.unset.push(name.into());
        self
    }

    /// Starts the server by a command that replaces itself with its last arguments (`nice`, `sh -c 'exec "$@"' sh`).
    pub fn under<const N: usize>(mut self, command: [&str; N]) -> Server {
        self.under = command.map(OsString::from).into();
        self
    }

    pub fn python(mut self, path: impl Into<PathBuf>) -> Server {
        self.python = Some(path.into());
        self
    }

    /// Starts another program than the one that was built: a copy, for tests that replace it.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Server {
        self.program = path.into();
        self
    }

    /// Leaves `--python` out: the server looks for an interpreter itself.
    pub fn any_python(mut self) -> Server {
        self.python = None;
        self
    }

    /// Passes a TCP listener on a free port of 127.0.0.1.
    pub fn tcp(self) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let address = Address::Tcp(
            listener
                .local_addr()
                .expect("a bound socket has an address"),
        );
        self.pass(address, listener.into())
    }

    /// Passes a Unix listener in the directory of the test.
    pub fn unix(self) -> Server {
        let path = self.dir().join("passed.sock");
        let listener = UnixListener::bind(&path).expect("bind a socket in the test's directory");
        self.pass(Address::Unix(path), listener.into())
    }

    fn pass(mut self, address: Address, fd: OwnedFd) -> Server {
        match &mut self.sockets {
            Sockets::Passed(passed) => passed.push((address, fd)),
            Sockets::Bound(_) => {
                panic!("a test passes listeners or lets the server bind, not both")
            }
        }
        self
    }

    /// Lets the server bind this address itself.
    pub fn bind(mut self, address: &str) -> Server {
        match &mut self.sockets {
            Sockets::Bound(bound) => bound.push(address.into()),
            Sockets::Passed(_) => self.sockets = Sockets::Bound(vec![address.into()]),
        }
        self
    }

    /// Lines of the log with this piece may speak of errors.
    pub fn expect_error(mut self, piece: &str) -> Server {
        self.expected.push(piece.into());
        self
    }

    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Writes a file into the directory of the test, from which Python also imports.
    pub fn file(self, name: &str, text: &str) -> Server {
        std::fs::write(self.dir().join(name), text).expect("write into the test's directory");
        self
    }

    /// Starts the server and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Running {
        let mut running = self.spawn();
        let ready = running.wait_ready();
        if let Err(reason) = ready {
            running.fail(&reason);
        }
        if running.wrapped {
            let inside = running.supervisor.children();
            assert_eq!(inside.len(), 1, "the wrapper runs the server: {inside:?}");
            running.supervisor = inside[0];
        }
        running
    }

    /// Starts the server in the background, as `--daemon` with this pid file: the command ends when the
    /// server is ready.
    #[track_caller]
    pub fn start_daemon(self, pid_file: &Path) -> Running {
        let server = self.flag("--daemon").arg("--pid-file", pid_file);
        let mut running = server.spawn();
        let status = running.wait_exit();
        if !status.success() {
            running.fail(&format!("the server did not start: {status}"));
        }
        running.supervisor = pid_in(pid_file).expect("the pid file names a process");
        running.daemon = true;
        running
    }

    /// Runs a command that ends by itself: one that cannot start, or `--check`.
    #[track_caller]
    pub fn run(self) -> Finished {
        let mut running = self.spawn();
        let status = running.wait_exit();
        if let Err(reason) = running.nothing_left() {
            running.fail(&reason);
        }
        let finished = Finished {
            status,
            stderr: running.log.text(),
            stdout: running.stdout.text(),
            _dir: Arc::clone(&running.dir),
        };
        running.checked = true;
        finished
    }

    /// Starts the server without waiting for anything.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        if matches!(&self.sockets, Sockets::Passed(passed) if passed.is_empty()) {
            self = self.tcp();
        }
        let (log_end, stderr) = std::io::pipe().expect("make a pipe");
        let (out_end, stdout) = std::io::pipe().expect("make a pipe");
        let notify = UnixDatagram::bind(self.dir().join("notify")).expect("bind the notify socket");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let (addresses, bound) = match self.sockets {
            Sockets::Passed(passed) => {
                let (addresses, fds): (Vec<_>, Vec<_>) = passed.into_iter().unzip();
                let mapping = (3..).zip(fds).map(|(child_fd, parent_fd)| FdMapping {
                    parent_fd,
                    child_fd,
                });
                command
                    .fd_mappings(mapping.collect())
                    .expect("descriptors from 3 on are distinct");
                (addresses, Vec::new())
            }
            Sockets::Bound(bound) => (Vec::new(), bound),
        };
        let line = format!("{command:?}");
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        drop(command); // its ends of the pipes and its copies of the listeners
        let supervisor = Pid::of_child(child.id().cast_signed());
        Running {
            wrapped: !self.wrapper.is_empty(),
            log: Log::follow(log_end, &self.dir.0.join("stderr")),
            stdout: Log::follow(out_end, &self.dir.0.join("stdout")),
            child,
            notify,
            supervisor,
            status: None,
            daemon: false,
            checked: false,
            command: line,
            addresses,
            bound,
            workers: self.workers.as_ref().and_then(|number| number.parse().ok()),
            expected: self.expected,
            right_status: self.status,
            notes: self.notes,
            dir: Arc::new(self.dir),
        }
    }

    fn command(&self) -> Command {
        let mut command = match under_test() {
            UnderTest::Rswsgi => self.rswsgi(),
            UnderTest::Gunicorn(program) => self.gunicorn(&program),
        };
        command.current_dir(self.dir());
        for (name, _) in std::env::vars_os() {
            // The settings of the tests are not settings of the server.
            if name.as_encoded_bytes().starts_with(b"RSWSGI_") && name != "RSWSGI_MODULE" {
                command.env_remove(name);
            }
        }
        for name in [
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "VIRTUAL_ENV",
            "PYTHONHOME",
            "PYENV_VERSION",
        ] {
            command.env_remove(name);
        }
        let search = [apps(), self.dir().to_owned()];
        command.env(
            "PYTHONPATH",
            std::env::join_paths(search).expect("no colon in these paths"),
        );
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("UNDER_TEST_DIR", self.dir());
        command.env("NOTIFY_SOCKET", self.dir().join("notify"));
        command.env("RUNTIME_DIRECTORY", self.dir().join("run"));
        command.env("XDG_RUNTIME_DIR", self.dir().join("run"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        for name in &self.unset {
            command.env_remove(name);
        }
        command
    }

    fn rswsgi(&self) -> Command {
        let mut words = self.wrapper.clone();
        if let Sockets::Passed(_) = &self.sockets {
            // sd_listen_fds(3): LISTEN_PID is the process that serves, known only once it exists.
            words.extend(["sh", "-c", "export LISTEN_PID=$$; exec \"$@\"", "sh"].map(Into::into));
        }
        words.extend(self.under.iter().cloned());
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        match &self.sockets {
            Sockets::Passed(passed) => {
                command.env("LISTEN_FDS", passed.len().to_string());
            }
            Sockets::Bound(bound) => {
                command.env_remove("LISTEN_FDS");
                command.args(bound.iter().flat_map(|address| ["--bind", address]));
            }
        }
        if let Some(workers) = &self.workers {
            command.args(["--workers", workers]);
        }
        if let Some(python) = &self.python {
            command.arg("--python").arg(python);
        }
        command.args(&self.args).args(&self.target);
        command
    }

    fn gunicorn(&self, program: &Path) -> Command {
        let program = program
            .canonicalize()
            .unwrap_or_else(|_| program.to_owned());
        let mut command = Command::new(program);
        command.args([
            "--no-control-socket",
            "--worker-class",
            "gthread",
            "--threads",
            "1",
        ]);
        command.env_remove("LISTEN_FDS");
        match &self.sockets {
            Sockets::Passed(passed) => {
                for (number, _) in (3..).zip(passed) {
                    command.args(["--bind", &format!("fd://{number}")]);
                }
            }
            Sockets::Bound(bound) => {
                command.args(bound.iter().flat_map(|address| ["--bind", address]));
            }
        }
        command.args(
            self.workers
                .iter()
                .flat_map(|workers| ["--workers", workers]),
        );
        command.args(&self.target);
        command
    }
}

/// How a command that ended by itself ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stderr: String,
    pub stdout: String,
    /// What the test still wants to look at.
    _dir: Arc<TestDir>,
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
    child: Child,
    /// As systemd would, it listens for the whole life of the server.
    notify: UnixDatagram,
    supervisor: Pid,
    wrapped: bool,
    status: Option<ExitStatus>,
    /// The server is not the process that was started.
    daemon: bool,
    checked: bool,
    command: String,
    addresses: Vec<Address>,
    bound: Vec<String>,
    workers: Option<usize>,
    expected: Vec<String>,
    right_status: i32,
    pub log: Log,
    pub stdout: Log,
    pub notes: Notes,
    dir: Arc<TestDir>,
}

impl Running {
    fn wait_ready(&mut self) -> Result<(), String> {
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
        let length = self.notify.recv(&mut message);
        let length = length.expect("a notification of the server");
        let text = String::from_utf8_lossy(&message[..length]);
        text.lines().map(str::to_owned).collect()
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
        super::wait_until("all workers to run", || {
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
    fn nothing_left(&self) -> Result<(), String> {
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
    fn fail(&mut self, reason: &str) -> ! {
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
