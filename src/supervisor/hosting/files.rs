//! From the files of `--apps-dir` to apps that can be served: at the start, and again for each reload.

#![forbid(unsafe_code)]

use super::{Disabled, Host};
use crate::config::{self, AppFile, Change, Invocation, Place, Settings};
use crate::error::{Error, Exit, Result};
use crate::log::form::foreign;
use crate::log::{self, Level};
use crate::net::{self, Kept, Listener, Passed};
use crate::supervisor::app::{App, News};
use crate::supervisor::{Supervisor, check, configuration};
use crate::sys::clock::Nanos;
use crate::sys::process::cpus;
use crate::sys::{account, descriptors};
use nix::unistd::Uid;

/// What a reload has made of the files.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Apps of which a generation with other settings is to come up.
    pub reloaded: Vec<String>,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Apps with a mistake in their files: what runs goes on, what does not is disabled.
    pub mistakes: Vec<(String, String)>,
}

/// Many apps need many descriptors.
pub fn make_room() {
    if let Err(error) = descriptors::raise() {
        log::warning!(
            "no more descriptors than usual: {error}; about a hundred apps can run at once with a limit of 1024"
        );
    }
}

/// The apps of a server that starts, and what is to be told of the others.
pub fn open(host: config::Host, passed: Vec<Passed>) -> Result<(Host, Vec<App>)> {
    let files = host.apps()?;
    let mut opened = Host::of(host);
    opened.kept = Kept::of(&passed)?;
    opened.passed = passed;
    let mut apps = Vec::new();
    for file in files {
        opened.admit(file, &mut apps);
    }
    // Of apps that are gone, or listen elsewhere now.
    opened.kept = Kept::default();
    Ok((opened, apps))
}

/// `--check`: imports every app.
pub fn check_all(host: &config::Host) -> Result<()> {
    let mut bad = 0;
    for AppFile { name, settings, .. } in host.apps()? {
        if let Err(error) = settings.and_then(|settings| check::check(&settings)) {
            log::error!("{name}: {error}");
            bad += 1;
        }
    }
    match bad {
        0 => Ok(()),
        1 => Err(Error::new(Exit::Config, "1 app cannot be served")),
        bad => Err(Error::new(
            Exit::Config,
            format!("{bad} apps cannot be served"),
        )),
    }
}

impl Host {
    pub fn of(host: config::Host) -> Host {
        Host {
            settings: host.settings,
            disabled: Vec::new(),
            passed: Vec::new(),
            kept: Kept::default(),
        }
    }

    /// Makes an app of a file, or notes why there is none.
    fn admit(&mut self, file: AppFile, apps: &mut Vec<App>) -> bool {
        let AppFile {
            name,
            path,
            owner,
            settings,
            ..
        } = file;
        let opened = settings.and_then(|settings| {
            self.fits(&settings, apps)?;
            let listeners = self.listen(&settings, apps)?;
            App::new(settings, listeners)
        });
        match opened {
            Ok(app) => {
                apps.push(app);
                true
            }
            Err(error) => {
                let reason = error.to_string();
                log::error!("{} is disabled: {}", foreign(&name), foreign(&reason));
                self.disabled.retain(|other| other.file != path);
                self.disabled.push(Disabled {
                    name,
                    file: path,
                    owner,
                    reason,
                });
                false
            }
        }
    }

    /// Whether there can ever be room for it beside what is always there.
    fn fits(&self, settings: &Settings, apps: &[App]) -> Result<()> {
        let Some(most) = self.settings.host_limits.processes else {
            return Ok(());
        };
        let size = |settings: &Settings| settings.workers.resolve(cpus()).max.saturating_add(1);
        let present = apps.iter().filter(|app| !app.is_retired());
        let fixed = present.map(|app| &app.settings).filter(|settings| {
            let presence = &settings.presence;
            presence.reserve || !presence.on_demand
        });
        let fixed = fixed.map(size).fold(0, u32::saturating_add);
        match fixed.saturating_add(size(settings)) > most {
            false => Ok(()),
            true => Err(Error::new(
                Exit::Config,
                format!(
                    "it may have {} processes, others have {fixed} for themselves, and --max-processes is {most}; \
                     lower its workers",
                    size(settings)
                ),
            )),
        }
    }
}

impl Host {
    /// Binds what an app listens on, unless another one of ours does already.
    fn listen(&mut self, settings: &Settings, apps: &[App]) -> Result<Vec<Listener>> {
        let present = apps.iter().filter(|app| !app.is_retired());
        for other in present {
            if let Some(bind) = settings.collides_with(&other.settings) {
                let message = format!("{} listens on {bind} already", other.settings.name);
                return Err(Error::new(Exit::Unavailable, message));
            }
        }
        let (passed, kept) = (&self.passed, &mut self.kept);
        net::open_one_of_many(&settings.bind, passed, kept, settings.backlog)
    }
}

impl Supervisor {
    /// The service manager keeps the listeners of these apps, and no others, over a restart.
    pub fn keep_listeners(&mut self) {
        if self.host.is_some() {
            let apps = self.apps.iter_mut().filter(|app| !app.is_retired());
            self.service.keep(apps.flat_map(|app| &mut app.listeners));
        }
    }

    /// Starts the apps that are always there, when it is their turn.
    pub fn begin_all(&mut self, now: Nanos) {
        for app in &mut self.apps {
            if !app.settings.presence.on_demand {
                app.want(now);
            }
        }
    }

    /// The same as [`Supervisor::reload_files`], for a signal.
    pub fn reload_all_files(&mut self, now: Nanos) -> Vec<News> {
        self.notify_reloading(now, "reloading");
        if let Err(error) = self.reload_files(now) {
            log::error!("reload failed: {error}; all apps go on");
        }
        vec![News::Settled]
    }

    /// Brings the apps to what the files say now, and touches nothing else.
    pub fn reload_files(&mut self, now: Nanos) -> Result<Outcome> {
        let (host, files) = self.read_files()?;
        let (kept, ignored) = self.host_settings()?.reloaded(host.settings)?;
        if !ignored.is_empty() {
            let names = ignored.join(", --");
            log::warning!("changes of --{names} take effect when rswsgi is started again");
        }
        if kept.logs.level != self.host_settings()?.logs.level {
            self.set_log_level(kept.logs.level);
        }
        if let Some(host) = &mut self.host {
            host.settings = kept;
            host.disabled.clear();
        }
        let mut outcome = Outcome::default();
        self.remove_missing(&files, &mut outcome, now);
        for file in files {
            self.apply(file, Force::No, &mut outcome, now);
        }
        self.keep_listeners();
        log::info!(
            "read the files of the apps: {} changed, {} new, {} gone",
            outcome.reloaded.len(),
            outcome.added.len(),
            outcome.removed.len()
        );
        Ok(outcome)
    }

    /// The same for one app, of which a new generation comes up even if nothing has changed.
    /// `owner`: only if it belongs to this user.
    pub fn reload_file(&mut self, name: &str, owner: Option<u32>, now: Nanos) -> Result<Outcome> {
        let (_, files) = self.read_files()?;
        let is_own = |file: &AppFile| owner.is_none_or(|owner| owner_of(file) == Some(owner));
        let mut files = files.into_iter().filter(is_own);
        let file = files.find(|file| file.name == name);
        let Some(file) = file else {
            let message =
                format!("there is no file of {name} any more; reload all apps to remove it");
            return Err(Error::new(Exit::Config, message));
        };
        if let Some(host) = &mut self.host {
            host.disabled.retain(|disabled| disabled.name != name);
        }
        let mut outcome = Outcome::default();
        self.apply(file, Force::Yes, &mut outcome, now);
        self.keep_listeners();
        Ok(outcome)
    }

    fn read_files(&self) -> Result<(config::Host, Vec<AppFile>)> {
        match configuration(&self.arguments)? {
            Invocation::Host(host) => {
                let files = host.apps()?;
                Ok((*host, files))
            }
            _ => Err(Error::new(
                Exit::Config,
                "the configuration no longer names a directory of apps",
            )),
        }
    }

    fn host_settings(&self) -> Result<&Settings> {
        let host = self.host.as_ref();
        let none = || Error::new(Exit::Internal, "this server has one app");
        host.map(|host| &host.settings).ok_or_else(none)
    }

    fn remove_missing(&mut self, files: &[AppFile], outcome: &mut Outcome, now: Nanos) {
        for app in self.apps.iter_mut().filter(|app| !app.is_retired()) {
            if !files.iter().any(|file| file.name == app.settings.name) {
                let name = &app.settings.name;
                app.say(Level::Info, format_args!("{name}: its file is gone"));
                outcome.removed.push(app.settings.name.clone());
                app.retire(now);
            }
        }
    }

    fn apply(&mut self, file: AppFile, force: Force, outcome: &mut Outcome, now: Nanos) {
        let name = file.name.clone();
        let mut present = self.apps.iter_mut().filter(|app| !app.is_retired());
        let mut running = present.find(|app| app.settings.name == name);
        let change = match (&file.settings, running.as_deref()) {
            (Ok(settings), Some(app)) => Some(app.settings.change_to(settings)),
            _ => None,
        };
        if let (Some(_), Some(app)) = (&change, &mut running) {
            app.presence.mistake = None;
        }
        match (change, running) {
            (Some(Change::None), Some(app)) if force == Force::No && !app.is_failing() => {}
            (Some(Change::None), Some(app)) => {
                outcome.reloaded.push(name);
                app.replace_by(app.settings.clone(), now);
            }
            (Some(Change::Level(settings)), Some(app))
                if force == Force::No && !app.is_failing() =>
            {
                app.take_level(&settings);
            }
            (Some(Change::Reload(settings) | Change::Level(settings)), Some(app)) => {
                if force == Force::Yes || !app.is_at_rest() || app.is_failing() {
                    outcome.reloaded.push(name);
                    app.replace_by(*settings, now);
                } else {
                    app.renew(*settings, now);
                }
            }
            (Some(change @ (Change::Move | Change::Handover)), Some(app)) => {
                let what = match change {
                    Change::Handover => "it is another user's now",
                    _ => "it listens elsewhere now",
                };
                app.say(Level::Info, format_args!("{name}: {what}"));
                app.retire(now);
                self.add(file, force, outcome, now);
            }
            // As with any reload that fails, what runs goes on.
            (None, Some(app)) => {
                if let Err(error) = file.settings {
                    // A user's mistake is no failure of the administrator's reload.
                    if file.place == Place::Admin || force == Force::Yes {
                        outcome.mistakes.push((name, error.to_string()));
                    }
                    app.presence.mistake = Some(error.to_string());
                    app.cannot_reload(&error, now);
                }
            }
            (_, None) => self.add(file, force, outcome, now),
        }
    }

    fn add(&mut self, file: AppFile, force: Force, outcome: &mut Outcome, now: Nanos) {
        let counts = file.place == Place::Admin || force == Force::Yes;
        let name = file.name.clone();
        let Some(host) = &mut self.host else {
            return;
        };
        if !host.admit(file, &mut self.apps) {
            if let Some(disabled) = host.disabled.last().filter(|_| counts) {
                outcome.mistakes.push((name, disabled.reason.clone()));
            }
        } else {
            if let Some(app) = self.apps.last_mut() {
                app.say(Level::Info, format_args!("{name}: new"));
                if !app.settings.presence.on_demand {
                    app.want(now);
                }
            }
            outcome.added.push(name);
        }
    }

    /// After an upgrade: files without an app are tried, so that it is known what is wrong with them.
    pub fn find_disabled(&mut self, now: Nanos) {
        let Ok((_, files)) = self.read_files() else {
            return;
        };
        let mut outcome = Outcome::default();
        for file in files {
            let has_app = |app: &App| !app.is_retired() && app.settings.name == file.name;
            if !self.apps.iter().any(has_app) {
                self.add(file, Force::No, &mut outcome, now);
            }
        }
    }

    /// A listener that was in use may be free by now.
    pub fn retry_disabled(&mut self, now: Nanos) -> Vec<News> {
        let Some(host) = &mut self.host else {
            return Vec::new();
        };
        let disabled = std::mem::take(&mut host.disabled);
        if disabled.is_empty() {
            return Vec::new();
        }
        let Ok((_, files)) = self.read_files() else {
            if let Some(host) = &mut self.host {
                host.disabled = disabled;
            }
            return Vec::new();
        };
        let mut outcome = Outcome::default();
        for file in files {
            if disabled.iter().any(|other| other.name == file.name) {
                self.add(file, Force::No, &mut outcome, now);
            }
        }
        self.keep_listeners();
        Vec::from_iter((!outcome.added.is_empty()).then_some(News::Settled))
    }
}

/// The user an app belongs to, as far as its file says.
fn owner_of(file: &AppFile) -> Option<u32> {
    let settings = file.settings.as_ref().ok();
    let user = settings.and_then(|settings| settings.privileges.user.as_deref());
    let user = user.and_then(|user| account::user(user).ok());
    file.owner.or(user.map(Uid::as_raw))
}

/// Whether an app gets a new generation although nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    Yes,
    No,
}
