//! Clients of both protocols that ask again as soon as they are answered, in one thread. They check the
//! length of each answer.

use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, Read, Result, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

use crate::Workload;

/// As the production client makes its pipes.
const PIPE: i32 = 256 * 1024;

pub trait Client {
    /// Sends the next request.
    fn ask(&mut self) -> Result<()>;
    /// Where the answer comes from.
    fn watched(&self) -> [Option<BorrowedFd<'_>>; 2];
    /// Takes what is there. Whether the answer is complete.
    fn hear(&mut self, buffer: &mut [u8]) -> Result<bool>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Time,
    /// Each client has been answered once.
    AllAnswered,
}

/// Lets all clients ask until then; each has asked before. How many answers have come.
pub fn serve(
    clients: &mut [Box<dyn Client>],
    deadline: Instant,
    until: Until,
) -> std::result::Result<u64, String> {
    let mut buffer = vec![0; 256 * 1024];
    let mut answered = vec![0u64; clients.len()];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_done = until == Until::AllAnswered && answered.iter().all(|count| *count > 0);
        if left.is_zero() || is_done {
            return Ok(answered.iter().sum());
        }
        let mut fds = Vec::new();
        let mut owners = Vec::new();
        for (index, client) in clients.iter().enumerate() {
            for fd in client.watched().into_iter().flatten() {
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
                owners.push(index);
            }
        }
        let millis = left.min(Duration::from_secs(1)).as_millis();
        let timeout = PollTimeout::from(u16::try_from(millis).unwrap_or(1000));
        poll(&mut fds, timeout).map_err(|error| error.to_string())?;
        let ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let mut ready: Vec<usize> = owners
            .into_iter()
            .zip(ready)
            .filter_map(|(index, is_ready)| is_ready.then_some(index))
            .collect();
        ready.dedup();
        for index in ready {
            let client = &mut clients[index];
            if client
                .hear(&mut buffer)
                .map_err(|error| error.to_string())?
            {
                answered[index] += 1;
                client.ask().map_err(|error| error.to_string())?;
            }
        }
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::other(what.into())
}

/// `None`: nothing is there.
fn read(source: &mut impl Read, buffer: &mut [u8]) -> Result<Option<usize>> {
    match source.read(buffer) {
        Ok(0) => Err(wrong("the server has closed a connection")),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

pub struct Http {
    stream: UnixStream,
    request: Vec<u8>,
    answer: usize,
    head: Vec<u8>,
    /// Bytes of the body that are to come; `None` in the head.
    left: Option<usize>,
}

impl Http {
    pub fn connect(path: &Path, workload: &Workload) -> Result<Http> {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        let mut request = match workload.upload {
            0 => format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", workload.path),
            size => format!(
                "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n",
                workload.path
            ),
        }
        .into_bytes();
        request.resize(request.len() + workload.upload, b'x');
        Ok(Http {
            stream,
            request,
            answer: workload.answer,
            head: Vec::new(),
            left: None,
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(left) = &mut self.left {
            let rest = left.checked_sub(bytes.len());
            *left = rest.ok_or_else(|| wrong("more came than was announced"))?;
            return Ok(());
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(());
        };
        let head = String::from_utf8_lossy(&self.head[..end]).to_lowercase();
        let length = format!("\r\ncontent-length: {}", self.answer);
        if !head.starts_with("http/1.1 200 ")
            || !(head.clone() + "\r\n").contains(&(length + "\r\n"))
        {
            return Err(wrong(format!("not the right answer: {head}")));
        }
        let body = self.head.split_off(end + 4);
        self.left = Some(self.answer);
        self.head.clear();
        self.take(&body)
    }
}

impl Client for Http {
    fn ask(&mut self) -> Result<()> {
        self.left = None;
        match self.stream.write(&self.request)? {
            count if count == self.request.len() => Ok(()),
            count => Err(wrong(format!("the socket took {count} bytes only"))),
        }
    }

    fn watched(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [Some(self.stream.as_fd()), None]
    }

    fn hear(&mut self, buffer: &mut [u8]) -> Result<bool> {
        while self.left != Some(0) {
            match read(&mut self.stream, buffer)? {
                Some(count) => self.take(&buffer[..count])?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// The client's end of a Multi-WAS socket, and the server's.
pub fn multi() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        flags,
    )?)
}

const REQUEST: u16 = 1;
const METHOD: u16 = 2;
const URI: u16 = 3;
const HEADER: u16 = 7;
const STATUS: u16 = 9;
const NO_DATA: u16 = 10;
const DATA: u16 = 11;
const LENGTH: u16 = 12;

fn put(out: &mut Vec<u8>, command: u16, payload: &[u8]) {
    out.extend((payload.len() as u16).to_ne_bytes());
    out.extend(command.to_ne_bytes());
    out.extend(payload);
}

pub struct Was {
    control: UnixStream,
    upload: File,
    download: File,
    request: Vec<u8>,
    body: Vec<u8>,
    answer: u64,
    packets: Vec<u8>,
    /// Told by DATA, and by LENGTH.
    has_data: bool,
    length: Option<u64>,
    taken: u64,
}

impl Was {
    pub fn connect(multi: &OwnedFd, workload: &Workload) -> Result<Was> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let ((input, upload), (download, output)) = (pipe()?, pipe()?);
        for fd in [&upload, &download] {
            fcntl(fd, FcntlArg::F_SETPIPE_SZ(PIPE))?;
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let fds = [theirs.as_raw_fd(), input.as_raw_fd(), output.as_raw_fd()];
        let mut new = Vec::new();
        put(&mut new, 1, b"");
        let parts = [IoSlice::new(&new)];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(multi.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None)?;
        let mut request = Vec::new();
        put(&mut request, REQUEST, b"");
        if workload.upload > 0 {
            put(&mut request, METHOD, &3u32.to_ne_bytes());
        }
        put(&mut request, URI, workload.path.as_bytes());
        put(&mut request, HEADER, b"host=localhost");
        match workload.upload {
            0 => put(&mut request, NO_DATA, b""),
            size => {
                put(&mut request, DATA, b"");
                put(&mut request, LENGTH, &(size as u64).to_ne_bytes());
            }
        }
        Ok(Was {
            control,
            upload: upload.into(),
            download: download.into(),
            request,
            body: vec![b'x'; workload.upload],
            answer: workload.answer as u64,
            packets: Vec::new(),
            has_data: false,
            length: None,
            taken: 0,
        })
    }

    fn take_packet(&mut self, command: u16, payload: &[u8]) -> Result<()> {
        match command {
            STATUS if payload == 200u32.to_ne_bytes() => Ok(()),
            HEADER => Ok(()),
            DATA => {
                self.has_data = true;
                Ok(())
            }
            LENGTH if payload == self.answer.to_ne_bytes() => {
                self.length = Some(self.answer);
                Ok(())
            }
            other => Err(wrong(format!("not the right answer: packet {other}"))),
        }
    }

    fn hear_packets(&mut self, buffer: &mut [u8]) -> Result<()> {
        let Some(count) = read(&mut self.control, buffer)? else {
            return Ok(());
        };
        self.packets.extend_from_slice(&buffer[..count]);
        let packets = std::mem::take(&mut self.packets);
        let mut rest = &packets[..];
        while let Some((header, after)) = rest.split_first_chunk::<4>() {
            let [a, b, c, d] = *header;
            let Some((payload, next)) = after.split_at_checked(u16::from_ne_bytes([a, b]).into())
            else {
                break;
            };
            self.take_packet(u16::from_ne_bytes([c, d]), payload)?;
            rest = next;
        }
        self.packets.extend_from_slice(rest);
        Ok(())
    }
}

impl Client for Was {
    fn ask(&mut self) -> Result<()> {
        (self.has_data, self.length, self.taken) = (false, None, 0);
        self.upload.write_all(&self.body)?;
        self.control.write_all(&self.request)
    }

    fn watched(&self) -> [Option<BorrowedFd<'_>>; 2] {
        // A body is looked for when its head has come, as the production client does.
        let control = self.length.is_none().then(|| self.control.as_fd());
        let download = self.has_data.then(|| self.download.as_fd());
        [control, download]
    }

    fn hear(&mut self, buffer: &mut [u8]) -> Result<bool> {
        if self.length.is_none() {
            self.hear_packets(buffer)?;
        }
        while self.has_data && self.taken < self.answer {
            match read(&mut self.download, buffer)? {
                Some(count) => self.taken += count as u64,
                None => break,
            }
        }
        match self.taken > self.answer {
            true => Err(wrong("more came than was announced")),
            false => Ok(self.length == Some(self.taken)),
        }
    }
}
