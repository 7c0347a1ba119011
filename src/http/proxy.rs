//! The PROXY protocol, versions 1 and 2: who is behind a proxy that passes bytes on, told in a header
//! before the first of them (HAProxy's specification, `doc/proxy-protocol.txt`, section 2).
//!
//! Strict and bounded: what is not exactly such a header is refused as soon as that can be seen. There
//! is no guessing whether a header is there (section 2: a listener either demands it or is blind to it).

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::grammar::decimal;

/// With its CRLF (section 2.1).
pub const MAX_LINE: usize = 107;

/// Of version 2, with addresses and what may follow them. Certificates' names and the like take some
/// hundred bytes; nginx has the same limit.
pub const MAX_BLOCK: usize = 4096;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY: &[u8] = b"PROXY ";

/// What stands before addresses in version 2: signature, version and command, family, length.
const FIXED: usize = SIGNATURE.len() + 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// So far it is the start of a header.
    Partial,
    Complete(Announced),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Bytes of the header; the client's own come after them.
    pub len: usize,
    pub source: Source,
}

/// Who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Client(SocketAddr),
    /// The proxy itself (LOCAL, a health check).
    Proxy,
    /// Somebody it cannot describe to us: UNKNOWN, a Unix socket, a datagram. The connection's own address
    /// may stand for it (section 2.2), but what it sends is not the word of the proxy.
    Unknown,
}

/// This is no header of the PROXY protocol, or one that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Parses the header at the start of `buf`. The verdict does not depend on how the bytes were cut into
/// reads: each prefix of a header gives `Partial`.
///
/// # Errors
/// [`Malformed`] as soon as no bytes that may follow could make it a header.
pub fn parse(buf: &[u8]) -> Result<Parsed, Malformed> {
    match buf.first() {
        None => Ok(Parsed::Partial),
        Some(b'P') => line(buf),
        Some(_) => block(buf),
    }
}

// --- version 1

fn line(buf: &[u8]) -> Result<Parsed, Malformed> {
    agrees(buf, PROXY)?;
    let window = &buf[..buf.len().min(MAX_LINE)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', window) else {
        return match window.len() {
            MAX_LINE => Err(Malformed),
            _ => Ok(Parsed::Partial),
        };
    };
    match &window[end..] {
        [b'\r', b'\n', ..] => {}
        // The last byte of the window cannot be the CR of a line that fits.
        [b'\r'] if window.len() < MAX_LINE => return Ok(Parsed::Partial),
        _ => return Err(Malformed),
    }
    let rest = window[..end].strip_prefix(PROXY).ok_or(Malformed)?;
    Ok(Parsed::Complete(Announced {
        len: end + 2,
        source: line_source(rest)?,
    }))
}

fn line_source(rest: &[u8]) -> Result<Source, Malformed> {
    let rest = std::str::from_utf8(rest).map_err(|_| Malformed)?;
    let mut words = rest.split(' ');
    let mut word = || words.next().ok_or(Malformed);
    let family = word()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Ok(Source::Unknown);
    }
    let (source, target) = match family {
        "TCP4" => (ipv4(word()?)?, ipv4(word()?)?),
        "TCP6" => (ipv6(word()?)?, ipv6(word()?)?),
        _ => return Err(Malformed),
    };
    let (port, target_port) = (port(word()?)?, port(word()?)?);
    // Read for their form alone: which of its own addresses the client has reached changes nothing.
    let _ = (target, target_port);
    match words.next() {
        None => Ok(Source::Client(client(source, port))),
        Some(_) => Err(Malformed),
    }
}

fn ipv4(text: &str) -> Result<IpAddr, Malformed> {
    // The standard library refuses leading zeros, as the specification wants.
    text.parse::<Ipv4Addr>().map(IpAddr::V4).or(Err(Malformed))
}

fn ipv6(text: &str) -> Result<IpAddr, Malformed> {
    text.parse::<Ipv6Addr>().map(IpAddr::V6).or(Err(Malformed))
}

fn port(text: &str) -> Result<u16, Malformed> {
    if text.len() > 1 && text.starts_with('0') {
        return Err(Malformed);
    }
    let number = decimal(text.as_bytes()).ok_or(Malformed)?;
    u16::try_from(number).or(Err(Malformed))
}

// --- version 2

fn block(buf: &[u8]) -> Result<Parsed, Malformed> {
    agrees(buf, SIGNATURE)?;
    let rest = buf.get(SIGNATURE.len()..).unwrap_or_default();
    let command = match rest.first() {
        None => return Ok(Parsed::Partial),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(Malformed),
    };
    let family = match rest.get(1) {
        None => return Ok(Parsed::Partial),
        // LOCAL: the family is ignored.
        Some(_) if command == Command::Local => Family::Ignored,
        Some(byte) => Family::of(*byte)?,
    };
    let Some(&[high, low]) = rest.get(2..4) else {
        // The high byte alone can tell that it is too long.
        return match rest.get(2) {
            Some(high) if usize::from(*high) << 8 > MAX_BLOCK - FIXED => Err(Malformed),
            _ => Ok(Parsed::Partial),
        };
    };
    let len = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_BLOCK || len < FIXED + family.size() {
        return Err(Malformed);
    }
    let Some(addresses) = buf.get(FIXED..len) else {
        return Ok(Parsed::Partial);
    };
    Ok(Parsed::Complete(Announced {
        len,
        source: family.source(addresses),
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Local,
    Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Tcp4,
    Tcp6,
    Unix,
    /// Unspecified, or datagrams: taken for unspecified, as the specification offers.
    Other,
    /// Of a connection that nobody stands behind.
    Ignored,
}

impl Family {
    fn of(byte: u8) -> Result<Family, Malformed> {
        match byte {
            0x11 => Ok(Family::Tcp4),
            0x21 => Ok(Family::Tcp6),
            0x31 | 0x32 => Ok(Family::Unix),
            // One half of it unspecified, or UDP.
            0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30 => Ok(Family::Other),
            _ => Err(Malformed),
        }
    }

    /// Of both addresses and ports; what follows them is skipped.
    fn size(self) -> usize {
        match self {
            Family::Tcp4 => 12,
            Family::Tcp6 => 36,
            Family::Unix => 216,
            Family::Other | Family::Ignored => 0,
        }
    }

    fn source(self, addresses: &[u8]) -> Source {
        let port = |bytes: &[u8]| match bytes {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        match (self, addresses) {
            (Family::Tcp4, [a, b, c, d, _, _, _, _, ports @ ..]) => {
                Source::Client(client(Ipv4Addr::new(*a, *b, *c, *d).into(), port(ports)))
            }
            (Family::Tcp6, _) => match addresses.split_first_chunk::<16>() {
                Some((source, rest)) => {
                    let ports = rest.get(16..).unwrap_or_default();
                    Source::Client(client(Ipv6Addr::from(*source).into(), port(ports)))
                }
                None => Source::Unknown,
            },
            (Family::Ignored, _) => Source::Proxy,
            _ => Source::Unknown,
        }
    }
}

/// An IPv4 client of a dual-stack proxy is one of IPv4, as it is on a listener of our own.
fn client(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// Whether `buf` and `start` are equal as far as both go.
fn agrees(buf: &[u8], start: &[u8]) -> Result<(), Malformed> {
    let common = buf.len().min(start.len());
    match buf[..common] == start[..common] {
        true => Ok(()),
        false => Err(Malformed),
    }
}

#[cfg(test)]
mod tests;
