//! What becomes of a question.

#![forbid(unsafe_code)]

use super::Question;
use super::access::Role;
use super::client::Id;
use super::pending::{Awaited, Pending, Then};
use super::stats::View;
use crate::config::SETTINGS;
use crate::control::{
    AppConfig, Asked, Config, HowToStop, Kind, Level, Page, Ping, Refused, Reply, Request, Resize,
    SCHEMA, SettingInForce, Stats, Stopping, Verb, Workers,
};
use crate::link::{Order, Ticket};
use crate::log;
use crate::supervisor::app::{App, News};
use crate::supervisor::generation::Generation;
use crate::supervisor::verbosity::By;
use crate::supervisor::{Course, ONE_CONNECTION, Supervisor};
use crate::sys::clock::{self, MILLISECOND, Nanos, SECOND};

/// Between two samples of the memory.
const SAMPLE: Nanos = 10 * SECOND;
/// Between two statistics. Each reads what the workers are writing, so a client that asks without a pause
/// would cost them.
const GAP: Nanos = 5 * MILLISECOND;
/// How long statistics wait for a sample; then they come with the last one.
const SAMPLE_PATIENCE: Nanos = 250 * MILLISECOND;
/// How long a master may take to answer.
const PATIENCE: Nanos = 2 * SECOND;
/// The same for stacks: one process that does not react is waited for by the master.
const TRACE_PATIENCE: Nanos = 5 * SECOND;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

type Answered = Result<Option<Reply>, Refused>;

impl Supervisor {
    /// Answers, or sees to it that somebody will.
    pub fn answer(&mut self, question: Question, now: Nanos) -> Vec<News> {
        let Question {
            client,
            role,
            who,
            asked,
        } = question;
        let mut news = Vec::new();
        match asked {
            Asked::Wrong(refused) if role == Role::Public => {
                let page = Page::of_error(400);
                let body = format!("{}\n", refused.error);
                let answer = (400, TEXT, body.as_bytes());
                self.control.page(client, page, answer, now);
            }
            Asked::Wrong(refused) => self.control.refuse_and_close(client, refused, now),
            Asked::Page(page) => self.turn_to(client, role, page, now),
            Asked::Line(_) if role == Role::Public => {
                let answer = (400, TEXT, &b"only /metrics and /health are here\n"[..]);
                self.control.page(client, Page::of_error(400), answer, now);
            }
            Asked::Line(line) => {
                let request = Request::read(&line).and_then(|request| may(role, request));
                let done = request.and_then(|request| {
                    self.carry_out((client, role), &request, &who, &mut news, now)
                });
                match done {
                    Ok(None) => {}
                    Ok(Some(reply)) => self.control.reply(client, reply, now),
                    Err(refused) => self.control.reply(client, refused, now),
                }
            }
        }
        news
    }

    /// `None` when the answer comes later.
    fn carry_out(
        &mut self,
        (client, role): (Id, Role),
        request: &Request,
        who: &str,
        news: &mut Vec<News>,
        now: Nanos,
    ) -> Answered {
        let named = request.app.as_deref();
        let apps = match &request.verb {
            // Of files that are no apps, too.
            Verb::Reload | Verb::Apps | Verb::Why if self.host.is_some() => Vec::new(),
            _ => self.chosen(named, role)?,
        };
        let name = request.verb.name();
        if !request.verb.only_reads() {
            self.control.admit_change(role, now)?;
            log::info!("{name} was asked for ({who})");
        }
        match &request.verb {
            Verb::Ping => Ok(Some(Reply::Ping(Ping {
                schema: SCHEMA,
                server: self.view(now).process(),
                apps: self
                    .apps
                    .iter()
                    .filter(|app| !app.is_retired() && is_visible(app, role))
                    .map(|app| app.settings.name.clone())
                    .collect(),
            }))),
            Verb::Stats => {
                let then = Then::Stats(request.app.clone());
                match self.wants_sample(Pending::new(client, None, then), now) {
                    Some(_) => {
                        let stats = self.stats_for(role, named, now);
                        Ok(Some(Reply::Stats(Box::new(stats))))
                    }
                    None => Ok(None),
                }
            }
            Verb::Config => Ok(Some(Reply::Config(self.config(&apps)))),
            Verb::Stop(how) if self.host.is_some() && named.is_some() => {
                Ok(Some(self.stop_apps(&apps, *how, now)))
            }
            Verb::Stop(how) => Ok(Some(self.stop(*how, now))),
            Verb::Logs => Ok(Some(Reply::Logs(self.tail(&apps)))),
            Verb::Apps => Ok(Some(Reply::Apps(self.list_apps(named, role.owner(), now)))),
            Verb::Why => self
                .tell_why(named, role.owner(), now)
                .map(|why| Some(Reply::Why(why))),
            Verb::Reload if self.host.is_some() => {
                self.ask_reload_files((client, role), named, now)
            }
            Verb::Reload => self.ask_reload(client, &apps, news, now),
            Verb::Scale(_) | Verb::Recycle { .. } if self.serves_one_connection() => {
                Err(Refused::new(Kind::Unavailable, ONE_CONNECTION))
            }
            Verb::Scale(resize) => {
                let resize = *resize;
                if let Resize::To(0) = resize {
                    let text = "a pool has at least one worker";
                    return Err(Refused::new(Kind::BadArgument, text));
                }
                let order = |ticket| Order::Resize { ticket, resize };
                self.order_serving(client, &apps, Then::Scale(Vec::new()), order, now)
            }
            Verb::Recycle { worker } => {
                let worker = *worker;
                let order = |ticket| Order::Recycle { ticket, worker };
                self.order_serving(client, &apps, Then::Recycle(0), order, now)
            }
            Verb::Trace(workers) => self.ask_trace(client, &apps, *workers, now),
            Verb::Reopen => {
                self.reopen();
                Ok(Some(Reply::Reopened {}))
            }
            Verb::LogLevel { level } => {
                let apps = match named {
                    Some(_) if self.host.is_some() => apps,
                    _ => Vec::new(),
                };
                self.log_level(&apps, level.as_deref(), role).map(Some)
            }
        }
    }

    /// Shows or sets the level of these apps, or of the server.
    fn log_level(
        &mut self,
        apps: &[usize],
        level: Option<&str>,
        role: Role,
    ) -> Result<Reply, Refused> {
        let refuse = |text: String| Refused::new(Kind::BadArgument, text);
        let level = level.map(|name| {
            log::Level::from_name(name)
                .ok_or_else(|| refuse("a level is error, warning, info or debug".into()))
        });
        let level = level.transpose()?;
        let by = match role.owner() {
            Some(_) => By::User,
            None => By::Admin,
        };
        let Some(app) = apps.first().map(|index| &mut self.apps[*index]) else {
            if let Some(level) = level {
                self.set_log_level(level);
            }
            let level = log::level().name().into();
            return Ok(Reply::Level(Level { level }));
        };
        if let Some(level) = level {
            let most = app.level_if(level, by);
            if most != level {
                return Err(refuse(format!(
                    "in the log of the server {} is as much as there is of this app; with app-log it has one of \
                     its own",
                    most.name()
                )));
            }
            app.set_level(level, by);
        }
        let level = app.level().name().into();
        Ok(Reply::Level(Level { level }))
    }

    /// Indices of the apps that a request is about.
    fn chosen(&self, name: Option<&str>, role: Role) -> Result<Vec<usize>, Refused> {
        let fits = |app: &App| {
            !app.is_retired()
                && is_visible(app, role)
                && name.is_none_or(|name| app.settings.name == name)
        };
        let chosen: Vec<usize> = (0..self.apps.len())
            .filter(|index| fits(&self.apps[*index]))
            .collect();
        match chosen.is_empty() && (name.is_some() || self.host.is_none()) {
            true => Err(Refused::no_such_app(name)),
            false => Ok(chosen),
        }
    }

    fn stop(&mut self, how: HowToStop, now: Nanos) -> Reply {
        let course = match how {
            HowToStop::Graceful => Course::Draining,
            HowToStop::Now => Course::Stopping,
        };
        // A second request only ever makes it quicker.
        if self.course != Course::Stopping && self.course != course {
            self.advance(course, now);
        }
        Reply::Stopping(Stopping {
            stopping: how,
            app: None,
        })
    }

    /// Of many apps these.
    fn stop_apps(&mut self, apps: &[usize], how: HowToStop, now: Nanos) -> Reply {
        let mut name = None;
        for index in apps {
            let app = &mut self.apps[*index];
            name = Some(app.settings.name.clone());
            app.halt(now);
            if how == HowToStop::Now {
                app.hurry(now);
            }
        }
        Reply::Stopping(Stopping {
            stopping: how,
            app: name,
        })
    }

    fn ask_reload_files(
        &mut self,
        (client, role): (Id, Role),
        named: Option<&str>,
        now: Nanos,
    ) -> Answered {
        if self.course != Course::Serving {
            return Err(Refused::new(Kind::Unavailable, "the server stops"));
        }
        let done = match named {
            Some(name) => self.reload_file(name, role.owner(), now),
            None => self.reload_files(now),
        };
        let outcome = done.map_err(|error| Refused::new(Kind::Failed, error.to_string()))?;
        let then = Then::Files(outcome);
        self.control.wait(client, Pending::new(client, None, then));
        Ok(None)
    }

    fn ask_reload(
        &mut self,
        client: Id,
        apps: &[usize],
        news: &mut Vec<News>,
        now: Nanos,
    ) -> Answered {
        if self.course != Course::Serving {
            return Err(Refused::new(Kind::Unavailable, "the server stops"));
        }
        let (told, read) = self.reload(apps, now);
        news.extend(told);
        if let Err(error) = read {
            return Err(Refused::new(Kind::Failed, error.to_string()));
        }
        let names = apps.iter().map(|app| self.apps[*app].settings.name.clone());
        let then = Then::Reload(names.collect());
        self.control.wait(client, Pending::new(client, None, then));
        Ok(None)
    }

    fn order_serving(
        &mut self,
        client: Id,
        apps: &[usize],
        then: Then,
        order: impl Fn(Ticket) -> Order,
        now: Nanos,
    ) -> Answered {
        let mut pending = Pending::new(client, Some(now + PATIENCE), then);
        for app in apps {
            let app = &self.apps[*app];
            let Some(serving) = app.serving() else {
                let text = format!("no generation of {} serves", app.settings.name);
                return Err(Refused::new(Kind::Unavailable, text));
            };
            pending
                .awaited
                .push(awaited(app, serving, self.control.ticket()));
            serving.order(order(self.control.next_ticket));
        }
        self.control.wait(client, pending);
        Ok(None)
    }

    fn ask_trace(&mut self, client: Id, apps: &[usize], workers: Workers, now: Nanos) -> Answered {
        let then = Then::Trace {
            stacks: Vec::new(),
            bytes: 0,
        };
        let mut pending = Pending::new(client, Some(now + TRACE_PATIENCE), then);
        for app in apps {
            let app = &self.apps[*app];
            for generation in app.generations.iter().filter(|g| !g.python.is_empty()) {
                let ticket = self.control.ticket();
                pending.awaited.push(awaited(app, generation, ticket));
                generation.order(Order::Trace { ticket, workers });
            }
        }
        self.control.wait(client, pending);
        Ok(None)
    }

    /// Asks the masters for a sample of the memory when it is time for one; the pending question comes
    /// back when it is not.
    pub(super) fn wants_sample(&mut self, mut pending: Pending, now: Nanos) -> Option<Pending> {
        for app in &mut self.apps {
            let Some(serving) = app.serving() else {
                continue;
            };
            let number = serving.number;
            let is_fresh = |(of, at)| of == number && now.saturating_sub(at) < SAMPLE;
            if app.sampled.is_some_and(is_fresh) {
                continue;
            }
            let ticket = self.control.ticket();
            pending.awaited.push(awaited(app, serving, ticket));
            serving.order(Order::Sample { ticket });
            app.sampled = Some((number, now));
        }
        if let Some((at, _)) = &self.control.last {
            pending.not_before = at + GAP;
        }
        match pending.awaited.is_empty() {
            true if pending.not_before <= now => return Some(pending),
            true => {}
            false => pending.until = Some(now + SAMPLE_PATIENCE),
        }
        self.control.wait(pending.client, pending);
        None
    }

    pub(super) fn view(&self, now: Nanos) -> View<'_> {
        View {
            apps: &self.apps,
            state: match self.course {
                Course::Serving => "serving",
                Course::Draining => "draining",
                Course::Stopping => "stopping",
            },
            birth: self.birth,
            now,
            unix: clock::unix_nanos(),
        }
    }

    /// All that are answered in one turn get the same.
    pub(super) fn stats(&mut self, now: Nanos) -> Stats {
        if let Some((at, stats)) = &self.control.last
            && *at == now
        {
            return stats.clone();
        }
        let stats = self.view(now).stats(self.control.diag.as_ref());
        self.control.last = Some((now, stats.clone()));
        stats
    }

    /// What this client may see of them, and has asked for.
    pub(super) fn stats_for(&mut self, role: Role, named: Option<&str>, now: Nanos) -> Stats {
        let mut stats = self.stats(now);
        stats
            .apps
            .retain(|app| named.is_none_or(|name| app.name == name));
        if let Some(owner) = role.owner() {
            let is_own = |name: &str| {
                let mut apps = self.apps.iter().filter(|app| app.settings.name == name);
                apps.all(|app| app.presence.owner == owner)
            };
            stats.apps.retain(|app| is_own(&app.name));
        }
        stats
    }

    fn config(&self, apps: &[usize]) -> Config {
        let takes_effect = |name: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.name == name);
            setting.map_or("", |setting| setting.takes_effect.name())
        };
        let app = |index: &usize| {
            let settings = &self.apps[*index].settings;
            let shown = settings.given.iter().map(|given| SettingInForce {
                name: given.name.clone(),
                values: given.values.clone(),
                source: given.source.clone(),
                takes_effect: takes_effect(&given.name).into(),
            });
            AppConfig {
                app: settings.name.clone(),
                settings: shown.collect(),
            }
        };
        Config {
            apps: apps.iter().map(app).collect(),
        }
    }
}

fn is_visible(app: &App, role: Role) -> bool {
    role.owner().is_none_or(|owner| owner == app.presence.owner)
}

fn may(role: Role, request: Request) -> Result<Request, Refused> {
    match role {
        Role::Everything => Ok(request),
        Role::Looking if request.verb.only_reads() => Ok(request),
        Role::Owner(_) if request.verb.is_for_users() => {
            // Of which app, has to be said; there is no way to stop or reload all of one's own.
            let steers =
                !request.verb.only_reads() || matches!(request.verb, Verb::LogLevel { .. });
            match request.app.is_none() && steers {
                true => Err(Refused::new(Kind::NoPermission, "say which of your apps")),
                false => Ok(request),
            }
        }
        Role::Owner(_) => {
            let text = format!("{} is not for users of apps", request.verb.name());
            Err(Refused::new(Kind::NoPermission, text))
        }
        Role::Looking | Role::Public => {
            let verb = request.verb.name();
            let text = format!("{verb} takes root or the user of the server");
            Err(Refused::new(Kind::NoPermission, text))
        }
    }
}

fn awaited(app: &App, generation: &Generation, ticket: Ticket) -> Awaited {
    Awaited {
        ticket,
        app: app.settings.name.clone(),
        generation: generation.number,
    }
}
