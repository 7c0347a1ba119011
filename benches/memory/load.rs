//! Clients that go on until every worker has served.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, Response};
use crate::process::Running;

/// What is asked for, and where.
#[derive(Clone, Copy)]
pub struct Visitor {
    pub port: u16,
    pub paths: &'static [&'static str],
}

const START_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const PER_WORKER: Duration = Duration::from_secs(4);
/// Clients beyond the number of workers, so that none is left out.
const SPARE: u32 = 2;

/// How long a response takes at least.
#[derive(Clone, Copy)]
enum Pace {
    /// While the worker sleeps, its siblings get the next connections.
    Held,
    Full,
}

/// Waits for the first right answer.
pub fn wait_for_answer(running: &mut Running, visitor: Visitor) -> Result<(), String> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match ask_once(visitor) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                let words = running.last_words();
                return Err(format!("no answer within {START_LIMIT:?}, {error}{words}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
        if let Some(reason) = running.gone() {
            return Err(reason);
        }
    }
}

/// One request on a connection of its own; the process that answered.
pub fn ask_once(visitor: Visitor) -> io::Result<i32> {
    let response = ask(&mut connect(visitor.port)?, visitor.paths[0], Pace::Full)?;
    right(&response)
}

/// Asks until `workers` processes have answered `requests` each, and all answers were right.
pub fn serve(visitor: Visitor, workers: u32, requests: u32) -> Result<(), String> {
    let answered = Mutex::new(HashMap::new());
    let deadline = Instant::now() + Duration::from_secs(30) + PER_WORKER * workers;
    thread::scope(|scope| {
        let client = || visit(visitor, workers, requests, &answered, deadline);
        let clients: Vec<_> = (0..workers + SPARE).map(|_| scope.spawn(client)).collect();
        let results = clients.into_iter().map(|client| match client.join() {
            Ok(result) => result,
            Err(_) => Err("a client panicked".to_owned()),
        });
        results.collect::<Result<(), String>>()
    })
}

fn visit(
    visitor: Visitor,
    workers: u32,
    requests: u32,
    answered: &Mutex<HashMap<i32, u32>>,
    deadline: Instant,
) -> Result<(), String> {
    let mut connection = None;
    let mut failures = 0;
    let mut pace = Pace::Held;
    for path in visitor.paths.iter().cycle() {
        if Instant::now() > deadline {
            let answered = answered.lock().expect("no client panics while counting");
            let enough = answered.values().filter(|n| **n >= requests).count();
            return Err(format!("only {enough} of {workers} workers served enough"));
        }
        let mut open = match connection.take().map_or_else(|| connect(visitor.port), Ok) {
            Ok(open) => open,
            Err(_) => continue,
        };
        let response = match ask(&mut open, path, pace) {
            Ok(response) => response,
            // A server may close a kept connection at any time, but not always.
            Err(error) => {
                failures += 1;
                match failures < 20 {
                    true => continue,
                    false => return Err(error.to_string()),
                }
            }
        };
        let process = right(&response).map_err(|error| format!("{path}: {error}"))?;
        let mut answered = answered.lock().expect("no client panics while counting");
        let count = answered.entry(process).or_insert(0);
        *count += 1;
        let has_enough = *count >= requests;
        let served = answered.values().filter(|count| **count >= requests);
        if served.count() as u32 >= workers {
            return Ok(());
        }
        pace = match has_enough {
            true => Pace::Held,
            false => Pace::Full,
        };
        // On to a worker that has served less.
        connection = (!has_enough && !response.last).then_some(open);
    }
    Ok(())
}

fn connect(port: u16) -> io::Result<BufReader<TcpStream>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(BufReader::new(stream))
}

fn ask(connection: &mut BufReader<TcpStream>, path: &str, pace: Pace) -> io::Result<Response> {
    let hold = match pace {
        Pace::Held => "X-Hold: 0.1\r\n",
        Pace::Full => "",
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{hold}\r\n");
    connection.get_mut().write_all(request.as_bytes())?;
    http::receive(connection)
}

/// The process that gave a good answer.
fn right(response: &Response) -> io::Result<i32> {
    let bad = |text: String| Err(io::Error::other(text));
    match response.process {
        _ if response.status != 200 => bad(format!("answered {}", response.status)),
        Some(process) if !response.body.is_empty() => Ok(process),
        _ => bad("not an answer of the project".into()),
    }
}
