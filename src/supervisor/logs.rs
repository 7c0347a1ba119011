//! The sinks of the supervisor: the error log, where it is not standard error, and the access log.

#![forbid(unsafe_code)]

use crate::access::Taken;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::log::form;
use crate::log::writer::Trouble;
use crate::log::{self, Destination, Entry, Form, Level, Way, Writer};
use crate::sys::clock::{Nanos, SECOND};

use super::output::{self, FLUSH};

/// Between two entries about requests without a line.
const TELL: Nanos = 10 * SECOND;

pub struct Logs {
    error: Option<Writer>,
    access: Option<Writer>,
    /// What applications print is told apart.
    names_output: bool,
    /// What has been said since somebody looked, where each app's is kept apart.
    said: Vec<Entry>,
    /// Requests without a line, not yet told.
    lost: u64,
    /// When that may be told again.
    tell_at: Nanos,
}

impl Logs {
    /// Opens the sinks; from now on entries of this process go there.
    pub fn open(settings: &Settings) -> Result<Logs> {
        log::set_level(settings.logs.level);
        let refused = |name: &str, where_to: &Destination, error: std::io::Error| {
            let doing = match where_to {
                Destination::File(path) => format!("cannot open --{name} {}", path.display()),
                _ => format!("cannot open --{name}"),
            };
            Error::io(doing, &error)
        };
        let form = settings.log_format;
        let error = match &settings.log {
            Destination::Stderr => {
                log::configure(Way::stderr(form));
                // At a terminal there may be applications of others (`Prints`).
                match settings.is_hosted() || output::is_terminal() {
                    true => Some(of_apps(form).map_err(|e| refused("log", &settings.log, e))?),
                    false => None,
                }
            }
            place => {
                let writer = Writer::open(place, form, error_trouble);
                let writer = writer.map_err(|error| refused("log", place, error))?;
                log::configure(Way::Writer(writer.clone()));
                Some(writer)
            }
        };
        let access = match &settings.access_log {
            None => None,
            Some(place) => {
                let writer = Writer::open(place, Form::Text, access_trouble);
                Some(writer.map_err(|error| refused("access-log", place, error))?)
            }
        };
        Ok(Logs {
            error,
            access,
            names_output: settings.is_hosted(),
            said: Vec::new(),
            lost: 0,
            tell_at: 0,
        })
    }

    /// What a master or worker has to say.
    pub fn entry(&mut self, mut entry: Entry) {
        if self.names_output && entry.is_output() {
            // Whose print it is has to be said: it becomes an entry like others.
            entry.who = entry.who.replacen("output", "app", 1);
        }
        if self.names_output {
            entry.text = form::foreign(&entry.text);
        }
        if self.names_output {
            self.said(&entry);
        }
        if let Some(writer) = &self.error {
            writer.entry(entry);
        }
    }

    /// For whoever asks what an app has said.
    pub fn said(&mut self, entry: &Entry) {
        self.said.push(entry.clone());
    }

    /// What has been said since the last look.
    pub fn take_said(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.said)
    }

    /// `own`: of the user of the app, instead of the server's.
    pub fn access(&mut self, text: Vec<u8>, taken: Taken, own: Option<&Writer>, now: Nanos) {
        let writer = own.or(self.access.as_ref());
        if let Some(writer) = writer.filter(|_| taken.lines > 0) {
            writer.lines(text, taken.lines);
        }
        self.lost = self.lost.saturating_add(taken.lost);
        if self.lost > 0 && self.tell_at <= now {
            let lost = std::mem::take(&mut self.lost);
            log::warning!(
                "{lost} requests have no line in the access log: it was not read in time"
            );
            self.tell_at = now.saturating_add(TELL);
        }
    }

    /// Files that were moved away are made anew.
    pub fn reopen(&self) {
        for writer in self.error.iter().chain(&self.access) {
            writer.reopen();
        }
    }

    /// Waits for the sinks and for those of the apps, though not for long.
    pub fn flush<'a>(&'a self, own: impl Iterator<Item = &'a Writer>) {
        Writer::flush_all(own.chain(&self.access), FLUSH);
        // It tells of trouble with the others.
        Writer::flush_all(&self.error, FLUSH);
    }
}

/// Where entries go that are read from a pipe when the supervisor's own go to standard error.
fn of_apps(form: Form) -> std::io::Result<Writer> {
    let place = match log::is_journal() {
        true => Destination::Journal { socket: None },
        false => Destination::Stderr,
    };
    Writer::open(&place, form, error_trouble)
}

/// The error log cannot tell about itself while it fails.
fn error_trouble(trouble: Trouble) {
    match trouble {
        Trouble::Fails(_) | Trouble::CannotReopen(_) => {
            log::on_stderr(Level::Error, format_args!("{}", describe("log", &trouble)));
        }
        Trouble::WorksAgain(_) | Trouble::TooSlow(_) => {
            log::warning!("{}", describe("log", &trouble));
        }
    }
}

fn access_trouble(trouble: Trouble) {
    let text = describe("access log", &trouble);
    match trouble {
        Trouble::Fails(_) | Trouble::CannotReopen(_) => log::error!("{text}"),
        Trouble::WorksAgain(_) | Trouble::TooSlow(_) => log::warning!("{text}"),
    }
}

fn describe(name: &str, trouble: &Trouble) -> String {
    match trouble {
        Trouble::Fails(reason) => {
            format!("cannot write the {name}: {reason}; lines are lost until it works again")
        }
        Trouble::WorksAgain(lost) => format!("the {name} works again; {lost} lines were lost"),
        Trouble::TooSlow(lost) => format!("the {name} is too slow; {lost} lines were lost"),
        Trouble::CannotReopen(reason) => {
            format!("cannot open the {name} anew: {reason}; the old file is used on")
        }
    }
}
