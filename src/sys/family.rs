//! Who is whose child (proc(5)), and processes that have lost their parent: they become children of the
//! nearest ancestor that asks for them (prctl(2), PR_SET_CHILD_SUBREAPER), which cannot be evaded by forking
//! twice or by a session of one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// From now on orphans among the descendants of this process become its children. A program that it executes
/// inherits that, a process that it forks does not.
///
/// # Errors
/// Those of prctl(2).
pub fn adopt_orphans() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(Into::into)
}

/// The children of this process, also those that have ended and were not waited for.
pub fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let lists = tasks.flatten().map(|task| task.path().join("children"));
    let lists: Option<Vec<String>> = lists.map(|path| fs::read_to_string(path).ok()).collect();
    match lists {
        Some(lists) => lists
            .iter()
            .flat_map(|list| list.split_whitespace())
            .filter_map(|pid| pid.parse().ok())
            .map(Pid::from_raw)
            .collect(),
        // A kernel without CONFIG_PROC_CHILDREN, or a thread that has just ended.
        None => {
            let own = nix::unistd::getpid();
            let all = parents().into_iter();
            all.filter(|(_, parent)| *parent == own)
                .map(|(pid, _)| pid)
                .collect()
        }
    }
}

/// Whether a child has ended and waits to be waited for.
pub fn has_ended(child: Pid) -> bool {
    stat(child).is_some_and(|(state, _)| state == 'Z')
}

/// Waits for a child that has ended, if it is one.
pub fn reap(child: Pid) {
    let _ = waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
}

/// Sends a child a signal. It keeps its number until this process has waited for it.
pub fn signal(child: Pid, signal: Signal) {
    let _ = nix::sys::signal::kill(child, signal);
}

/// Ends children of this process with all their descendants. Whoever is stopped forks no more, so that a
/// family that grows is caught, too: each round finds those that were forked during the one before.
pub fn end(children: &[Pid]) {
    const ROUNDS: usize = 50;
    let mut stopped = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut fresh = family(children);
        fresh.retain(|(pid, _)| stopped.insert(*pid));
        if fresh.is_empty() {
            break;
        }
        for (pid, parent) in fresh {
            send(pid, parent, Signal::SIGSTOP);
        }
    }
    // The youngest first: of whom the parent is gone it is not known any more whose it was.
    for (pid, parent) in family(children).into_iter().rev() {
        send(pid, parent, Signal::SIGKILL);
    }
}

/// Processes and their parents: these children of ours, and whoever descends from them, each after its
/// parent.
fn family(children: &[Pid]) -> Vec<(Pid, Pid)> {
    let own = nix::unistd::getpid();
    let mut all = parents();
    let mut found: Vec<(Pid, Pid)> = Vec::new();
    for child in children {
        if all.get(child) == Some(&own) {
            all.remove(child);
            found.push((*child, own));
        }
    }
    let mut below: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    for (pid, parent) in all {
        below.entry(parent).or_default().push(pid);
    }
    let mut next = 0;
    while next < found.len() {
        let (parent, _) = found[next];
        let more = below.remove(&parent).unwrap_or_default();
        found.extend(more.into_iter().map(|pid| (pid, parent)));
        next += 1;
    }
    found
}

/// By pidfd: the number may be another process's by now.
fn send(pid: Pid, parent: Pid, signal: Signal) {
    // SAFETY: pidfd_open(2) takes two integers and touches no memory.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let Ok(number) = Errno::result(opened) else {
        return;
    };
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number as RawFd) };
    // An orphan of the family has become a child of ours.
    let is_kin = |(_, found): (char, Pid)| found == parent || found == nix::unistd::getpid();
    if !stat(pid).is_some_and(is_kin) {
        return;
    }
    let (fd, signal) = (pidfd.as_raw_fd(), signal as i32);
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory of ours.
    let _ = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
}

/// Of all processes that can be seen.
fn parents() -> BTreeMap<Pid, Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw)
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect()
}

/// State and parent (proc_pid_stat(5)). The name, in parentheses, may hold anything.
fn stat(pid: Pid) -> Option<(char, Pid)> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&bytes[end + 1..]).ok()?;
    let mut fields = text.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)))
}

/// Whose process it is.
pub fn user(pid: Pid) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(format!("/proc/{pid}")).ok()?;
    Some(metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_ended_with_all_that_descend_from_it_and_nobody_else() {
        let script = "sleep 600 & (sleep 600 & echo $!; wait) & echo $!; wait";
        let start = || {
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut pid = || Pid::from_raw(lines.next().unwrap().unwrap().parse().unwrap());
            let below = [pid(), pid()];
            (child, below)
        };
        let ((mut one, below), (mut other, others)) = (start(), start());
        let of = |child: &std::process::Child| Pid::from_raw(child.id().cast_signed());
        assert!(children().contains(&of(&one)));
        end(&[of(&one)]);
        assert!(!one.wait().unwrap().success());
        for pid in below {
            // It may be a zombie of whoever has inherited it.
            while stat(pid).is_some_and(|(state, _)| state != 'Z') {
                std::thread::yield_now();
            }
        }
        assert!(!has_ended(of(&other)));
        assert!(others.iter().all(|pid| stat(*pid).is_some()));
        end(&[of(&other)]);
        other.wait().unwrap();
    }

    #[test]
    fn nobody_but_a_child_of_ours_is_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap());
        end(&[grandchild, nix::unistd::getppid()]);
        assert!(stat(grandchild).is_some_and(|(state, _)| !"TZ".contains(state)));
        end(&[Pid::from_raw(child.id().cast_signed())]);
        child.wait().unwrap();
    }
}
