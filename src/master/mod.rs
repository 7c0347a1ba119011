//! A master: the process of one generation that imports the application once and forks its
//! workers. It serves no client.
//!
//! ```text
//! assignment -> prepare (import, warm up, audit, freeze) -> fork workers -> ready
//!            -> replace what ends -> ordered (or orphaned): drain, leave
//! ```
//!
//! It speaks with the supervisor and with each worker over a channel of its own; the end of a
//! channel means that the process behind it is gone.

mod answers;
mod audit;
mod care;
mod crowd;
mod ends;
mod module;
mod outbox;
mod prepare;
mod request;
mod stacks;
mod touch;
mod wards;
mod warm_up;
mod workers;

use std::os::fd::{IntoRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pyo3::prelude::*;

use crate::access::Ledger;
use crate::config;
use crate::link::{self, Assignment, Order, Purpose, Report, Stderr, VERSION};
use crate::log::{self, Way};
use crate::net::Listener;
use crate::python::{Collector, Fork, Startup, Threads, fork, leave};
use crate::relay::Relay;
use crate::schedule::Bounds;
use crate::scoreboard::{Counter, Scoreboard};
use crate::sys::clock::{self, Nanos};
use crate::sys::image::Image;
use crate::sys::process::{self, exit_now};
use crate::sys::seqpacket::{Channel, Received};
use crate::sys::signal::{Held, Inbox};
use crate::sys::{fd, orphan, title};
use crate::worker::{self, Leave, Plan, Worker};
use crate::wsgi::{Application, deadline};
use stacks::Stacks;
use touch::Touch;
use workers::{Doors, Workers};

/// Exit statuses of a master, for the supervisor's log (`sysexits.h`).
const INTERNAL: i32 = 70;
const CONFIG: i32 = 78;

/// How long an orphaned worker may go on: "gone within a second or two".
const ORPHAN_GRACE: Duration = Duration::from_millis(1500);

/// What a master knows after the import; a forked worker takes what it needs of it.
struct Master {
    supervisor: Channel,
    assignment: Assignment,
    startup: Startup,
    application: Application,
    listeners: Vec<Listener>,
    scoreboard: Scoreboard,
    /// For the access log, where there is one.
    ledger: Option<Ledger>,
    signals: Inbox,
    /// See [`Doors`].
    nudge: EventFd,
    buffer: Vec<u8>,
    collector: Collector,
    /// Of its memory, for workers that return to it.
    image: Option<Image>,
    relay: Option<Relay>,
    /// Until the workers have it.
    touch: Option<Touch>,
}

/// Where the loop of a master ends.
enum Turn {
    /// All workers are gone, as ordered.
    Left,
    /// This process is a new worker.
    Worker(Newborn),
}

/// A worker that has just been forked.
struct Newborn {
    slot: usize,
    master: Pid,
    orders: Channel,
    /// Where its stacks are printed to.
    stacks: OwnedFd,
    /// See [`Plan`].
    calls: Channel,
    held: Held,
}

/// The life of a master, and in a forked child that of a worker. Never returns.
fn live(py: Python<'_>, channel: i32, version: &str) -> ! {
    log::set_identity("master".into());
    log::abort_on_panic();
    let supervisor = match fd::claim(channel) {
        Ok(fd) => Channel::from_fd(fd),
        Err(error) => {
            log::error!("no channel to a supervisor: {error}; a master is started by rswsgi only");
            exit_now(INTERNAL)
        }
    };
    let fail = |reason: String, traceback: String| -> ! {
        let _ = link::send(&supervisor, &Report::failed(reason, traceback));
        exit_now(CONFIG)
    };
    if version != VERSION {
        let text = format!("the extension module is of version {VERSION}, rswsgi of {version}");
        fail(text, String::new());
    }
    let assignment: Assignment = match supervisor.receive() {
        Ok(Received::Message(message)) => match link::read(&message) {
            Ok(assignment) => assignment,
            Err(error) => fail(format!("unreadable assignment: {error}"), String::new()),
        },
        _ => fail("no assignment".into(), String::new()),
    };
    log::configure(match assignment.stderr {
        Stderr::Inherited => Way::stderr(assignment.settings.log_format),
        Stderr::Pipe => Way::Frames,
    });
    if let Purpose::Request { ask, has_body } = &assignment.purpose {
        request::answer(py, &supervisor, &assignment, ask, *has_body);
    }
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let nudge = match EventFd::from_flags(flags) {
        Ok(nudge) => nudge,
        Err(error) => fail(format!("cannot create an eventfd: {error}"), String::new()),
    };
    // What is touched while it is imported counts.
    let touch = Touch::begin(&assignment.settings, clock::now());
    match prepare::prepare(py, &assignment) {
        Ok(prepared) => {
            let master = Master {
                supervisor,
                startup: prepared.startup,
                application: prepared.application,
                listeners: prepared.listeners,
                scoreboard: prepared.scoreboard,
                ledger: prepared.ledger,
                signals: prepared.signals,
                nudge,
                buffer: prepared.buffer,
                collector: prepared.collector,
                image: prepared.image,
                relay: prepared.relay,
                touch,
                assignment,
            };
            master.serve(py, prepared.import_millis)
        }
        Err(failure) => fail(failure.reason, failure.traceback),
    }
}

impl Master {
    fn serve(mut self, py: Python<'_>, import_millis: u64) -> ! {
        let ready = Report::Ready {
            python: python_version(py),
            import_millis,
        };
        if let Purpose::Check = self.assignment.purpose {
            let _ = link::send(&self.supervisor, &ready);
            leave(py, &self.startup, Threads::Abandon, 0)
        }
        let mut workers = match self.pool() {
            Ok(workers) => workers,
            Err(error) => {
                let text = format!("cannot watch for waiting connections: {error}");
                let _ = link::send(&self.supervisor, &Report::failed(text, ""));
                exit_now(INTERNAL)
            }
        };
        match self.supervise(py, &mut workers, ready) {
            Turn::Left => {
                workers.part_from_wards();
                leave(py, &self.startup, Threads::Abandon, 0)
            }
            Turn::Worker(newborn) => {
                // The channels to the siblings are theirs and the master's alone.
                drop(workers);
                self.work(py, newborn)
            }
        }
    }

    fn pool(&mut self) -> std::io::Result<Workers> {
        let settings = &self.assignment.settings;
        let config::Workers { min, max } = settings.workers.resolve(process::cpus());
        let bounds = Bounds {
            min: min as usize,
            max: max as usize,
        };
        let touch = self.touch.take();
        Workers::new(settings, bounds, self.scoreboard.rows().len(), touch)
    }

    /// Keeps the pool complete until the generation is to leave.
    fn supervise(&mut self, py: Python<'_>, workers: &mut Workers, ready: Report) -> Turn {
        let mut ready = Some(ready);
        loop {
            let now = clock::now();
            while let Some(slot) = workers.take_due(now) {
                match self.spawn(py, workers, slot, now) {
                    Some(turn) => return turn,
                    None => continue,
                }
            }
            if workers.is_hopeless() {
                let text = "its workers end before they are ready; the log says how";
                workers.outbox.put(&Report::failed(text, ""));
                workers.obey(Order::Stop, &self.scoreboard, now);
            }
            if workers.is_complete()
                && let Some(ready) = ready.take()
            {
                workers.outbox.put(&ready);
            }
            workers.outbox.flush(&self.supervisor);
            if workers.are_gone() {
                return Turn::Left;
            }
            let seen = workers.wait(py, &self.supervisor, &self.signals, &self.scoreboard, now);
            let now = clock::now();
            if seen.supervisor {
                self.listen_to_supervisor(workers, now);
            }
            while let Some(signal) = self.signals.take() {
                if let Signal::SIGTERM | Signal::SIGQUIT = signal {
                    workers.is_signalled();
                    workers.obey(Order::Drain, &self.scoreboard, now);
                }
            }
            let doors = Doors {
                listeners: &self.listeners,
                nudge: &self.nudge,
                relay: self.relay.as_ref(),
                ledger: self.ledger.as_ref(),
            };
            workers.settle(&self.scoreboard, doors, now);
        }
    }

    fn listen_to_supervisor(&mut self, workers: &mut Workers, now: Nanos) {
        match self.supervisor.receive() {
            Ok(Received::Message(message)) => match link::read(&message) {
                Ok(order) => workers.obey(order, &self.scoreboard, now),
                Err(error) => log::error!("unreadable order of the supervisor: {error}"),
            },
            Ok(Received::Nothing) => {}
            Ok(Received::Closed) | Err(_) => {
                if !workers.are_orphaned() {
                    log::error!("the supervisor is gone; leaving");
                    workers.orphan(now);
                }
            }
        }
    }

    /// Forks one worker. `Some` in the child.
    fn spawn(
        &mut self,
        py: Python<'_>,
        workers: &mut Workers,
        slot: usize,
        now: Nanos,
    ) -> Option<Turn> {
        let counts = self.scoreboard.pool();
        let failed = |workers: &mut Workers, error: &dyn std::fmt::Display| {
            log::error!("cannot fork worker {slot}: {error}");
            counts.count(Counter::StartFailures, 1);
            workers.could_not_start(slot, now);
        };
        let pairs = Channel::pair().and_then(|pair| Ok((pair, Stacks::pipe()?, Channel::pair()?)));
        let ((ours, orders), (stacks, stacks_end), (call, calls)) = match pairs {
            Ok(pairs) => pairs,
            Err(error) => {
                failed(workers, &error);
                return None;
            }
        };
        self.scoreboard.row(slot).begin(now);
        // A signal that arrives in the child before it has handlers of its own waits.
        let held = match Held::new(&worker::SIGNALS) {
            Ok(held) => held,
            Err(error) => {
                failed(workers, &error);
                return None;
            }
        };
        let master = nix::unistd::getpid();
        match fork(py, &self.startup) {
            Ok(Fork::Child) => {
                drop(ours);
                drop(stacks);
                drop(call);
                Some(Turn::Worker(Newborn {
                    slot,
                    master,
                    orders,
                    stacks: stacks_end,
                    calls,
                    held,
                }))
            }
            Ok(Fork::Parent(pid)) => {
                self.scoreboard.pool().count(Counter::Spawns, 1);
                if let Err(error) = workers.started(slot, pid, (ours, stacks, call)) {
                    failed(workers, &error);
                }
                None
            }
            Err(error) => {
                failed(workers, &error);
                None
            }
        }
    }

    /// The life of a worker, in the child.
    fn work(self, py: Python<'_>, newborn: Newborn) -> ! {
        let Newborn {
            slot,
            master,
            orders,
            stacks,
            calls,
            held,
        } = newborn;
        let Master {
            supervisor,
            assignment,
            startup,
            application,
            listeners,
            scoreboard,
            ledger,
            signals,
            nudge,
            buffer,
            collector,
            image,
            relay,
            touch: _,
        } = self;
        drop(supervisor);
        drop(signals);
        let settings = &assignment.settings;
        let name = format!(
            "worker {slot} [{} gen {}]",
            settings.name, assignment.generation
        );
        title::set("rswsgi-worker", &format!("rswsgi: {name}"));
        log::set_identity(name);
        let run = || -> Result<Leave, String> {
            let signals = Inbox::installed(&worker::SIGNALS).map_err(|e| e.to_string())?;
            // Only now: a signal held back since before the fork finds the handlers.
            drop(held);
            orphan::follow(master, ORPHAN_GRACE).map_err(|e| e.to_string())?;
            fd::occupy_standard().map_err(|e| e.to_string())?;
            // For the rest of this process's life, and beyond it.
            let scoreboard: &'static Scoreboard = Box::leak(Box::new(scoreboard));
            let row = scoreboard.row(slot);
            row.begin(clock::now());
            row.set_pid(nix::unistd::getpid().as_raw());
            deadline::belongs_to(row);
            let wakeup = signals.write_end().unwrap_or(-1);
            // The pipe stays open for the rest of its life.
            startup
                .obey(py, wakeup, stacks.into_raw_fd())
                .map_err(|error| crate::python::traceback(py, &error))?;
            let plan = Plan {
                settings,
                listeners,
                nudge,
                orders,
                row,
                scoreboard,
                calls,
                pen: ledger.and_then(|ledger| ledger.pen(slot, &settings.logs.access_format)),
                buffer,
                collector,
                image,
                relay,
            };
            let mut worker = Worker::new(plan, application, signals).map_err(|e| e.to_string())?;
            worker.run(py).map_err(|e| e.to_string())
        };
        match run() {
            Ok(Leave::Drained) => leave(py, &startup, Threads::Join, 0),
            Ok(Leave::Now | Leave::Child) => {
                startup.flush(py);
                exit_now(0)
            }
            Err(error) => {
                log::error!("cannot go on: {error}");
                exit_now(INTERNAL)
            }
        }
    }
}

fn python_version(py: Python<'_>) -> String {
    let info = py.version_info();
    format!("{}.{}.{}", info.major, info.minor, info.patch)
}
