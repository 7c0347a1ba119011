//! One row: what one worker is doing and what it has done.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::counter::Counter;
use super::histogram::{Histogram, add};
use super::seconds::Seconds;
use crate::http::Refusal;
use crate::sys::clock::Nanos;
use crate::sys::process::Memory;

/// What a worker is doing. `Dead` (the zero of fresh memory) is set by the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    Dead = 0,
    Starting,
    Idle,
    Reading,
    Running,
    Writing,
    Draining,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Dead => "dead",
            State::Starting => "starting",
            State::Idle => "idle",
            State::Reading => "reading",
            State::Running => "running",
            State::Writing => "writing",
            State::Draining => "draining",
        }
    }

    fn from_number(number: u32) -> State {
        match number {
            1 => State::Starting,
            2 => State::Idle,
            3 => State::Reading,
            4 => State::Running,
            5 => State::Writing,
            6 => State::Draining,
            _ => State::Dead,
        }
    }
}

const COUNTERS: usize = Counter::ALL.len();
const REFUSALS: usize = Refusal::ALL.len();
const LINE_WORDS: usize = 20;

/// Bytes of a request line that are kept.
pub const LINE_BYTES: usize = LINE_WORDS * 8;

const IS_KNOWN: u32 = 1 << 16;

#[repr(C, align(64))]
pub struct Row {
    state: AtomicU32,
    /// Open connections.
    connections: AtomicU32,
    line_length: AtomicU32,
    /// [`IS_KNOWN`] and the port; 0 for a client without an address.
    peer_port: AtomicU32,
    peer_address: [AtomicU64; 2],
    pid: AtomicU32,
    /// Of the pool, in its row: fewest, most, and how many there are to be.
    pool: [AtomicU32; 3],
    /// Bytes of memory at the last sample, by [`Memory`]; written by the master.
    memory: [AtomicU64; 4],
    /// When that was; 0 for never.
    sampled: AtomicU64,
    /// When the worker started; all times are [`Nanos`] of the monotonic clock.
    started: AtomicU64,
    /// When the running request began; 0 while none runs.
    request_since: AtomicU64,
    /// When the running request has to be over.
    deadline: AtomicU64,
    /// When the last request was over.
    active: AtomicU64,
    line: [AtomicU64; LINE_WORDS],
    counters: [AtomicU64; COUNTERS],
    refusals: [AtomicU64; REFUSALS],
    /// Time from the complete request to the handed-over response.
    latency: Histogram,
    /// Time that requests have waited in the kernel for their connection to be accepted: a sample.
    queue: Histogram,
    /// Time that connections have waited on the relay.
    relay: Histogram,
    /// Completed requests.
    seconds: Seconds,
}

/// The size of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub min: u32,
    pub max: u32,
    /// How many there are to be now.
    pub target: u32,
}

crate::sys::memory::shareable!(Row);

const _: () = assert!(size_of::<Row>().is_multiple_of(64) && size_of::<Row>() <= 8192);

impl Row {
    pub fn begin(&self, now: Nanos) {
        self.started.store(now, Ordering::Relaxed);
        self.connections.store(0, Ordering::Relaxed);
        self.request_since.store(0, Ordering::Relaxed);
        self.active.store(now, Ordering::Relaxed);
        self.sampled.store(0, Ordering::Relaxed);
        self.pid.store(0, Ordering::Relaxed);
        self.set_state(State::Starting);
    }

    /// To be shown, never to be acted upon.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed).cast_signed()
    }

    pub fn set_pid(&self, pid: i32) {
        self.pid.store(pid.cast_unsigned(), Ordering::Relaxed);
    }

    /// Of the row of the pool.
    pub fn size(&self) -> Size {
        let [min, max, target] = [0, 1, 2].map(|at| self.pool[at].load(Ordering::Relaxed));
        Size { min, max, target }
    }

    pub fn set_size(&self, size: Size) {
        let Size { min, max, target } = size;
        for (cell, number) in self.pool.iter().zip([min, max, target]) {
            cell.store(number, Ordering::Relaxed);
        }
    }

    /// The last sample and when it was taken. In the row of the pool: that of the master.
    pub fn memory(&self) -> Option<(Memory, Nanos)> {
        let sampled = self.sampled.load(Ordering::Relaxed);
        let [pss, unique, shared, private_dirty] =
            [0, 1, 2, 3].map(|at| self.memory[at].load(Ordering::Relaxed));
        let memory = Memory {
            pss,
            unique,
            shared,
            private_dirty,
        };
        (sampled > 0).then_some((memory, sampled))
    }

    pub fn set_memory(&self, memory: Memory, now: Nanos) {
        let Memory {
            pss,
            unique,
            shared,
            private_dirty,
        } = memory;
        for (cell, bytes) in self.memory.iter().zip([pss, unique, shared, private_dirty]) {
            cell.store(bytes, Ordering::Relaxed);
        }
        self.sampled.store(now, Ordering::Relaxed);
    }

    pub fn started(&self) -> Nanos {
        self.started.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Relaxed))
    }

    pub fn set_state(&self, state: State) {
        self.state.store(state as u32, Ordering::Relaxed);
    }

    pub fn set_connections(&self, open: usize) {
        self.connections
            .store(u32::try_from(open).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn count(&self, counter: Counter, n: u64) {
        add(&self.counters[counter as usize], n);
    }

    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    pub fn count_refusal(&self, refusal: Refusal) {
        add(&self.refusals[refusal as usize], 1);
    }

    pub fn refusals(&self, refusal: Refusal) -> u64 {
        self.refusals[refusal as usize].load(Ordering::Relaxed)
    }

    pub fn count_status(&self, status: u16) {
        let counter = match status {
            200..=299 => Counter::Status2,
            300..=399 => Counter::Status3,
            400..=499 => Counter::Status4,
            _ => Counter::Status5,
        };
        self.count(counter, 1);
    }

    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    pub fn queue(&self) -> &Histogram {
        &self.queue
    }

    pub fn relay(&self) -> &Histogram {
        &self.relay
    }

    pub fn seconds(&self) -> &Seconds {
        &self.seconds
    }

    /// Who sends the request that is about to begin; `None` for a client without an address. The port
    /// is 0 where it is not known.
    pub fn set_peer(&self, peer: Option<SocketAddr>) {
        let Some(peer) = peer else {
            self.peer_port.store(0, Ordering::Relaxed);
            return;
        };
        let address = match peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let octets = address.octets();
        let (words, _) = octets.as_chunks::<8>();
        for (cell, word) in self.peer_address.iter().zip(words) {
            cell.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        let port = IS_KNOWN | u32::from(peer.port());
        self.peer_port.store(port, Ordering::Relaxed);
    }

    /// Of the running or last request.
    pub fn peer(&self) -> Option<SocketAddr> {
        let port = self.peer_port.load(Ordering::Relaxed);
        let mut octets = [0; 16];
        for (part, cell) in octets.chunks_exact_mut(8).zip(&self.peer_address) {
            part.copy_from_slice(&cell.load(Ordering::Relaxed).to_ne_bytes());
        }
        let address = Ipv6Addr::from(octets).to_canonical();
        let is_known = port & IS_KNOWN != 0;
        let port = u16::try_from(port & u32::from(u16::MAX)).ok()?;
        is_known.then_some(SocketAddr::new(address, port))
    }

    /// The request enters the application. `line` is the start of the head.
    pub fn begin_request(&self, line: &[u8], now: Nanos, deadline: Nanos) {
        let line = &line[..line.len().min(LINE_BYTES)];
        let (words, rest) = line.as_chunks::<8>();
        for (cell, word) in self.line.iter().zip(words) {
            cell.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.line[words.len()].store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
        self.line_length.store(line.len() as u32, Ordering::Relaxed);
        self.set_deadline(deadline);
        self.request_since.store(now, Ordering::Relaxed);
        self.set_state(State::Running);
        self.count(Counter::Requests, 1);
    }

    pub fn end_request(&self, now: Nanos) {
        let since = self.request_since.load(Ordering::Relaxed);
        self.latency.record(now.saturating_sub(since));
        self.seconds.record(now);
        self.request_since.store(0, Ordering::Relaxed);
        self.active.store(now, Ordering::Relaxed);
    }

    pub fn deadline(&self) -> Nanos {
        self.deadline.load(Ordering::Relaxed)
    }

    pub fn set_deadline(&self, deadline: Nanos) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// Since when nothing has been asked of the worker; `None` while a request runs.
    pub fn idle_since(&self) -> Option<Nanos> {
        match self.request_since() {
            Some(_) => None,
            None => Some(self.active.load(Ordering::Relaxed)),
        }
    }

    /// Since when a request runs, if one does.
    pub fn request_since(&self) -> Option<Nanos> {
        match self.request_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(since),
        }
    }

    /// The running or last request line: printable ASCII, possibly torn, possibly cut.
    pub fn request_line(&self) -> String {
        let length = self.line_length.load(Ordering::Relaxed) as usize;
        let bytes = self
            .line
            .iter()
            .flat_map(|cell| cell.load(Ordering::Relaxed).to_ne_bytes());
        bytes
            .take(length.min(LINE_BYTES))
            .take_while(|byte| *byte != b'\r' && *byte != b'\n')
            .map(|byte| match byte {
                b' '..=b'~' => char::from(byte),
                _ => '?',
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::{Durations, Scoreboard};

    #[test]
    fn keeps_the_line_of_the_last_request() {
        let board = Scoreboard::create(2).unwrap();
        let row = board.row(1);
        row.begin(1);
        row.begin_request(b"GET /a/b?c HTTP/1.1\r\nHost: x\r\n\r\n", 5, 9);
        assert_eq!(row.request_line(), "GET /a/b?c HTTP/1.1");
        assert_eq!(row.request_since(), Some(5));
        row.end_request(9);
        assert_eq!(row.request_since(), None);
        row.begin_request(&[b'x'; 1000], 10, 11);
        assert_eq!(row.request_line(), "x".repeat(LINE_BYTES));
        row.begin_request(b"\x1b[2J\0", 10, 11);
        assert_eq!(row.request_line(), "?[2J?");
        assert_eq!(row.counter(Counter::Requests), 3);
        let mut latency = Durations::default();
        latency.add(row.latency());
        assert_eq!((latency.count(), latency.sum()), (1, 4));
    }

    #[test]
    fn keeps_the_peer() {
        let board = Scoreboard::create(1).unwrap();
        let row = board.row(0);
        assert_eq!(row.peer(), None);
        for text in ["192.0.2.1:80", "[2001:db8::7]:65535", "192.0.2.1:0"] {
            let peer = text.parse().ok();
            row.set_peer(peer);
            assert_eq!(row.peer(), peer);
        }
        row.set_peer(None);
        assert_eq!(row.peer(), None);
    }

    #[test]
    fn a_new_worker_has_no_memory_of_the_one_before() {
        let board = Scoreboard::create(1).unwrap();
        let row = board.row(0);
        assert_eq!(row.memory(), None);
        let memory = Memory {
            pss: 1,
            unique: 2,
            shared: 3,
            private_dirty: 4,
        };
        row.set_memory(memory, 5);
        row.set_pid(77);
        assert_eq!(row.memory(), Some((memory, 5)));
        row.begin(6);
        assert_eq!((row.memory(), row.pid()), (None, 0));
    }

    #[test]
    fn the_pool_has_a_row_of_its_own() {
        let board = Scoreboard::create(2).unwrap();
        let size = Size {
            min: 1,
            max: 3,
            target: 2,
        };
        board.pool().set_size(size);
        board.pool().count(Counter::Spawns, 1);
        assert_eq!(board.pool().size(), size);
        assert_eq!(board.rows().len(), 2);
        assert!(
            board
                .rows()
                .iter()
                .all(|row| row.counter(Counter::Spawns) == 0)
        );
    }

    #[test]
    fn counters_survive_a_respawn() {
        let board = Scoreboard::create(1).unwrap();
        let row = board.row(0);
        row.begin(1);
        row.count(Counter::BytesSent, 5);
        row.count_status(404);
        row.begin(2);
        assert_eq!(row.counter(Counter::BytesSent), 5);
        assert_eq!(row.counter(Counter::Status4), 1);
    }

    #[test]
    fn every_counter_has_its_cell_and_a_name_of_its_own() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            let same = Counter::ALL.iter().filter(|c| c.name() == counter.name());
            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn every_state_reads_back() {
        let board = Scoreboard::create(1).unwrap();
        for number in 0..7 {
            let state = State::from_number(number);
            assert_eq!(state as u32, number);
            board.row(0).set_state(state);
            assert_eq!(board.row(0).state(), state);
        }
    }
}
