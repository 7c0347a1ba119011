//! How single values are written: whatever a client has sent, a line stays a line.

#![forbid(unsafe_code)]

use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::sys::clock::Nanos;

/// As nginx and Apache do it: what is not printable ASCII, `"` and `\` become `\xHH`; nothing is `-`.
pub fn text(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        out.push(b'-');
        return;
    }
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.iter().all(is_plain) {
        out.extend_from_slice(value);
        return;
    }
    for byte in value {
        match is_plain(byte) {
            true => out.push(*byte),
            false => {
                let _ = write!(out, "\\x{byte:02X}");
            }
        }
    }
}

/// A JSON string. Bytes that are no UTF-8 are replaced.
pub fn json(out: &mut Vec<u8>, value: &[u8]) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.iter().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    let text = String::from_utf8_lossy(value);
    let shown = serde_json::to_string(text.as_ref()).unwrap_or_default();
    out.extend_from_slice(shown.replace('\u{7f}', "\\u007f").as_bytes());
}

pub fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// `1.234`: milliseconds with their microseconds, or seconds with their milliseconds.
pub fn thousandths(out: &mut Vec<u8>, thousandths: u64) {
    number(out, thousandths / 1000);
    let rest = thousandths % 1000;
    let digit = |n: u64| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

pub fn micros(time: Nanos) -> u64 {
    time / 1000
}

/// Seconds as texts, made once for each.
#[derive(Default)]
pub struct Calendar {
    second: Option<u64>,
    /// `2026-11-21T05:39:56`
    iso: String,
    /// `21/Nov/2026:05:39:56 +0000`
    common: String,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl Calendar {
    fn at(&mut self, unix: Duration) -> &Self {
        // As far as four digits of a year go.
        let second = unix.as_secs().min(253_402_300_799);
        if self.second != Some(second) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let text = humantime::format_rfc3339_seconds(time).to_string();
            self.iso = text.trim_end_matches('Z').to_owned();
            let part = |from, to| self.iso.get(from..to).unwrap_or_default();
            let month = part(5, 7).parse::<usize>().unwrap_or(1).clamp(1, 12);
            let (year, day, time) = (part(0, 4), part(8, 10), part(11, 19));
            self.common = format!("{day}/{}/{year}:{time} +0000", MONTHS[month - 1]);
            self.second = Some(second);
        }
        self
    }

    /// `21/Nov/2026:05:39:56 +0000`: always in UTC.
    pub fn common(&mut self, out: &mut Vec<u8>, unix: Duration) {
        out.extend_from_slice(self.at(unix).common.as_bytes());
    }

    /// `2026-11-21T05:39:56.789Z`
    pub fn iso(&mut self, out: &mut Vec<u8>, unix: Duration) {
        out.extend_from_slice(self.at(unix).iso.as_bytes());
        let millis = u64::from(unix.subsec_millis());
        let digit = |n: u64| b'0' + (n % 10) as u8;
        let rest = [
            b'.',
            digit(millis / 100),
            digit(millis / 10),
            digit(millis),
            b'Z',
        ];
        out.extend_from_slice(&rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_ends_a_line_or_a_quotation() {
        for (value, expected) in [
            (&b""[..], "-"),
            (b"plain text", "plain text"),
            (b"a\"b\\c", "a\\x22b\\x5Cc"),
            (
                b"a\r\nb\x1b\x00\x7f\xff",
                "a\\x0D\\x0Ab\\x1B\\x00\\x7F\\xFF",
            ),
        ] {
            assert_eq!(written(|out| text(out, value)), expected);
        }
    }

    #[test]
    fn json_strings_are_valid_whatever_the_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        for value in [
            &b""[..],
            b"plain",
            "a\"\\\u{e4}\n".as_bytes(),
            b"\xff\xfe",
            &all,
        ] {
            let shown = written(|out| json(out, value));
            let read: String = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, String::from_utf8_lossy(value));
            assert!(!shown.contains(|c: char| c.is_ascii_control()));
        }
    }

    #[test]
    fn times_are_in_utc() {
        let unix = Duration::from_millis(1_795_239_596_042);
        let mut calendar = Calendar::default();
        assert_eq!(
            written(|out| calendar.common(out, unix)),
            "21/Nov/2026:05:39:56 +0000"
        );
        assert_eq!(
            written(|out| calendar.iso(out, unix)),
            "2026-11-21T05:39:56.042Z"
        );
        written(|out| calendar.iso(out, Duration::MAX));
    }

    #[test]
    fn numbers_and_their_thousandths() {
        assert_eq!(written(|out| number(out, 0)), "0");
        assert_eq!(written(|out| number(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(written(|out| thousandths(out, 1_002)), "1.002");
        assert_eq!(written(|out| thousandths(out, 45)), "0.045");
    }
}
