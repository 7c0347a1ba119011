//! What a master looks after from time to time: requests that take too long, workers that are too
//! old or too large, workers that have nothing to do.

use nix::sys::signal::Signal;

use super::workers::Workers;
use crate::config::{Recycling, Settings};
use crate::log;
use crate::python::{PRINT_STACKS, SOFT_DEADLINE};
use crate::schedule::stuck::{Action, Running, Watch};
use crate::scoreboard::{Row, Scoreboard};
use crate::sys::clock::{MILLISECOND, Nanos, SECOND, nanos};
use crate::sys::process;

/// Between two samples of the memory of all workers.
const SAMPLE: Nanos = 5 * SECOND;
/// Between samples that are to confirm one over the limit.
const CONFIRM: Nanos = SECOND;
/// Samples in a row over the limit that make a worker too large.
const CONFIRMED: u32 = 3;

#[derive(Debug, Default)]
pub struct Care {
    pub watch: Watch,
    request_timeout: Option<Nanos>,
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
            max_age: max_age.map(nanos),
            max_memory,
            idle_timeout: nanos(idle_timeout),
            oversized: vec![0; slots],
            next_sample: now + SAMPLE,
        }
    }

    /// Workers of the same age do not leave together.
    fn age_limit(&self, slot: usize) -> Option<Nanos> {
        let share = (slot as u64).wrapping_mul(37) % 100;
        self.max_age.map(|age| age + age / 1000 * share)
    }
}

fn running(row: &Row) -> Option<Running> {
    let since = row.request_since()?;
    Some(Running {
        since,
        deadline: row.deadline(),
    })
}

impl Workers {
    /// When the next look is due. While nobody runs a request none can be late before
    /// `--request-timeout` from now.
    pub(super) fn care_at(
        &self,
        care: &Care,
        scoreboard: &Scoreboard,
        now: Nanos,
    ) -> Option<Nanos> {
        let occupied = || (0..self.processes.len()).filter(|slot| self.processes[*slot].is_some());
        let requests = occupied().filter_map(|slot| {
            let running = running(scoreboard.row(slot))?;
            care.watch.wake_at(slot, running)
        });
        let next_request = care.request_timeout.map(|timeout| now + timeout);
        let ages = occupied().filter_map(|slot| {
            let limit = care.age_limit(slot).filter(|_| self.pool.is_fresh(slot))?;
            Some(scoreboard.row(slot).started() + limit)
        });
        let memory = care.max_memory.map(|_| care.next_sample);
        let idle = (self.pool.surplus() > 0)
            .then(|| self.laziest(scoreboard))
            .flatten()
            .map(|slot| scoreboard.row(slot).idle_since().unwrap_or(now) + care.idle_timeout);
        requests
            .chain(next_request)
            .chain(ages)
            .chain(memory)
            .chain(idle)
            .min()
    }

    pub(super) fn take_care(&mut self, care: &mut Care, scoreboard: &Scoreboard, now: Nanos) {
        for slot in 0..self.processes.len() {
            if self.processes[slot].is_some() {
                self.enforce(care, slot, scoreboard.row(slot), now);
                self.check_age(care, slot, scoreboard.row(slot), now);
            }
        }
        if let Some(limit) = care.max_memory
            && care.next_sample <= now
        {
            self.check_memory(care, limit, now);
        }
        if self.pool.surplus() > 0
            && let Some(slot) = self.laziest(scoreboard)
            && let Some(since) = scoreboard.row(slot).idle_since()
            && now >= since + care.idle_timeout
        {
            log::info!("worker {slot} has nothing to do: it leaves");
            self.pool.shrink();
            self.dismiss(slot, now);
        }
    }

    fn enforce(&mut self, care: &mut Care, slot: usize, row: &Row, now: Nanos) {
        let Some(action) = care.watch.judge(slot, running(row), now) else {
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
                log::error!(
                    "worker {slot} (pid {pid}) is stuck in {line:?} for {millis} ms: killing it; \
                     this is where its threads are"
                );
                process.child.real_time_signal(PRINT_STACKS)
            }
            Action::Kill => process.child.signal(Signal::SIGKILL),
        };
        if let Err(error) = done {
            log::error!("cannot signal worker {slot}: {error}");
        }
    }

    fn check_age(&mut self, care: &Care, slot: usize, row: &Row, now: Nanos) {
        if let Some(limit) = care.age_limit(slot)
            && self.pool.is_fresh(slot)
            && now >= row.started() + limit
        {
            log::info!("worker {slot} has reached its age: replacing it");
            self.pool.wear_out(slot);
        }
    }

    fn check_memory(&mut self, care: &mut Care, limit: u64, now: Nanos) {
        care.next_sample = now + SAMPLE;
        for slot in 0..self.processes.len() {
            let used = match &self.processes[slot] {
                Some(process) if self.pool.is_fresh(slot) => {
                    process::unique_set_size(process.child.pid())
                }
                _ => None,
            };
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
                self.pool.wear_out(slot);
            }
        }
    }
}
