//! The relay of one app: a socket pair on which connections travel from one worker to another.
//!
//! The supervisor makes it, masters and workers of all generations inherit it. Workers put messages
//! into one end and, when they have nothing else to do, take them out of the other, as they accept
//! from a listener. What is taken is checked as if a stranger had sent it. Who serves what, and when
//! a connection is worth the trip, is the workers' business.

#![forbid(unsafe_code)]

mod message;

pub use message::{Cause, FORMAT, FrontEnd, LONGEST, MOST_INPUT, Mark, Message, Traits};

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socketpair, sockopt,
};

use crate::sys::passing;

/// Room for messages under way; each takes about a KiB of it. What the system does not allow is not
/// had: some hundred messages fit in any case.
const ROOM: usize = 8 << 20;

#[derive(Debug)]
pub struct Relay {
    entry: OwnedFd,
    exit: OwnedFd,
}

/// What became of an attempt to send a connection on.
#[derive(Debug)]
pub enum Put {
    Sent,
    /// Too many are under way.
    Full,
    Failed(io::Error),
}

/// What a worker finds.
#[derive(Debug)]
pub enum Taken<'a> {
    Nothing,
    Connection(Message<'a>, OwnedFd),
    /// Control, input, output.
    Was(Message<'a>, [OwnedFd; 3]),
    /// Something that cannot be served; its descriptors are closed.
    Refused(String),
}

impl Relay {
    pub fn create() -> io::Result<Relay> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (entry, exit) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        // Beyond the limit of the system where we may, up to it otherwise.
        if setsockopt(&entry, sockopt::SndBufForce, &ROOM).is_err() {
            setsockopt(&entry, sockopt::SndBuf, &ROOM)?;
        }
        Ok(Relay { entry, exit })
    }

    /// Takes over both ends from the process that has made them.
    pub fn from_ends(entry: OwnedFd, exit: OwnedFd) -> Relay {
        Relay { entry, exit }
    }

    /// Both ends, for those who inherit them.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.entry.as_fd(), self.exit.as_fd()]
    }

    /// Sends a connection. It is the caller's until it was sent, and must be let go of then. `input`
    /// is in pieces that belong together; that of the message is not looked at.
    pub fn put(&self, message: &Message<'_>, input: [&[u8]; 2], socket: BorrowedFd<'_>) -> Put {
        self.put_all(message, input, &[socket])
    }

    /// The same for a connection of several descriptors.
    pub fn put_all(
        &self,
        message: &Message<'_>,
        input: [&[u8]; 2],
        descriptors: &[BorrowedFd<'_>],
    ) -> Put {
        let header = message.header(input[0].len() + input[1].len());
        let parts = [&header, input[0], input[1]].map(IoSlice::new);
        match passing::send(self.entry.as_fd(), &parts, descriptors) {
            Ok(()) => Put::Sent,
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS) => Put::Full,
                _ => Put::Failed(error),
            },
        }
    }

    /// Takes a connection. `buffer` has room for [`LONGEST`] bytes.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub fn take<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Taken<'a>> {
        let Some(received) = passing::receive(self.exit.as_fd(), buffer)? else {
            return Ok(Taken::Nothing);
        };
        let refused = |reason: &str| Ok(Taken::Refused(reason.into()));
        if received.is_cut {
            return refused("it came in part only; perhaps no descriptor is left (--rlimit)");
        }
        let message = match Message::read(&buffer[..received.length]) {
            Ok(message) => message,
            Err(strange) => return refused(&strange.to_string()),
        };
        let other_number = "it has another number of descriptors than its front end";
        if received.descriptors.len() != message.front_end.descriptors() {
            return refused(other_number);
        }
        // The first one is always a socket.
        if let Some(Err(reason)) = received.descriptors.first().map(check) {
            return refused(reason);
        }
        let mut descriptors = received.descriptors.into_iter();
        let mut next = || descriptors.next();
        match (next(), next(), next()) {
            (Some(socket), None, None) => Ok(Taken::Connection(message, socket)),
            (Some(control), Some(input), Some(output)) => {
                Ok(Taken::Was(message, [control, input, output]))
            }
            _ => refused(other_number),
        }
    }

    /// Whether a connection waits to be taken.
    pub fn is_waiting(&self) -> bool {
        let mut fds = [PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }
}

/// The end that connections come out of, for a poll set.
impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }
}

/// A worker must never block on what it has received.
fn check(socket: &OwnedFd) -> Result<(), &'static str> {
    let is_stream = getsockopt(socket, sockopt::SockType) == Ok(SockType::Stream);
    let flags = fcntl(socket, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    match flags {
        Ok(flags) if is_stream && flags.contains(OFlag::O_NONBLOCK) => Ok(()),
        _ => Err("its descriptor is no connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (client, ours)
    }

    fn message() -> Message<'static> {
        Message {
            front_end: FrontEnd::Http,
            cause: Cause::Drain,
            traits: Traits::default(),
            listener: Mark::new(0, "x"),
            peer: None,
            sent: 1,
            deadline: 2,
            arrived: 3,
            received: 4,
            input: b"",
        }
    }

    #[test]
    fn a_connection_travels_with_what_was_read_of_it() {
        let relay = Relay::create().unwrap();
        let mut buffer = vec![0; LONGEST];
        assert!(!relay.is_waiting());
        assert!(matches!(relay.take(&mut buffer).unwrap(), Taken::Nothing));
        let (mut client, ours) = connection();
        let put = relay.put(&message(), [b"GET ", b"/"], ours.as_fd());
        assert!(matches!(put, Put::Sent) && relay.is_waiting());
        drop(ours);
        let Taken::Connection(got, socket) = relay.take(&mut buffer).unwrap() else {
            panic!("no connection");
        };
        let input = b"GET /";
        assert_eq!(got, Message { input, ..message() });
        TcpStream::from(socket).write_all(b"hello").unwrap();
        let mut read = String::new();
        client.read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello");
    }

    #[test]
    fn a_full_relay_takes_nothing_and_loses_nothing() {
        let relay = Relay::create().unwrap();
        let (_client, ours) = connection();
        let mut sent = 0;
        loop {
            match relay.put(&message(), [b"", b""], ours.as_fd()) {
                Put::Sent => sent += 1,
                Put::Full => break,
                Put::Failed(error) => panic!("{error}"),
            }
        }
        assert!(sent >= 100, "{sent}");
        let mut buffer = vec![0; LONGEST];
        let mut taken = 0;
        while let Taken::Connection(..) = relay.take(&mut buffer).unwrap() {
            taken += 1;
        }
        assert_eq!(taken, sent);
    }

    #[test]
    fn what_cannot_be_served_is_refused_and_closed() {
        let relay = Relay::create().unwrap();
        let mut buffer = vec![0; LONGEST];
        let (mut client, ours) = connection();
        let header = message().header(0);
        let mut other = header;
        other[3] = FORMAT + 1;
        let file = std::fs::File::open("/dev/null").unwrap();
        let blocking = ours.try_clone().unwrap();
        for (bytes, descriptors) in [
            (&b""[..], vec![ours.as_fd()]),
            (&header, vec![]),
            (&header, vec![ours.as_fd(), ours.as_fd()]),
            (&other, vec![ours.as_fd()]),
            (&header[..40], vec![ours.as_fd()]),
            (&header, vec![file.as_fd()]),
        ] {
            let parts = [IoSlice::new(bytes)];
            passing::send(relay.entry.as_fd(), &parts, &descriptors).unwrap();
            let taken = relay.take(&mut buffer).unwrap();
            assert!(matches!(taken, Taken::Refused(_)), "{taken:?}");
        }
        blocking.set_nonblocking(false).unwrap();
        relay.put(&message(), [b"", b""], blocking.as_fd());
        drop((ours, blocking));
        let taken = relay.take(&mut buffer).unwrap();
        assert!(matches!(taken, Taken::Refused(_)), "{taken:?}");
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}
