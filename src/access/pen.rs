//! The worker's side: from what it knows of a request to a record in the ring of its lane.

#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;

use super::desk::{Bell, Desk};
use super::format::Format;
use super::lane::{ENTRIES, Lane, Published};
use super::record::{self, Begun, Done, Ending, Line, Record};
use crate::sys::clock::{self, Nanos};

pub struct Pen {
    lane: &'static Lane,
    desk: &'static Desk,
    bell: Bell,
    pid: u32,
    request_fields: Vec<String>,
    response_fields: Vec<String>,
    /// Entries in use by no request, the one to be taken next at the end: it is in the cache.
    free: Vec<usize>,
    record: Vec<u8>,
    others: Vec<Vec<u8>>,
    id: Vec<u8>,
    ids: Ids,
}

/// A request that is not over. It has to be given to [`Pen::end`].
#[must_use]
pub struct Ticket {
    place: Place,
    arrived: Nanos,
    pub told: Told,
}

enum Place {
    Entry(usize),
    /// All entries are taken: the request would be lost with this process.
    Own(Vec<u8>),
}

/// What is known of the response so far.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub status: u16,
    pub ending: Ending,
    pub queue: Nanos,
    pub app: Nanos,
    /// Of the body, as they went out.
    pub bytes: u64,
}

/// What a request waits for when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// For the rest of itself.
    ForBody,
    /// For nothing: the application runs from now on.
    No { now: Nanos, queue: Nanos },
}

pub struct Facts<'a> {
    pub line: Line<'a>,
    pub peer: Option<SocketAddr>,
    pub arrived: Nanos,
}

impl Pen {
    pub fn new(lane: &'static Lane, desk: &'static Desk, bell: Bell, format: &Format) -> Self {
        let pid = std::process::id();
        Self {
            lane,
            desk,
            bell,
            pid,
            request_fields: format.request_fields().to_vec(),
            response_fields: format.response_fields().to_vec(),
            free: (0..ENTRIES).rev().collect(),
            record: Vec::with_capacity(1024),
            others: vec![Vec::new(); format.request_fields().len()],
            id: Vec::new(),
            ids: Ids::new(pid),
        }
    }

    /// Whether [`Pen::end`] wants to see the fields of responses.
    pub fn wants_response_fields(&self) -> bool {
        !self.response_fields.is_empty()
    }

    /// Of the request that was opened or started last.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Takes note of a request.
    pub fn open<'a>(
        &mut self,
        facts: &Facts<'_>,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        waits: Waits,
    ) -> Ticket {
        let (mut referer, mut agent, mut id) = (&b""[..], &b""[..], None);
        self.others.iter_mut().for_each(Vec::clear);
        for (name, value) in fields {
            match name.len() {
                7 if name.eq_ignore_ascii_case(b"referer") => referer = value,
                10 if name.eq_ignore_ascii_case(b"user-agent") => agent = value,
                12 if name.eq_ignore_ascii_case(b"x-request-id") => id = Some(value),
                _ => {}
            }
            for (wanted, kept) in self.request_fields.iter().zip(&mut self.others) {
                if name.eq_ignore_ascii_case(wanted.as_bytes()) && kept.is_empty() {
                    kept.extend_from_slice(value);
                }
            }
        }
        self.id.clear();
        match id.filter(|id| is_sane(id)) {
            Some(id) => self.id.extend_from_slice(id),
            None => self.ids.next(&mut self.id),
        }
        let begun = Begun {
            line: facts.line,
            peer: facts.peer,
            pid: self.pid,
            arrived: facts.arrived,
            referer,
            agent,
            id: &self.id,
        };
        record::write(&mut self.record, &begun);
        for value in &self.others {
            record::append(&mut self.record, value);
        }
        let mut told = Told {
            status: 0,
            ending: Ending::Aborted,
            queue: 0,
            app: 0,
            bytes: 0,
        };
        // The last one is kept for a request that runs.
        let spare = match waits {
            Waits::ForBody => 1,
            Waits::No { now, queue } => {
                record::mark_begun(&mut self.record, now, queue);
                told.queue = queue;
                0
            }
        };
        Ticket {
            place: self.occupy(spare),
            arrived: facts.arrived,
            told,
        }
    }

    fn occupy(&mut self, spare: usize) -> Place {
        match self.free.len() > spare {
            true => {
                let entry = self.free.pop().unwrap_or_default();
                self.lane.occupy(entry, &self.record);
                Place::Entry(entry)
            }
            false => Place::Own(self.record.clone()),
        }
    }

    /// The request is whole, and the application runs from now on.
    pub fn run(&mut self, ticket: &mut Ticket, now: Nanos, queue: Nanos) {
        ticket.told.queue = queue;
        self.load(&ticket.place);
        self.id.clear();
        if let Some(record) = Record::read(&self.record) {
            self.id.extend_from_slice(record.id);
        }
        match &ticket.place {
            Place::Entry(entry) => self.lane.mark_begun(*entry, now, queue),
            Place::Own(_) => {
                record::mark_begun(&mut self.record, now, queue);
                ticket.place = self.occupy(0);
            }
        }
    }

    /// The application has ended, and the response waits for the client.
    pub fn wait(&mut self, ticket: &mut Ticket) {
        if let Place::Entry(entry) = ticket.place
            && self.free.is_empty()
        {
            self.load(&ticket.place);
            self.lane.vacate(entry);
            self.free.push(entry);
            ticket.place = Place::Own(self.record.clone());
        }
    }

    /// The request is over. `fields` are those of the response, rendered, if they are wanted.
    pub fn end(&mut self, ticket: Ticket, now: Nanos, fields: &[u8]) -> Published {
        self.load(&ticket.place);
        for wanted in &self.response_fields {
            record::append(&mut self.record, find(fields, wanted.as_bytes()));
        }
        let Told {
            status,
            ending,
            queue,
            app,
            bytes,
        } = ticket.told;
        let done = Done {
            status,
            ending,
            queue,
            app,
            bytes,
            total: now.saturating_sub(ticket.arrived),
        };
        record::complete(&mut self.record, &done);
        let published = match ticket.place {
            Place::Entry(entry) => {
                let published = self.lane.publish(&self.record, Some(entry));
                self.lane.vacate(entry);
                self.free.push(entry);
                published
            }
            Place::Own(_) => self.lane.publish(&self.record, None),
        };
        if self.desk.is_to_be_woken(published != Published::Easily) {
            self.bell.ring();
        }
        published
    }

    /// Somebody else goes on with the request, and will tell of it.
    pub fn withdraw(&mut self, ticket: Ticket) {
        if let Place::Entry(entry) = ticket.place {
            self.lane.vacate(entry);
            self.free.push(entry);
        }
    }

    fn load(&mut self, place: &Place) {
        let is_whole = match place {
            Place::Entry(entry) => self.lane.copy(*entry, &mut self.record),
            Place::Own(record) => {
                self.record.clone_from(record);
                true
            }
        };
        // Somebody wrote into the memory of this worker: there is still to be a line.
        if !is_whole {
            let begun = Begun {
                line: Line::Raw(b""),
                peer: None,
                pid: self.pid,
                arrived: 0,
                referer: b"",
                agent: b"",
                id: b"",
            };
            record::write(&mut self.record, &begun);
        }
    }
}

/// Of fields as `Name: value` and CRLF.
fn find<'a>(fields: &'a [u8], name: &[u8]) -> &'a [u8] {
    let mut rest = fields;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        if line.len() > name.len()
            && line[name.len()] == b':'
            && line[..name.len()].eq_ignore_ascii_case(name)
        {
            return line[name.len() + 1..].trim_ascii();
        }
        rest = &rest[end + 1..];
    }
    b""
}

/// What a client or proxy calls a request is taken over if it can do no harm in a log.
fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}

/// Request ids: 128 bits in hexadecimal, different for all workers.
struct Ids {
    start: [u8; 16],
    next: u64,
}

impl Ids {
    fn new(pid: u32) -> Self {
        // The keys of siblings are the same: they were forked from one process.
        let random = |salt| {
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u32(pid);
            hasher.write_u64(clock::now());
            hasher.write_u8(salt);
            hasher.finish()
        };
        let mut start = [0; 16];
        hexadecimal(random(1), &mut start);
        Self {
            start,
            next: random(2),
        }
    }

    fn next(&mut self, out: &mut Vec<u8>) {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
        self.next = self.next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.next;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut rest = [0; 16];
        hexadecimal(mixed ^ mixed >> 31, &mut rest);
        out.extend_from_slice(&self.start);
        out.extend_from_slice(&rest);
    }
}

fn hexadecimal(number: u64, out: &mut [u8; 16]) {
    for (pair, byte) in out
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(number.to_be_bytes())
    {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::Lanes;
    use super::*;

    fn pen(format: &str) -> (Pen, &'static Lane) {
        let lanes: &'static Lanes = Box::leak(Box::new(Lanes::create(1).unwrap()));
        let lane = &lanes.as_slice()[0];
        let (_, bell) = Bell::pair().unwrap();
        let format = Format::parse(format).unwrap();
        let desk = Box::leak(Box::new(Desk::create().unwrap()));
        (Pen::new(lane, desk, bell, &format), lane)
    }

    const FACTS: Facts<'static> = Facts {
        line: Line::Whole {
            method: b"GET",
            target: b"/",
            is_11: true,
        },
        peer: None,
        arrived: 10,
    };
    const RUNS: Waits = Waits::No { now: 12, queue: 2 };

    fn records(lane: &Lane, tail: &mut u32) -> Vec<(u16, Vec<Vec<u8>>)> {
        let mut got = Vec::new();
        lane.drain(tail, &mut Vec::new(), &mut |bytes| {
            let record = Record::read(bytes).unwrap();
            let others = record.others.iter().map(|other| other.to_vec()).collect();
            got.push((record.done.status, others));
        });
        got
    }

    #[test]
    fn takes_over_a_sane_request_id_and_makes_one_otherwise() {
        let (mut pen, _) = pen("combined");
        let long = [b'x'; 129];
        for (given, is_kept) in [
            (&b"abc-1"[..], true),
            (b"", false),
            (b"a b", false),
            (b"a\"b", false),
            (b"\x1b[2J", false),
            (b"\xff", false),
            (&long, false),
        ] {
            let fields = [(&b"X-Request-ID"[..], given)];
            let ticket = pen.open(&FACTS, fields.into_iter(), RUNS);
            assert_eq!(pen.id() == given, is_kept, "{given:?}");
            assert!(!pen.id().is_empty());
            pen.end(ticket, 20, b"");
        }
        let one = pen.open(&FACTS, std::iter::empty(), RUNS);
        let first = pen.id().to_vec();
        let two = pen.open(&FACTS, std::iter::empty(), RUNS);
        assert!(first.len() == 32 && first != pen.id());
        pen.end(one, 20, b"");
        pen.end(two, 20, b"");
    }

    #[test]
    fn named_fields_of_request_and_response_are_kept() {
        let (mut pen, lane) = pen("%({Host}i)s %({X-A}o)s %({X-B}o)s");
        let fields = [(&b"host"[..], &b"me"[..]), (b"Host", b"other")];
        let mut ticket = pen.open(&FACTS, fields.into_iter(), RUNS);
        ticket.told.status = 201;
        pen.end(ticket, 20, b"X-Ab: no\r\nx-a:  yes \r\n");
        let (status, others) = records(lane, &mut 0).remove(0);
        assert_eq!(status, 201);
        assert_eq!(others, [&b"me"[..], b"yes", b""]);
    }

    #[test]
    fn more_requests_at_once_than_entries_lose_none() {
        let (mut pen, lane) = pen("common");
        let mut tail = 0;
        let none = std::iter::empty;
        let mut waiting: Vec<Ticket> = (0..ENTRIES + 50)
            .map(|_| pen.open(&FACTS, none(), Waits::ForBody))
            .collect();
        let running = pen.open(&FACTS, none(), RUNS);
        // One that runs is safe whatever waits.
        assert!(matches!(running.place, Place::Entry(_)));
        pen.end(running, 20, b"");
        let mut late = waiting.pop().unwrap();
        pen.run(&mut late, 30, 1);
        assert!(matches!(late.place, Place::Entry(_)));
        pen.wait(&mut late);
        assert!(matches!(late.place, Place::Own(_)));
        pen.end(late, 20, b"");
        assert_eq!(records(lane, &mut tail).len(), 2);
        for ticket in waiting.drain(..100) {
            pen.end(ticket, 20, b"");
        }
        assert_eq!(records(lane, &mut tail).len(), 100);
        // Those in entries are found by who buries the worker.
        assert_eq!(lane.bury(Ending::Killed, 0, 9), ENTRIES - 1 - 100);
    }

    #[test]
    fn the_reader_is_woken_once_and_only_when_it_sleeps() {
        let desk = Desk::create().unwrap();
        desk.wake();
        assert!(!desk.is_to_be_woken(false));
        desk.sleep();
        assert!(desk.is_to_be_woken(false));
        assert!(!desk.is_to_be_woken(false));
        desk.wake();
        assert!(!desk.is_to_be_woken(false));
        assert!(desk.is_to_be_woken(true));
        assert!(!desk.is_to_be_woken(true));
    }
}
