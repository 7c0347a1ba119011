//! Starts one server for one test.

mod running;

use super::log::Log;
use super::notes::Notes;
use super::process::Pid;
use super::{UnderTest, apps, python, under_test};
use command_fds::{CommandFdExt, FdMapping};
use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use running::{Finished, Running, pid_in};

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
        TestDir::below(&std::env::temp_dir())
    }

    pub fn below(place: &Path) -> TestDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Short: the path of a Unix socket has 108 bytes at most (unix(7)).
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = place.join(format!("rswsgi-test-{}-{number}", std::process::id()));
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
    /// It finds what it serves on its standard descriptors, as a WAS client starts it.
    Standard(Standard),
}

/// What a WAS client starts a server with.
pub struct Standard {
    pub stdin: OwnedFd,
    /// Descriptors 1 and 3 of a single connection.
    pub output_and_control: Option<(OwnedFd, OwnedFd)>,
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
        Server::inside(TestDir::new())
    }

    /// The same with its directory outside of /tmp, which an application may have for itself.
    pub fn outside_tmp() -> Server {
        Server::inside(TestDir::below(Path::new(env!("CARGO_TARGET_TMPDIR"))))
    }

    fn inside(dir: TestDir) -> Server {
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
            Sockets::Bound(bound) if bound.is_empty() => {
                self.sockets = Sockets::Passed(vec![(address, fd)]);
            }
            Sockets::Bound(_) | Sockets::Standard(_) => {
                panic!("a test passes listeners or lets the server bind, not both")
            }
        }
        self
    }

    /// Lets the server bind this address itself.
    pub fn bind(mut self, address: &str) -> Server {
        match &mut self.sockets {
            Sockets::Bound(bound) => bound.push(address.into()),
            _ => self.sockets = Sockets::Bound(vec![address.into()]),
        }
        self
    }

    /// Neither passes listeners nor names any.
    pub fn bind_nothing(mut self) -> Server {
        self.sockets = Sockets::Bound(Vec::new());
        self
    }

    /// As a Multi-WAS client starts it, or one of a single connection.
    pub fn standard(mut self, standard: Standard) -> Server {
        self.sockets = Sockets::Standard(standard);
        self
    }

    /// Passes a listening socket of any kind.
    pub fn pass_socket(self, path: PathBuf, fd: OwnedFd) -> Server {
        self.pass(Address::Unix(path), fd)
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
            Sockets::Standard(Standard {
                stdin,
                output_and_control,
            }) => {
                command.stdin(stdin);
                if let Some((output, control)) = output_and_control {
                    command.stdout(output);
                    let mapping = FdMapping {
                        parent_fd: control,
                        child_fd: 3,
                    };
                    let mapped = command.fd_mappings(vec![mapping]);
                    mapped.expect("one descriptor is distinct");
                }
                (Vec::new(), Vec::new())
            }
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
            Sockets::Standard(_) => {
                command.env_remove("LISTEN_FDS");
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
            Sockets::Standard(_) => {}
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
