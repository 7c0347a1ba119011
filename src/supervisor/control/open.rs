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
use crate::net::{self, Kind, Listener, Passed};

/// Connections that may wait.
const BACKLOG: u32 = 64;

/// The sockets of the control protocol, and those that it leaves to the app.
pub struct Claimed {
    control: Vec<Bind>,
    metrics: Vec<Bind>,
    pub left: Vec<Passed>,
}

/// Finds what the settings name among the sockets that were passed.
///
/// # Errors
/// One is named that was not passed.
pub fn claim(settings: &Settings, passed: Vec<Passed>) -> Result<Claimed> {
    let find = |named: &[Bind]| -> Result<Vec<Bind>> {
        let named: Vec<Listen> = named.iter().cloned().map(Listen::from).collect();
        let found = net::by_name(&named, &passed)?.into_iter();
        Ok(found.map(|listen| listen.bind).collect())
    };
    let control = match &settings.control {
        ControlSocket::Passed(bind) => find(std::slice::from_ref(bind))?,
        _ => Vec::new(),
    };
    let metrics = find(&settings.metrics_bind)?;
    let mut left = passed;
    left.retain(|socket| {
        let socket = Bind::Fd(socket.fd);
        !metrics.contains(&socket) && !control.contains(&socket)
    });
    Ok(Claimed {
        control,
        metrics,
        left,
    })
}

pub fn open(
    settings: &Settings,
    claimed: &Claimed,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Door>> {
    let mut doors = control(settings, &claimed.control, env)?;
    for address in &claimed.metrics {
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

fn control(
    settings: &Settings,
    passed: &[Bind],
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Door>> {
    Ok(match &settings.control {
        ControlSocket::Nowhere => Vec::new(),
        ControlSocket::At(path) => vec![bind(settings, path)?],
        ControlSocket::Passed(_) => passed.iter().map(adopt).collect::<Result<_>>()?,
        ControlSocket::Somewhere => somewhere(settings, env)?.into_iter().collect(),
    })
}

/// One that was passed. Its file, and who may connect, is the business of whoever has bound it.
fn adopt(passed: &Bind) -> Result<Door> {
    let listener = only(net::bind(passed, BACKLOG)?, passed)?;
    match listener.kind() {
        Kind::Unix { .. } | Kind::UnixAbstract { .. } => Ok(Door::new(Purpose::Control, listener)),
        _ => {
            let message = format!(
                "cannot use {} as control socket: who asks is known on a Unix stream socket alone \
                 (ListenStream=/path in the socket unit)",
                listener.name()
            );
            Err(Error::new(Exit::Config, message))
        }
    }
}

fn only(mut listeners: Vec<Listener>, address: &Bind) -> Result<Listener> {
    listeners
        .pop()
        .ok_or_else(|| Error::new(Exit::Internal, format!("cannot bind {address}")))
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
    let listener = only(net::bind(&address, BACKLOG)?, &address)?;
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
