//! What is logged, in which form, and where to.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use super::settings::Settings;
use crate::access::Format;
use crate::error::Result;
use crate::log::{Destination, Form, Level};

/// What a reload may change about logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    pub level: Level,
    #[serde(default)]
    pub level_of: LevelOf,
    pub access_format: Format,
}

/// Who has said how much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LevelOf {
    /// It is that of the server as a whole.
    #[default]
    Server,
    /// The file of the app.
    App,
    /// The same, of a file that belongs to the user of the app.
    User,
}

pub(super) fn resolve(layers: &Layers) -> Result<LogSettings> {
    Ok(LogSettings {
        level: layers.parsed("log-level", |text| {
            Level::from_name(text).ok_or_else(|| format!("{text:?} is unknown"))
        })?,
        level_of: LevelOf::Server,
        access_format: layers.parsed("access-log-format", Format::parse)?,
    })
}

/// Files that are the app's alone, and its user's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLogs {
    pub error: Option<PathBuf>,
    pub access: Option<PathBuf>,
}

impl OwnLogs {
    pub fn any(&self) -> bool {
        self.error.is_some() || self.access.is_some()
    }
}

impl Settings {
    /// Whether a line is to be written for each request, wherever to.
    pub fn has_access_log(&self) -> bool {
        self.access_log.is_some() || self.own_logs.access.is_some()
    }
}

pub(super) fn own_logs(layers: &Layers) -> Result<OwnLogs> {
    let hosts = [layers.path("apps-dir")?, layers.path("user-apps-dir")?];
    let is_hosted = hosts.iter().any(Option::is_some);
    let file = |name: &str, instead: &str| {
        let path = layers.path(name)?;
        let fits = match path.is_some() && !is_hosted {
            true => Err(format!(
                "is for apps of --apps-dir; a server with one app has --{instead}"
            )),
            false => Ok(()),
        };
        layers.check(name, fits)?;
        Ok(path)
    };
    Ok(OwnLogs {
        error: file("app-log", "log")?,
        access: file("app-access-log", "access-log")?,
    })
}

pub(super) fn error_log(layers: &Layers) -> Result<Destination> {
    layers.parsed("log", |text| {
        let read = Destination::read(text, Destination::Stderr, layers.base("log"));
        read.and_then(|place| reachable(layers, place))
    })
}

pub(super) fn form(layers: &Layers) -> Result<Form> {
    layers.parsed("log-format", |text| match text {
        "text" => Ok(Form::Text),
        "json" => Ok(Form::Json),
        _ => Err(format!("{text:?} is unknown")),
    })
}

pub(super) fn access_log(layers: &Layers) -> Result<Option<Destination>> {
    layers.parsed("access-log", |text| match text {
        "off" => Ok(None),
        text => Destination::read(text, Destination::Stdout, layers.base("access-log"))
            .and_then(|place| reachable(layers, place))
            .map(Some),
    })
}

/// Nobody reads the standard streams of a daemon.
fn reachable(layers: &Layers, place: Destination) -> Result<Destination, String> {
    let is_stream = matches!(place, Destination::Stdout | Destination::Stderr);
    match is_stream && layers.switch("daemon").is_ok_and(|daemon| daemon) {
        true => Err("a daemon has no standard streams: name a file, syslog or journal".to_owned()),
        false => Ok(place),
    }
}
