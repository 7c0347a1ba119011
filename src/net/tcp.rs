//! TCP listeners.
//!
//! `:port` and `[::]:port` take IPv4 as well (IPV6_V6ONLY off, whatever the system's default), so
//! one listener serves every address of the machine; any other IPv6 address is only itself. Without
//! IPv6 in the kernel `:port` is `0.0.0.0:port`. A host name is bound at every address it has.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, listen, setsockopt,
    socket, sockopt,
};

use super::adopt::kind_of;
use super::listener::{Kind, Listener};
use super::{Kept, backlog_of};
use crate::error::{Error, Exit, Result};

pub(super) fn bind(host: &str, port: u16, backlog: u32, kept: &mut Kept) -> Result<Vec<Listener>> {
    if host.is_empty() {
        let everywhere = [
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        ];
        return bind_first(&everywhere, backlog, kept).map(|listener| vec![listener]);
    }
    bind_all(&resolve(host, port)?, backlog, kept)
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|error| Error::io(format_args!("cannot resolve {host}"), &error))?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(Error::new(Exit::Os, format!("{host} has no address"))),
        false => Ok(addresses),
    }
}

/// The first address of a family the machine has.
fn bind_first(addresses: &[SocketAddr], backlog: u32, kept: &mut Kept) -> Result<Listener> {
    let mut result = Err(Errno::EADDRNOTAVAIL);
    for address in addresses {
        result = bind_one(*address, backlog, kept);
        match result {
            Err(errno) if is_absent(errno) => {}
            Err(errno) => return Err(refused(*address, errno)),
            Ok(_) => break,
        }
    }
    let last = addresses.last().copied();
    result.map_err(|errno| match last {
        Some(address) => refused(address, errno),
        None => Error::os("cannot bind", errno),
    })
}

/// Every address; of several, those the machine does not have are left out (`localhost` is `::1`
/// in /etc/hosts even where there is no IPv6). Port 0 is the same free port for all.
fn bind_all(addresses: &[SocketAddr], backlog: u32, kept: &mut Kept) -> Result<Vec<Listener>> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut absent = None;
    for address in addresses {
        let mut address = *address;
        if let (0, Some(Kind::Tcp { addr })) =
            (address.port(), listeners.first().map(Listener::kind))
        {
            address.set_port(addr.port());
        }
        match bind_one(address, backlog, kept) {
            Ok(listener) => listeners.push(listener),
            Err(errno) if is_absent(errno) => absent = Some(refused(address, errno)),
            Err(errno) => return Err(refused(address, errno)),
        }
    }
    match absent {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT)
}

fn bind_one(address: SocketAddr, backlog: u32, kept: &mut Kept) -> nix::Result<Listener> {
    if let Some(listener) = kept.take(&Kind::Tcp { addr: address }) {
        listen(&listener, backlog_of(backlog))?;
        return Ok(listener);
    }
    let fd = match address {
        SocketAddr::V4(address) => {
            let fd = open(AddressFamily::Inet)?;
            bind_to(&fd, &SockaddrIn::from(address))?;
            fd
        }
        SocketAddr::V6(address) => {
            let fd = open(AddressFamily::Inet6)?;
            let only_v6 = !address.ip().is_unspecified();
            setsockopt(&fd, sockopt::Ipv6V6Only, &only_v6)?;
            bind_to(&fd, &SockaddrIn6::from(address))?;
            fd
        }
    };
    listen(&fd, backlog_of(backlog))?;
    // Asked, not assumed: port 0 is a real one now.
    let kind = kind_of(&fd)?.ok_or(Errno::EAFNOSUPPORT)?;
    Ok(Listener::new(fd, kind, None))
}

fn open(family: AddressFamily) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    // Binds although connections of the previous server linger in TIME_WAIT.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // Linux passes it on to accepted sockets: one system call less per connection.
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    Ok(fd)
}

fn bind_to(fd: &OwnedFd, address: &dyn SockaddrLike) -> nix::Result<()> {
    nix::sys::socket::bind(fd.as_raw_fd(), address)
}

fn refused(address: SocketAddr, errno: Errno) -> Error {
    let error = Error::os(format_args!("cannot bind {address}"), errno);
    let port = address.port();
    match errno {
        Errno::EACCES | Errno::EPERM => {
            error.advise("low ports need CAP_NET_BIND_SERVICE or a socket passed by systemd")
        }
        Errno::EADDRINUSE => error.advise(format_args!("ss -ltnp 'sport = :{port}' tells by whom")),
        Errno::EADDRNOTAVAIL => error.advise("no interface has this address"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use nix::sys::socket::getsockopt;
    use std::net::TcpStream;

    fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
        let address = |listener: &Listener| match listener.kind() {
            Kind::Tcp { addr } => *addr,
            other => panic!("{other:?}"),
        };
        listeners.iter().map(address).collect()
    }

    fn has_ipv6() -> bool {
        std::net::TcpListener::bind("[::1]:0").is_ok()
    }

    #[test]
    fn port_0_is_reported_as_the_real_port() {
        let listeners = bind("127.0.0.1", 0, 16, &mut Kept::default()).unwrap();
        let address = addresses(&listeners)[0];
        assert_ne!(address.port(), 0);
        assert_eq!(listeners[0].name(), format!("http://{address}"));
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_listener_is_non_blocking_close_on_exec_and_without_delay() {
        let listeners = bind("127.0.0.1", 0, 16, &mut Kept::default()).unwrap();
        let listener = &listeners[0];
        let status = OFlag::from_bits_retain(fcntl(listener, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_retain(fcntl(listener, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        assert!(getsockopt(listener, sockopt::TcpNoDelay).unwrap());
        assert!(getsockopt(listener, sockopt::ReuseAddr).unwrap());
    }

    #[test]
    fn an_address_in_use_is_unavailable_and_says_how_to_find_by_whom() {
        let listeners = bind("127.0.0.1", 0, 16, &mut Kept::default()).unwrap();
        let address = addresses(&listeners)[0];
        let error = bind("127.0.0.1", address.port(), 16, &mut Kept::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Unavailable);
        let start = format!("cannot bind {address}: address already in use; ss ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = bind("192.0.2.1", 0, 16, &mut Kept::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Os);
        assert!(error.to_string().contains("no interface"), "{error}");
    }

    #[test]
    fn localhost_is_every_loopback_address_at_the_same_port() {
        let listeners = bind("localhost", 0, 16, &mut Kept::default()).unwrap();
        let addresses = addresses(&listeners);
        for address in &addresses {
            assert!(address.ip().is_loopback());
            assert_eq!(address.port(), addresses[0].port());
        }
    }

    #[test]
    fn a_wildcard_takes_ipv4_too() {
        let mut hosts = vec![""];
        if has_ipv6() {
            hosts.push("::");
        }
        for host in hosts {
            let listeners = bind(host, 0, 16, &mut Kept::default()).unwrap();
            assert_eq!(listeners.len(), 1);
            let port = addresses(&listeners)[0].port();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn another_ipv6_address_is_only_itself() {
        if !has_ipv6() {
            return;
        }
        let listeners = bind("::1", 0, 16, &mut Kept::default()).unwrap();
        assert!(getsockopt(&listeners[0], sockopt::Ipv6V6Only).unwrap());
    }

    #[test]
    fn a_name_that_does_not_exist_is_named() {
        let error = bind("no-such-host.invalid", 0, 16, &mut Kept::default()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("cannot resolve no-such-host.invalid: "),
            "{message}"
        );
    }
}
