//! `sd_notify(3)` without libsystemd: one datagram to the socket that `$NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Where notifications go; made once, before the variable is removed from the environment.
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// `name` is the value of `$NOTIFY_SOCKET`: an absolute path, or `@` and an abstract name.
    pub fn new(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// Sends newline-separated assignments such as `READY=1`. A service manager that does not
    /// listen is no reason to stop serving, so the caller may only log the error.
    pub fn send(&self, state: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(state.as_bytes(), &self.address)
            .map(drop)
    }

    /// The same with a descriptor (`FDSTORE=1`).
    pub fn send_with(&self, state: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let address = match (self.address.as_pathname(), self.address.as_abstract_name()) {
            (Some(path), _) => UnixAddr::new(path)?,
            (None, name) => UnixAddr::new_abstract(name.unwrap_or_default())?,
        };
        let fds = [fd.as_raw_fd()];
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(state.as_bytes())],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            Some(&address),
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_an_abstract_socket() {
        let name = format!("rswsgi-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(OsStr::new(&format!("@{name}"))).unwrap();
        notifier.send("READY=1\nSTATUS=fine").unwrap();
        let mut buffer = [0; 64];
        let n = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1\nSTATUS=fine");
    }
}
