//! Watches files for changes, by inotify(7): the directories they are in, because editors rename new files
//! into the place of old ones.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::log;

/// What a master says is not believed without end.
const MOST: usize = 16_384;
/// Of directories below one that is watched as a whole.
const DEEPEST: usize = 16;

/// What counts as a change in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Python modules, and new directories with such.
    modules: bool,
    /// Every file in it and below it.
    everything: bool,
    names: Vec<OsString>,
}

impl Interest {
    pub fn modules() -> Interest {
        Interest {
            modules: true,
            ..Interest::default()
        }
    }

    pub fn everything() -> Interest {
        Interest {
            everything: true,
            ..Interest::default()
        }
    }

    pub fn name(name: &OsStr) -> Interest {
        Interest {
            names: vec![name.to_owned()],
            ..Interest::default()
        }
    }

    fn merge(&mut self, other: Interest) {
        self.modules |= other.modules;
        self.everything |= other.everything;
        self.names.extend(other.names);
        self.names.sort();
        self.names.dedup();
    }

    fn takes(&self, name: &OsStr) -> bool {
        let text = name.as_encoded_bytes();
        // What editors leave and lock files with: .app.py.swp, .#app.py, #app.py#, app.py~.
        let scratch = text.starts_with(b".") || text.starts_with(b"#") || text.ends_with(b"~");
        let ends = |end: &[u8]| text.ends_with(end);
        self.names.iter().any(|own| own == name)
            || (self.modules && !scratch && (ends(b".py") || ends(b".so")))
            || (self.everything && !scratch && !ends(b".pyc") && !ends(b".swp"))
    }

    /// Whether directories in it are watched in the same way.
    fn goes_down(&self, name: &OsStr) -> bool {
        let text = name.as_encoded_bytes();
        let foreign: [&[u8]; 4] = [
            b"__pycache__",
            b"node_modules",
            b"site-packages",
            b"dist-packages",
        ];
        (self.modules || self.everything) && !text.starts_with(b".") && !foreign.contains(&text)
    }

    /// For what is below.
    fn inherited(&self) -> Interest {
        Interest {
            names: Vec::new(),
            ..self.clone()
        }
    }
}

pub struct Watcher {
    inotify: Inotify,
    directories: BTreeMap<WatchDescriptor, (PathBuf, Interest)>,
    paths: BTreeMap<PathBuf, WatchDescriptor>,
    /// That not everything can be watched has been told.
    limit_told: bool,
}

impl Watcher {
    pub fn new() -> Result<Watcher, String> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).map_err(|errno| match errno {
            Errno::EMFILE => format!(
                "cannot watch for changes: {}; sysctl fs.inotify.max_user_instances allows more",
                errno.desc().to_lowercase()
            ),
            errno => format!("cannot watch for changes: {}", errno.desc().to_lowercase()),
        })?;
        Ok(Watcher {
            inotify,
            directories: BTreeMap::new(),
            paths: BTreeMap::new(),
            limit_told: false,
        })
    }

    /// Watches a file, or a directory with everything below it, for whatever it is at the time.
    pub fn add_path(&mut self, path: &Path) {
        let mut places = vec![path.to_owned()];
        // What a link points to may change, too.
        places.extend(path.canonicalize().ok().filter(|real| real != path));
        for place in places {
            if place.is_dir() {
                self.add_tree(&place, &Interest::everything(), None, 0);
            }
            if let (Some(directory), Some(name)) = (place.parent(), place.file_name()) {
                self.add(directory, Interest::name(name));
            }
        }
    }

    /// Watches a directory of modules; whether one of them is newer than `since`, when it was not watched.
    pub fn add_modules(&mut self, directory: &Path, since: SystemTime) -> Option<PathBuf> {
        let is_new = !self.paths.contains_key(directory);
        self.add(directory, Interest::modules());
        match is_new {
            true => newer(directory, &Interest::modules(), since),
            false => None,
        }
    }

    fn add(&mut self, directory: &Path, interest: Interest) {
        if let Some(watch) = self.paths.get(directory)
            && let Some((_, known)) = self.directories.get_mut(watch)
        {
            known.merge(interest);
            return;
        }
        if self.directories.len() >= MOST {
            return self.tell_limit(
                directory,
                &format!("{MOST} directories are watched already"),
            );
        }
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.add_watch(directory, flags) {
            Ok(watch) => {
                // By another name it may be watched already.
                let (_, known) = self
                    .directories
                    .entry(watch)
                    .or_insert_with(|| (directory.to_owned(), Interest::default()));
                known.merge(interest);
                self.paths.insert(directory.to_owned(), watch);
            }
            Err(Errno::ENOSPC) => {
                let reason = "the limit is reached; sysctl fs.inotify.max_user_watches allows more";
                self.tell_limit(directory, reason);
            }
            // It is gone, is none, or is not ours to look at.
            Err(_) => {}
        }
    }

    fn tell_limit(&mut self, directory: &Path, reason: &str) {
        if !std::mem::replace(&mut self.limit_told, true) {
            let directory = directory.display();
            log::warning!("cannot watch {directory} and further directories for changes: {reason}");
        }
    }

    /// Whether there is something in it that counts and is newer than `since`.
    fn add_tree(
        &mut self,
        directory: &Path,
        interest: &Interest,
        since: Option<SystemTime>,
        depth: usize,
    ) -> Option<PathBuf> {
        self.add(directory, interest.clone());
        let mut found = since.and_then(|since| newer(directory, interest, since));
        if depth >= DEEPEST {
            return found;
        }
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // Not what a link points to: it may point upwards.
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir && interest.goes_down(&entry.file_name()) {
                let below = self.add_tree(&entry.path(), interest, since, depth + 1);
                found = found.or(below);
            }
        }
        found
    }

    /// What has changed since the last call: one of the files, if any.
    pub fn changed(&mut self) -> Option<PathBuf> {
        let mut changed = None;
        while let Ok(events) = self.inotify.read_events() {
            if events.is_empty() {
                break;
            }
            for event in events {
                changed = self.look_at(&event).or(changed);
            }
        }
        changed
    }

    fn look_at(&mut self, event: &InotifyEvent) -> Option<PathBuf> {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            // Something has been missed.
            return Some("many files".into());
        }
        let gone =
            AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        if mask.intersects(gone) {
            self.forget(event.wd);
            return None;
        }
        let (directory, interest) = self.directories.get(&event.wd)?;
        let name = event.name.as_ref()?;
        let path = directory.join(name);
        if !mask.contains(AddWatchFlags::IN_ISDIR) {
            // Of a file that is made the end is waited for; a link is complete.
            let is_complete = || {
                let metadata = path.symlink_metadata();
                metadata.is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
            };
            let counts = !mask.contains(AddWatchFlags::IN_CREATE) || is_complete();
            return (interest.takes(name) && counts).then_some(path);
        }
        let named = interest.names.iter().any(|own| own == name);
        if named {
            return Some(path);
        }
        let appears = mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        if !interest.goes_down(name) {
            return None;
        }
        if !appears {
            return Some(path).filter(|path| self.paths.contains_key(path));
        }
        let inherited = interest.inherited();
        self.add_tree(&path, &inherited, Some(SystemTime::UNIX_EPOCH), 0)
    }

    fn forget(&mut self, watch: WatchDescriptor) {
        if let Some((_, _)) = self.directories.remove(&watch) {
            self.paths.retain(|_, other| *other != watch);
            // One that was moved is not ignored yet; one that is gone is refused.
            let _ = self.inotify.rm_watch(watch);
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// A file that counts and was written after `since`.
fn newer(directory: &Path, interest: &Interest, since: SystemTime) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let is_newer = |path: &PathBuf| {
        let modified = path.metadata().and_then(|metadata| metadata.modified());
        path.is_file() && modified.is_ok_and(|modified| modified > since)
    };
    entries
        .filter(|entry| interest.takes(&entry.file_name()))
        .map(|entry| entry.path())
        .find(is_newer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_and_python_leave_is_no_change() {
        let takes = |interest: &Interest, name: &str| interest.takes(OsStr::new(name));
        let modules = Interest::modules();
        for name in ["a.py", "__init__.py", "ext.cpython-311-x86_64-linux-gnu.so"] {
            assert!(takes(&modules, name), "{name}");
        }
        for name in [
            "a.pyc",
            ".a.py.swp",
            ".#a.py",
            "#a.py#",
            "a.py~",
            "a.html",
            "4913",
            "a.pyi",
        ] {
            assert!(!takes(&modules, name), "{name}");
        }
        let everything = Interest::everything();
        assert!(takes(&everything, "a.html") && takes(&everything, "a.py"));
        assert!(!takes(&everything, ".a.html.swp") && !takes(&everything, "a.pyc"));
        let mut named = Interest::name(OsStr::new(".env"));
        assert!(takes(&named, ".env") && !takes(&named, "a.py"));
        named.merge(Interest::modules());
        assert!(takes(&named, ".env") && takes(&named, "a.py"));
        assert!(
            modules.goes_down(OsStr::new("pkg")) && !named.inherited().takes(OsStr::new(".env"))
        );
        assert!(
            !modules.goes_down(OsStr::new("__pycache__")) && !modules.goes_down(OsStr::new(".git"))
        );
    }
}
