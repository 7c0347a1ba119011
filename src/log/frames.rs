//! Entries on their way through a pipe, between what applications print into it.
//!
//! A frame is one line of at most PIPE_BUF bytes, written at once, so that frames of different
//! processes do not mix (`pipe(7)`); a longer entry is several. Lines that are no frames are the
//! application's output. All of it comes from processes that run as the application's user: lengths are
//! bounded, and nobody can speak in another generation's name.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::{Entry, Level, PIPE_BUF};

/// Begins a frame, ends its head, and stands for an end of line in it.
const START: u8 = 0x1e;
const TEXT: char = '\x1f';
const NEWLINE: char = '\x1d';
/// Text in one frame; the head takes less than the rest.
const PIECE: usize = PIPE_BUF - 512;
/// The longest line and the longest entry that is put together again.
const LINE: usize = 16 * 1024;
const ENTRY: usize = 256 * 1024;
/// Entries that wait for their rest; more are given out as they are.
const PARTIAL: usize = 64;

/// The frames of one entry.
pub fn encode(entry: &Entry) -> Vec<Vec<u8>> {
    let millis = entry.time.duration_since(SystemTime::UNIX_EPOCH);
    let millis = millis.unwrap_or_default().as_millis();
    let plain = |c: char| match c {
        '\n' => NEWLINE,
        '\x1c'..='\x1f' => '?',
        c => c,
    };
    let who: String = entry.who.chars().map(plain).take(80).collect();
    let text: String = entry.text.chars().map(plain).collect();
    let mut rest = text.as_str();
    let mut frames = Vec::new();
    loop {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
        let more = u8::from(!after.is_empty());
        let (level, pid) = (entry.level as u32, entry.pid);
        let head = format!("{level} {more} {millis} {pid} {who}{TEXT}");
        frames.push([&[START], head.as_bytes(), piece.as_bytes(), b"\n"].concat());
        if after.is_empty() {
            return frames;
        }
        rest = after;
    }
}

/// Puts together again what comes out of the pipe of one generation.
pub struct Reader {
    /// `[shop gen 3]`
    tag: String,
    buffer: Vec<u8>,
    partial: HashMap<u32, Entry>,
}

impl Reader {
    pub fn new(tag: String) -> Self {
        Self {
            tag,
            buffer: Vec::new(),
            partial: HashMap::new(),
        }
    }

    /// `now` is the time of what has none.
    pub fn read(&mut self, bytes: &[u8], now: SystemTime, give: &mut impl FnMut(Entry)) {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while let Some((line, after)) = split_line(rest) {
            self.line(line, now, give);
            rest = after;
        }
        self.buffer = rest.to_vec();
    }

    /// The other end is closed: what is left is given out as it is.
    pub fn end(&mut self, now: SystemTime, give: &mut impl FnMut(Entry)) {
        let rest = std::mem::take(&mut self.buffer);
        if !rest.is_empty() {
            self.line(&rest, now, give);
        }
        self.partial.drain().for_each(|(_, entry)| give(entry));
    }

    fn line(&mut self, line: &[u8], now: SystemTime, give: &mut impl FnMut(Entry)) {
        match self.frame(line) {
            Some((more, entry)) => {
                let pid = entry.pid;
                let entry = match self.partial.remove(&pid) {
                    Some(mut whole) => {
                        whole.text.push_str(&entry.text);
                        whole
                    }
                    None => entry,
                };
                let has_room = entry.text.len() < ENTRY && self.partial.len() < PARTIAL;
                match more && has_room {
                    true => drop(self.partial.insert(pid, entry)),
                    false => give(entry),
                }
            }
            None => give(Entry {
                time: now,
                level: Level::Info,
                who: format!("output {}", self.tag),
                pid: 0,
                text: String::from_utf8_lossy(line).into_owned(),
            }),
        }
    }

    fn frame(&self, line: &[u8]) -> Option<(bool, Entry)> {
        let line = line.strip_prefix(&[START])?;
        let line = std::str::from_utf8(line).ok()?;
        let (head, text) = line.split_once(TEXT)?;
        let mut words = head.splitn(5, ' ');
        let level: usize = words.next()?.parse().ok()?;
        let more = words.next()? == "1";
        // Below the year 10000, which is as far as the form of the time goes.
        let millis = words.next()?.parse::<u64>().ok();
        let millis = millis.filter(|millis| *millis < 253_000_000_000_000)?;
        let pid = words.next()?.parse().ok()?;
        let who = words.next()?;
        let who = match who.ends_with(&self.tag) && !who.starts_with("output ") {
            true => who.to_owned(),
            false => format!("somebody {}", self.tag),
        };
        let entry = Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            level: *Level::ALL.get(level)?,
            who,
            pid,
            text: text.replace(NEWLINE, "\n"),
        };
        Some((more, entry))
    }
}

/// A line ends with its end of line, before a frame, or where it is too long.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let within = &bytes[..bytes.len().min(LINE)];
    let end = memchr::memchr(b'\n', within);
    let frame = memchr::memchr(START, within.get(1..).unwrap_or_default()).map(|at| at + 1);
    match (end, frame) {
        (Some(end), Some(frame)) if frame < end => Some(bytes.split_at(frame)),
        (Some(end), _) => Some((&bytes[..end], &bytes[end + 1..])),
        (None, Some(frame)) => Some(bytes.split_at(frame)),
        (None, None) if bytes.len() >= LINE => Some(bytes.split_at(LINE)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::form::tests::entry;

    fn reader() -> Reader {
        Reader::new("[shop gen 3]".into())
    }

    fn read_all(reader: &mut Reader, bytes: &[u8], size: usize) -> Vec<Entry> {
        let mut got = Vec::new();
        for piece in bytes.chunks(size) {
            reader.read(piece, SystemTime::UNIX_EPOCH, &mut |entry| got.push(entry));
        }
        reader.end(SystemTime::UNIX_EPOCH, &mut |entry| got.push(entry));
        got
    }

    #[test]
    fn entries_come_out_as_they_went_in_whatever_the_pieces() {
        let long = "ä".repeat(9000) + "\nthe end";
        let entries = [entry("one\ntwo\n\nthree"), entry(&long), entry("")];
        let bytes: Vec<u8> = entries.iter().flat_map(encode).flatten().collect();
        for frame in entries.iter().flat_map(encode) {
            assert!(frame.len() <= PIPE_BUF);
            assert_eq!(frame.iter().filter(|b| **b == b'\n').count(), 1);
        }
        for size in [1, 7, 4096, bytes.len()] {
            assert_eq!(read_all(&mut reader(), &bytes, size), entries, "{size}");
        }
    }

    #[test]
    fn frames_of_two_processes_may_alternate() {
        let a = entry(&"a".repeat(6000));
        let b = Entry {
            pid: 78,
            ..entry(&"b".repeat(6000))
        };
        let (first, second) = (encode(&a), encode(&b));
        let bytes = [&first[0][..], &second[0], &first[1], &second[1]].concat();
        assert_eq!(read_all(&mut reader(), &bytes, 100), [a, b]);
    }

    #[test]
    fn what_is_no_frame_is_output() {
        let frame = encode(&entry("mine")).concat();
        let bytes = [b"half a line", &frame[..], b"a line\n\nrest\xff"].concat();
        let got = read_all(&mut reader(), &bytes, 3);
        let texts: Vec<&str> = got.iter().map(|e| e.text.as_str()).collect();
        assert_eq!(texts, ["half a line", "mine", "a line", "", "rest\u{fffd}"]);
        assert!(got[0].is_output() && !got[1].is_output());
    }

    #[test]
    fn nobody_speaks_for_others_and_nonsense_is_output() {
        let other = Entry {
            who: "supervisor".into(),
            ..entry("x")
        };
        let got = read_all(&mut reader(), &encode(&other).concat(), 4096);
        assert_eq!(got[0].who, "somebody [shop gen 3]");
        for bad in [
            &b"\x1e"[..],
            b"\x1e9 0 1 1 x\x1fy",
            b"\x1e1 0 99999999999999999 1 x\x1fy",
            b"\x1e1 0 1 -1 x\x1fy",
            b"\x1e1 0 1 1 x",
            b"\x1e1 0 1 1 x\x1f\xff",
        ] {
            let got = read_all(&mut reader(), bad, 4096);
            assert!(got[0].is_output(), "{bad:?}");
        }
    }

    #[test]
    fn what_never_ends_is_given_out_in_bounded_pieces() {
        let got = read_all(&mut reader(), &vec![b'x'; 3 * LINE + 1], 5000);
        assert!(got.len() >= 4 && got.iter().all(|e| e.text.len() <= LINE));
        let mut endless = reader();
        let piece = format!("\x1e1 1 1 7 x\x1f{}\n", "y".repeat(4000));
        for _ in 0..1000 {
            endless.read(piece.as_bytes(), SystemTime::UNIX_EPOCH, &mut |entry| {
                assert!(entry.text.len() <= ENTRY + PIPE_BUF);
            });
        }
        assert!(endless.partial.len() <= PARTIAL);
    }
}
