//! Responses as packets.

#![forbid(unsafe_code)]

use std::fmt;

use super::packet::{Command, put};
use super::status::is_empty;

/// The production client takes header packets that are shorter than 8 KiB and together shorter than
/// 64 KiB; beyond it ends the connection.
const HEADER_BYTES: usize = 8191;
const ALL_HEADERS: usize = 65535;

/// What the head of a response says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// There is none. For HEAD: the length that the answer to GET would have.
    Nothing {
        length: Option<u64>,
    },
    Body {
        length: Option<u64>,
    },
}

impl Content {
    /// The only place that decides whether a response has a body. `length`: as far as it is known.
    pub fn of(is_head: bool, status: u16, length: Option<u64>) -> Self {
        match (is_head, is_empty(status)) {
            (_, true) => Content::Nothing { length: None },
            (true, _) => Content::Nothing { length },
            (false, _) => Content::Body { length },
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// One that the client knows.
    pub status: u16,
    /// `Name: value\r\n` each, checked.
    pub fields: &'a [u8],
    pub content: Content,
}

/// A counter of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Up to 63 letters, digits and `_`.
    pub name: &'static str,
    pub value: f32,
}

/// Headers that the client does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TooLarge {
    Header { name: String, bytes: usize },
    Together { bytes: usize },
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TooLarge::Header { name, bytes } => write!(
                f,
                "header '{name}' has {bytes} bytes, a WAS client takes {HEADER_BYTES}"
            ),
            TooLarge::Together { bytes } => write!(
                f,
                "the headers have {bytes} bytes, a WAS client takes {ALL_HEADERS}"
            ),
        }
    }
}

/// Name and value of each rendered field.
fn fields(rendered: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = rendered.split(|byte| *byte == b'\n');
    lines.filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        let value = &line[colon + 1..];
        Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
    })
}

/// Whether the client takes all these headers.
pub fn check_fields(rendered: &[u8]) -> Result<(), TooLarge> {
    let mut together = 0;
    for (name, value) in fields(rendered) {
        let bytes = name.len() + 1 + value.len();
        if bytes > HEADER_BYTES {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(TooLarge::Header { name, bytes });
        }
        together += bytes;
    }
    // With room for the Content-Length of an answer to HEAD.
    match together <= ALL_HEADERS - 64 {
        true => Ok(()),
        false => Err(TooLarge::Together { bytes: together }),
    }
}

/// STATUS and headers, up to the packet that says whether a body follows.
pub fn put_head(out: &mut Vec<u8>, head: &Head<'_>) {
    put(
        out,
        Command::Status,
        &[&u32::from(head.status).to_ne_bytes()],
    );
    for (name, value) in fields(head.fields) {
        let start = out.len();
        put(out, Command::Header, &[name, b"=", value]);
        out[start..][super::HEADER..][..name.len()].make_ascii_lowercase();
    }
    if let Content::Nothing {
        length: Some(length),
    } = head.content
    {
        let text = length.to_string();
        put(out, Command::Header, &[b"content-length=", text.as_bytes()]);
    }
}

pub fn put_metrics(out: &mut Vec<u8>, metrics: &[Metric]) {
    for metric in metrics.iter().filter(|metric| metric.value.is_finite()) {
        let value = metric.value.to_ne_bytes();
        put(out, Command::Metric, &[&value, metric.name.as_bytes()]);
    }
}
