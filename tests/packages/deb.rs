//! The Debian package: made by `packaging/deb.sh` of what was built for the tests.

use super::{root, run, scratch};
use crate::support::{BUILT, module, only_rswsgi, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn is_there(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|output| output.status.success())
}

fn make() -> Result<PathBuf, String> {
    let target = scratch().join("deb");
    let built = target.join("debug");
    let _ = fs::remove_dir_all(&target);
    fs::create_dir_all(&built).map_err(|error| error.to_string())?;
    for (from, name) in [
        (PathBuf::from(BUILT), "rswsgi"),
        (env!("CARGO_BIN_EXE_rswsgictl").into(), "rswsgictl"),
        (module(), "librswsgi.so"),
    ] {
        fs::copy(&from, built.join(name))
            .map_err(|error| format!("{}: {error}", from.display()))?;
    }
    let said = run(Command::new(root().join("packaging/deb.sh"))
        .arg(&built)
        .args(["--profile", "dev", "--fast"])
        .env("CARGO_TARGET_DIR", &target))?;
    let path = said.lines().last().unwrap_or_default().trim();
    Ok(PathBuf::from(path))
}

/// The package, if one can be made here; made once for all tests.
pub fn built() -> Option<&'static Path> {
    static DEB: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if !only_rswsgi("its packages") {
        return None;
    }
    if !is_there("cargo-deb", "--version") || !is_there("dpkg-shlibdeps", "--version") {
        skip("there is no cargo-deb or no dpkg-dev");
        return None;
    }
    match DEB.get_or_init(make) {
        Ok(path) => Some(path),
        Err(reason) => panic!("{reason}"),
    }
}

#[test]
fn lintian_finds_nothing_that_matters() {
    let Some(deb) = built() else {
        return;
    };
    if !is_there("lintian", "--version") {
        return skip("there is no lintian");
    }
    let checked = Command::new("lintian")
        .args(["--allow-root", "--no-cfg", "--fail-on", "none"])
        .arg(deb)
        .output()
        .expect("lintian");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    // What does not is in `packaging/rswsgi.lintian`, with the reason.
    let is_bad = |line: &&str| line.starts_with("E: ") || line.starts_with("W: ");
    let bad: Vec<&str> = said.lines().filter(is_bad).collect();
    assert!(
        checked.status.success() && bad.is_empty(),
        "{}",
        bad.join("\n")
    );
}
