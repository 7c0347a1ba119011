//! The file whose touch asks for a reload (`--restart-file`). It is the master that looks: the file belongs to the user
//! of the app, and may be on a file system that does not answer.

#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::sys::clock::{Nanos, SECOND};

/// What tells one touch from the next: the time of the last change, and the file.
type Mark = (i64, i64, u64);

const EVERY: Nanos = SECOND;

pub struct Touch {
    file: PathBuf,
    /// As it was when it was looked at last.
    seen: Option<Mark>,
    look_at: Nanos,
}

impl Touch {
    /// From now on a touch counts.
    pub fn begin(settings: &Settings, now: Nanos) -> Option<Touch> {
        let file = settings.presence.restart_file.clone()?;
        Some(Touch {
            seen: mark(&file),
            file,
            look_at: now + EVERY,
        })
    }

    pub fn wake_at(&self) -> Nanos {
        self.look_at
    }

    /// Whether it was touched since the last look, when it is time for one.
    pub fn look(&mut self, now: Nanos) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + EVERY;
        let found = mark(&self.file);
        let is_touched = found.is_some() && found != self.seen;
        if is_touched {
            self.seen = found;
        }
        is_touched
    }
}

fn mark(file: &Path) -> Option<Mark> {
    let metadata = file.symlink_metadata().ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino()))
}
