//! Where a log goes, as it is named in the settings.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use syslog::Facility;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    Stdout,
    Stderr,
    File(PathBuf),
    /// The local syslog, by its socket.
    Syslog {
        facility: String,
        socket: Option<PathBuf>,
    },
    /// journald, by its native protocol.
    Journal {
        socket: Option<PathBuf>,
    },
}

/// Of syslog where none is named.
const FACILITY: &str = "daemon";

impl Destination {
    /// `-`, `stdout`, `stderr`, `syslog[:FACILITY][@SOCKET]`, `journal[@SOCKET]`, or a path, which starts at
    /// `directory`. `dash` is what `-` stands for.
    pub fn read(text: &str, dash: Destination, directory: &Path) -> Result<Destination, String> {
        let (name, socket) = match text.split_once('@') {
            Some((name, socket)) if name == "journal" || is_syslog(name) => {
                if socket.is_empty() {
                    return Err(format!("{text:?} names no socket after '@'"));
                }
                (name, Some(directory.join(socket)))
            }
            _ => (text, None),
        };
        match name {
            "" => Err("the path is empty".into()),
            "-" => Ok(dash),
            "stdout" => Ok(Destination::Stdout),
            "stderr" => Ok(Destination::Stderr),
            "journal" => Ok(Destination::Journal { socket }),
            name if is_syslog(name) => {
                let facility = name.strip_prefix("syslog:").unwrap_or(FACILITY);
                match facility.parse::<Facility>() {
                    Ok(_) => Ok(Destination::Syslog {
                        facility: facility.into(),
                        socket,
                    }),
                    Err(()) => Err(format!("{facility:?} is no syslog facility")),
                }
            }
            path if path.ends_with('/') => Err(format!("{path:?} is a directory")),
            path => Ok(Destination::File(directory.join(path))),
        }
    }
}

fn is_syslog(name: &str) -> bool {
    name == "syslog" || name.starts_with("syslog:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_places_and_everything_else_is_a_path() {
        let read = |text| Destination::read(text, Destination::Stdout, Path::new("/srv"));
        let syslog = |facility: &str, socket: Option<&str>| Destination::Syslog {
            facility: facility.into(),
            socket: socket.map(PathBuf::from),
        };
        for (text, expected) in [
            ("-", Destination::Stdout),
            ("stderr", Destination::Stderr),
            ("syslog", syslog("daemon", None)),
            ("syslog:local3", syslog("local3", None)),
            ("syslog@dev/log", syslog("daemon", Some("/srv/dev/log"))),
            ("syslog:user@/x", syslog("user", Some("/x"))),
            ("journal", Destination::Journal { socket: None }),
            ("a.log", Destination::File("/srv/a.log".into())),
            (
                "/var/log/me@home",
                Destination::File("/var/log/me@home".into()),
            ),
            ("./syslog", Destination::File("/srv/./syslog".into())),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for bad in ["", "syslog:x", "syslog:", "journal@", "logs/"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
