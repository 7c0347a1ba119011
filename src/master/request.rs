//! One request that is answered without a server: the application sees the environ that a worker would give
//! it, and the response goes to standard output.

#![forbid(unsafe_code)]

use std::any::Any;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr};

use nix::sys::signal::Signal;
use pyo3::prelude::*;

use super::prepare::{load, origins, pages, python_failure, system, take_logs};
use super::{CONFIG, INTERNAL};
use crate::config::{Ask, ShowHead};
use crate::http::forwarded::{Forwarded, Scheme, Sender};
use crate::http::{self, Parsed};
use crate::link::{self, Assignment, Report};
use crate::log;
use crate::python::{Failure, Startup, Threads, leave};
use crate::scoreboard::Scoreboard;
use crate::sys::clock::{self, Nanos};
use crate::sys::process::exit_now;
use crate::sys::seqpacket::Channel;
use crate::sys::signal::Inbox;
use crate::sys::{fd, title};
use crate::worker;
use crate::wsgi::{
    Application, Body, End, FieldPolicy, Outcome, Peer, Request, RequestBody, Start, Unsent, Wire,
    deadline,
};

/// The whole life of a master that is started for one request.
pub fn answer(
    py: Python<'_>,
    supervisor: &Channel,
    assignment: &Assignment,
    ask: &Ask,
    has_body: bool,
) -> ! {
    title::set("rswsgi-request", "rswsgi: request");
    log::set_identity("request".into());
    let fail = |failure: Failure| -> ! {
        let report = Report::failed(failure.reason, failure.traceback);
        let _ = link::send(supervisor, &report);
        exit_now(CONFIG)
    };
    let streams = match Streams::take(has_body) {
        Ok(streams) => streams,
        Err(error) => fail(system("cannot take over the standard streams", &error)),
    };
    // Ctrl-C reaches the whole foreground group; it ends the process that has started this one, and with
    // it this one.
    let signals = match Inbox::installed(&[Signal::SIGINT, Signal::SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => fail(system("cannot install signal handlers", &error)),
    };
    let loaded = Startup::new(py)
        .map_err(|error| python_failure(py, &error))
        .and_then(|startup| Ok((application(py, &startup, assignment)?, startup)));
    let (mut application, startup) = match loaded {
        Ok(loaded) => loaded,
        Err(failure) => fail(failure),
    };
    let report = match run(py, &mut application, streams, ask) {
        Ok(report) => report,
        Err(failure) => fail(failure),
    };
    startup.flush(py);
    if link::send(supervisor, &report).is_err() {
        exit_now(INTERNAL);
    }
    drop(signals);
    leave(py, &startup, Threads::Abandon, 0)
}

/// Where the body of the request comes from and the response goes to. What the application prints goes
/// elsewhere.
struct Streams {
    body: Option<File>,
    output: File,
}

impl Streams {
    fn take(has_body: bool) -> io::Result<Streams> {
        fd::occupy_standard()?;
        let output = fd::duplicate(1)?;
        nix::unistd::dup2_stdout(io::stderr())?;
        let mut body = None;
        if has_body {
            body = Some(fd::duplicate(0)?.into());
            nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        }
        Ok(Streams {
            body,
            output: output.into(),
        })
    }
}

fn application(
    py: Python<'_>,
    startup: &Startup,
    assignment: &Assignment,
) -> Result<Application, Failure> {
    let settings = &assignment.settings;
    take_logs(assignment).map_err(|error| system("cannot map the logs", &error))?;
    // For rswsgi.extend_deadline(), which looks there for the running request.
    let scoreboard = fd::claim(assignment.scoreboard)
        .and_then(Scoreboard::map)
        .map_err(|error| system("cannot map the scoreboard", &error))?;
    let row = Box::leak(Box::new(scoreboard)).row(0);
    deadline::belongs_to(row);
    let callable = load(py, startup, settings)?;
    let pages = pages(settings.error_pages.as_deref())?;
    row.begin_request(b"", clock::now(), Nanos::MAX);
    let origins = origins(&[], settings);
    let fields = FieldPolicy {
        underscores: worker::underscores(settings),
        believed: worker::believed(settings),
    };
    Application::new(py, callable, &origins, fields, pages)
        .map_err(|error| python_failure(py, &error))
}

fn run(
    py: Python<'_>,
    application: &mut Application,
    streams: Streams,
    ask: &Ask,
) -> Result<Report, Failure> {
    let refused = |what: &str| Failure {
        reason: format!("it is no valid request ({what})"),
        traceback: String::new(),
    };
    let length = streams.body.as_ref().map(File::metadata).transpose();
    let length = length.map_err(|error| system("cannot look at the body", &error))?;
    let length = length.map(|metadata| metadata.len());
    let bytes = ask.head(length);
    let mut scratch = http::scratch();
    let head = match http::head::parse(bytes.as_bytes(), &http::Limits::default(), &mut scratch) {
        Ok(Parsed::Complete(head)) => head,
        Ok(Parsed::Partial) => return Err(refused("it has no end")),
        Err(refusal) => return Err(refused(refusal.name())),
    };
    let in_memory;
    let body = match (streams.body, length) {
        (Some(mut file), Some(length)) if length <= IN_MEMORY => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)
                .map_err(|error| system("cannot read the body", &error))?;
            in_memory = bytes;
            RequestBody::Memory(&in_memory)
        }
        (Some(file), Some(length)) => RequestBody::File(file, length),
        _ => RequestBody::None,
    };
    let sender = match ask.to.is_https {
        true => Sender::Proxy(Forwarded {
            scheme: Some(Scheme::Https),
            ..Forwarded::default()
        }),
        false => Sender::Unjudged,
    };
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let asked = Request {
        head: &head,
        body,
        origin: 0,
        sender: &sender,
        peer: &Peer::new(py, Some(client)),
        deadline: Nanos::MAX,
        id: None,
        was: None,
    };
    let printer = Printer::new(streams.output, ask.show_head);
    let now = clock::unix_seconds();
    let (wire, status, outcome) = application.serve(py, asked, Box::new(printer), now);
    let wire: Box<dyn Any> = wire;
    let broken = wire
        .downcast::<Printer>()
        .ok()
        .and_then(|p| p.finish().err());
    if let Some(error) = broken {
        let text = format!("cannot write to standard output: {error}");
        return Ok(Report::answered(status, Some(text)));
    }
    let failure = match outcome {
        Outcome::Complete | Outcome::ClientGone => None,
        Outcome::Failed(traceback) | Outcome::TimedOut(traceback) => {
            Some(format!("the application failed\n{traceback}"))
        }
        Outcome::Broken(what) => Some(what),
    };
    Ok(Report::answered(status, failure))
}

/// A larger body is given as the file that it is.
const IN_MEMORY: u64 = 1 << 20;

/// Prints a response as it comes.
struct Printer {
    output: File,
    show_head: ShowHead,
    /// The last byte that was printed, if any.
    last: Option<u8>,
    condition: Condition,
}

enum Condition {
    Well,
    /// Nobody reads any more.
    Closed,
    Failed(io::Error),
}

impl Printer {
    fn new(output: File, show_head: ShowHead) -> Self {
        Self {
            output,
            show_head,
            last: None,
            condition: Condition::Well,
        }
    }

    fn print(&mut self, bytes: &[u8]) -> Result<(), Unsent> {
        if let Some(last) = bytes.last() {
            self.last = Some(*last);
        }
        let done = self.output.write_all(bytes);
        self.note(done)
    }

    fn note(&mut self, done: io::Result<()>) -> Result<(), Unsent> {
        let Err(error) = done else {
            return Ok(());
        };
        self.condition = match error.kind() {
            ErrorKind::BrokenPipe => Condition::Closed,
            _ => Condition::Failed(error),
        };
        Err(Unsent::Gone)
    }

    fn head(&mut self, start: &Start<'_>) -> Result<(), Unsent> {
        let response = start.response;
        let mut head = [b"HTTP/1.1 ", &response.status_line[..], b"\r\n"].concat();
        head.extend_from_slice(&response.fields);
        if let Some(length) = response.declared_length.or(start.length) {
            head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        match self.show_head {
            ShowHead::Stdout => self.print(&head),
            ShowHead::Stderr => {
                head.retain(|byte| *byte != b'\r');
                // Whoever has closed it does not want to know.
                let _ = io::stderr().write_all(&head);
                Ok(())
            }
            ShowHead::Nowhere => Ok(()),
        }
    }

    fn file(&mut self, mut file: File, offset: u64, length: u64) -> Result<(), Unsent> {
        let copied = file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| io::copy(&mut file.take(length), &mut self.output));
        self.last = None;
        self.note(copied.map(drop))
    }

    /// On a terminal the prompt is to stand at the start of a line.
    fn finish(mut self) -> io::Result<()> {
        if self.output.is_terminal() && self.last.is_some_and(|last| last != b'\n') {
            let _ = self.print(b"\n");
        }
        match self.condition {
            Condition::Well | Condition::Closed => Ok(()),
            Condition::Failed(error) => Err(error),
        }
    }
}

impl Wire for Printer {
    fn send(
        &mut self,
        py: Python<'_>,
        start: Option<Start<'_>>,
        body: Body<'_, '_>,
        _end: End,
    ) -> Result<(), Unsent> {
        if !matches!(self.condition, Condition::Well) {
            return Err(Unsent::Gone);
        }
        if let Some(start) = start {
            self.head(&start)?;
        }
        match body {
            Body::Blocks(blocks) => {
                use pyo3::types::PyBytesMethods;
                let blocks: Vec<&[u8]> = blocks.iter().map(|block| block.as_bytes()).collect();
                py.detach(|| blocks.iter().try_for_each(|block| self.print(block)))
            }
            Body::Plain(bytes) => py.detach(|| self.print(bytes)),
            Body::File {
                file,
                offset,
                length,
            } => py.detach(|| self.file(file, offset, length)),
        }
    }

    fn cut(&mut self) {}
}
