//! Many apps of one server: the host's settings, and a file per app in `--apps-dir`.
//!
//! An app has the layers of the host (defaults < host file < environment < command line) and above them
//! its own file: what that says, wins. A mistake in the file of an app is that app's alone.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::bind::Bind;
use super::file;
use super::layers::{Layer, Layers, Source};
use super::logs::LevelOf;
use super::setting::{Kind, Scope};
use super::settings::{self, Settings};
use super::table::{SETTINGS, setting};
use super::target;
use super::users::{self, UserFile};
use super::value::show_duration;
use crate::error::{Error, Exit, Result};
use crate::sys::account;
use crate::sys::process::cpus;
use nix::unistd::Uid;

/// What a server with many apps was configured with.
#[derive(Debug)]
pub struct Host {
    /// Of the server as a whole; its target means nothing.
    pub settings: Settings,
    directory: Option<PathBuf>,
    /// Where users may have files.
    users: Option<PathBuf>,
    layers: Layers,
}

/// One file of `--apps-dir`.
#[derive(Debug)]
pub struct AppFile {
    /// The name of the app: that of the file without its ending.
    pub name: String,
    pub path: PathBuf,
    pub place: Place,
    /// The user to whom the file belongs, where users may have such.
    pub owner: Option<u32>,
    /// Or what is wrong with it.
    pub settings: Result<Settings>,
}

/// Who may have put a file where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Admin,
    Users,
}

/// The name of a server with many apps when it was given none.
const NAME: &str = "rswsgi";
/// Stands for the name of the app in settings of the host.
const PLACEHOLDER: &str = "{name}";
/// Texts in which it may stand, beside paths.
const WITH_NAME: [&str; 4] = ["bind", "user", "group", "sys-path"];
/// What an app has for itself alone.
const OWN: [&str; 3] = ["target", "module", "app"];

impl Host {
    /// `None` when nobody has named a directory of apps.
    pub(super) fn read(layers: &Layers) -> Result<Option<Host>> {
        let directory = layers.path("apps-dir")?;
        let users = layers.path("user-apps-dir")?;
        let named = match (&directory, &users) {
            (None, None) => return Ok(None),
            (Some(_), _) => "apps-dir",
            (None, Some(_)) => "user-apps-dir",
        };
        for name in OWN {
            let given = match layers.text(name)? {
                Some(_) => Err(format!(
                    "does not go together with {named}, whose files name the apps"
                )),
                None => Ok(()),
            };
            layers.check(name, given)?;
        }
        let mut own = layers.clone();
        let mut name = Layer::new(Source::Default);
        name.set(setting("target"), vec!["host".into()]);
        name.set(setting("name"), vec![NAME.into()]);
        own.layers.insert(0, name);
        // What holds for the apps is read with each of them; here it may have a placeholder.
        own.replace(|text| text.replace(PLACEHOLDER, NAME));
        Ok(Some(Host {
            settings: settings::resolve(&own)?,
            directory,
            users,
            layers: layers.clone(),
        }))
    }

    /// The files of the directories, each in the order of their names.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn apps(&self) -> Result<Vec<AppFile>> {
        let mut apps = match &self.directory {
            Some(directory) => self.apps_of_admin(directory)?,
            None => Vec::new(),
        };
        if let Some(directory) = &self.users {
            self.add_apps_of_users(&mut apps, directory)?;
        }
        Ok(apps)
    }

    fn apps_of_admin(&self, directory: &Path) -> Result<Vec<AppFile>> {
        let shown = directory.display();
        let files = file::list(directory).map_err(|error| {
            let error = Error::io(format_args!("cannot read --apps-dir {shown}"), &error);
            Error::new(Exit::Config, error.to_string())
        })?;
        let mut apps: Vec<AppFile> = Vec::new();
        for path in files {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = name.into_owned();
            let settings = match apps.iter().find(|app| app.name == name) {
                Some(other) => Err(Error::new(
                    Exit::Config,
                    format!(
                        "{}: {} is the app {name} already",
                        path.display(),
                        other.path.display()
                    ),
                )),
                None => self.app(&name, &path),
            };
            apps.push(AppFile {
                name,
                path,
                place: Place::Admin,
                owner: None,
                settings,
            });
        }
        Ok(apps)
    }

    fn add_apps_of_users(&self, apps: &mut Vec<AppFile>, directory: &Path) -> Result<()> {
        let files = users::files(directory);
        for file in files.map_err(|reason| Error::new(Exit::Config, reason))? {
            let name = file.name.clone();
            let settings = match apps.iter().find(|app| app.name == name) {
                Some(_) => Err(Error::new(
                    Exit::Config,
                    format!("{}: there is an app {name} already", file.path.display()),
                )),
                None => self.app_of_user(&name, &file),
            };
            apps.push(AppFile {
                name,
                path: file.path,
                place: Place::Users,
                owner: file.owner,
                settings,
            });
        }
        Ok(())
    }

    /// The app of a user: what needs root, or is at the cost of others, is not for the user to say.
    fn app_of_user(&self, name: &str, file: &UserFile) -> Result<Settings> {
        let refuse = |reason: String| {
            let place = file.path.parent().unwrap_or(Path::new("/")).display();
            let file = file.path.file_name().unwrap_or_default();
            let text = format!("{place}/{}: {reason}", escaped(file));
            Err(Error::new(Exit::Config, text))
        };
        let (owner, text) = match (file.owner, &file.text) {
            (Some(owner), Ok(text)) => (owner, text),
            (_, Err(reason)) => return refuse(reason.clone()),
            (None, Ok(_)) => return refuse("it is nobody's".into()),
        };
        let mut layer = file::app_of_user(&file.path, text)?;
        let binds_itself = layer.last("bind").is_some();
        layer.set(setting("user"), vec![owner.to_string()]);
        if let Some(entry) = account::entry(Uid::from_raw(owner)) {
            layer.set(setting("group"), vec![entry.gid.to_string()]);
        }
        let settings = self.settings_of(name, &file.path, layer, Place::Users)?;
        let directory = self.settings.user_listen_dir.as_deref();
        for listen in settings.bind.iter().filter(|_| binds_itself) {
            if let Err(reason) = users::may_listen(&listen.bind, directory, name) {
                return refuse(reason);
            }
        }
        let most = |settings: &Settings| settings.workers.resolve(cpus()).max;
        if most(&settings) > most(&self.settings) {
            return refuse(format!("workers: at most {}", most(&self.settings)));
        }
        // The start and the stop of the server wait for each of its apps.
        let (own, hosts) = (&settings.limits, &self.settings.limits);
        for (name, time, most) in [
            ("start-timeout", own.start_timeout, hosts.start_timeout),
            (
                "graceful-timeout",
                own.graceful_timeout,
                hosts.graceful_timeout,
            ),
        ] {
            if time > most {
                return refuse(format!("{name}: at most {}", show_duration(most)));
            }
        }
        Ok(settings)
    }

    /// The settings of one app, by the name of its file.
    ///
    /// # Errors
    /// There is no such file, or a mistake in it.
    pub fn app_named(&self, name: &str) -> Result<Settings> {
        let mut apps = self.apps()?.into_iter();
        match apps.find(|app| app.name == name) {
            Some(app) => app.settings,
            None => Err(Error::new(
                Exit::Config,
                format!("there is no file of the app {name:?}"),
            )),
        }
    }

    fn app(&self, name: &str, path: &Path) -> Result<Settings> {
        self.settings_of(name, path, file::app(path)?, Place::Admin)
    }

    fn settings_of(
        &self,
        name: &str,
        path: &Path,
        mut layer: Layer,
        place: Place,
    ) -> Result<Settings> {
        let refuse = |reason: String| Err(Error::new(Exit::Config, reason));
        if let Err(reason) = target::check_name(name) {
            return refuse(format!("{}: {reason}", path.display()));
        }
        layer.set(setting("name"), vec![name.to_owned()]);
        let level_of = match (layer.last("log-level"), place) {
            (None, _) => LevelOf::Server,
            (Some(_), Place::Admin) => LevelOf::App,
            (Some(_), Place::Users) => LevelOf::User,
        };
        let mut layers = self.layers.clone();
        layers.replace(|text| text.replace(PLACEHOLDER, name));
        layers.layers.push(layer);
        let mut settings = settings::resolve(&layers).map_err(|error| {
            // One that no layer is to blame for says nothing of a file.
            let text = error.to_string();
            let error = match text.contains(&*path.to_string_lossy()) {
                true => text,
                false => format!("{}: {text}", path.display()),
            };
            Error::new(Exit::Config, error)
        })?;
        settings.logs.level_of = level_of;
        match settings.bind.is_empty() {
            true => refuse(format!(
                "{}: bind is missing; each app needs an address of its own, such as unix:/run/apps/{name}.sock",
                path.display()
            )),
            false => Ok(settings),
        }
    }
}

/// Anybody may have chosen it.
fn escaped(name: &OsStr) -> String {
    name.to_string_lossy().escape_debug().to_string()
}

impl Layers {
    /// Changes the texts in which the name of an app may stand.
    fn replace(&mut self, change: impl Fn(&str) -> String) {
        let has_name = |name: &str| {
            let kind = &setting(name).kind;
            matches!(kind, Kind::Path) || WITH_NAME.contains(&name)
        };
        for layer in &mut self.layers {
            let values = layer.values.iter_mut();
            for (_, written) in values.filter(|(name, _)| has_name(name)) {
                for text in &mut written.texts {
                    *text = change(text);
                }
            }
        }
    }
}

/// What a reload makes of an app.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: its processes stay as they are.
    None,
    /// How much is logged of it, which its processes need not be replaced for.
    Level(Box<Settings>),
    /// A generation with these settings takes the place of the one before.
    Reload(Box<Settings>),
    /// It listens elsewhere: it is stopped and started anew.
    Move,
    /// It is another user's: it is stopped and started anew, because whoever it belonged to may keep its
    /// sockets.
    Handover,
}

impl Settings {
    /// What is to be done to bring a running app from its settings to `newer`.
    pub fn change_to(&self, newer: &Settings) -> Change {
        if (&self.bind, self.backlog) != (&newer.bind, newer.backlog) {
            return Change::Move;
        }
        if !self.privileges.is_same_user(&newer.privileges) {
            return Change::Handover;
        }
        // What is said of the server as a whole takes effect there, or not at all.
        let mut newer = newer.clone();
        for setting in SETTINGS.iter().filter(|s| s.scope == Scope::Host) {
            newer.take(setting.name, self);
        }
        let meaning = |settings: &Settings| Settings {
            given: Vec::new(),
            ..settings.clone()
        };
        let (before, after) = (meaning(self), meaning(&newer));
        if before == after {
            return Change::None;
        }
        let mut leveled = before;
        (leveled.logs.level, leveled.logs.level_of) = (newer.logs.level, newer.logs.level_of);
        match leveled == after {
            true => Change::Level(Box::new(newer)),
            false => Change::Reload(Box::new(newer)),
        }
    }

    fn take(&mut self, name: &str, from: &Settings) {
        match name {
            "log" => self.log = from.log.clone(),
            "log-format" => self.log_format = from.log_format,
            "access-log-format" => self.logs.access_format = from.logs.access_format.clone(),
            "access-log" => self.access_log = from.access_log.clone(),
            "control" => self.control = from.control.clone(),
            "control-group" => self.control_group = from.control_group.clone(),
            "metrics-bind" => self.metrics_bind = from.metrics_bind.clone(),
            "apps-dir" => self.apps_dir = from.apps_dir.clone(),
            "user-apps-dir" => self.user_apps_dir = from.user_apps_dir.clone(),
            "user-listen-dir" => self.user_listen_dir = from.user_listen_dir.clone(),
            "control-users" => self.control_users = from.control_users,
            "daemon" => self.daemon = from.daemon,
            "pid-file" => self.pid_file = from.pid_file.clone(),
            "cgroup" => self.isolation.cgroup_root = from.isolation.cgroup_root.clone(),
            "max-processes" | "max-starting" => self.host_limits = from.host_limits.clone(),
            _ => {}
        }
    }

    /// Whether both want to listen at the same address.
    pub fn collides_with(&self, other: &Settings) -> Option<&Bind> {
        let taken = |bind: &&Bind| {
            let mut others = other.bind.iter();
            others.any(|other| bind.is_same_place(&other.bind))
        };
        self.bind.iter().map(|listen| &listen.bind).find(taken)
    }
}

#[cfg(test)]
mod tests;
