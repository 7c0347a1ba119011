//! Where to listen: `unix:/path`, `unix:@name`, `host:port`, `:port`, `[::1]:port`, `fd://N`,
//! `fd://NAME`.
//!
//! Only the text is read here: nothing is looked up, resolved or opened. The `Display` text is the
//! canonical spelling and parses back to the same value.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value;

/// What is listened on when neither the settings nor systemd name an address.
pub const DEFAULT_BIND: &str = "127.0.0.1:8000";

/// `sun_path` less its final NUL, see unix(7).
pub const SOCKET_PATH_LENGTH: usize = 107;

/// The first descriptor `fd://N` takes: 0 to 2 are the standard streams, and 3 is
/// `SD_LISTEN_FDS_START`.
pub const FIRST_FD: i32 = 3;

/// One address to listen on, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Bind {
    Unix {
        path: PathBuf,
        /// Permission bits of the socket file; who may write may connect.
        mode: Option<u32>,
        /// Owner of the socket file, a name or a number.
        user: Option<String>,
        group: Option<String>,
    },
    /// Linux's abstract namespace: no file, no permissions.
    Abstract(String),
    Tcp {
        /// A name, an address without brackets, or empty for every address of the machine.
        host: String,
        port: u16,
    },
    /// A listening socket inherited as this descriptor.
    Fd(i32),
    /// The sockets that a service manager passes under this name (sd_listen_fds_with_names(3)).
    Named(String),
    /// A Unix socket for WAS clients, which pass their connections in messages.
    Was(Box<Bind>),
    /// The WAS connection, or the socket that gives them, that this program was started with.
    WasStandard,
}

impl Bind {
    /// A Unix socket with the usual permissions.
    pub fn file(path: PathBuf) -> Bind {
        Bind::Unix {
            path,
            mode: None,
            user: None,
            group: None,
        }
    }

    /// Makes a relative socket path absolute.
    #[must_use]
    pub fn within(mut self, directory: &Path) -> Bind {
        match &mut self {
            Bind::Unix { path, .. } => *path = directory.join(&path),
            Bind::Was(bind) => **bind = bind.clone().within(directory),
            _ => {}
        }
        self
    }

    /// Whether both cannot be listened on at the same time; names of hosts are not looked up.
    pub fn is_same_place(&self, other: &Bind) -> bool {
        match (self, other) {
            (Bind::Unix { path, .. }, Bind::Unix { path: other, .. }) => path == other,
            (one, other) => one == other,
        }
    }

    /// Refuses a path no client could ever connect to.
    pub fn check_length(&self) -> Result<(), String> {
        let (length, what) = match self {
            Bind::Unix { path, .. } => (path.as_os_str().len(), "path"),
            Bind::Abstract(name) => (name.len(), "name"),
            Bind::Was(bind) => return bind.check_length(),
            _ => return Ok(()),
        };
        if length > SOCKET_PATH_LENGTH {
            return Err(format!(
                "the {what} of {self} has {length} bytes, a Unix socket takes {SOCKET_PATH_LENGTH}"
            ));
        }
        Ok(())
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Bind, String> {
        if text.chars().any(|c| c.is_control()) {
            return Err(format!("{text:?} holds a control character"));
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            return match rest.strip_prefix('@') {
                Some("") => Err(format!("{text:?} has no name; example: unix:@myapp")),
                Some(name) => Ok(Bind::Abstract(name.to_owned())),
                None => unix(rest),
            };
        }
        if let Some(rest) = text.strip_prefix("was:") {
            return match rest {
                "" => Ok(Bind::WasStandard),
                _ if rest.starts_with('@') => {
                    Ok(Bind::Was(Box::new(format!("unix:{rest}").parse()?)))
                }
                _ => Ok(Bind::Was(Box::new(unix(rest)?))),
            };
        }
        if let Some(rest) = text.strip_prefix("fd://") {
            return match rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
                true => named(rest),
                false => fd(rest),
            };
        }
        if text.starts_with(['/', '.']) {
            return Err(format!("{text:?} is a path; did you mean \"unix:{text}\"?"));
        }
        tcp(text)
    }
}

fn unix(text: &str) -> Result<Bind, String> {
    let (path, options) = text.split_once('?').unwrap_or((text, ""));
    // unix:///run/a.sock, as in URLs, is /run/a.sock.
    let path = match path.trim_start_matches('/') {
        rest if rest.len() == path.len() => path.to_owned(),
        rest => format!("/{rest}"),
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(format!(
            "\"unix:{text}\" does not name a socket file; example: unix:/run/myapp/app.sock"
        ));
    }
    let (mut mode, mut user, mut group) = (None, None, None);
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("mode", value)) => mode = Some(octal(value)?),
            Some(("user", value)) if !value.is_empty() => user = Some(value.to_owned()),
            Some(("group", value)) if !value.is_empty() => group = Some(value.to_owned()),
            _ => {
                return Err(format!(
                    "{option:?} is not an option of a Unix socket; they are mode=660, user=NAME and group=NAME"
                ));
            }
        }
    }
    Ok(Bind::Unix {
        path: PathBuf::from(path),
        mode,
        user,
        group,
    })
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) if !text.starts_with('+') => Ok(mode),
        _ => Err(format!("mode {text:?} is not an octal number up to 777")),
    }
}

fn fd(text: &str) -> Result<Bind, String> {
    let number = value::number(text)
        .ok()
        .and_then(|number| i32::try_from(number).ok())
        .ok_or_else(|| format!("{text:?} is not the number of a descriptor"))?;
    if number < FIRST_FD {
        return Err(format!(
            "descriptor {number} is a standard stream; sockets are passed from {FIRST_FD} on"
        ));
    }
    Ok(Bind::Fd(number))
}

/// What systemd takes for FileDescriptorName=, which is the name of the socket unit where it is not set.
fn named(name: &str) -> Result<Bind, String> {
    let fits = |c: char| c.is_ascii_graphic() && !":?&,".contains(c);
    match name.len() <= 255 && name.chars().all(fits) {
        true => Ok(Bind::Named(name.to_owned())),
        false => Err(format!("{name:?} is not the name of a passed socket")),
    }
}

fn tcp(text: &str) -> Result<Bind, String> {
    if text.contains("//") {
        return Err(format!(
            "{text:?} has a scheme of its own; give host:port, unix:/path or fd://N"
        ));
    }
    let Some((host, port_text)) = text.rsplit_once(':') else {
        let advice = match port(text) {
            Ok(_) => format!("did you mean \":{text}\"?"),
            Err(_) => format!("example: {DEFAULT_BIND}"),
        };
        return Err(format!("{text:?} is not host:port; {advice}"));
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .filter(|address| address.contains(':'))
            .ok_or_else(|| format!("{text:?} is not [address]:port; example: [::1]:8000"))?,
        None if host == "*" => "",
        None => host,
    };
    if host.contains(':') && !text.starts_with('[') {
        return Err(format!(
            "{text:?} needs brackets around its IPv6 address; example: [::1]:8000"
        ));
    }
    if host.contains(['[', ']', '/', '?', '@', ' ']) {
        return Err(format!("{host:?} is not the name or address of a host"));
    }
    Ok(Bind::Tcp {
        host: host.to_owned(),
        port: port(port_text)?,
    })
}

fn port(text: &str) -> Result<u16, String> {
    value::number(text)
        .ok()
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("{text:?} is not a port between 0 and 65535"))
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Unix {
                path,
                mode,
                user,
                group,
            } => {
                write!(f, "unix:{}", path.display())?;
                let mode = mode.map(|mode| format!("{mode:03o}"));
                let options = [("mode", &mode), ("user", user), ("group", group)];
                let mut separator = '?';
                for (key, value) in options {
                    if let Some(value) = value {
                        write!(f, "{separator}{key}={value}")?;
                        separator = '&';
                    }
                }
                Ok(())
            }
            Bind::Abstract(name) => write!(f, "unix:@{name}"),
            Bind::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Bind::Tcp { host, port } => write!(f, "{host}:{port}"),
            Bind::Fd(number) => write!(f, "fd://{number}"),
            Bind::Named(name) => write!(f, "fd://{name}"),
            Bind::Was(bind) => {
                let text = bind.to_string();
                write!(f, "was:{}", text.strip_prefix("unix:").unwrap_or(&text))
            }
            Bind::WasStandard => f.write_str("was:"),
        }
    }
}

impl TryFrom<String> for Bind {
    type Error = String;

    fn try_from(text: String) -> Result<Bind, String> {
        text.parse()
    }
}

impl From<Bind> for String {
    fn from(bind: Bind) -> String {
        bind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Bind {
        Bind::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    fn unix(path: &str) -> Bind {
        Bind::Unix {
            path: PathBuf::from(path),
            mode: None,
            user: None,
            group: None,
        }
    }

    #[test]
    fn reads_every_form_and_writes_it_back() {
        for (text, bind) in [
            ("127.0.0.1:8000", tcp("127.0.0.1", 8000)),
            ("localhost:0", tcp("localhost", 0)),
            (":80", tcp("", 80)),
            ("[::1]:8000", tcp("::1", 8000)),
            ("[fe80::1%eth0]:80", tcp("fe80::1%eth0", 80)),
            ("fd://3", Bind::Fd(3)),
            ("fd://web", Bind::Named("web".to_owned())),
            (
                "fd://rswsgi@shop.socket",
                Bind::Named("rswsgi@shop.socket".to_owned()),
            ),
            ("unix:@my app", Bind::Abstract("my app".to_owned())),
            ("unix:/run/a.sock", unix("/run/a.sock")),
            ("unix:a.sock", unix("a.sock")),
            ("was:/run/a.sock", Bind::Was(Box::new(unix("/run/a.sock")))),
            (
                "was:@name",
                Bind::Was(Box::new(Bind::Abstract("name".to_owned()))),
            ),
            ("was:", Bind::WasStandard),
            (
                "unix:/run/a.sock?mode=660&user=www&group=www-data",
                Bind::Unix {
                    path: PathBuf::from("/run/a.sock"),
                    mode: Some(0o660),
                    user: Some("www".to_owned()),
                    group: Some("www-data".to_owned()),
                },
            ),
        ] {
            assert_eq!(text.parse(), Ok(bind.clone()), "{text}");
            assert_eq!(bind.to_string(), text);
        }
    }

    #[test]
    fn other_spellings_have_one_canonical_text() {
        for (text, canonical) in [
            ("*:80", ":80"),
            ("localhost:0080", "localhost:80"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("unix:/a?", "unix:/a"),
            ("unix:/a?mode=0660", "unix:/a?mode=660"),
            ("unix:/a?mode=0", "unix:/a?mode=000"),
            ("unix:/a?group=g&mode=600", "unix:/a?mode=600&group=g"),
        ] {
            let bind: Bind = text.parse().unwrap();
            assert_eq!(bind.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(bind));
        }
    }

    #[test]
    fn rejects_what_is_not_an_address() {
        for bad in [
            "",
            ":",
            "host",
            "host:",
            "host:x",
            "host:+1",
            "host:65536",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[]:80",
            "[host]:80",
            "a b:80",
            "a/b:80",
            "http://a:80",
            "fd://",
            "fd://a:b",
            "fd://a b",
            "fd://\u{e4}",
            "fd://-1",
            "fd://2",
            "fd://99999999999",
            "unix:",
            "unix:@",
            "unix:/",
            "unix:/a/",
            "unix:?mode=600",
            "unix:/a?mode=9",
            "unix:/a?mode=+7",
            "unix:/a?mode=1777",
            "unix:/a?mode=",
            "unix:/a?x=1",
            "unix:/a?user=",
            "unix:/a?mode",
            "unix:/a\0b",
            "a\n:80",
        ] {
            assert!(bad.parse::<Bind>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn common_mistakes_get_advice() {
        for (text, advice) in [
            ("/run/a.sock", "\"unix:/run/a.sock\""),
            ("8000", "\":8000\""),
            ("::1:80", "[::1]:8000"),
            ("host", "127.0.0.1:8000"),
        ] {
            let reason = text.parse::<Bind>().unwrap_err();
            assert!(reason.contains(advice), "{reason}");
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let path = |length: usize| unix(&format!("/{}", "x".repeat(length - 1)));
        assert!(path(SOCKET_PATH_LENGTH).check_length().is_ok());
        assert!(path(SOCKET_PATH_LENGTH + 1).check_length().is_err());
        assert!(Bind::Abstract("x".repeat(108)).check_length().is_err());
        assert!(tcp("localhost", 80).check_length().is_ok());
    }

    #[test]
    fn only_relative_paths_depend_on_the_directory() {
        let srv = Path::new("/srv");
        assert_eq!(unix("a.sock").within(srv), unix("/srv/a.sock"));
        assert_eq!(unix("/run/a.sock").within(srv), unix("/run/a.sock"));
        assert_eq!(tcp("a", 1).within(srv), tcp("a", 1));
    }

    #[test]
    fn the_default_is_an_address() {
        assert_eq!(DEFAULT_BIND.parse(), Ok(tcp("127.0.0.1", 8000)));
    }
}
