//! The receiving half of a small HTTP client.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;

pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// The server closes the connection.
    pub last: bool,
    /// Of `X-Process`: who answered, where the application tells.
    pub process: Option<i32>,
}

/// Reads one response to its end.
pub fn receive(connection: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let status_line = line(connection)?;
    let (version, rest) = status_line.split_once(' ').ok_or_else(malformed)?;
    let status = rest
        .get(..3)
        .and_then(|s| s.parse().ok())
        .ok_or_else(malformed)?;
    let mut last = version != "HTTP/1.1";
    let mut length = None;
    let mut chunked = false;
    let mut process = None;
    loop {
        let field = line(connection)?.to_ascii_lowercase();
        let Some((name, value)) = field.split_once(':') else {
            break;
        };
        match (name, value.trim()) {
            ("connection", "close") => last = true,
            ("connection", "keep-alive") => last = false,
            ("transfer-encoding", "chunked") => chunked = true,
            ("content-length", value) => length = value.parse::<u64>().ok(),
            ("x-process", value) => process = value.parse().ok(),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(connection, &mut body)?;
    } else if let Some(length) = length {
        connection.take(length).read_to_end(&mut body)?;
    } else {
        connection.read_to_end(&mut body)?;
        last = true;
    }
    Ok(Response {
        status,
        body,
        last,
        process,
    })
}

fn read_chunks(connection: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = u64::from_str_radix(&line(connection)?, 16).map_err(|_| malformed())?;
        connection.take(size).read_to_end(body)?;
        line(connection)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed response")
}
