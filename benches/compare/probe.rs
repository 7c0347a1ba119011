//! Asks a server one question before it is measured: is the answer right, and what does the server
//! do with connections? A small client of its own, since a load generator counts wrong bodies too.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, Response};
use crate::load::Workload;
use crate::process::Running;

const START_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a second client waits beside one that keeps its connection open.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a server treats the connections of its clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// Keeps connections open and serves all of them.
    Keeps,
    /// Keeps one connection per worker open and serves no other meanwhile.
    KeepsOne,
    /// Closes after each response. The client may have wished it.
    Closes,
    /// Keeps the connection although the client wished its end.
    IgnoresClose,
}

/// Waits until the server answers at all, then insists on the right answer.
pub fn wait_until_right(
    running: &mut Running,
    port: u16,
    workload: &Workload,
    workers: u32,
) -> Result<Manners, String> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Some(reason) = running.gone() {
            return Err(reason);
        }
        match ask(port, workload, ANSWER_LIMIT) {
            Ok((connection, response)) => {
                return judge(connection, response, port, workload, workers);
            }
            Err(error) if Instant::now() >= deadline => {
                let words = running.last_words();
                return Err(format!("no answer within {START_LIMIT:?}, {error}{words}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn judge(
    mut connection: BufReader<TcpStream>,
    response: Response,
    port: u16,
    workload: &Workload,
    workers: u32,
) -> Result<Manners, String> {
    right(&response, workload)?;
    if workload.closes() {
        connection.get_ref().set_read_timeout(Some(PATIENCE)).ok();
        return Ok(match connection.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Manners::IgnoresClose,
            _ => Manners::Closes,
        });
    }
    if response.last {
        return Ok(Manners::Closes);
    }
    let again = exchange(&mut connection, workload)
        .map_err(|error| format!("second request on a connection: {error}"))?;
    right(&again, workload)?;
    // One idle connection per worker, the first among them, and then one more client.
    let mut idle = vec![connection];
    for _ in 0..workers {
        match ask(port, workload, PATIENCE) {
            Ok((connection, response)) => {
                right(&response, workload)?;
                idle.push(connection);
            }
            Err(_) => return Ok(Manners::KeepsOne),
        }
    }
    Ok(Manners::Keeps)
}

fn right(response: &Response, workload: &Workload) -> Result<(), String> {
    if response.status != 200 {
        return Err(format!("answers with status {}", response.status));
    }
    let expected = workload.answer.bytes();
    if response.body != expected {
        return Err(format!(
            "wrong body of {} bytes instead of {}",
            response.body.len(),
            expected.len()
        ));
    }
    Ok(())
}

fn ask(
    port: u16,
    workload: &Workload,
    limit: Duration,
) -> io::Result<(BufReader<TcpStream>, Response)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut connection = BufReader::new(stream);
    let response = exchange(&mut connection, workload)?;
    Ok((connection, response))
}

fn exchange(connection: &mut BufReader<TcpStream>, workload: &Workload) -> io::Result<Response> {
    let mut request = format!(
        "{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        workload.method(),
        workload.path
    );
    for (name, value) in workload.headers {
        request += &format!("{name}: {value}\r\n");
    }
    if workload.upload > 0 {
        request += &format!("Content-Length: {}\r\n", workload.upload);
    }
    request += "\r\n";
    let mut request = request.into_bytes();
    request.resize(request.len() + workload.upload, b'x');
    connection.get_mut().write_all(&request)?;
    http::receive(connection)
}
