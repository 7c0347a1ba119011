//! The ends of workers: those that have come, and those that the master brings about.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::workers::{Mood, Process, Workers};
use crate::access::{Ending, Ledger};
use crate::log;
use crate::schedule::Verdict;
use crate::scoreboard::{Counter, Row, Scoreboard, State};
use crate::sys::clock::{MILLISECOND, Nanos, SECOND};
use crate::sys::process::Ended;
use crate::sys::seqpacket::Received;
use crate::worker::call;

/// From the call of a watcher to the end of its process.
const CALL: Nanos = 200 * MILLISECOND;
/// What the client of a worker that is killed gets.
const LATE: u16 = 504;

impl Workers {
    /// Before a worker is killed: its connections go to others, its client gets an answer.
    pub(super) fn call_watcher(&self, slot: usize) {
        if let Some(process) = &self.processes[slot] {
            // One that has no watcher has nobody to pass on.
            let _ = process.call.send(call::LAST);
        }
    }

    fn hear_watcher(&mut self, slot: usize, scoreboard: &Scoreboard) {
        if let Some(process) = &mut self.processes[slot]
            && let Ok(Received::Message(message)) = process.call.receive()
            && message == call::ANSWERED
        {
            process.was_answered = true;
            scoreboard.pool().count_status(LATE);
        }
    }

    pub(super) fn reap(
        &mut self,
        slot: usize,
        scoreboard: &Scoreboard,
        ledger: Option<&Ledger>,
        now: Nanos,
    ) {
        let row = scoreboard.row(slot);
        let Some(process) = &self.processes[slot] else {
            return;
        };
        let ended = match process.child.try_reap() {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            Err(error) => {
                log::error!("cannot wait for worker {slot}: {error}");
                return;
            }
        };
        let pid = process.child.pid();
        self.collect_last(slot, now);
        self.hear_watcher(slot, scoreboard);
        let process = self.processes[slot].take();
        let was_answered = process.is_some_and(|process| process.was_answered);
        let was = row.state();
        row.set_state(State::Dead);
        let counter = match self.pool.is_serving(slot) {
            true => Counter::Crashes,
            false => Counter::StartFailures,
        };
        let verdict = self.pool.ended(slot, now);
        let was_told = self.mood != Mood::Serving || verdict == Verdict::Expected;
        if let Some(ledger) = ledger {
            let ending = match ended {
                Ended::Exited(0) if was_told => Ending::Stopped,
                Ended::Killed {
                    signal: Signal::SIGKILL,
                    ..
                } => Ending::Killed,
                _ => Ending::Crashed,
            };
            let status = if was_answered { LATE } else { 0 };
            ledger.bury(slot, ending, status, now);
        }
        if was_told {
            if !ended.is_success() {
                log::warning!("worker {slot} (pid {pid}) {ended} while leaving");
            }
            return;
        }
        scoreboard.pool().count(counter, 1);
        describe(slot, pid, ended, was, row, now);
        self.take_verdict(verdict);
    }

    /// Those that are overdue; where somebody can take over their connections, they are called first. When
    /// to come back: those in an uninterruptible sleep are asked again.
    pub(super) fn kill(
        &mut self,
        scoreboard: &Scoreboard,
        overdue: impl Fn(&Process) -> bool,
        now: Nanos,
    ) -> Nanos {
        let has_heirs = self.has_heirs || self.mood == Mood::Serving;
        let mut again = now + SECOND;
        for (slot, process) in self.processes.iter_mut().enumerate() {
            let Some(process) = process.as_mut().filter(|process| overdue(process)) else {
                continue;
            };
            if has_heirs && !process.is_called {
                process.is_called = true;
                let _ = process.call.send(call::LAST);
                again = now + CALL;
                process.leave_by = Some(again);
                continue;
            }
            let row = scoreboard.row(slot);
            let doing = match row.request_since() {
                Some(_) => format!("in {:?}", row.request_line()),
                None => row.state().name().into(),
            };
            let pid = process.child.pid();
            log::warning!("worker {slot} (pid {pid}) does not leave in time ({doing}): killing it");
            let _ = process.child.signal(Signal::SIGKILL);
            process.leave_by = process.leave_by.map(|by| by + SECOND);
        }
        again
    }
}

/// Says what became of a worker that nobody had told to leave.
fn describe(slot: usize, pid: Pid, ended: Ended, was: State, row: &Row, now: Nanos) {
    let age = now.saturating_sub(row.started()) / MILLISECOND;
    let age = format!("{}.{:03} s", age / 1000, age % 1000);
    let doing = match row.request_since() {
        Some(since) => {
            let since = now.saturating_sub(since) / MILLISECOND;
            format!("{since} ms into {:?}", row.request_line())
        }
        None => was.name().to_owned(),
    };
    let connections = match row.connections() {
        0 => String::new(),
        1 => ", with 1 open connection".into(),
        n => format!(", with {n} open connections"),
    };
    let text = format!(
        "worker {slot} (pid {pid}) {ended} after {age}, {doing}{connections}; replacing it"
    );
    match ended.is_success() {
        true => log::info!("{text}"),
        false => log::error!("{text}"),
    }
}
