//! The statistics: from what the supervisor knows and the scoreboards say. Nobody is asked, so a server
//! whose workers are all stuck answers like any other.

#![forbid(unsafe_code)]

use crate::control::SCHEMA;
use crate::control::stats::{
    App as AppStats, Bucket, Bytes, Connections, Distribution, Errors, Generation as Shown,
    Listener as Queue, Memory, Pool, Process, Processes, Rates, Relay, Reload, Request, Requests,
    Stats, Worker,
};
use crate::http::Refusal;
use crate::link::VERSION;
use crate::net::Listener;
use crate::schedule::Stage;
use crate::scoreboard::{Counter, Durations, Row, State, Totals};
use crate::supervisor::app::App;
use crate::supervisor::generation::Generation;
use crate::supervisor::record::Birth;
use crate::sys::clock::{Nanos, seconds};
use crate::sys::diag::Diag;

const RELAYED_OUT: [Counter; 4] = [
    Counter::RelayedBusy,
    Counter::RelayedDrain,
    Counter::RelayedStuck,
    Counter::RelayedBalance,
];

/// What statistics are made of.
pub struct View<'a> {
    pub apps: &'a [App],
    pub state: &'static str,
    pub birth: Birth,
    pub now: Nanos,
    /// The same moment since 1970.
    pub unix: Nanos,
}

impl View<'_> {
    pub fn process(&self) -> Process {
        Process {
            version: VERSION.into(),
            pid: nix::unistd::getpid().as_raw(),
            state: self.state.into(),
            started_seconds: seconds(self.birth.unix),
            uptime_seconds: self.since(self.birth.monotonic),
        }
    }

    pub fn stats(&self, diag: Option<&Diag>) -> Stats {
        Stats {
            schema: SCHEMA,
            time_seconds: seconds(self.unix),
            server: self.process(),
            apps: self
                .apps
                .iter()
                .filter(|app| !app.is_retired())
                .map(|app| self.app(app, diag))
                .collect(),
        }
    }

    fn since(&self, time: Nanos) -> f64 {
        seconds(self.now.saturating_sub(time))
    }

    fn app(&self, app: &App, diag: Option<&Diag>) -> AppStats {
        let totals = app.totals();
        let serving = app.serving();
        let workers: Vec<Worker> = app
            .generations
            .iter()
            .flat_map(|g| self.workers(g))
            .collect();
        let running = workers.iter().filter(|worker| worker.request.is_some());
        let open = workers.iter().map(|worker| u64::from(worker.connections));
        let of = |counter| totals.counter(counter);
        AppStats {
            name: app.settings.name.clone(),
            target: app.settings.target.to_string(),
            state: app.condition().into(),
            status: match app.status.is_empty() {
                true => app.condition().into(),
                false => app.status.clone(),
            },
            generation: serving.map(|generation| self.generation(app, generation)),
            generations: app
                .generations
                .iter()
                .map(|g| self.generation(app, g))
                .collect(),
            reload: self.reload(app),
            pool: serving.map(pool).unwrap_or_default(),
            requests: Requests {
                total: of(Counter::Requests),
                status_2xx: of(Counter::Status2),
                status_3xx: of(Counter::Status3),
                status_4xx: of(Counter::Status4),
                status_5xx: of(Counter::Status5),
                in_flight: running.count() as u32,
            },
            rates: self.rates(&totals),
            latency: distribution(&totals.latency),
            queue: distribution(&totals.queue),
            listeners: app.listeners.iter().map(|l| queue(l, diag)).collect(),
            connections: Connections {
                open: open.sum(),
                accepted: of(Counter::Connections),
            },
            relay: Relay {
                busy: of(Counter::RelayedBusy),
                drain: of(Counter::RelayedDrain),
                stuck: of(Counter::RelayedStuck),
                balance: of(Counter::RelayedBalance),
                taken: of(Counter::RelayedIn),
                full: of(Counter::RelayFull),
                refused: of(Counter::RelayRefused),
                wait: distribution(&totals.relay),
            },
            bytes: Bytes {
                received_bytes: of(Counter::BytesReceived),
                sent_bytes: of(Counter::BytesSent),
            },
            errors: errors(app, &totals),
            processes: Processes {
                spawns: of(Counter::Spawns),
                recycled_requests: of(Counter::RecycledRequests),
                recycled_age: of(Counter::RecycledAge),
                recycled_memory: of(Counter::RecycledMemory),
                recycled_asked: of(Counter::RecycledAsked),
                retired: of(Counter::Retired),
                reloads: app.tally.reloads,
            },
            memory: serving.and_then(|generation| self.memory(generation)),
            workers,
        }
    }

    fn generation(&self, app: &App, generation: &Generation) -> Shown {
        let rows = generation.scoreboard.rows().iter();
        Shown {
            number: generation.number,
            stage: match app.stage(generation.number) {
                Some(Stage::Starting { .. }) => "starting",
                Some(Stage::Serving) => "serving",
                Some(Stage::Leaving { .. }) | None => "leaving",
                Some(Stage::Ending { .. }) => "ending",
            }
            .into(),
            pid: generation.child.pid().as_raw(),
            age_seconds: self.since(generation.started),
            python: generation.python.clone(),
            workers: rows.filter(|row| row.state() != State::Dead).count() as u32,
        }
    }

    fn reload(&self, app: &App) -> Option<Reload> {
        let reload = app.reload.as_ref()?;
        let ended = reload.ended.as_ref();
        let end = ended.map_or(self.now, |ended| ended.at);
        let result = ended.map(|ended| &ended.result);
        let failure = result.and_then(|result| result.as_ref().err());
        let traceback = failure.filter(|failure| !failure.traceback.is_empty());
        Some(Reload {
            result: match result {
                None => "under way",
                Some(Ok(_)) => "ok",
                Some(Err(_)) => "failed",
            }
            .into(),
            age_seconds: self.since(end),
            took_seconds: seconds(end.saturating_sub(reload.asked)),
            generation: result.and_then(|result| result.as_ref().ok().copied()),
            error: failure.map(|failure| failure.reason.clone()),
            traceback: traceback.map(|failure| without_controls(&failure.traceback)),
        })
    }

    fn rates(&self, totals: &Totals) -> Rates {
        let counts = totals.recent.before(self.now, 300);
        // A server that is younger than the window is not slower for it.
        let age = self.since(self.birth.monotonic).max(1.0);
        let mean = |window: usize| {
            let last = counts.iter().rev().take(window);
            let sum = last.fold(0, |sum: u64, more| sum.wrapping_add(*more));
            sum as f64 / age.min(window as f64)
        };
        Rates {
            per_second_1s: mean(1),
            per_second_1m: mean(60),
            per_second_5m: mean(300),
            last_minute: counts[counts.len().saturating_sub(60)..].to_vec(),
        }
    }

    fn memory(&self, generation: &Generation) -> Option<Memory> {
        let scoreboard = &generation.scoreboard;
        let (master, sampled) = scoreboard.pool().memory()?;
        let mut memory = Memory {
            age_seconds: self.since(sampled),
            pss_bytes: master.pss,
            master_pss_bytes: master.pss,
            ..Memory::default()
        };
        let alive = |row: &&Row| row.state() != State::Dead;
        let rows = scoreboard.rows().iter().filter(alive);
        for (worker, _) in rows.filter_map(Row::memory) {
            let add = |sum: &mut u64, more: u64| *sum = sum.wrapping_add(more);
            memory.workers += 1;
            add(&mut memory.pss_bytes, worker.pss);
            add(&mut memory.uss_bytes, worker.unique);
            add(&mut memory.shared_bytes, worker.shared);
            add(&mut memory.private_dirty_bytes, worker.private_dirty);
        }
        Some(memory)
    }

    fn workers<'a>(&'a self, generation: &'a Generation) -> impl Iterator<Item = Worker> + 'a {
        let rows = generation.scoreboard.rows().iter().enumerate();
        let alive = rows.filter(|(_, row)| row.state() != State::Dead);
        alive.map(|(slot, row)| self.worker(generation, slot, row))
    }

    fn worker(&self, generation: &Generation, slot: usize, row: &Row) -> Worker {
        let since = row.request_since();
        let memory = row.memory().map(|(memory, _)| memory);
        Worker {
            slot: slot as u32,
            pid: row.pid(),
            generation: generation.number,
            state: row.state().name().into(),
            age_seconds: self.since(row.started()),
            requests: row.counter(Counter::Requests),
            connections: row.connections(),
            relayed_out: RELAYED_OUT.map(|counter| row.counter(counter)).iter().sum(),
            relayed_in: row.counter(Counter::RelayedIn),
            request: since.map(|since| self.request(row, since)),
            pss_bytes: memory.map(|memory| memory.pss),
            uss_bytes: memory.map(|memory| memory.unique),
            shared_bytes: memory.map(|memory| memory.shared),
            private_dirty_bytes: memory.map(|memory| memory.private_dirty),
        }
    }

    fn request(&self, row: &Row, since: Nanos) -> Request {
        let line = row.request_line();
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        Request {
            method: word(),
            path: word(),
            age_seconds: self.since(since),
            peer: row.peer().map(|peer| match peer.port() {
                0 => peer.ip().to_string(),
                _ => peer.to_string(),
            }),
        }
    }
}

fn pool(generation: &Generation) -> Pool {
    let size = generation.scoreboard.pool().size();
    let mut pool = Pool {
        min: size.min,
        max: size.max,
        target: size.target,
        ..Pool::default()
    };
    for row in generation.scoreboard.rows() {
        let count = match row.state() {
            State::Dead => continue,
            State::Starting => &mut pool.starting,
            State::Draining => &mut pool.draining,
            _ if row.request_since().is_some() => &mut pool.busy,
            State::Idle => &mut pool.idle,
            State::Reading | State::Running | State::Writing => &mut pool.busy,
        };
        *count += 1;
    }
    pool
}

fn distribution(durations: &Durations) -> Distribution {
    let percentile = |hundredths| durations.percentile(hundredths).map(seconds);
    let filled = durations.buckets().filter(|(_, count)| *count > 0);
    Distribution {
        count: durations.count(),
        sum_seconds: seconds(durations.sum()),
        p50_seconds: percentile(50),
        p90_seconds: percentile(90),
        p99_seconds: percentile(99),
        max_seconds: durations.max().map(seconds),
        buckets: filled
            .map(|(end, count)| Bucket {
                below_seconds: end.map(seconds),
                count,
            })
            .collect(),
    }
}

fn queue(listener: &Listener, diag: Option<&Diag>) -> Queue {
    let backlog = listener.backlog(diag);
    Queue {
        name: listener.name().into(),
        backlog: backlog.map(|backlog| backlog.waiting),
        backlog_limit: backlog.map(|backlog| backlog.limit),
    }
}

fn errors(app: &App, totals: &Totals) -> Errors {
    let of = |counter| totals.counter(counter);
    let refused = Refusal::ALL.iter().map(|refusal| {
        let count = totals.refusals(*refusal);
        (refusal.name().to_owned(), count)
    });
    Errors {
        exceptions: of(Counter::Exceptions),
        soft_timeouts: of(Counter::SoftTimeouts),
        hard_timeouts: of(Counter::HardTimeouts),
        crashes: of(Counter::Crashes),
        start_failures: of(Counter::StartFailures),
        master_crashes: app.tally.master_crashes,
        failed_reloads: app.tally.failed_reloads,
        client_aborts: of(Counter::ClientAborts),
        broken_responses: of(Counter::BrokenResponses),
        unlogged_requests: of(Counter::UnloggedRequests),
        refused: refused.filter(|(_, count)| *count > 0).collect(),
    }
}

/// Text of an application for a terminal: lines, and no control characters.
pub fn without_controls(text: &str) -> String {
    let keep = |c: &char| *c == '\n' || !c.is_control();
    text.chars().filter(keep).collect()
}
