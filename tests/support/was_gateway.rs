//! A web server for tests: takes HTTP, speaks WAS. What is said of applications over HTTP can be said of
//! them over WAS with it.

use super::was_client::*;
use super::{MultiClient, WasClient};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

/// Serves until the test ends.
pub fn open(path: &Path, multi: MultiClient) {
    let listener = UnixListener::bind(path).expect("bind a socket in the test's directory");
    let multi = Arc::new(multi);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let multi = Arc::clone(&multi);
            // What fails here is seen by the test as the end of its connection.
            std::thread::spawn(move || serve(client, &multi));
        }
    });
}

fn serve(stream: UnixStream, multi: &MultiClient) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    let mut was = multi.connect();
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|count| *count > 0)?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut asking = Asking::new(number_of(&method), &target);
        let (mut length, mut closes) = (0, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let (name, value) = (name.to_lowercase(), value.trim());
            match name.as_str() {
                "content-length" => length = value.parse().ok()?,
                "connection" => closes = value == "close",
                _ => asking = asking.header(&format!("{name}={value}")),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if length > 0 {
            was.send(asking.opening());
            was.send(number(LENGTH, length as u64));
            was.put(&body);
        } else {
            was.send(asking.bytes());
        }
        pass_on(&mut was, &mut stream, method == "HEAD")?;
        if closes {
            return Some(());
        }
    }
}

fn number_of(method: &str) -> u32 {
    let all = [
        "", "HEAD", "GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE",
    ];
    let place = all.iter().position(|name| *name == method);
    place
        .and_then(|place| u32::try_from(place).ok())
        .unwrap_or(2)
}

/// `None`: the response was cut, or the client has gone.
fn pass_on(was: &mut WasClient, stream: &mut UnixStream, is_head: bool) -> Option<()> {
    let (mut status, mut fields) = (200, Vec::new());
    loop {
        let (command, payload) = was.next_packet()?;
        match command {
            STATUS => status = u32::from_ne_bytes(payload.try_into().ok()?),
            HEADER => {
                let at = payload.iter().position(|byte| *byte == b'=')?;
                fields.extend_from_slice(&payload[..at]);
                fields.extend_from_slice(b": ");
                fields.extend_from_slice(&payload[at + 1..]);
                fields.extend_from_slice(b"\r\n");
            }
            DATA => break,
            NO_DATA => {
                let length = match status {
                    204 | 304 => "",
                    _ if is_head => "",
                    _ => "content-length: 0\r\n",
                };
                return write_head(stream, status, &fields, length);
            }
            _ => {}
        }
    }
    let mut length = was.waiting_length();
    let is_chunked = length.is_none();
    let framing = match length {
        Some(length) => format!("content-length: {length}\r\n"),
        None => "transfer-encoding: chunked\r\n".into(),
    };
    write_head(stream, status, &fields, &framing)?;
    let mut sent = 0;
    loop {
        let most = length.map_or(u64::MAX, |length| length - sent);
        let piece = was.take_some(most);
        sent += piece.len() as u64;
        match (is_chunked, piece.is_empty()) {
            (_, true) => {}
            (true, _) => {
                write!(stream, "{:x}\r\n", piece.len()).ok()?;
                stream.write_all(&piece).ok()?;
                stream.write_all(b"\r\n").ok()?;
            }
            (false, _) => stream.write_all(&piece).ok()?,
        }
        if length == Some(sent) {
            if is_chunked {
                stream.write_all(b"0\r\n\r\n").ok()?;
            }
            return Some(());
        }
        if piece.is_empty()
            && let Some((command, payload)) = was.packet_or_body()?
        {
            match command {
                LENGTH => length = Some(u64::from_ne_bytes(payload.try_into().ok()?)),
                PREMATURE => return None,
                _ => {}
            }
        }
    }
}

fn write_head(stream: &mut UnixStream, status: u32, fields: &[u8], framing: &str) -> Option<()> {
    write!(stream, "HTTP/1.1 {status} Status\r\n").ok()?;
    // A server of HTTP has a clock (RFC 9110 §6.6.1).
    stream
        .write_all(b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n")
        .ok()?;
    stream.write_all(fields).ok()?;
    write!(stream, "{framing}\r\n").ok()
}
