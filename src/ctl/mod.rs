//! `rswsgictl`: asks a server on its control socket, and shows people what it answers.
//!
//! A client of `control` and nothing else: it never looks into `/proc`, sends no signal, and knows of
//! a server what the server says. What comes from there is shown, never obeyed: control characters in
//! it are escaped before they reach a terminal.

#![forbid(unsafe_code)]

mod ask;
mod client;
mod command;
mod find;
mod show;
mod top;
mod wait;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::control::{Kind, Refused};

pub use command::command;

/// Exit status of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// The server refused, or tried and failed.
    Failed = 1,
    /// The command line is wrong, or does not say which of several servers is meant.
    Usage = 2,
    /// No server there.
    NoServer = 3,
    TimedOut = 4,
    NoPermission = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub exit: Exit,
    /// One sentence, and what belongs below it (a traceback, a list). Empty when all has been said.
    pub message: String,
}

type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(exit: Exit, message: impl Into<String>) -> Error {
        Error {
            exit,
            message: message.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        let exit = match refused.kind {
            Kind::NoPermission => Exit::NoPermission,
            Kind::TimedOut => Exit::TimedOut,
            _ => Exit::Failed,
        };
        let mut message = show::escape(&refused.error);
        if !refused.traceback.is_empty() {
            message += "\n";
            message += show::escape_lines(&refused.traceback).trim_end();
        }
        Error::new(exit, message)
    }
}

pub fn main() -> ExitCode {
    let invocation = match command::read(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Nobody reads it: the exit status says as much.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    match ask::run(&invocation) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            if !error.message.is_empty() {
                say(&error.message);
            }
            error.exit.into()
        }
    }
}

/// A message to the person, beside the answer; names of files in it are anybody's.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "rswsgictl: {}", show::escape_lines(text));
}

/// `println!` would panic when nobody reads; a reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {error}");
            Err(Error::new(Exit::Failed, message))
        }
        _ => Ok(()),
    }
}
