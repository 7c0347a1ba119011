//! What the supervisor asks a master for, and what becomes of the stacks that workers print.

#![forbid(unsafe_code)]

use super::stacks::{Dump, Reason};
use super::workers::{Mood, Workers};
use crate::control::{Kind, Resize, Stack, Workers as Which};
use crate::link::{Done, MAX_TEXT, Order, Report, Ticket};
use crate::log;
use crate::python::PRINT_STACKS;
use crate::schedule::Bounds;
use crate::scoreboard::{Counter, Row, Scoreboard};
use crate::sys::clock::{Nanos, SECOND};
use crate::sys::process;

/// Answers under way.
#[derive(Debug, Default)]
pub struct Answers {
    traces: Vec<Trace>,
    sampling: Option<Sampling>,
}

/// The workers whose stacks have not come yet, with what they did when they were asked.
#[derive(Debug)]
struct Trace {
    ticket: Ticket,
    waiting: Vec<Stack>,
}

/// Memory is read of a few workers at a time: for a large one it takes milliseconds.
#[derive(Debug)]
struct Sampling {
    tickets: Vec<Ticket>,
    next: usize,
}

/// Workers whose memory is read per wake-up.
const SAMPLED_AT_ONCE: usize = 4;

impl Workers {
    pub(super) fn answer(&mut self, order: Order, scoreboard: &Scoreboard, now: Nanos) {
        match order {
            Order::Resize { ticket, resize } => self.resize(ticket, resize, scoreboard, now),
            Order::Recycle { ticket, worker } => self.recycle(ticket, worker, scoreboard),
            Order::Trace { ticket, workers } => self.trace(ticket, workers, scoreboard, now),
            Order::Sample { ticket } => {
                let sampling = self.answers.sampling.get_or_insert(Sampling {
                    tickets: Vec::new(),
                    next: 0,
                });
                sampling.tickets.push(ticket);
            }
            Order::Serve | Order::Drain | Order::HandOver | Order::Stop | Order::Scale { .. } => {}
        }
    }

    fn done(&mut self, ticket: Ticket, done: Done) {
        self.outbox.put(&Report::Done { ticket, done });
    }

    fn refuse(&mut self, ticket: Ticket, kind: Kind, error: &str) {
        let error = error.into();
        self.done(ticket, Done::Refused { kind, error });
    }

    fn resize(&mut self, ticket: Ticket, resize: Resize, scoreboard: &Scoreboard, now: Nanos) {
        if self.mood != Mood::Serving {
            return self.refuse(ticket, Kind::Unavailable, "the generation is leaving");
        }
        let min = self.pool.bounds().min;
        let by = match resize {
            Resize::By(by) => by,
            Resize::To(to) => {
                let by = i64::from(to) - min as i64;
                by.clamp(i32::MIN.into(), i32::MAX.into()) as i32
            }
        };
        let room = self.pool.room();
        if min.saturating_add_signed(by as isize) > room {
            let error = format!(
                "this generation has room for {room} workers; a reload with another --workers makes more"
            );
            return self.refuse(ticket, Kind::BadArgument, &error);
        }
        self.scale(by, scoreboard, now);
        let Bounds { min, max } = self.pool.bounds();
        let [min, max] = [min, max].map(|n| n as u32);
        self.done(ticket, Done::Resized { min, max });
    }

    fn recycle(&mut self, ticket: Ticket, worker: Option<u32>, scoreboard: &Scoreboard) {
        if self.mood != Mood::Serving {
            return self.refuse(ticket, Kind::Unavailable, "the generation is leaving");
        }
        let chosen = |slot: &usize| worker.is_none_or(|worker| worker as usize == *slot);
        let slots: Vec<usize> = (0..self.processes.len())
            .filter(chosen)
            .filter(|slot| self.pool.is_fresh(*slot))
            .collect();
        if worker.is_some() && slots.is_empty() {
            let text = "no worker serves in this slot that is not being replaced already";
            return self.refuse(ticket, Kind::NoSuchWorker, text);
        }
        log::info!("replacing {} workers, as asked", slots.len());
        for slot in &slots {
            self.pool.wear_out(*slot);
        }
        let workers = slots.len() as u32;
        let counts = scoreboard.pool();
        counts.count(Counter::RecycledAsked, workers.into());
        self.done(ticket, Done::Recycling { workers });
    }

    fn trace(&mut self, ticket: Ticket, which: Which, scoreboard: &Scoreboard, now: Nanos) {
        let wanted = |slot: &usize| {
            let here = self.processes[*slot].is_some();
            here && match which {
                Which::All => true,
                Which::Busy => scoreboard.row(*slot).request_since().is_some(),
                Which::One(worker) => worker as usize == *slot,
            }
        };
        let slots: Vec<usize> = (0..self.processes.len()).filter(wanted).collect();
        if let (Which::One(_), []) = (which, slots.as_slice()) {
            return self.refuse(ticket, Kind::NoSuchWorker, "no worker is in this slot");
        }
        let waiting = slots.iter().filter_map(|slot| {
            let pid = self.processes[*slot].as_ref()?.child.pid().as_raw();
            Some(caught(*slot, pid, scoreboard.row(*slot), now))
        });
        let waiting = waiting.collect();
        self.answers.traces.push(Trace { ticket, waiting });
        for slot in slots {
            self.ask_for_stacks(slot, Reason::Asked(ticket), now);
        }
        self.end_traces();
    }

    /// Lets a worker print its stacks; [`Workers::collect`] finds them.
    pub(super) fn ask_for_stacks(&mut self, slot: usize, reason: Reason, now: Nanos) {
        let Some(process) = &mut self.processes[slot] else {
            return;
        };
        let failed = |reason: Reason, lack| Dump {
            reasons: vec![reason],
            text: String::new(),
            lack: Some(lack),
        };
        if !process.is_up {
            return self.deliver(slot, failed(reason, "the worker is only starting"));
        }
        if process.stacks.ask(reason, now)
            && let Err(error) = process.child.real_time_signal(PRINT_STACKS)
        {
            log::error!("cannot signal worker {slot}: {error}");
            self.collect_last(slot, now);
        }
    }

    /// Takes what a worker has printed of its stacks.
    pub(super) fn collect(&mut self, slot: usize, now: Nanos) {
        while let Some(process) = &mut self.processes[slot]
            && let Some(dump) = process.stacks.settle(now)
        {
            self.deliver(slot, dump);
        }
    }

    /// The same when nothing more will come.
    pub(super) fn collect_last(&mut self, slot: usize, now: Nanos) {
        while let Some(process) = &mut self.processes[slot]
            && let Some(dump) = process.stacks.finish(now)
        {
            self.deliver(slot, dump);
        }
    }

    fn deliver(&mut self, slot: usize, dump: Dump) {
        let shown = match dump.lack {
            None => dump.text.clone(),
            Some(lack) => format!("{}({lack})", dump.text),
        };
        for reason in &dump.reasons {
            match reason {
                Reason::Stuck(said) => log::error!("{said}\n{shown}"),
                Reason::Slow(said) => log::warning!("{said}\n{shown}"),
                Reason::Signal => log::info!("the threads of worker {slot} are here:\n{shown}"),
                Reason::Asked(ticket) => self.report(*ticket, slot, &dump),
            }
        }
        self.end_traces();
    }

    fn report(&mut self, ticket: Ticket, slot: usize, dump: &Dump) {
        let slot = slot as u32;
        let mut traces = self.answers.traces.iter_mut();
        let Some(trace) = traces.find(|trace| trace.ticket == ticket) else {
            return;
        };
        let Some(at) = trace.waiting.iter().position(|stack| stack.slot == slot) else {
            return;
        };
        let mut stack = trace.waiting.swap_remove(at);
        stack.error = dump.lack.map(str::to_owned);
        let mut parts = parts(&dump.text);
        stack.stack = parts.next().unwrap_or_default().to_owned();
        let stack = Box::new(stack);
        self.outbox.put(&Report::Stack { ticket, stack });
        for part in parts {
            let text = part.to_owned();
            self.outbox.put(&Report::More { ticket, slot, text });
        }
    }

    fn end_traces(&mut self) {
        let over = |trace: &mut Trace| trace.waiting.is_empty();
        let over: Vec<Trace> = self.answers.traces.extract_if(.., over).collect();
        for Trace { ticket, .. } in over {
            self.done(ticket, Done::Traced);
        }
    }

    /// Reads the memory of the next few workers, if somebody wants to know.
    pub(super) fn sample(&mut self, scoreboard: &Scoreboard, now: Nanos) {
        let Some(sampling) = &mut self.answers.sampling else {
            return;
        };
        let occupied = |slot: &usize| self.processes[*slot].is_some();
        let rest = (sampling.next..self.processes.len()).filter(occupied);
        let slots: Vec<usize> = rest.take(SAMPLED_AT_ONCE).collect();
        for slot in &slots {
            if let Some(process) = &self.processes[*slot]
                && let Some(memory) = process::memory(process.child.pid())
            {
                scoreboard.row(*slot).set_memory(memory, now);
            }
            sampling.next = slot + 1;
        }
        if slots.len() < SAMPLED_AT_ONCE {
            if let Some(memory) = process::memory(nix::unistd::getpid()) {
                scoreboard.pool().set_memory(memory, now);
            }
            let sampling = self.answers.sampling.take();
            for ticket in sampling.into_iter().flat_map(|sampling| sampling.tickets) {
                self.done(ticket, Done::Sampled);
            }
        }
    }

    /// When there is something to do about an answer although nobody says anything.
    pub(super) fn answers_at(&self, now: Nanos) -> Option<Nanos> {
        let processes = self.processes.iter().flatten();
        let stacks = processes.filter_map(|process| process.stacks.wake_at());
        let sampling = self.answers.sampling.as_ref().map(|_| now);
        stacks.chain(sampling).min()
    }
}

/// What a worker does at the moment its stacks are asked for.
fn caught(slot: usize, pid: i32, row: &Row, now: Nanos) -> Stack {
    let since = row.request_since();
    let age = since.map(|since| now.saturating_sub(since) as f64 / SECOND as f64);
    Stack {
        // The supervisor knows better.
        app: String::new(),
        generation: 0,
        slot: slot as u32,
        pid,
        state: row.state().name().into(),
        request: since.map(|_| row.request_line()),
        request_age_seconds: age,
        stack: String::new(),
        error: None,
    }
}

/// Pieces that fit into a report.
fn parts(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (part, rest) = text.split_at(text.floor_char_boundary(MAX_TEXT));
        text = rest;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_taken_apart_between_characters() {
        let text = "é".repeat(MAX_TEXT);
        let parts: Vec<&str> = parts(&text).collect();
        assert!(parts.iter().all(|part| part.len() <= MAX_TEXT));
        assert_eq!(parts.concat(), text);
        assert_eq!(super::parts("").count(), 0);
    }
}
