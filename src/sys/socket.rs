//! Socket calls that the standard library and nix do not offer in the form the event loop needs.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::clock::{MILLISECOND, Nanos};

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
    let fd = match fd.as_raw_fd() {
        0..=2 => beyond_standard(&fd)?,
        _ => fd,
    };
    Ok(Some((fd, peer(&storage, length))))
}

/// The application has closed descriptors that everybody prints to, and the connection has got the
/// number of one of them: what is printed from now on is not to go to the client.
#[cold]
fn beyond_standard(connection: &OwnedFd) -> io::Result<OwnedFd> {
    let moved = super::fd::duplicate(connection.as_raw_fd())?;
    super::fd::occupy_standard()?;
    Ok(moved)
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

/// The process at the other end of a Unix socket when it connected (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub pid: i32,
    pub user: u32,
    /// Its effective group and its supplementary ones.
    pub groups: Vec<u32>,
}

/// More groups than any user has (`NGROUPS_MAX` is 65536, but who is in so many is not looked up).
const MOST_GROUPS: usize = 4096;

/// # Errors
/// Those of getsockopt(2).
pub fn credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    use nix::sys::socket::{getsockopt, sockopt};
    let peer = getsockopt(&fd, sockopt::PeerCredentials)?;
    let mut groups = vec![0u32; MOST_GROUPS];
    let mut length = (MOST_GROUPS * size_of::<u32>()) as libc::socklen_t;
    let value = groups.as_mut_ptr().cast();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
    // SAFETY: `value` points to `length` writable bytes.
    let done = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value, &mut length) };
    groups.truncate(match done {
        0 => length as usize / size_of::<u32>(),
        _ => 0,
    });
    groups.push(peer.gid());
    Ok(Credentials {
        pid: peer.pid(),
        user: peer.uid(),
        groups,
    })
}

/// Whether bytes wait to be received; they stay where they are.
pub fn has_bytes(fd: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(fd.as_raw_fd(), &mut [0], flags) == Ok(1)
}

fn tcp_info(fd: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    let value = info.as_mut_ptr().cast();
    // SAFETY: `value` points to `length` writable bytes.
    let done = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value, &mut length) };
    // SAFETY: integers only, all of them initialised: by zeros, or by the kernel.
    (done == 0).then(|| unsafe { info.assume_init() })
}

/// How long ago the last bytes arrived on a TCP connection or, before the first ones, how long ago it was
/// established; in the resolution of the kernel's tick (tcp(7), `tcpi_last_data_recv`).
pub fn since_last_bytes(fd: BorrowedFd<'_>) -> Option<Nanos> {
    let millis = tcp_info(fd)?.tcpi_last_data_recv;
    Some(Nanos::from(millis) * MILLISECOND)
}

/// Connections that wait to be accepted on a listening TCP socket, and how many may: of a listener
/// `TCP_INFO` says so in fields that mean something else otherwise (tcp_get_info() in the kernel).
pub fn tcp_backlog(listener: BorrowedFd<'_>) -> Option<Backlog> {
    /// `enum` of include/net/tcp_states.h.
    const TCP_LISTEN: u8 = 10;
    let info = tcp_info(listener)?;
    (info.tcpi_state == TCP_LISTEN).then_some(Backlog {
        waiting: info.tcpi_unacked,
        limit: info.tcpi_sacked,
    })
}

/// The queue of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    pub waiting: u32,
    pub limit: u32,
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

    #[test]
    fn a_tcp_listener_tells_who_waits_and_a_connection_for_how_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(tcp_backlog(listener.as_fd()).unwrap().waiting, 0);
        let clients: Vec<_> = (0..3)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let backlog = tcp_backlog(listener.as_fd()).unwrap();
        assert_eq!(backlog.waiting, 3);
        assert!(backlog.limit >= 3);
        assert_eq!(tcp_backlog(clients[0].as_fd()), None);
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (fd, _) = accept(listener.as_fd()).unwrap().unwrap();
        let waited = since_last_bytes(fd.as_fd()).unwrap();
        assert!(waited >= 40 * MILLISECOND, "{waited}");
        assert!(waited < 20_000 * MILLISECOND, "{waited}");
    }

    #[test]
    fn a_unix_socket_tells_who_is_behind_it() {
        let (one, _other) = UnixStream::pair().unwrap();
        let found = credentials(one.as_fd()).unwrap();
        assert_eq!(found.pid, nix::unistd::getpid().as_raw());
        assert_eq!(found.user, nix::unistd::geteuid().as_raw());
        assert!(found.groups.contains(&nix::unistd::getegid().as_raw()));
        for group in nix::unistd::getgroups().unwrap() {
            assert!(found.groups.contains(&group.as_raw()));
        }
    }

    fn assert_nonblocking_and_cloexec(fd: &OwnedFd) {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
        let status = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }
}
