//! The end of what was pending: somebody has answered, something has ended, or time is up.

#![forbid(unsafe_code)]

use super::client::Id;
use super::pending::{Awaited, Pending, Then};
use super::stats;
use crate::control::{Kind, Recycled, Refused, Reloaded, ReloadedApp, Reply, Scaled, Trace};
use crate::supervisor::app::App;
use crate::supervisor::hosting::Outcome;
use crate::supervisor::{Course, Supervisor};
use crate::sys::clock::{self, Nanos};

impl Supervisor {
    /// Answers what can be answered by now.
    pub fn settle_answers(&mut self, now: Nanos) {
        let mut pending = std::mem::take(&mut self.control.pending);
        for app in &mut self.apps {
            for (generation, mut answer) in app.take_answers() {
                for question in &mut pending {
                    question.hear(&app.settings.name, generation, &mut answer);
                }
            }
        }
        for mut question in pending {
            question.forget(|awaited| self.is_there(awaited));
            let Pending { client, .. } = question;
            let is_due = question.until.is_some_and(|until| until <= now);
            let is_early = question.not_before > now;
            let is_over = match &question.then {
                Then::Reload(apps) => !self.is_reloading(apps),
                Then::Files(outcome) => !self.is_reloading(&outcome.reloaded),
                _ => question.awaited.is_empty(),
            };
            match is_due || is_over && !is_early {
                false => self.control.pending.push(question),
                true => self.conclude(client, question, now),
            }
        }
    }

    fn is_there(&self, awaited: &Awaited) -> bool {
        let generations = |app: &App| {
            let mut generations = app.generations.iter();
            app.settings.name == awaited.app
                && generations.any(|g| g.number == awaited.generation && !g.is_silent())
        };
        self.apps.iter().any(generations)
    }

    fn is_reloading(&self, names: &[String]) -> bool {
        let among = |app: &&App| names.contains(&app.settings.name);
        self.course == Course::Serving && self.apps.iter().filter(among).any(App::is_reloading)
    }

    fn conclude(&mut self, client: Id, question: Pending, now: Nanos) {
        let Pending {
            then,
            refused,
            awaited,
            ..
        } = question;
        let late = || {
            let text = "the master has not answered in time; the log may say why";
            Refused::new(Kind::TimedOut, text)
        };
        let answer: Result<Reply, Refused> = match (then, refused) {
            (Then::Page(page), _) => return self.show(client, page, now),
            (Then::Stats(named), _) => {
                let role = self.control.role_of(client);
                Ok(Reply::Stats(Box::new(self.stats_for(
                    role,
                    named.as_deref(),
                    now,
                ))))
            }
            (Then::Reload(names), _) => self.outcome(&names),
            (Then::Files(outcome), _) => self.outcome_of_files(outcome),
            (_, _) if !awaited.is_empty() => Err(late()),
            (Then::Scale(scaled), None) => Ok(Reply::Scaled(Scaled { scaled })),
            (Then::Recycle(recycling), None) => Ok(Reply::Recycled(Recycled { recycling })),
            // One of several generations has no such worker, or has ended.
            (Then::Trace { stacks, .. }, refused) => match refused {
                Some(refused) if stacks.is_empty() => Err(refused),
                _ => Ok(Reply::Trace(Trace { stacks })),
            },
            (_, Some(refused)) => Err(refused),
        };
        match answer {
            Ok(reply) => self.control.reply(client, reply, now),
            Err(refused) => self.control.reply(client, refused, now),
        }
    }

    /// What has come of the files of many apps; whatever is wrong with one is the reason of a failure.
    fn outcome_of_files(&self, outcome: Outcome) -> Result<Reply, Refused> {
        let mut refused = Refused::new(Kind::Failed, "");
        let mut reloaded = Vec::new();
        let mut errors: Vec<String> = outcome
            .mistakes
            .iter()
            .map(|(app, reason)| format!("{app}: {reason}"))
            .collect();
        for name in &outcome.reloaded {
            match self.outcome(std::slice::from_ref(name)) {
                Ok(Reply::Reloaded(one)) => reloaded.extend(one.reloaded),
                Err(one) => {
                    errors.push(format!("{name}: {}", one.error));
                    if refused.traceback.is_empty() {
                        refused.traceback = one.traceback;
                    }
                }
                Ok(_) => {}
            }
        }
        match errors.is_empty() {
            true => Ok(Reply::Reloaded(Reloaded {
                reloaded,
                added: outcome.added,
                removed: outcome.removed,
            })),
            false => {
                refused.error = errors.join("; ");
                Err(refused)
            }
        }
    }

    fn outcome(&self, names: &[String]) -> Result<Reply, Refused> {
        let mut reloaded = Vec::new();
        for app in self
            .apps
            .iter()
            .filter(|app| names.contains(&app.settings.name))
        {
            let ended = app.reload.as_ref().and_then(|reload| {
                let ended = reload.ended.as_ref()?;
                Some((ended.at.saturating_sub(reload.asked), &ended.result))
            });
            match ended {
                Some((took, Ok(generation))) => reloaded.push(ReloadedApp {
                    app: app.settings.name.clone(),
                    generation: *generation,
                    took_seconds: clock::seconds(took),
                }),
                Some((_, Err(failure))) => {
                    return Err(Refused {
                        kind: Kind::Failed,
                        error: failure.reason.clone(),
                        traceback: stats::without_controls(&failure.traceback),
                    });
                }
                None => return Err(Refused::new(Kind::Unavailable, "the server stops")),
            }
        }
        Ok(Reply::Reloaded(Reloaded {
            reloaded,
            added: Vec::new(),
            removed: Vec::new(),
        }))
    }
}
