//! How far the processes of an app are shut in.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use crate::error::Result;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    pub preset: Preset,
    /// Directories that may be written to, beside the usual ones.
    pub writable: Vec<PathBuf>,
    /// Directories that may be read, beside the usual ones.
    pub readable: Vec<PathBuf>,
    pub cgroup: CgroupLimits,
    /// A cgroup that is delegated to the server; by default it is looked for.
    pub cgroup_root: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    Off,
    /// Everything that the kernel offers.
    Webspace,
}

/// Of all processes of an app together; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    pub memory_max: Option<u64>,
    pub memory_high: Option<u64>,
    pub tasks: Option<u64>,
    pub cpu_weight: Option<u64>,
}

impl CgroupLimits {
    pub fn any(&self) -> bool {
        *self != CgroupLimits::default()
    }
}

pub(super) fn resolve(layers: &Layers) -> Result<Isolation> {
    let directories = |name: &'static str| {
        layers.list(name, |text| match text {
            "" => Err("the path is empty".to_owned()),
            _ => Ok(layers.base(name).join(text)),
        })
    };
    let limit = |name| Ok(Some(layers.number(name)?).filter(|n: &u64| *n > 0));
    Ok(Isolation {
        preset: layers.parsed("isolation", |text| match text {
            "off" => Ok(Preset::Off),
            "webspace" => Ok(Preset::Webspace),
            _ => Err(format!("{text:?} is unknown")),
        })?,
        writable: directories("writable")?,
        readable: directories("readable")?,
        cgroup: CgroupLimits {
            memory_max: limit("memory-max")?,
            memory_high: limit("memory-high")?,
            tasks: limit("max-tasks")?,
            cpu_weight: limit("cpu-weight")?,
        },
        cgroup_root: layers.path("cgroup")?,
    })
}
