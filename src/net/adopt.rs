//! Sockets this process was started with: systemd's socket activation (sd_listen_fds(3)) and
//! `fd://N`. They are checked and made non-blocking and close-on-exec; everything else about them,
//! their files included, is their creator's business.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    setsockopt, sockopt,
};

use super::listener::{Kind, Listener};
use crate::config::FIRST_FD;
use crate::error::{Error, Exit, Result};
use crate::sys::fd::claim;

/// What speaks of passed sockets, to be removed from the environment of every child.
pub const LISTEN_VARIABLES: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];

/// More passed descriptors than anybody has; a larger number is a mistake.
const MOST_FDS: i32 = 4096;

/// A descriptor that was passed, with the name its sender gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub fd: RawFd,
    pub label: Option<String>,
}

impl Passed {
    pub fn unnamed(fd: RawFd) -> Passed {
        Passed { fd, label: None }
    }

    /// One that this program has bound before.
    pub fn is_kept(&self) -> bool {
        self.label.as_deref() == Some(super::KEPT)
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "descriptor {} ({label})", self.fd),
            None => write!(f, "descriptor {}", self.fd),
        }
    }
}

/// The descriptors the environment speaks of, none when it means another process than `pid`.
pub fn passed(env: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Vec<Passed>> {
    let (Some(addressee), Some(count)) = (env("LISTEN_PID"), env("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    let number = |text: OsString| text.to_str().and_then(|text| text.parse::<i32>().ok());
    let addressee = number(addressee.clone())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| malformed("LISTEN_PID", &addressee))?;
    if u32::try_from(addressee) != Ok(pid) {
        return Ok(Vec::new());
    }
    let count = number(count.clone())
        .filter(|count| (0..=MOST_FDS).contains(count))
        .ok_or_else(|| malformed("LISTEN_FDS", &count))?;
    let labels = env("LISTEN_FDNAMES").and_then(|labels| labels.into_string().ok());
    let mut labels = labels.iter().flat_map(|labels| labels.split(':'));
    let sockets = (FIRST_FD..FIRST_FD + count).map(|fd| Passed {
        fd,
        label: labels.next().filter(|l| !l.is_empty()).map(str::to_owned),
    });
    Ok(sockets.collect())
}

fn malformed(variable: &str, text: &OsString) -> Error {
    Error::new(Exit::Config, format!("{variable}: {text:?} is not a count"))
}

/// Takes ownership of an inherited listening socket.
///
/// # Errors
/// [`Exit::Config`] when it is not one this server can accept from.
pub fn adopt(passed: &Passed) -> Result<Listener> {
    let refuse = |reason: &str| Error::new(Exit::Config, format!("cannot use {passed}: {reason}"));
    let fd = claim(passed.fd).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBADF) => refuse("nothing is open there; is it passed to this process?"),
        Some(Errno::EBUSY) => refuse("it was not inherited or is in use already"),
        _ => Error::io(format_args!("cannot use {passed}"), &error),
    })?;
    listener(fd, passed)
}

/// The socket as a listener, checked and made non-blocking.
pub(super) fn listener(fd: OwnedFd, passed: &Passed) -> Result<Listener> {
    let refuse = |reason: &str| Error::new(Exit::Config, format!("cannot use {passed}: {reason}"));
    let failed = |errno| match errno {
        Errno::ENOTSOCK => refuse("it is not a socket"),
        errno => Error::os(format_args!("cannot use {passed}"), errno),
    };
    // SockType knows all types but raw ones; either way it is not a stream.
    match getsockopt(&fd, sockopt::SockType) {
        Ok(SockType::Stream | SockType::SeqPacket) => {}
        Ok(_) | Err(Errno::EINVAL) => return Err(refuse("it is not a stream socket")),
        Err(errno) => return Err(failed(errno)),
    }
    if !getsockopt(&fd, sockopt::AcceptConn).map_err(failed)? {
        return Err(refuse(match is_connected(&fd) {
            true => "it is a connection, not a listening socket; the socket unit needs Accept=no",
            false => "it is not listening",
        }));
    }
    let kind = kind_of(&fd)
        .map_err(failed)?
        .ok_or_else(|| refuse("it is neither an IP nor a Unix socket"))?;
    let kind = match (getsockopt(&fd, sockopt::SockType), kind) {
        (Ok(SockType::SeqPacket), Kind::Unix { path }) => Kind::WasListener {
            path: path.to_string_lossy().into_owned(),
        },
        (Ok(SockType::SeqPacket), Kind::UnixAbstract { name }) => Kind::WasListener {
            path: format!("@{name}"),
        },
        (Ok(SockType::SeqPacket), _) => return Err(refuse("it is not a stream socket")),
        (_, kind) => kind,
    };
    set_nonblocking(&fd).map_err(failed)?;
    if let Kind::Tcp { .. } = kind {
        setsockopt(&fd, sockopt::TcpNoDelay, &true).map_err(failed)?;
    }
    Ok(Listener::passed(fd, kind))
}

fn is_connected(fd: &OwnedFd) -> bool {
    getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_ok()
}

/// What the socket is bound to; `None` for a family this server does not speak.
pub(super) fn kind_of(fd: &OwnedFd) -> nix::Result<Option<Kind>> {
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let lossy = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    Ok(match address.family() {
        Some(AddressFamily::Inet) => address.as_sockaddr_in().map(|addr| Kind::Tcp {
            addr: std::net::SocketAddrV4::from(*addr).into(),
        }),
        Some(AddressFamily::Inet6) => address.as_sockaddr_in6().map(|addr| Kind::Tcp {
            addr: std::net::SocketAddrV6::from(*addr).into(),
        }),
        Some(AddressFamily::Unix) => address.as_unix_addr().map(|addr| {
            match (addr.path(), addr.as_abstract()) {
                // Text, because the description goes to other processes as JSON.
                (Some(path), _) => Kind::Unix {
                    path: PathBuf::from(lossy(path.as_os_str().as_encoded_bytes())),
                },
                (None, name) => Kind::UnixAbstract {
                    name: lossy(name.unwrap_or_default()),
                },
            }
        }),
        _ => None,
    })
}

pub(super) fn set_nonblocking(fd: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tests::directory;
    use nix::fcntl::FdFlag;
    use nix::sys::socket::{SockFlag, socket};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, IntoRawFd};
    use std::os::unix::net::UnixListener;

    /// A copy that looks like it survived an exec: dup(2) clears FD_CLOEXEC.
    fn inherited(fd: &impl AsFd) -> Passed {
        Passed::unnamed(nix::unistd::dup(fd).unwrap().into_raw_fd())
    }

    fn refused(passed: &Passed) -> String {
        let error = adopt(passed).unwrap_err();
        assert_eq!(error.exit(), Exit::Config, "{error}");
        error.to_string()
    }

    fn passed_by(variables: &[(&str, &str)]) -> Result<Vec<Passed>> {
        let env = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        passed(env, 42)
    }

    #[test]
    fn sockets_are_counted_from_3_and_may_have_names() {
        let sockets = passed_by(&[
            ("LISTEN_PID", "42"),
            ("LISTEN_FDS", "3"),
            ("LISTEN_FDNAMES", "web::admin"),
        ]);
        let label = |label: &str| Some(label.to_owned());
        let expected = [(3, label("web")), (4, None), (5, label("admin"))];
        let expected = expected.map(|(fd, label)| Passed { fd, label });
        assert_eq!(sockets.unwrap(), expected);
        let sockets = passed_by(&[("LISTEN_PID", "42"), ("LISTEN_FDS", "1")]);
        assert_eq!(sockets.unwrap(), [Passed::unnamed(3)]);
    }

    #[test]
    fn what_is_meant_for_another_process_is_not_taken() {
        for variables in [
            &[][..],
            &[("LISTEN_FDS", "1")],
            &[("LISTEN_PID", "42")],
            &[("LISTEN_PID", "41"), ("LISTEN_FDS", "1")],
            &[("LISTEN_PID", "42"), ("LISTEN_FDS", "0")],
        ] {
            assert_eq!(passed_by(variables).unwrap(), [], "{variables:?}");
        }
    }

    #[test]
    fn malformed_variables_are_refused_by_name() {
        for (pid, fds, name) in [
            ("x", "1", "LISTEN_PID"),
            ("-1", "1", "LISTEN_PID"),
            ("42", "x", "LISTEN_FDS"),
            ("42", "-1", "LISTEN_FDS"),
            ("42", "99999999", "LISTEN_FDS"),
        ] {
            let error = passed_by(&[("LISTEN_PID", pid), ("LISTEN_FDS", fds)]).unwrap_err();
            assert_eq!(error.exit(), Exit::Config);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn a_tcp_listener_is_adopted_and_prepared() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let listener = adopt(&inherited(&socket)).unwrap();
        assert_eq!(listener.kind(), &Kind::Tcp { addr });
        assert_eq!(listener.name(), format!("http://{addr}"));
        let status = OFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFL).unwrap());
        assert!(status.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        assert!(getsockopt(&listener, sockopt::TcpNoDelay).unwrap());
    }

    #[test]
    fn the_file_of_an_adopted_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path("a.sock");
        let socket = UnixListener::bind(&path).unwrap();
        let before = std::fs::metadata(&path).unwrap().permissions();
        let listener = adopt(&inherited(&socket)).unwrap();
        assert_eq!(listener.kind(), &Kind::Unix { path: path.clone() });
        listener.close_and_unlink().unwrap();
        drop(adopt(&inherited(&socket)).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions(), before);
    }

    #[test]
    fn what_cannot_be_accepted_from_is_refused_with_the_reason() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        let (accepted, _) = listening.accept().unwrap();
        let flags = SockFlag::SOCK_CLOEXEC;
        let unbound = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        for (passed, reason) in [
            (inherited(&file), "it is not a socket"),
            (inherited(&datagram), "it is not a stream socket"),
            (inherited(&connection), "Accept=no"),
            (inherited(&accepted), "Accept=no"),
            (inherited(&unbound), "it is not listening"),
            (Passed::unnamed(i32::MAX), "nothing is open there"),
            (Passed::unnamed(listening.as_raw_fd()), "not inherited"),
        ] {
            let message = refused(&passed);
            assert!(message.contains(reason), "{message}");
        }
        // Not closed by the last refusal.
        TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    }

    #[test]
    fn a_refusal_names_the_descriptor_as_its_sender_did() {
        let passed = Passed {
            fd: i32::MAX,
            label: Some("web".to_owned()),
        };
        let start = format!("cannot use descriptor {} (web): ", i32::MAX);
        assert!(refused(&passed).starts_with(&start));
    }
}
