//! Shutting a process in, between fork and exec: cgroups(7), mount_namespaces(7), landlock(7), seccomp(2).
//!
//! Everything is prepared by the parent; the child makes system calls only. A step that is refused is
//! told through a pipe and the child goes on: whoever asked decides what that means.

use std::ffi::CStr;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use seccompiler::BpfProgram;

/// What can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Cgroup = 1,
    MountNamespace,
    ReadOnly,
    Writable,
    Empty,
    HiddenProcesses,
    Landlock,
    Seccomp,
}

impl Step {
    const ALL: [Step; 8] = [
        Step::Cgroup,
        Step::MountNamespace,
        Step::ReadOnly,
        Step::Writable,
        Step::Empty,
        Step::HiddenProcesses,
        Step::Landlock,
        Step::Seccomp,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Step::Cgroup => "cgroup",
            Step::MountNamespace => "mount namespace",
            Step::ReadOnly => "read-only system",
            Step::Writable => "writable directories",
            Step::Empty => "private /tmp",
            Step::HiddenProcesses => "hidden processes of others",
            Step::Landlock => "landlock",
            Step::Seccomp => "seccomp",
        }
    }
}

/// How the file system looks to the process.
#[derive(Debug, Default)]
pub struct Mounts {
    /// Where it may write; all else is read-only.
    pub writable: Vec<CString>,
    /// Where it finds an empty directory of its own, in memory.
    pub empty: Vec<CString>,
}

/// A rule about a directory that is mounted in the child only: by its inode, so made there.
#[derive(Debug)]
pub struct LateRule {
    pub path: CString,
    /// Bits of landlock(7) that this kernel knows.
    pub access: u64,
}

/// What a child inherits beside what it is passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strays {
    /// What whoever has started us has left open.
    #[default]
    Inherited,
    Closed,
}

#[derive(Debug, Default)]
pub struct Isolation {
    pub strays: Strays,
    /// `cgroup.procs`, open for writing.
    pub cgroup: Option<OwnedFd>,
    pub mounts: Option<Mounts>,
    /// A ruleset (landlock_create_ruleset(2)).
    pub landlock: Option<OwnedFd>,
    pub late_rules: Vec<LateRule>,
    pub seccomp: Vec<BpfProgram>,
    /// Where refused steps are told: two numbers of four bytes each.
    pub report: Option<OwnedFd>,
}

impl Isolation {
    /// What the child needs until it executes.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let all = [&self.cgroup, &self.landlock, &self.report];
        all.into_iter().flatten().map(AsRawFd::as_raw_fd)
    }

    /// While the process may still do it.
    pub fn before_drop(&self) {
        if let Some(procs) = &self.cgroup {
            self.tell(Step::Cgroup, nix::unistd::write(procs, b"0").map(drop));
        }
        if let Some(mounts) = &self.mounts {
            match enter_namespace() {
                Ok(()) => self.arrange(mounts),
                Err(errno) => self.tell(Step::MountNamespace, Err(errno)),
            }
        }
        if let Some(ruleset) = &self.landlock {
            for rule in &self.late_rules {
                self.tell(Step::Landlock, add_rule(ruleset, rule));
            }
        }
    }

    /// Before what is passed is told apart.
    pub fn close_strays(&self) {
        if self.strays == Strays::Closed {
            const CLOEXEC: libc::c_uint = 4;
            // SAFETY: close_range(2) with this flag only marks descriptors.
            let _ = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, CLOEXEC) };
        }
    }

    fn arrange(&self, mounts: &Mounts) {
        for path in &mounts.writable {
            let bound = mount(
                Some(path.as_c_str()),
                path.as_c_str(),
                None::<&CStr>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&CStr>,
            );
            self.tell(Step::Writable, bound);
        }
        self.tell(Step::ReadOnly, set_attributes(c"/", READ_ONLY, 0));
        for path in &mounts.writable {
            self.tell(Step::Writable, set_attributes(path, 0, READ_ONLY));
        }
        for path in &mounts.empty {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            let data = Some(c"mode=1777,size=25%");
            let made = mount(Some(c"tmpfs"), path.as_c_str(), Some(c"tmpfs"), flags, data);
            self.tell(Step::Empty, made);
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let data = Some(c"hidepid=invisible");
        let hidden = mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, data);
        self.tell(Step::HiddenProcesses, hidden);
    }

    /// As whom it has become.
    pub fn after_drop(&self) {
        if self.landlock.is_some() || !self.seccomp.is_empty() {
            // Both take it from who has no privileges.
            let _ = nix::sys::prctl::set_no_new_privs();
        }
        if let Some(ruleset) = &self.landlock {
            self.tell(Step::Landlock, restrict(ruleset));
        }
        for program in &self.seccomp {
            let done = seccompiler::apply_filter(program);
            self.tell(Step::Seccomp, done.map_err(|_| Errno::last()));
        }
    }

    fn tell(&self, step: Step, done: nix::Result<()>) {
        if let (Err(errno), Some(report)) = (done, &self.report) {
            let mut message = [0; 8];
            message[0] = step as u8;
            message[4..].copy_from_slice(&(errno as i32).to_le_bytes());
            let _ = nix::unistd::write(report, &message);
        }
    }
}

/// What a child has told: steps that were refused, and why.
pub fn refused(report: &[u8]) -> Vec<(Step, Errno)> {
    let told = report.chunks_exact(8).filter_map(|message| {
        let step = Step::ALL.into_iter().find(|s| *s as u8 == message[0])?;
        let number = i32::from_le_bytes(message[4..].try_into().ok()?);
        Some((step, Errno::from_raw(number)))
    });
    let mut told: Vec<_> = told.collect();
    told.dedup();
    told
}

fn enter_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted later outside is seen, what is mounted here is not seen there.
    let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&CStr>, c"/", None::<&CStr>, flags, None::<&CStr>)
}

/// MOUNT_ATTR_RDONLY of mount_setattr(2).
const READ_ONLY: u64 = 1;

/// Of everything below this mount point.
fn set_attributes(path: &CStr, set: u64, clear: u64) -> nix::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const RECURSIVE: libc::c_uint = 0x8000;
    let attributes = Attributes {
        set,
        clear,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: mount_setattr(2) reads a path that ends in NUL and as many bytes of attributes as it is told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            RECURSIVE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    Errno::result(done).map(drop)
}

/// The version of Landlock that the kernel has; 0 for none.
pub fn landlock_version() -> i64 {
    const VERSION: libc::c_uint = 1;
    let none: *const libc::c_void = std::ptr::null();
    // SAFETY: landlock_create_ruleset(2) with this flag reads nothing and answers a number.
    let version = unsafe { libc::syscall(SYS_LANDLOCK_CREATE_RULESET, none, 0usize, VERSION) };
    version.max(0)
}

fn add_rule(ruleset: &OwnedFd, rule: &LateRule) -> nix::Result<()> {
    #[repr(C, packed)]
    struct Beneath {
        access: u64,
        parent: i32,
    }
    const PATH_BENEATH: libc::c_int = 1;
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let parent = nix::fcntl::open(rule.path.as_c_str(), flags, Mode::empty())?;
    let beneath = Beneath {
        access: rule.access,
        parent: parent.as_raw_fd(),
    };
    // SAFETY: landlock_add_rule(2) reads a `landlock_path_beneath_attr`, which this is.
    let done = unsafe {
        libc::syscall(
            SYS_LANDLOCK_ADD_RULE,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const beneath,
            0u32,
        )
    };
    Errno::result(done).map(drop)
}

// The same for all architectures.
const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
const SYS_LANDLOCK_ADD_RULE: libc::c_long = 445;

fn restrict(ruleset: &OwnedFd) -> nix::Result<()> {
    const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;
    // SAFETY: landlock_restrict_self(2) takes a descriptor and flags.
    let done = unsafe { libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset.as_raw_fd(), 0) };
    Errno::result(done).map(drop)
}

/// Reads what there is to be read until the end, without waiting for long: the child has executed.
///
/// # Errors
/// Those of read(2).
pub fn read_report(pipe: OwnedFd) -> io::Result<Vec<u8>> {
    let mut report = Vec::new();
    let mut buffer = [0; 512];
    loop {
        match nix::unistd::read(&pipe, &mut buffer) {
            Ok(0) => return Ok(report),
            Ok(count) => report.extend_from_slice(&buffer[..count]),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(report),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_read_and_nonsense_is_not() {
        let mut report = vec![Step::Landlock as u8, 0, 0, 0, 1, 0, 0, 0];
        report.extend([99, 0, 0, 0, 1, 0, 0, 0]);
        report.extend([1, 2, 3]);
        assert_eq!(refused(&report), [(Step::Landlock, Errno::EPERM)]);
        assert!(refused(&[]).is_empty());
    }
}
