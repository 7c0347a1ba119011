//! Where WAS connections come from when nobody connects: what this program was started with as standard
//! input, and the sockets that carry connections to workers.

#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};
use nix::sys::stat::{SFlag, fstat};

use super::adopt::set_nonblocking;
use super::listener::{Door, Kind, Listener};
use crate::error::{Error, Exit, Result};
use crate::sys::{fd, passing};

/// The control channel of a single connection.
const CONTROL: RawFd = 3;

/// The message with which three descriptors are passed: no payload, command 1.
const NEW: [u8; 4] = {
    let [a, b] = 1u16.to_ne_bytes();
    [0, 0, a, b]
};

/// What a worker says of the only connection when it was lost with another one.
const LOST: &[u8] = b"lost";

/// What this program was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// One WAS connection: descriptors 0, 1 and 3.
    Single,
    /// A socket that brings WAS connections: descriptor 0.
    Multi,
    Terminal,
    Other,
}

/// The three descriptors of a connection, in the order in which they are passed.
#[derive(Debug)]
pub struct Connection {
    pub control: OwnedFd,
    pub input: OwnedFd,
    pub output: OwnedFd,
}

impl Connection {
    /// What the protocol has: anything else could make a worker wait that reads or writes it, whatever mode
    /// it is in (regular files on a network), or does not fit into an epoll set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> std::result::Result<(), &'static str> {
        if getsockopt(&self.control, sockopt::SockType) != Ok(SockType::Stream) {
            return Err("its control channel is no stream socket");
        }
        if !is_pipe(&self.input, OFlag::O_WRONLY) {
            return Err("its input is no pipe that can be read");
        }
        match is_pipe(&self.output, OFlag::O_RDONLY) {
            true => Ok(()),
            false => Err("its output is no pipe that can be written"),
        }
    }
}

fn is_fifo(fd: impl AsFd) -> bool {
    fstat(fd)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

/// A pipe, open for something else than `useless` alone.
fn is_pipe(fd: &OwnedFd, useless: OFlag) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    let is_open =
        |flags: OFlag| !flags.contains(OFlag::O_PATH) && flags & OFlag::O_ACCMODE != useless;
    is_fifo(fd) && flags.is_ok_and(is_open)
}

/// The first look counts: later the descriptors have been taken.
pub fn standard() -> Standard {
    static FOUND: OnceLock<Standard> = OnceLock::new();
    *FOUND.get_or_init(look)
}

/// Looks at the descriptors; nothing is taken.
fn look() -> Standard {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let (stdin, stdout) = (stdin.as_fd(), stdout.as_fd());
    if is_fifo(stdin) && is_fifo(stdout) && is_inherited_socket(CONTROL) {
        return Standard::Single;
    }
    if getsockopt(&stdin, sockopt::SockType) == Ok(SockType::SeqPacket) {
        return Standard::Multi;
    }
    match std::io::IsTerminal::is_terminal(&stdin) {
        true => Standard::Terminal,
        false => Standard::Other,
    }
}

fn is_inherited_socket(number: RawFd) -> bool {
    let is_socket = || {
        let copy = fd::duplicate(number).ok()?;
        getsockopt(&copy, sockopt::SockType).ok()
    };
    fd::is_inheritable(number) && is_socket() == Some(SockType::Stream)
}

/// Takes the connection that this program was started with. What anybody prints from now on goes to
/// standard error.
///
/// # Errors
/// Those of dup(2) and open(2).
pub fn take_single() -> std::io::Result<Connection> {
    let connection = Connection {
        control: fd::claim(CONTROL)?,
        input: std::io::stdin().as_fd().try_clone_to_owned()?,
        output: std::io::stdout().as_fd().try_clone_to_owned()?,
    };
    vacate_standard()?;
    Ok(connection)
}

/// The same for a socket that brings connections.
///
/// # Errors
/// Those of dup(2) and open(2).
pub fn take_multi() -> Result<Listener> {
    let taken = std::io::stdin().as_fd().try_clone_to_owned();
    let taken = taken.and_then(|fd| vacate_standard().map(|()| fd));
    let fd = taken.map_err(|error| Error::io("cannot take the Multi-WAS socket", &error))?;
    door(fd, Door::Multi)
}

fn vacate_standard() -> std::io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(null)?;
    nix::unistd::dup2_stdout(std::io::stderr())?;
    Ok(())
}

/// A socket out of which connections come.
///
/// # Errors
/// [`Exit::Internal`] when it is none.
pub fn door(fd: OwnedFd, door: Door) -> Result<Listener> {
    let is_packets = getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket);
    match is_packets && set_nonblocking(&fd).is_ok() {
        // Somebody else has made it, and no file goes with it.
        true => Ok(Listener::passed(fd, Kind::Was(door))),
        false => Err(Error::new(
            Exit::Internal,
            format!("descriptor {} brings no WAS connections", fd.as_raw_fd()),
        )),
    }
}

pub(super) fn claim_door(number: RawFd, kind: Door) -> Result<Listener> {
    let fd = fd::claim(number)
        .map_err(|error| Error::io(format_args!("cannot take descriptor {number}"), &error))?;
    door(fd, kind)
}

/// A door and the end through which connections are put into it.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair(kind: Door) -> Result<(OwnedFd, Listener)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (entry, exit) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(|errno| Error::os("cannot create a socket for WAS connections", errno))?;
    Ok((entry, door(exit, kind)?))
}

/// Puts a connection into a door. The descriptors stay the caller's, too.
///
/// # Errors
/// Those of sendmsg(2).
pub fn put(entry: BorrowedFd<'_>, connection: &Connection) -> std::io::Result<()> {
    let Connection {
        control,
        input,
        output,
    } = connection;
    let descriptors = [control.as_fd(), input.as_fd(), output.as_fd()];
    passing::send(entry, &[IoSlice::new(&NEW)], &descriptors)
}

/// Tells whoever has put the only connection into a door that nobody serves it any more.
pub fn tell_lost(door: BorrowedFd<'_>) {
    // Who does not hear it sees the end all the same.
    let _ = passing::send(door, &[IoSlice::new(LOST)], &[]);
}

/// Whether that has been told.
pub fn is_lost(entry: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; LOST.len()];
    let received = passing::receive(entry, &mut buffer).ok().flatten();
    received.is_some_and(|received| buffer[..received.length] == *LOST)
}

/// What comes out of the socket of a client.
#[derive(Debug)]
pub enum New {
    Nothing,
    Connection(Connection),
    /// The client has closed it.
    End,
    /// What came was no connection.
    Strange(&'static str),
}

/// Takes one connection.
///
/// # Errors
/// Those of recvmsg(2).
pub fn take(door: BorrowedFd<'_>) -> std::io::Result<New> {
    const NOP: [u8; 2] = [0, 0];
    let mut buffer = [0; 64];
    let received = match passing::receive(door, &mut buffer) {
        Ok(Some(received)) => received,
        Ok(None) => return Ok(New::Nothing),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(New::End),
        Err(error) => return Err(error),
    };
    if received.is_cut {
        return Ok(New::Strange("a message that is too long"));
    }
    match &buffer[..received.length] {
        [] if received.descriptors.is_empty() => Ok(New::End),
        message if *message == NEW => match <[OwnedFd; 3]>::try_from(received.descriptors) {
            Ok([control, input, output]) => Ok(New::Connection(Connection {
                control,
                input,
                output,
            })),
            Err(_) => Ok(New::Strange("a connection without its three descriptors")),
        },
        [a, b, command @ ..] if is_whole(&[*a, *b], command) && command[..2] == NOP => {
            Ok(New::Nothing)
        }
        _ => Ok(New::Strange("an unknown message")),
    }
}

/// A message is one packet.
fn is_whole(length: &[u8; 2], rest: &[u8]) -> bool {
    rest.len() == 2 + usize::from(u16::from_ne_bytes(*length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let (input, output) = nix::unistd::pipe().unwrap();
        Connection {
            control: std::os::unix::net::UnixStream::pair().unwrap().0.into(),
            input,
            output,
        }
    }

    #[test]
    fn a_connection_travels_and_the_end_is_seen() {
        let (entry, door) = pair(Door::Multi).unwrap();
        assert!(matches!(take(door.as_fd()).unwrap(), New::Nothing));
        put(entry.as_fd(), &connection()).unwrap();
        passing::send(entry.as_fd(), &[IoSlice::new(&[2, 0, 0, 0, 7, 7])], &[]).unwrap();
        assert!(matches!(take(door.as_fd()).unwrap(), New::Connection(_)));
        assert!(matches!(take(door.as_fd()).unwrap(), New::Nothing));
        drop(entry);
        assert!(matches!(take(door.as_fd()).unwrap(), New::End));
    }

    #[test]
    fn what_is_no_connection_is_told() {
        let (entry, door) = pair(Door::Multi).unwrap();
        let one = connection();
        let all = [one.control.as_fd(), one.input.as_fd(), one.output.as_fd()];
        let many = [all[0], all[1], all[2], all[0]];
        for (message, descriptors) in [
            (&NEW[..], &all[..2]),
            (&NEW, &[]),
            (&NEW, &many),
            (&[0, 0, 2, 0], &all),
            (&[1, 0, 1, 0, 5], &all),
            (&[1, 0, 0, 0], &[]),
            (&[0], &[]),
            (&[7; 100], &[]),
        ] {
            passing::send(entry.as_fd(), &[IoSlice::new(message)], descriptors).unwrap();
            let taken = take(door.as_fd()).unwrap();
            assert!(matches!(taken, New::Strange(_)), "{message:?}: {taken:?}");
        }
    }
}
