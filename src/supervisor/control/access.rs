//! Who may do what on the control socket.

#![forbid(unsafe_code)]

use nix::unistd::{Gid, Group, Uid};

use crate::error::{Error, Exit, Result};
use crate::sys::socket::Credentials;

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Root and the user of the server.
    Everything,
    /// With `--control-users`: this user, about apps that run as it.
    Owner(u32),
    /// Members of `--control-group`.
    Looking,
    /// Nobody in particular: pages for everybody, on `--metrics-bind`.
    Public,
}

/// `None`: nothing at all.
pub fn role(peer: &Credentials, own: Uid, group: Option<Gid>, users: Users) -> Option<Role> {
    if peer.user == 0 || peer.user == own.as_raw() {
        return Some(Role::Everything);
    }
    if group.is_some_and(|group| peer.groups.contains(&group.as_raw())) {
        return Some(Role::Looking);
    }
    match users {
        Users::MayAsk => Some(Role::Owner(peer.user)),
        Users::MayNot => None,
    }
}

/// Whether users of apps have a say (`--control-users`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    MayAsk,
    MayNot,
}

impl Role {
    /// Whose apps it is about, if not all.
    pub fn owner(self) -> Option<u32> {
        match self {
            Role::Owner(user) => Some(user),
            Role::Everything | Role::Looking | Role::Public => None,
        }
    }
}

/// A name, or a number as it is.
pub fn group(name: &str) -> Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        _ => {
            let message = format!("--control-group: there is no group {name:?}");
            Err(Error::new(Exit::Config, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_user_and_root_may_do_everything_the_group_may_look() {
        let peer = |user, groups: &[u32]| Credentials {
            pid: 1,
            user,
            groups: groups.to_vec(),
        };
        let own = Uid::from_raw(1000);
        let group = Some(Gid::from_raw(50));
        for (user, groups, group, expected) in [
            (1000, &[1000][..], None, Some(Role::Everything)),
            (0, &[0], None, Some(Role::Everything)),
            (1001, &[7, 50], group, Some(Role::Looking)),
            (1001, &[7], group, None),
            (1001, &[7, 50], None, None),
            (1001, &[0, 1000], None, None),
            (1000, &[50], group, Some(Role::Everything)),
        ] {
            let peer = peer(user, groups);
            assert_eq!(role(&peer, own, group, Users::MayNot), expected, "{user}");
            let expected = expected.or(Some(Role::Owner(user)));
            assert_eq!(role(&peer, own, group, Users::MayAsk), expected, "{user}");
        }
    }

    #[test]
    fn a_group_is_a_name_or_a_number() {
        assert_eq!(group("root").unwrap(), Gid::from_raw(0));
        assert_eq!(group("77").unwrap(), Gid::from_raw(77));
        let error = group("no-such-group").unwrap_err();
        assert_eq!(error.exit(), Exit::Config);
    }
}
