//! Bytes that the socket of a connection, or the pipe of one over WAS, has not taken yet: kept, referred to,
//! or in a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::sys::socket::{self, Push};
use crate::wsgi::Unsent;

/// Buffers per `sendmsg(2)`.
pub const PARTS: usize = 64;
/// Bytes per `sendfile(2)`.
const FILE_PIECE: usize = 4 << 20;
/// Bytes after which other connections have their turn, however fast the client takes more.
const TURN: usize = 4 << 20;

enum Segment {
    Bytes(Vec<u8>, usize),
    Object(Py<PyBytes>, usize),
    File { file: File, offset: u64, left: u64 },
}

/// Nobody takes what is left.
#[derive(Debug)]
pub struct Gone;

impl From<Gone> for Unsent {
    fn from(_: Gone) -> Self {
        Unsent::Gone
    }
}

pub enum Failure {
    /// See [`Gone`].
    Gone,
    /// A file has become shorter than its announced length, or cannot be read.
    File,
}

impl From<Gone> for Failure {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

pub enum Next<'a> {
    Memory(Vec<IoSlice<'a>>, Push),
    File {
        file: &'a File,
        offset: u64,
        length: usize,
    },
}

/// No segment of it is empty: that would look like a socket that takes nothing.
#[derive(Default)]
pub struct Queue {
    segments: VecDeque<Segment>,
    /// In memory, of all segments.
    bytes: usize,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn clear(&mut self) {
        self.segments.clear();
        self.bytes = 0;
    }

    /// Adds what comes behind the first `taken` bytes.
    pub fn push_bytes(&mut self, bytes: &[u8], taken: usize) {
        if taken < bytes.len() {
            self.bytes += bytes.len() - taken;
            let segment = Segment::Bytes(bytes[taken..].to_vec(), 0);
            self.segments.push_back(segment);
        }
    }

    /// The same without a copy.
    pub fn push_object(&mut self, object: &Bound<'_, PyBytes>, taken: usize) {
        let length = object.as_bytes().len();
        if taken < length {
            self.bytes += length - taken;
            let segment = Segment::Object(object.clone().unbind(), taken);
            self.segments.push_back(segment);
        }
    }

    pub fn push_file(&mut self, file: File, offset: u64, left: u64) {
        if left > 0 {
            let segment = Segment::File { file, offset, left };
            self.segments.push_back(segment);
        }
    }

    /// Sends until it is empty, the socket takes no more or others are to have their turn; adds to `sent`.
    ///
    /// # Errors
    /// What has been sent before counts all the same.
    pub fn send(
        &mut self,
        py: Python<'_>,
        socket: BorrowedFd<'_>,
        sent: &mut u64,
    ) -> Result<(), Failure> {
        let mut turn = 0;
        while turn < TURN
            && let Some(next) = self.next(py)
        {
            let taken = match next {
                Next::Memory(parts, push) => offer(socket, &parts, push)?,
                Next::File {
                    file,
                    offset,
                    length,
                } => send_file(socket, file, offset, length)?,
            };
            if taken == 0 {
                break;
            }
            *sent += taken as u64;
            turn += taken;
            self.consume(py, taken);
        }
        Ok(())
    }

    /// What is to be sent next: a piece of a file, or what is in memory before the next one.
    pub fn next<'a>(&'a self, py: Python<'a>) -> Option<Next<'a>> {
        if let Segment::File { file, offset, left } = self.segments.front()? {
            return Some(Next::File {
                file,
                offset: *offset,
                length: usize::try_from(*left).unwrap_or(FILE_PIECE).min(FILE_PIECE),
            });
        }
        let mut parts = Vec::with_capacity(self.segments.len().min(PARTS));
        let mut push = Push::Now;
        for segment in self.segments.iter().take(PARTS) {
            match segment {
                Segment::Bytes(bytes, at) => parts.push(IoSlice::new(&bytes[*at..])),
                Segment::Object(object, at) => {
                    parts.push(IoSlice::new(&object.as_bytes(py)[*at..]));
                }
                Segment::File { .. } => {
                    push = Push::MoreFollows;
                    break;
                }
            }
        }
        Some(Next::Memory(parts, push))
    }

    /// So many bytes of what was next have been sent.
    pub fn consume(&mut self, py: Python<'_>, mut taken: usize) {
        while taken > 0 {
            let Some(front) = self.segments.front_mut() else {
                return;
            };
            let (at, length) = match front {
                Segment::Bytes(bytes, at) => (at, bytes.len()),
                Segment::Object(object, at) => (at, object.as_bytes(py).len()),
                Segment::File { offset, left, .. } => {
                    *offset += taken as u64;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.segments.pop_front();
                    }
                    return;
                }
            };
            let used = taken.min(length - *at);
            *at += used;
            taken -= used;
            self.bytes -= used;
            if *at == length {
                self.segments.pop_front();
            }
        }
    }
}

/// `Ok(0)`: the socket takes nothing now.
pub fn offer(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], push: Push) -> Result<usize, Gone> {
    match socket::send(socket, parts, push) {
        Ok(taken) => Ok(taken),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(_) => Err(Gone),
    }
}

/// The same for a file.
fn send_file(
    socket: BorrowedFd<'_>,
    file: &File,
    offset: u64,
    length: usize,
) -> Result<usize, Failure> {
    match socket::send_file(socket, file.as_fd(), offset, length) {
        Ok(0) => Err(Failure::File),
        Ok(taken) => Ok(taken),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Ok(0),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected => {
                Err(Failure::Gone)
            }
            // It is the file that cannot be read.
            _ => Err(Failure::File),
        },
    }
}
