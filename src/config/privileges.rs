//! Who the application runs as, and what it may use.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use crate::error::Result;

/// Given up between fork and exec of the interpreter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Name or number.
    pub user: Option<String>,
    /// Name or number; the group of the user without.
    pub group: Option<String>,
    pub umask: Option<u32>,
    pub limits: Vec<ResourceLimit>,
    pub allow_new_privileges: bool,
}

/// `nofile=1024:4096`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// One of [`RESOURCES`].
    pub name: String,
    /// `u64::MAX` for no limit; so is `hard`.
    pub soft: u64,
    pub hard: u64,
}

/// The limits of getrlimit(2), in lower case and without RLIMIT_.
pub const RESOURCES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

impl Privileges {
    /// Whether processes with these and those may share what a process can keep.
    pub fn is_same_user(&self, other: &Privileges) -> bool {
        (&self.user, &self.group) == (&other.user, &other.group)
    }
}

pub(super) fn resolve(layers: &Layers) -> Result<Privileges> {
    let text = |name| {
        let text = layers.text(name)?;
        let empty = text.as_deref().is_some_and(str::is_empty);
        layers.check(
            name,
            if empty {
                Err("the name is empty".to_owned())
            } else {
                Ok(text)
            },
        )
    };
    let user = text("user")?;
    let group = text("group")?;
    let umask = layers.text("umask")?.map(|text| read_umask(&text));
    Ok(Privileges {
        user,
        group,
        umask: layers.check("umask", umask.transpose())?,
        limits: layers.list("rlimit", read_limit)?,
        allow_new_privileges: layers.switch("allow-new-privileges")?,
    })
}

/// Octal digits, `027` or `0o027`.
fn read_umask(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    valid
        .then(|| u32::from_str_radix(digits, 8).ok())
        .flatten()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| format!("{text:?} is not an octal number such as 027"))
}

fn read_limit(text: &str) -> Result<ResourceLimit, String> {
    let form = || format!("{text:?} is not NAME=SOFT or NAME=SOFT:HARD");
    let (name, value) = text.split_once('=').ok_or_else(form)?;
    if !RESOURCES.contains(&name) {
        let reason = format!("{name:?} is none of {}", RESOURCES.join(", "));
        return Err(reason);
    }
    let number = |text: &str| match text {
        "infinity" | "unlimited" => Ok(u64::MAX),
        _ => super::value::size(text).map_err(|_| form()),
    };
    let (soft, hard) = match value.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(value)?, number(value)?),
    };
    match soft <= hard {
        true => Ok(ResourceLimit {
            name: name.to_owned(),
            soft,
            hard,
        }),
        false => Err(format!("{text:?}: the soft limit is above the hard one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_umask_is_octal() {
        for (text, mask) in [("0", 0), ("27", 0o27), ("027", 0o27), ("0o777", 0o777)] {
            assert_eq!(read_umask(text), Ok(mask), "{text}");
        }
        for bad in ["", "8", "1000", "-1", "+7", "rw", "0o"] {
            assert!(read_umask(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_limit_has_one_value_or_two() {
        let limit = |name: &str, soft, hard| {
            let name = name.to_owned();
            Ok(ResourceLimit { name, soft, hard })
        };
        assert_eq!(read_limit("nofile=1k"), limit("nofile", 1024, 1024));
        assert_eq!(read_limit("as=1g:2g"), limit("as", 1 << 30, 2 << 30));
        assert_eq!(read_limit("core=0:infinity"), limit("core", 0, u64::MAX));
        for bad in [
            "",
            "nofile",
            "nofile=",
            "nofile=a",
            "files=1",
            "nofile=2:1",
            "nofile=1:2:3",
        ] {
            assert!(read_limit(bad).is_err(), "{bad:?}");
        }
    }
}
