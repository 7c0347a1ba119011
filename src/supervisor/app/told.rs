//! What becomes of an app when it is decided what its generations have come to: it is noted, and told.

#![forbid(unsafe_code)]

use super::gone::Gone;
use super::{App, News, serving};
use crate::config::{Workers, show_duration};
use crate::log::form::foreign;
use crate::log::{self, Level};
use crate::net;
use crate::schedule::{Cause, News as Told, Number};
use crate::supervisor::generation::Failure;
use crate::sys::clock::{MILLISECOND, Nanos};
use crate::sys::process::cpus;

impl App {
    pub(super) fn tell(&mut self, told: Told, gone: Option<&Gone>, now: Nanos) -> Option<News> {
        match (told, gone) {
            (Told::Failed { number, .. } | Told::Lost(number), Some(gone)) => {
                self.story.failed(number, &gone.how, now);
            }
            (Told::Serves { number, .. }, _) => self.story.served(number, now),
            (Told::StartsAfter(delay), _) => self.story.put_off(delay),
            _ => {}
        }
        match (told, gone) {
            (Told::Serves { number, cause }, _) => return self.serves(number, cause, now),
            (Told::Hopeless(number), Some(gone)) => return self.hopeless(number, gone, now),
            (
                Told::Failed {
                    cause: Cause::Reload,
                    serving,
                    ..
                },
                Some(gone),
            ) => {
                return self.reload_failed(serving, gone, now);
            }
            (Told::Failed { .. }, Some(gone)) => {
                let Gone { who, how, .. } = gone;
                let (reason, traceback) = (&how.reason, &how.traceback);
                self.complain(&format!("{who} did not come up: {reason}\n{traceback}"));
                return self.failed_to_start();
            }
            (Told::Lost(_), Some(gone)) => {
                self.tally.master_crashes += 1;
                self.complain(&format!("{}: {}", gone.who, gone.how.reason));
            }
            // Only an end makes these.
            (Told::Hopeless(_) | Told::Failed { .. } | Told::Lost(_), None) => {}
            (Told::StartsAfter(delay), _) if self.settings.presence.on_demand => {
                self.rest_until(now.saturating_add(delay), now);
            }
            (Told::StartsAfter(delay), _) => {
                self.status = format!("nothing serves {}: starting again", self.settings.target);
                let millis = delay / MILLISECOND;
                let prefix = self.prefix();
                self.say(
                    Level::Info,
                    format_args!("{prefix}starting the next generation in {millis} ms"),
                );
            }
            (Told::Superseded(number), _) => {
                let prefix = self.prefix();
                self.say(
                    Level::Info,
                    format_args!(
                        "{prefix}giving up generation {number}: another reload takes its place"
                    ),
                );
            }
            (Told::Waits(leaving), _) => self.say(
                Level::Warning,
                format_args!(
                    "{}the reload waits: {leaving} generations have not left yet, see --graceful-timeout",
                    self.prefix()
                ),
            ),
            (Told::Late(number), _) => self.late(number),
            (Told::Overdue(number), _) => {
                return self.with(number, |generation| {
                    let who = generation.describe();
                    let prefix = self.prefix();
                    self.say(
                        Level::Warning,
                        format_args!("{prefix}{who} does not leave in time: killing its master"),
                    );
                });
            }
        }
        None
    }

    fn serves(&mut self, number: Number, cause: Cause, now: Nanos) -> Option<News> {
        let index = self.index(number)?;
        let settings = self.generations[index].settings.clone();
        self.become_of(settings);
        if self.explains(number) {
            self.status = format!(
                "{} cannot be loaded: waiting for a change",
                self.settings.target
            );
            return Some(News::Settled);
        }
        self.show_nothing();
        if let Some(text) = self.held.take() {
            self.show(&text);
        }
        self.status = serving(&self.settings, number);
        self.presence.came_up(&self.settings);
        self.own_logs.renew(&self.settings);
        let prefix = self.prefix();
        if let Some(reload) = self.reload.take_if(|reload| reload.is_under_way()) {
            self.tally.reloads += 1;
            self.reload = Some(reload.succeeded(number, now));
        }
        let generation = &self.generations[index];
        let how = match cause {
            Cause::Reload => "reloaded: ",
            Cause::First | Cause::Restart => "",
        };
        self.say(
            Level::Info,
            format_args!(
                "{prefix}{how}serving {} on {} with {} (Python {}, generation {number}, {} ms)",
                self.settings.target,
                net::serves(&self.listeners),
                workers(self.settings.workers.resolve(cpus())),
                generation.python,
                generation.millis_since_start(now),
            ),
        );
        Some(News::Settled)
    }

    fn reload_failed(&mut self, serving: Option<Number>, gone: &Gone, now: Nanos) -> Option<News> {
        let error = gone.error();
        let text = error.to_string();
        let (reason, traceback) = text.split_once('\n').unwrap_or((&text, ""));
        let goes_on = match serving {
            Some(number) => format!("; generation {number} keeps serving"),
            None => "; nothing serves".into(),
        };
        self.complain(&format!("reload failed: {reason}{goes_on}\n{traceback}"));
        if serving.is_none() {
            self.failed_to_start();
        }
        self.show(&text);
        self.status = format!("reload failed: {reason}{goes_on}");
        if !self.plan.is_reloading()
            && let Some(reload) = self.reload.take()
        {
            self.tally.failed_reloads += 1;
            self.reload = Some(reload.failed(&text, now));
        }
        // Another may have been asked for meanwhile.
        (!self.plan.is_reloading()).then_some(News::Settled)
    }

    /// To the log of the server, and to the user of the app.
    pub(super) fn complain(&mut self, text: &str) {
        if !self.settings.is_hosted() {
            log::error!("{text}");
        } else {
            log::error!("{}{}", self.prefix(), foreign(text));
            let name = &self.settings.name;
            let entry = self.own_logs.note(name, Level::Error, text);
            self.tail.push(&entry);
        }
    }

    /// Whether it was fit to serve at all before is known only of a server with one app.
    fn failed_to_start(&mut self) -> Option<News> {
        self.presence.did_not_come_up();
        self.is_managed().then_some(News::Settled)
    }

    fn late(&mut self, number: Number) {
        let Some(index) = self.index(number) else {
            return;
        };
        let generation = &mut self.generations[index];
        let patience = show_duration(generation.settings.limits.start_timeout);
        let target = &generation.settings.target;
        generation.failure.get_or_insert(Failure {
            reason: format!(
                "importing {target} and starting the workers took longer than --start-timeout ({patience})"
            ),
            traceback: String::new(),
        });
    }
}

fn workers(pool: Workers) -> String {
    match (pool.min, pool.max) {
        (1, 1) => "1 worker".into(),
        (min, max) if min == max => format!("{min} workers"),
        (min, max) => format!("{min} to {max} workers"),
    }
}
