//! The lanes of a generation as its master and its workers have them.

#![forbid(unsafe_code)]

use super::desk::{Bell, Desk};
use super::format::Format;
use super::lane::Lanes;
use super::pen::Pen;
use super::record::Ending;
use crate::sys::clock::Nanos;

pub struct Ledger {
    lanes: &'static Lanes,
    desk: &'static Desk,
    bell: Bell,
}

impl Ledger {
    /// Processes and their forks keep them for the rest of their lives.
    pub fn new(lanes: Lanes, desk: &'static Desk, bell: Bell) -> Self {
        Self {
            lanes: Box::leak(Box::new(lanes)),
            desk,
            bell,
        }
    }

    /// The worker of a slot has died: the requests that it had are over.
    pub fn bury(&self, slot: usize, ending: Ending, status: u16, now: Nanos) {
        let lane = self.lanes.as_slice().get(slot);
        if lane.is_some_and(|lane| lane.bury(ending, status, now) > 0)
            && self.desk.is_to_be_woken(true)
        {
            self.bell.ring();
        }
    }

    /// For the worker of a slot, in its own process.
    pub fn pen(self, slot: usize, format: &Format) -> Option<Pen> {
        let lane = self.lanes.as_slice().get(slot)?;
        Some(Pen::new(lane, self.desk, self.bell, format))
    }
}
