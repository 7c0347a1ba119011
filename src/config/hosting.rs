//! Settings of a server with many apps, and of an app that has processes only while it is used.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use super::settings::Settings;
use crate::error::Result;

/// Of Passenger, in the directory of the application.
const RESTART_FILE: &str = "tmp/restart.txt";

/// Bounds on all apps together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLimits {
    /// Masters and workers; `None` for no limit.
    pub processes: Option<u32>,
    /// Apps that start at the same time; `None`: as many as there are CPUs.
    pub starting: Option<u32>,
}

/// When an app has processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// From the first connection on only.
    pub on_demand: bool,
    /// After so long without a request an app that is started on demand stops; `None` for never.
    pub idle_exit: Option<Duration>,
    /// Room for its processes is kept while it has none.
    pub reserve: bool,
    /// A file whose change asks for a reload.
    pub restart_file: Option<PathBuf>,
}

impl Settings {
    /// Whether the app is one of many.
    pub fn is_hosted(&self) -> bool {
        self.apps_dir.is_some() || self.user_apps_dir.is_some()
    }

    /// Whether the app is started when it is its turn, and a start that fails is not the end.
    pub fn is_managed(&self) -> bool {
        self.is_hosted() || self.presence.on_demand
    }
}

pub(super) fn limits(layers: &Layers) -> Result<HostLimits> {
    Ok(HostLimits {
        processes: Some(layers.number("max-processes")?).filter(|n| *n > 0),
        starting: Some(layers.number("max-starting")?).filter(|n| *n > 0),
    })
}

/// Relative to where the application works.
fn restart_file(layers: &Layers) -> Result<Option<PathBuf>> {
    let usual = layers.switch("passenger")?.then(|| RESTART_FILE.to_owned());
    let Some(text) = layers.text("restart-file")?.or(usual) else {
        return Ok(None);
    };
    let directory = layers.path("chdir")?;
    let directory = directory.unwrap_or_else(|| layers.base("restart-file").to_owned());
    Ok(Some(directory.join(text)))
}

pub(super) fn presence(layers: &Layers) -> Result<Presence> {
    Ok(Presence {
        on_demand: layers.switch("on-demand")?,
        idle_exit: Some(layers.duration("idle-exit")?).filter(|time| !time.is_zero()),
        reserve: layers.switch("reserve")?,
        restart_file: restart_file(layers)?,
    })
}
