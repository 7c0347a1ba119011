//! How many descriptors this process may have open (`RLIMIT_NOFILE`). A supervisor of many apps needs more than the usual
//! soft limit of 1024; what it starts has the limit that was found, since select(2) takes no descriptor above 1023
//! (getrlimit(2), systemd.exec(5)).

use std::io;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

static FOUND: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// From now on this process may have as many as the hard limit allows.
///
/// # Errors
/// Those of getrlimit(2) and setrlimit(2); then everything stays as it is.
pub fn raise() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let (_, hard) = FOUND.get_or_init(|| (soft, hard));
    Ok(setrlimit(Resource::RLIMIT_NOFILE, *hard, *hard)?)
}

/// As it was found; nothing where it was not raised. For a program that is executed: system calls only.
///
/// # Errors
/// Those of setrlimit(2).
pub fn restore() -> io::Result<()> {
    match FOUND.get() {
        Some((soft, hard)) => Ok(setrlimit(Resource::RLIMIT_NOFILE, *soft, *hard)?),
        None => Ok(()),
    }
}

/// Again after a [`restore`] for a program that could not be executed.
pub fn raise_again() {
    if FOUND.get().is_some() {
        let _ = raise();
    }
}
