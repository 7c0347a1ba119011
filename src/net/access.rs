//! Who may connect to a Unix socket: owner and permissions of its file.

#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchownat};

use crate::error::{Error, Exit, Result};
use crate::sys::account;

/// Who may connect unless `mode=` says otherwise: the owner and the group. What reaches the socket
/// past the web server could claim to be it, so the others are let in on request only.
pub const DEFAULT_MODE: u32 = 0o660;

/// Owner and permissions of the socket file.
#[derive(Debug)]
pub(super) struct Access {
    mode: Mode,
    user: Option<Uid>,
    group: Option<Gid>,
}

impl Access {
    /// Looks the names up; a number is taken as it is.
    pub(super) fn new(
        mode: Option<u32>,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Access, String> {
        let user = user.map(account::user);
        let group = group.map(account::group);
        Ok(Access {
            mode: Mode::from_bits_truncate(mode.unwrap_or(DEFAULT_MODE)),
            user: user.transpose()?,
            group: group.transpose()?,
        })
    }

    /// Gives the file its owner, then its mode. The file is pinned by a descriptor first: in a directory
    /// of somebody else's, the name could by now be a link to something worth owning.
    pub(super) fn grant(&self, path: &Path) -> Result<()> {
        let shown = path.display();
        let failed = |errno| {
            let error = Error::os(format_args!("cannot set the mode of unix:{shown}"), errno);
            match errno {
                Errno::ENOENT => error.advise("/proc must be mounted"),
                _ => error,
            }
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = open(path, flags, Mode::empty()).map_err(failed)?;
        let found = fstat(&file).map_err(failed)?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
            let message = format!("cannot bind unix:{shown}: it was replaced by another file");
            return Err(Error::new(Exit::NoPermission, message));
        }
        if self.user.is_some() || self.group.is_some() {
            fchownat(&file, "", self.user, self.group, AtFlags::AT_EMPTY_PATH).map_err(
                |errno| {
                    let error =
                        Error::os(format_args!("cannot set the owner of unix:{shown}"), errno);
                    error.advise("user= needs root, group= membership in the group")
                },
            )?;
        }
        // fchmod(2) does not take an O_PATH descriptor, its link in /proc leads to the same file.
        let pinned = format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = FchmodatFlags::FollowSymlink;
        fchmodat(AT_FDCWD, pinned.as_str(), self.mode, follow).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tests::directory;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_owner_is_a_name_or_a_number() {
        let directory = directory();
        let path = directory.path("a.sock");
        let _socket = UnixListener::bind(&path).unwrap();
        let own = Gid::effective();
        let access = Access::new(Some(0o640), None, Some(&own.to_string())).unwrap();
        access.grant(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(
            (metadata.gid(), metadata.mode() & 0o777),
            (own.as_raw(), 0o640)
        );
        let access = Access::new(None, Some("root"), None).unwrap();
        assert_eq!(access.user, Some(Uid::from_raw(0)));
    }

    #[test]
    fn an_unknown_owner_is_named() {
        let reason = Access::new(None, None, Some("no-such-group")).unwrap_err();
        assert_eq!(reason, "there is no group \"no-such-group\"");
        let reason = Access::new(None, Some("no-such-user"), None).unwrap_err();
        assert_eq!(reason, "there is no user \"no-such-user\"");
    }

    #[test]
    fn a_file_put_in_the_place_of_the_socket_is_not_touched() {
        let directory = directory();
        let (file, link) = (directory.path("file"), directory.path("link"));
        fs::write(&file, "precious").unwrap();
        symlink(&file, &link).unwrap();
        let before = fs::metadata(&file).unwrap().mode();
        let access = Access::new(Some(0o777), None, None).unwrap();
        for path in [&file, &link] {
            let error = access.grant(path).unwrap_err();
            assert!(error.to_string().contains("replaced"), "{error}");
        }
        assert_eq!(fs::metadata(&file).unwrap().mode(), before);
    }
}
