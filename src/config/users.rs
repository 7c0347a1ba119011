//! Files of apps in a directory where users may put them (`--user-apps-dir`): found and read so that nobody
//! can have another's file read, or their own read twice as different things.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::Uid;

use super::{file, target};
use crate::sys::account;

/// What one file says, and whose it is.
#[derive(Debug)]
pub(super) struct UserFile {
    pub path: PathBuf,
    /// Of the app, or how the file is called that may not be one of this name.
    pub name: String,
    pub owner: Option<u32>,
    /// Its text, or what is wrong with it.
    pub text: Result<String, String>,
}

/// More than any app needs.
const LARGEST: u64 = 64 << 10;
/// Apps of one user: each costs the server memory, a descriptor and time on reload.
const MOST: usize = 32;

/// Reads the files of the directory; of each user [`MOST`] at most.
///
/// # Errors
/// The directory cannot be read, or others may rename files of others in it.
pub(super) fn files(directory: &Path) -> Result<Vec<UserFile>, String> {
    let shown = directory.display();
    let failed = |reason: String| format!("cannot read --user-apps-dir {shown}: {reason}");
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = openat(AT_FDCWD, directory, flags, Mode::empty())
        .map_err(|errno| failed(errno.desc().to_lowercase()))?;
    let stat = fstat(&opened).map_err(|errno| failed(errno.desc().to_lowercase()))?;
    let is_ours = stat.st_uid == 0 || stat.st_uid == Uid::effective().as_raw();
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let is_shared = mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH);
    if !is_ours || is_shared && !mode.contains(Mode::S_ISVTX) {
        return Err(failed(
            "it has to belong to root, and to be sticky where others may write (mode 1777)".into(),
        ));
    }
    let mut found = file::list(directory).map_err(|error| failed(error.to_string()))?;
    // The app that is called like its user comes before the others.
    found.sort_by(|a, b| (a.file_stem(), a).cmp(&(b.file_stem(), b)));
    // Of each owner, whatever is in them.
    let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    let mut files = Vec::new();
    for path in found {
        let owner = owner(opened.as_fd(), &path);
        let count = counts.entry(owner).or_default();
        *count += 1;
        let mut file = match *count {
            // Of the others nothing is kept, not even that they are there.
            count if count > MOST + 1 => continue,
            _ => file_of(opened.as_fd(), path, owner),
        };
        if *count > MOST {
            let reason = format!("its owner has {MOST} files here already, which is the most");
            file.text = Err(reason);
        }
        files.push(file);
    }
    Ok(files)
}

/// Whose name it is in the directory, whatever it leads to.
fn owner(directory: impl AsFd, path: &Path) -> Option<u32> {
    let stat = fstatat(directory, path.file_name()?, AtFlags::AT_SYMLINK_NOFOLLOW);
    stat.ok().map(|stat| stat.st_uid)
}

fn file_of(directory: impl AsFd, path: PathBuf, owner: Option<u32>) -> UserFile {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let fits = match owner {
        // It takes nobody's name by mistake: root could do anything.
        Some(0) => target::check_name(&stem),
        Some(owner) => check(owner, &stem).and_then(|()| target::check_name(&stem)),
        None => Err("it is gone".to_owned()),
    };
    // Whoever puts a file there that may not be called so keeps the name from nobody, and nothing of it
    // is taken for a line of a log.
    let name = match fits {
        Ok(()) => stem.into_owned(),
        Err(_) => format!("{:?}", path.file_name().unwrap_or_default()),
    };
    let text = match fits.and_then(|()| read(directory, &path)) {
        // What was opened is what counts.
        Ok((opened, _)) if Some(opened) != owner => Err("it has changed".to_owned()),
        Ok((_, text)) => Ok(text),
        Err(reason) => Err(reason),
    };
    UserFile {
        path,
        name,
        owner,
        text,
    }
}

fn read(directory: impl AsFd, path: &Path) -> Result<(u32, String), String> {
    let name = path.file_name().ok_or("it has no name")?;
    // A pipe must not make us wait, and a link leads elsewhere.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = openat(directory, name, flags, Mode::empty());
    let opened = opened.map_err(|errno| match errno {
        nix::errno::Errno::ELOOP => "it is a link".to_owned(),
        errno => errno.desc().to_lowercase(),
    })?;
    let stat = fstat(&opened).map_err(|errno| errno.desc().to_lowercase())?;
    is_fit(&stat)?;
    let mut text = String::new();
    let mut file = File::from(opened).take(LARGEST + 1);
    file.read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    match text.len() as u64 {
        0..=LARGEST => Ok((stat.st_uid, text)),
        _ => Err("it is larger than 64 KiB".into()),
    }
}

/// What was opened, whatever its name means by now.
fn is_fit(stat: &FileStat) -> Result<(), String> {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    if kind != SFlag::S_IFREG {
        return Err("it is not a file".into());
    }
    if stat.st_nlink != 1 {
        return Err("it has another name, too (a hard link)".into());
    }
    if mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH) {
        return Err("others than its owner may write to it".into());
    }
    match stat.st_uid {
        0 => Err("it belongs to root; files of root belong into --apps-dir".into()),
        _ => Ok(()),
    }
}

/// Nobody takes the name of another's app.
fn check(owner: u32, stem: &str) -> Result<(), String> {
    let entry = account::entry(Uid::from_raw(owner))
        .ok_or_else(|| format!("its owner {owner} is not in the user database"))?;
    is_name_of(&entry.name, stem)
}

fn is_name_of(user: &str, app: &str) -> Result<(), String> {
    let rest = app.strip_prefix(user);
    match rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
        true => Ok(()),
        false => Err(format!(
            "it belongs to {user}, so its name has to be {user} or to begin with {user} and a dot"
        )),
    }
}

/// Where a user's app may listen: at a file of its own name in this directory.
pub(super) fn may_listen(
    bind: &super::Bind,
    directory: Option<&Path>,
    app: &str,
) -> Result<(), String> {
    let Some(directory) = directory else {
        return Err(format!(
            "{bind}: --user-listen-dir names no directory for it"
        ));
    };
    let example = || format!("only at unix:{}/{app}.sock", directory.display());
    let super::Bind::Unix {
        path,
        mode: _,
        user: None,
        group: None,
    } = bind
    else {
        return Err(format!("{bind}: an app of a user may listen {}", example()));
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let rest = name.and_then(|name| name.strip_prefix(app));
    let is_own = rest.is_some_and(|rest| rest.starts_with('.'));
    match is_own && path.parent() == Some(directory) {
        true => Ok(()),
        false => Err(format!("{bind}: an app of a user may listen {}", example())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicU32, Ordering};

    fn directory() -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("rswsgi-users-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn an_app_has_the_name_of_its_user() {
        for (user, app, fits) in [
            ("ann", "ann", true),
            ("ann", "ann.shop", true),
            ("ann", "anna", false),
            ("ann", "ann-shop", false),
            ("ann", "bob", false),
            ("ann", "", false),
        ] {
            assert_eq!(is_name_of(user, app).is_ok(), fits, "{user} {app}");
        }
    }

    #[test]
    fn a_listener_is_a_file_of_the_own_name_in_the_directory_for_them() {
        let directory = Path::new("/run/apps");
        for (bind, fits) in [
            ("unix:/run/apps/ann.sock", true),
            ("unix:/run/apps/ann.b.sock", true),
            ("unix:/run/apps/ann.sock?mode=666", true),
            ("unix:/run/apps/ann.sock?group=root", false),
            ("unix:/run/apps/ann.sock?user=root", false),
            ("unix:/run/apps/anna.sock", false),
            ("unix:/run/apps/../ann.sock", false),
            ("unix:/run/apps/ann.d/x.sock", false),
            ("unix:/run/ann.sock", false),
            ("unix:@ann", false),
            ("127.0.0.1:80", false),
            ("fd://3", false),
        ] {
            let bind = bind.parse().unwrap();
            assert_eq!(
                may_listen(&bind, Some(directory), "ann").is_ok(),
                fits,
                "{bind}"
            );
            assert!(may_listen(&bind, None, "ann").is_err());
        }
    }

    #[test]
    fn a_user_has_so_many_files_and_no_more() {
        let place = directory();
        for number in 0..MOST + 20 {
            std::fs::write(place.join(format!("a{number:03}.toml")), "x").unwrap();
        }
        let read = files(&place).unwrap();
        assert_eq!(read.len(), MOST + 1);
        let reason = read[MOST].text.clone().unwrap_err();
        assert!(reason.contains("has 32 files here already"), "{reason}");
        assert!(read[MOST].path.ends_with("a032.toml"));
        let _ = std::fs::remove_dir_all(place);
    }

    #[test]
    fn only_plain_files_that_nobody_else_can_write_are_read() {
        let place = directory();
        let file = |name: &str, mode: u32| {
            let path = place.join(name);
            std::fs::write(&path, "x").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        };
        file("open.toml", 0o666);
        symlink("/etc/passwd", place.join("link.toml")).unwrap();
        nix::unistd::mkfifo(&place.join("pipe.toml"), Mode::S_IRUSR).unwrap();
        std::fs::create_dir(place.join("dir.toml")).unwrap();
        let hard = file("hard.toml", 0o600);
        std::fs::hard_link(hard, place.join("hard")).unwrap();
        let read = files(&place).unwrap();
        let reason = |name: &str| {
            let file = read.iter().find(|file| file.path.ends_with(name));
            file.expect(name).text.clone().unwrap_err()
        };
        assert_eq!(reason("open.toml"), "others than its owner may write to it");
        assert_eq!(reason("link.toml"), "it is a link");
        assert_eq!(reason("pipe.toml"), "it is not a file");
        assert_eq!(reason("dir.toml"), "it is not a file");
        assert_eq!(
            reason("hard.toml"),
            "it has another name, too (a hard link)"
        );
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(files(&place).unwrap_err().contains("sticky"));
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(files(&place).is_ok());
        let _ = std::fs::remove_dir_all(place);
    }
}
