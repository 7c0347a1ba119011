//! Socket calls that the standard library and nix do not offer in the form the event loop needs.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Who connected, as far as `accept4(2)` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Inet(SocketAddr),
    Local,
}

/// Accepts one connection (non-blocking, close-on-exec) with its peer in the same call.
/// `Ok(None)`: there is none, or it was gone before it could be accepted.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<(OwnedFd, Peer)>> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let address = storage.as_mut_ptr().cast();
    // SAFETY: `address` points to `length` writable bytes.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), address, &mut length, flags) };
    match Errno::result(fd) {
        Ok(_) => {}
        // accept(2): network errors of the new connection are reported here; to be treated as EAGAIN.
        Err(
            Errno::EAGAIN
            | Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::ENOPROTOOPT
            | Errno::EOPNOTSUPP
            | Errno::ENONET
            | Errno::EPERM,
        ) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Some((fd, peer(&storage, length))))
}

fn peer(storage: &MaybeUninit<libc::sockaddr_storage>, length: libc::socklen_t) -> Peer {
    if (length as usize) < size_of::<libc::sa_family_t>() {
        return Peer::Local;
    }
    // SAFETY: the kernel wrote at least the family (`length`), and any bytes are a valid integer.
    let family = unsafe { storage.as_ptr().cast::<libc::sa_family_t>().read() };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: for AF_INET the kernel writes a whole sockaddr_in; the storage is aligned.
            let inet = unsafe { storage.as_ptr().cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(inet.sin_addr.s_addr));
            Peer::Inet(SocketAddrV4::new(ip, u16::from_be(inet.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: for AF_INET6 the kernel writes a whole sockaddr_in6; the storage is aligned.
            let inet = unsafe { storage.as_ptr().cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(inet.sin6_addr.s6_addr);
            let port = u16::from_be(inet.sin6_port);
            match ip.to_ipv4_mapped() {
                // A dual-stack listener: the client speaks IPv4 and is to be seen so.
                Some(ip) => Peer::Inet(SocketAddrV4::new(ip, port).into()),
                None => Peer::Inet(SocketAddrV6::new(ip, port, 0, inet.sin6_scope_id).into()),
            }
        }
        _ => Peer::Local,
    }
}

/// Whether bytes wait to be received; they stay where they are.
pub fn has_bytes(fd: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(fd.as_raw_fd(), &mut [0], flags) == Ok(1)
}

/// `recv(2)`: `Ok(0)` is the end of the stream, `WouldBlock` nothing for now.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    use nix::sys::socket::{MsgFlags, recv};
    loop {
        match recv(fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => return Ok(other?),
        }
    }
}

/// Whether more follows at once (`MSG_MORE`, `send(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Now,
    MoreFollows,
}

/// `sendmsg(2)` without SIGPIPE. The number of bytes taken.
pub fn send(fd: BorrowedFd<'_>, parts: &[io::IoSlice<'_>], push: Push) -> io::Result<usize> {
    use nix::sys::socket::{MsgFlags, send, sendmsg};
    let more = match push {
        Push::Now => 0,
        Push::MoreFollows => libc::MSG_MORE,
    };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::from_bits_retain(more);
    loop {
        let done = match parts {
            [one] => send(fd.as_raw_fd(), one, flags),
            _ => sendmsg::<()>(fd.as_raw_fd(), parts, &[], flags, None),
        };
        match done {
            Err(Errno::EINTR) => continue,
            other => return Ok(other?),
        }
    }
}

/// `sendfile(2)` from `offset`. `Ok(0)`: the file ends before it.
pub fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
    loop {
        match nix::sys::sendfile::sendfile(socket.as_fd(), file, Some(&mut offset), count) {
            Err(Errno::EINTR) => continue,
            other => return Ok(other?),
        }
    }
}

/// Waits until the socket takes more bytes; false when `millis` have passed without.
pub fn wait_writable(fd: BorrowedFd<'_>, millis: i32) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(n) => Ok(n > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn tells_the_peer_of_a_tcp_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (fd, peer) = accept(listener.as_fd()).unwrap().unwrap();
        assert_eq!(peer, Peer::Inet(client.local_addr().unwrap()));
        assert_nonblocking_and_cloexec(&fd);
    }

    #[test]
    fn a_unix_client_is_local_and_an_empty_queue_is_none() {
        let path = std::env::temp_dir().join(format!("rswsgi-accept-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(accept(listener.as_fd()).unwrap().is_none());
        let _client = UnixStream::connect(&path).unwrap();
        let (fd, peer) = accept(listener.as_fd()).unwrap().unwrap();
        assert_eq!(peer, Peer::Local);
        assert_nonblocking_and_cloexec(&fd);
        std::fs::remove_file(&path).unwrap();
    }

    fn assert_nonblocking_and_cloexec(fd: &OwnedFd) {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
        let status = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }
}
