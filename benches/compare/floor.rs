//! The floor: what a request costs when nothing is done for it but to find its end.
//!
//! One epoll set per process, three system calls per request, fixed responses. It understands what
//! the load generator sends and no more; it is a measure, not a server.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;

use memchr::memmem;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt::{ReuseAddr, ReusePort},
};

use crate::load::{WORKLOADS, Workload};

/// Serves until it is killed; only the reason why it cannot is ever returned.
pub fn serve(port: u16, workers: u32) -> io::Error {
    match spawn_others(port, workers).and_then(|()| serve_alone(port)) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

/// All processes but this one; they share the port and end with this one.
fn spawn_others(port: u16, workers: u32) -> io::Result<()> {
    for _ in 1..workers {
        Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(std::env::current_exe()?)
            .args(["floor", "--workers", "1", "--port", &port.to_string()])
            .spawn()?;
    }
    Ok(())
}

fn bound(port: u16) -> io::Result<TcpListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    setsockopt(&fd, ReusePort, &true)?;
    let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    bind(fd.as_raw_fd(), &address)?;
    listen(&fd, Backlog::new(1024)?)?;
    Ok(fd.into())
}

const LISTENER: u64 = u64::MAX;

fn serve_alone(port: u16) -> io::Result<Never> {
    let listener = bound(port)?;
    let responses = responses();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    let mut input = vec![0; 64 << 10];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            if event.data() == LISTENER {
                accept(&listener, &epoll, &mut clients)?;
            } else if let Some(client) = clients.get_mut(&event.data()) {
                match client.advance(&mut input, &responses) {
                    Ok(Wish::Same) => {}
                    Ok(Wish::Turn(flags)) => {
                        epoll.modify(&client.stream, &mut EpollEvent::new(flags, event.data()))?;
                    }
                    Ok(Wish::Close) | Err(_) => {
                        // Closing takes it out of the set.
                        clients.remove(&event.data());
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    epoll: &Epoll,
    clients: &mut HashMap<u64, Client>,
) -> io::Result<()> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    stream.set_nonblocking(true)?;
    let key = stream.as_raw_fd() as u64;
    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
    clients.insert(key, Client::new(stream));
    Ok(())
}

/// What is sent for a path: where the connection is kept, and where it ends.
struct Responses {
    path: &'static str,
    kept: Vec<u8>,
    last: Vec<u8>,
}

fn responses() -> Vec<Responses> {
    let response = |workload: &Workload, connection: &str| {
        let body = workload.answer.bytes();
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{connection}\r\n",
            body.len()
        )
        .into_bytes();
        response.extend(body);
        response
    };
    let responses = |workload: &Workload| Responses {
        path: workload.path,
        kept: response(workload, ""),
        last: response(workload, "Connection: close\r\n"),
    };
    WORKLOADS.iter().map(responses).collect()
}

/// What a client needs next.
enum Wish {
    /// The same as before.
    Same,
    /// Other events than before.
    Turn(EpollFlags),
    Close,
}

struct Client {
    stream: TcpStream,
    head: Vec<u8>,
    state: State,
}

/// Where a client is in its exchange.
#[derive(Clone, Copy)]
enum State {
    Head,
    Body { missing: usize, reply: Reply },
    Writing { written: usize, reply: Reply },
}

#[derive(Clone, Copy)]
/// Which response, and whether the connection ends after it.
struct Reply {
    path: usize,
    last: bool,
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        Client {
            stream,
            head: Vec::new(),
            state: State::Head,
        }
    }

    fn advance(&mut self, input: &mut [u8], responses: &[Responses]) -> io::Result<Wish> {
        if let State::Writing { written, reply } = self.state {
            return self.write(written, reply, responses);
        }
        let size = match self.stream.read(input)? {
            0 => return Ok(Wish::Close),
            size => size,
        };
        let (missing, reply) = match self.state {
            State::Body { missing, reply } => (missing.saturating_sub(size), reply),
            _ => match self.take_head(&input[..size], responses)? {
                Some(found) => found,
                None => return Ok(Wish::Same),
            },
        };
        if missing > 0 {
            self.state = State::Body { missing, reply };
            return Ok(Wish::Same);
        }
        self.write(0, reply, responses)
    }

    /// Collects the head; once it is whole, how much of the body is missing and what to answer.
    fn take_head(
        &mut self,
        input: &[u8],
        responses: &[Responses],
    ) -> io::Result<Option<(usize, Reply)>> {
        self.head.extend_from_slice(input);
        let Some(end) = memmem::find(&self.head, b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = &self.head[..end];
        let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let path = responses
            .iter()
            .position(|responses| responses.path.as_bytes() == target)
            .ok_or(ErrorKind::NotFound)?;
        let last = memmem::find(head, b"\r\nConnection: close").is_some();
        let length = if head.starts_with(b"POST") {
            content_length(head).ok_or(ErrorKind::InvalidData)?
        } else {
            0
        };
        let missing = (end + 4 + length).saturating_sub(self.head.len());
        self.head.clear();
        Ok(Some((missing, Reply { path, last })))
    }

    fn write(
        &mut self,
        mut written: usize,
        reply: Reply,
        responses: &[Responses],
    ) -> io::Result<Wish> {
        let response = match reply.last {
            true => &responses[reply.path].last,
            false => &responses[reply.path].kept,
        };
        let was_writing = matches!(self.state, State::Writing { .. });
        written += match self.stream.write(&response[written..]) {
            Ok(size) => size,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < response.len() {
            self.state = State::Writing { written, reply };
            return Ok(match was_writing {
                true => Wish::Same,
                false => Wish::Turn(EpollFlags::EPOLLOUT),
            });
        }
        self.state = State::Head;
        Ok(match (reply.last, was_writing) {
            (true, _) => Wish::Close,
            (false, true) => Wish::Turn(EpollFlags::EPOLLIN),
            (false, false) => Wish::Same,
        })
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let start = memmem::find(head, b"\r\nContent-Length: ")? + 18;
    let digits = head[start..].split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
