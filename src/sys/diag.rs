//! The queue of a listening Unix socket, by way of `NETLINK_SOCK_DIAG` (sock_diag(7)): no call on the
//! socket itself tells.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use nix::sys::stat::fstat;

use super::socket::Backlog;

/// include/uapi/linux/{netlink,sock_diag,unix_diag}.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
const NLMSGHDR: usize = 16;
const UNIX_DIAG_REQ: usize = 24;
const UNIX_DIAG_MSG: usize = 16;
const ATTRIBUTE: usize = 4;

/// A way to ask the kernel about sockets of this network namespace.
#[derive(Debug)]
pub struct Diag(OwnedFd);

impl Diag {
    /// # Errors
    /// Those of socket(2): a kernel may do without.
    pub fn open() -> io::Result<Diag> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkSockDiag;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Diag(fd))
    }

    /// Connections that wait to be accepted on a listening Unix socket, and how many may. The kernel
    /// answers before the question has returned, so nothing is ever waited for.
    ///
    /// # Errors
    /// `ENOENT` when the socket is of another network namespace, or the kernel has no `unix_diag`.
    pub fn unix_backlog(&self, listener: BorrowedFd<'_>) -> io::Result<Backlog> {
        let inode = fstat(listener)?.st_ino;
        let inode = u32::try_from(inode).map_err(io::Error::other)?;
        let fd = self.0.as_raw_fd();
        // What nobody has read of an earlier answer.
        while recv(fd, &mut [0; 1024], MsgFlags::MSG_DONTWAIT).is_ok() {}
        send(fd, &question(inode), MsgFlags::MSG_DONTWAIT)?;
        let mut answer = [0; 1024];
        let length = recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT)?;
        read(&answer[..length], inode)
    }
}

fn question(inode: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(NLMSGHDR + UNIX_DIAG_REQ);
    let length = (NLMSGHDR + UNIX_DIAG_REQ) as u32;
    message.extend(length.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port.
    message.extend([0; 8]);
    // Family, protocol, padding, states (all).
    message.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(inode.to_ne_bytes());
    message.extend(UDIAG_SHOW_RQLEN.to_ne_bytes());
    // No cookie.
    message.extend([0xff; 8]);
    message
}

fn read(answer: &[u8], inode: u32) -> io::Result<Backlog> {
    let strange = || io::Error::other("the kernel gave an answer of another form");
    let half = |at: usize| Some(u16::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    if half(4) == Some(libc::NLMSG_ERROR as u16) {
        let errno = word(NLMSGHDR).ok_or_else(strange)?.cast_signed();
        return Err(Errno::from_raw(-errno).into());
    }
    if half(4) != Some(SOCK_DIAG_BY_FAMILY) || word(NLMSGHDR + 4) != Some(inode) {
        return Err(strange());
    }
    let mut at = NLMSGHDR + UNIX_DIAG_MSG;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == UNIX_DIAG_RQLEN
            && let (Some(waiting), Some(limit)) = (word(at + ATTRIBUTE), word(at + ATTRIBUTE + 4))
        {
            return Ok(Backlog { waiting, limit });
        }
        at += usize::from(length).next_multiple_of(4).max(ATTRIBUTE);
    }
    Err(strange())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    #[test]
    fn a_unix_listener_tells_who_waits() {
        let name = format!("rswsgi-diag-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let diag = Diag::open().unwrap();
        let of = || diag.unix_backlog(listener.as_fd()).unwrap();
        assert_eq!(of().waiting, 0);
        let clients: Vec<_> = (0..3)
            .map(|_| UnixStream::connect_addr(&address).unwrap())
            .collect();
        assert_eq!(of().waiting, 3);
        assert!(of().limit >= 3);
        listener.accept().unwrap();
        assert_eq!(of().waiting, 2);
        drop(clients);
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(diag.unix_backlog(tcp.as_fd()).is_err());
        assert_eq!(of().waiting, 2);
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        let mut answer = vec![0xff; 64];
        for length in 0..answer.len() {
            assert!(read(&answer[..length], 1).is_err());
        }
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[20..24].copy_from_slice(&1u32.to_ne_bytes());
        answer[32..].fill(0);
        assert!(read(&answer, 1).is_err());
    }
}
