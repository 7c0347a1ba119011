//! The supervisor: the process that systemd or a container sees. It binds or adopts the listeners
//! and keeps them for its whole life, starts a master per generation, and replaces what is lost. It
//! never loads Python and never runs application code.

#![forbid(unsafe_code)]

mod app;
mod generation;
mod interpreter;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::config::{self, Invocation, Settings};
use crate::error::{Error, Exit, Result};
use crate::link::Purpose;
use crate::log;
use crate::net;
use crate::sys::clock::{self, Nanos, SECOND, nanos};
use crate::sys::notify::Notifier;
use crate::sys::process;
use crate::sys::signal::{self, Inbox};
use crate::sys::title;
use app::{App, News};
use generation::{Generation, Said};

/// The program `rswsgi`: the only place where errors become messages and exit statuses.
pub fn main() -> ExitCode {
    log::set_identity("supervisor".into());
    log::abort_on_panic();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match run(arguments) {
        Ok(()) => Exit::Stopped.into(),
        Err(error) => {
            log::error!("{error}");
            error.exit().into()
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<()> {
    match config::parse(arguments.into_iter(), |name| std::env::var_os(name))? {
        Invocation::Print(text) => print(&text),
        Invocation::Check(settings) => check(&settings),
        Invocation::Serve(settings) => serve(settings),
    }
}

/// `println!` would panic when nobody reads.
fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Error::io("cannot write to standard output", &error))
}

/// `--check`: imports the application, reports and leaves.
fn check(settings: &Settings) -> Result<()> {
    let now = clock::now();
    let mut generation = Generation::start(1, settings, &[], Purpose::Check, now)?;
    let patience = nanos(settings.limits.start_timeout);
    let deadline = now.saturating_add(patience);
    loop {
        let said = generation.hear();
        match said {
            Said::Ready { python } => {
                dismiss(&mut generation);
                return print(&format!("{}: ok (Python {python})\n", settings.target));
            }
            Said::Failed { reason, traceback } => {
                dismiss(&mut generation);
                let message = format!("cannot serve {}: {reason}\n{traceback}", settings.target);
                return Err(Error::new(Exit::Config, message.trim_end()));
            }
            Said::Nothing => {}
        }
        if let Some(ended) = generation.try_reap() {
            let message = format!("cannot serve {}: the master {ended}", settings.target);
            return Err(Error::new(Exit::Config, message));
        }
        let now = clock::now();
        if now >= deadline {
            generation.kill(now);
            let message = format!("importing {} took too long", settings.target);
            return Err(Error::new(Exit::Config, message));
        }
        let mut fds = [
            PollFd::new(generation.channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(generation.child.as_fd(), PollFlags::POLLIN),
        ];
        sleep(&mut fds, now, Some(deadline));
    }
}

/// Gives a checked master a moment for its `atexit` functions.
fn dismiss(generation: &mut Generation) {
    let deadline = clock::now() + SECOND;
    while generation.try_reap().is_none() {
        let now = clock::now();
        if now >= deadline {
            generation.kill(now);
            return;
        }
        let mut fds = [PollFd::new(generation.child.as_fd(), PollFlags::POLLIN)];
        sleep(&mut fds, clock::now(), Some(deadline));
    }
}

fn sleep(fds: &mut [PollFd<'_>], now: Nanos, until: Option<Nanos>) {
    let millis = clock::wait_millis(now, until);
    let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
    // An interruption is a wake-up like any other.
    let _ = poll(fds, timeout);
}

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Serving,
    Draining,
    Stopping,
}

struct Supervisor {
    /// A list from the first day, although the command line names one.
    apps: Vec<App>,
    signals: Inbox,
    notifier: Option<Notifier>,
    course: Course,
}

fn serve(settings: Settings) -> Result<()> {
    signal::start_clean()
        .map_err(|error| Error::io("cannot reset inherited signal dispositions", &error))?;
    title::release_environment();
    title::set("rswsgi", "rswsgi: supervisor");
    let signals = Inbox::hooked(&[
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGINT,
        Signal::SIGHUP,
        // Our own children tell by pidfd; this is for those of others.
        Signal::SIGCHLD,
    ])
    .map_err(|error| Error::io("cannot install signal handlers", &error))?;
    let variable = |name: &str| std::env::var_os(name);
    let passed = net::passed(variable, std::process::id())?;
    let listeners = net::open(&settings.bind, &passed, settings.backlog)?;
    let mut supervisor = Supervisor {
        apps: vec![App::new(settings, listeners)],
        signals,
        notifier: notifier(),
        course: Course::Serving,
    };
    let now = clock::now();
    for app in &mut supervisor.apps {
        app.start(now)?;
    }
    supervisor.run()
}

fn notifier() -> Option<Notifier> {
    let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
    match Notifier::new(&name) {
        Ok(notifier) => Some(notifier),
        Err(error) => {
            log::warning!("cannot use NOTIFY_SOCKET={}: {error}", name.display());
            None
        }
    }
}

impl Supervisor {
    fn run(&mut self) -> Result<()> {
        let mut failed = None;
        loop {
            self.wait();
            let now = clock::now();
            while let Some(signal) = self.signals.take() {
                self.obey(signal, now);
            }
            for index in 0..self.apps.len() {
                match self.apps[index].settle(now) {
                    Some(News::Ready) => self.notify("READY=1"),
                    Some(News::Failed(error)) => {
                        failed = Some(error);
                        self.advance(Course::Stopping, now);
                    }
                    None => {}
                }
            }
            process::reap_strangers(|pid| self.is_own(pid));
            if self.course != Course::Serving && self.apps.iter().all(App::is_gone) {
                break;
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                for app in &self.apps {
                    log::info!("stopped {}: {}", app.settings.name, app.totals());
                }
                Ok(())
            }
        }
    }

    fn wait(&self) {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watch(self.signals.as_fd())];
        for generation in self.apps.iter().flat_map(|app| &app.generations) {
            fds.push(watch(generation.child.as_fd()));
            if !generation.is_silent() {
                fds.push(watch(generation.channel.as_fd()));
            }
        }
        let until = self.apps.iter().filter_map(App::wake_at).min();
        sleep(&mut fds, clock::now(), until);
    }

    fn is_own(&self, pid: Pid) -> bool {
        let mut generations = self.apps.iter().flat_map(|app| &app.generations);
        generations.any(|generation| generation.child.pid() == pid)
    }

    fn obey(&mut self, signal: Signal, now: Nanos) {
        match (signal, self.course) {
            (Signal::SIGTERM | Signal::SIGQUIT, Course::Serving) => {
                log::info!("stopping: finishing what runs ({signal})");
                self.advance(Course::Draining, now);
            }
            (Signal::SIGTERM | Signal::SIGQUIT | Signal::SIGINT, _) => {
                log::info!("stopping now ({signal})");
                self.advance(Course::Stopping, now);
            }
            (Signal::SIGHUP, _) => log::warning!("SIGHUP: reload is not available yet"),
            _ => {}
        }
    }

    fn advance(&mut self, course: Course, now: Nanos) {
        if self.course == Course::Serving {
            self.notify("STOPPING=1");
        }
        self.course = course;
        for app in &mut self.apps {
            match course {
                Course::Serving => {}
                Course::Draining => app.drain(now),
                Course::Stopping => app.stop(now),
            }
        }
    }

    fn notify(&self, state: &str) {
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.send(state)
        {
            log::warning!("cannot notify the service manager: {error}");
        }
    }
}
