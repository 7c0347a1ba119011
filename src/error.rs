//! The program-level error: one sentence for the user and the exit status of the program.
//!
//! Parts of the program have their own small error enums; what reaches the user ends here. A message
//! says what was being done and why it failed: lower case, no full stop, the object and the reason,
//! and the next step when it is known: `cannot bind 0.0.0.0:80: permission denied; ports below 1024
//! need CAP_NET_BIND_SERVICE`. Nothing here prints or exits: `main` does, once.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::process::ExitCode;

use nix::errno::Errno;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit status of the program; the numbers above 1 are those of `sysexits.h`.
///
/// systemd units set `RestartPreventExitStatus=64 77 78`: these do not get better by trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Stopped as asked.
    Stopped = 0,
    /// Failed while running.
    Failed = 1,
    /// The application answered the one request with 400 or more (as `curl --fail`).
    Answered = 22,
    /// The command line is wrong.
    Usage = 64,
    /// The address is in use or a lock is held.
    Unavailable = 69,
    /// A bug of ours.
    Internal = 70,
    /// The operating system refused.
    Os = 71,
    /// No permission.
    NoPermission = 77,
    /// Configuration or application cannot be loaded.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<Errno> for Exit {
    fn from(errno: Errno) -> Exit {
        match errno {
            Errno::EACCES | Errno::EPERM => Exit::NoPermission,
            Errno::EADDRINUSE => Exit::Unavailable,
            _ => Exit::Os,
        }
    }
}

/// Why the program cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    exit: Exit,
    message: String,
}

impl Error {
    pub fn new(exit: Exit, message: impl Into<String>) -> Error {
        Error {
            exit,
            message: message.into(),
        }
    }

    /// A refused system call: `doing` names the action and its object, `cannot bind 0.0.0.0:80`.
    pub fn os(doing: impl fmt::Display, errno: Errno) -> Error {
        let reason = lower_first(errno.desc());
        Error::new(errno.into(), format!("{doing}: {reason}"))
    }

    /// Like [`Error::os`], for what the standard library reports.
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Error {
        match error.raw_os_error() {
            Some(number) => Error::os(doing, Errno::from_raw(number)),
            None => Error::new(Exit::Os, format!("{doing}: {error}")),
        }
    }

    /// Adds the next step, when it is known.
    #[must_use]
    pub fn advise(mut self, next_step: impl fmt::Display) -> Error {
        self.message = format!("{}; {next_step}", self.message);
        self
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// `Permission denied` becomes `permission denied`, `I/O error` stays.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_names_the_object_and_the_reason() {
        let error = Error::os("cannot bind 0.0.0.0:80", Errno::EACCES);
        assert_eq!(
            error.to_string(),
            "cannot bind 0.0.0.0:80: permission denied"
        );
        assert_eq!(error.exit(), Exit::NoPermission);
    }

    #[test]
    fn the_errno_decides_the_exit_status() {
        for (errno, exit) in [
            (Errno::EACCES, Exit::NoPermission),
            (Errno::EPERM, Exit::NoPermission),
            (Errno::EADDRINUSE, Exit::Unavailable),
            (Errno::EMFILE, Exit::Os),
            (Errno::ENOENT, Exit::Os),
        ] {
            assert_eq!(Exit::from(errno), exit, "{errno}");
        }
    }

    #[test]
    fn an_io_error_keeps_its_errno() {
        let error = io::Error::from_raw_os_error(Errno::EADDRINUSE as i32);
        assert_eq!(
            Error::io("cannot bind :80", &error).exit(),
            Exit::Unavailable
        );
        let error = io::Error::other("no such host");
        let error = Error::io("cannot resolve x", &error);
        assert_eq!(error.to_string(), "cannot resolve x: no such host");
        assert_eq!(error.exit(), Exit::Os);
    }

    #[test]
    fn the_next_step_follows_the_reason() {
        let error = Error::new(Exit::Failed, "cannot a: b").advise("do c");
        assert_eq!(error.to_string(), "cannot a: b; do c");
    }

    #[test]
    fn abbreviations_keep_their_case() {
        assert_eq!(lower_first("I/O error"), "I/O error");
        assert_eq!(lower_first("Permission denied"), "permission denied");
        assert_eq!(lower_first(""), "");
    }
}
