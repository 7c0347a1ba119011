//! From the settings to what shuts in a master and its workers. What the kernel does not offer is told,
//! not fatal: the preset turns on what there is.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Uid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::cgroup;
use crate::config::{Preset, Settings};
use crate::error::{Error, Result};
use crate::sys::account;
use crate::sys::isolation::{
    Isolation, Mounts, Program, Rule, landlock_version, read_report, refused,
};
use crate::sys::privileges::Identity;

/// What is to be done in the child, and what cannot be done.
pub struct Plan {
    pub isolation: Isolation,
    report: OwnedFd,
    lacks: Vec<String>,
}

/// What every program needs to see.
const SYSTEM: [&str; 11] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/sys", "/dev", "/run",
];
/// Empty ones of its own.
const EMPTY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

impl Plan {
    /// `None`: nothing is asked for. `program` is the interpreter, `module` our extension module.
    pub fn new(
        settings: &Settings,
        identity: Option<&Identity>,
        program: &Path,
        module: Option<&Path>,
    ) -> Result<Option<Plan>> {
        let wanted = &settings.isolation;
        if wanted.preset == Preset::Off && !wanted.cgroup.any() {
            return Ok(None);
        }
        let (report, told) = std::io::pipe()
            .and_then(|(report, told)| {
                // Of our end only: the child may not have executed when it is read.
                fcntl(&report, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                Ok((report, told))
            })
            .map_err(|error| Error::io("cannot prepare the isolation of the app", &error))?;
        let mut plan = Plan {
            isolation: Isolation {
                report: Some(told.into()),
                ..Isolation::default()
            },
            report: report.into(),
            lacks: Vec::new(),
        };
        match cgroup::enter(settings) {
            Ok((procs, lacks)) => {
                plan.isolation.cgroup = Some(procs);
                plan.lacks.extend(lacks);
            }
            Err(reason) => plan.lacks.push(format!("cgroup ({reason})")),
        }
        if wanted.preset == Preset::Webspace {
            plan.shut_in(settings, identity, program, module);
        }
        Ok(Some(plan))
    }

    fn shut_in(
        &mut self,
        settings: &Settings,
        identity: Option<&Identity>,
        program: &Path,
        module: Option<&Path>,
    ) {
        if identity.is_none_or(|identity| identity.uid.is_root()) {
            self.lack("a user of its own (it runs as the server does, see --user)");
        }
        let places = Places::of(settings, identity, program, module);
        match Uid::effective().is_root() {
            true => self.isolation.mounts = Some(places.mounts()),
            false => self.lack("read-only system, private /tmp, hidden processes (only root can)"),
        }
        self.isolation.program = text(program).map(|path| Program {
            path,
            access: (AccessFs::from_read(RULES) & known()).bits(),
        });
        match landlock() {
            Ok(Some(ruleset)) => {
                self.isolation.landlock = Some(ruleset);
                self.isolation.rules = places.rules();
            }
            Ok(None) => self.lack("landlock (this kernel has none)"),
            Err(error) => self.lack(format!("landlock ({error})")),
        }
        match filter().and_then(|filter| Ok(vec![without_clone3()?, filter])) {
            Ok(programs) => self.isolation.seccomp = programs,
            Err(error) => self.lack(format!("seccomp ({error})")),
        }
        if settings.privileges.allow_new_privileges {
            self.lack("set-user-ID programs (--allow-new-privileges goes without effect)");
        }
    }

    fn lack(&mut self, what: impl Into<String>) {
        self.lacks.push(what.into());
    }

    /// For the child.
    pub fn take(&mut self) -> Isolation {
        std::mem::take(&mut self.isolation)
    }

    /// Once the child has executed: what it does without.
    pub fn lacks(self) -> Vec<String> {
        let mut lacks = self.lacks;
        let report = read_report(self.report).unwrap_or_default();
        for (step, errno) in refused(&report) {
            lacks.push(format!("{} ({})", step.name(), errno.desc().to_lowercase()));
        }
        lacks.dedup();
        lacks
    }
}

/// What the app may see and change. None of it is looked at here: it may be on a file system that does not
/// answer, and then it is the app that waits.
struct Places {
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    empty: Vec<PathBuf>,
}

impl Places {
    fn of(
        settings: &Settings,
        identity: Option<&Identity>,
        program: &Path,
        module: Option<&Path>,
    ) -> Places {
        let interpreter = &settings.interpreter;
        let home = identity.and_then(|identity| account::entry(identity.uid));
        let home = home.map(|entry| entry.dir);
        let writable = home.into_iter().chain(interpreter.chdir.clone());
        let writable = writable.chain(settings.limits.temp_dir.clone());
        let writable = writable.chain(settings.isolation.writable.clone());
        let mut readable: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        // A virtual environment; what the interpreter in it leads to is added in the child.
        readable.extend(prefix(program).map(Path::to_owned));
        readable.extend(module.and_then(Path::parent).map(Path::to_owned));
        readable.extend(interpreter.venv.clone());
        readable.extend(interpreter.sys_path.iter().cloned());
        readable.extend(settings.error_pages.clone());
        readable.extend(settings.isolation.readable.clone());
        let is_part = |path: &PathBuf| path.is_absolute() && path != Path::new("/");
        let writable: Vec<PathBuf> = writable.filter(is_part).collect();
        readable.retain(is_part);
        // What is needed must not be covered.
        let is_free = |path: &&&str| {
            let below = |place: &PathBuf| place.starts_with(path);
            !writable.iter().chain(&readable).any(below)
        };
        let empty = EMPTY.iter().filter(is_free).map(PathBuf::from);
        Places {
            empty: empty.collect(),
            readable,
            writable,
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let rule = |path: &Path, access: BitFlags<AccessFs>| {
            let access = (access & known()).bits();
            let path = text(path)?;
            Some(Rule { path, access })
        };
        let (read, all) = (AccessFs::from_read(RULES), AccessFs::from_all(RULES));
        let device = AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::Truncate;
        let readable = self.readable.iter().filter_map(|path| rule(path, read));
        let writable = self.writable.iter().chain(&self.empty);
        let writable = writable.filter_map(|path| rule(path, all));
        readable
            .chain(rule(Path::new("/dev"), read | device))
            .chain(writable)
            .chain(rule(Path::new("/proc"), read | AccessFs::WriteFile))
            .collect()
    }

    fn mounts(&self) -> Mounts {
        let texts = |paths: &[PathBuf]| paths.iter().filter_map(|path| text(path)).collect();
        Mounts {
            writable: texts(&self.writable),
            empty: texts(&self.empty),
        }
    }
}

/// `/srv/shop/venv` of `/srv/shop/venv/bin/python`.
fn prefix(program: &Path) -> Option<&Path> {
    let directory = program.parent()?;
    let prefix = directory.parent().filter(|p| *p != Path::new("/"));
    Some(prefix.unwrap_or(directory))
}

/// The newest rules that we know; older kernels know fewer.
const RULES: ABI = ABI::V7;

/// What this kernel knows of them.
fn known() -> BitFlags<AccessFs> {
    AccessFs::from_all(match landlock_version() {
        ..2 => ABI::V1,
        2 => ABI::V2,
        3 | 4 => ABI::V3,
        _ => ABI::V5,
    })
}

fn text(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

fn landlock() -> Result<Option<OwnedFd>, landlock::RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    Ok(ruleset.into())
}

/// What no application of the Web needs and break-outs begin with: other processes' memory, mounts and
/// namespaces, the kernel's own programs, modules, keys and clocks.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let refused = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kcmp,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_fsconfig,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_chroot,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_syslog,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_open_by_handle_at,
        libc::SYS_pidfd_getfd,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        refused.into_iter().map(|call| (call, Vec::new())).collect();
    let families = [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_KEY];
    let is = |argument, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let families = families.into_iter().map(|family| {
        let family = u64::try_from(family).unwrap_or_default();
        SeccompRule::new(vec![is(0, family)?])
    });
    rules.insert(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    // A new namespace by clone(2): any of these flags.
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let namespaces = namespaces.into_iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        let is_set = SeccompCondition::new(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        )?;
        SeccompRule::new(vec![is_set])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let arch = std::env::consts::ARCH.try_into()?;
    let refused = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        arch,
    )?;
    refused.try_into()
}

/// clone3(2) takes its flags by a pointer, which no filter can follow: it is as if the kernel had none,
/// and the C library uses clone(2).
fn without_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        arch,
    )?;
    filter.try_into()
}

/// A file of a cgroup, written to; what it says when that is refused.
pub fn put(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}: {}", error.to_string().to_lowercase())
    })
}
