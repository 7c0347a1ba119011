//! What a master is to do between the import of the application and the first worker.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use crate::error::Result;

/// Between import and fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeforeFork {
    /// Requests that the application answers in the master, in this order.
    pub warm_up: Vec<WarmUp>,
    pub warm_up_failure: WarmUpFailure,
    pub fork_safety: ForkSafety,
    /// Whether all objects are made immortal (PEP 683).
    pub immortal: bool,
    /// How long a worker is idle before it shares memory again; `None` for never.
    pub share_again: Option<Duration>,
}

/// One GET request, as a client on this machine would send it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmUp {
    /// For `Host`.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Whether `X-Forwarded-Proto: https` is sent, as a proxy in front would.
    pub is_https: bool,
}

/// What becomes of a generation whose warm-up fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WarmUpFailure {
    Warn,
    Refuse,
}

/// What becomes of a generation that holds what a fork would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForkSafety {
    Warn,
    Refuse,
    /// It is not looked for.
    Off,
}

const DEFAULT_HOST: &str = "localhost";

impl WarmUp {
    /// The head of the request.
    pub fn head(&self) -> String {
        let proto = match self.is_https {
            true => "X-Forwarded-Proto: https\r\n",
            false => "",
        };
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n{proto}User-Agent: rswsgi-warm-up\r\nAccept: */*\r\n\r\n",
            self.target, self.host
        )
    }
}

pub(super) fn resolve(layers: &Layers) -> Result<BeforeFork> {
    Ok(BeforeFork {
        warm_up: layers.list("warm-up", read_warm_up)?,
        warm_up_failure: layers.parsed("warm-up-failure", |text| match text {
            "warn" => Ok(WarmUpFailure::Warn),
            "refuse" => Ok(WarmUpFailure::Refuse),
            _ => Err(format!("{text:?} is unknown")),
        })?,
        fork_safety: layers.parsed("fork-safety", |text| match text {
            "warn" => Ok(ForkSafety::Warn),
            "refuse" => Ok(ForkSafety::Refuse),
            "off" => Ok(ForkSafety::Off),
            _ => Err(format!("{text:?} is unknown")),
        })?,
        immortal: layers.switch("immortal")?,
        share_again: Some(layers.duration("share-again")?).filter(|time| !time.is_zero()),
    })
}

/// `/path?query`, or `http://host/path?query`.
pub(super) fn read_warm_up(text: &str) -> Result<WarmUp, String> {
    let absolute = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| Some((scheme, text.strip_prefix(scheme)?)));
    let warm_up = match absolute {
        Some((scheme, rest)) => {
            let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            WarmUp {
                host: host.to_owned(),
                target: if target.is_empty() { "/" } else { target }.to_owned(),
                is_https: scheme == "https://",
            }
        }
        None if text.starts_with('/') => WarmUp {
            host: DEFAULT_HOST.to_owned(),
            target: text.to_owned(),
            is_https: false,
        },
        None => {
            return Err(format!(
                "{text:?} is neither a path (/start) nor an address (http://example.org/start)"
            ));
        }
    };
    let is_sendable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    match is_sendable(text) && !warm_up.host.is_empty() {
        true => Ok(warm_up),
        false => Err(format!("{text:?} cannot be asked for over HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_is_a_path_or_an_address() {
        let read = |text| read_warm_up(text).map(|w| (w.host, w.target, w.is_https));
        let good = |host: &str, target: &str, is_https| Ok((host.into(), target.into(), is_https));
        assert_eq!(read("/"), good("localhost", "/", false));
        assert_eq!(read("/a/b?c=d"), good("localhost", "/a/b?c=d", false));
        assert_eq!(read("http://x.org"), good("x.org", "/", false));
        assert_eq!(read("https://x.org:8/a"), good("x.org:8", "/a", true));
        for bad in [
            "",
            "a",
            "ftp://x/",
            "http:///a",
            "/a b",
            "/a\r\nX: y",
            "/a\r\n\r\n",
            "/\u{e4}",
            "/a#b",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
