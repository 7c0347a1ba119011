//! An app with `--reload`: its files are watched, and what keeps it from being loaded is shown to whoever
//! asks for something.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::{App, Gone, News, terms};
use crate::config::Watching;
use crate::link::Purpose;
use crate::log;
use crate::net;
use crate::schedule::{Event, Moment, Number};
use crate::supervisor::development::Development;
use crate::sys::clock::Nanos;

/// Whether a generation takes the place of one that has never come up, to show why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explains {
    Nothing,
    Next,
    Generation(Number),
}

impl Explains {
    /// What the generation that is to be started is for.
    pub fn purpose(&mut self, number: Number) -> Purpose {
        match self {
            Explains::Next => {
                *self = Explains::Generation(number);
                Purpose::Explain
            }
            Explains::Nothing | Explains::Generation(_) => Purpose::Serve,
        }
    }
}

/// Before a generation is started with `--reload`.
pub fn begin(development: &mut Option<Development>, watching: &Watching) {
    if development.is_none() {
        match Development::new() {
            Ok(new) => *development = Some(new),
            Err(error) => log::error!("cannot watch for changes: {error}; reload by HUP"),
        }
    }
    if let Some(development) = development {
        development.begins(watching);
    }
}

impl App {
    pub fn development(&self) -> Option<&Development> {
        self.development.as_ref()
    }

    /// A file that has changed, when it is time to reload.
    pub fn look_for_changes(&mut self, now: Nanos) -> Option<PathBuf> {
        let moment = match self.plan.is_reloading() || !self.plan.has_served() {
            true => Moment::Starting,
            false => Moment::Settled,
        };
        self.development.as_mut()?.look(moment, now)
    }

    /// What is shown until a reload succeeds.
    pub(super) fn show(&self, text: &str) {
        if let Some(development) = &self.development {
            development.set_notice(text);
        }
    }

    pub(super) fn show_nothing(&mut self) {
        self.explains = Explains::Nothing;
        if let Some(development) = &self.development {
            development.clear_notice();
        }
    }

    /// The app never served and cannot: the end, unless a change is waited for.
    pub(super) fn hopeless(&mut self, number: Number, gone: &Gone, now: Nanos) -> Option<News> {
        let error = gone.error();
        // What cannot even be started is wrong on the command line.
        let is_first = self.reload.is_none() && self.explains == Explains::Nothing;
        if !self.settings.reload || (is_first && gone.error.is_some()) {
            return Some(News::Failed(error));
        }
        let text = error.to_string();
        log::error!("{text}");
        if let Some(reload) = self.reload.take_if(|reload| reload.is_under_way()) {
            self.tally.failed_reloads += 1;
            self.reload = Some(reload.failed(&text, now));
        }
        if self.explains == Explains::Generation(number) {
            log::info!("waiting for a change");
            return None;
        }
        self.show(&text);
        self.explains = Explains::Next;
        self.candidate = Some(self.settings.clone());
        self.step(Event::Reload(terms(&self.settings)), None, now)
    }

    /// A generation shows why the application is not there. False when it serves it.
    pub(super) fn explains(&self, number: Number) -> bool {
        let explains = self.explains == Explains::Generation(number);
        if explains {
            let where_ = net::serves(&self.listeners);
            log::info!("waiting for a change; until then {where_} shows what is wrong");
        }
        explains
    }
}
