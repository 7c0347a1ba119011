//! Processes as `/proc` shows them.

use super::wait_until;
use nix::sys::signal::{Signal, kill};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A process, told from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pid {
    pub number: i32,
    started: u64,
}

impl Pid {
    pub fn of(number: i32) -> Option<Pid> {
        let stat = Stat::read(number)?;
        (!stat.is_over()).then_some(Pid {
            number,
            started: stat.started,
        })
    }

    /// A child of the test, which keeps its number until it is waited for, also when it has exited.
    pub fn of_child(number: i32) -> Pid {
        let stat = Stat::read(number).expect("a child that was not waited for");
        Pid {
            number,
            started: stat.started,
        }
    }

    /// True until the process has exited, reaped or not.
    pub fn is_alive(self) -> bool {
        Pid::of(self.number) == Some(self)
    }

    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end between the look and the signal; the caller waits for that end anyway.
            let _ = kill(nix::unistd::Pid::from_raw(self.number), signal);
        }
    }

    #[track_caller]
    pub fn wait_gone(self) {
        wait_until(&format!("the end of process {}", self.number), || {
            (!self.is_alive()).then_some(())
        });
    }

    pub fn children(self) -> Vec<Pid> {
        all()
            .filter(|pid| Stat::read(pid.number).is_some_and(|stat| stat.parent == self.number))
            .collect()
    }

    /// How many children have exited and were not waited for.
    pub fn zombies(self) -> usize {
        let stats = numbers().filter_map(Stat::read);
        stats
            .filter(|stat| stat.parent == self.number && stat.state == 'Z')
            .count()
    }

    /// Children, their children, and so on.
    pub fn descendants(self) -> Vec<Pid> {
        let mut found = self.children();
        let mut next = 0;
        while next < found.len() {
            let children = found[next].children();
            found.extend(children);
            next += 1;
        }
        found
    }

    /// The title: the command line with its separators as spaces.
    pub fn title(self) -> String {
        let raw = fs::read(format!("/proc/{}/cmdline", self.number)).unwrap_or_default();
        let text = String::from_utf8_lossy(&raw).replace('\0', " ");
        text.trim_end().to_owned()
    }

    /// One line of `/proc/PID/status`: the value behind `Name:`.
    pub fn status(self, name: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.number)).ok()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    /// How long its threads have been running on a CPU (`/proc/PID/task/TID/schedstat`).
    pub fn run_time(self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.number));
        let tasks = tasks.into_iter().flatten().flatten();
        let nanos = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

impl Stat {
    /// proc_pid_stat(5): the name is in parentheses and may hold anything, so count from the last one.
    fn read(number: i32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn all() -> impl Iterator<Item = Pid> {
    numbers().filter_map(Pid::of)
}

/// The living processes of one test, wherever they hang in the tree: an environment that holds the
/// mark, or a working directory inside the test's own.
pub fn marked(mark: &str, dir: &Path) -> BTreeSet<Pid> {
    all().filter(|pid| is_marked(*pid, mark, dir)).collect()
}

fn is_marked(pid: Pid, mark: &str, dir: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.number.to_string());
    if fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
        return true;
    }
    let environ = fs::read(proc.join("environ")).unwrap_or_default();
    environ
        .split(|&byte| byte == 0)
        .any(|entry| entry == mark.as_bytes())
}
