//! The request target (RFC 9112 §3.2), percent-decoding of its path, and the shape of `Host`.

#![forbid(unsafe_code)]

use std::net::Ipv6Addr;

use super::grammar::{decimal, is_reg_name_byte};
use super::refusal::Refusal;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`, for OPTIONS only
    Asterisk,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'b> {
    /// As received.
    pub raw: &'b [u8],
    /// Still percent-encoded; `/` when an absolute target has none; `*` for the asterisk form.
    pub path: &'b [u8],
    /// Without the `?`; empty when there is none.
    pub query: &'b [u8],
    /// Of an absolute target: it replaces `Host` (RFC 9112 §3.2.2).
    pub authority: Option<&'b [u8]>,
    pub form: Form,
}

impl<'b> Target<'b> {
    /// Expects bytes without control bytes and spaces. CONNECT is refused: its authority form is
    /// for proxies, and no WSGI application can answer it.
    pub fn parse(method: &[u8], raw: &'b [u8]) -> Result<Target<'b>, Refusal> {
        if !raw.is_ascii() || method == b"CONNECT" {
            return Err(Refusal::BadTarget);
        }
        match raw.first() {
            Some(b'/') => {
                let (path, query) = split_query(raw)?;
                Ok(Target {
                    raw,
                    path,
                    query,
                    authority: None,
                    form: Form::Origin,
                })
            }
            Some(b'*') if raw.len() == 1 && method == b"OPTIONS" => Ok(Target {
                raw,
                path: raw,
                query: b"",
                authority: None,
                form: Form::Asterisk,
            }),
            _ => Target::absolute(raw),
        }
    }

    fn absolute(raw: &'b [u8]) -> Result<Target<'b>, Refusal> {
        let rest = strip_scheme(raw).ok_or(Refusal::BadTarget)?;
        let end = memchr::memchr3(b'/', b'?', b'#', rest).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        // RFC 9110 §4.2.1: an empty host is invalid; §4.2.4: so is userinfo, as `@` is no host byte.
        if authority.is_empty() || !is_host(authority) {
            return Err(Refusal::BadTarget);
        }
        let (path, query) = split_query(rest)?;
        Ok(Target {
            raw,
            path: if path.is_empty() { b"/" } else { path },
            query,
            authority: Some(authority),
            form: Form::Absolute,
        })
    }
}

fn strip_scheme(raw: &[u8]) -> Option<&[u8]> {
    [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find_map(|scheme| {
            let (head, rest) = raw.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(rest)
        })
}

#[inline]
fn split_query(raw: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    match memchr::memchr2(b'?', b'#', raw) {
        None => Ok((raw, b"")),
        Some(at) if raw[at] == b'?' => {
            let query = &raw[at + 1..];
            match memchr::memchr(b'#', query) {
                None => Ok((&raw[..at], query)),
                Some(_) => Err(Refusal::BadTarget),
            }
        }
        Some(_) => Err(Refusal::BadTarget),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2). An empty value is valid: a client whose target has no
/// authority must send it (RFC 9112 §3.2); a port without a host is not (RFC 9110 §4.2.1).
#[inline]
pub fn is_host(host: &[u8]) -> bool {
    if host.is_empty() {
        return true;
    }
    if host[0] == b'[' {
        return is_bracketed(host);
    }
    match host.iter().position(|&b| !is_reg_name_byte(b)) {
        None => true,
        Some(0) => false,
        Some(at) => host[at] == b':' && is_port(&host[at + 1..]),
    }
}

fn is_bracketed(host: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b']', host) else {
        return false;
    };
    let address = std::str::from_utf8(&host[1..end]).ok();
    let valid = address.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok());
    valid
        && match &host[end + 1..] {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

/// `*DIGIT` (RFC 3986 §3.2.3), so possibly empty, within the range of a port.
fn is_port(port: &[u8]) -> bool {
    port.is_empty() || decimal(port).is_some_and(|n| n <= 65535)
}

/// Host name and port of a validated host; an IPv6 address keeps its brackets, as `SERVER_NAME`
/// wants it (RFC 3875 §4.1.14), and an empty port is no port.
pub fn split_host(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    let name = match host.first() {
        Some(b'[') => memchr::memchr(b']', host).map_or(host.len(), |end| end + 1),
        _ => memchr::memchr(b':', host).unwrap_or(host.len()),
    };
    let port = match &host[name..] {
        [b':', port @ ..] if !port.is_empty() => Some(port),
        _ => None,
    };
    (&host[..name], port)
}

/// The decoded path; `buf` is used only when there is something to decode.
///
/// An invalid escape stays as it is, as CPython's `unquote_to_bytes` and every other WSGI server
/// leave it: an application meets the same `PATH_INFO` everywhere. For the same reason `%00` and
/// `%2F` are decoded like any other byte; what a path may hold is for the application to say.
pub fn percent_decode<'a>(path: &'a [u8], buf: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(first) = memchr::memchr(b'%', path) else {
        return path;
    };
    buf.clear();
    buf.extend_from_slice(&path[..first]);
    let mut rest = &path[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escape = match after {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                buf.push(high << 4 | low);
                rest = &after[2..];
            }
            None => buf.push(byte),
        }
    }
    buf
}

pub(super) fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
