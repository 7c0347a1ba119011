//! What the main loop and the watcher of a worker share.
//!
//! The connections stand behind a lock that the main loop holds all the time but while the application
//! runs, so locking costs it two uncontended atomic operations per request. The watcher only ever tries to
//! take it: success means that the application runs, and that until the lock is given back nothing but
//! the watcher touches a connection, the epoll set or the row in the scoreboard. The connection whose
//! request runs is not complete then: its outlet is lent out.
//!
//! When the watcher is needed, the main loop compares two numbers: the time at which the watcher is going to
//! look by itself, and the time by which it has to. Only when it would be too late a system call wakes it.
//! Each side writes its own number before it reads the other's, sequentially consistent, so that at least
//! one of them sees the other's.

#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use nix::sys::epoll::Epoll;
use nix::sys::eventfd::EventFd;
use slab::Slab;

use super::connection::{Connection, Remains};
use super::ferry::{Ferry, Passage};
use super::gathering::Gathering;
use super::was::Wards;
use super::watcher;
use crate::http::page::Form;
use crate::log::Throttle;
use crate::relay::Cause;
use crate::scoreboard::{Row, Scoreboard};
use crate::sys::clock::{MILLISECOND, Nanos};
use crate::sys::seqpacket::Channel;

/// How long the application may run before somebody else listens to the WAS client whose request that is.
const ATTEND_AFTER: Nanos = 10 * MILLISECOND;

/// What the lock is about.
pub struct Places {
    pub connections: Slab<Connection>,
    /// Of those that have left for another worker: only the main loop may let go of objects of Python.
    pub gone: Vec<Remains>,
    /// Whose request runs.
    pub lent: Option<Lent>,
    pub was: Wards,
    /// How often it is told that connections can't be sent on.
    pub troubles: Throttle,
}

/// The connection whose outlet is lent out.
#[derive(Debug, Clone, Copy)]
pub struct Lent {
    pub place: usize,
    /// The request is HEAD: its response has no body.
    pub is_head: bool,
}

/// Who has begun the response to the request that runs.
const NOBODY: u8 = 0;
const APPLICATION: u8 = 1;
const WATCHER: u8 = 2;

/// What is constant from the start of the worker on.
pub struct Ground {
    pub epoll: Epoll,
    pub row: &'static Row,
    pub scoreboard: &'static Scoreboard,
    /// `None`: connections stay where they are.
    pub ferry: Option<Ferry>,
    /// How long the application may run before others than its client go elsewhere.
    pub relay_after: Nanos,
    /// By which the master calls when it is about to kill the worker.
    pub calls: Channel,
    /// For a request whose worker is about to be killed.
    pub late: Page,
}

pub struct Floor {
    pub ground: Ground,
    places: Mutex<Places>,
    pub gathering: Gathering,
    /// Wakes the watcher.
    pub bell: EventFd,
    /// When the application was started last, plus one while it runs; always even without it.
    run: AtomicU64,
    /// When the watcher looks without being woken; `Nanos::MAX` for never.
    looks_at: AtomicU64,
    /// Somebody has to listen to the client whose request runs.
    attends: AtomicBool,
    /// The server stops: nobody would take what is sent on.
    stops: AtomicBool,
    /// The watcher polls connections: it has to stop when the application comes back.
    polls: AtomicBool,
    /// There is a watcher, or could be none.
    pub is_watched: AtomicBool,
    /// The watcher is to end.
    pub is_over: AtomicBool,
    voice: AtomicU8,
    /// The master has given this worker up.
    is_given_up: AtomicBool,
}

/// A page of the server's own.
pub struct Page {
    pub form: Form,
    pub text: Vec<u8>,
}

/// A run of the application, told apart from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run(u64);

impl Run {
    /// When it began, if it is not over.
    pub fn since(self) -> Option<Nanos> {
        (self.0 & 1 == 1).then_some(self.0 & !1)
    }
}

impl Floor {
    pub fn new(ground: Ground, bell: EventFd) -> Self {
        let places = Places {
            connections: Slab::new(),
            gone: Vec::new(),
            lent: None,
            was: Wards::default(),
            troubles: Throttle::new(1),
        };
        Self {
            ground,
            places: Mutex::new(places),
            gathering: Gathering::default(),
            bell,
            run: AtomicU64::new(0),
            looks_at: AtomicU64::new(Nanos::MAX),
            attends: AtomicBool::new(false),
            stops: AtomicBool::new(false),
            polls: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            voice: AtomicU8::new(NOBODY),
            is_given_up: AtomicBool::new(false),
        }
    }

    /// For the watcher: `None` unless the application runs.
    pub fn visit(&self) -> Option<MutexGuard<'_, Places>> {
        match self.places.try_lock() {
            Ok(places) => Some(places),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// For the main loop.
    pub fn hold(&'static self) -> Held {
        Held {
            floor: self,
            places: Some(self.lock()),
        }
    }

    // A panic ends the process, so nobody finds the lock poisoned.
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn last_run(&self) -> Run {
        Run(self.run.load(Ordering::SeqCst))
    }

    /// The watcher is going to look at this time; what it has seen before may be out of date.
    pub fn will_look(&self, at: Nanos) {
        self.looks_at.store(at, Ordering::SeqCst);
    }

    /// Whether the watcher polls connections.
    pub fn will_poll(&self, polls: bool) {
        self.polls.store(polls, Ordering::SeqCst);
    }

    /// Makes the watcher look at this time or before; false if there is none.
    #[inline]
    pub fn look_by(&'static self, at: Nanos) -> bool {
        self.looks_at.load(Ordering::SeqCst) <= at || watcher::wake(self)
    }

    /// The first bytes of a response are about to leave; false if another has been given already.
    pub fn begins_response(&self) -> bool {
        self.speak(APPLICATION)
    }

    /// For the watcher: nothing of the response has left, and nothing of the application's will.
    pub fn silences(&self) -> bool {
        self.speak(WATCHER)
    }

    fn speak(&self, who: u8) -> bool {
        let order = Ordering::AcqRel;
        let exchanged = self
            .voice
            .compare_exchange(NOBODY, who, order, Ordering::Acquire);
        exchanged.is_ok()
    }

    /// Whether the watcher has answered the request that ran last.
    pub fn has_answered(&self) -> bool {
        self.voice.load(Ordering::Acquire) == WATCHER
    }

    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
    }

    pub fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// Whether there is anything to do for a watcher while the application runs.
    pub fn is_worth_a_look(&self) -> bool {
        self.attends.load(Ordering::SeqCst) || self.has_siblings()
    }

    /// How long the application may run before the watcher is needed.
    pub fn look_after(&self) -> Nanos {
        match self.attends.load(Ordering::SeqCst) {
            true => self.ground.relay_after.min(ATTEND_AFTER),
            false => self.ground.relay_after,
        }
    }

    /// Whether there are, or may be, other workers that take connections.
    pub fn has_siblings(&self) -> bool {
        !self.stops.load(Ordering::SeqCst)
            && self.ground.ferry.is_some()
            && self.ground.scoreboard.pool().size().max > 1
    }

    /// All workers leave, or only this one.
    pub fn stop(&self, all: bool) {
        self.stops.store(all, Ordering::SeqCst);
    }
}

/// The connections while the main loop holds the lock.
pub struct Held {
    floor: &'static Floor,
    places: Option<MutexGuard<'static, Places>>,
}

const RELEASED: &str = "released only while the application runs";

impl Held {
    /// The application is about to run for the request of one connection.
    #[inline]
    pub fn release(&mut self, lent: Lent, now: Nanos) {
        let floor = self.floor;
        floor.voice.store(NOBODY, Ordering::Relaxed);
        let mut has_others = self.len() > 1;
        if let Some(places) = &mut self.places {
            let attends = places.was.runs();
            has_others |= attends || places.was.len() > 0;
            floor.attends.store(attends, Ordering::SeqCst);
            places.lent = Some(lent);
        }
        self.places = None;
        // Only now: the watcher looks once in a run who is here, and needs the lock for it.
        floor.run.store(now | 1, Ordering::SeqCst);
        let by = now.saturating_add(floor.look_after());
        let looks_late = has_others && floor.looks_at.load(Ordering::SeqCst) > by;
        // Without siblings somebody is to be there all the same: nobody else hears the last call.
        let is_alone = !floor.is_watched.load(Ordering::Relaxed);
        if is_alone || (looks_late && floor.is_worth_a_look()) {
            watcher::wake(floor);
        }
    }

    /// The application has come back from what began at `began`.
    #[inline]
    pub fn retake(&mut self, began: Nanos) {
        let floor = self.floor;
        floor.run.store(began & !1, Ordering::SeqCst);
        if floor.polls.load(Ordering::SeqCst) {
            // What it polls is not closed before it stops.
            let _ = floor.bell.write(1);
        }
        let mut places = floor.lock();
        places.lent = None;
        places.was.end();
        self.places = Some(places);
    }

    /// WAS connections, as the watcher sees them.
    pub fn was(&mut self) -> &mut Wards {
        &mut self.places.as_mut().expect(RELEASED).was
    }

    /// Sends a WAS connection on.
    pub fn ferry_was(&mut self, place: usize, cause: Cause, now: Nanos) -> Passage {
        match &mut self.places {
            Some(places) => self.floor.ferry_was(places, place, cause, now),
            None => Passage::NotYet,
        }
    }

    /// Sends a connection on.
    pub fn ferry(&mut self, place: usize, cause: Cause, now: Nanos) -> Passage {
        match &mut self.places {
            Some(places) => self.floor.ferry(places, place, cause, now),
            None => Passage::NotYet,
        }
    }

    /// What those that have left since the last call have left behind.
    #[inline]
    pub fn take_gone(&mut self) -> Vec<Remains> {
        match &mut self.places {
            Some(places) if !places.gone.is_empty() => std::mem::take(&mut places.gone),
            _ => Vec::new(),
        }
    }
}

impl Deref for Held {
    type Target = Slab<Connection>;

    #[inline]
    fn deref(&self) -> &Slab<Connection> {
        &self.places.as_ref().expect(RELEASED).connections
    }
}

impl DerefMut for Held {
    #[inline]
    fn deref_mut(&mut self) -> &mut Slab<Connection> {
        &mut self.places.as_mut().expect(RELEASED).connections
    }
}
