//! One app: its settings, its listeners, and the generations that serve them.
//!
//! | generation | ready              | failed or ended             | deadline |
//! |------------|--------------------|-----------------------------|----------|
//! | starting   | serves; older ones | the app fails, or the older | kill     |
//! |            | drain              | generation goes on          |          |
//! | serving    | -                  | start the next one          | -        |
//! | leaving    | -                  | gone                        | kill     |

#![forbid(unsafe_code)]

use super::generation::{Generation, Said, Stage};
use crate::config::{Settings, Workers};
use crate::error::{Error, Exit, Result};
use crate::link::Purpose;
use crate::log;
use crate::net::{self, Listener};
use crate::schedule::{Backoff, STABLE};
use crate::scoreboard::Totals;
use crate::sys::clock::{MILLISECOND, Nanos, nanos};
use crate::sys::process::{Ended, cpus};

/// What the supervisor has to know of a step.
#[derive(Debug)]
pub enum News {
    /// The app serves for the first time.
    Ready,
    /// It never served and cannot.
    Failed(Error),
}

pub struct App {
    pub settings: Settings,
    pub listeners: Vec<Listener>,
    pub generations: Vec<Generation>,
    next: u64,
    was_ready: bool,
    backoff: Backoff,
    /// When the next generation is to be started, after one that served was lost.
    restart_at: Option<Nanos>,
    /// Why the newest generation cannot come up, until its process is gone too.
    failure: Option<(String, String)>,
    stopping: bool,
    /// What generations that are gone have done.
    past: Totals,
}

impl App {
    pub fn new(settings: Settings, listeners: Vec<Listener>) -> Self {
        Self {
            settings,
            listeners,
            generations: Vec::new(),
            next: 1,
            was_ready: false,
            backoff: Backoff::default(),
            restart_at: None,
            failure: None,
            stopping: false,
            past: Totals::default(),
        }
    }

    pub fn start(&mut self, now: Nanos) -> Result<()> {
        self.restart_at = None;
        let number = self.next;
        self.next += 1;
        let (settings, listeners) = (&self.settings, &self.listeners);
        let generation = Generation::start(number, settings, listeners, Purpose::Serve, now)?;
        self.generations.push(generation);
        Ok(())
    }

    pub fn drain(&mut self, now: Nanos) {
        self.stopping = true;
        let grace = nanos(self.settings.limits.graceful_timeout);
        for generation in &mut self.generations {
            generation.drain(now, grace);
        }
    }

    pub fn stop(&mut self, now: Nanos) {
        self.stopping = true;
        for generation in &mut self.generations {
            generation.stop(now);
        }
    }

    pub fn is_gone(&self) -> bool {
        self.generations.is_empty()
    }

    /// What the app has done, once all its generations are gone.
    pub fn totals(&self) -> &Totals {
        &self.past
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        let generations = self.generations.iter().filter_map(Generation::wake_at);
        generations.chain(self.restart_at).min()
    }

    /// Takes note of what has happened and does what is due.
    pub fn settle(&mut self, now: Nanos) -> Option<News> {
        let mut news = None;
        for index in 0..self.generations.len() {
            loop {
                match self.generations[index].hear() {
                    Said::Nothing => break,
                    Said::Ready { python } => {
                        news = self.ready(index, &python, now).or(news);
                    }
                    Said::Failed { reason, traceback } => {
                        self.failure = Some((reason, traceback));
                    }
                }
            }
        }
        self.enforce_deadlines(now);
        let mut index = 0;
        while index < self.generations.len() {
            match self.generations[index].try_reap() {
                None => index += 1,
                Some(ended) => {
                    let generation = self.generations.remove(index);
                    self.past.add(&generation.scoreboard);
                    news = self.lost(&generation, ended, now).or(news);
                }
            }
        }
        if let Some(at) = self.restart_at
            && at <= now
            && let Err(error) = self.start(now)
        {
            log::error!("{error}");
            self.restart_at = Some(now.saturating_add(self.backoff.fail()));
        }
        news
    }

    fn ready(&mut self, index: usize, python: &str, now: Nanos) -> Option<News> {
        let Stage::Starting { .. } = self.generations[index].stage else {
            return None;
        };
        let grace = nanos(self.settings.limits.graceful_timeout);
        let (older, newer) = self.generations.split_at_mut(index);
        for generation in older {
            generation.drain(now, grace);
        }
        let generation = &mut newer[0];
        generation.stage = Stage::Serving;
        self.failure = None;
        log::info!(
            "serving {} on {} with {} (Python {}, generation {}, {} ms)",
            self.settings.target,
            net::serves(&self.listeners),
            workers(self.settings.workers.resolve(cpus())),
            printable(python),
            generation.number,
            generation.millis_since_start(now),
        );
        let first = !std::mem::replace(&mut self.was_ready, true);
        first.then_some(News::Ready)
    }

    fn enforce_deadlines(&mut self, now: Nanos) {
        let patience = self.settings.limits.start_timeout;
        for generation in &mut self.generations {
            match generation.stage {
                Stage::Starting { until } if until <= now => {
                    let reason = format!(
                        "importing {} and starting the workers took longer than --start-timeout ({})",
                        self.settings.target,
                        crate::config::show_duration(patience)
                    );
                    self.failure = Some((reason, String::new()));
                    generation.kill(now);
                }
                Stage::Leaving { until } if until <= now => {
                    log::warning!(
                        "generation {} (pid {}) does not leave in time: killing its master",
                        generation.number,
                        generation.child.pid()
                    );
                    generation.kill(now);
                }
                _ => {}
            }
        }
    }

    /// A master has ended.
    fn lost(&mut self, generation: &Generation, ended: Ended, now: Nanos) -> Option<News> {
        let number = generation.number;
        let pid = generation.child.pid();
        if self.stopping {
            if !ended.is_success() && generation.stage == Stage::Serving {
                log::warning!("generation {number} (pid {pid}) {ended} while leaving");
            }
            return None;
        }
        let failure = self.failure.take();
        let replaced = self.generations.iter().any(|other| other.number > number);
        match (generation.stage, failure) {
            (Stage::Leaving { .. }, None) if replaced => return None,
            (Stage::Serving, None) if replaced => return None,
            (_, failure) if !self.was_ready => {
                // What kills a master, and a time limit, may not be there at the next try.
                let exit = match ended {
                    Ended::Exited(_) => Exit::Config,
                    _ => Exit::Failed,
                };
                let (reason, traceback) = failure.unwrap_or_else(|| {
                    let reason = format!("the master {ended} before it was ready");
                    (reason, String::new())
                });
                let mut message = format!("cannot serve {}: {reason}", self.settings.target);
                if !traceback.is_empty() {
                    message = format!("{message}\n{}", traceback.trim_end());
                }
                return Some(News::Failed(Error::new(exit, message)));
            }
            (stage, failure) => {
                let reason = failure.map_or_else(String::new, |(reason, traceback)| {
                    format!(": {reason}\n{traceback}").trim_end().to_owned()
                });
                let what = match stage {
                    Stage::Serving => "the master ended",
                    _ => "the master did not come up",
                };
                log::error!("generation {number} (pid {pid}): {what}, {ended}{reason}");
            }
        }
        let serving =
            |other: &Generation| matches!(other.stage, Stage::Serving | Stage::Starting { .. });
        if !self.generations.iter().any(serving) {
            if now.saturating_sub(generation.started) >= STABLE {
                self.backoff.reset();
            }
            let delay = match generation.stage {
                Stage::Serving if self.backoff.failures() == 0 => {
                    self.backoff.fail();
                    0
                }
                _ => self.backoff.fail(),
            };
            log::info!("starting the next generation in {} ms", delay / MILLISECOND);
            self.restart_at = Some(now.saturating_add(delay));
        }
        None
    }
}

fn workers(pool: Workers) -> String {
    match (pool.min, pool.max) {
        (1, 1) => "1 worker".into(),
        (min, max) if min == max => format!("{min} workers"),
        (min, max) => format!("{min} to {max} workers"),
    }
}

/// Text from a master, which is not to be trusted with control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
