//! A listening socket and what is known about it: where it listens, and whether a file goes with it.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::adopt::{Passed, adopt, listener};
use super::was;
use crate::config::ProxyProtocol;
use crate::error::{Error, Exit, Result};
use crate::sys::diag::Diag;
use crate::sys::socket::{Backlog, tcp_backlog};

/// A stream socket in the listening state, non-blocking and close-on-exec. Dropping it removes the
/// socket file it was bound to, if that is still the same file.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    name: String,
    kind: Kind,
    file: Option<SocketFile>,
    /// The same, while another process is to go on listening.
    kept_file: Option<SocketFile>,
    origin: Origin,
    proxy_protocol: ProxyProtocol,
}

/// Who has bound the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    #[default]
    Bound,
    /// Whoever started this process, and keeps it when this process has gone.
    Passed,
}

/// What the socket listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Tcp {
        addr: SocketAddr,
    },
    Unix {
        path: PathBuf,
    },
    UnixAbstract {
        name: String,
    },
    /// For WAS clients: of each client comes a socket of the kind [`Door::Multi`].
    WasListener {
        path: String,
    },
    /// No listener: a socket out of which WAS connections come.
    Was(Door),
}

/// Who puts WAS connections into the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// The supervisor has put the only one into it.
    Single,
    /// The client.
    Multi,
    /// The supervisor, for the clients that connect to this path.
    Remote { path: String },
}

/// A listener as one process describes it to another that inherits the descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSpec {
    pub fd: RawFd,
    pub kind: Kind,
    pub name: String,
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
}

/// A listener as one program describes it to the next in the same process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedListener {
    pub spec: ListenerSpec,
    file: Option<SocketFile>,
    #[serde(default)]
    origin: Origin,
}

impl Kind {
    /// `http://127.0.0.1:8000`, `unix:/run/a.sock`, `unix:@name`.
    fn describe(&self) -> String {
        match self {
            Kind::Tcp { addr } => format!("http://{addr}"),
            Kind::Unix { path } => format!("unix:{}", path.display()),
            Kind::UnixAbstract { name } => format!("unix:@{name}"),
            Kind::WasListener { path } => format!("was:{path}"),
            Kind::Was(Door::Single) => "one WAS connection".into(),
            Kind::Was(Door::Multi) => "Multi-WAS".into(),
            Kind::Was(Door::Remote { path }) => format!("was:{path}"),
        }
    }
}

impl Listener {
    pub(super) fn new(fd: OwnedFd, kind: Kind, file: Option<SocketFile>) -> Listener {
        Listener {
            fd,
            name: kind.describe(),
            kind,
            file,
            kept_file: None,
            origin: Origin::Bound,
            proxy_protocol: ProxyProtocol::Off,
        }
    }

    /// Connections that wait to be accepted, where the kernel tells.
    pub fn backlog(&self, diag: Option<&Diag>) -> Option<Backlog> {
        match self.kind {
            Kind::Tcp { .. } => tcp_backlog(self.as_fd()),
            // Connections wait in it as messages; the kernel does not say how many.
            Kind::Was(_) => None,
            Kind::Unix { .. } | Kind::UnixAbstract { .. } | Kind::WasListener { .. } => {
                diag.and_then(|diag| diag.unix_backlog(self.as_fd()).ok())
            }
        }
    }

    pub(super) fn speaking(mut self, proxy_protocol: ProxyProtocol) -> Listener {
        self.proxy_protocol = proxy_protocol;
        self
    }

    /// Whether its connections begin with a header of the PROXY protocol.
    pub fn proxy_protocol(&self) -> ProxyProtocol {
        self.proxy_protocol
    }

    pub(super) fn passed(fd: OwnedFd, kind: Kind) -> Listener {
        let mut listener = Listener::new(fd, kind, None);
        listener.origin = Origin::Passed;
        listener
    }

    /// One that this program has bound in an earlier life, and the service manager has kept.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        self.origin = Origin::Bound;
        match &self.kind {
            Kind::Unix { path } => self.file = Some(SocketFile::new(path)?),
            Kind::WasListener { path } if !path.starts_with('@') => {
                self.file = Some(SocketFile::new(Path::new(path))?);
            }
            _ => {}
        }
        Ok(())
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Takes over the listener another process described; the descriptor is inherited. The
    /// description is checked against the socket, the socket file stays the other's.
    pub fn inherit(spec: &ListenerSpec) -> Result<Listener> {
        match &spec.kind {
            Kind::Was(door) => was::claim_door(spec.fd, door.clone()),
            _ => adopt(&Passed::unnamed(spec.fd))?.check(spec),
        }
    }

    fn check(self, spec: &ListenerSpec) -> Result<Listener> {
        if self.kind != spec.kind {
            let message = format!("descriptor {} is {}, not {}", spec.fd, self.name, spec.name);
            return Err(Error::new(Exit::Internal, message));
        }
        Ok(self.speaking(spec.proxy_protocol))
    }

    /// The description for a process that inherits the descriptor under the same number; whoever
    /// starts it clears FD_CLOEXEC in the child.
    pub fn spec(&self) -> ListenerSpec {
        ListenerSpec {
            fd: self.fd.as_raw_fd(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            proxy_protocol: self.proxy_protocol,
        }
    }

    /// The description for the program that replaces this one in the same process.
    pub fn hand_over(&self) -> HandedListener {
        HandedListener {
            spec: self.spec(),
            file: self.file.clone(),
            origin: self.origin,
        }
    }

    /// Takes over a duplicate of a listener of the program that this process executed before. The
    /// socket file is not ours before [`Listener::own_file`].
    pub fn resume(handed: &HandedListener, fd: OwnedFd) -> Result<Listener> {
        if let Kind::Was(door) = &handed.spec.kind {
            return was::door(fd, door.clone());
        }
        let mut listener = listener(fd, &Passed::unnamed(handed.spec.fd))?;
        listener.origin = handed.origin;
        listener.check(&handed.spec)
    }

    pub fn own_file(&mut self, handed: &HandedListener) {
        self.file.clone_from(&handed.file);
    }

    /// Where clients find it, for people: `http://127.0.0.1:8000` or `unix:/run/a.sock`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connections that come out of it have three descriptors.
    pub fn speaks_was(&self) -> bool {
        matches!(self.kind, Kind::Was(_))
    }

    /// When its only connection is over, so is the server.
    pub fn gives_one_only(&self) -> bool {
        self.kind == Kind::Was(Door::Single)
    }

    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Leaves the socket file behind when dropped: another process goes on listening.
    pub fn keep_file(&mut self) {
        if let Some(file) = self.file.take() {
            self.kept_file = Some(file);
        }
    }

    /// Nobody else is to listen there after all: the file goes with the socket.
    pub fn take_back_file(&mut self) {
        self.file = self.file.take().or(self.kept_file.take());
    }

    /// Closes the socket after its file is gone, so that no client finds one without the other.
    ///
    /// # Errors
    /// Those of unlink(2); a file that is gone already or is no longer ours is none.
    pub fn close_and_unlink(mut self) -> Result<()> {
        self.unlink()
            .map_err(|error| Error::io(format_args!("cannot remove {}", self.name), &error))
    }

    fn unlink(&mut self) -> io::Result<()> {
        match self.file.take() {
            Some(file) => file.remove(),
            None => Ok(()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nobody is left to be told; `close_and_unlink` is there for who wants to know.
        let _ = self.unlink();
    }
}

/// The file a Unix socket was bound to, told from a successor under the same name by its inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// A forked child has a copy of this; the file is its parent's.
    owner: u32,
}

impl SocketFile {
    /// The socket at `path`, just bound.
    pub(super) fn new(path: &Path) -> io::Result<SocketFile> {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.file_type().is_socket() {
            return Err(io::Error::other("it was replaced by another file"));
        }
        Ok(SocketFile {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            owner: std::process::id(),
        })
    }

    /// Removes the file if it is still the one that was bound, and this the process that did.
    pub(super) fn remove(&self) -> io::Result<()> {
        if self.owner != std::process::id() {
            return Ok(());
        }
        let removed = fs::symlink_metadata(&self.path).and_then(|metadata| {
            let ours = metadata.dev() == self.device && metadata.ino() == self.inode;
            match ours {
                true => fs::remove_file(&self.path),
                false => Ok(()),
            }
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_listener_described_to_another_process_is_taken_over_there() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let mut spec = Listener::new(socket.into(), Kind::Tcp { addr }, None).spec();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ListenerSpec>(&json).unwrap(), spec);

        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        spec.fd = nix::unistd::dup(&other).unwrap().into_raw_fd();
        let error = Listener::inherit(&spec).unwrap_err();
        assert!(error.to_string().contains(&spec.name), "{error}");

        spec.fd = nix::unistd::dup(&other).unwrap().into_raw_fd();
        spec.kind = Kind::Tcp {
            addr: other.local_addr().unwrap(),
        };
        assert_eq!(Listener::inherit(&spec).unwrap().kind(), &spec.kind);
    }

    #[test]
    fn names_are_what_a_client_would_use() {
        let tcp = |addr: &str| Kind::Tcp {
            addr: addr.parse().unwrap(),
        };
        assert_eq!(tcp("127.0.0.1:80").describe(), "http://127.0.0.1:80");
        assert_eq!(tcp("[::1]:80").describe(), "http://[::1]:80");
        let path = PathBuf::from("/run/a.sock");
        assert_eq!(Kind::Unix { path }.describe(), "unix:/run/a.sock");
        let name = "a".to_owned();
        assert_eq!(Kind::UnixAbstract { name }.describe(), "unix:@a");
    }
}
