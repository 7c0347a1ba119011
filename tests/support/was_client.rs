//! A WAS client that can behave and misbehave, with the accounting of the production client: what comes
//! on an idle connection, and a byte too many or too few in a pipe, is a failure.

use super::PATIENCE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg,
    socket, socketpair,
};
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub const NOP: u16 = 0;
pub const REQUEST: u16 = 1;
pub const METHOD: u16 = 2;
pub const URI: u16 = 3;
pub const SCRIPT_NAME: u16 = 4;
pub const PATH_INFO: u16 = 5;
pub const QUERY_STRING: u16 = 6;
pub const HEADER: u16 = 7;
pub const PARAMETER: u16 = 8;
pub const STATUS: u16 = 9;
pub const NO_DATA: u16 = 10;
pub const DATA: u16 = 11;
pub const LENGTH: u16 = 12;
pub const STOP: u16 = 13;
pub const PREMATURE: u16 = 14;
pub const REMOTE_HOST: u16 = 15;
pub const METRIC: u16 = 16;
pub const DOCUMENT_ROOT: u16 = 17;
pub const TLS: u16 = 18;

pub fn packet(command: u16, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u16::try_from(payload.len()).expect("a payload has 65535 bytes at most");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(command.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

pub fn number(command: u16, number: u64) -> Vec<u8> {
    packet(command, number.to_ne_bytes())
}

/// A request as packets.
#[derive(Clone, Debug)]
pub struct Asking {
    packets: Vec<Vec<u8>>,
    body: Option<Vec<u8>>,
}

impl Asking {
    /// `method`: its number.
    pub fn new(method: u32, uri: &str) -> Asking {
        let mut packets = vec![packet(REQUEST, b"")];
        if method != 2 {
            packets.push(packet(METHOD, method.to_ne_bytes()));
        }
        packets.push(packet(URI, uri));
        Asking {
            packets,
            body: None,
        }
    }

    pub fn get(uri: &str) -> Asking {
        Asking::new(2, uri)
    }

    pub fn head(uri: &str) -> Asking {
        Asking::new(1, uri)
    }

    pub fn post(uri: &str, body: &[u8]) -> Asking {
        let mut asking = Asking::new(3, uri);
        asking.body = Some(body.to_vec());
        asking
    }

    pub fn with(mut self, command: u16, payload: impl AsRef<[u8]>) -> Asking {
        self.packets.push(packet(command, payload));
        self
    }

    pub fn header(self, text: &str) -> Asking {
        self.with(HEADER, text)
    }

    /// All packets, with the length of the body if there is one.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.packets.concat();
        match &self.body {
            None => bytes.extend(packet(NO_DATA, b"")),
            Some(body) => {
                bytes.extend(packet(DATA, b""));
                bytes.extend(number(LENGTH, body.len() as u64));
            }
        }
        bytes
    }

    /// All packets up to the end of the metadata, with which a body begins.
    pub fn opening(&self) -> Vec<u8> {
        let mut bytes = self.packets.concat();
        bytes.extend(packet(DATA, b""));
        bytes
    }
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    NoData,
    Complete,
    Premature(u64),
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u32,
    pub headers: Vec<(String, String)>,
    pub metrics: Vec<(String, f32)>,
    pub body: Vec<u8>,
    pub end: End,
    /// Commands in the order of their arrival.
    pub commands: Vec<u16>,
    /// The server has said STOP.
    pub stopped: bool,
    /// The length came in one piece with DATA.
    pub length_at_once: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    #[track_caller]
    pub fn assert_status(&self, status: u32) -> &Answer {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub fn assert_text(&self, text: &str) -> &Answer {
        assert_eq!(self.text(), text);
        self
    }
}

/// One WAS connection, the client's ends.
pub struct WasClient {
    pub control: UnixStream,
    /// Where request bodies go in, and response bodies come out.
    pub upload: Option<File>,
    pub download: File,
    received: Vec<u8>,
    /// Response bytes of this exchange that were read.
    read: u64,
}

/// The server's ends, in the order in which they are passed.
pub struct ServerEnds {
    pub control: OwnedFd,
    pub input: OwnedFd,
    pub output: OwnedFd,
}

fn set_nonblocking(fd: &impl AsFd) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("any descriptor can be non-blocking");
}

impl WasClient {
    /// The server's ends are in blocking mode, as the production client leaves them.
    pub fn pair() -> (WasClient, ServerEnds) {
        let (control, theirs) = UnixStream::pair().expect("make a socket pair");
        let (input, upload) = pipe();
        let (download, output) = pipe();
        set_nonblocking(&upload);
        set_nonblocking(&download);
        let client = WasClient {
            control,
            upload: Some(upload.into()),
            download: download.into(),
            received: Vec::new(),
            read: 0,
        };
        client
            .control
            .set_read_timeout(Some(PATIENCE))
            .expect("thirty seconds are a valid timeout");
        let ends = ServerEnds {
            control: theirs.into(),
            input,
            output,
        };
        (client, ends)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.control
            .write_all(bytes.as_ref())
            .expect("send packets");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.control.write_all(bytes.as_ref())
    }

    /// Puts body bytes into the pipe; waits for room.
    pub fn put(&mut self, mut bytes: &[u8]) {
        let upload = self.upload.as_mut().expect("the pipe is open");
        let deadline = Instant::now() + PATIENCE;
        while !bytes.is_empty() {
            match upload.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(upload.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut fds, PollTimeout::from(100u8));
                    assert!(Instant::now() < deadline, "the body is not read");
                }
                Err(error) => panic!("write a body: {error}"),
            }
        }
    }

    /// Puts as many bytes in as there is room for.
    pub fn put_some(&mut self, bytes: &[u8]) -> usize {
        let upload = self.upload.as_mut().expect("the pipe is open");
        let mut put = 0;
        while let Ok(count) = upload.write(&bytes[put..]) {
            if count == 0 {
                break;
            }
            put += count;
        }
        put
    }

    /// Sends a request and its body, and takes the whole response.
    #[track_caller]
    pub fn ask(&mut self, asking: Asking) -> Answer {
        self.send(asking.bytes());
        if let Some(body) = &asking.body {
            self.put(body);
        }
        let answer = self.answer();
        self.assert_idle();
        answer
    }

    #[track_caller]
    pub fn get(&mut self, uri: &str) -> Answer {
        self.ask(Asking::get(uri))
    }

    /// The next packet. `None`: the server has closed the connection.
    pub fn next_packet(&mut self) -> Option<(u16, Vec<u8>)> {
        loop {
            if let Some((header, rest)) = self.received.split_first_chunk::<4>() {
                let [a, b, c, d] = *header;
                let length = usize::from(u16::from_ne_bytes([a, b]));
                if rest.len() >= length {
                    let payload = rest[..length].to_vec();
                    self.received.drain(..4 + length);
                    return Some((u16::from_ne_bytes([c, d]), payload));
                }
            }
            let mut buffer = [0; 65536];
            match self.control.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no packet: {error}"),
            }
        }
    }

    /// Waits until the server closes the connection.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        while let Some((command, _)) = self.next_packet() {
            assert_ne!(command, REQUEST, "a server asks nothing");
        }
    }

    /// Nobody has the server's ends any more, neither those of the pipes.
    #[track_caller]
    pub fn expect_channels_closed(&mut self) {
        self.expect_closed();
        let upload = self.upload.as_ref().expect("the pipe is open");
        for (fd, what) in [
            (upload.as_fd(), "upload"),
            (self.download.as_fd(), "download"),
        ] {
            let mut fds = [PollFd::new(fd, PollFlags::empty())];
            let patience = PollTimeout::try_from(PATIENCE).expect("thirty seconds");
            let ready = poll(&mut fds, patience).expect("poll one descriptor");
            assert!(ready > 0, "somebody has the pipe of the {what}");
        }
    }

    fn take_download(&mut self, body: &mut Vec<u8>, most: u64) -> usize {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(1 << 20);
        let mut buffer = vec![0; most];
        match self.download.read(&mut buffer) {
            Ok(count) => {
                body.extend_from_slice(&buffer[..count]);
                self.read += count as u64;
                count
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("read a response body: {error}"),
        }
    }

    /// Takes one response as the production client does.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer()
            .expect("a response, not the end of the connection")
    }

    /// `None`: the server has closed the connection.
    #[track_caller]
    pub fn try_answer(&mut self) -> Option<Answer> {
        self.answer_from(0)
    }

    #[track_caller]
    fn answer_from(&mut self, read: u64) -> Option<Answer> {
        self.read = read;
        let mut answer = Answer {
            status: 200,
            headers: Vec::new(),
            metrics: Vec::new(),
            body: Vec::new(),
            end: End::NoData,
            commands: Vec::new(),
            stopped: false,
            length_at_once: false,
        };
        let (mut has_data, mut length) = (false, None);
        loop {
            if has_data && length == Some(self.read) {
                answer.end = End::Complete;
                return Some(answer);
            }
            if has_data {
                let left = length.map_or(u64::MAX, |length: u64| length - self.read);
                while self.take_download(&mut answer.body, left.min(65536)) > 0 {
                    if length == Some(self.read) {
                        break;
                    }
                }
                if length == Some(self.read) {
                    continue;
                }
                if !self.wait_for_something() {
                    continue;
                }
                if self.received.is_empty() && !is_readable(&self.control) {
                    continue;
                }
            }
            let (command, payload) = self.next_packet()?;
            answer.commands.push(command);
            match command {
                NOP => {}
                STATUS => {
                    assert_eq!(answer.commands, [STATUS], "STATUS comes first");
                    let payload = payload.try_into().expect("STATUS has four bytes");
                    answer.status = u32::from_ne_bytes(payload);
                    assert!(
                        is_known(answer.status),
                        "malformed STATUS {}",
                        answer.status
                    );
                }
                HEADER => {
                    assert!(!has_data, "HEADER after DATA");
                    assert!(payload.len() < 8192, "control header is too long");
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    let (name, value) = text.split_once('=').expect("a header has a value");
                    answer.headers.push((name.to_owned(), value.to_owned()));
                    let all = answer.headers.iter().map(|(a, b)| a.len() + b.len() + 1);
                    assert!(all.sum::<usize>() < 65536, "too many headers");
                }
                METRIC => {
                    let (value, name) = payload.split_at(4);
                    let value = f32::from_ne_bytes(value.try_into().expect("four bytes"));
                    assert!(value.is_finite());
                    let name = String::from_utf8(name.to_vec()).expect("a name of a metric");
                    assert!((1..64).contains(&name.len()));
                    answer.metrics.push((name, value));
                }
                NO_DATA => {
                    assert!(!has_data, "NO_DATA after DATA");
                    return Some(answer);
                }
                DATA => {
                    assert!(!has_data, "DATA twice");
                    assert!(
                        !is_empty(answer.status),
                        "DATA with status {}",
                        answer.status
                    );
                    has_data = true;
                    answer.length_at_once = self.received.get(2..4) == Some(&LENGTH.to_ne_bytes());
                }
                LENGTH => {
                    assert!(has_data, "LENGTH without DATA");
                    let payload = payload.try_into().expect("LENGTH has eight bytes");
                    let told = u64::from_ne_bytes(payload);
                    assert!(length.is_none_or(|length| length == told), "another LENGTH");
                    assert!(told >= self.read, "more bytes than LENGTH");
                    length = Some(told);
                }
                STOP => {
                    assert!(!answer.stopped, "STOP twice");
                    answer.stopped = true;
                    // The caller answers it if it is still sending.
                    return Some(answer);
                }
                PREMATURE => {
                    assert!(has_data, "PREMATURE without DATA");
                    let payload = payload.try_into().expect("PREMATURE has eight bytes");
                    let sent = u64::from_ne_bytes(payload);
                    self.drain_to(sent, &mut answer.body);
                    answer.end = End::Premature(sent);
                    return Some(answer);
                }
                other => panic!("unexpected packet {other}"),
            }
        }
    }

    /// Waits for packets or body bytes. False: it took too long and was looked at again.
    fn wait_for_something(&self) -> bool {
        if !self.received.is_empty() {
            return true;
        }
        let mut fds = [
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.download.as_fd(), PollFlags::POLLIN),
        ];
        let patience = PollTimeout::try_from(PATIENCE).expect("thirty seconds");
        let ready = poll(&mut fds, patience).expect("poll two descriptors");
        assert!(ready > 0, "nothing comes");
        true
    }

    /// Takes what is accounted for out of the pipe, without waiting: it has to be there.
    #[track_caller]
    fn drain_to(&mut self, sent: u64, body: &mut Vec<u8>) {
        assert!(
            sent >= self.read,
            "{} bytes came, {sent} were sent",
            self.read
        );
        while self.read < sent {
            let left = sent - self.read;
            let count = self.take_download(body, left);
            assert!(count > 0, "{left} bytes of {sent} are not in the pipe");
        }
    }

    /// The answer to a STOP; what else comes is thrown away.
    #[track_caller]
    pub fn stopped(&mut self) -> u64 {
        loop {
            let packet = self.next_packet();
            let (command, payload) = packet.expect("an answer to STOP, not the end");
            if command == PREMATURE {
                let payload = payload.try_into().expect("PREMATURE has eight bytes");
                let sent = u64::from_ne_bytes(payload);
                self.drain_to(sent, &mut Vec::new());
                self.read = 0;
                return sent;
            }
        }
    }

    /// The same when the caller has read so many bytes of the response.
    #[track_caller]
    pub fn stopped_after(&mut self, read: u64) -> u64 {
        self.read = read;
        self.stopped()
    }

    /// The rest of a response of which so many bytes have been read.
    #[track_caller]
    pub fn answer_after(&mut self, read: u64) -> Answer {
        let answer = self.answer_from(read);
        answer.expect("a response, not the end of the connection")
    }

    /// The length that came with DATA, if it did.
    pub fn waiting_length(&mut self) -> Option<u64> {
        let is_length = self.received.get(2..4) == Some(&LENGTH.to_ne_bytes());
        if !is_length && !is_readable(&self.control) {
            return None;
        }
        match self.packet_if_any()? {
            (LENGTH, payload) => Some(u64::from_ne_bytes(payload.try_into().ok()?)),
            (command, payload) => {
                let mut bytes = packet(command, payload);
                bytes.append(&mut self.received);
                self.received = bytes;
                None
            }
        }
    }

    fn packet_if_any(&mut self) -> Option<(u16, Vec<u8>)> {
        match self.received.is_empty() && !is_readable(&self.control) {
            true => None,
            false => self.next_packet(),
        }
    }

    /// Body bytes that are there.
    pub fn take_some(&mut self, most: u64) -> Vec<u8> {
        let mut body = Vec::new();
        if most > 0 {
            self.take_download(&mut body, most.min(65536));
        }
        body
    }

    /// Waits for a packet or for body bytes. `None`: the end of the connection.
    #[allow(clippy::option_option)]
    pub fn packet_or_body(&mut self) -> Option<Option<(u16, Vec<u8>)>> {
        self.wait_for_something();
        match self.received.is_empty() && !is_readable(&self.control) {
            true => Some(None),
            false => self.next_packet().map(Some),
        }
    }

    /// Reads response bytes until so many have come.
    #[track_caller]
    pub fn read_some(&mut self, wanted: u64) -> Vec<u8> {
        let mut body = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while (body.len() as u64) < wanted {
            let left = wanted - body.len() as u64;
            if self.take_download(&mut body, left) == 0 {
                let mut fds = [PollFd::new(self.download.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(100u8));
                assert!(Instant::now() < deadline, "{} bytes came", body.len());
            }
        }
        body
    }

    /// Nothing may come on an idle connection, and nothing may be left in the pipe. Whatever the server
    /// does wrong in its next moments is found by the next exchange.
    #[track_caller]
    pub fn assert_idle(&mut self) {
        assert!(
            self.received.is_empty() && !is_readable(&self.control),
            "unexpected data from idle WAS control connection"
        );
        let mut byte = [0];
        match self.download.read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) => panic!("the server has closed the pipe"),
            other => panic!("unexpected data in the pipe: {other:?}"),
        }
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("make a pipe")
}

fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// The table of the production client.
fn is_known(status: u32) -> bool {
    matches!(status, 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451
        | 500..=508 | 510 | 511)
}

fn is_empty(status: u32) -> bool {
    matches!(status, 204 | 205 | 304)
}

/// The client's end of a Multi-WAS socket.
pub struct MultiClient(OwnedFd);

impl MultiClient {
    /// With the end that becomes the server's standard input.
    pub fn pair() -> (MultiClient, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .expect("make a socket pair");
        (MultiClient(ours), theirs)
    }

    /// A client of a server that listens.
    pub fn remote(path: &Path) -> MultiClient {
        MultiClient::try_remote(path).expect("connect to the WAS socket")
    }

    pub fn try_remote(path: &Path) -> nix::Result<MultiClient> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(MultiClient(fd))
    }

    pub fn connect(&self) -> WasClient {
        let (client, ends) = WasClient::pair();
        let fds = [
            ends.control.as_raw_fd(),
            ends.input.as_raw_fd(),
            ends.output.as_raw_fd(),
        ];
        self.send(&packet(1, b""), &fds).expect("send a connection");
        client
    }

    pub fn send(&self, message: &[u8], fds: &[i32]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let parts = [IoSlice::new(message)];
        let control = if fds.is_empty() { &[][..] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &parts, control, flags, None).map(drop)
    }

    /// Whether the server has said that it takes no more connections.
    pub fn is_retired(&self) -> bool {
        is_readable(&self.0)
    }

    /// The server has said that it takes no more connections.
    #[track_caller]
    pub fn wait_retired(&self) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).expect("thirty seconds");
        let ready = poll(&mut fds, patience).expect("poll one descriptor");
        assert!(ready > 0, "the server keeps its Multi-WAS socket");
        let mut byte = [0];
        let read = nix::sys::socket::recv(self.0.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT);
        assert!(
            matches!(read, Ok(0)),
            "a server sends nothing there: {read:?}"
        );
    }
}

/// A pause that is part of what a test is about (a slow client), never a wait for something.
pub fn dawdle(time: Duration) {
    std::thread::sleep(time);
}
