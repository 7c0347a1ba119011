//! Users and groups by name or number (`getpwnam(3)`, `getgrouplist(3)`).

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// A name, or a number that is taken as it is.
pub fn user(text: &str) -> Result<Uid, String> {
    match text.parse() {
        Ok(number) => Ok(Uid::from_raw(number)),
        Err(_) => match User::from_name(text) {
            Ok(Some(user)) => Ok(user.uid),
            _ => Err(format!("there is no user {text:?}")),
        },
    }
}

/// A name, or a number that is taken as it is.
pub fn group(text: &str) -> Result<Gid, String> {
    match text.parse() {
        Ok(number) => Ok(Gid::from_raw(number)),
        Err(_) => match Group::from_name(text) {
            Ok(Some(group)) => Ok(group.gid),
            _ => Err(format!("there is no group {text:?}")),
        },
    }
}

/// What the user database says of a user; nothing for a number that is not in it.
pub fn entry(uid: Uid) -> Option<User> {
    User::from_uid(uid).ok().flatten()
}

/// The groups of a user, `gid` among them.
pub fn groups(user: &User, gid: Gid) -> Result<Vec<Gid>, String> {
    let refused = |reason: String| format!("cannot find the groups of {:?}: {reason}", user.name);
    let name = CString::new(user.name.as_str()).map_err(|error| refused(error.to_string()))?;
    getgrouplist(&name, gid).map_err(|errno| refused(errno.desc().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_numbers_are_not() {
        assert_eq!(user("root"), Ok(Uid::from_raw(0)));
        assert_eq!(group("root"), Ok(Gid::from_raw(0)));
        assert_eq!(user("4000000"), Ok(Uid::from_raw(4_000_000)));
        assert_eq!(
            user("no-such-user"),
            Err("there is no user \"no-such-user\"".into())
        );
        assert_eq!(
            group("no-such-group"),
            Err("there is no group \"no-such-group\"".into())
        );
        assert_eq!(entry(Uid::from_raw(4_000_000)), None);
        let root = entry(Uid::from_raw(0)).unwrap();
        let groups = groups(&root, Gid::from_raw(0)).unwrap();
        assert!(groups.contains(&Gid::from_raw(0)));
    }
}
