//! The lane of one worker slot: entries of requests that are not over, and a ring of those that are.
//!
//! One store of [`Lane::state`] publishes a record and says which entry it came from. So whoever finds the
//! worker dead can tell for every entry whether its record is in the ring: exactly one line for every
//! request, wherever the worker was killed. Positions in the ring count words, and wrap.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::record::{self, Ending};
use crate::sys::clock::Nanos;
use crate::sys::memory::Shared;

/// Requests of one worker that are not over and survive its death: one runs, the others wait for their
/// body or for a slow reader.
pub const ENTRIES: usize = 256;
const ENTRY_WORDS: usize = 511;
pub const ENTRY_BYTES: usize = ENTRY_WORDS * 8;
/// 512 KiB; pages that were never written take no memory.
const RING_WORDS: usize = 64 * 1024;
const _: () = assert!(RING_WORDS.is_power_of_two() && RING_WORDS < u32::MAX as usize / 4);

#[repr(C)]
struct Entry {
    is_used: AtomicU64,
    words: [AtomicU64; ENTRY_WORDS],
}

/// Alone in its cache line.
#[repr(C, align(64))]
struct Apart<T>(T);

#[repr(C, align(4096))]
pub struct Lane {
    /// Written by the writer: position of its next record in the upper half; in the lower one, plus one,
    /// the entry that the last record came from.
    state: Apart<AtomicU64>,
    /// Written by the reader: what is before it has been read.
    tail: Apart<AtomicU32>,
    /// Records that found no room.
    lost: Apart<AtomicU64>,
    entries: [Entry; ENTRIES],
    ring: [AtomicU64; RING_WORDS],
}

crate::sys::memory::shareable!(Lane);

const _: () = assert!(size_of::<Entry>() == 4096);

/// Whether a record found room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The ring is less than half full.
    Easily,
    /// It fills up: the reader should hurry.
    Hardly,
    /// There was no room.
    Lost,
}

impl Lane {
    fn place(&self, position: u32) -> &AtomicU64 {
        &self.ring[position as usize & (RING_WORDS - 1)]
    }

    /// For the writer: puts a record into the ring, and says that the request of `entry` is over.
    pub(super) fn publish(&self, record: &[u8], entry: Option<usize>) -> Published {
        let settled = entry.map_or(0, |entry| entry as u64 + 1);
        let head = self.head();
        let words = record.len().div_ceil(8) as u32;
        let used = head.wrapping_sub(self.tail.0.load(Ordering::Acquire));
        if used.saturating_add(words) > RING_WORDS as u32 {
            self.count_lost(1);
            let state = u64::from(head) << 32 | settled;
            self.state.0.store(state, Ordering::Release);
            return Published::Lost;
        }
        for (index, word) in words_of(record).enumerate() {
            let position = head.wrapping_add(index as u32);
            self.place(position).store(word, Ordering::Relaxed);
        }
        let state = u64::from(head.wrapping_add(words)) << 32 | settled;
        self.state.0.store(state, Ordering::Release);
        match used > RING_WORDS as u32 / 2 {
            true => Published::Hardly,
            false => Published::Easily,
        }
    }

    fn head(&self) -> u32 {
        (self.state.0.load(Ordering::Acquire) >> 32) as u32
    }

    fn count_lost(&self, count: u64) {
        let lost = self.lost.0.load(Ordering::Relaxed);
        self.lost
            .0
            .store(lost.wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.0.load(Ordering::Relaxed)
    }

    /// For the writer: keeps a request that is not over.
    pub(super) fn occupy(&self, entry: usize, record: &[u8]) {
        let cells = &self.entries[entry];
        for (cell, word) in cells.words.iter().zip(words_of(record)) {
            cell.store(word, Ordering::Relaxed);
        }
        // The last record published may have come from this entry; it has another request now.
        let state = self.state.0.load(Ordering::Relaxed);
        if state as u32 as usize == entry + 1 {
            self.state.0.store(state >> 32 << 32, Ordering::Release);
        }
        cells.is_used.store(1, Ordering::Release);
    }

    /// For the writer: changes a few bytes of a request that is not over.
    pub(super) fn mark_begun(&self, entry: usize, began: Nanos, queue: Nanos) {
        let words = &self.entries[entry].words;
        let mut head = [0; record::FIXED];
        read_words(words, &mut head);
        record::mark_begun(&mut head, began, queue);
        for (cell, word) in words.iter().zip(words_of(&head)) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// The record of an entry, as far as it has one.
    pub(super) fn copy(&self, entry: usize, out: &mut Vec<u8>) -> bool {
        let words = &self.entries[entry].words;
        out.clear();
        let first = words[0].load(Ordering::Relaxed);
        let Some(length) = record::length(first).filter(|length| *length <= ENTRY_BYTES) else {
            return false;
        };
        out.resize(length, 0);
        read_words(words, out);
        true
    }

    /// For the writer, after its record was published.
    pub(super) fn vacate(&self, entry: usize) {
        self.entries[entry].is_used.store(0, Ordering::Release);
    }

    /// Completes what a dead writer has left. The caller is the only writer now. `status`: what the request
    /// that ran was answered with, 0 if it was not. The number of requests.
    pub fn bury(&self, ending: Ending, status: u16, now: Nanos) -> usize {
        let settled = self.state.0.load(Ordering::Acquire) as u32 as usize;
        let mut record = Vec::new();
        let mut count = 0;
        let ran = self.ran_last();
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.is_used.load(Ordering::Acquire) == 0 {
                continue;
            }
            if settled != index + 1 {
                match self.copy(index, &mut record) {
                    true => {
                        let status = if ran == Some(index) { status } else { 0 };
                        record::complete_dead(&mut record, (ending, status), now);
                        self.publish(&record, Some(index));
                        count += 1;
                    }
                    false => self.count_lost(1),
                }
            }
            self.vacate(index);
        }
        count
    }

    /// Of all requests that are not over, the one that the application was called for last.
    fn ran_last(&self) -> Option<usize> {
        let used = |entry: &Entry| entry.is_used.load(Ordering::Acquire) != 0;
        let began = |entry: &Entry| {
            let mut head = [0; record::FIXED];
            read_words(&entry.words, &mut head);
            record::began(&head)
        };
        let entries = self.entries.iter().enumerate();
        let running = entries.filter(|(_, entry)| used(entry) && began(entry) > 0);
        running
            .max_by_key(|(_, entry)| began(entry))
            .map(|(index, _)| index)
    }

    /// For the reader: gives out the records from `tail` on. False when what is there cannot be: all of
    /// it is skipped.
    pub(super) fn drain(
        &self,
        tail: &mut u32,
        buffer: &mut Vec<u8>,
        give: &mut impl FnMut(&[u8]),
    ) -> bool {
        let head = self.head();
        let mut is_good = head.wrapping_sub(*tail) <= RING_WORDS as u32;
        while is_good && *tail != head {
            let left = head.wrapping_sub(*tail);
            let first = self.place(*tail).load(Ordering::Relaxed);
            let length = record::length(first);
            let words = length.map_or(u32::MAX, |length| length.div_ceil(8) as u32);
            is_good = words <= left;
            if let Some(length) = length.filter(|_| is_good) {
                buffer.clear();
                buffer.resize(length, 0);
                for (index, bytes) in buffer.chunks_mut(8).enumerate() {
                    let position = tail.wrapping_add(index as u32);
                    let word = self.place(position).load(Ordering::Relaxed).to_le_bytes();
                    bytes.copy_from_slice(&word[..bytes.len()]);
                }
                give(buffer);
                *tail = tail.wrapping_add(words);
            }
        }
        *tail = head;
        self.tail.0.store(head, Ordering::Release);
        is_good
    }

    pub(super) fn tail(&self) -> u32 {
        self.tail.0.load(Ordering::Acquire)
    }

    pub(super) fn is_empty(&self, tail: u32) -> bool {
        self.head() == tail
    }
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(u64::from_le_bytes(last));
    whole
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .chain(last)
}

fn read_words(words: &[AtomicU64], out: &mut [u8]) {
    for (bytes, word) in out.chunks_mut(8).zip(words) {
        let word = word.load(Ordering::Relaxed).to_le_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
}

/// The lanes of one generation, a lane per slot.
pub struct Lanes(Shared<Lane>);

impl Lanes {
    pub fn create(slots: usize) -> io::Result<Self> {
        Ok(Self(Shared::create(c"rswsgi access", slots)?))
    }

    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Shared::map(fd)?))
    }

    pub fn as_slice(&self) -> &[Lane] {
        self.0.as_slice()
    }

    /// Tells one form of lanes and records from another.
    pub fn layout() -> String {
        let (lane, fixed) = (size_of::<Lane>(), record::FIXED);
        format!("1: {lane} {fixed} {ENTRIES} {}", Ending::ALL.len())
    }
}

impl AsFd for Lanes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{DONE, Random, begun};
    use super::super::record::{Begun, Line, Record};
    use super::*;

    fn record(target: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let line = Line::Whole {
            method: b"GET",
            target,
            is_11: true,
        };
        record::write(&mut bytes, &Begun { line, ..begun() });
        record::complete(&mut bytes, &DONE);
        bytes
    }

    fn targets(lane: &Lane, tail: &mut u32) -> (bool, Vec<String>) {
        let mut got = Vec::new();
        let good = lane.drain(tail, &mut Vec::new(), &mut |bytes| {
            let record = Record::read(bytes).unwrap();
            match record.line {
                Line::Whole { target, .. } | Line::Raw(target) => {
                    got.push(String::from_utf8_lossy(target).into_owned());
                }
            }
        });
        (good, got)
    }

    #[test]
    fn records_come_out_in_their_order_across_the_end_of_the_ring() {
        let lanes = Lanes::create(1).unwrap();
        let lane = &lanes.as_slice()[0];
        let (mut tail, mut number, mut expected) = (0, 0, 0);
        let mut random = Random(3);
        while number < 20_000 {
            for _ in 0..1 + random.below(500) {
                let target = format!("/{number}/{}", "x".repeat(random.below(200)));
                assert_ne!(
                    lane.publish(&record(target.as_bytes()), None),
                    Published::Lost
                );
                number += 1;
            }
            let (good, got) = targets(lane, &mut tail);
            assert!(good);
            for target in got {
                assert!(target.starts_with(&format!("/{expected}/")), "{target}");
                expected += 1;
            }
        }
        assert_eq!(expected, number);
    }

    #[test]
    fn positions_wrap_around() {
        let lanes = Lanes::create(1).unwrap();
        let lane = &lanes.as_slice()[0];
        let start = u32::MAX - 5;
        lane.state
            .0
            .store(u64::from(start) << 32, Ordering::Relaxed);
        lane.tail.0.store(start, Ordering::Relaxed);
        let mut tail = lane.tail();
        lane.publish(&record(b"/a"), None);
        lane.publish(&record(b"/b"), None);
        assert_eq!(
            targets(lane, &mut tail),
            (true, vec!["/a".into(), "/b".into()])
        );
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_stays() {
        let lanes = Lanes::create(1).unwrap();
        let lane = &lanes.as_slice()[0];
        let (mut kept, mut lost, mut hard) = (0, 0, 0);
        for number in 0..10_000 {
            match lane.publish(&record(format!("/{number}").as_bytes()), None) {
                Published::Lost => lost += 1,
                Published::Easily => kept += 1,
                Published::Hardly => (kept, hard) = (kept + 1, hard + 1),
            }
        }
        assert_eq!(lane.lost(), lost);
        assert!(lost > 0 && hard > kept / 3, "{kept} {hard} {lost}");
        assert_eq!(targets(lane, &mut 0).1.len(), kept);
        assert_ne!(lane.publish(&record(b"/x"), None), Published::Lost);
    }

    #[test]
    fn the_dead_leave_one_record_per_request_wherever_they_died() {
        let lanes = Lanes::create(1).unwrap();
        let lane = &lanes.as_slice()[0];
        let mut tail = 0;
        for entry in [3, 200] {
            lane.occupy(entry, &record(format!("/{entry}").as_bytes()));
        }
        // Between the record and the end of its entry.
        lane.publish(&record(b"/3"), Some(3));
        assert_eq!(lane.bury(Ending::Crashed, 0, 9), 1);
        assert_eq!(targets(lane, &mut tail).1, ["/3", "/200"]);
        assert_eq!(lane.bury(Ending::Crashed, 0, 9), 0);
        // The entry that was published last has another request already.
        lane.occupy(200, &record(b"/again"));
        assert_eq!(lane.bury(Ending::Crashed, 0, 9), 1);
        assert_eq!(targets(lane, &mut tail).1, ["/again"]);
    }

    #[test]
    fn a_hostile_ring_ends_the_reading_and_nothing_else() {
        let lanes = Lanes::create(1).unwrap();
        let lane = &lanes.as_slice()[0];
        let mut random = Random(9);
        for _ in 0..2_000 {
            let mut tail = random.below(1 << 31) as u32;
            for _ in 0..100 {
                let word = (random.below(1 << 31) as u64) << 33 | random.below(6000) as u64;
                lane.place(tail.wrapping_add(random.below(300) as u32))
                    .store(word, Ordering::Relaxed);
            }
            let ahead = random.below(RING_WORDS + 100) as u32;
            let head = u64::from(tail.wrapping_add(ahead)) << 32;
            lane.state.0.store(head | 7, Ordering::Relaxed);
            let mut given = 0;
            lane.drain(&mut tail, &mut Vec::new(), &mut |bytes| {
                let _ = Record::read(bytes);
                given += bytes.len();
            });
            assert!(given <= RING_WORDS * 8);
            assert!(lane.is_empty(tail));
        }
        for entry in 0..ENTRIES {
            lane.entries[entry].is_used.store(5, Ordering::Relaxed);
        }
        lane.bury(Ending::Crashed, 0, 1);
    }

    #[test]
    fn a_writer_and_a_reader_at_once_agree() {
        const COUNT: usize = 200_000;
        let lanes = Lanes::create(1).unwrap();
        let lane = &lanes.as_slice()[0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(5);
                for number in 0..COUNT {
                    let target = format!("/{number}/{}", "y".repeat(random.below(90)));
                    let bytes = record(target.as_bytes());
                    let entry = number % ENTRIES;
                    lane.occupy(entry, &bytes);
                    while lane.publish(&bytes, Some(entry)) == Published::Lost {
                        std::thread::yield_now();
                    }
                    lane.vacate(entry);
                }
            });
            let (mut tail, mut expected) = (0, 0);
            while expected < COUNT {
                let (good, got) = targets(lane, &mut tail);
                assert!(good);
                for target in got {
                    assert!(target.starts_with(&format!("/{expected}/")), "{target}");
                    expected += 1;
                }
                std::thread::yield_now();
            }
        });
    }
}
