//! `--pid-file`: the number of this process for others to read, and beside it a file with a lock: who holds the
//! lock runs, whatever number an old file says. They are two files because whoever may read a file can lock it
//! (flock(2)): everybody may read the number, nobody else the lock. Both go at the end; over an upgrade (SIGUSR2)
//! they stay, and so does the lock, which belongs to the open file.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::hand_over::{self, take};
use crate::error::{Error, Exit, Result};

/// More than any process number has digits.
const LONGEST: u64 = 32;
/// Somebody may remove the file between our open and our lock; who loses so often races with himself.
const TRIES: usize = 100;

/// What is added to the name of the file.
const LOCK: &str = ".lock";

pub struct PidFile {
    file: File,
    path: PathBuf,
    lock: File,
}

/// For the program that replaces this one.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedPidFile {
    file: RawFd,
    path: PathBuf,
    lock: RawFd,
}

impl HandedPidFile {
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.file, self.lock]
    }
}

impl PidFile {
    /// Takes the lock and writes the number of this process.
    ///
    /// # Errors
    /// [`Exit::Unavailable`] when another process holds the lock; [`Exit::Config`] when the file is
    /// something else than a pid file.
    pub fn take(path: &Path) -> Result<PidFile> {
        let lock = lock(path)?;
        match write_number(path) {
            Ok(file) => Ok(PidFile {
                file,
                path: path.to_owned(),
                lock,
            }),
            Err(error) => {
                unlink(&lock, path);
                Err(error)
            }
        }
    }

    pub fn hand_over(&self) -> HandedPidFile {
        HandedPidFile {
            file: hand_over::number(&self.file),
            path: self.path.clone(),
            lock: hand_over::number(&self.lock),
        }
    }

    /// Takes over what the program before had: the lock is never open to others.
    ///
    /// # Errors
    /// [`Exit::Unavailable`] when another process holds the lock all the same.
    pub fn resume(handed: &HandedPidFile) -> Result<PidFile> {
        let file = take(handed.file, "a pid file")?.into();
        let lock: File = take(handed.lock, "the lock of a pid file")?.into();
        match lock.try_lock() {
            Ok(()) => Ok(PidFile {
                file,
                path: handed.path.clone(),
                lock,
            }),
            Err(_) => Err(held(&handed.path)),
        }
    }

    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.file.as_fd(), self.lock.as_fd()]
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // While the lock is held nobody else takes it for his.
        if is_still_there(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
        unlink(&self.lock, &self.path);
    }
}

fn write_number(path: &Path) -> Result<File> {
    let failed = |what: &str, error: &io::Error| {
        let path = path.display();
        Error::io(format_args!("cannot {what} --pid-file {path}"), error)
    };
    let mut file = open(path, 0o644).map_err(|error| failed("open", &error))?;
    if !is_pid_file(&mut file).map_err(|error| failed("read", &error))? {
        let message = format!(
            "cannot use --pid-file {}: it is there and holds something else than a process number",
            path.display()
        );
        return Err(Error::new(Exit::Config, message));
    }
    let text = format!("{}\n", std::process::id());
    // In this order: who reads meanwhile never finds it empty.
    file.write_all_at(text.as_bytes(), 0)
        .and_then(|()| file.set_len(text.len() as u64))
        .map_err(|error| failed("write", &error))?;
    Ok(file)
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(LOCK);
    name.into()
}

fn lock(pid_file: &Path) -> Result<File> {
    let path = lock_of(pid_file);
    let shown = path.display();
    let failed = |what: &str, error: &io::Error| {
        Error::io(
            format_args!("cannot {what} {shown}, the lock of --pid-file"),
            error,
        )
    };
    for _ in 0..TRIES {
        let file = open(&path, 0o600).map_err(|error| failed("open", &error))?;
        let metadata = file.metadata().map_err(|error| failed("read", &error))?;
        if metadata.uid() != Uid::effective().as_raw() || metadata.mode() & 0o077 != 0 {
            let message = format!(
                "cannot lock {shown}, the lock of --pid-file: others have access to it; remove it, and choose a directory \
                 where nobody else can write"
            );
            return Err(Error::new(Exit::Config, message));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(pid_file)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        if is_still_there(&file, &path) {
            return Ok(file);
        }
    }
    let message = format!("cannot lock {shown}, the lock of --pid-file: it keeps vanishing");
    Err(Error::new(Exit::Unavailable, message))
}

fn unlink(lock: &File, pid_file: &Path) {
    let path = lock_of(pid_file);
    if is_still_there(lock, &path) {
        let _ = std::fs::remove_file(path);
    }
}

/// Root writes here in directories that may belong to others: no link is followed, nothing waited for.
fn open(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn is_still_there(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn is_pid_file(file: &mut File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    let text = bytes.trim_ascii();
    Ok(text.iter().all(u8::is_ascii_digit))
}

fn held(path: &Path) -> Error {
    let number = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .and_then(|file| {
            let mut text = String::new();
            file.take(LONGEST).read_to_string(&mut text).map(|_| text)
        });
    let number = match number.as_deref().map(str::trim) {
        Ok(number) if !number.is_empty() => format!(" ({number})"),
        _ => String::new(),
    };
    let message = format!(
        "cannot lock --pid-file {}: another process{number} holds it; is the server running already?",
        path.display()
    );
    Error::new(Exit::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Place(PathBuf);

    impl Place {
        fn new() -> Place {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("rswsgi-pid-file-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).unwrap();
            Place(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("a.pid")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn own() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn it_holds_the_number_of_the_process_and_goes_with_it() {
        let place = Place::new();
        let held = PidFile::take(&place.file()).unwrap();
        assert_eq!(std::fs::read_to_string(place.file()).unwrap(), own());
        drop(held);
        assert_eq!(std::fs::read_dir(&place.0).unwrap().count(), 0);
    }

    /// Whoever may read a file can lock it, and hold the lock for as long as he likes.
    #[test]
    fn nobody_who_reads_it_keeps_the_server_from_starting() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        std::fs::write(place.file(), "1\n").unwrap();
        let reader = File::open(place.file()).unwrap();
        reader.lock().unwrap();
        let held = PidFile::take(&place.file()).unwrap();
        let lock = std::fs::metadata(lock_of(&place.file())).unwrap();
        assert_eq!(lock.permissions().mode() & 0o777, 0o600);
        drop(held);
    }

    #[test]
    fn a_lock_that_others_can_open_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        let path = lock_of(&place.file());
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = PidFile::take(&place.file()).map(drop).unwrap_err();
        assert_eq!(error.exit(), Exit::Config, "{error}");
        assert!(error.to_string().contains("others have access"), "{error}");
    }

    #[test]
    fn one_process_holds_it() {
        let place = Place::new();
        let held = PidFile::take(&place.file()).unwrap();
        let error = PidFile::take(&place.file()).map(drop).unwrap_err();
        assert_eq!(error.exit(), Exit::Unavailable);
        let whose = format!("another process ({}) holds it", std::process::id());
        assert!(error.to_string().contains(&whose), "{error}");
        assert_eq!(std::fs::read_to_string(place.file()).unwrap(), own());
        drop(held);
        PidFile::take(&place.file()).map(drop).unwrap();
    }

    #[test]
    fn a_stale_one_is_replaced_whatever_number_it_has() {
        let place = Place::new();
        for stale in ["", "1\n", "123456789012345", " 42 \n"] {
            std::fs::write(place.file(), stale).unwrap();
            let _held = PidFile::take(&place.file()).unwrap();
            assert_eq!(std::fs::read_to_string(place.file()).unwrap(), own());
        }
    }

    #[test]
    fn what_is_no_pid_file_is_left_alone() {
        let place = Place::new();
        for text in ["import os\n", "1 2", "-1"] {
            std::fs::write(place.file(), text).unwrap();
            let error = PidFile::take(&place.file()).map(drop).unwrap_err();
            assert_eq!(error.exit(), Exit::Config, "{error}");
            assert_eq!(std::fs::read_to_string(place.file()).unwrap(), text);
            assert!(!lock_of(&place.file()).exists());
        }
        let (target, link) = (place.0.join("target"), place.0.join("link"));
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(PidFile::take(&link).is_err(), "a link was followed");
        assert!(!lock_of(&link).exists());
        assert!(PidFile::take(&place.0).is_err(), "a directory");
        assert!(!lock_of(&place.0).exists());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "");
    }

    #[test]
    fn a_file_that_has_taken_its_place_is_not_removed() {
        let place = Place::new();
        let held = PidFile::take(&place.file()).unwrap();
        std::fs::remove_file(place.file()).unwrap();
        std::fs::remove_file(lock_of(&place.file())).unwrap();
        let other = PidFile::take(&place.file()).unwrap();
        drop(held);
        assert!(place.file().exists());
        assert!(lock_of(&place.file()).exists());
        drop(other);
    }
}
