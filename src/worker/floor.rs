//! The connections of a worker, behind a lock.
//!
//! The main loop holds the lock all the time but while the application runs, so locking costs it two
//! uncontended atomic operations per request. The watcher only ever tries to take it: success means that
//! the application runs, and that until the lock is given back nothing but the watcher touches a
//! connection, the epoll set or the row in the scoreboard. The connection whose request runs is not
//! complete then: its outlet is lent out.

#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::epoll::Epoll;
use slab::Slab;

use super::connection::{Connection, Remains};
use super::ferry::{Ferry, Passage};
use crate::relay::Cause;
use crate::scoreboard::Row;
use crate::sys::clock::Nanos;

/// What the lock is about.
pub struct Places {
    pub connections: Slab<Connection>,
    /// Of those that have left for another worker: only the main loop may let go of objects of Python.
    pub gone: Vec<Remains>,
}

/// What main loop and watcher share, for the life of the process.
pub struct Floor {
    pub epoll: Epoll,
    pub row: &'static Row,
    /// `None`: connections stay where they are.
    pub ferry: Option<Ferry>,
    places: Mutex<Places>,
}

impl Floor {
    pub fn new(epoll: Epoll, row: &'static Row, ferry: Option<Ferry>) -> Self {
        let places = Places {
            connections: Slab::new(),
            gone: Vec::new(),
        };
        Self {
            epoll,
            row,
            ferry,
            places: Mutex::new(places),
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
}

/// The connections while the main loop holds the lock.
pub struct Held {
    floor: &'static Floor,
    places: Option<MutexGuard<'static, Places>>,
}

impl Held {
    /// The application is about to run.
    #[inline]
    pub fn release(&mut self) {
        self.places = None;
    }

    /// The application has come back.
    #[inline]
    pub fn retake(&mut self) {
        self.places = Some(self.floor.lock());
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
        let places = self.places.as_ref();
        &places
            .expect("released only while the application runs")
            .connections
    }
}

impl DerefMut for Held {
    #[inline]
    fn deref_mut(&mut self) -> &mut Slab<Connection> {
        let places = self.places.as_mut();
        &mut places
            .expect("released only while the application runs")
            .connections
    }
}
