//! The sending half of a WAS connection: head and length go out as packets, the body into its pipe. What
//! the pipe does not take is kept for the event loop to write.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pyo3::prelude::*;

use super::line::{Hold, Line, Lost};
use crate::sys::clock::{self, Nanos};
use crate::sys::{forks, pipe};
use crate::was::{Content, Head, Metric, check_fields, client_status};
use crate::worker::queue::{Gone, Next, Queue};
use crate::wsgi::{Body, End, Response, Start, Unsent, Wire, deadline};

/// How long an iterator that waits for its reader sleeps at most before it looks whether somebody else
/// has answered the client.
const LOOK: Duration = Duration::from_millis(100);

/// What the response is an answer to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    pub is_head: bool,
    pub wants_metrics: bool,
    pub began: Nanos,
}

pub struct Spout {
    line: Arc<Line>,
    asked: Asked,
    /// What the head has said; nothing before it.
    content: Option<Content>,
    /// What waits for the pipe.
    queue: Queue,
    /// The pipe has taken less than it was given: it is full until the event loop says otherwise.
    is_full: bool,
    /// Bytes of the body so far, written or not.
    given: u64,
    /// Bytes that may wait while an iterator goes on.
    bound: usize,
    patience: Duration,
    /// The rendered fields of the response, if they are wanted.
    kept: Option<Vec<u8>>,
}

impl Spout {
    pub fn new(line: Arc<Line>, bound: usize, patience: Duration) -> Self {
        Self {
            line,
            asked: Asked::default(),
            content: None,
            queue: Queue::default(),
            is_full: false,
            given: 0,
            bound,
            patience,
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

    /// Prepares for the response to the next request.
    pub fn expect(&mut self, asked: Asked) {
        self.asked = asked;
        self.content = None;
        self.is_full = false;
        self.drop_rest();
        self.given = 0;
        if let Some(kept) = &mut self.kept {
            kept.clear();
        }
    }

    /// Body bytes wait for the pipe.
    pub fn is_pending(&self) -> bool {
        !self.queue.is_empty()
    }

    fn drop_rest(&mut self) {
        self.queue.clear();
    }

    /// Sends a whole response of the server's own. `fields`: rendered.
    pub fn send_plain(&mut self, py: Python<'_>, status: u16, fields: &[u8], page: &[u8]) {
        let length = page.len() as u64;
        let content = Content::of(self.asked.is_head, status, Some(length));
        let line = Arc::clone(&self.line);
        let mut hold = line.hold();
        let head = Head {
            status: client_status(status),
            fields,
            content,
        };
        hold.respond(&head, &[]);
        self.content = Some(content);
        if matches!(content, Content::Body { .. }) {
            self.enqueue(page);
        }
        let _ = self.push(py, &mut hold);
        hold.speak();
    }

    /// The pipe may have room again.
    pub fn look_again(&mut self) {
        self.is_full = false;
    }

    /// Writes what waits, as far as the pipe takes it. Whether some of it went.
    pub fn flush(&mut self, py: Python<'_>) -> bool {
        let line = Arc::clone(&self.line);
        let mut hold = line.hold();
        let before = hold.session().sent();
        let _ = self.push(py, &mut hold);
        hold.speak();
        hold.session().sent() > before
    }

    /// The rest will not come: the client is told.
    pub fn give_up(&mut self) {
        self.drop_rest();
        let mut hold = self.line.hold();
        hold.cut();
        hold.speak();
    }

    fn enqueue(&mut self, bytes: &[u8]) {
        self.given += bytes.len() as u64;
        self.queue.push_bytes(bytes, 0);
    }

    /// Writes from the queue until it is empty or the pipe takes no more.
    fn push(&mut self, py: Python<'_>, hold: &mut Hold<'_>) -> Result<(), Gone> {
        while !self.queue.is_empty() {
            if hold.lost().is_some() || !hold.session().is_writable() {
                self.drop_rest();
                return Err(Gone);
            }
            if self.is_full {
                return Ok(());
            }
            let Some(next) = self.queue.next(py) else {
                break;
            };
            let is_file = matches!(next, Next::File { .. });
            let written = match next {
                Next::File {
                    file,
                    offset,
                    length,
                } => match pipe::splice_from(file, offset, self.line.output(), length) {
                    // The file has become shorter than it was.
                    Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                    other => other,
                },
                Next::Memory(parts, _) => {
                    let whole: usize = parts.iter().map(|part| part.len()).sum();
                    let written = pipe::write(self.line.output(), &parts);
                    self.is_full = written.as_ref().is_ok_and(|count| *count < whole);
                    written
                }
            };
            match written {
                Ok(count) => {
                    hold.session_mut().was_written(count as u64);
                    self.queue.consume(py, count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_full = true;
                    return Ok(());
                }
                // It is the file that cannot be read.
                Err(error) if is_file && error.kind() != ErrorKind::BrokenPipe => {
                    self.drop_rest();
                    hold.cut();
                    return Ok(());
                }
                Err(_) => {
                    self.drop_rest();
                    hold.lose(Lost::Closed);
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }

    /// Keeps an application that produces faster than its client reads from filling the memory.
    fn wait_for_reader(&mut self, py: Python<'_>) -> Result<(), Unsent> {
        let line = Arc::clone(&self.line);
        let mut waited = Duration::ZERO;
        while self.queue.bytes() > self.bound {
            let watch = |fd, flags| PollFd::new(fd, flags);
            let mut fds = [
                watch(line.output(), PollFlags::POLLOUT),
                watch(line.control(), PollFlags::POLLIN),
            ];
            let look = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
            let wait = || poll(&mut fds, look);
            let ready = deadline::suspended(|| py.detach(wait));
            let before = self.queue.bytes();
            {
                let mut hold = line.hold();
                hold.attend();
                self.look_again();
                self.push(py, &mut hold)?;
                hold.speak();
            }
            match ready {
                _ if self.queue.bytes() < before => waited = Duration::ZERO,
                // The client has said something that is no progress.
                Ok(1..) => {}
                Ok(_) => waited += LOOK,
                // Its Python handler may want to run, and may raise.
                Err(_) => py.check_signals().map_err(Unsent::Interrupted)?,
            }
            if waited > self.patience {
                self.give_up();
                return Err(Unsent::Gone);
            }
        }
        Ok(())
    }

    fn metrics(&self) -> Vec<Metric> {
        if !self.asked.wants_metrics {
            return Vec::new();
        }
        let elapsed = clock::now().saturating_sub(self.asked.began);
        let metric = |name, value| Metric { name, value };
        vec![
            metric("rswsgi_requests", 1.0),
            metric("rswsgi_python_seconds", clock::seconds(elapsed) as f32),
        ]
    }

    fn send_parts(
        &mut self,
        py: Python<'_>,
        hold: &mut Hold<'_>,
        (start, body, end): (Option<Start<'_>>, Body<'_, '_>, End),
    ) -> Result<(), Gone> {
        match &start {
            Some(_) => {}
            // Nobody looks at the control channel while the application works between two blocks.
            None => hold.attend(),
        }
        if let Some(Start { response, length }) = start {
            let content = Content::of(self.asked.is_head, response.status, length);
            let head = Head {
                status: client_status(response.status),
                fields: &response.fields,
                content,
            };
            let metrics = match content {
                Content::Body { length: None } => Vec::new(),
                _ => self.metrics(),
            };
            hold.respond(&head, &metrics);
            self.content = Some(content);
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(&response.fields);
            }
        }
        if let Some(Content::Body { length }) = self.content {
            match body {
                Body::Plain(bytes) => self.enqueue(bytes),
                Body::Blocks(blocks) => {
                    for block in blocks {
                        self.given += block.as_bytes().len() as u64;
                        self.queue.push_object(block, 0);
                    }
                }
                Body::File {
                    file,
                    offset,
                    length,
                } => {
                    self.given += length;
                    self.queue.push_file(file, offset, length);
                }
            }
            if end != End::Open && length.is_none() {
                let metrics = self.metrics();
                hold.end(self.given, &metrics);
            }
        }
        self.look_again();
        // The body first: the packets wake the client.
        self.push(py, hold)?;
        hold.speak();
        match hold.lost().is_some() || hold.session().is_stopped() {
            true => Err(Gone),
            false => Ok(()),
        }
    }
}

impl Wire for Spout {
    fn check(&self, response: &Response) -> Result<(), String> {
        check_fields(&response.fields).map_err(|too_large| too_large.to_string())
    }

    fn send(
        &mut self,
        py: Python<'_>,
        start: Option<Start<'_>>,
        body: Body<'_, '_>,
        end: End,
    ) -> Result<(), Unsent> {
        // A forked child has no business with the connections of its parent.
        if forks::is_child() {
            return Err(Unsent::Gone);
        }
        let line = Arc::clone(&self.line);
        {
            let mut hold = line.hold();
            if hold.lost().is_some() {
                return Err(Unsent::Gone);
            }
            // Somebody has answered in our stead.
            if start.is_some() && !hold.session().is_fresh() {
                return Err(Unsent::Gone);
            }
            self.send_parts(py, &mut hold, (start, body, end))?;
        }
        // What is complete needs nobody to wait for it.
        if end == End::Open {
            self.wait_for_reader(py)?;
        }
        Ok(())
    }

    fn cut(&mut self) {
        // In a forked child the lock may be held by nobody who exists.
        if !forks::is_child() {
            self.give_up();
        }
    }
}
