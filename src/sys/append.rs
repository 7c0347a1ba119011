//! Opens files for appending on paths that others may have prepared: whoever owns a directory on the way
//! must not lead root to a file elsewhere. Links are followed here, one by one, and only those of root
//! (path_resolution(7)); what belongs to the user of an app is opened as that user.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, fchown, getuid};

use super::privileges::Identity;

/// Whose file it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Whoever this process is.
    Ourselves,
    /// The user of an app. The thread that opens it acts as this user from then on, so it is one that
    /// does nothing else.
    User(Identity),
}

/// Links after each other: as many as the kernel follows.
const LINKS: usize = 40;
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP);

/// Opens a file for appending, made with mode 640 if it is not there.
///
/// # Errors
/// Those of open(2); links of others than root on the way; a file that has a name elsewhere; of a user,
/// also what is no file or belongs to somebody else.
pub fn append(path: &Path, owner: &Owner) -> io::Result<File> {
    if !getuid().is_root() {
        return Ok(openat(AT_FDCWD, path, appending(), MODE)?.into());
    }
    match owner {
        Owner::Ourselves => match find(path)? {
            Found::Entry(entry) => only_name(entry.open(OFlag::empty())?, &entry),
            Found::ByKernel(entry) => Ok(entry.open_following()?.into()),
        },
        Owner::User(identity) => {
            act_as_root()?;
            let made = of_root(path, identity);
            act_as(identity)?;
            match made? {
                Some(file) => Ok(file),
                None => of_user(path, identity),
            }
        }
    }
}

fn appending() -> OFlag {
    // A pipe that nobody reads is an error (open(2): ENXIO) and not a place to wait, nor is a lease.
    OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NOCTTY
        | OFlag::O_NONBLOCK
        | OFlag::O_CLOEXEC
}

/// A name in a directory that was reached without any link of others.
struct Entry {
    directory: OwnedFd,
    name: OsString,
    /// For people.
    path: PathBuf,
}

enum Found {
    Entry(Entry),
    /// By a link of proc(5), which has no text: `/dev/stdout` leads there.
    ByKernel(Entry),
}

impl Entry {
    fn open(&self, more: OFlag) -> nix::Result<OwnedFd> {
        let flags = appending() | OFlag::O_NOFOLLOW | more;
        openat(&self.directory, self.name.as_os_str(), flags, MODE)
    }

    fn open_following(&self) -> nix::Result<OwnedFd> {
        openat(&self.directory, self.name.as_os_str(), appending(), MODE)
    }
}

/// Walks to where the last name of a path stands.
fn find(path: &Path) -> io::Result<Found> {
    let mut rest: VecDeque<OsString> = names(path).collect();
    let mut shown = PathBuf::new();
    let mut directory = enter(AT_FDCWD, OsStr::new("."))?;
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == "/" {
            directory = enter(AT_FDCWD, &name)?;
            shown = PathBuf::from(name);
            continue;
        }
        let is_last = rest.is_empty();
        if !is_last && let Ok(next) = enter(directory.as_fd(), &name) {
            directory = next;
            shown.push(name);
            continue;
        }
        let path = shown.join(&name);
        let entry = |directory, name| Entry {
            directory,
            name,
            path: path.clone(),
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = match openat(&directory, name.as_os_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) if is_last => return Ok(Found::Entry(entry(directory, name))),
            opened => opened?,
        };
        let stat = fstat(&opened)?;
        if kind(&stat) != SFlag::S_IFLNK {
            match is_last {
                true => return Ok(Found::Entry(entry(directory, name))),
                false => return Err(Errno::ENOTDIR.into()),
            }
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::ELOOP.into());
        }
        if stat.st_uid != 0 {
            let (path, owner) = (path.display(), stat.st_uid);
            let message = format!("{path} is a symbolic link of user {owner}, not of root");
            return Err(io::Error::other(message));
        }
        if fstatfs(&opened)?.filesystem_type() == PROC_SUPER_MAGIC {
            if is_last {
                return Ok(Found::ByKernel(entry(directory, name)));
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            directory = openat(&directory, name.as_os_str(), flags, Mode::empty())?;
            shown = path;
            continue;
        }
        // Owner and text are those of one link, whatever takes its place meanwhile.
        let target = readlinkat(&opened, "")?;
        for name in names(Path::new(&target))
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            rest.push_front(name);
        }
    }
    Err(Errno::EISDIR.into())
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let names = path.components().filter(|c| *c != Component::CurDir);
    names.map(|name| name.as_os_str().to_owned())
}

fn enter(from: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(from, name, flags, Mode::empty())
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The file itself, unless it has a name elsewhere: a hard link is made by whoever may, not by its owner.
fn only_name(opened: OwnedFd, entry: &Entry) -> io::Result<File> {
    let stat = fstat(&opened)?;
    if kind(&stat) != SFlag::S_IFREG {
        return Ok(opened.into());
    }
    // Count and name are of one moment: nobody can take back the name between two looks.
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    let named = fstatat(&entry.directory, entry.name.as_os_str(), flags)?;
    let reason = match named.st_nlink {
        _ if (named.st_dev, named.st_ino) != (stat.st_dev, stat.st_ino) => {
            "was replaced while it was opened"
        }
        1 => return Ok(opened.into()),
        _ => "has further hard links, which root does not write to",
    };
    Err(io::Error::other(format!(
        "{} {reason}",
        entry.path.display()
    )))
}

/// In a directory in which only root can change anything the file is made for its user.
fn of_root(path: &Path, identity: &Identity) -> io::Result<Option<File>> {
    let Found::Entry(entry) = find(path)? else {
        return Ok(None);
    };
    let directory = fstat(&entry.directory)?;
    let mode = Mode::from_bits_truncate(directory.st_mode);
    if directory.st_uid != 0 || mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH) {
        return Ok(None);
    }
    let file = match entry.open(OFlag::O_EXCL) {
        Ok(made) => {
            fchown(&made, Some(identity.uid), Some(identity.gid))?;
            made
        }
        Err(Errno::EEXIST) => entry.open(OFlag::empty())?,
        Err(errno) => return Err(errno.into()),
    };
    owned(file, identity, &entry.path).map(Some)
}

fn of_user(path: &Path, identity: &Identity) -> io::Result<File> {
    match find(path)? {
        Found::Entry(entry) => owned(entry.open(OFlag::empty())?, identity, &entry.path),
        Found::ByKernel(entry) => {
            let path = entry.path.display();
            Err(io::Error::other(format!("{path} is no file")))
        }
    }
}

fn owned(opened: OwnedFd, identity: &Identity, path: &Path) -> io::Result<File> {
    let stat = fstat(&opened)?;
    let refused = |reason: String| {
        let message = format!("{} {reason}", path.display());
        Err(io::Error::other(message))
    };
    match kind(&stat) {
        SFlag::S_IFREG if stat.st_uid == identity.uid.as_raw() => Ok(opened.into()),
        SFlag::S_IFREG => refused(format!(
            "belongs to user {}, not to {}, who runs the app",
            stat.st_uid, identity.uid
        )),
        _ => refused("is no file".into()),
    }
}

/// What this thread does to files is done by this user, with this user's rights, quota and space on a full
/// disk. Of others threads the system knows nothing: the C library would change them all.
fn act_as(identity: &Identity) -> io::Result<()> {
    let groups: Vec<libc::gid_t> = identity.groups.iter().map(|gid| gid.as_raw()).collect();
    // SAFETY: setgroups(2) reads as many groups as it is told, which `groups` has.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(done)?;
    become_effectively(identity.uid, identity.gid)
}

fn act_as_root() -> io::Result<()> {
    let root = Uid::from_raw(0);
    // Only root may change the group.
    set_user(root)?;
    become_effectively(root, Gid::from_raw(0))
}

fn become_effectively(uid: Uid, gid: Gid) -> io::Result<()> {
    const SAME: libc::gid_t = libc::gid_t::MAX;
    // SAFETY: setresgid(2) takes three integers.
    let done = unsafe { libc::syscall(libc::SYS_setresgid, SAME, gid.as_raw(), SAME) };
    Errno::result(done)?;
    set_user(uid)
}

/// The real and the saved user stay root's: nobody else may send this thread a signal (kill(2)).
fn set_user(uid: Uid) -> io::Result<()> {
    const SAME: libc::uid_t = libc::uid_t::MAX;
    // SAFETY: setresuid(2) takes three integers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, SAME, uid.as_raw(), SAME) };
    Errno::result(done).map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// `nobody` and `daemon`, by convention.
    const ANN: u32 = 65_534;
    const BOB: u32 = 1;

    fn user(uid: u32) -> Owner {
        let gid = Gid::from_raw(uid);
        Owner::User(Identity {
            uid: Uid::from_raw(uid),
            gid,
            groups: vec![gid],
        })
    }

    /// A directory of root's, and one of Ann's in it. `None` without root.
    fn places() -> Option<(PathBuf, PathBuf)> {
        if !getuid().is_root() {
            eprintln!("skipped: only root can be led to files of others");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rswsgi-append-{}-{count}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let ann = root.join("ann");
        fs::create_dir_all(&ann).unwrap();
        fs::set_permissions(&root, PermissionsExt::from_mode(0o755)).unwrap();
        chown(&ann, Some(ANN), Some(ANN)).unwrap();
        Some((root, ann))
    }

    /// In a thread of its own, as it has to be.
    fn appended(path: &Path, owner: Owner) -> Result<(), String> {
        let path = path.to_owned();
        let thread = std::thread::spawn(move || {
            let opened = append(&path, &owner).map_err(|error| error.to_string());
            opened.map(|mut file| file.write_all(b"x\n").unwrap())
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_file_of_a_user_is_made_as_the_user_where_the_user_may() {
        let Some((root, ann)) = places() else {
            return;
        };
        let log = ann.join("log");
        assert_eq!(appended(&log, user(ANN)), Ok(()));
        let made = fs::metadata(&log).unwrap();
        assert_eq!(
            (made.uid(), made.gid(), made.mode() & 0o777),
            (ANN, ANN, 0o640)
        );
        assert_eq!(appended(&log, user(ANN)), Ok(()));
        assert_eq!(fs::read(&log).unwrap(), b"x\nx\n");
        let error = appended(&ann.join("other"), user(BOB)).unwrap_err();
        assert!(error.contains("denied"), "{error}");
        assert_eq!(
            getuid(),
            nix::unistd::geteuid(),
            "only the thread has changed"
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn where_only_root_can_change_anything_the_file_is_made_for_the_user() {
        let Some((root, _)) = places() else {
            return;
        };
        let log = root.join("log");
        assert_eq!(appended(&log, user(ANN)), Ok(()));
        assert_eq!(fs::metadata(&log).unwrap().uid(), ANN);
        let error = appended(&log, user(BOB)).unwrap_err();
        assert!(error.contains("belongs to user 65534, not to 1"), "{error}");
        fs::set_permissions(&root, PermissionsExt::from_mode(0o1777)).unwrap();
        assert_eq!(appended(&root.join("bobs"), user(BOB)), Ok(()));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn links_of_others_are_not_followed_wherever_they_are() {
        let Some((root, ann)) = places() else {
            return;
        };
        let target = root.join("target");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("log"), "kept\n").unwrap();
        symlink(&target, ann.join("logs")).unwrap();
        lchown(ann.join("logs"), Some(ANN), Some(ANN)).unwrap();
        symlink(target.join("log"), ann.join("log")).unwrap();
        lchown(ann.join("log"), Some(ANN), Some(ANN)).unwrap();
        for path in [ann.join("log"), ann.join("logs/log"), ann.join("logs/new")] {
            for owner in [Owner::Ourselves, user(ANN)] {
                let error = appended(&path, owner).unwrap_err();
                assert!(error.contains("a symbolic link of user 65534"), "{error}");
            }
        }
        assert_eq!(fs::read(target.join("log")).unwrap(), b"kept\n");
        assert!(!target.join("new").exists());
        // Those of root are.
        symlink("../target", ann.join("by-root")).unwrap();
        assert_eq!(appended(&ann.join("by-root/log"), Owner::Ourselves), Ok(()));
        assert_eq!(fs::read(target.join("log")).unwrap(), b"kept\nx\n");
        assert_eq!(appended(Path::new("/dev/null"), Owner::Ourselves), Ok(()));
        let error = appended(Path::new("/dev/null"), user(ANN)).unwrap_err();
        assert!(error.ends_with("is no file"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_file_with_another_name_is_not_roots_to_write() {
        let Some((root, ann)) = places() else {
            return;
        };
        fs::write(root.join("secret"), "kept\n").unwrap();
        fs::hard_link(root.join("secret"), ann.join("log")).unwrap();
        let error = appended(&ann.join("log"), Owner::Ourselves).unwrap_err();
        assert!(error.contains("has further hard links"), "{error}");
        let error = appended(&ann.join("log"), user(ANN)).unwrap_err();
        assert!(error.contains("denied"), "{error}");
        assert_eq!(fs::read(root.join("secret")).unwrap(), b"kept\n");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_loop_of_links_and_a_directory_are_errors() {
        let Some((root, _)) = places() else {
            return;
        };
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let error = append(&root.join("a/log"), &Owner::Ourselves).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let error = append(&root, &Owner::Ourselves).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
        fs::remove_dir_all(root).unwrap();
    }
}
