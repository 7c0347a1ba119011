//! A load generator for workloads whose requests differ: as many clients as `wrk` has, in one thread,
//! with the latency of each request. The requests are numbered over all clients in the order in which they are
//! sent, so which one is slow depends on nothing else.
//!
//! Requests that have no answer at the end count with the time they have waited: a client that a server
//! never turns to would otherwise not be seen.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::load::{CONNECTIONS, Workload};

/// Asks for `seconds`; the line for `load::parse`.
pub fn play(workload: &Workload, port: u16, seconds: u32) -> io::Result<String> {
    let mut crowd = Crowd::new(workload, port)?;
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds.into());
    for index in 0..crowd.clients.len() {
        crowd.ask(index)?;
    }
    let mut events = [EpollEvent::empty(); CONNECTIONS as usize];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let timeout = EpollTimeout::try_from(left.as_millis() + 1).unwrap_or(EpollTimeout::MAX);
        let count = crowd.epoll.wait(&mut events, timeout)?;
        for event in &events[..count] {
            crowd.take(event.data() as usize)?;
        }
    }
    Ok(crowd.measured(start.elapsed()))
}

struct Crowd {
    address: SocketAddrV4,
    fast: Vec<u8>,
    slow: Vec<u8>,
    one_in: u64,
    body: Vec<u8>,
    epoll: Epoll,
    clients: Vec<Client>,
    sent: u64,
    latencies: Vec<Duration>,
    refused: u64,
    lost: u64,
}

struct Client {
    stream: Option<TcpStream>,
    since: Instant,
    input: Vec<u8>,
}

/// What a client has of its answer.
enum Answer {
    Part,
    Whole { right: bool, last: bool },
}

impl Crowd {
    fn new(workload: &Workload, port: u16) -> io::Result<Crowd> {
        let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        let slow = workload.slow.as_ref();
        let client = |_| Client {
            stream: None,
            since: Instant::now(),
            input: Vec::new(),
        };
        Ok(Crowd {
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            fast: request(workload.path).into_bytes(),
            slow: request(slow.map_or(workload.path, |slow| slow.path)).into_bytes(),
            one_in: slow.map_or(u64::MAX, |slow| slow.one_in),
            body: workload.answer.bytes(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            clients: (0..CONNECTIONS).map(client).collect(),
            sent: 0,
            latencies: Vec::new(),
            refused: 0,
            lost: 0,
        })
    }

    /// Sends the next request; opening a connection is part of its time.
    fn ask(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        client.since = Instant::now();
        client.input.clear();
        self.sent += 1;
        let request = match self.sent.is_multiple_of(self.one_in) {
            true => &self.slow,
            false => &self.fast,
        };
        let mut stream = match client.stream.take() {
            Some(stream) => stream,
            None => connect(self.address, &self.epoll, index)?,
        };
        // What is lost here shows when the answer is read. A request fits into an empty buffer.
        let _ = stream.write_all(request);
        client.stream = Some(stream);
        Ok(())
    }

    /// Something has come for this client.
    fn take(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else {
            return Ok(());
        };
        let mut piece = [0; 4096];
        let read = match stream.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => 0,
        };
        client.input.extend_from_slice(&piece[..read]);
        match answer(&client.input, &self.body) {
            Answer::Part if read > 0 => return Ok(()),
            Answer::Part => {
                self.lost += 1;
                client.stream = None;
            }
            Answer::Whole { right, last } => {
                self.latencies.push(client.since.elapsed());
                self.refused += u64::from(!right);
                if last || read == 0 {
                    client.stream = None;
                }
            }
        }
        self.ask(index)
    }

    fn measured(&mut self, ran: Duration) -> String {
        let (requests, micros) = (self.latencies.len(), ran.as_micros());
        let waiting = self.clients.iter().map(|client| client.since.elapsed());
        self.latencies.extend(waiting);
        self.latencies.sort_unstable();
        let part = |percent: usize| {
            let at = self.latencies.len() * percent / 100;
            self.latencies[at].as_micros()
        };
        format!(
            "measured requests={requests} us={micros} p50={} p99={} status={} socket={} timeout=0",
            part(50),
            part(99),
            self.refused,
            self.lost
        )
    }
}

fn connect(address: SocketAddrV4, epoll: &Epoll, index: usize) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    Ok(stream)
}

/// Finds one response with a Content-Length.
fn answer(input: &[u8], expected: &[u8]) -> Answer {
    let Some(end) = memmem::find(input, b"\r\n\r\n") else {
        return Answer::Part;
    };
    let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(field, value)| (field == name).then(|| value.trim().to_owned()))
    };
    let body = &input[end + 4..];
    let length = field("content-length").and_then(|length| length.parse::<usize>().ok());
    match length {
        Some(length) if body.len() < length => Answer::Part,
        _ => Answer::Whole {
            right: head.starts_with("http/1.1 200") && body == expected,
            last: length.is_none() || field("connection").is_some_and(|value| value == "close"),
        },
    }
}
