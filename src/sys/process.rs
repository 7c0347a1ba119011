//! Child processes: started, watched and waited for by pidfd, never by a stored number, and one
//! by one: `waitpid(-1)` would steal the application's own children.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::isolation::Isolation;
use super::privileges::Privileges;

/// A child of this process that has not been reaped.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Killed {
        signal: Signal,
        core: bool,
    },
    /// By a signal that has no name (a real-time one), or waited for by somebody else.
    Unknown,
}

impl Ended {
    pub fn is_success(self) -> bool {
        self == Ended::Exited(0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Exited(status) => write!(f, "exited with status {status}"),
            Ended::Killed { signal, core } => {
                write!(f, "killed by {signal}")?;
                f.write_str(if *core { " (core dumped)" } else { "" })
            }
            Ended::Unknown => f.write_str("ended in an unknown way"),
        }
    }
}

impl Child {
    /// Takes charge of a child that was forked by other means (Python's `os.fork`). Until it is
    /// reaped its number cannot be used again, so the pidfd is certain to mean it.
    pub fn adopt(pid: Pid) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes two integers and touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = nix::errno::Errno::result(fd)?;
        // SAFETY: the kernel has just made this descriptor (close-on-exec by definition) for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Self { pid, pidfd })
    }

    /// Takes over a child of the program that this process executed before, by its pidfd.
    ///
    /// # Errors
    /// When `pidfd` is not one of `pid` (`/proc/self/fdinfo`, pidfd_open(2)).
    pub fn inherit(pid: Pid, pidfd: OwnedFd) -> io::Result<Self> {
        let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let info = std::fs::read_to_string(path)?;
        let named = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        // -1: it has been reaped by somebody.
        let named = named.and_then(|number| number.trim().parse::<i32>().ok());
        match named {
            Some(number) if number == pid.as_raw() => Ok(Self { pid, pidfd }),
            _ => Err(io::Error::other(format!("it is no pidfd of process {pid}"))),
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal as i32)
    }

    /// Sends SIGRTMIN plus `offset`.
    pub fn real_time_signal(&self, offset: i32) -> io::Result<()> {
        self.send(libc::SIGRTMIN() + offset)
    }

    fn send(&self, signal: i32) -> io::Result<()> {
        let fd = self.pidfd.as_raw_fd();
        let info: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory of ours.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
        nix::errno::Errno::result(done)?;
        Ok(())
    }

    /// `None` while it runs. After `Some` the child is gone and the value has no further use.
    pub fn try_reap(&self) -> io::Result<Option<Ended>> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
            Ok(WaitStatus::StillAlive) => Ok(None),
            Ok(WaitStatus::Exited(_, status)) => Ok(Some(Ended::Exited(status))),
            Ok(WaitStatus::Signaled(_, signal, core)) => Ok(Some(Ended::Killed { signal, core })),
            // Somebody else waited for it: application code may ignore SIGCHLD.
            Ok(_) | Err(nix::errno::Errno::ECHILD | nix::errno::Errno::EINVAL) => {
                Ok(Some(Ended::Unknown))
            }
            Err(nix::errno::Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Readable when the child has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Starts `command` with the descriptors `pass` left open in it under the same numbers, default
/// signal dispositions, an empty signal mask, and SIGKILL when this thread dies.
pub fn spawn(command: Command, pass: &[BorrowedFd<'_>]) -> io::Result<Child> {
    spawn_as(command, pass, Privileges::default(), None)
}

/// The same with these privileges. `directory`: where it works, to be entered as whom it becomes.
pub fn spawn_as(
    command: Command,
    pass: &[BorrowedFd<'_>],
    privileges: Privileges,
    directory: Option<&Path>,
) -> io::Result<Child> {
    spawn_isolated(command, pass, privileges, directory, Isolation::default())
}

/// The same, shut in.
pub fn spawn_isolated(
    mut command: Command,
    pass: &[BorrowedFd<'_>],
    privileges: Privileges,
    directory: Option<&Path>,
    isolation: Isolation,
) -> io::Result<Child> {
    let mut prepare = preparation(pass, privileges, directory, isolation)?;
    let prepare = move || prepare().map_err(|(_, error)| error);
    // SAFETY: between fork and exec `prepare` makes system calls only; it neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(prepare) };
    start(command)
}

/// Starts what is prepared.
pub(super) fn start(mut command: Command) -> io::Result<Child> {
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Child::adopt(Pid::from_raw(pid))
}

/// Where a child was before it could execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    Preparing = 1,
    /// The directory in which it is to work.
    Entering,
    Executing,
}

/// What a child does between fork and exec.
pub(super) fn preparation(
    pass: &[BorrowedFd<'_>],
    privileges: Privileges,
    directory: Option<&Path>,
    isolation: Isolation,
) -> io::Result<impl FnMut() -> Result<(), (Stage, io::Error)> + Send + Sync + 'static> {
    let pass: Vec<RawFd> = pass.iter().map(|fd| fd.as_raw_fd()).collect();
    let directory = directory
        .map(|path| CString::new(path.as_os_str().as_bytes()))
        .transpose()?;
    let parent = nix::unistd::getpid();
    let preparing = |error: io::Error| (Stage::Preparing, error);
    Ok(move || {
        super::signal::reset_all();
        // What comes next may take long.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| preparing(errno.into()))?;
        isolation.before_drop();
        super::descriptors::restore().map_err(preparing)?;
        privileges.apply().map_err(preparing)?;
        // A change of credentials takes it away again: prctl(2), PR_SET_PDEATHSIG.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| preparing(errno.into()))?;
        if nix::unistd::getppid() != parent {
            return Err(preparing(io::Error::from_raw_os_error(libc::ESRCH)));
        }
        if let Some(directory) = &directory {
            let entered = nix::unistd::chdir(directory.as_c_str());
            entered.map_err(|errno| (Stage::Entering, errno.into()))?;
        }
        isolation.close_strays();
        for &fd in &pass {
            // SAFETY: fcntl(2) on a descriptor number reads no memory of ours; the descriptor is
            // open, because the parent borrows it for the length of the call to `spawn`.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
                return Err(preparing(io::Error::last_os_error()));
            }
        }
        // At last: from here on only what it allows.
        isolation.after_drop();
        Ok(())
    })
}

/// Waits for children that have ended and that nobody here has started: orphans that the first process
/// of a container inherits, and children of whoever executed this program. `is_own`: waited for by
/// pidfd; while such a one has ended and was not, what has ended after it may be left for the next call.
pub fn reap_strangers(is_own: impl Fn(Pid) -> bool) {
    loop {
        // SAFETY: all-zero bytes are a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let peek = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: waitid(2) fills in `info`, which is valid for the call.
        let done = unsafe { libc::waitid(libc::P_ALL, 0, &mut info, peek) };
        // SAFETY: waitid has written a SIGCHLD siginfo, or left the zeros of "nobody has ended".
        let pid = Pid::from_raw(unsafe { info.si_pid() });
        if done == -1 || pid.as_raw() == 0 || is_own(pid) {
            return;
        }
        // By a signal that has no name it ends, too: EINVAL, but reaped.
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}

/// Whether a terminal controls this process: some signals are the terminal's, then (tty(4)).
pub fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// CPUs this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Whether the main thread of a process runs or waits for a CPU (state R of `proc_pid_stat(5)`).
pub fn is_runnable(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" R"))
    })
}

/// What the memory of a process is made of, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Proportional set size: what is shared is divided by the number of those who share it.
    pub pss: u64,
    /// Unique set size: shared with nobody.
    pub unique: u64,
    pub shared: u64,
    /// Written to and shared with nobody.
    pub private_dirty: u64,
}

/// Reads `/proc/PID/smaps_rollup` (proc_pid_smaps(5)): costly, some milliseconds for a large process.
/// `None` when the process is gone or not ours to look at.
pub fn memory(pid: Pid) -> Option<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(read_memory(&text))
}

fn read_memory(text: &str) -> Memory {
    let mut memory = Memory::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(Ok(kib))) = (words.next(), words.next().map(str::parse::<u64>))
        else {
            continue;
        };
        let bytes = kib * 1024;
        match name {
            "Pss:" => memory.pss = bytes,
            "Private_Dirty:" => {
                memory.private_dirty = bytes;
                memory.unique += bytes;
            }
            _ if name.starts_with("Private_") => memory.unique += bytes,
            _ if name.starts_with("Shared_") => memory.shared += bytes,
            _ => {}
        }
    }
    memory
}

/// Executes `program` in this process: same process number, same children, and every descriptor that is
/// not close-on-exec. Returns only when that failed.
pub fn replace(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Error {
    let text = |text: &OsStr| CString::new(text.as_bytes());
    let variable = |(name, value): &(OsString, OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
    };
    let execute = || -> io::Result<Infallible> {
        let program = text(program.as_os_str())?;
        let arguments: Vec<CString> = arguments
            .iter()
            .map(|a| text(a))
            .collect::<Result<_, _>>()?;
        let environment: Vec<CString> =
            environment.iter().map(variable).collect::<Result<_, _>>()?;
        super::descriptors::restore()?;
        Ok(nix::unistd::execve(&program, &arguments, &environment)?)
    };
    match execute() {
        Err(error) => {
            super::descriptors::raise_again();
            error
        }
    }
}

/// Leaves at once: no destructors, no `atexit`, no flushing of inherited buffers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn run(script: &str) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let child = spawn(command, &[]).unwrap();
        assert!(nix::unistd::getpgid(Some(child.pid())).is_ok());
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(10_000u16)).unwrap();
        child.try_reap().unwrap().expect("it has ended")
    }

    #[test]
    fn tells_how_a_child_ended() {
        assert_eq!(run("exit 0"), Ended::Exited(0));
        assert_eq!(run("exit 78"), Ended::Exited(78));
        let killed = run("kill -KILL $$");
        assert_eq!(killed.to_string(), "killed by SIGKILL");
    }

    #[test]
    fn passes_exactly_the_named_descriptors() {
        let (kept, other) = (memfd(), memfd());
        let (k, o) = (kept.as_raw_fd(), other.as_raw_fd());
        let mut command = Command::new("sh");
        let script = format!("test -e /proc/self/fd/{k} && ! test -e /proc/self/fd/{o}");
        command.args(["-c", &script]);
        let child = spawn(command, &[kept.as_fd()]).unwrap();
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(10_000u16)).unwrap();
        assert_eq!(child.try_reap().unwrap(), Some(Ended::Exited(0)));
    }

    fn memfd() -> OwnedFd {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap()
    }

    #[test]
    fn a_child_is_taken_over_by_its_own_pidfd_only() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let child = spawn(command, &[]).unwrap();
        let pid = child.pid();
        let copy = child.pidfd.try_clone().unwrap();
        assert!(Child::inherit(nix::unistd::getpid(), copy).is_err());
        assert!(Child::inherit(pid, memfd()).is_err());
        let again = Child::inherit(pid, child.pidfd).unwrap();
        again.signal(Signal::SIGKILL).unwrap();
        let mut fds = [PollFd::new(again.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(10_000u16)).unwrap();
        assert!(matches!(
            again.try_reap().unwrap(),
            Some(Ended::Killed { .. })
        ));
    }

    #[test]
    fn a_program_that_cannot_be_executed_replaces_nothing() {
        let error = replace(Path::new("/no/such/program"), &["x".into()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = replace(Path::new("/bin/true"), &["a\0b".into()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_memory_of_a_process_is_read() {
        let text = "55d-7ff ---p 00000000 00:00 0    [rollup]\nRss: 40 kB\nPss: 10 kB\nPss_Dirty: 3 kB\n\
                    Shared_Clean: 1 kB\nShared_Dirty: 2 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\n\
                    Private_Hugetlb: 16 kB\nShared_Hugetlb: 32 kB\n";
        let expected = Memory {
            pss: 10 << 10,
            unique: 28 << 10,
            shared: 35 << 10,
            private_dirty: 8 << 10,
        };
        assert_eq!(read_memory(text), expected);
        let own = memory(nix::unistd::getpid()).unwrap();
        assert!(own.pss > 0 && own.unique > own.private_dirty / 2);
        assert_eq!(memory(Pid::from_raw(i32::MAX)), None);
    }

    #[test]
    fn signals_go_to_the_child_itself() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let child = spawn(command, &[]).unwrap();
        assert_eq!(child.try_reap().unwrap(), None);
        child.signal(Signal::SIGKILL).unwrap();
        let mut fds = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(10_000u16)).unwrap();
        assert!(matches!(
            child.try_reap().unwrap(),
            Some(Ended::Killed { .. })
        ));
    }
}
