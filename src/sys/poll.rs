//! `poll(2)` on descriptors that another thread may close meanwhile: they are numbers here, nothing is
//! borrowed. A number that is closed, or that means something else by now, gives an answer about
//! nothing; the caller has to find out before acting on it.
//!
//! While a descriptor is polled the kernel keeps what is behind it open: a close is complete when the
//! poll has returned.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use super::clock::{Nanos, SECOND};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    Input,
    Room,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Entry(libc::pollfd);

impl Entry {
    pub fn new(fd: RawFd, what: For) -> Entry {
        Entry(libc::pollfd {
            fd,
            events: match what {
                For::Input => libc::POLLIN,
                For::Room => libc::POLLOUT,
            },
            revents: 0,
        })
    }

    /// Whether there was something about it, an error as well.
    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until something is ready or so much time has passed; `None` for ever.
///
/// # Errors
/// Those of ppoll(2), `EINTR` among them.
pub fn wait(entries: &mut [Entry], patience: Option<Nanos>) -> io::Result<usize> {
    let count = entries.len() as libc::nfds_t;
    let list = entries.as_mut_ptr().cast::<libc::pollfd>();
    let time = patience.map(|nanos| libc::timespec {
        tv_sec: (nanos / SECOND) as libc::time_t,
        tv_nsec: (nanos % SECOND) as libc::c_long,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mask = std::ptr::null();
    // SAFETY: `Entry` is a transparent pollfd, and `list` points to `count` of them; ppoll(2) writes
    // their results only and answers POLLNVAL for numbers that are not open. `time` is null or valid.
    match unsafe { libc::ppoll(list, count, time, mask) } {
        -1 => Err(io::Error::last_os_error()),
        ready => Ok(ready as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn tells_what_is_ready_and_bears_what_is_closed() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let mut entries = [
            Entry::new(other.as_raw_fd(), For::Input),
            Entry::new(other.as_raw_fd(), For::Room),
            Entry::new(i32::MAX, For::Input),
        ];
        assert_eq!(wait(&mut entries[..1], Some(0)).unwrap(), 0);
        one.write_all(b"x").unwrap();
        assert_eq!(wait(&mut entries, None).unwrap(), 3);
        assert!(entries.iter().all(Entry::is_ready));
    }
}
