//! A cgroup (version 2, cgroups(7)) for each app, below one that is delegated to the server.
//!
//! By systemd that is `Delegate=yes` with `DelegateSubgroup=supervisor`: the supervisor has to be in a leaf
//! of its own, because only leaves may have processes where limits are given to others.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::isolation::put;
use crate::config::{Preset, Settings};

/// Where version 2 is mounted.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
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
            None if !path.exists() || file == "cpu.weight" => {}
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

/// Ends whatever an app has left there, and the cgroup itself if it can be.
pub fn clear(settings: &Settings) {
    let wanted = &settings.isolation;
    if wanted.preset == Preset::Off && !wanted.cgroup.any() {
        return;
    }
    let root = settings.isolation.cgroup_root.clone().or_else(delegated);
    let Some(leaf) = root.map(|root| leaf(&root, &settings.name)) else {
        return;
    };
    let _ = put(&leaf.join("cgroup.kill"), "1");
    let _ = fs::remove_dir(leaf);
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
