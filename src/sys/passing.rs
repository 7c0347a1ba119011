//! Descriptors that travel in messages (`SCM_RIGHTS`, unix(7)) over `SOCK_SEQPACKET` sockets, which
//! keep the bytes of a message and its descriptors together.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// A message that has been received.
#[derive(Debug)]
pub struct Received {
    /// Bytes of it that are in the buffer.
    pub length: usize,
    pub descriptors: Vec<OwnedFd>,
    /// It was longer than the buffer, or there was no room for all its descriptors.
    pub is_cut: bool,
}

/// Sends one message, all of it or nothing. The descriptors stay the caller's, too.
///
/// # Errors
/// Those of sendmsg(2); `EAGAIN` and `ETOOMANYREFS` when too much is under way already.
pub fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), parts, &rights, flags, None) {
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Places in the table of descriptors for those of one message: what finds none there is closed by the kernel
/// (`MSG_CTRUNC` in recvmsg(2)), and with it what it stands for.
#[derive(Debug)]
pub struct Reserve {
    held: Vec<OwnedFd>,
    /// Descriptors in the largest message.
    most: usize,
}

impl Reserve {
    /// Empty; `most` is how many descriptors the largest message has.
    pub fn of(most: usize) -> Self {
        let held = Vec::new();
        Self { held, most }
    }

    /// Takes the places, by copies of any descriptor.
    ///
    /// # Errors
    /// Those of fcntl(2), `F_DUPFD_CLOEXEC`. What has been taken stays.
    pub fn fill(&mut self, any: impl AsFd) -> io::Result<()> {
        while self.held.len() < self.most {
            self.held.push(any.as_fd().try_clone_to_owned()?);
        }
        Ok(())
    }

    /// Leaves its places to a message, which is to be received now.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// The same where they may not be complete.
    ///
    /// # Errors
    /// As of [`Reserve::fill`]: there is no room for a message.
    pub fn clear(&mut self, any: impl AsFd) -> io::Result<()> {
        self.fill(any)?;
        self.release();
        Ok(())
    }
}

/// As many as one message can have (`SCM_MAX_FD`, unix(7)): what fits is ours, and closed if it is too
/// many; what does not fit would be cut.
const LARGEST_CONTROL: usize = 253 * size_of::<RawFd>() + 64;

/// Aligned as the kernel wants it.
#[repr(C)]
union Control {
    _header: libc::cmsghdr,
    bytes: [u8; LARGEST_CONTROL],
}

/// Receives one message; `None` when there is none. The descriptors are close-on-exec from their first
/// moment, and all of them are taken over, whatever else is wrong with the message.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = Control {
        bytes: [0; LARGEST_CONTROL],
    };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    let length = loop {
        // SAFETY: `message` points to one buffer and to room for control messages, both writable and
        // alive during the call.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
        match Errno::result(length) {
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(length) => break length as usize,
        }
    };
    Ok(Some(Received {
        length: length.min(buffer.len()),
        descriptors: descriptors(&message),
        is_cut: message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
    }))
}

/// Those that the kernel has just put into the control messages of `message`.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    // SAFETY: the kernel has set the length of the control messages, which are alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null at the end, else a header inside the control messages.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic on a length.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            // Of another type in other C libraries.
            #[allow(clippy::unnecessary_cast)]
            let count = (header.cmsg_len as usize - empty) / size_of::<RawFd>();
            // SAFETY: the data follow the header.
            let first = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for index in 0..count {
                let place = first.wrapping_add(index);
                // SAFETY: the kernel has written `count` numbers there; they may be unaligned.
                let number = unsafe { place.read_unaligned() };
                // SAFETY: it has made these descriptors for us, each once.
                found.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: `next` is a header inside the control messages of `message`.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::fs::File;
    use std::io::{Read, Write};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
    }

    fn pipe() -> (File, File) {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn bytes_and_descriptors_arrive_together_and_close_on_exec() {
        let (one, other) = pair();
        let mut buffer = [0; 16];
        assert!(receive(other.as_fd(), &mut buffer).unwrap().is_none());
        let (read, mut write) = pipe();
        for text in ["a", "bc"] {
            let parts = [IoSlice::new(b"x"), IoSlice::new(text.as_bytes())];
            send(one.as_fd(), &parts, &[read.as_fd()]).unwrap();
        }
        drop(read);
        for (text, length) in [("xa", 2), ("xbc", 3)] {
            let got = receive(other.as_fd(), &mut buffer).unwrap().unwrap();
            assert_eq!((got.length, got.is_cut), (length, false));
            assert_eq!(&buffer[..length], text.as_bytes());
            let [descriptor] = got.descriptors.try_into().unwrap();
            assert!(!super::super::fd::is_inheritable(descriptor.as_raw_fd()));
            write.write_all(text.as_bytes()).unwrap();
            let mut read = vec![0; length];
            File::from(descriptor).read_exact(&mut read).unwrap();
            assert_eq!(read, text.as_bytes());
        }
    }

    #[test]
    fn what_does_not_fit_is_told_and_nothing_is_lost_sight_of() {
        let (one, other) = pair();
        let (read, mut write) = pipe();
        send(one.as_fd(), &[IoSlice::new(b"x")], &[read.as_fd(); 253]).unwrap();
        send(one.as_fd(), &[IoSlice::new(&[7; 40])], &[read.as_fd()]).unwrap();
        drop(read);
        let got = receive(other.as_fd(), &mut [0; 16]).unwrap().unwrap();
        assert_eq!((got.descriptors.len(), got.is_cut), (253, false));
        drop(got);
        let got = receive(other.as_fd(), &mut [0; 16]).unwrap().unwrap();
        assert_eq!(
            (got.length, got.descriptors.len(), got.is_cut),
            (16, 1, true)
        );
        drop(got);
        // A child that another test has just forked may hold it for a moment.
        while let Ok(count) = write.write(b"x") {
            assert_eq!(count, 1);
            std::thread::yield_now();
        }
    }
}
