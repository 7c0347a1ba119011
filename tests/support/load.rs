//! Steady load from several clients, for tests in which something happens meanwhile.

use super::server::{Address, Running};
use super::{PATIENCE, wait_until};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// A new connection for each request. Over a Unix socket: thousands of TCP connections that are over
    /// would stay in the tables of the kernel and slow down whoever reads those.
    Fresh,
    /// One TCP connection, until the server announces its end or has closed it before a request was
    /// sent.
    KeepAlive,
}

trait Stream: Read + Write + Send {
    /// The server has not ended it.
    fn is_open(&self) -> bool;
}

impl Stream for TcpStream {
    fn is_open(&self) -> bool {
        let quiet = self.set_nonblocking(true).is_ok();
        let peeked = self.peek(&mut [0]);
        let nothing = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        quiet && nothing && self.set_nonblocking(false).is_ok()
    }
}

impl Stream for UnixStream {
    fn is_open(&self) -> bool {
        false // used once
    }
}

fn connect(address: &Address) -> Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        }
    })
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answers: Vec<AtomicU64>,
}

pub struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// GETs of `/` by clients of each habit; the server listens on TCP first, then on a Unix socket.
    pub fn start(server: &Running, of_each: usize) -> Load {
        let of = |habit| match habit {
            Habit::KeepAlive => (habit, server.addresses()[0].clone()),
            Habit::Fresh => (habit, server.addresses()[1].clone()),
        };
        let habits = [Habit::Fresh, Habit::KeepAlive].repeat(of_each);
        Load::of(habits.into_iter().map(of).collect())
    }

    /// The same by way of a program in front of the server, on connections that are kept.
    pub fn through(address: &Address, clients: usize) -> Load {
        Load::of(vec![(Habit::KeepAlive, address.clone()); clients])
    }

    fn of(clients: Vec<(Habit, Address)>) -> Load {
        let tally = Arc::new(Tally {
            stop: AtomicBool::new(false),
            answers: clients.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        let client = |(index, (habit, address)): (usize, (Habit, Address))| {
            let tally = Arc::clone(&tally);
            std::thread::spawn(move || run(&tally.stop, &tally.answers[index], habit, &address))
        };
        let clients = clients.into_iter().enumerate().map(client).collect();
        Load { tally, clients }
    }

    /// Waits until each client has had so many more answers.
    #[track_caller]
    pub fn wait_answers(&self, count: u64) {
        let counts = || {
            let answers = self.tally.answers.iter();
            answers.map(|n| n.load(Ordering::Relaxed))
        };
        let wanted: Vec<u64> = counts().map(|n| n + count).collect();
        wait_until("answers for every client", || {
            let enough = counts().zip(&wanted).all(|(n, wanted)| n >= *wanted);
            // One that has failed tells why at the end.
            let ended = self.clients.iter().any(JoinHandle::is_finished);
            (enough || ended).then_some(())
        });
    }

    /// Every request was answered with 200, and there were some.
    #[track_caller]
    pub fn finish(self) {
        self.tally.stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> = self
            .clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client does not panic"))
            .collect();
        let answers: Vec<u64> = (self.tally.answers.iter())
            .map(|n| n.load(Ordering::Relaxed))
            .collect();
        assert!(failures.is_empty(), "{failures:?} beside {answers:?}");
        assert!(answers.iter().all(|n| *n > 0), "{answers:?}");
    }
}

/// The requests that were lost: none, or the one after which the client gave up.
fn run(stop: &AtomicBool, answers: &AtomicU64, habit: Habit, address: &Address) -> Vec<String> {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        match request(&mut connection, habit, address) {
            Ok(()) => answers.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                let number = answers.load(Ordering::Relaxed);
                return vec![format!("{habit:?}, after {number} answers: {error}")];
            }
        };
    }
    Vec::new()
}

fn request(
    connection: &mut Option<Box<dyn Stream>>,
    habit: Habit,
    address: &Address,
) -> Result<()> {
    let mut stream = match connection.take().filter(|stream| stream.is_open()) {
        Some(stream) => stream,
        None => connect(address)?,
    };
    let close = match habit {
        Habit::Fresh => "Connection: close\r\n",
        Habit::KeepAlive => "",
    };
    let request = format!("GET / HTTP/1.1\r\nHost: load\r\n{close}\r\n");
    stream.write_all(request.as_bytes())?;
    let head = response(&mut stream)?;
    if !head.contains("connection: close") {
        *connection = Some(stream);
    }
    Ok(())
}

/// Reads one response with a Content-Length and gives its head in small letters.
fn response(stream: &mut Box<dyn Stream>) -> Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .ok_or_else(|| Error::other(format!("no length: {head}")))?;
            if !head.starts_with("http/1.1 200 ") {
                return Err(Error::other(head));
            }
            if bytes.len() >= end + 4 + length {
                return Ok(head);
            }
        }
        match stream.read(&mut chunk)? {
            0 => {
                let length = bytes.len();
                return Err(Error::other(format!("the end after {length} bytes")));
            }
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}
