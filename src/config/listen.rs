//! A listener as it was asked for: where, and whether the PROXY protocol is spoken on it.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::bind::Bind;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen {
    pub bind: Bind,
    pub proxy_protocol: ProxyProtocol,
}

/// Whether connections begin with a header of the PROXY protocol. Nobody can guess it: a client could
/// send one, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    #[default]
    Off,
    /// A connection without it is refused.
    Required,
}

const OPTION: &str = "proxy-protocol";

impl Listen {
    /// Makes a relative socket path absolute.
    #[must_use]
    pub fn within(mut self, directory: &Path) -> Listen {
        self.bind = self.bind.within(directory);
        self
    }
}

impl From<Bind> for Listen {
    fn from(bind: Bind) -> Listen {
        Listen {
            bind,
            proxy_protocol: ProxyProtocol::Off,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let Some((address, options)) = text.rsplit_once('?') else {
            return text.parse().map(|bind: Bind| bind.into());
        };
        let (ours, others): (Vec<_>, Vec<_>) = options
            .split('&')
            .partition(|option| option.split('=').next() == Some(OPTION));
        let proxy_protocol = match ours[..] {
            [] => ProxyProtocol::Off,
            [option] => match option.strip_prefix(OPTION) {
                Some("=on") => ProxyProtocol::Required,
                Some("=off") => ProxyProtocol::Off,
                _ => {
                    return Err(format!(
                        "{option:?} is neither {OPTION}=on nor {OPTION}=off"
                    ));
                }
            },
            _ => return Err(format!("{text:?} says {OPTION} twice")),
        };
        if let Some(option) = others.first()
            && !text.contains('/')
            && !text.starts_with("unix:")
        {
            return Err(format!(
                "{option:?} is not an option of a TCP listener; there is {OPTION}=on"
            ));
        }
        // The rest is the business of the address: an abstract name may even hold a question mark.
        let bind = match ours.is_empty() {
            true => text.parse()?,
            false if others.is_empty() => address.parse()?,
            false => format!("{address}?{}", others.join("&")).parse()?,
        };
        Ok(Listen {
            bind,
            proxy_protocol,
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bind = self.bind.to_string();
        match self.proxy_protocol {
            ProxyProtocol::Off => f.write_str(&bind),
            ProxyProtocol::Required => {
                let has_options = matches!(self.bind, Bind::Unix { .. }) && bind.contains('?');
                let separator = if has_options { '&' } else { '?' };
                write!(f, "{bind}{separator}{OPTION}=on")
            }
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Listen, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> String {
        listen.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_address_may_speak_the_protocol() {
        for (text, address) in [
            ("127.0.0.1:80?proxy-protocol=on", "127.0.0.1:80"),
            ("[::1]:80?proxy-protocol=on", "[::1]:80"),
            (":80?proxy-protocol=on", ":80"),
            ("fd://3?proxy-protocol=on", "fd://3"),
            ("unix:@a?proxy-protocol=on", "unix:@a"),
            ("unix:/run/a.sock?proxy-protocol=on", "unix:/run/a.sock"),
            (
                "unix:/run/a.sock?mode=660&proxy-protocol=on",
                "unix:/run/a.sock?mode=660",
            ),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.bind.to_string(), address);
            assert_eq!(listen.proxy_protocol, ProxyProtocol::Required);
            assert_eq!(listen.to_string(), text);
            let without: Listen = address.parse().unwrap();
            assert_eq!(without, Listen::from(address.parse::<Bind>().unwrap()));
            assert_eq!(without.to_string(), address);
        }
    }

    #[test]
    fn other_spellings_have_one_canonical_text() {
        for (text, canonical) in [
            ("unix:/a?proxy-protocol=off", "unix:/a"),
            (
                "unix:/a?proxy-protocol=on&mode=600",
                "unix:/a?mode=600&proxy-protocol=on",
            ),
            ("unix:@what?", "unix:@what?"),
            ("unix:@a?b?proxy-protocol=on", "unix:@a?b?proxy-protocol=on"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn anything_else_is_a_mistake() {
        for bad in [
            "127.0.0.1:80?proxy-protocol",
            "127.0.0.1:80?proxy-protocol=",
            "127.0.0.1:80?proxy-protocol=v2",
            "127.0.0.1:80?proxy-protocol=on&proxy-protocol=on",
            "127.0.0.1:80?proxy_protocol=on",
            "127.0.0.1:80?mode=600&proxy-protocol=on",
            "127.0.0.1:80?",
            "unix:/a?x=1&proxy-protocol=on",
            "?proxy-protocol=on",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
        let reason = "127.0.0.1:80?proxy_protocol=on"
            .parse::<Listen>()
            .unwrap_err();
        let expected = "\"proxy_protocol=on\" is not an option of a TCP listener";
        assert!(reason.starts_with(expected), "{reason}");
    }
}
