//! Starts servers and tools, and leaves none of them behind.
//!
//! Every server is a process group of its own under `setpriv --pdeathsig`, so that it also ends
//! when the benchmark is interrupted. Only processes seen in the tree below a server we started
//! are ever signalled, each identified by its pid and its start time.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const POLL: Duration = Duration::from_millis(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Files the benchmark makes: logs and the virtual environment.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

pub fn require(tools: &[&str]) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for tool in tools {
        if !std::env::split_paths(&path).any(|directory| directory.join(tool).is_file()) {
            return Err(format!("{tool} is not installed, see benches/README.md"));
        }
    }
    Ok(())
}

/// A port nobody listens on at this moment. The next one to bind it might be somebody else; the
/// probe would then refuse the answer.
pub fn free_port() -> Result<u16, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("cannot find a free port: {error}"))
}

/// Who runs where: the load generator on the last CPU we may use, the server on all of them.
///
/// The load generator is kept in place because the scheduler, left alone, now puts it beside the
/// server and now elsewhere. The server is not confined by default: on a machine of two CPUs it
/// would have one, and a server that hands requests from an I/O thread to a Python thread then
/// pays for switches it does not have in service (granian: 34 µs per request instead of 20), while
/// those with a single thread gain a little. `Confined` is the steadier choice among the latter.
pub struct Cpus {
    pub server: String,
    pub load: String,
}

/// Where the server may run.
#[derive(Clone, Copy)]
pub enum Placement {
    Anywhere,
    /// On no CPU the load generator uses, if there is another.
    Confined,
}

impl Cpus {
    pub fn split(placement: Placement) -> Result<Cpus, String> {
        let status = fs::read_to_string("/proc/self/status")
            .map_err(|error| format!("cannot read /proc/self/status: {error}"))?;
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .and_then(|list| parse_list(list.trim()))
            .ok_or("cannot read the list of allowed CPUs")?;
        let names: Vec<String> = allowed.iter().map(u32::to_string).collect();
        let (load, others) = names.split_last().ok_or("no CPU is allowed")?;
        let server = match placement {
            Placement::Confined if !others.is_empty() => others,
            _ => &names[..],
        };
        Ok(Cpus {
            server: server.join(","),
            load: load.clone(),
        })
    }
}

/// `0-2,5` as cpuset(7) writes it.
fn parse_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// One process of a server's tree; the start time tells it from a later one with the same pid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: i32,
    started: u64,
}

impl Process {
    fn alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && stat.state != 'Z')
    }
}

struct Stat {
    state: char,
    parent: i32,
    group: i32,
    started: u64,
}

/// Fields 3, 4, 5 and 22 of proc_pid_stat(5); the name before them may contain anything.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The process `root`, all its descendants, and what they left behind in its process group.
fn tree(root: i32) -> Vec<Process> {
    let all: Vec<(i32, Stat)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let mut members: Vec<i32> = all
        .iter()
        .filter(|(pid, stat)| *pid == root || stat.group == root)
        .map(|(pid, _)| *pid)
        .collect();
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        members.extend(all.iter().filter(|p| p.1.parent == parent).map(|p| p.0));
        next += 1;
    }
    all.iter()
        .filter(|(pid, _)| members.contains(pid))
        .map(|&(pid, ref stat)| Process {
            pid,
            started: stat.started,
        })
        .collect()
}

/// A server that is stopped and reaped, with everything below it, when this goes.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub fn start(command: Command, name: &str, cpus: &str) -> Result<Running, String> {
        Running::start_on(Stdio::null(), command, name, cpus)
    }

    /// The same with something on standard input.
    pub fn start_on(
        stdin: Stdio,
        command: Command,
        name: &str,
        cpus: &str,
    ) -> Result<Running, String> {
        let log = scratch(&format!("{name}.log"));
        let failed = |error| format!("cannot write {}: {error}", log.display());
        let output = File::create(&log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "TERM", "taskset", "-c", cpus])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        let child = wrapped
            .stdin(stdin)
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Running { child, log })
    }

    pub fn tree(&self) -> Vec<Process> {
        tree(self.child.id() as i32)
    }

    /// Why the server is gone, with the last line it wrote; `None` while it runs.
    pub fn gone(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("ended with {status}{}", self.last_words()))
    }

    /// The last line in the server's log, as the end of a sentence.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        match text.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) => format!(": {}", line.trim()),
            None => String::new(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let members = self.tree();
        // Not reaped before the wait below, so the pid is still that of our child.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        for member in members.into_iter().filter(|member| member.alive()) {
            let _ = kill(Pid::from_raw(member.pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Runs a tool to its end; after `limit` it is killed. Returns its status and what it printed.
pub fn run(command: &mut Command, limit: Duration) -> Result<(ExitStatus, String), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error| format!("cannot run {name}: {error}");
    let path = scratch("tool.log");
    let mut output = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(failed)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{name} took longer than {limit:?}"));
        }
        thread::sleep(POLL);
    };
    let mut printed = Vec::new();
    output.rewind().map_err(failed)?;
    output.read_to_end(&mut printed).map_err(failed)?;
    Ok((status, String::from_utf8_lossy(&printed).into_owned()))
}
