//! The log files that the user of an app has for it: written as that user, into files of that user.
//!
//! What goes wrong with them is told in the log of the server, and goes no further: whoever owns them may
//! delete, link or fill up whatever is around them.

#![forbid(unsafe_code)]

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::budget::{Budget, Room};
use super::logs::Logs;
use super::privileges;
use super::verbosity::Shown;
use crate::access::Taken;
use crate::config::{self, Settings};
use crate::log::form::foreign;
use crate::log::writer::Trouble;
use crate::log::{self, Allowed, Entry, Form, Level, Throttle, Writer};
use crate::sys::append::Owner;
use crate::sys::clock::{self, Nanos};

/// Entries per second about the files of one app: its user can make them fail and work at will.
const TOLD: u32 = 2;

#[derive(Default)]
pub struct OwnLogs {
    wanted: Option<Wanted>,
    error: Option<Writer>,
    access: Option<Writer>,
    /// What the log of the server is told about them.
    pub shown: Shown,
}

#[derive(PartialEq, Eq)]
struct Wanted {
    files: config::OwnLogs,
    form: Form,
    owner: Owner,
}

/// Where the entries and lines of one app go.
pub struct Sinks<'a> {
    pub server: &'a mut Logs,
    pub own: &'a OwnLogs,
    /// Of entries beyond it nothing is kept, whatever a process makes of it.
    pub level: Level,
    /// Of the log of the server.
    pub budget: &'a mut Budget,
    pub now: Nanos,
}

impl OwnLogs {
    pub fn of(settings: &Settings) -> OwnLogs {
        let mut logs = OwnLogs::default();
        logs.renew(settings);
        logs
    }

    /// From now on the files are those of these settings.
    pub fn renew(&mut self, settings: &Settings) {
        let wanted = wanted(settings);
        if wanted == self.wanted {
            return;
        }
        let app: Arc<str> = settings.name.as_str().into();
        let open = |file: Option<&Path>, form, what| {
            let (file, wanted) = (file?, wanted.as_ref()?);
            let teller = Teller::new(Arc::clone(&app), what, self.shown.clone());
            let place = (file, &wanted.owner);
            Some(Writer::of_user(place, form, move |trouble| {
                teller.tell(&trouble)
            }))
        };
        let files = &settings.own_logs;
        self.error = open(files.error.as_deref(), settings.log_format, "log");
        self.access = open(files.access.as_deref(), Form::Text, "access log");
        self.wanted = wanted;
    }

    /// What the supervisor has to say to the user of the app.
    pub fn note(&self, app: &str, level: Level, text: &str) -> Entry {
        let entry = Entry {
            time: SystemTime::now(),
            level,
            who: format!("supervisor [{app}]"),
            pid: std::process::id(),
            text: text.trim_end().to_owned(),
        };
        if let Some(error) = &self.error {
            error.entry(entry.clone());
        }
        entry
    }

    pub fn writers(&self) -> impl Iterator<Item = &Writer> {
        self.error.iter().chain(&self.access)
    }
}

fn wanted(settings: &Settings) -> Option<Wanted> {
    if !settings.own_logs.any() {
        return None;
    }
    // One who is not there is told when the app is started.
    let identity = privileges::resolve(&settings.privileges).ok()?.identity;
    Some(Wanted {
        files: settings.own_logs.clone(),
        form: settings.log_format,
        owner: identity.map_or(Owner::Ourselves, Owner::User),
    })
}

impl Sinks<'_> {
    /// What a master or worker has to say.
    pub fn entry(&mut self, entry: Entry) {
        if entry.level > self.level && !entry.is_output() {
            return;
        }
        match &self.own.error {
            Some(own) => {
                self.server.said(&entry);
                own.entry(entry);
            }
            None => match self.budget.ask(entry.text.len(), self.now) {
                Room::None => self.server.said(&entry),
                Room::Some { withheld } => {
                    if withheld > 0 {
                        self.tell_withheld(&entry, withheld);
                    }
                    self.server.entry(entry);
                }
            },
        }
    }

    fn tell_withheld(&mut self, next: &Entry, withheld: u64) {
        let app = next.app().unwrap_or_default();
        self.server.entry(Entry {
            level: Level::Warning,
            who: format!("supervisor [{app}]"),
            pid: std::process::id(),
            text: format!(
                "{withheld} entries of {app} were not logged: it writes more than there is room for; \
                 app-log gives it a log of its own"
            ),
            ..next.clone()
        });
    }

    pub fn access(&mut self, text: Vec<u8>, taken: Taken, now: Nanos) {
        self.server
            .access(text, taken, self.own.access.as_ref(), now);
    }
}

/// Tells the server's log about trouble with a file, but not as often as its user likes.
#[derive(Clone)]
struct Teller {
    app: Arc<str>,
    what: &'static str,
    throttle: Arc<Mutex<Throttle>>,
    shown: Shown,
}

impl Teller {
    fn new(app: Arc<str>, what: &'static str, shown: Shown) -> Self {
        Self {
            app,
            what,
            throttle: Arc::new(Mutex::new(Throttle::new(TOLD))),
            shown,
        }
    }

    fn tell(&self, trouble: &Trouble) {
        let throttle = self.throttle.lock();
        let allowed = throttle
            .unwrap_or_else(PoisonError::into_inner)
            .ask(clock::now());
        if allowed == Allowed::No {
            return;
        }
        let (app, what) = (&self.app, self.what);
        let say = |level, text: std::fmt::Arguments<'_>| {
            let text = foreign(&text.to_string());
            log::write_within(self.shown.level(), level, format_args!("{text}"));
        };
        match trouble {
            Trouble::Fails(reason) | Trouble::CannotReopen(reason) => say(
                Level::Warning,
                format_args!(
                    "{app}: cannot write its {what}: {reason}; lines are lost until it works again"
                ),
            ),
            Trouble::WorksAgain(lost) => say(
                Level::Info,
                format_args!("{app}: its {what} works again; {lost} lines were lost"),
            ),
            Trouble::TooSlow(lost) => say(
                Level::Warning,
                format_args!("{app}: its {what} is too slow; {lost} lines were lost"),
            ),
        }
    }
}
