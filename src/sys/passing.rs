//! Descriptors that travel in messages (`SCM_RIGHTS`, unix(7)) over `SOCK_SEQPACKET` sockets, which
//! keep the bytes of a message and its descriptors together.

#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The most descriptors of one message.
pub const MOST_DESCRIPTORS: usize = 3;

/// A message that has been received.
#[derive(Debug)]
pub struct Received {
    /// Bytes of it that are in the buffer.
    pub length: usize,
    pub descriptors: Vec<OwnedFd>,
    /// It was longer than the buffer, or had more descriptors than there was room for.
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

/// Receives one message; `None` when there is none. The descriptors are close-on-exec from their first
/// moment.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(message) => break message,
        }
    };
    let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
    let is_cut = message.flags.intersects(cut);
    let mut descriptors = Vec::new();
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just made these descriptors for us, each once.
            let own = |number: RawFd| unsafe { OwnedFd::from_raw_fd(number) };
            descriptors.extend(numbers.into_iter().map(own));
        }
    }
    Ok(Some(Received {
        length: message.bytes,
        descriptors,
        is_cut,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

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
    fn what_does_not_fit_is_told_and_nothing_stays_open() {
        let (one, other) = pair();
        let (read, mut write) = pipe();
        let descriptors = [read.as_fd(); MOST_DESCRIPTORS + 2];
        send(one.as_fd(), &[IoSlice::new(b"x")], &descriptors).unwrap();
        send(one.as_fd(), &[IoSlice::new(&[7; 40])], &[read.as_fd()]).unwrap();
        drop(read);
        for _ in 0..2 {
            let got = receive(other.as_fd(), &mut [0; 16]).unwrap().unwrap();
            assert!(got.is_cut);
        }
        // A child that another test has just forked may hold it for a moment.
        while let Ok(count) = write.write(b"x") {
            assert_eq!(count, 1);
            std::thread::yield_now();
        }
    }
}
