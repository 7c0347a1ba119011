//! Whether a generation makes progress: what a service manager's watchdog is told. Of the workers only the
//! scoreboard is looked at, of the sockets the queue.

#![forbid(unsafe_code)]

use crate::net::Listener;
use crate::scoreboard::{Counter, Row, State, Totals};
use crate::supervisor::generation::Generation;
use crate::sys::clock::{Nanos, SECOND, nanos};
use crate::sys::diag::Diag;

/// What is late gets beyond its time limits before it counts as lost: masters act first.
const PATIENCE: Nanos = 5 * SECOND;

/// Connections that wait although somebody could take them.
#[derive(Debug, Default)]
pub struct Progress {
    /// Connections ever taken, when that was first seen; the number has not changed since.
    stalled: Option<(Nanos, u64)>,
}

impl Progress {
    /// Whether some worker of this generation could serve, or soon will.
    pub fn look(&mut self, generation: &Generation, listeners: &[Listener], now: Nanos) -> bool {
        let limits = &generation.settings.limits;
        let patience = nanos(limits.kill_timeout) + PATIENCE;
        let rows = generation.scoreboard.rows();
        let alive = |row: &&Row| row.state() != State::Dead;
        let is_stuck = |row: &Row| {
            let late = row.deadline() < now.saturating_sub(patience);
            row.request_since().is_some() && row.state() != State::Writing && late
        };
        if rows.iter().filter(alive).all(is_stuck) {
            return false;
        }
        // Also one that receives or sends accepts in between; whoever runs a request does not.
        let has_room = |row: &Row| {
            let takes_part = !matches!(row.state(), State::Starting | State::Draining);
            let has_room = (row.connections() as usize) < limits.max_connections;
            takes_part && has_room && row.request_since().is_none()
        };
        let waits = rows.iter().filter(alive).any(has_room) && has_queue(listeners);
        let mut totals = Totals::default();
        totals.add(&generation.scoreboard);
        self.note(waits, totals.counter(Counter::Connections), now)
    }

    /// `waits`: a connection is in a queue, and an idle worker has room for it.
    fn note(&mut self, waits: bool, taken: u64, now: Nanos) -> bool {
        self.stalled = match self.stalled {
            _ if !waits => None,
            Some((since, before)) if before == taken => Some((since, before)),
            _ => Some((now, taken)),
        };
        self.stalled
            .is_none_or(|(since, _)| now.saturating_sub(since) < PATIENCE)
    }
}

fn has_queue(listeners: &[Listener]) -> bool {
    let diag = Diag::open().ok();
    let backlog = |listener: &Listener| listener.backlog(diag.as_ref());
    let mut backlogs = listeners.iter().filter_map(backlog);
    backlogs.any(|backlog| backlog.waiting > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_nobody_takes_from_is_no_progress_after_a_while() {
        let mut progress = Progress::default();
        assert!(progress.note(true, 7, SECOND));
        assert!(progress.note(true, 7, 5 * SECOND));
        assert!(!progress.note(true, 7, 6 * SECOND));
        assert!(!progress.note(true, 7, 60 * SECOND));
        // Somebody has taken one.
        assert!(progress.note(true, 8, 61 * SECOND));
        assert!(!progress.note(true, 8, 66 * SECOND));
    }

    #[test]
    fn a_queue_that_was_empty_once_starts_anew() {
        let mut progress = Progress::default();
        for second in 0..60 {
            // Always one, and never the same for long.
            assert!(progress.note(second % 4 != 0, 0, second * SECOND));
        }
    }
}
