//! One request as it stands in shared memory: fixed words, then texts with their lengths.
//!
//! What is read back was written by another process, so [`Record::read`] takes nothing for granted.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::sys::clock::Nanos;

/// How a request ended, beside its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// The whole response went out.
    Complete = 0,
    /// The client left before it had everything, or before it had asked everything.
    Aborted,
    /// The application raised.
    Failed,
    /// By `RequestTimeout`.
    TimedOut,
    /// The response did not keep to its Content-Length, or could not be completed.
    Broken,
    /// The server refused the request.
    Refused,
    /// The worker crashed or left in the middle.
    Crashed,
    /// The worker was killed in the middle.
    Killed,
    /// The worker was stopped before the request was over.
    Stopped,
}

impl Ending {
    pub const ALL: [Ending; 9] = [
        Ending::Complete,
        Ending::Aborted,
        Ending::Failed,
        Ending::TimedOut,
        Ending::Broken,
        Ending::Refused,
        Ending::Crashed,
        Ending::Killed,
        Ending::Stopped,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Ending::Complete => "complete",
            Ending::Aborted => "aborted",
            Ending::Failed => "failed",
            Ending::TimedOut => "timed-out",
            Ending::Broken => "broken",
            Ending::Refused => "refused",
            Ending::Crashed => "crashed",
            Ending::Killed => "killed",
            Ending::Stopped => "stopped",
        }
    }
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Whole {
        method: &'a [u8],
        target: &'a [u8],
        is_11: bool,
    },
    /// The first line as it came, of a request that is not understood.
    Raw(&'a [u8]),
}

/// Fixed words.
const WORDS: usize = 10;
pub const FIXED: usize = WORDS * 8;
/// The longest record.
pub const LONGEST: usize = 5 * 1024;

const LENGTH: usize = 0;
const ARRIVED: usize = 1;
const BEGAN: usize = 2;
const QUEUE: usize = 3;
const APP: usize = 4;
const TOTAL: usize = 5;
const BYTES: usize = 6;
const WHO: usize = 7;
const ADDRESS: usize = 8;

const IS_11: u64 = 1;
const IS_RAW: u64 = 2;
const IS_V4: u64 = 4;
const IS_V6: u64 = 8;

/// Bytes that are kept of each text.
mod most {
    pub const METHOD: usize = 32;
    pub const TARGET: usize = 1536;
    pub const REFERER: usize = 512;
    pub const AGENT: usize = 512;
    pub const ID: usize = 128;
    pub const OTHER: usize = 256;
}

/// Fields of requests, and as many of responses, that a format may name.
pub const OTHERS: usize = 4;

// What is known before the response fits an entry of a lane; the rest is bounded, too.
const _: () = {
    let texts = most::METHOD + most::TARGET + most::REFERER + most::AGENT + most::ID;
    let known = FIXED + texts + 2 * 5 + (most::OTHER + 2) * OTHERS;
    assert!(known <= super::lane::ENTRY_BYTES);
    assert!(known + (most::OTHER + 2) * OTHERS <= LONGEST);
};

/// What is known before the application runs.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    pub line: Line<'a>,
    pub peer: Option<SocketAddr>,
    pub pid: u32,
    /// When the first byte came.
    pub arrived: Nanos,
    pub referer: &'a [u8],
    pub agent: &'a [u8],
    pub id: &'a [u8],
}

/// What the response adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub status: u16,
    pub ending: Ending,
    pub queue: Nanos,
    pub app: Nanos,
    pub total: Nanos,
    pub bytes: u64,
}

/// Appends a record without a response; `others` follow by [`append`].
pub fn write(out: &mut Vec<u8>, begun: &Begun<'_>) {
    out.clear();
    let (mut flags, mut port, mut address) = (0, 0, 0u128);
    if let Some(peer) = begun.peer {
        port = u64::from(peer.port());
        (flags, address) = match peer.ip() {
            IpAddr::V4(ip) => (IS_V4, u128::from(u32::from(ip))),
            IpAddr::V6(ip) => (IS_V6, u128::from(ip)),
        };
    }
    let (method, target) = match begun.line {
        Line::Whole {
            method,
            target,
            is_11,
        } => {
            flags |= if is_11 { IS_11 } else { 0 };
            (method, target)
        }
        Line::Raw(line) => {
            flags |= IS_RAW;
            (&b""[..], line)
        }
    };
    let fixed: [u64; WORDS] = [
        flags << 56,
        begun.arrived,
        0,
        0,
        0,
        0,
        0,
        u64::from(begun.pid) | port << 32,
        address as u64,
        (address >> 64) as u64,
    ];
    for word in fixed {
        out.extend_from_slice(&word.to_le_bytes());
    }
    text(out, method, most::METHOD);
    text(out, target, most::TARGET);
    text(out, begun.referer, most::REFERER);
    text(out, begun.agent, most::AGENT);
    text(out, begun.id, most::ID);
    seal(out);
}

/// Appends one of the fields that the format names.
pub fn append(out: &mut Vec<u8>, value: &[u8]) {
    text(out, value, most::OTHER);
    seal(out);
}

/// A text that is too long ends with dots.
fn text(out: &mut Vec<u8>, value: &[u8], most: usize) {
    let (kept, dots) = match value.len() > most {
        true => (&value[..most - 3], &b"..."[..]),
        false => (value, &b""[..]),
    };
    let length = (kept.len() + dots.len()) as u16;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(kept);
    out.extend_from_slice(dots);
}

/// The length stands in the first word.
fn seal(out: &mut [u8]) {
    let length = out.len() as u32;
    out[..4].copy_from_slice(&length.to_le_bytes());
}

fn word(bytes: &[u8], index: usize) -> u64 {
    match bytes.get(index * 8..).and_then(|rest| rest.first_chunk()) {
        Some(word) => u64::from_le_bytes(*word),
        None => 0,
    }
}

fn set(bytes: &mut [u8], index: usize, value: u64) {
    bytes[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
}

/// The application runs.
pub fn mark_begun(record: &mut [u8], now: Nanos, queue: Nanos) {
    set(record, BEGAN, now);
    set(record, QUEUE, queue);
}

pub fn complete(record: &mut [u8], done: &Done) {
    let first = word(record, LENGTH);
    let flags = first >> 56 << 56;
    let length = first & u64::from(u32::MAX);
    let facts = u64::from(done.status) << 32 | (done.ending as u64) << 48;
    set(record, LENGTH, length | facts | flags);
    set(record, QUEUE, done.queue);
    set(record, APP, done.app);
    set(record, TOTAL, done.total);
    set(record, BYTES, done.bytes);
}

/// When the application was called; 0 for not yet.
pub fn began(record: &[u8]) -> Nanos {
    word(record, BEGAN)
}

/// For a record whose writer is dead.
pub fn complete_dead(record: &mut [u8], (ending, status): (Ending, u16), now: Nanos) {
    let began = word(record, BEGAN);
    let app = match began {
        0 => 0,
        began => now.saturating_sub(began),
    };
    let done = Done {
        status,
        ending,
        queue: word(record, QUEUE),
        app,
        total: now.saturating_sub(word(record, ARRIVED)),
        bytes: 0,
    };
    complete(record, &done);
}

/// What a first word says about the length of its record, if that can be.
pub fn length(first: u64) -> Option<usize> {
    let length = (first & u64::from(u32::MAX)) as usize;
    (FIXED..=LONGEST).contains(&length).then_some(length)
}

/// A record that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub line: Line<'a>,
    pub peer: Option<SocketAddr>,
    pub pid: u32,
    pub arrived: Nanos,
    pub done: Done,
    pub referer: &'a [u8],
    pub agent: &'a [u8],
    pub id: &'a [u8],
    /// In the order in which the format names them, those of the request first.
    pub others: Vec<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// `None` for what no [`write`] has made.
    pub fn read(bytes: &'a [u8]) -> Option<Record<'a>> {
        let first = word(bytes, LENGTH);
        if length(first) != Some(bytes.len()) {
            return None;
        }
        let flags = first >> 56;
        let ending = *Ending::ALL.get((first >> 48 & 0xff) as usize)?;
        let status = (first >> 32 & 0xffff) as u16;
        if status > 999 {
            return None;
        }
        let mut texts = Texts(&bytes[FIXED..]);
        let (method, target) = (texts.next()?, texts.next()?);
        let (referer, agent, id) = (texts.next()?, texts.next()?, texts.next()?);
        let mut others = Vec::new();
        while !texts.0.is_empty() {
            if others.len() == OTHERS * 2 {
                return None;
            }
            others.push(texts.next()?);
        }
        let who = word(bytes, WHO);
        let address = u128::from(word(bytes, ADDRESS)) | u128::from(word(bytes, ADDRESS + 1)) << 64;
        let ip = match flags & (IS_V4 | IS_V6) {
            IS_V4 => Some(IpAddr::V4((address as u32).into())),
            IS_V6 => Some(IpAddr::V6(Ipv6Addr::from(address))),
            _ => None,
        };
        Some(Record {
            line: match flags & IS_RAW {
                0 => Line::Whole {
                    method,
                    target,
                    is_11: flags & IS_11 != 0,
                },
                _ => Line::Raw(target),
            },
            peer: ip.map(|ip| SocketAddr::new(ip, (who >> 32) as u16)),
            pid: who as u32,
            arrived: word(bytes, ARRIVED),
            done: Done {
                status,
                ending,
                queue: word(bytes, QUEUE),
                app: word(bytes, APP),
                total: word(bytes, TOTAL),
                bytes: word(bytes, BYTES),
            },
            referer,
            agent,
            id,
            others,
        })
    }
}

struct Texts<'a>(&'a [u8]);

impl<'a> Texts<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// xorshift64*: the same on every run.
    pub struct Random(pub u64);

    impl Random {
        pub fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
        }
    }

    pub fn begun() -> Begun<'static> {
        Begun {
            line: Line::Whole {
                method: b"GET",
                target: b"/a?b",
                is_11: true,
            },
            peer: Some("10.0.0.7:4711".parse().unwrap()),
            pid: 77,
            arrived: 5_000_000_000,
            referer: b"http://x/",
            agent: b"curl",
            id: b"abc",
        }
    }

    pub const DONE: Done = Done {
        status: 200,
        ending: Ending::Complete,
        queue: 1_000_000,
        app: 2_000_000,
        total: 3_456_789,
        bytes: 14,
    };

    #[test]
    fn is_read_as_it_was_written() {
        for peer in ["10.0.0.7:4711", "[2001:db8::7]:1"] {
            let mut bytes = Vec::new();
            let begun = Begun {
                peer: Some(peer.parse().unwrap()),
                ..begun()
            };
            write(&mut bytes, &begun);
            append(&mut bytes, b"other");
            mark_begun(&mut bytes, 5_001_000_000, 1_000_000);
            complete(&mut bytes, &DONE);
            let record = Record::read(&bytes).unwrap();
            assert_eq!((record.line, record.peer), (begun.line, begun.peer));
            assert_eq!((record.pid, record.arrived), (77, 5_000_000_000));
            assert_eq!(record.done, DONE);
            assert_eq!(record.others, [b"other"]);
            assert_eq!((record.agent, record.id), (&b"curl"[..], &b"abc"[..]));
        }
    }

    #[test]
    fn the_dead_are_completed_with_the_time_they_took() {
        let mut bytes = Vec::new();
        write(&mut bytes, &begun());
        mark_begun(&mut bytes, 5_001_000_000, 7);
        complete_dead(&mut bytes, (Ending::Killed, 0), 5_004_000_000);
        let done = Record::read(&bytes).unwrap().done;
        assert_eq!((done.status, done.ending), (0, Ending::Killed));
        assert_eq!(
            (done.queue, done.app, done.total),
            (7, 3_000_000, 4_000_000)
        );
    }

    #[test]
    fn texts_are_bounded_and_say_so() {
        let long = vec![b'x'; 100_000];
        let mut bytes = Vec::new();
        let begun = Begun {
            line: Line::Raw(&long),
            referer: &long,
            agent: &long,
            id: &long,
            ..begun()
        };
        write(&mut bytes, &begun);
        for _ in 0..OTHERS {
            append(&mut bytes, &long);
        }
        assert!(bytes.len() <= super::super::lane::ENTRY_BYTES);
        for _ in 0..OTHERS {
            append(&mut bytes, &long);
        }
        assert!(bytes.len() <= LONGEST);
        let record = Record::read(&bytes).unwrap();
        let Line::Raw(line) = record.line else {
            panic!("{:?}", record.line);
        };
        assert!(line.len() == most::TARGET && line.ends_with(b"x..."));
    }

    #[test]
    fn every_ending_has_its_number() {
        for (number, ending) in Ending::ALL.iter().enumerate() {
            assert_eq!(*ending as usize, number);
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_but_never_panic() {
        let mut good = Vec::new();
        write(&mut good, &begun());
        complete(&mut good, &DONE);
        let mut random = Random(7);
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            bytes.truncate(1 + random.below(bytes.len()));
            let _ = Record::read(&bytes);
            if bytes.len() >= 4 {
                seal(&mut bytes);
                let _ = Record::read(&bytes);
            }
        }
        assert!(Record::read(b"").is_none());
        assert!(Record::read(&[0xff; FIXED]).is_none());
    }
}
