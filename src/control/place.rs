//! Where control sockets are when nobody says so: in one of a few directories, named after the app.

use std::ffi::OsString;
use std::path::PathBuf;

/// `shop.control`: a runtime directory may also hold the sockets that the app serves on.
pub const SUFFIX: &str = "control";

/// For messages.
pub const DIRECTORIES: &str = "$RUNTIME_DIRECTORY, /run/rswsgi, $XDG_RUNTIME_DIR/rswsgi";

/// The directories, the best first. A server takes the first one in which it may create a file, a
/// client looks into all of them.
pub fn directories(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let variable = |name: &str| env(name).filter(|value| !value.is_empty());
    // systemd.exec(5): several directories stand between colons.
    let runtime = variable("RUNTIME_DIRECTORY")
        .and_then(|list| std::env::split_paths(&list).next())
        .filter(|path| path.is_absolute());
    let user = variable("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    runtime
        .into_iter()
        .chain([PathBuf::from("/run/rswsgi")])
        .chain(user.map(|path| path.join("rswsgi")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_managers_directory_comes_first() {
        let env = |name: &str| match name {
            "RUNTIME_DIRECTORY" => Some("/run/shop:/run/other".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            _ => None,
        };
        let expected = ["/run/shop", "/run/rswsgi", "/run/user/7/rswsgi"].map(PathBuf::from);
        assert_eq!(directories(env), expected);
        assert_eq!(directories(|_| None), [PathBuf::from("/run/rswsgi")]);
        let relative = |_: &str| Some("here".into());
        assert_eq!(directories(relative), [PathBuf::from("/run/rswsgi")]);
    }
}
