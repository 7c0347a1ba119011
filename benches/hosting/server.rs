//! A server with many apps in a directory of its own, and clients of its apps.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// How long anything may take before the measurement is given up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The files of a server that is to be started.
pub struct Place {
    pub directory: PathBuf,
    python: PathBuf,
}

impl Place {
    /// Everybody may read it, so that apps can be those of other users.
    pub fn new(name: &str, python: &Path, host: &str) -> Result<Place, String> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hosting-{name}"));
        let _ = fs::remove_dir_all(&directory);
        for part in ["apps", "sockets", "bin", "code"] {
            fs::create_dir_all(directory.join(part)).map_err(failed("make a directory"))?;
        }
        let program = Path::new(env!("CARGO_BIN_EXE_rswsgi"));
        let beside = program.with_file_name("librswsgi.so");
        for file in [program, &beside] {
            let copy = directory
                .join("bin")
                .join(file.file_name().unwrap_or_default());
            fs::copy(file, copy).map_err(failed("copy the program"))?;
        }
        let mut text = String::from("apps-dir = 'apps'\nworkers = 1\ncontrol = 'control'\n");
        let _ = writeln!(text, "python = {python:?}\nchdir = 'code'\n{host}");
        text.push_str("bind = 'unix:sockets/{name}.sock'\n");
        fs::write(directory.join("host.toml"), text).map_err(failed("write the host file"))?;
        Ok(Place {
            directory,
            python: python.to_owned(),
        })
    }

    pub fn module(&self, name: &str, text: &str) -> Result<(), String> {
        let file = self.directory.join("code").join(format!("{name}.py"));
        fs::write(file, text).map_err(failed("write a module"))
    }

    /// `user`: as whom it runs, where this process may choose.
    pub fn app(&self, name: &str, user: u32, text: &str) -> Result<(), String> {
        let mut text = format!("{text}\n");
        if Uid::effective().is_root() {
            let _ = writeln!(text, "user = '{user}'\ngroup = '{user}'");
        }
        let file = self.directory.join("apps").join(format!("{name}.toml"));
        fs::write(file, text).map_err(failed("write the file of an app"))
    }

    /// A directory that belongs to this user.
    pub fn directory_of(&self, name: &str, user: u32) -> Result<PathBuf, String> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).map_err(failed("make a directory"))?;
        if Uid::effective().is_root() {
            chown(&path, Some(user), Some(user)).map_err(failed("give away a directory"))?;
        }
        Ok(path)
    }

    /// The time of `python -c "import MODULE"`.
    pub fn bare_import(&self, module: &str) -> Result<Duration, String> {
        let start = Instant::now();
        let status = Command::new(&self.python)
            .args(["-c", &format!("import {module}")])
            .current_dir(self.directory.join("code"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .status()
            .map_err(failed("start python"))?;
        match status.success() {
            true => Ok(start.elapsed()),
            false => Err(format!("python -c \"import {module}\" ended with {status}")),
        }
    }

    /// `before`: shell commands in a mount namespace of the server's own.
    pub fn start(self, before: Option<&str>) -> Result<Server, String> {
        let program = self.directory.join("bin/rswsgi");
        let mut command = match before {
            None => Command::new(program),
            Some(before) => {
                let mut command = Command::new("unshare");
                let script = format!("{before} && exec \"$0\" \"$@\"");
                command.args(["--mount", "sh", "-c", &script]).arg(program);
                command
            }
        };
        let log = fs::File::create(self.directory.join("log")).map_err(failed("make a log"))?;
        let errors = log.try_clone().map_err(failed("make a log"))?;
        let child = command
            .arg("--config")
            .arg(self.directory.join("host.toml"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(failed("start rswsgi"))?;
        let server = Server { child, place: self };
        server.wait_for("the control socket", |server| {
            server.ctl(&["ping"]).is_some().then_some(())
        })?;
        Ok(server)
    }
}

pub struct Server {
    child: Child,
    pub place: Place,
}

impl Server {
    /// What `rswsgictl` prints, if it is answered.
    pub fn ctl(&self, words: &[&str]) -> Option<String> {
        let output = Command::new(env!("CARGO_BIN_EXE_rswsgictl"))
            .arg("--control")
            .arg(self.place.directory.join("control"))
            .args(words)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    }

    pub fn wait_for<T>(&self, what: &str, ask: impl Fn(&Server) -> Option<T>) -> Result<T, String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(answer) = ask(self) {
                return Ok(answer);
            }
            thread::sleep(Duration::from_millis(10));
        }
        let log = self.place.directory.join("log");
        Err(format!("gave up waiting for {what}; see {}", log.display()))
    }

    /// KiB that the supervisor has written and shares with nobody.
    pub fn memory(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(path).map_err(failed("read the memory of the supervisor"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Private_Dirty:"));
        let size = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        size.ok_or_else(|| "the kernel does not count memory".to_owned())
    }

    pub fn children(&self) -> usize {
        let id = self.child.id();
        let path = format!("/proc/{id}/task/{id}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().count()
    }

    /// One request on a connection of its own: the time to the first byte of its answer.
    pub fn get(&self, app: &str, method: &str) -> Result<Duration, String> {
        let socket = self
            .place
            .directory
            .join("sockets")
            .join(format!("{app}.sock"));
        get(&socket, method)
    }

    pub fn socket(&self, app: &str) -> PathBuf {
        self.place
            .directory
            .join("sockets")
            .join(format!("{app}.sock"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGINT);
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As [`Server::get`], for other threads.
pub fn get(socket: &Path, method: &str) -> Result<Duration, String> {
    let start = Instant::now();
    let mut stream = UnixStream::connect(socket).map_err(failed("connect"))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(failed("set a limit"))?;
    let request = format!("{method} / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(failed("send a request"))?;
    let mut head = [0; 12];
    stream
        .read_exact(&mut head)
        .map_err(failed("read an answer"))?;
    let time = start.elapsed();
    match &head[9..] == b"200" {
        true => Ok(time),
        false => Err(format!("the answer was {}", String::from_utf8_lossy(&head))),
    }
}

pub fn failed(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("cannot {what}: {error}")
}

/// What a fork bomb leaves belongs to its user, whom nobody else uses. New ones may come while others end.
pub fn end_all_of(user: u32) {
    if !Uid::effective().is_root() {
        return;
    }
    for _ in 0..1000 {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let left = numbers.filter(|number: &i32| {
            let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
            let is_its = status.contains(&format!("\nUid:\t{user}\t"));
            is_its && !status.contains("\nState:\tZ")
        });
        let left: Vec<i32> = left.collect();
        if left.is_empty() {
            return;
        }
        for number in left {
            let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
        }
    }
}
