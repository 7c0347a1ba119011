//! The watcher: a thread beside the one that runs Python. It knows nothing of Python, takes no signals,
//! never waits for the main thread, and sleeps while nothing is asked of it.
//!
//! ```text
//! asleep          no request runs, or nobody but its client is here: woken by the main thread
//! ticking         requests come and go: one look per --relay-after, without a system call per request
//! polling         one request runs for longer: others that send something go to the relay; a WAS client
//!                 whose request it is gets an answer to STOP, wherever others go and when
//! a call          of the master, before it kills this process: all others go to the relay, and the
//!                 client whose request is stuck gets a 504 if nothing of its response has left
//! gathered blocks leave within a millisecond ([`super::gathering`])
//! ```
//!
//! A fork that the application makes finds no second thread: the watcher ends before it and begins again
//! after it ([`before_fork`]), so a child inherits no lock that somebody holds, and Python finds nothing to
//! warn of.

#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{getpid, gettid};

use super::ferry::Passage;
use super::floor::{Floor, Places, Run};
use super::gathering::{MOST_DELAY, Need};
use super::refuse::LATE;
use crate::http::DateCache;
use crate::http::response::{self, Method, Refused};
use crate::log;
use crate::python;
use crate::relay::Cause;
use crate::scoreboard::Counter;
use crate::sys::clock::{self, MILLISECOND, Nanos};
use crate::sys::forks;
use crate::sys::poll::{self, Entry, For};
use crate::sys::seqpacket::Received;
use crate::sys::socket::{self, Push};

/// What a master says, and what it hears.
pub mod call {
    /// This process is about to be killed.
    pub const LAST: &[u8] = b"last call";
    /// All connections that can go have gone; the stuck request was answered, or was not.
    pub const ANSWERED: &[u8] = b"answered";
    pub const LEFT: &[u8] = b"left";
}

/// Between two attempts when the relay is full.
const AGAIN: Nanos = 10 * MILLISECOND;
/// How often that is tried when this process is about to be killed.
const LAST_ATTEMPTS: usize = 10;
/// While responses are streamed it looks once in [`MOST_DELAY`], and for so long after the last block.
const STREAMS: Nanos = 50 * MILLISECOND;
/// Its calls go a few frames deep.
const STACK: usize = 128 * 1024;

/// The thread as the main thread knows it; locked for moments only, by threads that hold the interpreter.
struct Control {
    thread: Option<(JoinHandle<()>, &'static Floor)>,
    /// So many forks are about to happen.
    forks: usize,
    /// To begin again after the fork.
    was_running: Option<&'static Floor>,
}

static CONTROL: Mutex<Control> = Mutex::new(Control {
    thread: None,
    forks: 0,
    was_running: None,
});

fn control() -> MutexGuard<'static, Control> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the watcher look now; it is started before the first request. False if there is none.
#[cold]
pub fn wake(floor: &'static Floor) -> bool {
    if forks::is_child() {
        // Connections are its parent's business.
        return false;
    }
    let mut control = control();
    if control.thread.is_some() {
        return floor.bell.write(1).is_ok();
    }
    if control.forks > 0 {
        return false;
    }
    if floor.is_watched.swap(true, Ordering::Relaxed) {
        // It could not be started.
        return false;
    }
    floor.will_look(0);
    match spawn(floor) {
        Ok(thread) => {
            control.thread = Some((thread, floor));
            true
        }
        Err(error) => {
            floor.will_look(Nanos::MAX);
            log::error!(
                "cannot start the thread that watches over connections, so they wait: {error}"
            );
            false
        }
    }
}

fn spawn(floor: &'static Floor) -> std::io::Result<JoinHandle<()>> {
    // Signals are for the main thread, from the first moment of this one on.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let thread = std::thread::Builder::new()
        .name("rswsgi-watcher".into())
        .stack_size(STACK)
        .spawn(move || Watcher::new(floor).run());
    before.thread_set_mask()?;
    thread
}

/// Ends the watcher; it begins again when it is needed.
pub fn stop() {
    let mut control = control();
    end(&mut control);
}

fn end(control: &mut Control) {
    if let Some((thread, floor)) = control.thread.take() {
        floor.is_over.store(true, Ordering::SeqCst);
        let _ = floor.bell.write(1);
        let _ = thread.join();
        floor.is_over.store(false, Ordering::SeqCst);
        floor.will_poll(false);
        floor.will_look(Nanos::MAX);
        floor.is_watched.store(false, Ordering::Relaxed);
    }
}

/// The application is about to fork.
pub fn before_fork() {
    let mut control = control();
    control.forks += 1;
    if let Some((_, floor)) = control.thread {
        control.was_running = Some(floor);
    }
    end(&mut control);
}

/// It has forked. Python counts the threads of this process after it has called us (CPython 3.12 to 3.14.0),
/// so the watcher begins when the main thread gets to it. If another thread has forked, there are several
/// in any case, and the main thread may not come back to Python before the request is over.
pub fn after_fork() {
    if forks::is_child() {
        // A child of the application that forks itself inherits the hooks, and what was meant for its parent.
        return;
    }
    let mut control = control();
    control.forks = control.forks.saturating_sub(1);
    if control.forks > 0 || control.was_running.is_none() {
        return;
    }
    drop(control);
    match gettid() == getpid() {
        true => python::soon(begin_again),
        false => begin_again(),
    }
}

fn begin_again() {
    let floor = control().was_running.take();
    if let Some(floor) = floor {
        wake(floor);
    }
}

/// A connection that may go, as it was when it was looked at.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    place: usize,
    epoch: u32,
    fd: RawFd,
    kind: Kind,
}

/// What may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Was,
    /// Its request runs: what a WAS client says meanwhile is answered.
    Running,
}

struct Watcher {
    floor: &'static Floor,
    /// The run at the last look.
    seen: Run,
    /// Until when blocks of responses are expected.
    streams_until: Nanos,
    /// The master may still call.
    is_called: bool,
    entries: Vec<Entry>,
}

impl Watcher {
    fn new(floor: &'static Floor) -> Self {
        Self {
            floor,
            seen: floor.last_run(),
            streams_until: 0,
            is_called: true,
            entries: Vec::new(),
        }
    }

    fn run(mut self) {
        while !self.floor.is_over.load(Ordering::SeqCst) {
            let now = clock::now();
            let run = self.floor.last_run();
            let after = self.floor.look_after();
            let due = match run.since() {
                _ if !self.floor.is_worth_a_look() => Nanos::MAX,
                Some(since) => since.saturating_add(after),
                // More requests are about to come, by experience.
                None if run != self.seen => now.saturating_add(after),
                None => Nanos::MAX,
            };
            if due <= now {
                self.poll(run);
                continue;
            }
            let need = self.floor.gathering.tend(now);
            let until = due.min(self.gathered_until(need, now));
            self.floor.will_look(until);
            // Whoever was too early to see our number is seen by us.
            if self.floor.last_run() == run && self.floor.gathering.tend(now) == need {
                self.seen = run;
                self.nap(need, until, &[]);
            }
        }
    }

    fn gathered_until(&mut self, need: Need, now: Nanos) -> Nanos {
        if need != Need::Nothing {
            self.streams_until = now + STREAMS;
        }
        match need {
            Need::At(at) => at,
            _ if now < self.streams_until => now + MOST_DELAY,
            _ => Nanos::MAX,
        }
    }

    /// Waits for the time, the bell, a call, room for what is gathered, or one of the candidates.
    fn nap(&mut self, need: Need, until: Nanos, candidates: &[Candidate]) {
        let floor = self.floor;
        self.entries.clear();
        let mut wait_for = |fd, what| self.entries.push(Entry::new(fd, what));
        wait_for(floor.bell.as_fd().as_raw_fd(), For::Input);
        // A number below zero is not looked at (poll(2)).
        let calls = floor.ground.calls.as_fd().as_raw_fd();
        wait_for(if self.is_called { calls } else { -1 }, For::Input);
        wait_for(
            match need {
                Need::Room(fd) => fd,
                Need::Nothing | Need::At(_) => -1,
            },
            For::Room,
        );
        for candidate in candidates {
            wait_for(candidate.fd, For::Input);
        }
        let now = clock::now();
        let patience = (until != Nanos::MAX).then(|| until.saturating_sub(now));
        if poll::wait(&mut self.entries, patience).is_err() {
            return;
        }
        if self.entries[0].is_ready() {
            let _ = floor.bell.read();
        }
        if self.entries[1].is_ready() {
            self.hear();
        }
    }

    /// While one request runs.
    fn poll(&mut self, run: Run) {
        let running = self.floor.visit().and_then(|places| running(&places));
        let mut candidates: Vec<Candidate> = running.into_iter().collect();
        let mut others_at = self.others_at(run);
        self.floor.will_poll(true);
        self.floor.will_look(Nanos::MAX);
        let mut full_until = 0;
        while self.floor.last_run() == run && !self.floor.is_over.load(Ordering::SeqCst) {
            let now = clock::now();
            if others_at <= now {
                others_at = Nanos::MAX;
                if let Some(mut places) = self.floor.visit() {
                    candidates.extend(self.others(&mut places));
                }
                continue;
            }
            let need = self.floor.gathering.tend(now);
            let is_full = now < full_until;
            let (until, polled) = match is_full {
                true => (full_until, &[][..]),
                false => (Nanos::MAX, candidates.as_slice()),
            };
            let until = until.min(others_at).min(self.gathered_until(need, now));
            // Who gathers meanwhile has to know.
            self.floor.will_look(until);
            if self.floor.gathering.tend(now) != need {
                continue;
            }
            self.nap(need, until, polled);
            if is_full {
                continue;
            }
            let ready = self.entries.iter().skip(3).map(Entry::is_ready);
            let ready: Vec<bool> = ready.collect();
            if !ready.contains(&true) {
                continue;
            }
            let Some(mut places) = self.floor.visit() else {
                break;
            };
            // What was ready in this run may have been served since, in which case another runs.
            if self.floor.last_run() != run {
                break;
            }
            let mut kept = Vec::new();
            for (candidate, ready) in candidates.iter().zip(ready) {
                let passage = match ready {
                    true if candidate.kind == Kind::Running => {
                        if places.was.attend() {
                            kept.push(*candidate);
                        }
                        continue;
                    }
                    true => self.send_on(&mut places, *candidate),
                    false => Passage::NoRoom,
                };
                if passage == Passage::NoRoom {
                    kept.push(*candidate);
                    if ready {
                        full_until = clock::now() + AGAIN;
                    }
                }
            }
            candidates = kept;
        }
        self.floor.will_poll(false);
        self.seen = run;
    }

    /// When other connections than the one whose request runs may go.
    fn others_at(&self, run: Run) -> Nanos {
        let since = run.since().filter(|_| self.floor.has_siblings());
        let after = self.floor.ground.relay_after;
        since.map_or(Nanos::MAX, |since| since.saturating_add(after))
    }

    /// Connections that may go if something comes on them. Those with a whole request go now.
    fn others(&self, places: &mut Places) -> Vec<Candidate> {
        let now = clock::now();
        let whole = places.connections.iter().filter(|(_, c)| c.has_turn);
        let whole: Vec<usize> = whole.map(|(place, _)| place).collect();
        for place in whole {
            self.floor.ferry(places, place, Cause::Busy, now);
        }
        let idle = places.was.idle();
        let idle = idle.map(|(place, epoch, fd)| Candidate {
            place,
            epoch,
            fd,
            kind: Kind::Was,
        });
        let all = places.connections.iter();
        // A request that the access log knows of would have a line of this worker, too, if it dies.
        all.filter(|(_, connection)| connection.ticket.is_none() && connection.freight().is_some())
            .map(|(place, connection)| Candidate {
                place,
                epoch: connection.epoch,
                fd: connection.socket().as_raw_fd(),
                kind: Kind::Http,
            })
            .chain(idle)
            .collect()
    }

    /// Sends a connection on that was ready a moment ago, if it is still the one, and a request has come.
    fn send_on(&self, places: &mut Places, candidate: Candidate) -> Passage {
        let Candidate { place, epoch, .. } = candidate;
        if candidate.kind == Kind::Was {
            return match places.was.asks(place, epoch) {
                true => self
                    .floor
                    .ferry_was(places, place, Cause::Busy, clock::now()),
                false => Passage::NotYet,
            };
        }
        let same = places.connections.get(place).filter(|c| c.epoch == epoch);
        match same {
            Some(connection) if socket::has_bytes(connection.socket()) => {
                self.floor.ferry(places, place, Cause::Busy, clock::now())
            }
            // Its client has gone. In the middle of a request there is more to do about it.
            Some(connection) if connection.is_idle() => {
                self.floor.close(places, place);
                Passage::Left
            }
            _ => Passage::NotYet,
        }
    }

    /// What the master says.
    fn hear(&mut self) {
        match self.floor.ground.calls.receive() {
            Ok(Received::Message(message)) if message == call::LAST => self.obey_last_call(),
            Ok(Received::Message(_) | Received::Nothing) => {}
            Ok(Received::Closed) | Err(_) => self.is_called = false,
        }
    }

    /// This process is about to be killed, unless the application has just come back.
    fn obey_last_call(&self) {
        let Some(mut places) = self.floor.visit() else {
            return;
        };
        self.floor.give_up();
        for _ in 0..LAST_ATTEMPTS {
            if self.send_all_on(&mut places) != Passage::NoRoom {
                break;
            }
            std::thread::sleep(std::time::Duration::from_nanos(AGAIN));
        }
        let answered = self.answer_late(&places);
        let word = if answered { call::ANSWERED } else { call::LEFT };
        let _ = self.floor.ground.calls.send(word);
    }

    fn send_all_on(&self, places: &mut Places) -> Passage {
        let now = clock::now();
        let all: Vec<usize> = places.connections.iter().map(|(place, _)| place).collect();
        for place in all {
            // A request that the access log knows of is told by whoever buries this process.
            let is_told = places.connections[place].ticket.is_some();
            if !is_told && self.floor.ferry(places, place, Cause::Stuck, now) == Passage::NoRoom {
                return Passage::NoRoom;
            }
        }
        for place in places.was.places() {
            if self.floor.ferry_was(places, place, Cause::Stuck, now) == Passage::NoRoom {
                return Passage::NoRoom;
            }
        }
        Passage::Left
    }

    /// Answers the request that is stuck, if nothing of its response has left.
    fn answer_late(&self, places: &Places) -> bool {
        if places.was.runs() {
            // Whoever counts has to know.
            return places.was.answer_late(LATE) && self.floor.silences();
        }
        let lent = places.lent;
        let connection = lent.and_then(|lent| places.connections.get(lent.place));
        let (Some(lent), Some(connection)) = (lent, connection) else {
            return false;
        };
        if !self.floor.silences() {
            return false;
        }
        let page = &self.floor.ground.late;
        let refused = Refused {
            status: LATE,
            method: match lent.is_head {
                true => Method::Head,
                false => Method::Other,
            },
            form: page.form,
            page: &page.text,
        };
        let mut date = DateCache::new();
        let date = date.render(clock::unix_seconds());
        let mut bytes = Vec::new();
        response::write_refusal(&mut bytes, refused, Some(date), Some(b"rswsgi"));
        let socket = connection.socket();
        let sent = socket::send(socket, &[IoSlice::new(&bytes)], Push::Now).unwrap_or_default();
        self.floor.ground.row.count(Counter::BytesSent, sent as u64);
        let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
        sent > 0
    }
}

/// The client whose request runs, where it may say something meanwhile.
fn running(places: &Places) -> Option<Candidate> {
    let fd = places.was.running()?;
    Some(Candidate {
        place: usize::MAX,
        epoch: 0,
        fd,
        kind: Kind::Running,
    })
}
