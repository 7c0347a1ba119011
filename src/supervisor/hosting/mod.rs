//! Many apps, or one that is started on demand: who has processes when, and what a reload makes of the
//! files in `--apps-dir`.
//!
//! The supervisor watches the listeners of apps without processes, but accepts nothing there: the
//! connections wait in the queue of the kernel until workers take them. Only those of an app that
//! cannot serve are accepted here, and told so ([`refuser`]).

#![forbid(unsafe_code)]

mod answers;
mod files;
mod presence;
mod refuser;
mod story;
mod tail;

use std::path::PathBuf;

use nix::poll::PollFd;

use crate::config::Settings;
use crate::log::Level;
use crate::net::{Kept, Listener, Passed};
use crate::schedule::turns::{self, Bounds, Choice};
use crate::supervisor::app::{App, News};
use crate::supervisor::{Course, Supervisor};
use crate::sys::clock::Nanos;
use crate::sys::process::cpus;
pub use files::{Outcome, check_all, make_room, open};
pub use presence::{Door, Presence};
use refuser::Refuser;
pub use story::Story;
pub use tail::Tail;

/// A server with many apps.
pub struct Host {
    /// Of the server as a whole.
    pub settings: Settings,
    /// Apps whose file or listeners keep them from being served.
    pub disabled: Vec<Disabled>,
    /// Sockets that the service manager has passed.
    passed: Vec<Passed>,
    /// Those of them that are ours from an earlier life, while it starts.
    kept: Kept,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    pub name: String,
    pub file: PathBuf,
    /// The user to whom the file belongs.
    pub owner: Option<u32>,
    pub reason: String,
}

/// Tells clients of apps that cannot serve.
#[derive(Default)]
pub struct Porter {
    refuser: Refuser,
}

/// App and listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize, usize);

/// A listener that no worker looks after.
pub struct Watched<'a> {
    pub place: Place,
    pub listener: &'a Listener,
}

/// The listeners that the supervisor has to look after.
pub fn doors(apps: &[App], now: Nanos) -> Vec<Watched<'_>> {
    let apps = apps.iter().enumerate();
    let watched = apps.filter(|(_, app)| matches!(app.door(now), Door::Watched | Door::Closed));
    let listeners = watched.flat_map(|(index, app)| {
        let listeners = app.listeners.iter().enumerate();
        listeners.map(move |(number, listener)| Watched {
            place: Place(index, number),
            listener,
        })
    });
    listeners.collect()
}

/// Apps that are started at once at least, so that one that has failed leaves a turn to others.
const STARTING_AT_LEAST: u32 = 2;

impl Porter {
    /// Clients that have their answer and have not left yet.
    pub fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.refuser.watched()
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        self.refuser.wake_at()
    }
}

impl Supervisor {
    /// Looks after the listeners of apps without processes.
    pub fn settle_doors(&mut self, knocked: &[Place], now: Nanos) {
        for Place(app, listener) in knocked {
            let Some(app) = self.apps.get_mut(*app) else {
                continue;
            };
            match app.door(now) {
                Door::Watched if self.course == Course::Serving => {
                    app.story.because_of("connection", now);
                    app.want(now);
                }
                Door::Closed => {
                    if let Some(listener) = app.listeners.get(*listener) {
                        app.presence.turned_away += self.porter.refuser.turn_away(listener, now);
                    }
                }
                Door::Watched | Door::Held | Door::Workers => {}
            }
        }
        self.porter.refuser.settle(now);
        for app in &mut self.apps {
            app.settle_presence(now);
        }
    }

    /// Starts those whose turn it is, and stops those that make room for them.
    pub fn give_turns(&mut self, now: Nanos) -> Vec<News> {
        let is_quiet = self.course != Course::Serving || self.upgrade.is_some();
        if is_quiet || !self.apps.iter().any(App::wants_to_start) {
            return Vec::new();
        }
        let claims: Vec<_> = self.apps.iter().map(|app| app.claim(now)).collect();
        let mut news = Vec::new();
        for choice in turns::choose(&claims, self.bounds(), now) {
            match choice {
                Choice::Start(index) => news.extend(self.apps[index].take_turn(now)),
                Choice::Stop(index) => {
                    let why = "others wait, and --max-processes has no room for them";
                    self.apps[index].go_to_rest(why, now);
                }
            }
        }
        news
    }

    fn bounds(&self) -> Bounds {
        let limits = self.host.as_ref().map(|host| &host.settings.host_limits);
        let starting = limits.and_then(|limits| limits.starting);
        let all = || u32::try_from(cpus()).unwrap_or(u32::MAX);
        Bounds {
            processes: limits.and_then(|limits| limits.processes),
            starting: starting.unwrap_or_else(|| all().max(STARTING_AT_LEAST)),
        }
    }

    /// When a start that holds up others no longer does.
    pub fn turns_wake_at(&self, now: Nanos) -> Option<Nanos> {
        if !self.apps.iter().any(App::wants_to_start) {
            return None;
        }
        let claims = self.apps.iter().map(|app| app.claim(now));
        let ends = claims.filter_map(|claim| claim.starts_since);
        let ends = ends.map(|since| since.saturating_add(turns::LONG_START));
        // Those who only have to be idle for a little longer to make room are not announced either.
        ends.filter(|end| *end > now)
            .chain([now.saturating_add(crate::sys::clock::SECOND)])
            .min()
    }

    /// Forgets the apps whose files and processes are gone; what waited for their listeners is tried again.
    pub fn forget_retired(&mut self, now: Nanos) -> Vec<News> {
        let count = self.apps.len();
        self.apps.retain(|app| {
            let is_over = app.is_retired() && app.is_gone();
            if is_over {
                let (name, totals) = (&app.settings.name, app.totals());
                app.say(Level::Info, format_args!("removed {name}: {totals}"));
            }
            !is_over
        });
        match self.apps.len() < count && self.course == Course::Serving {
            true => self.retry_disabled(now),
            false => Vec::new(),
        }
    }

    /// One line about all apps.
    pub fn overview(&self) -> String {
        let of = |condition: &str| {
            let apps = self.apps.iter().filter(|app| !app.is_retired());
            let count = apps.filter(|app| app.condition() == condition).count();
            (count > 0).then(|| format!("{count} {condition}"))
        };
        let conditions = [
            "serving",
            "at rest",
            "starting",
            "waiting",
            "reloading",
            "leaving",
            "failing",
            "stopped",
        ];
        let mut parts: Vec<String> = conditions.into_iter().filter_map(of).collect();
        let disabled = self.host.as_ref().map_or(0, |host| host.disabled.len());
        if disabled > 0 {
            parts.push(format!("{disabled} disabled"));
        }
        match parts.is_empty() {
            true => "no apps".into(),
            false => format!("apps: {}", parts.join(", ")),
        }
    }
}
