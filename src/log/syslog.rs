//! The local syslog. The `syslog` crate has the socket and the names; the form of a message is ours,
//! because that of the crate tells the time, for which it needs the time zone, which the `time` crate
//! refuses to a process with more than one thread. The daemon knows what time it is. It is reconnected
//! when it was restarted.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;

use syslog::{Facility, LogFormat, Logger, LoggerBackend, Severity};

use super::form::{self, Form};
use super::writer::Sink;
use super::{Entry, Level};

/// The longest message; what is longer is cut. rsyslog takes 8 KiB by default.
const LONGEST: usize = 8 * 1024 - 256;

#[derive(Clone)]
struct Format {
    facility: Facility,
}

/// `<PRI>rswsgi[PID]: text`
struct Message<'a> {
    pid: u32,
    text: &'a str,
}

impl LogFormat<Message<'_>> for Format {
    fn format<W: Write>(
        &self,
        to: &mut W,
        severity: Severity,
        message: Message<'_>,
    ) -> syslog::Result<()> {
        let priority = self.facility as u8 | severity as u8;
        let Message { pid, text } = message;
        let text = &text[..text.floor_char_boundary(LONGEST)];
        // One write is one datagram.
        let datagram = format!("<{priority}>rswsgi[{pid}]: {text}");
        to.write_all(datagram.as_bytes())
            .map_err(syslog::Error::Write)
    }
}

pub struct Syslog {
    format: Format,
    socket: Option<PathBuf>,
    form: Form,
    logger: Option<Logger<LoggerBackend, Format>>,
}

impl Syslog {
    /// A daemon that is not there yet may come.
    pub fn new(facility: &str, socket: Option<PathBuf>, form: Form) -> Self {
        let facility = facility.parse().unwrap_or(Facility::LOG_DAEMON);
        let mut syslog = Self {
            format: Format { facility },
            socket,
            form,
            logger: None,
        };
        let _ = syslog.connect();
        syslog
    }

    fn connect(&mut self) -> io::Result<&mut Logger<LoggerBackend, Format>> {
        let format = self.format.clone();
        let logger = match &self.socket {
            Some(path) => syslog::unix_custom(format, path),
            None => syslog::unix(format),
        };
        Ok(self.logger.insert(logger.map_err(plain)?))
    }

    fn send(&mut self, level: Level, pid: u32, text: &str) -> io::Result<()> {
        let message = || Message { pid, text };
        if let Some(logger) = &mut self.logger
            && send(logger, level, message()).is_ok()
        {
            return Ok(());
        }
        self.logger = None;
        let logger = self.connect()?;
        send(logger, level, message())
    }
}

fn send(
    logger: &mut Logger<LoggerBackend, Format>,
    level: Level,
    message: Message<'_>,
) -> io::Result<()> {
    let done = match level {
        Level::Error => logger.err(message),
        Level::Warning => logger.warning(message),
        Level::Info => logger.info(message),
        Level::Debug => logger.debug(message),
    };
    done.map_err(plain)
}

/// The innermost reason, which is the one of the system.
fn plain(error: syslog::Error) -> io::Error {
    match error {
        syslog::Error::Write(error) | syslog::Error::Io(error) => error,
        syslog::Error::Initialization(inner) => match inner.downcast::<syslog::Error>() {
            Ok(inner) => plain(*inner),
            Err(other) => io::Error::other(match other.to_string().as_str() {
                "unix socket paths not found" => "no syslog daemon listens at /dev/log".to_owned(),
                text => text.to_owned(),
            }),
        },
    }
}

impl Sink for Syslog {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let pid = match entry.pid {
            0 => std::process::id(),
            pid => pid,
        };
        if self.form == Form::Json {
            return self.send(entry.level, pid, form::line(Form::Json, entry).trim_end());
        }
        // A message is a line.
        for line in entry.text.lines() {
            let text = match entry.is_output() {
                true => line.to_owned(),
                false => format!("{}: {line}", entry.who),
            };
            self.send(entry.level, pid, &text)?;
        }
        Ok(())
    }

    fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(lines);
        let pid = std::process::id();
        text.lines()
            .try_for_each(|line| self.send(Level::Info, pid, line))
    }
}
