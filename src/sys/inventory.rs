//! What descriptors this process has and what is behind them, whoever opened them.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    sockopt,
};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::uio::pread;

/// One descriptor of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub fd: RawFd,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A stream (or sequenced packet) socket with somebody at the other end.
    Connection {
        local: Address,
        peer: Address,
    },
    /// A stream socket that waits for connections.
    Listener {
        local: Address,
    },
    SqliteFile {
        path: PathBuf,
    },
}

/// Either end of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Inet(SocketAddr),
    /// Also `@name`, an abstract one.
    Unix(PathBuf),
    /// A Unix socket without a name, such as both ends of a pair.
    Unnamed,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Unnamed => f.write_str("an unnamed socket"),
        }
    }
}

/// The descriptors of a moment, to find what was opened after it.
#[derive(Debug)]
pub struct Inventory(HashMap<RawFd, (u64, u64)>);

impl Inventory {
    pub fn take() -> Self {
        Self(identities().collect())
    }

    /// What has been opened since and is still open, in the order of the numbers. Datagram sockets
    /// are left out: their messages stay whole, whoever sends them.
    pub fn opened_since(&self) -> Vec<Open> {
        let is_new = |&(fd, identity): &(RawFd, _)| self.0.get(&fd) != Some(&identity);
        let mut found: Vec<Open> = identities()
            .filter(is_new)
            .filter_map(|(fd, _)| {
                let what = examine(fd)?;
                Some(Open { fd, what })
            })
            .collect();
        found.sort_by_key(|open| open.fd);
        found
    }
}

/// All descriptors, with device and inode of what they refer to.
fn identities() -> impl Iterator<Item = (RawFd, (u64, u64))> {
    let listed: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    listed.into_iter().filter_map(|fd| {
        let stat = fstat(borrow(fd)).ok()?;
        Some((fd, (stat.st_dev, stat.st_ino)))
    })
}

/// For one system call: the number may be closed by then, which gives EBADF.
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: not -1, as it was listed in /proc/self/fd. The borrow ends with the system call it is
    // passed to, which only reads properties: on a number that has been closed meanwhile it fails.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn examine(fd: RawFd) -> Option<What> {
    let mode = SFlag::from_bits_truncate(fstat(borrow(fd)).ok()?.st_mode);
    match mode & SFlag::S_IFMT {
        SFlag::S_IFSOCK => socket(fd),
        SFlag::S_IFREG => sqlite_file(fd),
        _ => None,
    }
}

fn socket(fd: RawFd) -> Option<What> {
    let kind = getsockopt(&borrow(fd), sockopt::SockType).ok()?;
    if kind == SockType::Datagram {
        return None;
    }
    let local = address(&getsockname(fd).ok()?)?;
    if getsockopt(&borrow(fd), sockopt::AcceptConn).unwrap_or(false) {
        return Some(What::Listener { local });
    }
    let peer = address(&getpeername(fd).ok()?)?;
    Some(What::Connection { local, peer })
}

fn address(storage: &SockaddrStorage) -> Option<Address> {
    match storage.family()? {
        AddressFamily::Inet => {
            let address = storage.as_sockaddr_in()?;
            Some(Address::Inet(std::net::SocketAddrV4::from(*address).into()))
        }
        AddressFamily::Inet6 => {
            let address = storage.as_sockaddr_in6()?;
            Some(Address::Inet(std::net::SocketAddrV6::from(*address).into()))
        }
        AddressFamily::Unix => {
            let address = storage.as_unix_addr()?;
            let name = address.as_abstract().map(String::from_utf8_lossy);
            Some(match (address.path(), name) {
                (Some(path), _) => Address::Unix(path.to_owned()),
                (None, Some(name)) => Address::Unix(Path::new(&format!("@{name}")).to_owned()),
                (None, None) => Address::Unnamed,
            })
        }
        _ => None,
    }
}

/// The header says it, see "Database File Format" of SQLite. Read through the descriptor itself:
/// to open the file anew and close it would release the locks of this process (fcntl(2)).
fn sqlite_file(fd: RawFd) -> Option<What> {
    let mut header = [0; 16];
    let read = pread(borrow(fd), &mut header, 0).ok()?;
    if read < header.len() || header != *b"SQLite format 3\0" {
        return None;
    }
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    Some(What::SqliteFile { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn finds_what_was_opened_since_and_nothing_else() {
        let before = TcpListener::bind("127.0.0.1:0").unwrap();
        let inventory = Inventory::take();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let (left, _right) = UnixStream::pair().unwrap();
        let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
        let path = std::env::temp_dir().join(format!("rswsgi-sqlite-{}", std::process::id()));
        let mut database = fs::File::options();
        let database = database.read(true).write(true).create(true).truncate(true);
        let mut database = database.open(&path).unwrap();
        database.write_all(b"SQLite format 3\0rest").unwrap();
        fs::remove_file(&path).unwrap();
        // Other tests of this process open sockets too.
        let found = inventory.opened_since();
        let of = |fd: RawFd| {
            let mut all = found.iter().filter(|open| open.fd == fd);
            all.next().map(|open| open.what.clone())
        };
        assert_eq!(of(before.as_raw_fd()), None);
        assert_eq!(of(datagram.as_raw_fd()), None);
        let local = Address::Inet(address);
        assert_eq!(of(listener.as_raw_fd()), Some(What::Listener { local }));
        let local = Address::Inet(stream.local_addr().unwrap());
        let peer = Address::Inet(address);
        assert_eq!(
            of(stream.as_raw_fd()),
            Some(What::Connection { local, peer })
        );
        let (local, peer) = (Address::Unnamed, Address::Unnamed);
        assert_eq!(of(left.as_raw_fd()), Some(What::Connection { local, peer }));
        let database = of(database.as_raw_fd());
        assert!(
            matches!(database, Some(What::SqliteFile { .. })),
            "{database:?}"
        );
    }
}
