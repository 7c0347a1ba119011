//! One generation as the supervisor sees it: a master process, a channel to it, its scoreboard.

#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::development::Development;
use super::hand_over::{self, GenerationState, HandedStage, take};
use super::interpreter::Look;
use super::isolation::Plan;
use super::output::{Output, Prints, is_other, write_only};
use super::{interpreter, privileges};
use crate::config::{OwnLogs, Settings};
use crate::control::Stack;
use crate::error::{Error, Result};
use crate::link::{self, Assignment, Done, Order, Purpose, Report, Stderr, Ticket, VERSION};
use crate::log::{self, Destination};
use crate::net::Listener;
use crate::relay::Relay;
use crate::schedule::{Number, Pool};
use crate::scoreboard::{Scoreboard, Totals};
use crate::sys::clock::{MILLISECOND, Nanos};
use crate::sys::isolation::Strays;
use crate::sys::launch::{Launch, launch};
use crate::sys::process::{self, Child, Ended, Stage};
use crate::sys::seqpacket::{Channel, Received};

/// What a master has to say.
pub enum Said {
    Nothing,
    Ready {
        python: String,
        import_millis: u64,
    },
    Failed(Failure),
    /// What its one request has come to.
    Answered {
        status: u16,
        failure: Option<String>,
    },
    /// The file that asks for a reload was touched.
    Touched,
    /// An answer to an order with a ticket.
    Answer(Answer),
}

/// What a master says to an order with a ticket.
#[derive(Debug)]
pub enum Answer {
    Done(Ticket, Done),
    Stack(Ticket, Box<Stack>),
    More(Ticket, u32, String),
}

/// A process that is or is to become a master. Where it stands is in [`crate::schedule`].
pub struct Generation {
    pub number: Number,
    pub started: Nanos,
    pub settings: Settings,
    pub child: Child,
    pub channel: Channel,
    /// The master has closed its end.
    is_silent: bool,
    pub scoreboard: Scoreboard,
    pub output: Output,
    /// Why it cannot come up, until its process is gone too.
    pub failure: Option<Failure>,
    /// It passes connections on by the relay of the app.
    pub relays: bool,
    /// Reports that could not be read.
    unreadable: u32,
    /// What is to shut it in, until it is known what does.
    plan: Option<Plan>,
    /// What it is not isolated by, although it was to be.
    pub lacks: Vec<String>,
    /// Of a program that may not have been executed yet.
    launch: Option<(Launch, PathBuf)>,
    /// Version of its Python, once it has told.
    pub python: String,
}

/// What a master inherits beside its own.
#[derive(Clone, Copy, Default)]
pub struct Doors<'a> {
    pub listeners: &'a [Listener],
    pub relay: Option<&'a Relay>,
    pub development: Option<&'a Development>,
}

/// After so many reports that cannot be read nothing is heard from a master any more.
const MOST_UNREADABLE: u32 = 16;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: String,
    pub traceback: String,
}

impl Generation {
    pub fn start(
        number: Number,
        settings: &Settings,
        doors: Doors<'_>,
        purpose: Purpose,
        now: Nanos,
    ) -> Result<Self> {
        Self::start_reading(Stdio::inherit(), number, settings, doors, purpose, now)
    }

    /// The same with another standard input.
    pub fn start_reading(
        input: Stdio,
        number: Number,
        settings: &Settings,
        Doors {
            listeners,
            relay,
            development,
        }: Doors<'_>,
        purpose: Purpose,
        now: Nanos,
    ) -> Result<Self> {
        let most = settings.workers.resolve(process::cpus()).max as usize;
        let refused = |what: &str, error: std::io::Error| Error::io(what, &error);
        let slots = Pool::slots_for(most);
        let scoreboard = Scoreboard::create(slots)
            .map_err(|error| refused("cannot create the scoreboard", error))?;
        let mut assigned = settings.clone();
        if let Purpose::Check | Purpose::Request { .. } = purpose {
            // Nothing is served, and whoever asked reads standard error.
            assigned.log = Destination::Stderr;
            assigned.access_log = None;
            assigned.own_logs = OwnLogs::default();
            assigned.apps_dir = None;
            assigned.user_apps_dir = None;
        }
        let privileges = privileges::resolve(&settings.privileges)?;
        let identity = privileges.identity.as_ref();
        let is_other = is_other(identity);
        let prints = Prints::of(&assigned, &purpose, identity);
        let (output, inlets) = Output::create(number, &assigned, slots, prints)?;
        let (channel, theirs) = Channel::pair()
            .map_err(|error| refused("cannot create a channel to the master", error))?;
        let theirs_number = theirs.as_fd().as_raw_fd();
        let look = match settings.is_hosted() {
            true => Look::InTheChild,
            false => Look::Here,
        };
        let mut command =
            interpreter::command(&settings.interpreter, identity, theirs_number, look)?;
        // It is in the environment of the command, and may be too long for a message.
        assigned.interpreter.env.clear();
        assigned.given.clear();
        let assignment = Assignment {
            version: VERSION.into(),
            purpose,
            generation: number,
            supervisor: nix::unistd::getpid().as_raw(),
            settings: assigned,
            listeners: listeners.iter().map(Listener::spec).collect(),
            scoreboard: scoreboard.as_fd().as_raw_fd(),
            desk: output.desk.as_fd().as_raw_fd(),
            access: output
                .lanes()
                .zip(inlets.bell.as_ref())
                .map(|(lanes, bell)| (lanes.as_fd().as_raw_fd(), bell.as_fd().as_raw_fd())),
            development: development.map(|ends| ends.ends().map(|end| end.as_raw_fd())),
            relay: relay.map(|relay| relay.ends().map(|end| end.as_raw_fd())),
            stderr: match inlets.pipe {
                Some(_) => Stderr::Pipe,
                None => Stderr::Inherited,
            },
        };
        link::send(&channel, &assignment)
            .map_err(|error| refused("cannot send the master its assignment", error))?;
        let program = command.get_program().to_owned();
        if let Some(pipe) = inlets.pipe {
            let stdout = pipe.try_clone();
            command.stdout(stdout.map_err(|error| refused("cannot duplicate a pipe", error))?);
            command.stderr(pipe);
        }
        if is_other && prints == Prints::ToOurStreams {
            write_only(&mut command).map_err(|e| refused("cannot open the terminal", e))?;
        }
        command.stdin(match is_other && std::io::stdin().is_terminal() {
            true => Stdio::null(),
            false => input,
        });
        let mut pass = vec![theirs.as_fd(), scoreboard.as_fd(), output.desk.as_fd()];
        pass.extend(output.lanes().map(AsFd::as_fd));
        pass.extend(inlets.bell.as_ref().map(AsFd::as_fd));
        pass.extend(listeners.iter().map(AsFd::as_fd));
        pass.extend(relay.into_iter().flat_map(Relay::ends));
        pass.extend(development.into_iter().flat_map(Development::ends));
        let directory = settings.interpreter.chdir.as_deref();
        let module = interpreter::module().map(PathBuf::from);
        let mut plan = Plan::new(settings, identity, Path::new(&program), module.as_deref())?;
        let mut isolation = plan.as_mut().map(Plan::take).unwrap_or_default();
        if settings.is_hosted() || plan.is_some() || is_other {
            isolation.strays = Strays::Closed;
        }
        let refused = |error| cannot_execute(Path::new(&program), settings, &error);
        let (child, launch) = match settings.is_hosted() {
            // Its owner may keep us waiting, but not the other apps.
            true => launch(command, &pass, privileges, directory, isolation)
                .map(|(child, launch)| (child, Some(launch))),
            false => process::spawn_isolated(command, &pass, privileges, directory, isolation)
                .map(|child| (child, None)),
        }
        .map_err(refused)?;
        Ok(Self {
            number,
            started: now,
            settings: settings.clone(),
            child,
            channel,
            is_silent: false,
            scoreboard,
            output,
            failure: None,
            unreadable: 0,
            plan,
            lacks: Vec::new(),
            launch: launch.map(|launch| (launch, PathBuf::from(&program))),
            relays: relay.is_some(),
            python: String::new(),
        })
    }

    /// For the program that replaces this one.
    pub fn hand_over(&self, stage: HandedStage) -> GenerationState {
        GenerationState {
            number: self.number,
            started: self.started,
            stage,
            pid: self.child.pid().as_raw(),
            pidfd: hand_over::number(&self.child),
            channel: hand_over::number(&self.channel),
            is_silent: self.is_silent,
            scoreboard: hand_over::number(&self.scoreboard),
            layout: Scoreboard::layout(),
            output: Some(self.output.hand_over()),
            python: self.python.clone(),
            relays: self.relays,
            lacks: self.lacks.clone(),
            totals: self.totals().by_name(),
        }
    }

    /// What its workers have done.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        totals.add(&self.scoreboard);
        totals
    }

    /// Takes over what the program before had.
    pub fn resume(state: &GenerationState, settings: &Settings) -> Result<Self> {
        let refused = |error: std::io::Error| {
            let doing = format_args!("cannot take over generation {}", state.number);
            Error::io(doing, &error)
        };
        let pidfd = take(state.pidfd, "a master")?;
        let scoreboard = take(state.scoreboard, "a scoreboard")?;
        let scoreboard = match state.layout == Scoreboard::layout() {
            true => Scoreboard::map(scoreboard),
            // Its counters would be read as others. What they were is in the state.
            false => Scoreboard::create(1),
        };
        Ok(Self {
            number: state.number,
            started: state.started,
            settings: settings.clone(),
            child: Child::inherit(Pid::from_raw(state.pid), pidfd).map_err(refused)?,
            channel: Channel::from_fd(take(state.channel, "a channel")?),
            is_silent: state.is_silent,
            scoreboard: scoreboard.map_err(refused)?,
            output: Output::resume(state.output.as_ref(), state.number, settings)?,
            failure: None,
            unreadable: 0,
            plan: None,
            lacks: state.lacks.clone(),
            launch: None,
            relays: false,
            python: state.python.clone(),
        })
    }

    /// Reads one report.
    pub fn hear(&mut self) -> Said {
        let message = match self.channel.receive() {
            Ok(Received::Message(message)) => message,
            Ok(Received::Nothing) => return Said::Nothing,
            Ok(Received::Closed) => {
                self.is_silent = true;
                return Said::Nothing;
            }
            Err(error) => {
                log::error!("{}: {error}", self.name());
                self.is_silent = true;
                return Said::Nothing;
            }
        };
        match link::read(&message) {
            Ok(Report::Ready {
                python,
                import_millis,
            }) => Said::Ready {
                python,
                import_millis,
            },
            Ok(Report::Failed { reason, traceback }) => Said::Failed(Failure { reason, traceback }),
            Ok(Report::Answered { status, failure }) => Said::Answered { status, failure },
            Ok(Report::Touched) => Said::Touched,
            Ok(Report::Done { ticket, done }) => Said::Answer(Answer::Done(ticket, done)),
            Ok(Report::Stack { ticket, stack }) => Said::Answer(Answer::Stack(ticket, stack)),
            Ok(Report::More { ticket, slot, text }) => {
                Said::Answer(Answer::More(ticket, slot, text))
            }
            Err(error) => {
                log::error!("{}: unreadable report: {error}", self.name());
                self.unreadable += 1;
                // Nobody who means well goes on like that.
                self.is_silent |= self.unreadable >= MOST_UNREADABLE;
                Said::Nothing
            }
        }
    }

    /// It has spoken, so it was executed: what it does without is known by now. Only what is new is told, however
    /// often it speaks.
    pub fn learn_lacks(&mut self) -> &[String] {
        match self.plan.take() {
            Some(plan) => {
                self.lacks = plan.lacks();
                &self.lacks
            }
            None => &[],
        }
    }

    /// Why its program could not be executed, once it has ended.
    pub fn not_executed(&self) -> Option<Error> {
        let (launch, program) = self.launch.as_ref()?;
        let (stage, error) = launch.refused()?;
        let interpreter = &self.settings.interpreter;
        let is_missing = matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
        );
        let is_named = interpreter.python.is_some() || interpreter.venv.is_some();
        Some(match (stage, &interpreter.chdir) {
            (Stage::Entering, Some(directory)) if is_missing => {
                interpreter::no_directory(directory)
            }
            (Stage::Executing, _) if is_missing && is_named => interpreter::no_program(interpreter),
            _ => cannot_execute(program, &self.settings, &error),
        })
    }

    /// Whether there is nothing more to be heard from it.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// For the log; of many apps with the name of its own.
    fn name(&self) -> String {
        match self.settings.is_hosted() {
            true => format!("{}: generation {}", self.settings.name, self.number),
            false => format!("generation {}", self.number),
        }
    }

    /// For the log.
    pub fn describe(&self) -> String {
        describe(self.number, self.child.pid())
    }

    /// One that is gone does not take it.
    pub fn order(&self, order: Order) {
        let _ = link::send(&self.channel, &order);
    }

    /// While it imports it does not listen; later it takes the signal for an order.
    pub fn give_up(&self) {
        self.order(Order::Stop);
        let _ = self.child.signal(Signal::SIGTERM);
    }

    pub fn kill(&self) {
        let _ = self.child.signal(Signal::SIGKILL);
    }

    pub fn try_reap(&self) -> Option<Ended> {
        match self.child.try_reap() {
            Ok(ended) => ended,
            Err(error) => {
                log::error!("cannot wait for {}: {error}", self.name());
                None
            }
        }
    }

    pub fn millis_since_start(&self, now: Nanos) -> u64 {
        now.saturating_sub(self.started) / MILLISECOND
    }
}

/// Between fork and exec several things may be refused; the system says only that.
fn cannot_execute(program: &Path, settings: &Settings, error: &std::io::Error) -> Error {
    let directory = settings.interpreter.chdir.as_deref();
    let user = settings.privileges.user.as_deref();
    let place = directory.map_or_else(String::new, |d| format!(" in {}", d.display()));
    let whom = user.map_or_else(String::new, |user| format!(" as user {user}"));
    let failed = Error::io(
        format_args!("cannot execute {}{place}{whom}", program.display()),
        error,
    );
    match (error.kind(), user) {
        (std::io::ErrorKind::PermissionDenied, Some(user)) => failed.advise(format_args!(
            "{user} has to be allowed to enter each directory on the way there, and --rlimit to raise no limit"
        )),
        _ => failed,
    }
}

pub fn describe(number: Number, pid: Pid) -> String {
    format!("generation {number} (pid {pid})")
}
