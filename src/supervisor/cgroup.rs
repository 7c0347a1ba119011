//! A cgroup (version 2, cgroups(7)) for each app, below one that is delegated to the server.
//!
//! By systemd that is `Delegate=yes` with `DelegateSubgroup=supervisor`: the supervisor has to be in a leaf
//! of its own, because only leaves may have processes where limits are given to others.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::isolation::put;
use crate::config::{Preset, Settings};
use crate::sys::clock::{MILLISECOND, Nanos};

/// Where version 2 is mounted.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Of cpu.weight, where none is asked for.
const USUAL_WEIGHT: &str = "100";
/// The leaf that systemd makes for the supervisor.
const SUBGROUP: &str = "supervisor";

/// The `cgroup.procs` of the app, and which of its limits cannot be had.
pub fn enter(settings: &Settings) -> Result<(OwnedFd, Vec<String>), String> {
    let root = match &settings.isolation.cgroup_root {
        Some(root) => root.clone(),
        None => delegated().ok_or("none is delegated to the server, see --cgroup")?,
    };
    let leaf = leaf(&root, &settings.name);
    let made = fs::create_dir(&leaf).or_else(|error| match leaf.is_dir() {
        true => Ok(()),
        false => Err(error),
    });
    made.map_err(|error| format!("cannot create {}: {error}", leaf.display()))?;
    let wanted = &settings.isolation.cgroup;
    let number = |number: Option<u64>| number.map_or("max".to_owned(), |n| n.to_string());
    let mut lacks = Vec::new();
    let limits = [
        ("memory", "memory.max", wanted.memory_max),
        ("memory", "memory.high", wanted.memory_high),
        ("pids", "pids.max", wanted.tasks),
        ("cpu", "cpu.weight", wanted.cpu_weight),
    ];
    for (controller, file, limit) in limits {
        let path = leaf.join(file);
        if limit.is_some() && !path.exists() {
            // Refused where the controller is not delegated; then the file is not there.
            let _ = put(
                &root.join("cgroup.subtree_control"),
                &format!("+{controller}"),
            );
        }
        match limit {
            None if !path.exists() => {}
            // What one before it was given is taken back.
            None if file == "cpu.weight" => lacks.extend(put(&path, USUAL_WEIGHT).err()),
            _ if !path.exists() => lacks.push(format!(
                "{file} (the {controller} controller is not delegated)"
            )),
            limit => lacks.extend(put(&path, &number(limit)).err()),
        }
    }
    let procs = File::options().write(true).open(leaf.join("cgroup.procs"));
    let procs = procs.map_err(|error| format!("cannot open cgroup.procs: {error}"))?;
    Ok((procs.into(), lacks))
}

/// What is left of the cgroup of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Processes that are about to end.
    Processes,
}

/// Ends whatever an app has left there, and then the cgroup itself.
fn clear(settings: &Settings) -> Left {
    let wanted = &settings.isolation;
    if wanted.preset == Preset::Off && !wanted.cgroup.any() {
        return Left::Nothing;
    }
    let root = settings.isolation.cgroup_root.clone().or_else(delegated);
    let Some(leaf) = root.map(|root| leaf(&root, &settings.name)) else {
        return Left::Nothing;
    };
    let _ = put(&leaf.join("cgroup.kill"), "1");
    match fs::remove_dir(leaf) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Left::Processes,
        _ => Left::Nothing,
    }
}

/// A cgroup that is to be removed, as soon as the kernel has ended what is in it.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    at: Nanos,
    tries: u32,
}

impl Sweep {
    const EVERY: Nanos = 20 * MILLISECOND;
    const TRIES: u32 = 500;

    /// The first try; `None` when all is done.
    pub fn begin(settings: &Settings, now: Nanos) -> Option<Sweep> {
        let sweep = Sweep { at: now, tries: 0 };
        sweep.go_on(settings, now)
    }

    pub fn at(&self) -> Nanos {
        self.at
    }

    /// Another one, when it is time.
    pub fn go_on(self, settings: &Settings, now: Nanos) -> Option<Sweep> {
        if self.at > now {
            return Some(self);
        }
        let tries = self.tries + 1;
        let left = clear(settings) == Left::Processes && tries < Self::TRIES;
        left.then_some(Sweep {
            at: now.saturating_add(Self::EVERY),
            tries,
        })
    }
}

fn leaf(root: &Path, app: &str) -> PathBuf {
    root.join(format!("app-{app}"))
}

/// The parent of the leaf that systemd has made for this process.
fn delegated() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let parent = Path::new(own)
        .parent()
        .filter(|_| own.ends_with(SUBGROUP))?;
    let below = parent.strip_prefix("/").ok()?;
    let mut mounts = MOUNTS.iter().map(|mount| Path::new(mount).join(below));
    mounts.find(|path| path.join("cgroup.procs").exists())
}
