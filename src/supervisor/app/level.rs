//! How much is logged of an app, by itself and by the supervisor.

#![forbid(unsafe_code)]

use super::App;
use crate::config::Settings;
use crate::log::form::foreign;
use crate::log::{self, Level};
use crate::supervisor::verbosity::{By, Place, Verbosity};

impl App {
    /// Tells the log of the server about the app.
    pub fn say(&self, level: Level, text: std::fmt::Arguments<'_>) {
        let most = self.verbosity.in_log(log::level());
        match self.settings.is_hosted() && level <= most {
            // It may repeat what its user has named.
            true => log::write_within(most, level, format_args!("{}", foreign(&text.to_string()))),
            false => log::write_within(most, level, text),
        }
    }

    /// What its processes log.
    pub fn level(&self) -> Level {
        let place = Place::of(&self.settings);
        self.verbosity.of_processes(log::level(), place)
    }

    /// What they could be made to log by this one.
    pub fn level_if(&self, level: Level, by: By) -> Level {
        let mut verbosity = self.verbosity;
        verbosity.set(level, by);
        verbosity.of_processes(log::level(), Place::of(&self.settings))
    }

    /// At once, for all its processes.
    pub fn set_level(&mut self, level: Level, by: By) {
        self.verbosity.set(level, by);
        self.pass_level_on();
    }

    /// Its file says something else about the level now, and about nothing else.
    pub fn take_level(&mut self, newer: &Settings) {
        let generations = self.generations.iter_mut().map(|g| &mut g.settings);
        let all = generations.chain(&mut self.candidate);
        for settings in all.chain([&mut self.settings]) {
            settings.logs.level = newer.logs.level;
            settings.logs.level_of = newer.logs.level_of;
        }
        self.verbosity = Verbosity::of(&self.settings);
        self.pass_level_on();
    }

    /// From now on its settings are these. A level that was asked for meanwhile stays, unless they say
    /// another one than those before.
    pub fn become_of(&mut self, settings: Settings) {
        let said = |settings: &Settings| (settings.logs.level, settings.logs.level_of);
        if said(&settings) != said(&self.settings) {
            self.verbosity = Verbosity::of(&settings);
        }
        self.settings = settings;
        self.pass_level_on();
    }

    /// Whoever logs for the app reads the level elsewhere.
    pub fn pass_level_on(&self) {
        let level = self.level();
        self.outputs()
            .for_each(|output| output.desk.set_level(level));
        let shown = self.verbosity.in_log(log::level());
        self.own_logs.shown.set(shown);
    }
}
