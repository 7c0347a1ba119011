//! When changed files make a reload: once they have been quiet for a moment. An application that changes
//! its own files when it starts is slowed down, so that it does not reload for ever.

#![forbid(unsafe_code)]

use super::backoff::Nanos;

const MILLISECOND: Nanos = 1_000_000;
/// What belongs together comes within this time: an editor that writes several files, a checkout.
const QUIET: Nanos = 100 * MILLISECOND;
/// Files that never rest are not waited for.
const MOST: Nanos = 2_000 * MILLISECOND;
/// Of a generation that was started by a change and sees one while it starts.
const SLOWEST: Nanos = 30_000 * MILLISECOND;

/// So many reloads in a row that were followed by a change at once.
const SUSPICIOUS: u32 = 3;

/// What the app is doing when a change is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Starting,
    Settled,
}

#[derive(Debug, Default)]
pub struct Changes {
    /// The first and the last of those that have not made a reload.
    pending: Option<(Nanos, Nanos)>,
    /// Reloads in a row that were followed by a change while they were starting.
    restless: u32,
    started_by_change: bool,
}

impl Changes {
    /// A file has changed. True once when it looks as if the application did it itself.
    pub fn note(&mut self, moment: Moment, now: Nanos) -> bool {
        let mut told = false;
        if self.pending.is_none() {
            self.restless = match moment {
                Moment::Starting if self.started_by_change => self.restless + 1,
                _ => 0,
            };
            told = self.restless == SUSPICIOUS;
        }
        let first = self.pending.map_or(now, |(first, _)| first);
        self.pending = Some((first, now));
        told
    }

    /// When the reload is due.
    pub fn due(&self) -> Option<Nanos> {
        let (first, last) = self.pending?;
        let quiet = (last + QUIET).min(first + MOST);
        // The first two may be somebody who saves again at once.
        let slow = match self.restless {
            few if few < SUSPICIOUS => 0,
            many => (QUIET << many.min(20)).min(SLOWEST),
        };
        Some(quiet.max(first + slow))
    }

    /// Whether it is due now; then it is made.
    pub fn take(&mut self, now: Nanos) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.pending = None;
            self.started_by_change = true;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = MILLISECOND;

    #[test]
    fn changes_that_belong_together_make_one_reload() {
        let mut changes = Changes::default();
        assert_eq!(changes.due(), None);
        for at in [0, 50, 140] {
            changes.note(Moment::Settled, at * MS);
            assert!(!changes.take(at * MS + 1));
        }
        assert_eq!(changes.due(), Some(240 * MS));
        assert!(!changes.take(239 * MS));
        assert!(changes.take(240 * MS));
        assert!(!changes.take(999 * MS));
        assert_eq!(changes.due(), None);
    }

    #[test]
    fn files_that_never_rest_are_not_waited_for() {
        let mut changes = Changes::default();
        let mut reloads = 0;
        for at in 0..200 {
            changes.note(Moment::Settled, at * 50 * MS);
            reloads += usize::from(changes.take(at * 50 * MS));
        }
        // Ten seconds of changes, a reload every two.
        assert!((4..=5).contains(&reloads), "{reloads}");
    }

    #[test]
    fn an_application_that_changes_its_own_files_is_slowed_down() {
        let mut changes = Changes::default();
        let mut now = 0;
        let mut waits = Vec::new();
        let mut told = Vec::new();
        changes.note(Moment::Settled, now);
        for turn in 0..15 {
            let due = changes.due().unwrap();
            waits.push((due - now) / MS);
            now = due;
            assert!(changes.take(now));
            now += 10 * MS;
            if changes.note(Moment::Starting, now) {
                told.push(turn);
            }
        }
        assert_eq!(told, [2]);
        assert_eq!(waits[..4], [100, 100, 100, 800]);
        assert!(waits.is_sorted() && waits[14] == 30_000, "{waits:?}");
        // What somebody saves later is taken at once again.
        assert!(changes.take(now + SLOWEST));
        changes.note(Moment::Settled, 2 * now);
        assert_eq!(changes.due(), Some(2 * now + QUIET));
    }
}
