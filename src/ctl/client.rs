//! One connection to a control socket: a request line out, a reply line in, both in time.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use serde::de::DeserializeOwned;

use super::{Error, Exit, Result};
use crate::control::{Ping, Request, SCHEMA, Stats, Verb, read_reply};

/// No reply is as long; a server that goes on and on is none of ours.
const LONGEST_REPLY: usize = 64 << 20;

/// When an answer has to be there; `None`: whenever it comes.
pub type Deadline = Option<Instant>;

pub fn deadline(timeout: Option<Duration>) -> Deadline {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    /// Bytes after the last reply.
    pending: Vec<u8>,
}

impl Client {
    /// # Errors
    /// [`Exit::NoServer`] when nobody listens there, [`Exit::NoPermission`], [`Exit::TimedOut`] when
    /// the server does not accept, [`Exit::Failed`] for anything else.
    pub fn connect(path: &Path, deadline: Deadline) -> Result<Client> {
        let stream = connect(path, deadline).map_err(|errno| refused(path, errno))?;
        Ok(Client {
            stream,
            path: path.to_owned(),
            pending: Vec::new(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line that answers this request, with its line break.
    ///
    /// # Errors
    /// [`Exit::TimedOut`], or [`Exit::Failed`] when the connection ends before.
    pub fn ask(&mut self, request: &Request, deadline: Deadline) -> Result<Vec<u8>> {
        // A server that refuses the connection has answered and closed it before it was asked.
        match self.send(request.write().as_bytes(), deadline) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe) => {
                return Err(self.failed(&error));
            }
            _ => {}
        }
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.pending) {
                let rest = self.pending.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.pending, rest));
            }
            match self.receive(deadline) {
                Ok(0) => {
                    let path = self.path.display();
                    let message =
                        format!("the server behind {path} closed the connection without an answer");
                    return Err(Error::new(Exit::Failed, message));
                }
                // A front end, which is easily taken for it: it does not understand the request.
                Ok(_) if self.pending.starts_with(b"HTTP/") => {
                    let path = self.path.display();
                    let message = format!(
                        "{path} is a socket for clients of the application; the control socket is NAME.control"
                    );
                    return Err(Error::new(Exit::Failed, message));
                }
                Ok(_) if self.pending.len() <= LONGEST_REPLY => {}
                Ok(_) => {
                    let message = format!("the reply of {} does not end", self.path.display());
                    return Err(Error::new(Exit::Failed, message));
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// The answer to a question that concerns one app or all.
    pub fn get<T: DeserializeOwned>(
        &mut self,
        app: Option<&str>,
        verb: Verb,
        deadline: Deadline,
    ) -> Result<T> {
        let app = app.map(str::to_owned);
        let line = self.ask(&Request { app, verb }, deadline)?;
        Ok(read_reply(&line)?)
    }

    pub fn ping(&mut self, deadline: Deadline) -> Result<Ping> {
        self.get(None, Verb::Ping, deadline)
    }

    pub fn stats(&mut self, app: Option<&str>, deadline: Deadline) -> Result<Stats> {
        understood(self.get(app, Verb::Stats, deadline)?)
    }

    /// Waits until the server has closed the connection, or is gone.
    pub fn wait_end(&mut self, deadline: Deadline) -> Result<()> {
        loop {
            self.pending.clear();
            match self.receive(deadline) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    fn send(&mut self, bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        self.stream.set_write_timeout(left(deadline)?)?;
        self.stream.write_all(bytes)
    }

    fn receive(&mut self, deadline: Deadline) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        loop {
            self.stream.set_read_timeout(left(deadline)?)?;
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(length) => {
                    self.pending.extend_from_slice(&chunk[..length]);
                    return Ok(length);
                }
            }
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        let path = self.path.display();
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                let message = format!("the server behind {path} did not answer in time");
                Error::new(Exit::TimedOut, message)
            }
            _ => Error::new(Exit::Failed, format!("cannot talk over {path}: {error}")),
        }
    }
}

/// Statistics in which every field means what it means here.
///
/// # Errors
/// [`Exit::Failed`] when they are of another schema.
pub fn understood(stats: Stats) -> Result<Stats> {
    match stats.schema {
        SCHEMA => Ok(stats),
        other => {
            let version = super::show::escape(&stats.server.version);
            let message = format!(
                "the server speaks of statistics in schema {other}, this program in {SCHEMA}; \
                 use the rswsgictl of rswsgi {version}, or --json"
            );
            Err(Error::new(Exit::Failed, message))
        }
    }
}

/// What is left until the deadline, in the form of `SO_RCVTIMEO`, where zero would mean for ever.
fn left(deadline: Deadline) -> io::Result<Option<Duration>> {
    let Some(deadline) = deadline else {
        return Ok(None);
    };
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(Some(left.max(Duration::from_millis(1)))),
    }
}

/// `UnixStream::connect` with a time limit: where the queue of the listener is full, connect(2) waits
/// for as long as `SO_SNDTIMEO` says.
fn connect(path: &Path, deadline: Deadline) -> Result<UnixStream, Errno> {
    let address = UnixAddr::new(path)?;
    let socket: OwnedFd = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    loop {
        if let Some(left) = left(deadline).map_err(|_| Errno::ETIMEDOUT)? {
            let left = TimeVal::new(left.as_secs() as i64, i64::from(left.subsec_micros()));
            setsockopt(&socket, sockopt::SendTimeout, &left)?;
        }
        match socket::connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket.into()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn refused(path: &Path, errno: Errno) -> Error {
    let (exit, reason) = match errno {
        Errno::ENOENT => (Exit::NoServer, "it does not exist".to_owned()),
        Errno::ECONNREFUSED => (Exit::NoServer, "nobody listens there".to_owned()),
        Errno::ENOTDIR | Errno::ENOTSOCK => (Exit::NoServer, "it is no socket".to_owned()),
        Errno::EACCES | Errno::EPERM => (Exit::NoPermission, "no permission".to_owned()),
        Errno::EAGAIN | Errno::ETIMEDOUT => {
            (Exit::TimedOut, "the server takes no connection".to_owned())
        }
        errno => (Exit::Failed, errno.desc().to_owned()),
    };
    Error::new(
        exit,
        format!("cannot connect to {}: {reason}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("rswsgi-ctl-{}-{name}", std::process::id());
            Place(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn exit(path: &Path) -> Exit {
        let soon = deadline(Some(Duration::from_millis(50)));
        match Client::connect(path, soon) {
            Ok(mut client) => client.ping(soon).unwrap_err().exit,
            Err(error) => error.exit,
        }
    }

    #[test]
    fn what_is_not_there_is_told_from_what_does_not_answer() {
        let place = Place::new("states");
        assert_eq!(exit(&place.0), Exit::NoServer);
        let listener = UnixListener::bind(&place.0).unwrap();
        assert_eq!(exit(&place.0), Exit::TimedOut);
        drop(listener);
        assert_eq!(exit(&place.0), Exit::NoServer);
        let long = PathBuf::from("/x".repeat(200));
        assert_eq!(exit(&long), Exit::Failed);
    }

    #[test]
    fn a_full_queue_is_waited_for_no_longer_than_allowed() {
        let place = Place::new("queue");
        let listener = UnixListener::bind(&place.0).unwrap();
        let backlog = socket::Backlog::new(0).unwrap();
        socket::listen(&listener, backlog).unwrap();
        let _first = UnixStream::connect(&place.0).unwrap();
        assert_eq!(exit(&place.0), Exit::TimedOut);
    }

    /// What a server says that answers each line with these bytes and closes.
    fn answered(name: &str, bytes: &'static [u8]) -> Result<Ping> {
        let place = Place::new(name);
        let listener = UnixListener::bind(&place.0).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let late = deadline(Some(Duration::from_secs(30)));
        let mut client = Client::connect(&place.0, late).unwrap();
        let answer = client.ping(late);
        drop(client);
        server.join().unwrap();
        answer
    }

    #[test]
    fn a_refusal_keeps_its_meaning() {
        let denied = b"{\"ok\":false,\"kind\":\"no-permission\",\"error\":\"not \\u001b you\"}\n";
        let error = answered("denied", denied).unwrap_err();
        assert_eq!(
            (error.exit, error.message.as_str()),
            (Exit::NoPermission, "not \\x1b you")
        );
        let slow = b"{\"ok\":false,\"kind\":\"timed-out\",\"error\":\"x\"}\n";
        assert_eq!(answered("slow", slow).unwrap_err().exit, Exit::TimedOut);
        let failed =
            b"{\"ok\":false,\"kind\":\"failed\",\"error\":\"x\",\"traceback\":\"T\\nE\\n\"}\n";
        let error = answered("failed", failed).unwrap_err();
        assert_eq!(
            (error.exit, error.message.as_str()),
            (Exit::Failed, "x\nT\nE")
        );
    }

    #[test]
    fn an_earlier_server_is_understood_and_a_later_schema_is_not() {
        let stats = |schema| {
            let app = r#"{"name":"shop","workers":[{"slot":1}]}"#;
            let line = format!(r#"{{"ok":true,"schema":{schema},"apps":[{app}],"later":1}}"#);
            understood(read_reply(line.as_bytes()).unwrap())
        };
        assert_eq!(stats(SCHEMA).unwrap().apps[0].workers[0].slot, 1);
        assert_eq!(stats(SCHEMA + 1).unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn half_an_answer_is_none() {
        for (name, bytes) in [
            ("nothing", b"".as_slice()),
            ("half", b"{\"ok\":true"),
            ("strange", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ] {
            assert_eq!(
                answered(name, bytes).unwrap_err().exit,
                Exit::Failed,
                "{name}"
            );
        }
    }
}
