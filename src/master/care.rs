//! What a master looks after from time to time: requests that take too long, workers that are too
//! old or too large, workers that have nothing to do.

use nix::sys::signal::Signal;

use super::stacks::Reason;
use super::workers::Workers;
use crate::config::{Recycling, Settings};
use crate::log::{self, Allowed, Throttle};
use crate::python::SOFT_DEADLINE;
use crate::schedule::stuck::{Action, Running, Watch};
use crate::scoreboard::{Counter, Row, Scoreboard, State};
use crate::sys::clock::{MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::process;

/// Between two samples of the memory of all workers.
const SAMPLE: Nanos = 5 * SECOND;
/// Between samples that are to confirm one over the limit.
const CONFIRM: Nanos = SECOND;
/// Samples in a row over the limit that make a worker too large.
const CONFIRMED: u32 = 3;

/// Until the next look at a request whose time stands still.
const LATER: Nanos = 200 * MILLISECOND;

/// Requests per second whose slowness is logged.
const SLOW_PER_SECOND: u32 = 5;

#[derive(Debug, Default)]
pub struct Care {
    pub watch: Watch,
    request_timeout: Option<Nanos>,
    /// A request that runs for longer is logged.
    slow_request: Option<Nanos>,
    /// When the last one began that was, per slot.
    told_slow: Vec<Nanos>,
    slow_log: Throttle,
    max_age: Option<Nanos>,
    max_memory: Option<u64>,
    idle_timeout: Nanos,
    /// Samples over the limit in a row, per slot.
    oversized: Vec<u32>,
    next_sample: Nanos,
}

impl Care {
    pub fn new(settings: &Settings, slots: usize, now: Nanos) -> Self {
        let Recycling {
            max_age,
            max_memory,
            idle_timeout,
            ..
        } = settings.recycling;
        Self {
            watch: Watch::new(slots, nanos(settings.limits.kill_timeout)),
            request_timeout: settings.limits.request_timeout.map(nanos),
            slow_request: settings.limits.slow_request.map(nanos),
            told_slow: vec![0; slots],
            slow_log: Throttle::new(SLOW_PER_SECOND),
            max_age: max_age.map(nanos),
            max_memory,
            idle_timeout: nanos(idle_timeout),
            oversized: vec![0; slots],
            next_sample: now + SAMPLE,
        }
    }

    /// When the request that a slot runs has to be logged as slow, unless it has been.
    fn slow_at(&self, slot: usize, row: &Row) -> Option<Nanos> {
        let since = row.request_since()?;
        let at = since.saturating_add(self.slow_request?);
        (self.told_slow[slot] != since).then_some(at)
    }

    /// Workers of the same age do not leave together.
    fn age_limit(&self, slot: usize) -> Option<Nanos> {
        let share = (slot as u64).wrapping_mul(37) % 100;
        self.max_age.map(|age| age + age / 1000 * share)
    }
}

/// What runs, and until when it may. While its worker waits for a slow client its time stands still;
/// how much that comes to is known afterwards.
fn running(row: &Row, now: Nanos) -> Option<Running> {
    let since = row.request_since()?;
    let deadline = match row.state() {
        State::Writing => row.deadline().max(now + LATER),
        _ => row.deadline(),
    };
    Some(Running { since, deadline })
}

impl Workers {
    fn occupied(&self) -> impl Iterator<Item = usize> {
        (0..self.processes.len()).filter(|slot| self.processes[*slot].is_some())
    }

    /// When the next look at the requests is due. While nobody runs one none can be late before
    /// `--request-timeout` from now.
    pub(super) fn requests_at(
        &self,
        care: &Care,
        scoreboard: &Scoreboard,
        now: Nanos,
    ) -> Option<Nanos> {
        let requests = self.occupied().filter_map(|slot| {
            let running = running(scoreboard.row(slot), now)?;
            care.watch.wake_at(slot, running)
        });
        let next_request = [care.request_timeout, care.slow_request]
            .into_iter()
            .flatten()
            .map(|timeout| now.saturating_add(timeout));
        let slow = self
            .occupied()
            .filter_map(|slot| care.slow_at(slot, scoreboard.row(slot)));
        requests.chain(next_request).chain(slow).min()
    }

    /// When the next look is due at anything.
    pub(super) fn care_at(
        &self,
        care: &Care,
        scoreboard: &Scoreboard,
        now: Nanos,
    ) -> Option<Nanos> {
        let ages = self.occupied().filter_map(|slot| {
            let limit = care.age_limit(slot).filter(|_| self.pool.is_fresh(slot))?;
            Some(scoreboard.row(slot).started() + limit)
        });
        let memory = care.max_memory.map(|_| care.next_sample);
        let idle = (self.pool.surplus() > 0)
            .then(|| self.laziest(scoreboard))
            .flatten()
            .map(|slot| scoreboard.row(slot).idle_since().unwrap_or(now) + care.idle_timeout);
        self.requests_at(care, scoreboard, now)
            .into_iter()
            .chain(ages)
            .chain(memory)
            .chain(idle)
            .min()
    }

    /// Whatever becomes of the worker, its request has the time limits that it had.
    pub(super) fn watch_requests(&mut self, care: &mut Care, scoreboard: &Scoreboard, now: Nanos) {
        for slot in self.occupied().collect::<Vec<_>>() {
            self.check_slow(care, slot, scoreboard.row(slot), now);
            self.enforce(care, slot, scoreboard, now);
        }
    }

    pub(super) fn take_care(&mut self, care: &mut Care, scoreboard: &Scoreboard, now: Nanos) {
        self.watch_requests(care, scoreboard, now);
        for slot in self.occupied().collect::<Vec<_>>() {
            self.check_age(care, slot, scoreboard, now);
        }
        if let Some(limit) = care.max_memory
            && care.next_sample <= now
        {
            self.check_memory(care, limit, scoreboard, now);
        }
        if self.pool.surplus() > 0
            && let Some(slot) = self.laziest(scoreboard)
            && let Some(since) = scoreboard.row(slot).idle_since()
            && now >= since + care.idle_timeout
        {
            log::info!("worker {slot} has nothing to do: it leaves");
            scoreboard.pool().count(Counter::Retired, 1);
            self.pool.shrink();
            self.dismiss(slot, now);
        }
    }

    fn check_slow(&mut self, care: &mut Care, slot: usize, row: &Row, now: Nanos) {
        let (Some(at), Some(process)) = (care.slow_at(slot, row), &self.processes[slot]) else {
            return;
        };
        if now < at {
            return;
        }
        let since = row.request_since().unwrap_or(now);
        care.told_slow[slot] = since;
        let Allowed::Yes { withheld } = care.slow_log.ask(now) else {
            return;
        };
        let pid = process.child.pid();
        let (line, millis) = (row.request_line(), now.saturating_sub(since) / MILLISECOND);
        let more = match withheld {
            0 => String::new(),
            n => format!(" ({n} more slow requests were not logged)"),
        };
        let said = format!(
            "slow request: worker {slot} (pid {pid}) has run {line:?} for {millis} ms{more}; \
             this is where its threads are"
        );
        self.ask_for_stacks(slot, Reason::Slow(said), now);
    }

    fn enforce(&mut self, care: &mut Care, slot: usize, scoreboard: &Scoreboard, now: Nanos) {
        let row = scoreboard.row(slot);
        let Some(action) = care.watch.judge(slot, running(row, now), now) else {
            return;
        };
        let Some(process) = &self.processes[slot] else {
            return;
        };
        let pid = process.child.pid();
        let since = row.request_since().unwrap_or(now);
        let (line, millis) = (row.request_line(), now.saturating_sub(since) / MILLISECOND);
        let done = match action {
            Action::Tell => {
                log::warning!(
                    "worker {slot} (pid {pid}) has run {line:?} for {millis} ms: its time is up"
                );
                process.child.real_time_signal(SOFT_DEADLINE)
            }
            Action::Dump => {
                let said = format!(
                    "worker {slot} (pid {pid}) is stuck in {line:?} for {millis} ms: killing it; \
                     this is where its threads are"
                );
                self.call_watcher(slot);
                return self.ask_for_stacks(slot, Reason::Stuck(said), now);
            }
            Action::Kill => {
                scoreboard.pool().count(Counter::HardTimeouts, 1);
                process.child.signal(Signal::SIGKILL)
            }
        };
        if let Err(error) = done {
            log::error!("cannot signal worker {slot}: {error}");
        }
    }

    fn check_age(&mut self, care: &Care, slot: usize, scoreboard: &Scoreboard, now: Nanos) {
        let row = scoreboard.row(slot);
        if let Some(limit) = care.age_limit(slot)
            && self.pool.is_fresh(slot)
            && now >= row.started() + limit
        {
            log::info!("worker {slot} has reached its age: replacing it");
            scoreboard.pool().count(Counter::RecycledAge, 1);
            self.pool.wear_out(slot);
        }
    }

    fn check_memory(&mut self, care: &mut Care, limit: u64, scoreboard: &Scoreboard, now: Nanos) {
        care.next_sample = now + SAMPLE;
        for slot in 0..self.processes.len() {
            let memory = match &self.processes[slot] {
                Some(process) if self.pool.is_fresh(slot) => process::memory(process.child.pid()),
                _ => None,
            };
            if let Some(memory) = memory {
                scoreboard.row(slot).set_memory(memory, now);
            }
            let used = memory.map(|memory| memory.unique);
            let Some(used) = used.filter(|used| *used > limit) else {
                care.oversized[slot] = 0;
                continue;
            };
            care.next_sample = now + CONFIRM;
            care.oversized[slot] += 1;
            if care.oversized[slot] == CONFIRMED {
                care.oversized[slot] = 0;
                let mib = used >> 20;
                log::info!("worker {slot} has {mib} MiB of its own: replacing it");
                scoreboard.pool().count(Counter::RecycledMemory, 1);
                self.pool.wear_out(slot);
            }
        }
    }
}
