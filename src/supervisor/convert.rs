//! `rswsgi convert`: reads what another server is configured with, and prints what [`crate::convert`] makes
//! of it.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use serde_json::Value;

use super::{interpreter, output, print, privileges, sleep};
use crate::config::{InterpreterSettings, Privileges};
use crate::convert::{Command, Draft, Given, gunicorn, parse_command, uwsgi};
use crate::error::{Error, Exit, Result};
use crate::log;
use crate::sys::account;
use crate::sys::clock;
use crate::sys::process::{self, Child, Ended};

/// Executes a configuration and writes what it defines.
const EVALUATE: &str = include_str!("convert.py");

/// The largest file that is read; a configuration is smaller.
const LARGEST: u64 = 1 << 20;

/// How deep configurations of uWSGI may name others.
const DEEPEST: usize = 8;

/// # Errors
/// [`Exit::Config`] when the source cannot be read or executed.
pub fn convert(
    source: &str,
    interpreter: &InterpreterSettings,
    privileges: Privileges,
) -> Result<()> {
    let evaluator = Evaluator {
        interpreter,
        privileges,
    };
    let mut draft = match Path::new(source).exists() {
        true => evaluator.file(Path::new(source))?,
        false => evaluator
            .command(source)
            .map_err(|error| match source.contains(' ') {
                true => error,
                false => refused(format!(
                    "{source:?} is neither a file nor a command line of gunicorn or uwsgi"
                )),
            })?,
    };
    let text = draft.write(source);
    print(&text)?;
    match draft.lost().count() {
        0 => {}
        1 => log::warning!("1 option has no equivalent, it is listed at the end"),
        lost => log::warning!("{lost} options have no equivalent, they are listed at the end"),
    }
    Ok(())
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Exit::Config, message)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Error {
    let doing = format!("cannot read {}", path.display());
    refused(Error::io(doing, error).to_string())
}

struct Evaluator<'a> {
    interpreter: &'a InterpreterSettings,
    privileges: Privileges,
}

impl Evaluator<'_> {
    fn file(&self, path: &Path) -> Result<Draft> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("py") => Ok(gunicorn::convert(self.evaluate(path)?)),
            Some("ini" | "yaml" | "yml" | "json") => Ok(uwsgi::convert(read_uwsgi(path, 0)?)),
            Some("xml") => Err(refused(format!(
                "{}: XML is not read; write it as an INI file",
                path.display()
            ))),
            _ if name.starts_with("Procfile") => self.command(&text(path)?),
            _ => Err(refused(format!(
                "{}: it is not known what that is; it may be named gunicorn.conf.py, uwsgi.ini, .yaml or .json, or \
                 Procfile",
                path.display()
            ))),
        }
    }

    fn command(&self, line: &str) -> Result<Draft> {
        let (mut draft, notes) = match parse_command(line).map_err(refused)? {
            Command::Gunicorn {
                config,
                options,
                notes,
            } => {
                let mut given = match &config {
                    Some(path) => self.evaluate(Path::new(path.trim_start_matches("file:")))?,
                    None => Vec::new(),
                };
                // gunicorn reads the file first, what is on the command line wins.
                given.extend(options);
                (gunicorn::convert(given), notes)
            }
            Command::Uwsgi { options, notes } => {
                let given = with_files(options, Path::new("."), 0)?;
                (uwsgi::convert(given), notes)
            }
        };
        for note in notes {
            draft.note(note);
        }
        Ok(draft)
    }

    /// Executes a configuration of gunicorn: what it defines, in its order.
    fn evaluate(&self, path: &Path) -> Result<Vec<Given>> {
        let python = interpreter::interpreter(self.interpreter, interpreter::Look::Here)?;
        let file = open(path)?;
        let wanted = self.as_whom(path, &file)?;
        let whom = wanted
            .user
            .as_deref()
            .map_or_else(String::new, |user| format!(" as user {user}"));
        log::info!(
            "executing {} with {}{whom}",
            path.display(),
            python.display()
        );
        let (mut reader, writer) =
            std::io::pipe().map_err(|error| Error::io("cannot make a pipe", &error))?;
        let writer = OwnedFd::from(writer);
        let given_up = privileges::resolve(&wanted)?;
        let mut command = Process::new(&python);
        command.arg("-c").arg(EVALUATE).arg(path);
        command.arg(file.as_raw_fd().to_string());
        command.arg(writer.as_raw_fd().to_string());
        if let Some(identity) = &given_up.identity {
            privileges::environment(&mut command, identity);
        }
        command.stdin(std::process::Stdio::null());
        // Standard output is for the configuration.
        let is_other = output::is_other(given_up.identity.as_ref());
        let stderr = || match is_other && std::io::stderr().is_terminal() {
            // Who may read there reads what is typed.
            true => output::open_again(2).map(OwnedFd::from),
            false => std::io::stderr().as_fd().try_clone_to_owned(),
        };
        let failed = |error| Error::io("cannot duplicate a descriptor", &error);
        command.stdout(stderr().map_err(failed)?);
        command.stderr(stderr().map_err(failed)?);
        let child = process::spawn_as(command, &[file.as_fd(), writer.as_fd()], given_up, None)
            .map_err(|error| Error::io(format!("cannot execute {}", python.display()), &error))?;
        drop(writer);
        let (text, ended) = hear(&mut reader, &child, path)?;
        if ended != Ended::Exited(0) {
            let error = refused(format!("{} cannot be executed: {ended}", path.display()));
            return Err(error.advise(
                "what it imports has to be there: --venv or --python name the interpreter of the application",
            ));
        }
        if text.is_empty() {
            let path = path.display();
            let message =
                format!("{path} cannot be executed: it ends the interpreter before its own end");
            return Err(refused(message));
        }
        let found: serde_json::Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| refused(format!("{}: {error}", path.display())))?;
        let found = found.into_iter();
        Ok(found.map(|(name, value)| Given { name, value }).collect())
    }

    /// A configuration is code of whoever can write to it: root executes it as its owner.
    fn as_whom(&self, path: &Path, file: &File) -> Result<Privileges> {
        let metadata = file.metadata().map_err(|error| cannot_read(path, &error))?;
        if self.privileges.user.is_some() || !Uid::effective().is_root() {
            return Ok(self.privileges.clone());
        }
        let owner = Uid::from_raw(metadata.uid());
        if !owner.is_root() {
            if account::entry(owner).is_none() {
                return Err(not_as_root(
                    path,
                    format!("its owner {owner} is not in the user database"),
                ));
            }
            let mut wanted = self.privileges.clone();
            wanted.user = Some(owner.to_string());
            return Ok(wanted);
        }
        match metadata.mode() & 0o022 {
            0 => Ok(self.privileges.clone()),
            _ => Err(not_as_root(path, "others than root may write to it")),
        }
    }
}

/// What the interpreter writes until it ends. Processes that it leaves behind may keep the pipe open for as
/// long as they like, and the configuration may write to it itself.
fn hear(reader: &mut PipeReader, child: &Child, path: &Path) -> Result<(Vec<u8>, Ended)> {
    let failed = |error: std::io::Error| cannot_read(path, &error);
    fcntl(&*reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| failed(errno.into()))?;
    let mut text = Vec::new();
    let mut is_over = false;
    loop {
        // In this order: what has ended has written all it had to write.
        let ended = child
            .try_reap()
            .map_err(|error| Error::io("cannot wait for the interpreter", &error))?;
        match reader.take(LARGEST + 1).read_to_end(&mut text) {
            Ok(_) => is_over = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
        if text.len() as u64 > LARGEST {
            // It ends by itself, or at its next write.
            let _ = child.signal(Signal::SIGKILL);
            let path = path.display();
            return Err(refused(format!(
                "{path} is not read: it defines more than 1 MiB"
            )));
        }
        if let Some(ended) = ended {
            return Ok((text, ended));
        }
        let mut fds = vec![PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        if !is_over {
            fds.push(PollFd::new(reader.as_fd(), PollFlags::POLLIN));
        }
        sleep(&mut fds, clock::now(), None);
    }
}

fn not_as_root(path: &Path, reason: impl std::fmt::Display) -> Error {
    let path = path.display();
    let message =
        format!("{path} is not executed as root: {reason}; name who is to execute it by --user");
    Error::new(Exit::NoPermission, message)
}

/// Whose it is and what is executed are asked of the same descriptor.
fn open(path: &Path) -> Result<File> {
    // A fifo that nobody writes to would be waited for, a terminal would become ours.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| cannot_read(path, &error))?;
    let metadata = file.metadata().map_err(|error| cannot_read(path, &error))?;
    match metadata.is_file() {
        true => Ok(file),
        false => Err(refused(format!(
            "cannot read {}: it is not a regular file",
            path.display()
        ))),
    }
}

fn text(path: &Path) -> Result<String> {
    let mut text = String::new();
    open(path)?
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| cannot_read(path, &error))?;
    match text.len() as u64 > LARGEST {
        false => Ok(text),
        true => Err(refused(format!(
            "{} is not read: it has more than 1 MiB",
            path.display()
        ))),
    }
}

/// A configuration of uWSGI, with those that it names.
fn read_uwsgi(path: &Path, depth: usize) -> Result<Vec<Given>> {
    let text = text(path)?;
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host = host.to_string_lossy().into_owned();
    let env = |name: &str| std::env::var(name).ok();
    let source = uwsgi::Source {
        path: &absolute.to_string_lossy(),
        env: &env,
        cpus: process::cpus(),
        host: &host,
    };
    let read = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => uwsgi::read_json,
        Some("yaml" | "yml") => uwsgi::read_yaml,
        _ => uwsgi::read_ini,
    };
    let given =
        read(&text, &source).map_err(|reason| refused(format!("{}: {reason}", path.display())))?;
    let directory = absolute.parent().unwrap_or(Path::new("."));
    with_files(given, directory, depth)
}

/// Puts what another file says in the place of the option that names it.
fn with_files(options: Vec<Given>, directory: &Path, depth: usize) -> Result<Vec<Given>> {
    let mut all = Vec::new();
    for option in options {
        let names_file = matches!(
            option.name.as_str(),
            "ini" | "yaml" | "yml" | "json" | "config" | "include" | "inherit" | "y" | "j"
        );
        let file = option.value.as_str().filter(|_| names_file);
        // `file.ini:section` names a section of another name, which is not looked for.
        let file = file.map(|file| file.split(':').next().unwrap_or_default());
        let path: Option<PathBuf> = file.map(|file| directory.join(file));
        match path.filter(|path| path.is_file() && depth < DEEPEST) {
            Some(path) => all.extend(read_uwsgi(&path, depth + 1)?),
            None => all.push(option),
        }
    }
    Ok(all)
}
