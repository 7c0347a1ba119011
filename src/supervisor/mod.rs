//! The supervisor: the process that systemd or a container sees. It binds or adopts the listeners
//! and keeps them for its whole life, starts a master per generation, and replaces what is lost. It
//! never loads Python and never runs application code.

#![forbid(unsafe_code)]

mod app;
mod budget;
mod cgroup;
mod check;
mod control;
mod convert;
mod daemon;
mod development;
mod generation;
mod hand_over;
mod hosting;
mod interpreter;
mod isolation;
mod logs;
mod orphans;
mod output;
mod own_logs;
mod pid_file;
mod privileges;
mod progress;
mod record;
mod request;
mod service;
mod start;
mod upgrade;
mod upgrading;
mod verbosity;
mod was;
mod watch;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::config::{self, Invocation, Settings, Starter};
use crate::error::{Error, Exit, Result};
use crate::log::{self, Level};
use crate::net::was::Standard;
use crate::net::{self, Door, Kind};
use crate::sys::clock::{self, Nanos, nanos};
use crate::sys::process;
use crate::sys::signal::Inbox;
use app::{App, News};
use control::Control;
use daemon::Launch;
use development::Development;
use hand_over::Task;
use hosting::{Host, Porter};
use logs::Logs;
use orphans::{Orphans, Patience, Surroundings};
use output::{FLUSH, Output};
use pid_file::PidFile;
use record::Birth;
use service::{Phase, Ready, Service};
use start::{resume, start};
use upgrade::Upgrade;

/// The program `rswsgi`: the only place where errors become messages and exit statuses.
pub fn main() -> ExitCode {
    log::set_identity("supervisor".into());
    log::abort_on_panic();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match run(arguments) {
        Ok(status) => status,
        Err(error) => {
            tell(&error);
            error.exit().into()
        }
    }
}

/// Why the program ends, in the log and, wherever that is, on standard error.
fn tell(error: &Error) {
    log::error!("{error}");
    if !log::is_on_stderr() {
        log::flush(FLUSH);
        log::on_stderr(Level::Error, format_args!("{error}"));
    }
}

fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let task = std::env::var(hand_over::VARIABLE);
    match task.ok().as_deref().and_then(Task::read) {
        None => {}
        Some(Task::Check { state, reply }) => {
            log::set_identity("upgrade check".into());
            return upgrade::answer(&arguments, state, reply).map(|()| Exit::Stopped.into());
        }
        Some(task @ (Task::TakeOver { state, before } | Task::Return { state, before })) => {
            return resume(arguments, task, state, before).map(|()| Exit::Stopped.into());
        }
    }
    match configuration(&arguments)? {
        Invocation::Print(text) => print(&text)?,
        Invocation::Check(settings) => {
            start::warn_of_variables();
            check::check(&settings)?;
        }
        Invocation::Request {
            settings,
            ask,
            data,
        } => {
            log::set_identity("request".into());
            request::request(&settings, ask, data)?;
        }
        Invocation::Demo { settings, ask } => {
            log::set_identity("demo".into());
            log::info!(
                "no WAS client has started this, but a terminal: asking the application once for /; \
                 to serve, give --bind HOST:PORT or --bind was:/path"
            );
            request::request(&settings, ask, None)?;
        }
        Invocation::Convert {
            source,
            interpreter,
            privileges,
        } => {
            log::set_identity("convert".into());
            convert::convert(&source, &interpreter, privileges)?;
        }
        Invocation::CheckAll(host) => {
            start::warn_of_variables();
            hosting::check_all(&host)?;
        }
        Invocation::Serve(settings) => {
            return start(arguments, Served::One(Box::new(settings)));
        }
        Invocation::Host(host) => return start(arguments, Served::Many(host)),
    }
    Ok(Exit::Stopped.into())
}

/// Reads the settings: at the start, and again for each reload.
fn configuration(original: &[OsString]) -> Result<Invocation> {
    let variable = |name: &str| std::env::var_os(name);
    let arguments = original.iter().cloned();
    let starter = match net::was::standard() {
        Standard::Single | Standard::Multi => Starter::WasClient,
        // Sockets were passed: whoever has done that wants a server.
        Standard::Terminal if variable("LISTEN_FDS").is_some() => Starter::Somebody,
        Standard::Terminal if start::is_python_was(original) => Starter::PersonAsWasClient,
        Standard::Terminal => Starter::Person,
        Standard::Other => Starter::Somebody,
    };
    config::parse_for(starter, arguments, variable)
}

/// `println!` would panic when nobody reads.
fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Error::io("cannot write to standard output", &error))
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

/// What a server is started for.
enum Served {
    One(Box<Settings>),
    Many(Box<config::Host>),
}

impl Served {
    /// Of the server as a whole.
    fn settings(&self) -> &Settings {
        match self {
            Served::One(settings) => settings,
            Served::Many(host) => &host.settings,
        }
    }

    /// Of this app, read anew.
    fn app(&self, name: &str) -> Result<Settings> {
        match self {
            Served::One(settings) => Ok((**settings).clone()),
            Served::Many(host) => host.app_named(name),
        }
    }

    fn host(self) -> Option<Host> {
        match self {
            Served::One(_) => None,
            Served::Many(host) => Some(Host::of(*host)),
        }
    }
}

/// What has happened meanwhile.
struct Woken {
    /// To the sockets of [`Control`].
    control: Vec<PollFlags>,
    /// Listeners of apps without processes where somebody waits.
    doors: Vec<hosting::Place>,
}

struct Supervisor {
    /// As they were given: the title has overwritten the originals.
    arguments: Vec<OsString>,
    /// One, or those of `--apps-dir`.
    apps: Vec<App>,
    /// Where there are many.
    host: Option<Host>,
    porter: Porter,
    signals: Inbox,
    service: Service,
    course: Course,
    logs: Logs,
    /// Where this program was started from.
    program: Result<PathBuf>,
    upgrade: Option<Upgrade>,
    control: Control,
    birth: Birth,
    /// Held for as long as this process runs.
    pid_file: Option<PidFile>,
    /// Where there are many apps.
    orphans: Option<Orphans>,
    /// Of apps that there are, or were.
    users: BTreeSet<u32>,
}

/// Why the worker of a single connection is not replaced, and has none beside it.
const ONE_CONNECTION: &str =
    "there is one WAS connection only, of a client that starts another process for the next";

/// Signals the supervisor takes.
const SIGNALS: [Signal; 10] = [
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGWINCH,
    // Our own children tell by pidfd; this is for those of others.
    Signal::SIGCHLD,
];

impl Supervisor {
    fn run(&mut self, launch: &mut Option<Launch>) -> Result<()> {
        // Where all apps are on demand, nothing more is going to happen by itself.
        self.report(launch)?;
        let mut failed = None;
        // Nor does anything wake up those that are always there.
        let mut started = self.give_turns(clock::now());
        loop {
            let ready = self.wait(launch.as_ref());
            let now = clock::now();
            for app in &mut self.apps {
                app.look(&mut self.logs, now);
            }
            let mut news = std::mem::take(&mut started);
            news.extend(self.take_signals(now));
            self.settle_doors(&ready.doors, now);
            for question in self.control.settle(&ready.control, now) {
                news.extend(self.answer(question, now));
            }
            news.extend(self.apps.iter_mut().filter_map(|app| app.settle(now)));
            news.extend(self.forget_retired(now));
            news.extend(self.give_turns(now));
            if let Err(error) = self.leave_if_forsaken(now) {
                failed.get_or_insert(error);
            }
            news.extend(self.reload_changed(now));
            for news in news {
                match news {
                    News::Settled => self.tell_status(now),
                    News::Failed(error) => {
                        failed = Some(error);
                        self.advance(Course::Stopping, now);
                    }
                }
            }
            if let Err(error) = self.report(launch) {
                failed.get_or_insert(error);
                self.advance(Course::Stopping, now);
            }
            self.settle_answers(now);
            process::reap_strangers(|pid| self.is_own(pid));
            self.settle_orphans(now);
            let is_over = self.course != Course::Serving && self.apps.iter().all(App::is_gone);
            if is_over && self.orphans_are_gone(now) {
                break;
            }
            self.go_on_upgrading(now);
            self.leave_if_idle(now);
            self.tell_manager(now);
        }
        if failed.is_none() {
            for app in &self.apps {
                log::info!("stopped {}: {}", app.settings.name, app.totals());
            }
        }
        self.settle_logs();
        failed.map_or(Ok(()), Err)
    }

    /// Tells the launcher once all serve.
    fn report(&self, launch: &mut Option<Launch>) -> Result<()> {
        if self.course != Course::Serving {
            return Ok(());
        }
        let is_ready = self.apps.iter().all(App::is_settled);
        match launch.take_if(|_| is_ready) {
            Some(launch) => launch.succeed(),
            None => launch.as_ref().map_or(Ok(()), Launch::check),
        }
    }

    /// Everything that has been written so far reaches its sink, if that takes it.
    fn settle_logs(&mut self) {
        let now = clock::now();
        for app in &mut self.apps {
            app.look_again(&mut self.logs, now);
        }
        self.logs
            .flush(self.apps.iter().flat_map(|app| app.own_logs.writers()));
    }

    /// Log files that were moved away are made anew.
    fn reopen(&self) {
        log::info!("opening log files anew");
        self.logs.reopen();
    }

    /// At once, for all processes of all generations but those of apps that have a level of their own.
    fn set_log_level(&self, level: Level) {
        log::set_level(level);
        self.apps.iter().for_each(App::pass_level_on);
    }

    /// Signals in the order of their arrival, except that one reload stands for many.
    fn take_signals(&mut self, now: Nanos) -> Vec<News> {
        let mut reload = false;
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGHUP => reload = true,
                signal => self.obey(signal, now),
            }
        }
        match reload {
            true if self.course == Course::Serving => {
                log::info!("reloading (SIGHUP)");
                if self.host.is_some() {
                    return self.reload_all_files(now);
                }
                let all: Vec<usize> = (0..self.apps.len()).collect();
                self.reload(&all, now).0
            }
            true => {
                log::info!("not reloading: the server stops");
                Vec::new()
            }
            false => Vec::new(),
        }
    }

    /// Reloads the apps whose files have changed, with `--reload`.
    fn reload_changed(&mut self, now: Nanos) -> Vec<News> {
        let mut all = Vec::new();
        for index in 0..self.apps.len() {
            if let Some(path) = self.apps[index].look_for_changes(now)
                && self.course == Course::Serving
            {
                log::info!("reloading: {} has changed", path.display());
                all.extend(self.reload(&[index], now).0);
            }
        }
        all
    }

    /// One that was taken already: another worker would find none.
    fn serves_one_connection(&self) -> bool {
        self.apps.iter().any(App::serves_one_connection)
    }

    fn scale(&self, by: i32) {
        match self.serves_one_connection() {
            true => log::warning!("not scaling: {ONE_CONNECTION}"),
            false => self.apps.iter().for_each(|app| app.scale(by)),
        }
    }

    /// Reads the configuration anew and starts a generation of each of these apps with it; what serves
    /// goes on serving until that one is ready. Whether the configuration could be read.
    fn reload(&mut self, apps: &[usize], now: Nanos) -> (Vec<News>, Result<()>) {
        if self.serves_one_connection() {
            let message = format!("not reloading: {ONE_CONNECTION}");
            log::warning!("{message}");
            return (Vec::new(), Err(Error::new(Exit::Usage, message)));
        }
        if self.apps.iter().all(App::has_served) {
            self.notify_reloading(now, "reloading");
        }
        let read = match configuration(&self.arguments) {
            Ok(Invocation::Serve(settings)) => Ok(settings),
            Ok(_) => Err(Error::new(
                Exit::Config,
                "the configuration no longer asks to serve",
            )),
            Err(error) => Err(error),
        };
        if let (Ok(settings), Some(app)) = (&read, self.apps.first())
            && settings.logs.level != app.settings.logs.level
        {
            self.set_log_level(settings.logs.level);
        }
        let chosen = self.apps.iter_mut().enumerate();
        let chosen = chosen.filter(|(index, _)| apps.contains(index));
        let news = chosen.filter_map(|(_, app)| match &read {
            Ok(settings) => app.reload(settings.clone(), now),
            Err(error) => app.cannot_reload(error, now),
        });
        (
            news.collect(),
            read.as_ref().map(drop).map_err(Error::clone),
        )
    }

    fn notify_reloading(&self, now: Nanos, status: &str) {
        let within = self.longest(|app| nanos(app.settings.limits.start_timeout));
        self.service.enter(Phase::Reloading { within, status }, now);
    }

    /// The WAS client that has started this program has no use for it any more.
    ///
    /// # Errors
    /// [`Exit::Failed`] when a worker has taken the only connection with it.
    fn leave_if_forsaken(&mut self, now: Nanos) -> Result<()> {
        // One of many apps is not what the server is there for.
        let forsaken = self.host.is_none() && self.apps.iter().any(App::is_forsaken);
        if self.course != Course::Serving || !forsaken {
            return Ok(());
        }
        let is_lost = self.apps.iter().any(App::has_lost_its_connection);
        if !is_lost {
            log::info!("stopping: the WAS client is done");
        }
        self.advance(Course::Draining, now);
        match is_lost {
            true => {
                let message = "the WAS connection was lost with the worker that served it";
                Err(Error::new(Exit::Failed, message))
            }
            false => Ok(()),
        }
    }

    /// A service that is started by its sockets need not stay when nobody asks for it.
    fn leave_if_idle(&mut self, now: Nanos) {
        if self.course == Course::Serving && self.idle_until().is_some_and(|until| until <= now) {
            log::info!("stopping: nobody has asked for anything for --exit-idle");
            self.advance(Course::Draining, now);
        }
    }

    /// Signs of life, and how much there is to do, when they are due.
    fn tell_manager(&mut self, now: Nanos) {
        let due = self.service.due(now);
        let mut apps = self.apps.iter_mut();
        if due.sign && apps.all(|app| app.is_managed() || app.is_well(now)) {
            self.service.sign();
        }
        if due.status {
            let status = match self.host {
                Some(_) => self.overview(),
                None => join(self.apps.iter().map(|app| app.activity(now))),
            };
            self.service.refresh(&status, now);
        }
    }

    /// When all apps have been idle for as long as they may.
    fn idle_until(&self) -> Option<Nanos> {
        let until: Option<Vec<Nanos>> = self.apps.iter().map(App::idle_until).collect();
        until?.into_iter().max()
    }

    fn longest(&self, time: impl Fn(&App) -> Nanos) -> Nanos {
        self.apps.iter().map(time).max().unwrap_or_default()
    }

    fn tell_status(&mut self, now: Nanos) {
        let ready = match self.apps.iter().all(App::is_settled) {
            true => Ready::Yes,
            false => Ready::No,
        };
        let status = match self.host {
            Some(_) => self.overview(),
            None => join(self.apps.iter().map(|app| app.status.clone())),
        };
        self.service.status(ready, &status, now);
    }

    /// Sleeps until something happens or is due.
    fn wait(&self, launch: Option<&Launch>) -> Woken {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watch(self.signals.as_fd())];
        for generation in self.apps.iter().flat_map(|app| &app.generations) {
            fds.push(watch(generation.child.as_fd()));
            if !generation.is_silent() {
                fds.push(watch(generation.channel.as_fd()));
            }
        }
        fds.extend(self.apps.iter().flat_map(App::brings_was));
        let developed = self.apps.iter().filter_map(App::development);
        fds.extend(developed.flat_map(Development::watched).map(watch));
        let outputs = self.apps.iter().flat_map(App::outputs);
        fds.extend(outputs.flat_map(Output::watched).map(watch));
        fds.extend(self.upgrade.as_ref().and_then(Upgrade::watched));
        let launch = launch.filter(|_| self.course == Course::Serving);
        fds.extend(launch.map(Launch::watched));
        let others = fds.len();
        fds.extend(self.control.watched());
        let now = clock::now();
        let doors = hosting::doors(&self.apps, now);
        let first_door = fds.len();
        fds.extend(doors.iter().map(|door| watch(door.listener.as_fd())));
        fds.extend(self.porter.watched());
        let upgrade = self.upgrade.as_ref().and_then(Upgrade::wake_at);
        let until = self
            .apps
            .iter()
            .filter_map(App::wake_at)
            .chain(self.apps.iter().filter_map(App::turn_wake_at))
            .chain(self.porter.wake_at())
            .chain(self.turns_wake_at(now))
            .chain(upgrade)
            .chain(self.orphans.as_ref().and_then(Orphans::wake_at))
            .chain(self.service.wake_at())
            .chain(self.idle_until())
            .chain(self.control.wake_at(now))
            .min();
        sleep(&mut fds, now, until);
        let happened = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
        let knocked = doors.iter().zip(&fds[first_door..]);
        let knocked = knocked.filter(|(_, fd)| !happened(fd).is_empty());
        Woken {
            control: fds[others..first_door].iter().map(happened).collect(),
            doors: knocked.map(|(door, _)| door.place).collect(),
        }
    }

    fn is_own(&self, pid: Pid) -> bool {
        let mut generations = self.apps.iter().flat_map(|app| &app.generations);
        let checked = self.upgrade.as_ref().and_then(Upgrade::child);
        generations.any(|generation| generation.child.pid() == pid) || checked == Some(pid)
    }

    fn settle_orphans(&mut self, now: Nanos) {
        self.with_orphans(|orphans, surroundings| orphans.settle(surroundings, now));
    }

    fn orphans_are_gone(&mut self, now: Nanos) -> bool {
        let are_gone =
            self.with_orphans(|orphans, surroundings| orphans.are_gone(surroundings, now));
        are_gone.unwrap_or(true)
    }

    fn with_orphans<T>(
        &mut self,
        act: impl FnOnce(&mut Orphans, &Surroundings<'_>) -> T,
    ) -> Option<T> {
        let mut orphans = self.orphans.take()?;
        let owners = self.apps.iter().map(|app| app.presence.owner);
        self.users.extend(owners);
        let done = act(
            &mut orphans,
            &Surroundings {
                masters: self.apps.iter().map(|app| app.generations.len()).sum(),
                is_own: &|pid| self.is_own(pid),
                users: &self.users,
                patience: match self.course {
                    Course::Stopping => Patience::None,
                    Course::Serving | Course::Draining => Patience::Usual,
                },
            },
        );
        self.orphans = Some(orphans);
        Some(done)
    }

    fn obey(&mut self, signal: Signal, now: Nanos) {
        match (signal, self.course) {
            (Signal::SIGTERM | Signal::SIGQUIT, Course::Serving) => {
                log::info!("stopping: finishing what runs ({signal})");
                self.advance(Course::Draining, now);
            }
            // It says so as soon as it has the last answer; the application may not be done with that request.
            (Signal::SIGTERM, Course::Draining) if self.is_of_was_client() => {
                log::info!("still finishing what runs: the WAS client asks for nothing more");
            }
            (Signal::SIGTERM | Signal::SIGQUIT | Signal::SIGINT, _) => {
                log::info!("stopping now ({signal})");
                self.advance(Course::Stopping, now);
            }
            (Signal::SIGUSR1, _) => self.reopen(),
            (Signal::SIGUSR2, _) => self.upgrade(),
            (Signal::SIGTTIN, _) => self.scale(1),
            (Signal::SIGTTOU, _) => self.scale(-1),
            // A terminal sends it when its window changes.
            (Signal::SIGWINCH, Course::Serving) if !process::has_terminal() => {
                self.apps.iter_mut().for_each(|app| app.rest(now));
                self.tell_status(now);
            }
            _ => {}
        }
    }

    /// Whether a WAS client has started this program.
    fn is_of_was_client(&self) -> bool {
        let mut doors = self.apps.iter().flat_map(|app| &app.listeners);
        doors.any(|door| matches!(door.kind(), Kind::Was(Door::Multi | Door::Single)))
    }

    fn advance(&mut self, course: Course, now: Nanos) {
        if self.course == Course::Serving {
            let within = self.longest(|app| nanos(app.settings.limits.graceful_timeout));
            self.service.enter(Phase::Stopping { within }, now);
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
}

fn join(states: impl Iterator<Item = String>) -> String {
    states.collect::<Vec<_>>().join("; ")
}
