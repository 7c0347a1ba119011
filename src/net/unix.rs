//! Unix listeners, with a file or in the abstract namespace.
//!
//! The file is bound under its own name, not under a temporary one that is renamed: the name given
//! to bind(2) is what `ss` and getsockname(2) show for ever. It never has wider permissions than it
//! ends up with, because it is created without any. A file left behind by a dead server is replaced;
//! one that somebody listens on, or that is no socket, is not. Two starts at the same time are kept
//! apart by a lock on the directory, which leaves no lock file behind.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

use super::access::Access;
use super::listener::{Kind, Listener, SocketFile};
use super::{Kept, backlog_of};
use crate::config::SOCKET_PATH_LENGTH;
use crate::error::{Error, Exit, Result};

/// How long a start waits for another one in the same directory: 100 times 10 ms. A stranger who may
/// read the directory could hold the lock for ever, so after that the start goes on without it.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What is spoken on a socket decides about its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Was,
}

impl Protocol {
    fn kind_of_path(self, path: &Path) -> Kind {
        match self {
            Protocol::Http => Kind::Unix {
                path: path.to_owned(),
            },
            Protocol::Was => Kind::WasListener {
                path: path.to_string_lossy().into_owned(),
            },
        }
    }

    fn socket(self) -> nix::Result<OwnedFd> {
        match self {
            Protocol::Http => stream_socket(),
            Protocol::Was => unix_socket(SockType::SeqPacket),
        }
    }
}

#[cfg(test)]
fn bind_path(path: &Path, access: &Access, backlog: u32, kept: &mut Kept) -> Result<Listener> {
    bind_path_for(Protocol::Http, path, access, backlog, kept)
}

pub(super) fn bind_path_for(
    protocol: Protocol,
    path: &Path,
    access: &Access,
    backlog: u32,
    kept: &mut Kept,
) -> Result<Listener> {
    let failed = |errno| refused(path, errno);
    let kind = protocol.kind_of_path(path);
    if let Some(listener) = kept.take(&kind) {
        access.grant(path)?;
        listen(&listener, backlog_of(backlog)).map_err(failed)?;
        return Ok(listener);
    }
    let address = UnixAddr::new(path).map_err(failed)?;
    let _lock = lock(path.parent().unwrap_or(Path::new("/")));
    remove_stale(path, &address)?;

    let fd = protocol.socket().map_err(failed)?;
    // Linux creates the file with the mode of the socket, less the umask: none, until it is ours.
    fchmod(&fd, Mode::empty()).map_err(failed)?;
    bind(fd.as_raw_fd(), &address).map_err(failed)?;
    let file = SocketFile::new(path)
        .map_err(|error| Error::io(format_args!("cannot bind unix:{}", path.display()), &error))?;
    // From here on a failure drops the listener and with it the file.
    let listener = Listener::new(fd, kind, Some(file));
    access.grant(path)?;
    listen(&listener, backlog_of(backlog)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
fn bind_abstract(name: &str, backlog: u32, kept: &mut Kept) -> Result<Listener> {
    bind_abstract_for(Protocol::Http, name, backlog, kept)
}

pub(super) fn bind_abstract_for(
    protocol: Protocol,
    name: &str,
    backlog: u32,
    kept: &mut Kept,
) -> Result<Listener> {
    let kind = match protocol {
        Protocol::Http => Kind::UnixAbstract {
            name: name.to_owned(),
        },
        Protocol::Was => Kind::WasListener {
            path: format!("@{name}"),
        },
    };
    let shown = PathBuf::from(format!("@{name}"));
    let failed = |errno| refused(&shown, errno);
    if let Some(listener) = kept.take(&kind) {
        listen(&listener, backlog_of(backlog)).map_err(failed)?;
        return Ok(listener);
    }
    let address = UnixAddr::new_abstract(name.as_bytes()).map_err(failed)?;
    let fd = protocol.socket().map_err(failed)?;
    bind(fd.as_raw_fd(), &address).map_err(failed)?;
    listen(&fd, backlog_of(backlog)).map_err(failed)?;
    Ok(Listener::new(fd, kind, None))
}

fn stream_socket() -> nix::Result<OwnedFd> {
    unix_socket(SockType::Stream)
}

fn unix_socket(kind: SockType) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, kind, flags, None)
}

fn lock(directory: &Path) -> Option<Flock<File>> {
    // A missing directory is reported by bind(2); one that may not be read is not locked.
    let mut file = File::open(directory).ok()?;
    for _ in 0..LOCK_ATTEMPTS {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
            Err(_) => return None,
        };
        sleep(LOCK_PAUSE);
    }
    None
}

/// Removes the socket of a server that is gone: one that refuses connections.
fn remove_stale(path: &Path, address: &UnixAddr) -> Result<()> {
    let shown = path.display();
    let Ok(metadata) = fs::symlink_metadata(path) else {
        // Absent, or out of reach: bind(2) will tell.
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        let message =
            format!("cannot bind unix:{shown}: a file that is not a socket is in the way");
        return Err(Error::new(Exit::Config, message));
    }
    let probe = stream_socket().map_err(|errno| refused(path, errno))?;
    match connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => {}
        Err(Errno::ENOENT) => return Ok(()),
        // EAGAIN: the backlog is full; EPROTOTYPE: it is not a stream socket.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => {
            let message = format!("cannot bind unix:{shown}: another process is listening on it");
            let error = Error::new(Exit::Unavailable, message);
            return Err(error.advise(format_args!("ss -lxp src {shown} tells which")));
        }
        Err(errno) => {
            let doing = format_args!("cannot find out whether unix:{shown} is in use");
            return Err(Error::os(doing, errno));
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let doing = format_args!("cannot remove the stale socket {shown}");
            Err(Error::io(doing, &error))
        }
        _ => Ok(()),
    }
}

fn refused(path: &Path, errno: Errno) -> Error {
    let error = Error::os(format_args!("cannot bind unix:{}", path.display()), errno);
    match errno {
        Errno::ENAMETOOLONG => Error::new(
            Exit::Config,
            format!("{error}; a Unix socket takes {SOCKET_PATH_LENGTH} bytes"),
        ),
        Errno::ENOENT => error.advise("create its directory (RuntimeDirectory= in a systemd unit)"),
        Errno::EACCES => error.advise("the directory must be writable for this user"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::access::DEFAULT_MODE;
    use crate::net::tests::directory;
    use nix::sys::socket::{Backlog, getsockname};
    use nix::unistd::Uid;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::sync::Barrier;

    fn plain() -> Access {
        Access::new(None, None, None).unwrap()
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_has_the_mode_that_was_asked_for() {
        let directory = directory();
        for (mode, expected) in [
            (None, DEFAULT_MODE),
            (Some(0o600), 0o600),
            (Some(0o666), 0o666),
        ] {
            let path = directory.path("a.sock");
            let access = Access::new(mode, None, None).unwrap();
            let _listener = bind_path(&path, &access, 16, &mut Kept::default()).unwrap();
            assert_eq!(mode_of(&path), expected);
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn the_kernel_creates_the_file_with_the_mode_of_the_socket() {
        let directory = directory();
        let path = directory.path("a.sock");
        let fd = stream_socket().unwrap();
        fchmod(&fd, Mode::empty()).unwrap();
        bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert_eq!(mode_of(&path), 0);
    }

    #[test]
    fn the_kernel_knows_the_socket_by_its_own_name() {
        let directory = directory();
        let path = directory.path("a.sock");
        let listener = bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap();
        let fd = std::os::fd::AsFd::as_fd(&listener).as_raw_fd();
        let address: UnixAddr = getsockname(fd).unwrap();
        assert_eq!(address.path(), Some(path.as_path()));
        assert_eq!(listener.name(), format!("unix:{}", path.display()));
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let directory = directory();
        let path = directory.path("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_somebody_listens_on_is_left_alone() {
        let directory = directory();
        let path = directory.path("a.sock");
        let other = UnixListener::bind(&path).unwrap();
        let error = bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Unavailable);
        assert!(
            error.to_string().contains("another process is listening"),
            "{error}"
        );
        other.accept().unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_listener_with_a_full_queue_is_not_stale() {
        let directory = directory();
        let path = directory.path("a.sock");
        let address = UnixAddr::new(&path).unwrap();
        let busy = stream_socket().unwrap();
        bind(busy.as_raw_fd(), &address).unwrap();
        listen(&busy, Backlog::new(0).unwrap()).unwrap();
        let mut clients = Vec::new();
        loop {
            let client = stream_socket().unwrap();
            match connect(client.as_raw_fd(), &address) {
                Ok(()) => clients.push(client),
                Err(errno) => break assert_eq!(errno, Errno::EAGAIN),
            }
        }
        let error = bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Unavailable, "{error}");
    }

    #[test]
    fn what_is_not_a_stream_socket_is_not_replaced() {
        let directory = directory();
        let (file, link, datagram) = (
            directory.path("file"),
            directory.path("link"),
            directory.path("datagram"),
        );
        fs::write(&file, "precious").unwrap();
        symlink("nowhere", &link).unwrap();
        let _datagram = UnixDatagram::bind(&datagram).unwrap();
        for (path, exit) in [
            (&file, Exit::Config),
            (&link, Exit::Config),
            (&datagram, Exit::Unavailable),
        ] {
            let before = fs::symlink_metadata(path).unwrap().ino();
            let error = bind_path(path, &plain(), 16, &mut Kept::default()).unwrap_err();
            assert_eq!(error.exit(), exit, "{error}");
            assert_eq!(fs::symlink_metadata(path).unwrap().ino(), before);
        }
    }

    #[test]
    fn of_many_starts_at_once_exactly_one_gets_the_socket() {
        const STARTS: usize = 8;
        let directory = directory();
        for round in 0..20 {
            let path = directory.path(&format!("{round}.sock"));
            if round % 2 == 0 {
                drop(UnixListener::bind(&path).unwrap());
            }
            let barrier = Barrier::new(STARTS);
            let start = || {
                barrier.wait();
                bind_path(&path, &plain(), 16, &mut Kept::default())
            };
            let results: Vec<_> = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(start)).collect();
                starts
                    .into_iter()
                    .map(|start| start.join().unwrap())
                    .collect()
            });
            let winners = results.iter().filter(|result| result.is_ok()).count();
            assert_eq!(winners, 1, "{results:?}");
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                assert_eq!(error.exit(), Exit::Unavailable, "{error}");
            }
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn a_lock_held_by_a_stranger_does_not_stop_the_start() {
        let directory = directory();
        let path = directory.path("a.sock");
        let _held = lock(path.parent().unwrap()).unwrap();
        bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap();
    }

    #[test]
    fn the_file_goes_with_the_listener() {
        let directory = directory();
        let path = directory.path("a.sock");
        drop(bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap());
        assert!(!path.exists());
        bind_path(&path, &plain(), 16, &mut Kept::default())
            .unwrap()
            .close_and_unlink()
            .unwrap();
        assert!(!path.exists());
        let mut listener = bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap();
        listener.keep_file();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let directory = directory();
        let path = directory.path("a.sock");
        let listener = bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap();
        // Made before the first is gone, so that it cannot get the same inode.
        let successor = directory.path("b.sock");
        let _successor = UnixListener::bind(&successor).unwrap();
        fs::rename(&successor, &path).unwrap();
        listener.close_and_unlink().unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_gone_already_is_no_error() {
        let directory = directory();
        let path = directory.path("a.sock");
        let listener = bind_path(&path, &plain(), 16, &mut Kept::default()).unwrap();
        fs::remove_file(&path).unwrap();
        listener.close_and_unlink().unwrap();
    }

    #[test]
    fn a_failure_after_the_bind_leaves_no_file() {
        if Uid::effective().is_root() {
            return;
        }
        let directory = directory();
        let path = directory.path("a.sock");
        let access = Access::new(None, Some("0"), None).unwrap();
        let error = bind_path(&path, &access, 16, &mut Kept::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::NoPermission);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_cannot_be_bound_says_why() {
        let directory = directory();
        let long = directory.path(&"x".repeat(SOCKET_PATH_LENGTH));
        let error = bind_path(&long, &plain(), 16, &mut Kept::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Config);
        assert!(error.to_string().contains("107 bytes"), "{error}");
        let error = bind_path(
            &directory.path("no/a.sock"),
            &plain(),
            16,
            &mut Kept::default(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("RuntimeDirectory="), "{error}");
    }

    #[test]
    fn an_abstract_name_has_no_file_and_one_owner() {
        let name = format!("rswsgi-test-{}", std::process::id());
        let listener = bind_abstract(&name, 16, &mut Kept::default()).unwrap();
        assert_eq!(listener.name(), format!("unix:@{name}"));
        let error = bind_abstract(&name, 16, &mut Kept::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Unavailable);
        drop(listener);
        bind_abstract(&name, 16, &mut Kept::default()).unwrap();
    }
}
