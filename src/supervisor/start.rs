//! From settings to a server that runs: the first time, in the background, and after an upgrade.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use super::app::{App, News};
use super::control::Control;
use super::daemon::{Launch, Side};
use super::hand_over::{HandOver, Task};
use super::hosting::Porter;
use super::logs::Logs;
use super::orphans::Orphans;
use super::pid_file::PidFile;
use super::record::Birth;
use super::service::{Phase, Service};
use super::{
    Course, SIGNALS, Served, Supervisor, configuration, control, daemon as background, hand_over,
    hosting, tell, upgrade, was,
};
use crate::config::{self, Bind, Invocation, Settings};
use crate::error::{Error, Exit, Result};
use crate::link::VERSION;
use crate::log;
use crate::net::{self, Listener, Passed};
use crate::sys::clock::{self, nanos};
use crate::sys::signal::{self, Inbox};
use crate::sys::title;

/// Sockets that were passed to this very process, which a daemon no longer is.
fn passed() -> Result<Vec<Passed>> {
    net::passed(|name| std::env::var_os(name), std::process::id())
}

/// Serves, in the background if that is asked for.
pub(super) fn start(arguments: Vec<OsString>, served: Served) -> Result<ExitCode> {
    match served.settings().daemon {
        true => daemon(arguments, served),
        false => {
            serve(arguments, served, passed()?, &mut None)?;
            Ok(Exit::Stopped.into())
        }
    }
}

/// Serves in the background. What happens until the server is ready is the launcher's outcome, too.
fn daemon(arguments: Vec<OsString>, served: Served) -> Result<ExitCode> {
    let passed = passed()?;
    let launch = match background::detach()? {
        Side::Launcher(status) => return Ok(status),
        Side::Daemon(launch) => launch,
    };
    let mut launch = Some(launch);
    let outcome = serve(arguments, served, passed, &mut launch);
    let never_ready = || Error::new(Exit::Failed, "stopped before it was ready");
    match (outcome, launch) {
        (outcome, None) => outcome.map(|()| Exit::Stopped.into()),
        (outcome, Some(launch)) => {
            let error = outcome.err().unwrap_or_else(never_ready);
            tell(&error);
            launch.fail(error.exit());
            Ok(error.exit().into())
        }
    }
}

pub(super) fn warn_of_variables() {
    let names: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .collect();
    for warning in config::unknown_variables(names.iter().map(String::as_str)) {
        log::warning!("{warning}");
    }
}

/// `launch`: who waits for the server to be ready, until it is.
fn serve(
    arguments: Vec<OsString>,
    mut served: Served,
    passed: Vec<Passed>,
    launch: &mut Option<Launch>,
) -> Result<()> {
    // Before anything is opened or printed: standard output may be a response.
    let standard = match &mut served {
        Served::One(settings) => was::standard(settings, &passed, is_python_was(&arguments))?,
        Served::Many(_) => None,
    };
    signal::start_clean()
        .map_err(|error| Error::io("cannot reset inherited signal dispositions", &error))?;
    title::release_environment();
    title::set("rswsgi", "rswsgi: supervisor");
    let signals = Inbox::hooked(&SIGNALS)
        .map_err(|error| Error::io("cannot install signal handlers", &error))?;
    let pid_file = served.settings().pid_file.as_deref();
    let pid_file = pid_file.map(PidFile::take).transpose()?;
    let logs = Logs::open(served.settings())?;
    warn_of_variables();
    let service = service();
    let control;
    let (host, apps) = match served {
        Served::One(settings) => {
            let claimed = control::claim(&settings, passed)?;
            let mut listeners = listeners(&settings, &claimed.left, standard.is_some())?;
            service.keep(&mut listeners);
            control = Control::open(&settings, &claimed)?;
            let app = match standard {
                Some(door) => App::started_by_client(*settings, listeners, door),
                None => App::new(*settings, listeners),
            };
            (None, vec![app?])
        }
        Served::Many(host) => {
            hosting::make_room();
            let claimed = control::claim(&host.settings, passed)?;
            control = Control::open(&host.settings, &claimed)?;
            let (host, apps) = hosting::open(*host, claimed.left)?;
            (Some(host), apps)
        }
    };
    let birth = Birth::now();
    let orphans = host.as_ref().map(|_| Orphans::adopt());
    let mut supervisor = Supervisor {
        arguments,
        apps,
        host,
        porter: Porter::default(),
        signals,
        service,
        course: Course::Serving,
        logs,
        program: upgrade::program(),
        upgrade: None,
        control,
        birth,
        pid_file,
        orphans,
        users: BTreeSet::new(),
    };
    supervisor.keep_listeners();
    let now = clock::now();
    for app in &supervisor.apps {
        app.warn_of_exit();
    }
    let within = supervisor.longest(|app| nanos(app.settings.limits.start_timeout));
    supervisor.service.enter(Phase::Starting { within }, now);
    for app in supervisor.apps.iter_mut().filter(|app| !app.is_managed()) {
        if let Some(News::Failed(error)) = app.begin(now) {
            return Err(error);
        }
    }
    if supervisor.apps.iter().all(App::is_managed) {
        supervisor.begin_all(now);
        supervisor.tell_status(now);
    }
    supervisor.run(launch)
}

/// A name of this program under which it speaks WAS and nothing else.
const PYTHON_WAS: &str = "python-was";

pub(super) fn is_python_was(arguments: &[OsString]) -> bool {
    let program = arguments.first().map(PathBuf::from);
    program.is_some_and(|program| program.file_name() == Some(PYTHON_WAS.as_ref()))
}

/// `is_served`: by what this program was started with.
fn listeners(settings: &Settings, passed: &[Passed], is_served: bool) -> Result<Vec<Listener>> {
    let mut binds = settings.bind.clone();
    let named = settings.host_and_port();
    let named = named.map_err(|reason| Error::new(Exit::Config, format!("--host: {reason}")))?;
    if let Some(named) = named
        && binds.is_empty()
    {
        binds.push(named.into());
    }
    let nothing_else = settings
        .bind
        .iter()
        .all(|listen| listen.bind == Bind::WasStandard);
    match is_served && nothing_else && passed.is_empty() {
        true => Ok(Vec::new()),
        false => net::open(&binds, passed, settings.backlog),
    }
}

/// Goes on where the program that was executed in this process before left off.
pub(super) fn resume(
    arguments: Vec<OsString>,
    task: Task,
    state: RawFd,
    before: RawFd,
) -> Result<()> {
    title::release_environment();
    title::set("rswsgi", "rswsgi: supervisor");
    let take_over = || {
        let handed = HandOver::read(state)?;
        let served = match configuration(&arguments)? {
            Invocation::Serve(settings) => Served::One(settings.into()),
            Invocation::Host(host) => {
                hosting::make_room();
                Served::Many(host)
            }
            _ => {
                let message = "the arguments do not ask to serve";
                return Err(Error::new(Exit::Config, message));
            }
        };
        let apps = handed.apps.iter().map(|app| App::resume(app, &served));
        let apps = apps.collect::<Result<Vec<_>>>()?;
        if let (Served::One(_), true) = (&served, apps.is_empty()) {
            return Err(Error::new(Exit::Internal, "there is no app in the state"));
        }
        let control = Control::resume(served.settings(), &handed.doors)?;
        let logs = Logs::open(served.settings())?;
        let pid_file = handed.pid_file.as_ref().map(PidFile::resume).transpose()?;
        Ok((apps, served, control, handed, logs, pid_file))
    };
    let (mut apps, served, mut control, handed, logs, pid_file) = match (take_over(), task) {
        (Ok(taken), _) => taken,
        (Err(error), Task::Return { .. }) => return Err(error),
        (Err(error), _) => return Err(upgrade::go_back(&arguments, state, before, &error)),
    };
    let signals = Inbox::hooked(&SIGNALS)
        .map_err(|error| Error::io("cannot install signal handlers", &error))?;
    hand_over::release(&handed.descriptors());
    hand_over::release(&[state, before]);
    for (app, state) in apps.iter_mut().zip(&handed.apps) {
        app.own_files(state);
    }
    control.own_files(&handed.doors);
    let host = served.host();
    let orphans = host
        .as_ref()
        .map(|_| Orphans::resume(handed.foreign, handed.company));
    let mut supervisor = Supervisor {
        arguments,
        apps,
        host,
        porter: Porter::default(),
        signals,
        service: service(),
        course: Course::Serving,
        logs,
        program: Ok(handed.program),
        upgrade: None,
        control,
        birth: handed.birth.unwrap_or_else(Birth::now),
        pid_file,
        orphans,
        users: BTreeSet::new(),
    };
    match task {
        Task::Return { .. } => log::warning!("upgrade failed; {VERSION} goes on serving"),
        _ => log::info!("upgraded from {} to {VERSION}", handed.version),
    }
    supervisor.find_disabled(clock::now());
    supervisor.tell_status(clock::now());
    signal::release(&SIGNALS).map_err(|error| Error::io("cannot receive signals", &error))?;
    supervisor.run(&mut None)
}

fn service() -> Service {
    Service::new(|name| std::env::var_os(name), std::process::id())
}
