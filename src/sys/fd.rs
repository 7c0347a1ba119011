//! Taking ownership of descriptors this process was started with.
//!
//! A number from the environment or the command line says nothing about who owns the descriptor
//! behind it. What tells an inherited one from all others is that it survived the exec: it lacks
//! FD_CLOEXEC, which every descriptor opened by this program has from its first moment.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes the inherited descriptor `fd` and makes it close-on-exec; it can be taken once.
///
/// Call it while the program starts: two threads that claim the same number at the same moment
/// could both succeed.
///
/// # Errors
/// `EBADF` when nothing is open as `fd`, `EBUSY` when it is not inherited or was claimed before; or
/// those of fcntl(2).
pub fn claim(fd: RawFd) -> io::Result<OwnedFd> {
    let flags = descriptor_flags(fd)?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    set_descriptor_flags(fd, flags | libc::FD_CLOEXEC)?;
    // SAFETY: `fd` is open (fcntl just succeeded, so it is not -1 either). Nothing else in this
    // process owns it: it lacked FD_CLOEXEC, which owned descriptors have.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether `fd` is open and would survive an exec, as one that was inherited does until it is claimed.
pub fn is_inheritable(fd: RawFd) -> bool {
    descriptor_flags(fd).is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0)
}

/// What becomes of a descriptor when this process executes another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExec {
    Keep,
    Close,
}

/// # Errors
/// Those of fcntl(2).
pub fn on_exec(fd: BorrowedFd<'_>, what: OnExec) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    let flags = descriptor_flags(fd)?;
    set_descriptor_flags(
        fd,
        match what {
            OnExec::Keep => flags & !libc::FD_CLOEXEC,
            OnExec::Close => flags | libc::FD_CLOEXEC,
        },
    )
}

/// A close-on-exec duplicate of a descriptor that foreign code owns and names by its number, as
/// `fileno()` does.
///
/// # Errors
/// `EBADF` when nothing is open as `fd`; or those of fcntl(2).
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes one int and touches no memory; a number that is not open gives
    // EBADF.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made this descriptor for us.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

/// Makes sure that 0, 1 and 2 are taken, so that no connection gets one of these numbers and with it
/// what is printed.
///
/// # Errors
/// Those of open(2).
pub fn occupy_standard() -> io::Result<()> {
    loop {
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&null);
        if number > 2 {
            return Ok(());
        }
        let _ = std::os::fd::IntoRawFd::into_raw_fd(null);
    }
}

fn descriptor_flags(fd: RawFd) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFD takes no argument and touches no memory; a number that is not open gives EBADF.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}

fn set_descriptor_flags(fd: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETFD takes one int and touches no memory; a number that is not open gives EBADF.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    /// dup(2) clears FD_CLOEXEC: the copy looks like one that was inherited.
    fn inherited() -> RawFd {
        let file = std::fs::File::open("/dev/null").unwrap();
        nix::unistd::dup(&file).unwrap().into_raw_fd()
    }

    #[test]
    fn an_inherited_descriptor_is_claimed_once_and_is_then_close_on_exec() {
        let number = inherited();
        let owned = claim(number).unwrap();
        assert_eq!(owned.as_raw_fd(), number);
        assert_eq!(descriptor_flags(number).unwrap(), libc::FD_CLOEXEC);
        let again = claim(number).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn a_descriptor_that_is_owned_already_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = claim(file.as_raw_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn what_is_kept_on_exec_looks_inherited() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_inheritable(file.as_raw_fd()));
        on_exec(file.as_fd(), OnExec::Keep).unwrap();
        assert!(is_inheritable(file.as_raw_fd()));
        on_exec(file.as_fd(), OnExec::Close).unwrap();
        assert!(!is_inheritable(file.as_raw_fd()));
        assert!(!is_inheritable(-1));
    }

    #[test]
    fn a_number_that_is_not_open_is_refused() {
        for number in [-1, i32::MIN, i32::MAX] {
            let error = claim(number).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{number}");
        }
    }
}
