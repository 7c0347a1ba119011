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

/// What may be done below a directory. It is looked for in the child: some are mounted there only, and others
/// may be on a file system that does not answer. What is not there needs no rule.
#[derive(Debug)]
pub struct Rule {
    pub path: CString,
    /// Bits of landlock(7) that this kernel knows.
    pub access: u64,
}

/// The program that is to be executed: where it is in truth is found in the child, too.
#[derive(Debug)]
pub struct Program {
    pub path: CString,
    /// What may be done below the directory in which it is installed.
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
    pub rules: Vec<Rule>,
    pub program: Option<Program>,
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
        let mut place = Place::new();
        if let Some(program) = &self.program {
            place.find(&program.path);
        }
        if let Some(mounts) = &self.mounts {
            match enter_namespace() {
                Ok(()) => self.arrange(mounts, &place),
                Err(errno) => self.tell(Step::MountNamespace, Err(errno)),
            }
        }
        if let Some(ruleset) = &self.landlock {
            for Rule { path, access } in &self.rules {
                self.tell(Step::Landlock, allow(ruleset, path, *access));
            }
            if let (Some(program), Some(prefix)) = (&self.program, place.prefix()) {
                self.tell(Step::Landlock, allow(ruleset, prefix, program.access));
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

    fn arrange(&self, mounts: &Mounts, program: &Place) {
        let writable = || mounts.writable.iter().filter(|path| is_directory(path));
        for path in writable() {
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
        for path in writable() {
            self.tell(Step::Writable, set_attributes(path, 0, READ_ONLY));
        }
        // What is needed must not be covered.
        let empty = mounts.empty.iter().filter(|path| !program.is_below(path));
        for path in empty.filter(|path| is_directory(path)) {
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

fn open_directory(path: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
}

fn is_directory(path: &CStr) -> bool {
    open_directory(path).is_ok()
}

fn allow(ruleset: &OwnedFd, path: &CStr, access: u64) -> nix::Result<()> {
    #[repr(C, packed)]
    struct Beneath {
        access: u64,
        parent: i32,
    }
    const PATH_BENEATH: libc::c_int = 1;
    let parent = match open_directory(path) {
        Ok(parent) => parent,
        // It is not there, or not for us to see.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let beneath = Beneath {
        access,
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

/// Where a program is once all links are followed, found without allocating.
struct Place {
    path: [u8; Place::LONGEST],
    length: usize,
}

impl Place {
    const LONGEST: usize = libc::PATH_MAX as usize;

    fn new() -> Place {
        Place {
            path: [0; Place::LONGEST],
            length: 0,
        }
    }

    fn find(&mut self, program: &CStr) {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let Ok(opened) = nix::fcntl::open(program, flags, Mode::empty()) else {
            return;
        };
        let mut link = [0; 40];
        let start = b"/proc/self/fd/";
        link[..start.len()].copy_from_slice(start);
        let mut number = opened.as_raw_fd();
        let digits = (1..).find(|count| number < 10i32.saturating_pow(*count));
        let digits = digits.unwrap_or_default() as usize;
        for digit in link[start.len()..start.len() + digits].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
        }
        // SAFETY: readlink(2) reads a text that ends in NUL, which `link` still has behind it, and writes as
        // many bytes as it is told at most; one is left for a NUL.
        let length = unsafe {
            libc::readlink(
                link.as_ptr().cast(),
                self.path.as_mut_ptr().cast(),
                Place::LONGEST - 1,
            )
        };
        self.length = usize::try_from(length).unwrap_or_default();
    }

    fn is_below(&self, directory: &CStr) -> bool {
        let rest = self.path[..self.length].strip_prefix(directory.to_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// `/srv/shop/venv` of `/srv/shop/venv/bin/python`.
    fn prefix(&mut self) -> Option<&CStr> {
        let slash = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/');
        let directory = slash(&self.path[..self.length])?;
        let length = match slash(&self.path[..directory])? {
            0 => directory,
            above => above,
        };
        self.path[length] = 0;
        self.length = length;
        CStr::from_bytes_until_nul(&self.path).ok()
    }
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
    fn a_program_is_installed_where_its_links_lead() {
        let name = format!("rswsgi-place-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(directory.join("venv/bin")).unwrap();
        let link = directory.join("venv/bin/python");
        std::os::unix::fs::symlink("/usr/bin/env", &link).unwrap();
        let text = |path: &std::path::Path| CString::new(path.to_str().unwrap()).unwrap();
        let mut place = Place::new();
        place.find(&text(&link));
        assert!(place.is_below(c"/usr") && !place.is_below(c"/us") && !place.is_below(c"/tmp"));
        assert_eq!(place.prefix(), Some(c"/usr"));
        let mut place = Place::new();
        place.find(c"/no/such/program");
        assert!(!place.is_below(c"/no"));
        assert_eq!(place.prefix(), None);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_was_refused_is_read_and_nonsense_is_not() {
        let mut report = vec![Step::Landlock as u8, 0, 0, 0, 1, 0, 0, 0];
        report.extend([99, 0, 0, 0, 1, 0, 0, 0]);
        report.extend([1, 2, 3]);
        assert_eq!(refused(&report), [(Step::Landlock, Errno::EPERM)]);
        assert!(refused(&[]).is_empty());
    }
}
