//! Pipe calls that the event loop needs: non-blocking, interruptions left out, no SIGPIPE (which is ignored
//! in every process that runs Python).

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd;

/// # Errors
/// Those of fcntl(2).
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// `Ok(0)`: all writers are gone.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| unistd::read(fd, buffer))
}

pub fn write(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    retry(|| nix::sys::uio::writev(fd, parts))
}

/// Pages of a file into a pipe, without a copy (splice(2)). `Ok(0)`: the file ends before `offset`.
pub fn splice_from(
    file: impl AsFd,
    offset: u64,
    pipe: BorrowedFd<'_>,
    count: usize,
) -> io::Result<usize> {
    let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    retry(|| splice(file.as_fd(), Some(&mut offset), pipe, None, count, flags))
}

fn retry(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            other => return Ok(other?),
        }
    }
}
