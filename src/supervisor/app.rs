//! One app: its settings, its listeners, and the generations that serve them. What is to be done is
//! decided by [`Generations`]; here it is done and told.

#![forbid(unsafe_code)]

mod develop;
mod gone;
mod handed;
mod level;
mod told;

use std::os::fd::OwnedFd;

use nix::poll::PollFd;

use super::budget::Budget;
use super::cgroup::Sweep;
use super::development::Development;
use super::generation::{Answer, Doors, Generation, Said};
use super::hosting::{Presence, Story, Tail};
use super::logs::Logs;
use super::output::Output;
use super::own_logs::{OwnLogs, Sinks};
use super::progress::Progress;
use super::record::{LastReload, Tally};
use super::verbosity::Verbosity;
use super::was::Broker;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::link::Order;
use crate::log::{self, Level};
use crate::net::{Listener, Origin};
use crate::relay::Relay;
use crate::schedule::{Action, Cause, Event, FirstFailure, Generations, Number, Stage, Terms};
use crate::scoreboard::{Row, State, Totals};
use crate::sys::clock::{self, Nanos, SECOND, nanos};
use crate::sys::process::Ended;
use develop::Explains;
use gone::Gone;

/// What the supervisor has to know of a step.
#[derive(Debug)]
pub enum News {
    /// The app serves (again), or a reload has come to its end, good or bad.
    Settled,
    /// It never served and cannot.
    Failed(Error),
}

pub struct App {
    /// Of the generation that serves or served last.
    pub settings: Settings,
    pub listeners: Vec<Listener>,
    was: Broker,
    pub generations: Vec<Generation>,
    /// Between the workers of all generations, from the first one on that wants it.
    relay: Option<Relay>,
    /// With `--reload`.
    development: Option<Development>,
    explains: Explains,
    /// What is to be shown when a reload under way is over, because it is not the last one.
    held: Option<String>,
    /// What the last reload read, until it is started with.
    candidate: Option<Settings>,
    plan: Generations,
    /// What generations that are gone have done.
    past: Totals,
    pub tally: Tally,
    pub reload: Option<LastReload>,
    /// What masters have answered since somebody looked.
    answers: Vec<(Number, Answer)>,
    /// The last sample of the memory that was asked for: of whom, and when.
    pub sampled: Option<(Number, Nanos)>,
    /// What they may still write.
    remains: Vec<Output>,
    pub presence: Presence,
    pub story: Story,
    pub tail: Tail,
    /// Of its cgroup, while it has no processes.
    sweep: Option<Sweep>,
    pub own_logs: OwnLogs,
    verbosity: Verbosity,
    budget: Budget,
    /// One line for the service manager.
    pub status: String,
    progress: Progress,
}

/// Reports taken from one master per wake-up: one that never stops talking keeps nobody waiting.
const REPORTS: usize = 8;

impl App {
    pub fn new(settings: Settings, listeners: Vec<Listener>) -> Result<Self> {
        let (listeners, was) = Broker::attach(listeners)?;
        let mut plan = Generations::new(first_failure(&settings));
        if settings.presence.on_demand {
            plan.step(Event::Halt, 0);
        }
        let app = Self {
            was,
            presence: Presence::of(&settings),
            story: Story::default(),
            tail: Tail::default(),
            sweep: None,
            own_logs: OwnLogs::of(&settings),
            verbosity: Verbosity::of(&settings),
            budget: Budget::default(),
            settings,
            listeners,
            generations: Vec::new(),
            relay: None,
            development: None,
            explains: Explains::Nothing,
            held: None,
            candidate: None,
            plan,
            past: Totals::default(),
            tally: Tally::default(),
            reload: None,
            answers: Vec::new(),
            sampled: None,
            remains: Vec::new(),
            status: String::new(),
            progress: Progress::default(),
        };
        app.pass_level_on();
        Ok(app)
    }

    /// The same with the door of what this program was started with, and what leads to it.
    pub fn started_by_client(
        settings: Settings,
        mut listeners: Vec<Listener>,
        (door, entry): (Listener, Option<OwnedFd>),
    ) -> Result<Self> {
        listeners.push(door);
        let mut app = Self::new(settings, listeners)?;
        app.was.leads_by(entry);
        Ok(app)
    }

    /// Starts the first generation.
    pub fn begin(&mut self, now: Nanos) -> Option<News> {
        self.step(Event::Begin(terms(&self.settings)), None, now)
    }

    /// Starts the next generation with settings that were read anew.
    pub fn reload(&mut self, read: Settings, now: Nanos) -> Option<News> {
        let (settings, ignored) = match self.settings.reloaded(read) {
            Ok(merged) => merged,
            Err(error) => return self.cannot_reload(&error, now),
        };
        if !ignored.is_empty() {
            log::warning!(
                "changes of --{} take effect when rswsgi is started again",
                ignored.join(", --")
            );
        }
        self.held = None;
        if let Explains::Next = self.explains {
            self.explains = Explains::Nothing;
        }
        self.status = "reloading".into();
        let terms = terms(&settings);
        self.candidate = Some(settings);
        self.reload = Some(LastReload::begin(now));
        self.step(Event::Reload(terms), None, now)
    }

    /// The settings could not be read. A reload that is under way goes on.
    pub fn cannot_reload(&mut self, error: &Error, now: Nanos) -> Option<News> {
        let goes_on = match self.plan.is_reloading() {
            true => "; the reload before it goes on".into(),
            false => self.goes_on(),
        };
        self.complain(&format!("reload failed: {error}{goes_on}"));
        if self.plan.is_reloading() {
            self.held = Some(error.to_string());
            return None;
        }
        self.show(&error.to_string());
        self.status = format!("reload failed: {error}{goes_on}");
        self.tally.failed_reloads += 1;
        self.reload = Some(LastReload::begin(now).failed(&error.to_string(), now));
        Some(News::Settled)
    }

    /// Whether a reload is under way.
    pub fn is_reloading(&self) -> bool {
        self.plan.is_reloading() || self.presence.is_queued()
    }

    pub fn plan(&self) -> &Generations {
        &self.plan
    }

    /// Which of many apps an entry of the log speaks of.
    fn prefix(&self) -> String {
        match self.settings.is_hosted() {
            true => format!("{}: ", self.settings.name),
            false => String::new(),
        }
    }

    /// The generation that serves.
    pub fn serving(&self) -> Option<&Generation> {
        let serving = self.plan.serving()?;
        self.generations.iter().find(|g| g.number == serving)
    }

    pub fn stage(&self, number: Number) -> Option<Stage> {
        self.plan.stage(number)
    }

    /// What has been answered since the last look.
    pub fn take_answers(&mut self) -> Vec<(Number, Answer)> {
        std::mem::take(&mut self.answers)
    }

    fn goes_on(&self) -> String {
        match self.plan.serving() {
            Some(number) => format!("; generation {number} keeps serving"),
            None => String::new(),
        }
    }

    /// Whether what it was started for is over.
    pub fn is_forsaken(&self) -> bool {
        self.was.is_forsaken(&self.listeners)
    }

    /// Whether that is because a worker has not survived serving it.
    pub fn has_lost_its_connection(&self) -> bool {
        self.was.has_lost()
    }

    /// Its only connection cannot be served by anybody else.
    pub fn serves_one_connection(&self) -> bool {
        self.listeners.iter().any(Listener::gives_one_only)
    }

    /// What is to be watched for WAS clients.
    pub fn brings_was(&self) -> Vec<PollFd<'_>> {
        self.was.watched(&self.listeners)
    }

    /// Lets what serves finish and leave; a reload serves again.
    pub fn rest(&mut self, now: Nanos) {
        if self.is_managed() {
            return self.halt_until_reload(now);
        }
        if !self.plan.may_rest() {
            let name = &self.settings.name;
            self.say(
                Level::Info,
                format_args!("{name}: not now: a generation comes up"),
            );
            return;
        }
        self.status = "resting: a reload serves again".into();
        let name = &self.settings.name;
        self.say(
            Level::Info,
            format_args!("{name}: accepting no more connections; a reload (SIGHUP) serves again"),
        );
        let _ = self.step(Event::Rest, None, now);
    }

    /// What serves leaves; it may begin again.
    pub fn come_to_rest(&mut self, now: Nanos) {
        let _ = self.step(Event::Halt, None, now);
    }

    pub fn drain(&mut self, now: Nanos) {
        self.was.close(&self.listeners);
        // One that hands its connections over would do so to nobody.
        for generation in &self.generations {
            if self.plan.is_leaving(generation.number) {
                generation.order(Order::Drain);
            }
        }
        let _ = self.step(Event::Drain, None, now);
    }

    pub fn stop(&mut self, now: Nanos) {
        self.was.close(&self.listeners);
        let _ = self.step(Event::Stop, None, now);
    }

    /// Asks the generation that serves for more or fewer workers.
    pub fn scale(&self, by: i32) {
        match self.serving() {
            Some(generation) => generation.order(Order::Scale { by }),
            None => self.say(
                Level::Warning,
                format_args!(
                    "{}: no generation serves that could scale",
                    self.settings.name
                ),
            ),
        }
    }

    pub fn is_gone(&self) -> bool {
        let is_over = self.sweep.is_none() && !self.remains.iter().any(Output::holds_up);
        self.generations.is_empty() && is_over
    }

    /// What its processes write.
    pub fn outputs(&self) -> impl Iterator<Item = &Output> {
        let serving = self.generations.iter().map(|generation| &generation.output);
        serving.chain(&self.remains)
    }

    /// Reads what its processes have written.
    pub fn look(&mut self, logs: &mut Logs, now: Nanos) {
        self.read_outputs(logs, now, |output, sinks| output.look(sinks, now));
    }

    /// All of it, for the moment before this program ends.
    pub fn look_again(&mut self, logs: &mut Logs, now: Nanos) {
        self.read_outputs(logs, now, |output, sinks| output.look_again(sinks, now));
    }

    fn read_outputs(
        &mut self,
        logs: &mut Logs,
        now: Nanos,
        read: impl Fn(&mut Output, &mut Sinks<'_>),
    ) {
        let mut sinks = Sinks {
            server: logs,
            level: self.level(),
            own: &self.own_logs,
            budget: &mut self.budget,
            now,
        };
        let serving = self.generations.iter_mut().map(|g| &mut g.output);
        let outputs = serving.chain(&mut self.remains);
        outputs.for_each(|output| read(output, &mut sinks));
        for entry in logs.take_said() {
            self.tail.push(&entry);
        }
        self.remains.retain(|output| !output.is_over());
    }

    /// Whether it was ever ready.
    pub fn has_served(&self) -> bool {
        self.plan.has_served()
    }

    /// Serves, and no reload is under way.
    pub fn is_settled(&self) -> bool {
        if self.is_managed() {
            return !self.plan.is_starting() && !self.wants_to_start();
        }
        self.plan.serving().is_some() && !self.plan.is_reloading()
    }

    /// Whether some worker could serve, or soon will: what a service manager's watchdog is told.
    pub fn is_well(&mut self, now: Nanos) -> bool {
        let serving = self.plan.serving();
        let Some(generation) = self.generations.iter().find(|g| Some(g.number) == serving) else {
            // What starts has its own time limit, and what is to be started again its delay.
            return true;
        };
        self.progress.look(generation, &self.listeners, now)
    }

    /// When it has been idle for `--exit-idle`, if nothing happens before: no connection is open. Only
    /// with sockets that somebody else keeps.
    pub fn idle_until(&self) -> Option<Nanos> {
        let patience = nanos(self.settings.exit_idle?);
        if !self.is_settled() || !self.is_activated() || self.generations.len() > 1 {
            return None;
        }
        let generation = self.serving()?;
        let all = generation.scoreboard.rows().iter();
        let rows = || all.clone().filter(|row| row.state() != State::Dead);
        if rows().any(|row| row.connections() > 0) {
            // Looked at again later; nobody tells of a close.
            return Some(clock::now() + patience.max(SECOND));
        }
        let last = rows().filter_map(Row::idle_since).max();
        let last = last.unwrap_or_default().max(generation.started);
        Some(last.saturating_add(patience))
    }

    fn is_activated(&self) -> bool {
        self.listeners.iter().all(|l| l.origin() == Origin::Passed)
    }

    pub fn warn_of_exit(&self) {
        if self.settings.exit_idle.is_some() && !self.is_activated() {
            log::warning!(
                "--exit-idle is ignored: it is for sockets that are passed by a service manager, which starts \
                 the service again"
            );
        }
    }

    /// The status with what there is to do, for people who ask the service manager.
    pub fn activity(&self, now: Nanos) -> String {
        let Some(generation) = self.serving() else {
            return self.status.clone();
        };
        let alive = |row: &&Row| row.state() != State::Dead;
        let rows = || generation.scoreboard.rows().iter().filter(alive);
        let busy = rows().filter(|row| row.request_since().is_some()).count();
        let recent = self.totals().recent.before(now, 10);
        let tenths = recent.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
        format!(
            "{}: {}.{} requests/s, {busy} of {} workers busy",
            self.status,
            tenths / 10,
            tenths % 10,
            rows().count()
        )
    }

    /// What the app has done.
    pub fn totals(&self) -> Totals {
        let mut totals = self.past.clone();
        for generation in &self.generations {
            totals.add(&generation.scoreboard);
        }
        totals
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        let outputs = self.outputs().filter_map(Output::wake_at);
        let changes = self.development.as_ref().and_then(Development::wake_at);
        let sweep = self.sweep.as_ref().map(Sweep::at);
        let plan = self.plan.wake_at().into_iter();
        let was = self.was.wake_at();
        plan.chain(outputs)
            .chain(changes)
            .chain(sweep)
            .chain(was)
            .min()
    }

    /// Takes note of what has happened and does what is due.
    pub fn settle(&mut self, now: Nanos) -> Option<News> {
        self.was.settle(now);
        if let Some(sweep) = self.sweep.take() {
            self.sweep = sweep.go_on(&self.settings, now);
        }
        let mut news = None;
        let numbers: Vec<Number> = self.generations.iter().map(|g| g.number).collect();
        for number in numbers {
            news = self.hear(number, now).or(news);
        }
        news = self.step(Event::Due, None, now).or(news);
        while let Some((number, ended)) = self.next_ended() {
            // Its last words may have come since.
            news = self.hear(number, now).or(news);
            if let Some(index) = self.index(number) {
                let mut generation = self.generations.remove(index);
                self.past.add(&generation.scoreboard);
                generation.output.close(ended, now);
                if self.plan.is_leaving(number) && !ended.is_success() {
                    let (prefix, who) = (self.prefix(), generation.describe());
                    self.say(
                        Level::Warning,
                        format_args!("{prefix}{who} {ended} while leaving"),
                    );
                }
                let (gone, output) = Gone::ended(generation, ended);
                self.remains.push(output);
                if self.settings.relay.is_none() && !self.generations.iter().any(|g| g.relays) {
                    // What is still on it would wait for ever.
                    self.relay = None;
                }
                if self.generations.is_empty() {
                    self.sweep = Sweep::begin(&self.settings, now);
                }
                news = self.step(Event::Ended(number), Some(gone), now).or(news);
            }
        }
        news
    }

    fn next_ended(&self) -> Option<(Number, Ended)> {
        let ended = |generation: &Generation| Some((generation.number, generation.try_reap()?));
        self.generations.iter().find_map(ended)
    }

    fn index(&self, number: Number) -> Option<usize> {
        self.generations.iter().position(|g| g.number == number)
    }

    fn hear(&mut self, number: Number, now: Nanos) -> Option<News> {
        let mut news = None;
        for _ in 0..REPORTS {
            let index = self.index(number)?;
            let generation = &mut self.generations[index];
            news = match generation.hear() {
                Said::Nothing => break,
                Said::Ready {
                    python,
                    import_millis,
                } => {
                    generation.python = printable(&python);
                    let lacks = generation.learn_lacks().join(", ");
                    if !lacks.is_empty() {
                        let prefix = self.prefix();
                        self.say(
                            Level::Warning,
                            format_args!("{prefix}--isolation goes without {lacks}"),
                        );
                    }
                    self.story.imported(number, import_millis);
                    self.step(Event::Ready(number), None, now)
                }
                Said::Failed(failure) => {
                    generation.failure.get_or_insert(failure);
                    self.step(Event::Failed(number), None, now)
                }
                // Nobody has asked it to.
                Said::Answered { .. } => None,
                Said::Touched => {
                    self.was_touched(number, now);
                    None
                }
                Said::Answer(answer) => {
                    self.answers.push((number, answer));
                    None
                }
            }
            .or(news);
        }
        news
    }

    fn step(&mut self, event: Event, gone: Option<Gone>, now: Nanos) -> Option<News> {
        let mut news = None;
        for action in self.plan.step(event, now) {
            let done = match action {
                Action::Start(number, cause) => self.start(number, cause, now),
                Action::Tell(told) => self.tell(told, gone.as_ref(), now),
                Action::Serve(number) => self.with(number, |g| g.order(Order::Serve)),
                Action::Drain(number) => {
                    let order = self.farewell(number);
                    self.with(number, |g| g.order(order))
                }
                Action::Stop(number) => self.with(number, |g| g.order(Order::Stop)),
                Action::GiveUp(number) => self.with(number, Generation::give_up),
                Action::Kill(number) => self.with(number, Generation::kill),
            };
            news = done.or(news);
        }
        news
    }

    /// How a generation is told to leave.
    fn farewell(&self, number: Number) -> Order {
        let leaves = self.generations.iter().find(|g| g.number == number);
        match (leaves, self.serving()) {
            (Some(old), Some(next)) if old.relays && next.relays && next.number != number => {
                Order::HandOver
            }
            _ => Order::Drain,
        }
    }

    fn with(&self, number: Number, act: impl Fn(&Generation)) -> Option<News> {
        if let Some(index) = self.index(number) {
            act(&self.generations[index]);
        }
        None
    }

    fn start(&mut self, number: Number, cause: Cause, now: Nanos) -> Option<News> {
        let settings = match cause {
            Cause::Reload => self.candidate.take(),
            Cause::First | Cause::Restart => None,
        };
        let settings = settings.as_ref().unwrap_or(&self.settings);
        self.sweep = None;
        self.story.started(number, cause, now);
        if !self.settings.privileges.is_same_user(&settings.privileges) {
            // Whoever the app ran as may keep the ends.
            self.relay = None;
            self.generations.iter_mut().for_each(|g| g.relays = false);
        }
        if settings.relay.is_some() && self.relay.is_none() {
            match Relay::create() {
                Ok(relay) => self.relay = Some(relay),
                Err(error) => log::error!("cannot create a relay, serving without: {error}"),
            }
        }
        if settings.reload {
            develop::begin(&mut self.development, &settings.watching);
        }
        let doors = Doors {
            listeners: &self.listeners,
            relay: self.relay.as_ref().filter(|_| settings.relay.is_some()),
            development: self.development.as_ref(),
        };
        let purpose = self.explains.purpose(number);
        match Generation::start(number, settings, doors, purpose, now) {
            Ok(generation) => {
                self.generations.push(generation);
                self.pass_level_on();
                None
            }
            Err(error) => {
                let gone = Gone::refused(number, settings.target.clone(), error);
                self.step(Event::Ended(number), Some(gone), now)
            }
        }
    }
}

fn first_failure(settings: &Settings) -> FirstFailure {
    match settings.is_managed() {
        true => FirstFailure::IsTriedAgain,
        false => FirstFailure::IsFinal,
    }
}

fn terms(settings: &Settings) -> Terms {
    Terms {
        start: nanos(settings.limits.start_timeout),
        grace: nanos(settings.limits.graceful_timeout),
    }
}

fn serving(settings: &Settings, number: Number) -> String {
    format!("serving {} (generation {number})", settings.target)
}

/// Text from a master, which is not to be trusted with control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}
