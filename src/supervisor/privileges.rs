//! From the settings to what a master gives up: names are looked up anew for each generation.

#![forbid(unsafe_code)]

use std::process::Command;

use nix::sys::resource::Resource;
use nix::sys::stat::Mode;
use nix::unistd::Uid;

use crate::config;
use crate::error::{Error, Exit, Result};
use crate::sys::account;
use crate::sys::privileges::{Identity, Limit, Privileges};

/// # Errors
/// [`Exit::Config`] for a name that nobody has, [`Exit::NoPermission`] when only root could do it.
pub fn resolve(wanted: &config::Privileges) -> Result<Privileges> {
    let identity = identity(wanted).map_err(|reason| Error::new(Exit::Config, reason))?;
    if let Some(identity) = &identity
        && !identity.is_ours()
        && !Uid::effective().is_root()
    {
        let asked = match (&wanted.user, &wanted.group) {
            (Some(user), _) => format!("--user {user}"),
            (None, group) => format!("--group {}", group.as_deref().unwrap_or_default()),
        };
        let message = format!("cannot run the application with {asked}: only root can");
        return Err(Error::new(Exit::NoPermission, message));
    }
    Ok(Privileges {
        identity,
        umask: wanted.umask.map(Mode::from_bits_truncate),
        limits: wanted.limits.iter().filter_map(limit).collect(),
        may_gain: wanted.allow_new_privileges,
    })
}

fn identity(wanted: &config::Privileges) -> Result<Option<Identity>, String> {
    if wanted.user.is_none() && wanted.group.is_none() {
        return Ok(None);
    }
    let uid = match &wanted.user {
        Some(user) => account::user(user).map_err(|reason| format!("--user: {reason}"))?,
        None => Uid::effective(),
    };
    let entry = account::entry(uid);
    let gid = match (&wanted.group, &entry) {
        (Some(group), _) => account::group(group).map_err(|reason| format!("--group: {reason}"))?,
        (None, Some(entry)) => entry.gid,
        (None, None) => {
            return Err(format!(
                "--user {uid} is not in the user database: --group is needed"
            ));
        }
    };
    let groups = match &entry {
        Some(entry) => account::groups(entry, gid)?,
        None => vec![gid],
    };
    Ok(Some(Identity { uid, gid, groups }))
}

/// What a log-in would set; the application's own `--env` comes later.
pub fn environment(command: &mut Command, identity: &Identity) {
    if let Some(entry) = account::entry(identity.uid) {
        command.env("USER", &entry.name).env("LOGNAME", &entry.name);
        command.env("HOME", entry.dir).env("SHELL", entry.shell);
    } else {
        for name in ["USER", "LOGNAME", "HOME", "SHELL"] {
            command.env_remove(name);
        }
    }
}

fn limit(wanted: &config::ResourceLimit) -> Option<Limit> {
    let resource = match wanted.name.as_str() {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    };
    Some(Limit {
        resource,
        soft: wanted.soft,
        hard: wanted.hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_that_can_be_configured_has_its_limit() {
        for name in config::RESOURCES {
            let name = name.to_owned();
            let wanted = config::ResourceLimit {
                name,
                soft: 1,
                hard: 1,
            };
            assert!(limit(&wanted).is_some(), "{wanted:?}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let of = |user: Option<&str>, group: Option<&str>| {
            let wanted = config::Privileges {
                user: user.map(Into::into),
                group: group.map(Into::into),
                ..Default::default()
            };
            resolve(&wanted)
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(of(None, None), Ok(()));
        let unknown = of(Some("no-such-user"), None).unwrap_err();
        assert_eq!(unknown, "--user: there is no user \"no-such-user\"");
        let unknown = of(None, Some("no-such-group")).unwrap_err();
        assert_eq!(unknown, "--group: there is no group \"no-such-group\"");
        let lonely = of(Some("4000000"), None).unwrap_err();
        assert!(lonely.ends_with("--group is needed"), "{lonely}");
    }
}
