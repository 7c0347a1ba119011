//! The first fault of a head that is not plainly good, found byte by byte.
//!
//! httparse says that a head is bad, but hardly why, and it lets some faults pass. This walk names
//! the fault that comes first in the bytes, so that the verdict does not depend on how the head
//! was cut into reads. It runs only for refused and incomplete heads and may be slow.

#![forbid(unsafe_code)]

use super::grammar::{is_target_byte, is_text_byte, is_token_byte};
use super::head::{Limits, MAX_FIELDS};
use super::refusal::Refusal;

/// No registered method is longer than 17 bytes.
pub(super) const MAX_METHOD: usize = 32;

/// RFC 9112 §2.2: a server should ignore at least one empty line before the request line. More
/// than these few are no mistake of an old client.
const MAX_BLANK_LINES: usize = 4;

/// Bytes of empty lines before the request line; `None` while only such bytes have arrived.
pub(super) fn blank_lines(buf: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut at = 0;
    loop {
        match (buf.get(at), buf.get(at + 1)) {
            (Some(b'\n'), _) => return Err(Refusal::BareLf),
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            (Some(b'\r'), Some(b'\n')) => at += 2,
            (Some(b'\r'), Some(_)) => return Err(Refusal::BareCr),
            _ => return Ok(Some(at)),
        }
        if at > 2 * MAX_BLANK_LINES {
            return Err(Refusal::MalformedRequestLine);
        }
    }
}

/// The first fault in `buf`, whose request line starts at `start`; `None` when the head, or as
/// much of it as has arrived, is well-formed and within the limits.
#[cold]
pub(super) fn first_fault(buf: &[u8], start: usize, limits: &Limits) -> Option<Refusal> {
    let mut walk = Walk {
        buf,
        at: start,
        line_end: start.saturating_add(limits.request_line),
        head_end: limits.head,
    };
    match walk.head(limits) {
        Ok(()) | Err(Stop::Partial) => None,
        Err(Stop::Fault(refusal)) => Some(refusal),
    }
}

enum Stop {
    Partial,
    Fault(Refusal),
}

fn fault<T>(refusal: Refusal) -> Result<T, Stop> {
    Err(Stop::Fault(refusal))
}

struct Walk<'b> {
    buf: &'b [u8],
    at: usize,
    line_end: usize,
    head_end: usize,
}

impl Walk<'_> {
    fn head(&mut self, limits: &Limits) -> Result<(), Stop> {
        self.method()?;
        self.target()?;
        self.version()?;
        let mut fields = 0;
        loop {
            let byte = self.next()?;
            match byte {
                b'\r' => return self.line_feed(),
                b'\n' => return fault(Refusal::BareLf),
                b' ' | b'\t' => return fault(Refusal::ObsFold),
                _ if !is_token_byte(byte) => return fault(Refusal::BadFieldName),
                _ if fields == limits.fields.min(MAX_FIELDS) => {
                    return fault(Refusal::TooManyFields);
                }
                _ => fields += 1,
            }
            self.name()?;
            self.value()?;
        }
    }

    fn next(&mut self) -> Result<u8, Stop> {
        let Some(&byte) = self.buf.get(self.at) else {
            return Err(Stop::Partial);
        };
        if self.at >= self.head_end {
            return fault(Refusal::HeadTooLarge);
        }
        self.at += 1;
        Ok(byte)
    }

    /// Within the request line: its end before `HTTP/1.1` is a fault of its own.
    fn next_in_line(&mut self) -> Result<u8, Stop> {
        if self.at >= self.line_end && !matches!(self.buf.get(self.at), None | Some(b'\r' | b'\n'))
        {
            return fault(Refusal::RequestLineTooLong);
        }
        match self.next()? {
            b'\n' => fault(Refusal::BareLf),
            b'\r' => {
                self.line_feed()?;
                fault(Refusal::MalformedRequestLine)
            }
            byte => Ok(byte),
        }
    }

    fn line_feed(&mut self) -> Result<(), Stop> {
        match self.next()? {
            b'\n' => Ok(()),
            _ => fault(Refusal::BareCr),
        }
    }

    fn method(&mut self) -> Result<(), Stop> {
        for length in 0..=MAX_METHOD {
            match self.next_in_line()? {
                b' ' if length > 0 => return Ok(()),
                byte if is_token_byte(byte) => {}
                _ => break,
            }
        }
        fault(Refusal::BadMethod)
    }

    fn target(&mut self) -> Result<(), Stop> {
        let start = self.at;
        loop {
            match self.next_in_line()? {
                b' ' if self.at > start + 1 => return Ok(()),
                byte if is_target_byte(byte) => {}
                _ => return fault(Refusal::BadTarget),
            }
        }
    }

    fn version(&mut self) -> Result<(), Stop> {
        for expected in b"HTTP/" {
            if self.next_in_line()? != *expected {
                return fault(Refusal::MalformedRequestLine);
            }
        }
        self.digit(|major| major == b'1')?;
        if self.next_in_line()? != b'.' {
            return fault(Refusal::MalformedRequestLine);
        }
        self.digit(|minor| minor == b'0' || minor == b'1')?;
        if self.at >= self.line_end && !matches!(self.buf.get(self.at), None | Some(b'\r' | b'\n'))
        {
            return fault(Refusal::RequestLineTooLong);
        }
        match self.next()? {
            b'\r' => self.line_feed(),
            b'\n' => fault(Refusal::BareLf),
            _ => fault(Refusal::MalformedRequestLine),
        }
    }

    fn digit(&mut self, served: fn(u8) -> bool) -> Result<(), Stop> {
        match self.next_in_line()? {
            digit if served(digit) => Ok(()),
            b'0'..=b'9' => fault(Refusal::BadVersion),
            _ => fault(Refusal::MalformedRequestLine),
        }
    }

    /// The rest of a field name, with its colon.
    fn name(&mut self) -> Result<(), Stop> {
        loop {
            match self.next()? {
                b':' => return Ok(()),
                b' ' | b'\t' => return fault(Refusal::SpaceBeforeColon),
                b'\n' => return fault(Refusal::BareLf),
                b'\r' => {
                    self.line_feed()?;
                    return fault(Refusal::BadFieldName);
                }
                byte if is_token_byte(byte) => {}
                _ => return fault(Refusal::BadFieldName),
            }
        }
    }

    fn value(&mut self) -> Result<(), Stop> {
        loop {
            match self.next()? {
                b'\r' => return self.line_feed(),
                b'\n' => return fault(Refusal::BareLf),
                byte if is_text_byte(byte) => {}
                _ => return fault(Refusal::BadFieldValue),
            }
        }
    }
}
