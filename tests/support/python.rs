//! The interpreters of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    pub path: PathBuf,
    /// Major and minor: `(3, 12)`.
    pub version: (u32, u32),
}

/// The interpreter of tests that need only one: `$RSWSGI_TEST_PYTHON`, else `python3` on PATH.
pub fn default() -> Python {
    let path = std::env::var_os("RSWSGI_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    probe(Path::new(&path))
        .unwrap_or_else(|| panic!("no usable interpreter at {path:?}: set RSWSGI_TEST_PYTHON"))
}

/// One CPython for each version from 3.10 to 3.14 that pyenv or PATH has, oldest first.
pub fn pythons() -> Vec<Python> {
    let mut found = BTreeMap::new();
    for candidate in candidates() {
        if let Some(python) = probe(&candidate)
            && ((3, 10)..=(3, 14)).contains(&python.version)
        {
            found.entry(python.version).or_insert(python);
        }
    }
    found.into_values().collect()
}

fn candidates() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let versions = std::fs::read_dir(home.join(".pyenv/versions"))
        .into_iter()
        .flatten()
        .flatten();
    let mut all: Vec<PathBuf> = versions
        .map(|entry| entry.path().join("bin/python3"))
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for dir in std::env::split_paths(&path) {
        all.push(dir.join("python3"));
        all.extend((10..=14).map(|minor| dir.join(format!("python3.{minor}"))));
    }
    all
}

/// Asks the interpreter itself: a name says nothing, and `sys.executable` sees through shims.
fn probe(path: &Path) -> Option<Python> {
    let question = "import sys; assert sys.implementation.name == 'cpython'; \
                    print(sys.version_info[0], sys.version_info[1], sys.executable)";
    let output = Command::new(path).args(["-c", question]).output().ok()?;
    let answer = String::from_utf8(output.stdout)
        .ok()
        .filter(|_| output.status.success())?;
    let mut words = answer.trim_end().splitn(3, ' ');
    let major = words.next()?.parse().ok()?;
    let minor = words.next()?.parse().ok()?;
    Some(Python {
        path: words.next()?.into(),
        version: (major, minor),
    })
}
