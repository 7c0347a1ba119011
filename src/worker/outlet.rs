//! The sending half of an HTTP connection: frames a response, hands it to the kernel at once, and
//! keeps what the socket does not take for the event loop to send.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::Shutdown;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::floor::Floor;
use super::gathering::MOST_DELAY;
use super::queue::{Failure, Gone, PARTS, Queue, offer};
use crate::http::Version;
use crate::http::response::{
    After, Asked, Body as Sending, Delimiter, Delivery, LAST_CHUNK, Method, ResponseHead,
    chunk_prefix, framing, write_head,
};
use crate::sys::clock::{self, Nanos};
use crate::sys::forks;
use crate::sys::socket::{self, Push};
use crate::wsgi::{Body, End, Start, Unsent, Wire, deadline};

/// Bodies up to this size are copied behind their head: one buffer is cheaper than two.
const COPY: usize = 16 * 1024;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Whole,
    /// The application failed midway: what waits is sent, then the connection closed.
    Cut,
    Gone,
    /// The client has not taken anything for too long.
    Stalled,
}

/// What is left to do with the connection after a response or a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Bytes wait for the socket.
    Pending,
    Persist,
    Close,
    /// Close so that the client cannot take what it has for the whole.
    Abort,
}

pub struct Outlet {
    socket: Arc<OwnedFd>,
    floor: &'static Floor,
    /// Blocks of this response are gathered.
    gathers: bool,
    /// When the last block was sent on its own.
    pushed: Nanos,
    asked: Asked,
    delivery: Option<Delivery>,
    condition: Condition,
    /// What waits for the socket.
    queue: Queue,
    assembly: Vec<u8>,
    /// Bytes that may wait while an iterator goes on.
    bound: usize,
    patience: Duration,
    sent: u64,
    /// Bytes of the response's head.
    head: usize,
    /// The rendered fields of the response, if they are wanted.
    kept: Option<Vec<u8>>,
    transport: Transport,
    /// How the last bytes of a response go: those that the end of the connection follows at once can
    /// wait for it.
    last: Push,
}

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
}

impl Outlet {
    pub fn new(
        socket: OwnedFd,
        transport: Transport,
        floor: &'static Floor,
        (bound, patience): (usize, Duration),
    ) -> Self {
        Self {
            socket: Arc::new(socket),
            floor,
            gathers: false,
            pushed: 0,
            asked: Asked {
                version: Version::Http11,
                method: Method::Other,
                after: After::Close,
            },
            delivery: None,
            condition: Condition::Whole,
            queue: Queue::default(),
            assembly: Vec::new(),
            bound,
            patience,
            transport,
            last: Push::Now,
            sent: 0,
            head: 0,
            kept: None,
        }
    }

    /// From now on the fields of each response can be asked for.
    pub fn keep_fields(&mut self) {
        self.kept.get_or_insert_default();
    }

    pub fn kept_fields(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    pub fn head_length(&self) -> u64 {
        self.head as u64
    }

    /// Prepares for the response to the next request.
    pub fn expect(&mut self, asked: Asked) {
        self.asked = asked;
        self.delivery = None;
        self.last = Push::Now;
        self.head = 0;
        if let Some(kept) = &mut self.kept {
            kept.clear();
        }
    }

    pub fn share_socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// Nothing waits for the socket, and nothing went wrong.
    pub fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.condition == Condition::Whole
    }

    /// Sends the end of the connection, with what was held back for it in one segment. The close alone
    /// would drop that if the client has sent something more: it would be a reset (RFC 9112 §9.6).
    pub fn send_end(&self) {
        if self.last == Push::MoreFollows {
            let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        }
    }

    pub fn is_gone(&self) -> bool {
        matches!(self.condition, Condition::Gone | Condition::Stalled)
    }

    /// Bytes handed to the kernel since the last call.
    pub fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    pub fn verdict(&self) -> Verdict {
        match self.condition {
            Condition::Gone => Verdict::Close,
            Condition::Stalled => Verdict::Abort,
            _ if !self.queue.is_empty() => Verdict::Pending,
            Condition::Cut => match self.delivery.map(|delivery| delivery.delimiter) {
                // The end of the connection would look like the end of the body.
                Some(Delimiter::Close) => Verdict::Abort,
                _ => Verdict::Close,
            },
            Condition::Whole => match self.delivery.map_or(After::Close, Delivery::after) {
                After::Persist => Verdict::Persist,
                After::Close => Verdict::Close,
            },
        }
    }

    /// Sends bytes of the server's own (an interim response, a refusal) behind what waits.
    pub fn send_plain(&mut self, py: Python<'_>, bytes: &[u8]) {
        self.assembly.clear();
        self.assembly.extend_from_slice(bytes);
        let _ = self.dispatch(py, &[], b"");
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self, py: Python<'_>) -> Verdict {
        if !self.is_gone() && self.push(py).is_err() {
            self.give_up(Condition::Gone);
        }
        self.verdict()
    }

    /// Sends from the queue as far as the socket takes it.
    fn push(&mut self, py: Python<'_>) -> Result<(), Gone> {
        match self.queue.send(py, self.socket.as_fd(), &mut self.sent) {
            Ok(()) => Ok(()),
            Err(Failure::Gone) => Err(Gone),
            Err(Failure::File) => {
                self.give_up(Condition::Cut);
                Ok(())
            }
        }
    }

    fn give_up(&mut self, condition: Condition) {
        self.condition = condition;
        self.queue.clear();
    }

    /// Sends `assembly`, then `blocks`, then `tail`; what is not taken is queued.
    fn dispatch(
        &mut self,
        py: Python<'_>,
        blocks: &[Bound<'_, PyBytes>],
        tail: &[u8],
    ) -> Result<(), Gone> {
        let size: usize = blocks.iter().map(|block| block.as_bytes().len()).sum();
        if size <= COPY {
            for block in blocks {
                self.assembly.extend_from_slice(block.as_bytes());
            }
            self.assembly.extend_from_slice(tail);
            if !self.queue.is_empty() {
                self.queue.push_bytes(&self.assembly, 0);
                return self.push(py);
            }
            if self.assembly.is_empty() {
                return Ok(());
            }
            let parts = [IoSlice::new(&self.assembly)];
            let taken = offer(self.socket.as_fd(), &parts, self.last)?;
            self.sent += taken as u64;
            self.queue.push_bytes(&self.assembly, taken);
            return Ok(());
        }
        // Large blocks are referred to, never copied.
        let mut taken = 0;
        if self.queue.is_empty() && blocks.len() < PARTS - 1 {
            let mut parts = Vec::with_capacity(blocks.len() + 2);
            parts.push(IoSlice::new(&self.assembly));
            parts.extend(blocks.iter().map(|block| IoSlice::new(block.as_bytes())));
            parts.push(IoSlice::new(tail));
            taken = offer(self.socket.as_fd(), &parts, Push::Now)?;
            self.sent += taken as u64;
        }
        self.queue.push_bytes(&self.assembly, taken);
        taken = taken.saturating_sub(self.assembly.len());
        for block in blocks {
            self.queue.push_object(block, taken);
            taken = taken.saturating_sub(block.as_bytes().len());
        }
        self.queue.push_bytes(tail, taken);
        if blocks.len() >= PARTS - 1 {
            return self.push(py);
        }
        Ok(())
    }

    /// Keeps an application that produces faster than its client reads from filling the memory.
    fn wait_for_reader(&mut self, py: Python<'_>) -> Result<(), Unsent> {
        let patience = i32::try_from(self.patience.as_millis()).unwrap_or(i32::MAX);
        while self.queue.bytes() > self.bound {
            let before = self.queue.bytes();
            let socket = self.socket.as_fd();
            let wait = || socket::wait_writable(socket, patience);
            let waited = deadline::suspended(|| py.detach(wait));
            match waited {
                Ok(true) => self.push(py)?,
                Ok(false) | Err(_) => {
                    self.give_up(Condition::Stalled);
                    return Err(Unsent::Gone);
                }
            }
            // Interrupted by a signal: its Python handler may want to run, and may raise.
            if self.queue.bytes() == before {
                py.check_signals().map_err(Unsent::Interrupted)?;
            }
        }
        Ok(())
    }

    fn send_parts(
        &mut self,
        py: Python<'_>,
        start: Option<Start<'_>>,
        body: Body<'_, '_>,
        end: End,
    ) -> Result<(), Unsent> {
        self.assembly.clear();
        let gathered_at = match (&start, &body, end) {
            (None, Body::Blocks(blocks), End::Open) => self.gathers_at(blocks),
            _ => None,
        };
        if gathered_at.is_none() && self.gathers {
            self.take_gathered()?;
        }
        if let Some(Start { response, length }) = start {
            if !self.floor.begins_response() {
                return Err(Unsent::Gone);
            }
            self.pushed = 0;
            let delivery = framing(
                self.asked,
                response.status,
                response.declared_length,
                length,
            );
            self.delivery = Some(delivery);
            let head = ResponseHead {
                status: &response.status_line,
                fields: &response.fields,
                date: (!response.has_date).then_some(&response.date),
                server: (!response.has_server).then_some(b"rswsgi"),
                delivery,
            };
            write_head(&mut self.assembly, &head);
            self.head = self.assembly.len();
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(&response.fields);
            }
        }
        let delivery = self.delivery.expect("the first call brings the head");
        if end == End::Final && delivery.after() == After::Close && self.transport == Transport::Tcp
        {
            self.last = Push::MoreFollows;
        }
        if delivery.body == Sending::Discard {
            return Ok(self.dispatch(py, &[], b"")?);
        }
        let size = match &body {
            Body::Blocks(blocks) => blocks.iter().map(|block| block.as_bytes().len()).sum(),
            Body::Plain(bytes) => bytes.len(),
            Body::File { length, .. } => usize::try_from(*length).unwrap_or(usize::MAX),
        };
        let mut tail: &[u8] = b"";
        if delivery.delimiter == Delimiter::Chunked {
            if size > 0 {
                let mut room = [0; 18];
                self.assembly
                    .extend_from_slice(chunk_prefix(size, &mut room));
            }
            tail = match (size > 0, end != End::Open) {
                (true, true) => b"\r\n0\r\n\r\n",
                (true, false) => b"\r\n",
                (false, true) => LAST_CHUNK,
                (false, false) => b"",
            };
        }
        match body {
            Body::Blocks(blocks) => match gathered_at {
                Some(now) => self.gather(py, blocks, tail, now)?,
                None => self.dispatch(py, blocks, tail)?,
            },
            Body::Plain(bytes) => {
                self.assembly.extend_from_slice(bytes);
                self.dispatch(py, &[], tail)?;
            }
            Body::File {
                file,
                offset,
                length,
            } => {
                self.queue.push_bytes(&self.assembly, 0);
                self.queue.push_file(file, offset, length);
                self.queue.push_bytes(tail, 0);
                self.push(py)?;
            }
        }
        // What is complete needs nobody to wait for it.
        if end == End::Open {
            if gathered_at.is_none() {
                self.pushed = clock::now();
            }
            self.wait_for_reader(py)?;
        }
        Ok(())
    }

    /// Whether these blocks, which are not the last ones, may wait for others: they come soon after what
    /// was sent before. The time.
    fn gathers_at(&self, blocks: &[Bound<'_, PyBytes>]) -> Option<Nanos> {
        let size: usize = blocks.iter().map(|block| block.as_bytes().len()).sum();
        if size > COPY || !self.queue.is_empty() {
            return None;
        }
        let now = clock::now();
        (self.gathers || now < self.pushed + MOST_DELAY).then_some(now)
    }

    fn gather(
        &mut self,
        py: Python<'_>,
        blocks: &[Bound<'_, PyBytes>],
        tail: &[u8],
        now: Nanos,
    ) -> Result<(), Gone> {
        for block in blocks {
            self.assembly.extend_from_slice(block.as_bytes());
        }
        self.assembly.extend_from_slice(tail);
        self.gathers = true;
        let due = self.floor.gathering.add(&self.socket, &self.assembly, now);
        if due.is_some_and(|due| self.floor.look_by(due)) {
            return Ok(());
        }
        self.assembly.clear();
        self.take_gathered()?;
        self.pushed = now;
        self.dispatch(py, &[], b"")
    }

    /// Puts what was gathered where the next bytes are assembled.
    fn take_gathered(&mut self) -> Result<(), Gone> {
        self.gathers = false;
        let given = self.floor.gathering.give_back(&mut self.assembly);
        self.sent += given.sent;
        match given.has_failed {
            true => Err(Gone),
            false => Ok(()),
        }
    }

    /// The application gives nothing more: what is gathered waits for the event loop.
    pub fn end_gathering(&mut self) {
        if self.gathers {
            self.assembly.clear();
            match self.take_gathered() {
                Ok(()) => self.queue.push_bytes(&self.assembly, 0),
                Err(Gone) => self.give_up(Condition::Gone),
            }
        }
    }

    /// Another has answered.
    pub fn abandon(&mut self) {
        self.give_up(Condition::Gone);
    }
}

impl Wire for Outlet {
    fn send(
        &mut self,
        py: Python<'_>,
        start: Option<Start<'_>>,
        body: Body<'_, '_>,
        end: End,
    ) -> Result<(), Unsent> {
        // A forked child has no business with the connections of its parent.
        if self.is_gone() || forks::is_child() {
            return Err(Unsent::Gone);
        }
        let result = self.send_parts(py, start, body, end);
        if let Err(Unsent::Gone) = result
            && !self.is_gone()
        {
            self.give_up(Condition::Gone);
        }
        result
    }

    fn cut(&mut self) {
        if self.condition == Condition::Whole {
            self.condition = Condition::Cut;
        }
    }
}
