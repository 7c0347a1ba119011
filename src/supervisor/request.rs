//! `rswsgi request`: one request to the application, without a server.
//!
//! A master answers it and writes the response; here the body of the request is found, and it is told how it
//! went.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use nix::poll::{PollFd, PollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::check::dismiss;
use super::generation::{Doors, Failure, Generation, Said};
use super::sleep;
use crate::config::{Ask, Data, Settings, show_size};
use crate::error::{Error, Exit, Result};
use crate::link::Purpose;
use crate::sys::clock;

/// # Errors
/// [`Exit::Answered`] for a response of 400 or more, [`Exit::Failed`] when the application raised or broke
/// off, [`Exit::Config`] when it cannot be loaded.
pub fn request(settings: &Settings, ask: Ask, data: Option<Data>) -> Result<()> {
    let what = format!("{} {}", ask.method, ask.to.target);
    let most = settings.limits.max_body;
    let input = data.as_ref().map(|data| body(data, most)).transpose()?;
    if let Some(length) = input
        .as_ref()
        .and_then(|file| file.metadata().ok())
        .map(|m| m.len())
        && length > most
    {
        // So says a worker, who counts it while it comes.
        let most = show_size(most);
        let message = format!("{what}: 413, the body is longer than --max-body allows ({most})");
        return Err(Error::new(Exit::Answered, message));
    }
    let purpose = Purpose::Request {
        ask,
        has_body: input.is_some(),
    };
    let input = input.map_or_else(Stdio::inherit, Stdio::from);
    let now = clock::now();
    let mut generation =
        Generation::start_reading(input, 1, settings, Doors::default(), purpose, now)?;
    loop {
        // In this order: what has ended has said all it had to say.
        let ended = generation.try_reap();
        match generation.hear() {
            Said::Answered { status, failure } => {
                dismiss(&mut generation);
                return verdict(&what, status, failure);
            }
            Said::Failed(Failure { reason, traceback }) => {
                dismiss(&mut generation);
                let message = format!("cannot load {}: {reason}\n{traceback}", settings.target);
                return Err(Error::new(Exit::Config, message.trim_end()));
            }
            Said::Nothing | Said::Touched | Said::Ready { .. } | Said::Answer(_) => {}
        }
        if let Some(ended) = ended {
            let message = format!("{what}: the process of the application ended, {ended}");
            return Err(Error::new(Exit::Failed, message));
        }
        let mut fds = vec![PollFd::new(generation.child.as_fd(), PollFlags::POLLIN)];
        if !generation.is_silent() {
            fds.push(PollFd::new(generation.channel.as_fd(), PollFlags::POLLIN));
        }
        sleep(&mut fds, clock::now(), None);
    }
}

fn verdict(what: &str, status: u16, failure: Option<String>) -> Result<()> {
    match failure {
        Some(failure) => {
            let message = format!("{what}: {failure}");
            Err(Error::new(Exit::Failed, message.trim_end()))
        }
        None if status >= 400 => {
            let message = format!("{what}: the application answered {status}");
            Err(Error::new(Exit::Answered, message))
        }
        None => Ok(()),
    }
}

/// A regular file with the body, at its start; of one that is longer than `most`, a part that is, too.
fn body(data: &Data, most: u64) -> Result<File> {
    let failed =
        |what: String| move |error: io::Error| Error::io(format!("--data: cannot {what}"), &error);
    match data {
        Data::Text(text) => {
            let mut copy = copy().map_err(failed("keep the body".into()))?;
            let written = copy.write_all(text.as_bytes()).and_then(|()| copy.rewind());
            written.map_err(failed("keep the body".into()))?;
            Ok(copy)
        }
        Data::Stdin => {
            collect(io::stdin().lock(), most).map_err(failed("read standard input".into()))
        }
        Data::File(path) => {
            let doing = || failed(format!("read {}", path.display()));
            let file = File::open(path).map_err(doing())?;
            match file.metadata().map_err(doing())?.is_file() {
                true => Ok(file),
                // Its length has to be known.
                false => collect(file, most).map_err(doing()),
            }
        }
    }
}

fn collect(source: impl io::Read, most: u64) -> io::Result<File> {
    let mut copy = copy()?;
    io::copy(&mut source.take(most.saturating_add(1)), &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

fn copy() -> io::Result<File> {
    Ok(memfd_create(c"rswsgi-body", MFdFlags::MFD_CLOEXEC)?.into())
}
