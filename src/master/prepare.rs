//! From the assignment to the point where workers can be forked: import, warm-up requests, audit,
//! and memory in the state in which it stays shared longest.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pyo3::prelude::*;

use super::{ORPHAN_GRACE, audit, warm_up};
use crate::access::{Bell, Desk, Lanes, Ledger};
use crate::config::{BeforeFork, Settings};
use crate::error::Error;
use crate::http::Pages;
use crate::link::{Assignment, Purpose};
use crate::log;
use crate::net::{Kind, Listener};
use crate::python::{
    Collector, Failure, ForkHooks, Startup, fill_gaps, image, make_immortal, traceback,
    watch_arenas,
};
use crate::relay::Relay;
use crate::scoreboard::Scoreboard;
use crate::sys::clock::{self, MILLISECOND};
use crate::sys::image::Image;
use crate::sys::inventory::Inventory;
use crate::sys::process::exit_now;
use crate::sys::signal::Inbox;
use crate::sys::{fd, heap, orphan, title};
use crate::worker;
use crate::wsgi::{Application, Development, FieldPolicy, Origin};

/// What a master needs to fork workers.
pub struct Prepared {
    pub startup: Startup,
    pub application: Application,
    pub listeners: Vec<Listener>,
    pub scoreboard: Scoreboard,
    pub ledger: Option<Ledger>,
    pub signals: Inbox,
    pub import_millis: u64,
    /// See [`worker::buffer`].
    pub buffer: Vec<u8>,
    pub collector: Collector,
    pub image: Option<Image>,
    pub relay: Option<Relay>,
}

/// Everything up to the point where workers can be forked.
pub fn prepare(py: Python<'_>, assignment: &Assignment) -> Result<Prepared, Failure> {
    let settings = &assignment.settings;
    let generation = format!("[{} gen {}]", settings.name, assignment.generation);
    title::set(
        "rswsgi-master",
        &format!("rswsgi: master {generation} importing"),
    );
    log::set_identity(format!("master {generation}"));
    // What is inherited is claimed, which makes it close-on-exec, before the application runs.
    let listeners = assignment
        .listeners
        .iter()
        .map(Listener::inherit)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| system("cannot take over a listener", &error))?;
    let scoreboard = fd::claim(assignment.scoreboard)
        .and_then(Scoreboard::map)
        .map_err(|error| system("cannot map the scoreboard", &error))?;
    let ledger = take_logs(assignment).map_err(|error| system("cannot map the logs", &error))?;
    let development =
        take_development(assignment).map_err(|error| system("cannot take over a pipe", &error))?;
    let relay =
        take_relay(assignment).map_err(|error| system("cannot take over the relay", &error))?;
    // Ctrl-C reaches the whole foreground process group; what to do about it is the supervisor's
    // decision. TERM still ends a master that imports: it serves nobody yet.
    // A closing terminal sends HUP to all of it; what the application sets instead stays.
    let signals = Inbox::installed(&[Signal::SIGINT, Signal::SIGHUP])
        .map_err(|error| system("cannot install signal handlers", &error))?;
    fd::occupy_standard().map_err(|error| system("cannot open /dev/null", &error))?;
    let ours = Inventory::take();
    let master = nix::unistd::getpid();

    let python = |error: PyErr| python_failure(py, &error);
    if settings.before_fork.share_again.is_some() {
        watch_arenas(py);
    }
    let started = clock::now();
    let startup = Startup::new(py).map_err(python)?;
    let teller = development
        .as_ref()
        .map(|(pipe, _)| startup.teller(py, pipe.as_raw_fd(), &sys_path(settings)))
        .transpose()
        .map_err(python)?;
    let loaded = match assignment.purpose {
        Purpose::Explain => startup.placeholder(py).map_err(python),
        _ => load(py, &startup, settings),
    };
    if let Some(teller) = &teller {
        // Also of what could not be imported: it is to be mended.
        let _ = teller.call0(py);
    }
    let callable = loaded?;
    if nix::unistd::getpid() != master {
        // A child that the application forked at import has come back from there.
        startup.flush(py);
        exit_now(0);
    }
    let import_millis = (clock::now() - started) / MILLISECOND;

    let origins = origins(&listeners, settings);
    let pages = pages(settings.error_pages.as_deref())?;
    try_to_store(settings)?;
    let fields = FieldPolicy {
        underscores: worker::underscores(settings),
        believed: worker::believed(settings),
    };
    let mut application =
        Application::new(py, callable, &origins, fields, pages).map_err(python)?;
    let care = &settings.before_fork;
    if !matches!(assignment.purpose, Purpose::Explain) {
        warm_up::run(py, &mut application, &care.warm_up, care.warm_up_failure)?;
    }
    if let (Some((pipe, notice)), Some(teller)) = (development, teller) {
        // It is written to by its number, for the rest of this process's life and that of its workers.
        let _ = pipe.into_raw_fd();
        let notice = File::from(notice);
        application.develop(Development::new(notice, settings.watching.page, teller));
    }
    // After everything that runs code of the application before the fork.
    signals
        .install(&worker::SIGNALS)
        .map_err(|error| system("cannot install signal handlers", &error))?;
    // Until here a lost supervisor meant SIGKILL. Workers are to be drained.
    orphan::follow(Pid::from_raw(assignment.supervisor), 2 * ORPHAN_GRACE)
        .map_err(|error| system("cannot watch the supervisor", &error))?;
    audit::run(py, &startup, &ours, care.fork_safety)?;
    arm(py, &startup).map_err(python)?;
    let buffer = worker::buffer();
    let collector = Collector::new(py).map_err(python)?;
    let image = settle_memory(py, &startup, care).map_err(python)?;
    title::set("rswsgi-master", &format!("rswsgi: master {generation}"));
    Ok(Prepared {
        startup,
        application,
        listeners,
        scoreboard,
        ledger,
        signals,
        import_millis,
        buffer,
        collector,
        image,
        relay,
    })
}

fn take_relay(assignment: &Assignment) -> std::io::Result<Option<Relay>> {
    let Some([entry, exit]) = assignment.relay else {
        return Ok(None);
    };
    let (entry, exit) = (fd::claim(entry)?, fd::claim(exit)?);
    Ok(Some(Relay::from_ends(entry, exit)))
}

/// The pipe that is told of modules, and the notice.
fn take_development(assignment: &Assignment) -> std::io::Result<Option<(OwnedFd, OwnedFd)>> {
    let claim = |[pipe, notice]: [i32; 2]| Ok((fd::claim(pipe)?, fd::claim(notice)?));
    assignment.development.map(claim).transpose()
}

/// What supervisor, master and workers have in common about logs.
pub(super) fn take_logs(assignment: &Assignment) -> std::io::Result<Option<Ledger>> {
    let desk = Desk::map(fd::claim(assignment.desk)?)?;
    let desk: &'static Desk = Box::leak(Box::new(desk));
    log::share_level(desk.level());
    let Some((lanes, bell)) = assignment.access else {
        return Ok(None);
    };
    let lanes = Lanes::map(fd::claim(lanes)?)?;
    Ok(Some(Ledger::new(
        lanes,
        desk,
        Bell::from_fd(fd::claim(bell)?),
    )))
}

/// The first large upload would find out otherwise. Who names no directory may expect none.
fn try_to_store(settings: &Settings) -> Result<(), Failure> {
    let Err((directory, error)) = worker::try_to_store(settings) else {
        return Ok(());
    };
    let shown = directory.display();
    if settings.limits.temp_dir.is_some() {
        let what = format_args!("cannot keep request bodies in --temp-dir {shown}");
        return Err(refused(&Error::io(what, &error)));
    }
    let reason = Error::io(
        format_args!("cannot keep request bodies in {shown}"),
        &error,
    );
    log::warning!("{reason}; larger ones will be refused with 503 (--temp-dir)");
    Ok(())
}

/// The largest page that is taken from `--error-pages`.
const LARGEST_PAGE: u64 = 64 << 10;

/// What is to be sent instead of our own pages.
pub(super) fn pages(directory: Option<&Path>) -> Result<Pages, Failure> {
    let mut pages = Pages::default();
    let Some(directory) = directory else {
        return Ok(pages);
    };
    let what = |path: &Path| format!("cannot read --error-pages {}", path.display());
    let refused = |path: &Path, error: &io::Error| refused(&Error::io(what(path), error));
    let entries = std::fs::read_dir(directory).map_err(|error| refused(directory, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| refused(directory, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| pages.add(name, Vec::new())) else {
            continue;
        };
        let mut content = Vec::new();
        let file = File::open(&path).map_err(|error| refused(&path, &error))?;
        file.take(LARGEST_PAGE + 1)
            .read_to_end(&mut content)
            .map_err(|error| refused(&path, &error))?;
        if content.len() as u64 > LARGEST_PAGE {
            return Err(system(&what(&path), &"it is larger than 64k"));
        }
        pages.add(name, content);
    }
    Ok(pages)
}

/// Leaves memory in the state in which workers share most of it for longest. The order counts: what
/// is garbage is not made immortal, gaps are filled when nothing is freed any more, and the image
/// shows how all that left it.
fn settle_memory(py: Python<'_>, startup: &Startup, care: &BeforeFork) -> PyResult<Option<Image>> {
    startup.collect(py)?;
    if care.immortal {
        match make_immortal(py) {
            Ok(count) => log::info!("{count} objects are immortal"),
            Err(error) => log::warning!("--immortal is ignored: {}", error.value(py)),
        }
    }
    startup.freeze(py)?;
    // The collector looks at everything only when a quarter as many objects as the last time are new
    // (`Modules/gcmodule.c`, long_lived_pending). It is to learn that nothing is in its sight now.
    startup.collect(py)?;
    fill_gaps(py);
    heap::settle();
    if care.share_again.is_none() {
        return Ok(None);
    }
    match image(py) {
        Ok(image) => Ok(Some(image)),
        Err(error) => {
            log::warning!("--share-again is ignored: {error}");
            Ok(None)
        }
    }
}

fn arm(py: Python<'_>, startup: &Startup) -> PyResult<()> {
    let module = py.import("rswsgi")?;
    let of = |name| module.getattr(name);
    let forks = ForkHooks {
        before: of("_before_fork")?,
        in_parent: of("_forked_in_parent")?,
        in_child: of("_forked_in_child")?,
    };
    startup.arm(py, &of("_soft_deadline")?, &forks)
}

pub(super) fn load(
    py: Python<'_>,
    startup: &Startup,
    settings: &Settings,
) -> Result<Py<PyAny>, Failure> {
    let directory = std::env::current_dir().unwrap_or_default();
    let paths = sys_path(settings);
    let target = &settings.target;
    let expression = target.expression.as_deref();
    let names = settings.default_names.in_order();
    let loaded = startup
        .prepare(py, &directory.to_string_lossy(), &paths)
        .and_then(|()| startup.load(py, &target.module, expression, names))
        .map_err(|error| python_failure(py, &error))?;
    match (loaded, settings.fallback_module.as_deref()) {
        (Err(failure), Some(fallback)) => startup
            .load(py, fallback, expression, names)
            .map_err(|error| python_failure(py, &error))?
            // What was looked for first is what is missing.
            .map_err(|_| failure),
        (loaded, _) => loaded,
    }
}

fn sys_path(settings: &Settings) -> Vec<String> {
    let paths = settings.interpreter.sys_path.iter();
    paths
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn refused(error: &Error) -> Failure {
    Failure {
        reason: error.to_string(),
        traceback: String::new(),
    }
}

pub(super) fn system(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure {
        reason: format!("{what}: {error}"),
        traceback: String::new(),
    }
}

pub(super) fn python_failure(py: Python<'_>, error: &PyErr) -> Failure {
    Failure {
        reason: format!("cannot prepare the interpreter: {error}"),
        traceback: traceback(py, error),
    }
}

/// What is constant per listener; where there is none (`--check`), what would be.
pub(super) fn origins(listeners: &[Listener], settings: &Settings) -> Vec<Origin> {
    let origin = |server| Origin {
        server,
        script_name: settings.script_name.clone(),
    };
    if listeners.is_empty() {
        return vec![origin(None)];
    }
    let server = |listener: &Listener| match listener.kind() {
        Kind::Tcp { addr } => Some((addr.ip().to_string(), addr.port())),
        Kind::Unix { .. } | Kind::UnixAbstract { .. } | Kind::WasListener { .. } | Kind::Was(_) => {
            None
        }
    };
    listeners.iter().map(|l| origin(server(l))).collect()
}
