//! Opening the sockets of the control protocol.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{Door, Purpose};
use crate::config::{Bind, ControlSocket, Listen, Settings};
use crate::control::{DIRECTORIES, SUFFIX, directories};
use crate::error::{Error, Exit, Result};
use crate::log;
use crate::net::{self, Passed};

/// Connections that may wait.
const BACKLOG: u32 = 64;

/// The addresses for metrics, and the passed sockets that they leave to the app.
///
/// # Errors
/// One is named that was not passed.
pub fn claim(metrics: &[Bind], passed: Vec<Passed>) -> Result<(Vec<Bind>, Vec<Passed>)> {
    let named: Vec<Listen> = metrics.iter().cloned().map(Listen::from).collect();
    let found = net::by_name(&named, &passed)?.into_iter();
    let metrics: Vec<Bind> = found.map(|listen| listen.bind).collect();
    let mut left = passed;
    left.retain(|socket| !metrics.contains(&Bind::Fd(socket.fd)));
    Ok((metrics, left))
}

/// `metrics`: the addresses of `--metrics-bind`, as [`claim`] has found them.
pub fn open(
    settings: &Settings,
    metrics: &[Bind],
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Door>> {
    let mut doors: Vec<Door> = control(settings, env)?.into_iter().collect();
    for address in metrics {
        let listeners = net::bind(address, BACKLOG)?;
        doors.extend(
            listeners
                .into_iter()
                .map(|l| Door::new(Purpose::Metrics, l)),
        );
    }
    for door in &doors {
        let what = match door.purpose {
            Purpose::Control => "control socket",
            Purpose::Metrics => "metrics",
        };
        log::info!("{what}: {}", door.listener.name());
    }
    Ok(doors)
}

fn control(settings: &Settings, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<Door>> {
    match &settings.control {
        ControlSocket::Nowhere => Ok(None),
        ControlSocket::At(path) => Ok(Some(bind(settings, path)?)),
        ControlSocket::Somewhere => somewhere(settings, env),
    }
}

fn bind(settings: &Settings, path: &Path) -> Result<Door> {
    let group = settings.control_group.clone();
    let address = Bind::Unix {
        path: path.to_owned(),
        // Who may connect is asked again: by SO_PEERCRED.
        mode: Some(match (&group, settings.control_users) {
            (_, true) => 0o666,
            (Some(_), false) => 0o660,
            (None, false) => 0o600,
        }),
        user: None,
        group,
    };
    address
        .check_length()
        .map_err(|reason| Error::new(Exit::Config, reason))?;
    let mut listeners = net::bind(&address, BACKLOG)?;
    let listener = listeners.pop().ok_or_else(|| {
        let message = format!("cannot bind {address}");
        Error::new(Exit::Internal, message)
    })?;
    Ok(Door::new(Purpose::Control, listener))
}

/// The first place where it is possible. Nobody has asked for it by name, so it is no error when there
/// is none.
fn somewhere(settings: &Settings, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<Door>> {
    let file = format!("{}.{SUFFIX}", settings.name);
    let mut last = None;
    for directory in directories(env) {
        // Below a directory of the system's or the user's own; theirs has to be there already.
        let _ = DirBuilder::new().mode(0o755).create(&directory);
        match bind(settings, &directory.join(&file)) {
            Ok(door) => return Ok(Some(door)),
            // Of another server of this name, most likely: it would be the wrong one to talk to.
            Err(error) if error.exit() == Exit::Unavailable => {
                log::warning!("no control socket: {error}; --control names another place");
                return Ok(None);
            }
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(String::new, |error| format!(" ({error})"));
    log::info!("no control socket: none of {DIRECTORIES} will do{why}; --control names a place");
    Ok(None)
}
