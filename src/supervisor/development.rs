//! `--reload`: what the processes of an app tell about their modules, what has changed, and what everybody
//! is to see while the last reload has failed.
//!
//! Masters and workers write the directories of their modules to a pipe; what they read is in a file in
//! memory. They run as the user of the application: nothing they write makes more happen than a watch.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::watch::Watcher;
use crate::config::Watching;
use crate::log;
use crate::schedule::{Changes, Moment};
use crate::sys::clock::Nanos;

/// The longest path in a pipe (PATH_MAX).
const LONGEST: usize = 4096;
/// Of a notice.
const LONGEST_TEXT: usize = 256 << 10;

pub struct Development {
    /// `None`: it was told why nothing can be watched.
    watcher: Option<Watcher>,
    modules: OwnedFd,
    /// What masters inherit.
    teller: OwnedFd,
    notice: File,
    partial: Vec<u8>,
    changes: Changes,
    /// One of the files that have changed.
    changed: Option<PathBuf>,
    /// When the generation that tells was started.
    since: SystemTime,
}

impl Development {
    pub fn new() -> io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let (read, write) = io::pipe()?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let notice = memfd_create(c"rswsgi-notice", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self {
            watcher: Watcher::new()
                .inspect_err(|reason| log::error!("{reason}; reload by HUP"))
                .ok(),
            modules: read.into(),
            teller: write.into(),
            notice: notice.into(),
            partial: Vec::new(),
            changes: Changes::default(),
            changed: None,
            since: SystemTime::now(),
        })
    }

    /// What a master inherits: the pipe for its modules, and the notice.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.teller.as_fd(), self.notice.as_fd()]
    }

    /// A generation is started with this.
    pub fn begins(&mut self, watching: &Watching) {
        self.since = SystemTime::now();
        if let Some(watcher) = &mut self.watcher {
            for path in watching.configuration.iter().chain(&watching.extra) {
                watcher.add_path(path);
            }
        }
    }

    pub fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let watcher = self.watcher.as_ref().map(AsFd::as_fd);
        watcher.into_iter().chain([self.modules.as_fd()])
    }

    pub fn wake_at(&self) -> Option<Nanos> {
        self.changes.due()
    }

    /// Takes note of modules and changes; a file that has changed, when it is time to reload.
    pub fn look(&mut self, moment: Moment, now: Nanos) -> Option<PathBuf> {
        let mut changed = self.hear();
        if let Some(watcher) = &mut self.watcher {
            changed = watcher.changed().or(changed);
        }
        if let Some(path) = changed {
            if self.changes.note(moment, now) {
                let path = path.display();
                log::warning!(
                    "{path} changes whenever the application starts: reloading more slowly"
                );
            }
            self.changed.get_or_insert(path);
        }
        match self.changes.take(now) {
            true => self.changed.take(),
            false => None,
        }
    }

    /// Reads what processes tell; a module that has changed since they were started.
    fn hear(&mut self) -> Option<PathBuf> {
        let mut buffer = [0; 16 << 10];
        let mut newer = None;
        // What comes later is read the next time: one that never stops keeps nobody waiting.
        for _ in 0..64 {
            let read = match nix::unistd::read(&self.modules, &mut buffer) {
                Ok(count) => &buffer[..count],
                Err(Errno::EINTR) => continue,
                Err(_) => break,
            };
            for byte in read {
                match byte {
                    b'\n' => {
                        let line = std::mem::take(&mut self.partial);
                        let path = Path::new(OsStr::from_bytes(&line));
                        if let Some(watcher) = &mut self.watcher
                            && path.is_absolute()
                        {
                            newer = watcher.add_modules(path, self.since).or(newer);
                        }
                    }
                    byte if self.partial.len() < LONGEST => self.partial.push(*byte),
                    _ => {}
                }
            }
        }
        newer
    }

    /// From now on this is shown instead of answers.
    pub fn set_notice(&self, text: &str) {
        let end = text.floor_char_boundary(LONGEST_TEXT);
        let text = &text.as_bytes()[..end];
        // The length last: whoever reads meanwhile sees the old text, or none.
        let written = self
            .notice
            .write_all_at(&0u64.to_ne_bytes(), 0)
            .and_then(|()| self.notice.write_all_at(text, 8))
            .and_then(|()| {
                self.notice
                    .write_all_at(&(text.len() as u64).to_ne_bytes(), 0)
            });
        if let Err(error) = written {
            log::error!("cannot show what went wrong: {error}");
        }
    }

    pub fn clear_notice(&self) {
        let _ = self.notice.write_all_at(&0u64.to_ne_bytes(), 0);
    }
}
