//! Opens a log file. Root may do so in a directory that belongs to the application's user, who must not
//! lead it to a file elsewhere by a link.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::geteuid;

const ROOT: u32 = 0;
/// Links after each other: as many as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

pub fn open(path: &Path) -> io::Result<File> {
    if !geteuid().is_root() {
        return appending(0).open(path);
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match appending(libc::O_NOFOLLOW).open(&path) {
            Ok(file) => return only_name(file, &path),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
            Err(error) => return Err(error),
        }
        match follow(&path)? {
            Some(target) => path = target,
            None => return appending(0).open(&path),
        }
    }
    Err(Errno::ELOOP.into())
}

fn appending(flags: i32) -> OpenOptions {
    let mut options = File::options();
    options
        .append(true)
        .create(true)
        .mode(0o640)
        // A pipe that nobody reads is an error (open(2): ENXIO) and not a place to wait.
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | flags);
    options
}

/// Where a link of root leads to; `None`: one of proc(5), which has no text and which only the kernel
/// can follow, as `/dev/stdout` has.
fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    // Owner and text are those of one link, whatever takes its place meanwhile.
    let link = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let owner = link.metadata()?.uid();
    if owner != ROOT {
        let message = format!(
            "{} is a symbolic link of user {owner}, not of root",
            path.display()
        );
        return Err(io::Error::other(message));
    }
    if fstatfs(&link)?.filesystem_type() == PROC_SUPER_MAGIC {
        return Ok(None);
    }
    let target = readlinkat(&link, "")?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok(Some(directory.join(target)))
}

/// The file itself, unless it has a name elsewhere: a hard link is made by whoever may, not by its owner.
fn only_name(file: File, path: &Path) -> io::Result<File> {
    let opened = file.metadata()?;
    if !opened.is_file() {
        return Ok(file);
    }
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    // Count and name are of one moment: nobody can take back the name between two looks.
    let named = path.symlink_metadata()?;
    let reason = match named.nlink() {
        _ if identity(&named) != identity(&opened) => "was replaced while it was opened",
        1 => return Ok(file),
        _ => "has further hard links, which root does not write to",
    };
    Err(io::Error::other(format!("{} {reason}", path.display())))
}
