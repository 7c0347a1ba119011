//! Giving up privileges for good, between fork and exec: credentials(7), capabilities(7).
//!
//! The order matters: limits are raised and the bounding set emptied while that is still allowed,
//! groups go before the user, and at last it is tried whether there is a way back.

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};

/// Who a process becomes, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// Nothing: whoever it is already.
    pub identity: Option<Identity>,
    pub umask: Option<Mode>,
    pub limits: Vec<Limit>,
    /// Whether set-user-ID programs and file capabilities go on working (prctl(2),
    /// PR_SET_NO_NEW_PRIVS).
    pub may_gain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: Vec<Gid>,
}

/// A resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub resource: Resource,
    pub soft: rlim_t,
    pub hard: rlim_t,
}

impl Identity {
    /// Whether this process has it already: then nothing is to be given up.
    pub fn is_ours(&self) -> bool {
        let ids = getresuid().is_ok_and(|r| [r.real, r.effective, r.saved] == [self.uid; 3]);
        ids && getresgid().is_ok_and(|r| [r.real, r.effective, r.saved] == [self.gid; 3])
    }
}

impl Privileges {
    /// To be called by a child before it executes a program: system calls only, no allocation.
    ///
    /// # Errors
    /// `EPERM` of the call that is not allowed; also when a privilege could be regained.
    pub fn apply(&self) -> io::Result<()> {
        for limit in &self.limits {
            setrlimit(limit.resource, limit.soft, limit.hard)?;
        }
        if let Some(mode) = self.umask {
            umask(mode);
        }
        if let Some(identity) = &self.identity {
            identity.assume()?;
            if !self.may_gain {
                nix::sys::prctl::set_no_new_privs()?;
            }
        }
        Ok(())
    }
}

impl Identity {
    fn assume(&self) -> io::Result<()> {
        let (uid, gid) = (self.uid, self.gid);
        if !self.is_ours() {
            // Whoever shares the terminal of another user could type there: TIOCSTI in ioctl_tty(2).
            nix::unistd::setsid()?;
        }
        if !uid.is_root() && Uid::effective().is_root() {
            empty_bounding_set();
        }
        // Of its own groups a process may stay in, it may not leave them without CAP_SETGID.
        match setgroups(&self.groups) {
            Err(Errno::EPERM) if self.is_ours() => {}
            done => done?,
        }
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        match uid.is_root() {
            true => Ok(()),
            false => self.verify(),
        }
    }

    /// A kernel, a container or a security module may have its own idea of what was asked for.
    fn verify(&self) -> io::Result<()> {
        let regained = || Err(io::Error::from(Errno::EPERM));
        let root = Uid::from_raw(0);
        let unchanged = Uid::from_raw(u32::MAX);
        if !self.is_ours() || setresuid(unchanged, root, unchanged).is_ok() {
            return regained();
        }
        match capabilities() {
            Ok(0) => Ok(()),
            _ => regained(),
        }
    }
}

/// What this process may do now or could make itself able to do.
fn capabilities() -> io::Result<u64> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Set {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// _LINUX_CAPABILITY_VERSION_3: two sets of 32 bits each.
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [Set::default(); 2];
    // SAFETY: capget(2) reads the header and, by its version, fills in two sets; both are alive.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(done)?;
    let any = |set: &Set| u64::from(set.effective | set.permitted | set.inheritable);
    Ok(any(&sets[0]) | any(&sets[1]) << 32)
}

/// After this no program that is executed gets a capability, whatever its file says. Where it is not
/// allowed (without CAP_SETPCAP) the set is that of whoever started us.
fn empty_bounding_set() {
    let zero: libc::c_ulong = 0;
    for capability in 0..64 as libc::c_ulong {
        // SAFETY: prctl(2) with integers; EINVAL past the last capability that the kernel knows.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, zero, zero, zero) };
        if done == -1 {
            break;
        }
    }
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    // SAFETY: prctl(2) with integers.
    let _ = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, zero, zero, zero) };
}
