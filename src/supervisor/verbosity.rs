//! How much is logged of one of many apps: what is said in files and on the control socket, by the
//! administrator and by the user of the app.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use crate::config::{LevelOf, Settings};
use crate::log::{self, Level};

/// Without either it is as much as of the server as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verbosity {
    admin: Option<Level>,
    user: Option<Level>,
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Admin,
    User,
}

impl Verbosity {
    pub fn of(settings: &Settings) -> Self {
        let level = Some(settings.logs.level);
        let (admin, user) = match settings.logs.level_of {
            LevelOf::Server => (None, None),
            LevelOf::App => (level, None),
            LevelOf::User => (None, level),
        };
        Self { admin, user }
    }

    /// From now on; an administrator's word is the last one.
    pub fn set(&mut self, level: Level, by: By) {
        match by {
            By::Admin => (self.admin, self.user) = (Some(level), None),
            By::User => self.user = Some(level),
        }
    }

    /// What the log of the server takes about the app.
    pub fn in_log(self, server: Level) -> Level {
        self.admin.unwrap_or(server)
    }

    /// What its processes log. In the log of the server a user's app gets no louder than that is.
    pub fn of_processes(self, server: Level, place: Place) -> Level {
        let most = self.in_log(server);
        match (self.user, place) {
            (None, _) => most,
            (Some(level), Place::OfItsOwn) => level,
            (Some(level), Place::OfTheServer) => level.min(most),
        }
    }
}

/// Where the processes of an app log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    OfItsOwn,
    OfTheServer,
}

impl Place {
    pub fn of(settings: &Settings) -> Self {
        match settings.own_logs.error {
            Some(_) => Place::OfItsOwn,
            None => Place::OfTheServer,
        }
    }
}

/// The level at which the log of the server takes entries about one app, for a thread that writes such.
#[derive(Clone, Default)]
pub struct Shown(Arc<AtomicU32>);

impl Shown {
    pub fn set(&self, level: Level) {
        self.0.store(level as u32, Ordering::Relaxed);
    }

    pub fn level(&self) -> Level {
        log::Level::from_number(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_makes_the_log_of_the_server_neither_louder_nor_quieter() {
        let mut verbosity = Verbosity::default();
        let of = |verbosity: Verbosity, place| verbosity.of_processes(Level::Info, place);
        assert_eq!(of(verbosity, Place::OfTheServer), Level::Info);
        verbosity.set(Level::Debug, By::User);
        assert_eq!(of(verbosity, Place::OfTheServer), Level::Info);
        assert_eq!(of(verbosity, Place::OfItsOwn), Level::Debug);
        verbosity.set(Level::Error, By::User);
        assert_eq!(of(verbosity, Place::OfTheServer), Level::Error);
        assert_eq!(verbosity.in_log(Level::Info), Level::Info);
    }

    #[test]
    fn an_administrator_decides_about_all_that_is_said_of_an_app() {
        let mut verbosity = Verbosity::default();
        verbosity.set(Level::Debug, By::User);
        verbosity.set(Level::Warning, By::Admin);
        for place in [Place::OfItsOwn, Place::OfTheServer] {
            assert_eq!(verbosity.of_processes(Level::Info, place), Level::Warning);
        }
        assert_eq!(verbosity.in_log(Level::Info), Level::Warning);
        verbosity.set(Level::Debug, By::User);
        assert_eq!(
            verbosity.of_processes(Level::Info, Place::OfTheServer),
            Level::Warning
        );
    }
}
