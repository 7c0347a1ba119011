//! A pair of connected `SOCK_SEQPACKET` sockets: whole messages, in order, and end of file when
//! the other process is gone (`unix(7)`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

/// The largest message either side sends; a longer one arrives cut and is refused.
pub const MAX_MESSAGE: usize = 128 * 1024;

#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What a receiver finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Message(Vec<u8>),
    Nothing,
    Closed,
}

impl Channel {
    /// Both ends are close-on-exec and non-blocking.
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        for end in [&a, &b] {
            // Room for two of the longest messages, so that a send never has to wait.
            setsockopt(end, sockopt::SndBuf, &(2 * MAX_MESSAGE))?;
        }
        Ok((Channel(a), Channel(b)))
    }

    /// Takes over a descriptor that another process made with [`Channel::pair`].
    pub fn from_fd(fd: OwnedFd) -> Channel {
        Channel(fd)
    }

    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        loop {
            match send(self.0.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    pub fn receive(&self) -> io::Result<Received> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(Errno::ECONNRESET) | Ok(0) => return Ok(Received::Closed),
                Err(error) => return Err(error.into()),
                Ok(n) if n > buffer.len() => {
                    return Err(io::Error::other(format!(
                        "a message of {n} bytes is too long"
                    )));
                }
                Ok(n) => {
                    buffer.truncate(n);
                    return Ok(Received::Message(buffer));
                }
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_the_end_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        assert_eq!(b.receive().unwrap(), Received::Nothing);
        a.send(b"one").unwrap();
        a.send(&vec![7; MAX_MESSAGE]).unwrap();
        assert_eq!(b.receive().unwrap(), Received::Message(b"one".to_vec()));
        assert_eq!(
            b.receive().unwrap(),
            Received::Message(vec![7; MAX_MESSAGE])
        );
        drop(a);
        // A child that another test has just forked may hold it for a moment.
        while b.receive().unwrap() == Received::Nothing {
            std::thread::yield_now();
        }
        assert_eq!(b.receive().unwrap(), Received::Closed);
    }
}
