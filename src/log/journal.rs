//! journald's native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): one datagram per entry,
//! with its level, and all lines of a traceback together.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::writer::Sink;
use super::{Entry, PATIENCE};

const SOCKET: &str = "/run/systemd/journal/socket";
/// Names another socket, where standard error is the journal.
const SOCKET_VARIABLE: &str = "RSWSGI_JOURNAL_SOCKET";
/// The longest message; a datagram takes more than twice as much (`net.core.wmem_default`).
const LONGEST: usize = 64 * 1024;

pub struct Journal {
    path: PathBuf,
    socket: Mutex<Option<UnixDatagram>>,
}

impl Journal {
    pub fn new(path: Option<PathBuf>) -> Self {
        Self {
            path: path.unwrap_or_else(|| SOCKET.into()),
            socket: Mutex::new(None),
        }
    }

    /// The journal, if `$JOURNAL_STREAM` says that standard error leads to it (systemd.exec(5)).
    pub fn behind_stderr() -> Option<Self> {
        let named = std::env::var("JOURNAL_STREAM").ok()?;
        let (device, inode) = named.split_once(':')?;
        let stderr = nix::sys::stat::fstat(io::stderr().as_fd()).ok()?;
        let same = device.parse() == Ok(stderr.st_dev) && inode.parse() == Ok(stderr.st_ino);
        same.then(|| Self::new(std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from)))
    }

    pub fn send(&self, entry: &Entry) -> io::Result<()> {
        self.send_bytes(&datagram(entry))
    }

    fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let Ok(mut socket) = self.socket.lock() else {
            return Err(io::ErrorKind::Other.into());
        };
        // Once more after a restart of journald.
        for _ in 0..2 {
            let connected = match socket.take() {
                Some(connected) => connected,
                None => {
                    let new = UnixDatagram::unbound()?;
                    new.set_nonblocking(true)?;
                    new.connect(&self.path)?;
                    new
                }
            };
            let mut sent = connected.send(bytes);
            if let Err(error) = &sent
                && error.kind() == io::ErrorKind::WouldBlock
            {
                let mut fds = [PollFd::new(connected.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::from(PATIENCE));
                sent = connected.send(bytes);
            }
            match sent {
                Ok(_) => {
                    *socket = Some(connected);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *socket = Some(connected);
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }
}

fn datagram(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entry.text.len() + 200);
    let text = &entry.text[..entry.text.floor_char_boundary(LONGEST)];
    field(&mut bytes, "MESSAGE", text);
    field(&mut bytes, "PRIORITY", &entry.level.priority().to_string());
    field(&mut bytes, "SYSLOG_IDENTIFIER", "rswsgi");
    if entry.pid > 0 {
        field(&mut bytes, "SYSLOG_PID", &entry.pid.to_string());
    }
    field(&mut bytes, "RSWSGI_WHO", &entry.who);
    if let Some(app) = entry.app() {
        field(&mut bytes, "RSWSGI_APP", app);
    }
    bytes
}

fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    match value.contains('\n') {
        false => bytes.push(b'='),
        true => {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

impl Sink for Journal {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.send(entry)
    }

    fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(lines);
        for line in text.lines() {
            let mut bytes = Vec::with_capacity(line.len() + 80);
            let line = &line[..line.floor_char_boundary(LONGEST)];
            field(&mut bytes, "MESSAGE", line);
            field(&mut bytes, "PRIORITY", "6");
            field(&mut bytes, "SYSLOG_IDENTIFIER", "rswsgi-access");
            self.send_bytes(&bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::form::tests::entry;

    #[test]
    fn several_lines_are_one_field_with_its_length() {
        let bytes = datagram(&entry("one\ntwo"));
        let start = [
            &b"MESSAGE\n"[..],
            &7u64.to_le_bytes(),
            b"one\ntwo\nPRIORITY=4\n",
        ]
        .concat();
        assert!(bytes.starts_with(&start), "{bytes:?}");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("\nRSWSGI_APP=shop\n"), "{text}");
        assert!(datagram(&entry("one")).starts_with(b"MESSAGE=one\nPRIORITY=4\n"));
    }

    #[test]
    fn finds_a_journal_that_was_restarted() {
        let path = std::env::temp_dir().join(format!("rswsgi-journal-{}", std::process::id()));
        let journal = Journal::new(Some(path.clone()));
        assert!(journal.send(&entry("nobody")).is_err());
        for _ in 0..2 {
            let server = UnixDatagram::bind(&path).unwrap();
            journal.send(&entry("hello")).unwrap();
            let mut buffer = [0; 1000];
            let length = server.recv(&mut buffer).unwrap();
            assert!(buffer[..length].starts_with(b"MESSAGE=hello\n"));
            drop(server);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
