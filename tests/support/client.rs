//! A client that sends exactly the bytes it is told to, and is strict about what comes back.
//!
//! Every response is checked as it is read (RFC 9112 framing, one Date, no body where none may be),
//! so each test also proves that the server speaks correct HTTP.

use super::server::Address;
use super::{PATIENCE, UnderTest, under_test, wait_until};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(into),
            Stream::Unix(stream) => (&*stream).read(into),
        }
    }

    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Tcp(stream) => (&*stream).write_all(bytes),
            Stream::Unix(stream) => (&*stream).write_all(bytes),
        }
    }

    fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }
}

/// What was asked decides how the answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HTTP/1.1, any method but HEAD.
    Plain,
    Head,
    /// HTTP/1.0: no chunked coding.
    Old,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilEnd,
}

/// How a connection ended: only a reset tells the reader of an unframed body that it is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    End,
    Reset,
}

#[derive(Clone, Debug)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub reason: String,
    pub fields: Vec<(String, String)>,
    pub framing: Framing,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a field that occurs at most once.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} occurs {} times: {all:?}", all.len());
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self
            .fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn says_close(&self) -> bool {
        self.all("Connection")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("close"))
    }

    #[track_caller]
    pub fn assert_status(&self, status: u16) -> &Response {
        assert_eq!(self.status, status, "status of {self:?}");
        self
    }

    #[track_caller]
    pub fn assert_text(&self, text: &str) -> &Response {
        self.assert_status(200);
        assert_eq!(self.text(), text, "body of {self:?}");
        self
    }
}

pub struct Client {
    stream: Stream,
    pending: Vec<u8>,
}

impl Client {
    pub fn try_connect(address: &Address) -> std::io::Result<Client> {
        let stream = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Stream::Unix(stream)
            }
        };
        Ok(Client {
            stream,
            pending: Vec::new(),
        })
    }

    /// True when a process behind the listener responds; leaves no request behind.
    pub fn answers(self) -> bool {
        let sent = self.stream.write_all(b"GET /ready-yet HTTP/1.0\r\n\r\n");
        sent.is_ok() && matches!(self.stream.read(&mut [0; 1]), Ok(1))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends the bytes in pieces that end at `cuts`; the server has read each before the next leaves.
    #[track_caller]
    pub fn send_split(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut start = 0;
        for &cut in cuts {
            self.send(&bytes[start..cut]);
            self.wait_consumed();
            start = cut;
        }
        self.send(&bytes[start..]);
    }

    /// Sends byte by byte with pauses, as a slow client does, until all is sent or the server has
    /// closed or answered.
    pub fn trickle(&mut self, bytes: &[u8], pause: Duration) {
        for byte in bytes {
            if self.try_send([*byte]).is_err() || self.has_answer() {
                return;
            }
            std::thread::sleep(pause);
        }
    }

    /// Reads until these bytes have come; they stay to be read as a part of the response.
    #[track_caller]
    pub fn wait_for_bytes(&mut self, bytes: &[u8]) {
        while !self.pending.windows(bytes.len()).any(|part| part == bytes) {
            if let Err(error) = self.fill_more("what was to come at once") {
                panic!("{error}");
            }
        }
    }

    /// True when something can be read, be it the end.
    pub fn has_answer(&self) -> bool {
        let fd = match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        };
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// A GET that leaves the connection open.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// A POST with a Content-Length.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        self.send(body);
        self.response()
    }

    pub fn half_close(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("end our side of a connection");
    }

    /// Ends our side, which the server may have ended before.
    pub fn try_half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The same connection once more, for a thread that sends while this one reads.
    pub fn second(&self) -> Client {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        };
        Client {
            stream: stream.expect("duplicate a descriptor"),
            pending: Vec::new(),
        }
    }

    pub fn local_address(&self) -> SocketAddr {
        match &self.stream {
            Stream::Tcp(stream) => stream
                .local_addr()
                .expect("a connected socket has an address"),
            Stream::Unix(_) => panic!("a Unix socket has no address with a port"),
        }
    }

    /// Waits until the server has taken every byte from its socket: /proc/net/tcp shows what it has not.
    /// Over a Unix socket nothing shows that, so this returns at once.
    #[track_caller]
    pub fn wait_consumed(&self) {
        let Stream::Tcp(stream) = &self.stream else {
            return;
        };
        let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else {
            return;
        };
        let (here, there) = (proc_net_form(here), proc_net_form(there));
        wait_until("the server to read what was sent", || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("read /proc/net/tcp");
            let row = table
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            let mut rows = row.filter(|row| row.len() > 4 && row[1] == there && row[2] == here);
            // The bytes may still be on their way through the loopback device: ask our side, too.
            let arrived = !table.lines().any(|line| {
                let row: Vec<&str> = line.split_whitespace().collect();
                row.len() > 4
                    && row[1] == here
                    && row[2] == there
                    && !row[4].starts_with("00000000:")
            });
            (arrived && rows.all(|row| row[4].ends_with(":00000000"))).then_some(())
        });
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let length = loop {
            // signal(7): with a time limit a freeze of the machine is enough to interrupt a read.
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.pending.extend_from_slice(&chunk[..length]);
        Ok(length)
    }

    /// At least one byte more; an end in the middle of `reading` is an error.
    fn fill_more(&mut self, reading: &str) -> std::io::Result<()> {
        match self.fill() {
            Ok(0) => {
                let text = format!("the connection ended while reading {reading}");
                Err(self.in_vain(ErrorKind::UnexpectedEof, &text))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                let text = format!("{error} while reading {reading}");
                Err(self.in_vain(error.kind(), &text))
            }
        }
    }

    fn in_vain(&self, kind: ErrorKind, what: &str) -> std::io::Error {
        std::io::Error::new(kind, format!("{what}; had {}", self.shown()))
    }

    fn shown(&self) -> String {
        let start = &self.pending[..self.pending.len().min(300)];
        format!(
            "{} bytes: {:?}",
            self.pending.len(),
            String::from_utf8_lossy(start)
        )
    }

    /// Up to and without the next CR LF; a lone CR or LF is an error of the server.
    #[track_caller]
    fn line(&mut self, reading: &str) -> std::io::Result<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = line[..end]
                    .strip_suffix(b"\r")
                    .unwrap_or_else(|| panic!("a bare LF in {reading}: {line:?}"));
                assert!(!line.contains(&b'\r'), "a bare CR in {reading}: {line:?}");
                return Ok(line.iter().map(|&byte| char::from(byte)).collect()); // Latin-1
            }
            self.fill_more(reading)?;
        }
    }

    fn exactly(&mut self, length: usize, reading: &str) -> std::io::Result<Vec<u8>> {
        while self.pending.len() < length {
            self.fill_more(reading)?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    /// One whole final response.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to(Asked::Plain)
    }

    #[track_caller]
    pub fn response_to(&mut self, asked: Asked) -> Response {
        expect(self.try_response_to(asked))
    }

    /// One whole final response, where the server may be gone before its end. A response that is
    /// wrong, and not only incomplete, is a failure all the same.
    #[track_caller]
    pub fn try_response(&mut self) -> std::io::Result<Response> {
        self.try_response_to(Asked::Plain)
    }

    #[track_caller]
    fn try_response_to(&mut self, asked: Asked) -> std::io::Result<Response> {
        let mut response = self.try_head(asked)?;
        response.body = match response.framing {
            Framing::None => Vec::new(),
            Framing::Length(length) => self.exactly(length, "a body by Content-Length")?,
            Framing::Chunked => {
                let mut body = Vec::new();
                while let Some(mut chunk) = self.try_chunk()? {
                    body.append(&mut chunk);
                }
                body
            }
            Framing::UntilEnd => self.read_to_end(),
        };
        Ok(response)
    }

    /// The head of a final response, checked; the body is read by [`Client::chunk`] and its like.
    #[track_caller]
    pub fn head(&mut self, asked: Asked) -> Response {
        expect(self.try_head(asked))
    }

    #[track_caller]
    fn try_head(&mut self, asked: Asked) -> std::io::Result<Response> {
        let mut response = self.any_head()?;
        assert!(
            response.status >= 200,
            "an interim response that was not asked for: {response:?}"
        );
        check_final(&response);
        response.framing = framing(&response, asked);
        Ok(response)
    }

    /// An interim (1xx) response.
    #[track_caller]
    pub fn interim(&mut self) -> Response {
        let response = expect(self.any_head());
        assert!(
            response.status < 200,
            "not an interim response: {response:?}"
        );
        response
    }

    #[track_caller]
    fn any_head(&mut self) -> std::io::Result<Response> {
        let line = self.line("a status line")?;
        let (version, rest) = line
            .split_once(' ')
            .unwrap_or_else(|| panic!("status line {line:?}"));
        let (status, reason) = rest
            .split_once(' ')
            .unwrap_or_else(|| panic!("status line {line:?}"));
        assert!(
            matches!(version, "HTTP/1.1" | "HTTP/1.0"),
            "version in {line:?}"
        );
        assert!(
            status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()),
            "status in {line:?}"
        );
        let mut fields = Vec::new();
        loop {
            let line = self.line("a header field")?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("field {line:?}"));
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert!(
                !name.is_empty() && name.bytes().all(token),
                "field name in {line:?}"
            );
            assert!(
                !value.contains(|c: char| c.is_ascii_control() && c != '\t'),
                "control character in {line:?}"
            );
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Response {
            version: version.into(),
            status: status.parse().expect("three digits"),
            reason: reason.into(),
            fields,
            framing: Framing::None,
            body: Vec::new(),
        })
    }

    /// The next chunk of a chunked body; nothing after the last one. Trailers are an error: nobody sends any.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        expect(self.try_chunk())
    }

    #[track_caller]
    fn try_chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let line = self.line("a chunk size")?;
        let size =
            usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
        let data = self.exactly(size, "a chunk")?;
        let end = self.line("the end of a chunk")?;
        assert!(end.is_empty(), "after a chunk of {size}: {end:?}");
        Ok((size > 0).then_some(data))
    }

    /// At least this many bytes of a body, as they come.
    #[track_caller]
    pub fn raw(&mut self, length: usize) -> Vec<u8> {
        expect(self.exactly(length, "raw bytes"))
    }

    /// Everything up to a regular end of the connection.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self
            .fill()
            .unwrap_or_else(|error| panic!("{error} before the end; had {}", self.shown()))
            > 0
        {}
        std::mem::take(&mut self.pending)
    }

    /// Everything until the connection is over, also by a reset.
    #[track_caller]
    pub fn read_until_over(&mut self) -> Vec<u8> {
        self.read_until_end_or_reset().0
    }

    /// Everything until the connection is over, and how it ended.
    #[track_caller]
    pub fn read_until_end_or_reset(&mut self) -> (Vec<u8>, Over) {
        let over = loop {
            match self.fill() {
                Ok(0) => break Over::End,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break Over::Reset,
                Err(error) => panic!("{error} before the end; had {}", self.shown()),
            }
        };
        (std::mem::take(&mut self.pending), over)
    }

    /// The server ends the connection and sends nothing more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(
            rest.is_empty(),
            "before the end: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
}

#[track_caller]
fn expect<T>(read: std::io::Result<T>) -> T {
    read.unwrap_or_else(|error| panic!("{error}"))
}

/// RFC 9110 §6.6.1: an origin server with a clock sends one Date.
#[track_caller]
fn check_final(response: &Response) {
    let ours = under_test() == UnderTest::Rswsgi;
    // RFC 9110 §2.5: the highest version the server speaks, whatever was asked.
    assert!(!ours || response.version == "HTTP/1.1", "{response:?}");
    let date = response.field("Date");
    assert!(!ours || date.is_some(), "no Date: {response:?}");
    assert!(
        date.is_none_or(|date| date.len() == 29 && date.ends_with(" GMT")),
        "Date: {date:?}"
    );
}

/// RFC 9112 §6.3, from the side of the client.
#[track_caller]
fn framing(response: &Response, asked: Asked) -> Framing {
    let length = response.field("Content-Length");
    let coding = response.field("Transfer-Encoding");
    assert!(
        length.is_none() || coding.is_none(),
        "both Content-Length and Transfer-Encoding: {response:?}"
    );
    assert!(
        coding.is_none_or(|coding| coding.eq_ignore_ascii_case("chunked")),
        "Transfer-Encoding: {coding:?}"
    );
    assert!(
        coding.is_none() || asked != Asked::Old,
        "chunked coding for HTTP/1.0: {response:?}"
    );
    if response.status == 204 {
        assert!(
            length.is_none() && coding.is_none(),
            "204 with a framing: {response:?}"
        );
    }
    if matches!(response.status, 204 | 304) || asked == Asked::Head {
        return Framing::None;
    }
    match (length, coding) {
        (Some(length), _) => {
            assert!(
                length.bytes().all(|byte| byte.is_ascii_digit()),
                "Content-Length: {length:?}"
            );
            Framing::Length(
                length
                    .parse()
                    .unwrap_or_else(|_| panic!("Content-Length: {length:?}")),
            )
        }
        (_, Some(_)) => Framing::Chunked,
        _ => {
            assert!(
                asked == Asked::Old || response.says_close(),
                "no framing and no close: {response:?}"
            );
            Framing::UntilEnd
        }
    }
}

/// As in /proc/net/tcp: the address as one number in the byte order of the machine, then the port.
fn proc_net_form(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => format!(
            "{:08X}:{:04X}",
            u32::from_ne_bytes(v4.ip().octets()),
            v4.port()
        ),
        SocketAddr::V6(_) => panic!("the tests use IPv4 where they look into /proc/net/tcp"),
    }
}
