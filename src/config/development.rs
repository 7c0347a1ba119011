//! What helps while an application is written: reloading by itself.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use crate::error::Result;

/// What is watched beside the modules of the application, and who sees what went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// Files and directories.
    pub extra: Vec<PathBuf>,
    /// With `--reload`, what the configuration was read from: files, and directories of included ones.
    pub configuration: Vec<PathBuf>,
    pub page: Audience,
}

/// Who is shown the traceback of a reload that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Clients of this machine that are no proxies.
    Local,
    Everyone,
    Nobody,
}

pub(super) fn resolve(layers: &Layers) -> Result<Watching> {
    Ok(Watching {
        extra: layers.list("reload-extra", |text| match text {
            "" => Err("the path is empty".to_owned()),
            _ => Ok(layers.base("reload-extra").join(text)),
        })?,
        configuration: match layers.switch("reload")? {
            true => layers.files(),
            false => Vec::new(),
        },
        page: layers.parsed("reload-page", |text| match text {
            "local" => Ok(Audience::Local),
            "everyone" => Ok(Audience::Everyone),
            "nobody" => Ok(Audience::Nobody),
            _ => Err(format!("{text:?} is unknown")),
        })?,
    })
}
