//! Request heads: from bytes to the facts the worker acts on.
//!
//! [`parse`] runs httparse, looks for what httparse lets pass, then derives the semantics in one
//! loop over the fields. It allocates nothing and copies no byte of the head: everything in
//! [`Head`] borrows the read buffer.

#![forbid(unsafe_code)]

use std::mem::MaybeUninit;

use super::Version;
use super::grammar::{decimal, is_token_byte, trim_ows};
use super::refusal::Refusal;
use super::syntax;
use super::target::{self, Target};

/// No configuration allows more fields than this.
pub const MAX_FIELDS: usize = 256;

/// In bytes, except `fields`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Without its CRLF.
    pub request_line: usize,
    /// Request line, fields and empty line, and empty lines before them.
    pub head: usize,
    /// At most [`MAX_FIELDS`].
    pub fields: usize,
    pub underscores: Underscores,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_line: 8192,
            head: 65536,
            fields: 100,
            underscores: Underscores::Drop,
        }
    }
}

/// What becomes of a field with `_` in its name: `X_Y` and `X-Y` have the same environ key, so a
/// client could forge a field that a proxy sets or strips.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Underscores {
    Drop,
    Refuse,
    Keep,
}

/// How the body of the request ends (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Head<'b, 's> {
    pub method: &'b [u8],
    pub target: Target<'b>,
    pub version: Version,
    /// In order of arrival, values without white space around them.
    pub fields: &'s [httparse::Header<'b>],
    pub framing: Framing,
    /// The client lets the connection persist (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Some field fails [`environ_worthy`] under [`Underscores::Drop`].
    pub has_underscores: bool,
    /// Of an absolute target, else the `Host` field: what `HTTP_HOST` must say.
    pub host: Option<&'b [u8]>,
    /// Bytes of the head in the buffer, with empty lines before it; the body starts here.
    pub len: usize,
}

// One `Parsed` lives on the stack of one caller, which takes it apart at once.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'b, 's> {
    Complete(Head<'b, 's>),
    Partial,
}

/// Room for the fields of one head; never initialised as a whole.
pub type Scratch<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS];

#[inline]
pub fn scratch<'b>() -> Scratch<'b> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// Whether a field goes into the environ; see [`Underscores`]. Framing fields are recognised by
/// their real names only, so this concerns no decision of ours.
#[inline]
pub fn environ_worthy(name: &[u8], underscores: Underscores) -> bool {
    underscores == Underscores::Keep || !has_underscore(name)
}

/// Whether [`parse`] can come to a verdict: a whole head is there, a limit is passed or a line
/// ends wrongly. `scanned_to` starts at 0 for each head and keeps a head that arrives byte by byte
/// from being read again from its start.
pub fn is_complete(buf: &[u8], limits: &Limits, scanned_to: &mut usize) -> bool {
    let blank = buf.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    let start = blank.count();
    if start == 0 && *scanned_to == 0 && buf.ends_with(b"\r\n\r\n") {
        return true;
    }
    match buf.get(start) {
        // Empty lines only: refused when there are too many or one is no CRLF.
        None => return !matches!(syntax::blank_lines(buf), Ok(None)),
        // Not HTTP, perhaps a TLS handshake: it may never send a line end.
        Some(&first) if !is_token_byte(first) => return true,
        Some(_) => {}
    }
    let mut at = (*scanned_to).max(start);
    while let Some(line) = buf.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let feed = at + line;
        if buf[feed - 1] != b'\r' || (feed >= start + 3 && buf[feed - 3..feed].starts_with(b"\r\n"))
        {
            return true;
        }
        at = feed + 1;
    }
    *scanned_to = buf.len();
    buf.len() > limits.head || is_line_too_long(&buf[start..], limits)
}

fn is_line_too_long(lines: &[u8], limits: &Limits) -> bool {
    lines
        .get(..limits.request_line.saturating_add(2))
        .is_some_and(|line| memchr::memchr(b'\n', line).is_none())
}

/// Parses the head at the start of `buf`, which may hold more than the head.
///
/// The verdict does not depend on how the bytes were cut into reads: each prefix gives `Partial`
/// or the same refusal.
pub fn parse<'b, 's>(
    buf: &'b [u8],
    limits: &Limits,
    scratch: &'s mut Scratch<'b>,
) -> Result<Parsed<'b, 's>, Refusal> {
    let start = match buf.first() {
        Some(b'\r' | b'\n') => match syntax::blank_lines(buf)? {
            Some(start) => start,
            None => return Ok(Parsed::Partial),
        },
        _ => 0,
    };
    let Some(raw) = tokenize(buf, start, limits, scratch) else {
        return match syntax::first_fault(buf, start, limits) {
            Some(refusal) => Err(refusal),
            None => Ok(Parsed::Partial),
        };
    };
    let target = Target::parse(raw.method, raw.target)?;
    let facts = Facts::derive(raw.fields, raw.version, limits.underscores)?;
    Ok(Parsed::Complete(Head {
        method: raw.method,
        target,
        version: raw.version,
        fields: raw.fields,
        framing: facts.framing,
        keep_alive: facts.keep_alive,
        expects_continue: facts.expects_continue,
        has_underscores: facts.has_underscores,
        host: target.authority.or(facts.host),
        len: raw.len,
    }))
}

/// A whole head whose syntax is good and within the limits.
struct Raw<'b, 's> {
    method: &'b [u8],
    target: &'b [u8],
    version: Version,
    fields: &'s [httparse::Header<'b>],
    len: usize,
}

/// `None` when the head is incomplete or anything at all is wrong with its syntax.
#[inline]
fn tokenize<'b, 's>(
    buf: &'b [u8],
    start: usize,
    limits: &Limits,
    scratch: &'s mut Scratch<'b>,
) -> Option<Raw<'b, 's>> {
    let room = limits.fields.min(MAX_FIELDS);
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(&buf[start..], &mut scratch[..room]);
    let Ok(httparse::Status::Complete(len)) = parsed else {
        return None;
    };
    let method = request.method?.as_bytes();
    let target = request.path?.as_bytes();
    let version = match request.version? {
        0 => Version::Http10,
        _ => Version::Http11,
    };
    let fields = &*request.headers;
    let len = start + len;
    // httparse takes one space between the parts of the request line, no more and no less.
    let line = method.len() + target.len() + b"  HTTP/1.1".len();
    let good = method.len() <= syntax::MAX_METHOD
        && line <= limits.request_line
        && len <= limits.head
        && has_crlf_only(&buf[..len], fields);
    good.then_some(Raw {
        method,
        target,
        version,
        fields,
        len,
    })
}

/// httparse accepts a bare LF as a line end. It refuses LF anywhere else and CR without LF, so the
/// two bytes before each field name, and the four that end the head, tell for every line.
#[inline]
fn has_crlf_only(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let origin = head.as_ptr().addr();
    head.ends_with(b"\r\n\r\n")
        && fields.iter().all(|field| {
            let name = field.name.as_ptr().addr() - origin;
            head[name - 2] == b'\r'
        })
}

/// What the fields say about the message and the connection.
struct Facts<'b> {
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    has_underscores: bool,
    host: Option<&'b [u8]>,
}

impl<'b> Facts<'b> {
    /// According to RFC 9112 and RFC 9110:
    ///
    /// 1. A 1.1 request without `Host`, or any with two or an invalid one, is refused (9112 §3.2).
    /// 2. `Content-Length` is one decimal number; repeated fields must agree (9112 §6.3, 9110 §8.6).
    ///    A list in one field is refused: only an intermediary that mangles framing makes one.
    /// 3. `Transfer-Encoding` is exactly one `chunked` (9112 §6.1, §7), and never in 1.0.
    /// 4. Both of them are an attempt at request smuggling (9112 §6.1, §6.3).
    /// 5. Neither of them: no body (9112 §6.3).
    /// 6. `Connection: close` ends the connection; without it 1.1 persists, and 1.0 only with
    ///    `keep-alive` (9112 §9.3).
    /// 7. `Expect` other than `100-continue` cannot be met; that one means something only in 1.1
    ///    and before a body (9110 §10.1.1).
    #[inline]
    fn derive(
        fields: &[httparse::Header<'b>],
        version: Version,
        underscores: Underscores,
    ) -> Result<Facts<'b>, Refusal> {
        let mut host = None;
        let mut length = None;
        let mut chunked = false;
        let mut connection = Connection::default();
        let mut waits = false;
        let mut has_underscores = false;

        for field in fields {
            let name = field.name.as_bytes();
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => {
                    if host.is_some() {
                        return Err(Refusal::RepeatedHost);
                    }
                    if !target::is_host(field.value) {
                        return Err(Refusal::BadHost);
                    }
                    host = Some(field.value);
                }
                6 if name.eq_ignore_ascii_case(b"expect") => waits |= wants_continue(field.value)?,
                10 if name.eq_ignore_ascii_case(b"connection") => connection.read(field.value),
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let value = decimal(field.value).ok_or(Refusal::BadLength)?;
                    if length.is_some_and(|earlier| earlier != value) {
                        return Err(Refusal::DifferingLengths);
                    }
                    length = Some(value);
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::BadCoding);
                    }
                    chunked = true;
                }
                _ => {}
            }
            has_underscores |= has_underscore(name);
        }

        if has_underscores && underscores == Underscores::Refuse {
            return Err(Refusal::UnderscoreField);
        }
        let framing = match (chunked, length, version) {
            (true, Some(_), _) => return Err(Refusal::LengthAndCoding),
            (true, None, Version::Http10) => return Err(Refusal::CodingIn10),
            (true, None, Version::Http11) => Framing::Chunked,
            (false, Some(length), _) => Framing::Length(length),
            (false, None, _) => Framing::None,
        };
        if version == Version::Http11 && host.is_none() {
            return Err(Refusal::MissingHost);
        }
        let has_body = !matches!(framing, Framing::None | Framing::Length(0));
        Ok(Facts {
            framing,
            keep_alive: connection.persists(version),
            expects_continue: waits && has_body && version == Version::Http11,
            has_underscores,
            host,
        })
    }
}

/// The options we know of in all `Connection` fields.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    fn read(&mut self, value: &[u8]) {
        // What every browser sends, without the walk through a list.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        for option in value.split(|&b| b == b',').map(trim_ows) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

fn wants_continue(value: &[u8]) -> Result<bool, Refusal> {
    let mut wants = false;
    for expectation in value.split(|&b| b == b',').map(trim_ows) {
        if expectation.eq_ignore_ascii_case(b"100-continue") {
            wants = true;
        } else if !expectation.is_empty() {
            return Err(Refusal::ExpectationFailed);
        }
    }
    Ok(wants)
}

/// Eight bytes at a time, some of them twice: this runs on every field of every request.
#[inline]
fn has_underscore(name: &[u8]) -> bool {
    let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) else {
        return name.iter().fold(false, |found, &b| found | (b == b'_'));
    };
    let mut marks = underscore_marks(first) | underscore_marks(last);
    if name.len() > 16 {
        let (words, _) = name.as_chunks();
        marks = words
            .iter()
            .fold(marks, |marks, word| marks | underscore_marks(word));
    }
    marks != 0
}

/// Not zero when there is one: the classic test for a zero byte anywhere in a word.
#[inline]
fn underscore_marks(word: &[u8; 8]) -> u64 {
    let differs = u64::from_ne_bytes(*word) ^ 0x5f5f_5f5f_5f5f_5f5f;
    differs.wrapping_sub(0x0101_0101_0101_0101) & !differs & 0x8080_8080_8080_8080
}

#[cfg(test)]
mod tests;
