//! The scoreboard: one row of atomics per worker slot, in memory shared by supervisor, master and
//! workers of a generation. A worker writes its own row and nothing else; everybody may read at any
//! time, so nobody ever has to ask a worker anything. Readers tolerate torn texts.
//!
//! To the supervisor the contents are untrusted: numbers are only shown, never acted upon.

mod counter;
mod histogram;
mod row;
mod seconds;
mod totals;

pub use counter::Counter;
pub use histogram::Durations;
pub use row::{Row, Size, State};
pub use seconds::Recent;
pub use totals::Totals;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::memory::Shared;

/// The rows of one generation: one per slot, and after them one of the pool, in which the master
/// counts.
pub struct Scoreboard {
    rows: Shared<Row>,
}

impl Scoreboard {
    pub fn create(slots: usize) -> io::Result<Self> {
        let rows = Shared::create(c"rswsgi scoreboard", slots + 1)?;
        Ok(Self { rows })
    }

    /// Maps the scoreboard that the supervisor made.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        let rows = Shared::map(fd)?;
        Ok(Self { rows })
    }

    /// Tells one version of the table from another: programs that differ in it cannot read each other's.
    pub fn layout() -> String {
        let counters: Vec<&str> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        let refusals = crate::http::Refusal::ALL.len();
        let bytes = size_of::<Row>();
        format!("{bytes} bytes, {refusals} refusals, {}", counters.join(" "))
    }

    fn split(&self) -> (&Row, &[Row]) {
        let split = self.rows.as_slice().split_last();
        split.expect("there is no empty shared memory")
    }

    /// Of the workers.
    pub fn rows(&self) -> &[Row] {
        self.split().1
    }

    pub fn row(&self, slot: usize) -> &Row {
        &self.rows()[slot]
    }

    /// What the master has counted, and the size of the pool.
    pub fn pool(&self) -> &Row {
        self.split().0
    }
}

impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rows.as_fd()
    }
}
