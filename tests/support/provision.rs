//! Puts in place what tests with real parts need: virtual environments below `target/`, programs by
//! the package manager of the system. What cannot be had is named in a loud skip.
//!
//! Tests run in threads and in several processes, so each thing is made once under a file lock.

use super::python::Python;
use super::{apps, skip};
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Where things are kept between runs: below `target/`.
fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn or_skip<T>(result: Result<T, String>) -> Option<T> {
    result.inspect_err(|reason| skip(reason)).ok()
}

/// Makes a thing that is not there. A failure is remembered: the next test must not wait for it again.
fn once(
    name: &str,
    is_there: impl Fn() -> bool,
    make: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    static FAILED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    if is_there() {
        return Ok(());
    }
    let path = kept().join(format!("{name}.lock"));
    let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| format!("cannot lock {}: {error}", path.display()))?;
    if is_there() {
        return Ok(());
    }
    let failed = || FAILED.lock().expect("no panic while holding this");
    if let Some(reason) = failed().get(name) {
        return Err(reason.clone());
    }
    let made = make();
    if let Err(reason) = &made {
        failed().insert(name.into(), reason.clone());
    }
    made
}

/// As [`once`], for a directory below `target/`; the marker is written last.
fn directory(
    name: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let dir = kept().join(name);
    let complete = dir.join("complete");
    once(
        name,
        || complete.exists(),
        || {
            let _ = fs::remove_dir_all(&dir); // what an interrupted run left, if anything
            let made = fs::create_dir_all(&dir).map_err(|error| error.to_string());
            made.and_then(|()| make(&dir))?;
            File::create(&complete).map_err(|error| format!("{}: {error}", complete.display()))?;
            Ok(())
        },
    )?;
    Ok(dir)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    Err(format!("{command:?}: {}: {tail}", output.status))
}

/// Python without what the environment of the test says about Python.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in ["PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYENV_VERSION"] {
        command.env_remove(name);
    }
    command
}

// --- virtual environments

fn requirements() -> PathBuf {
    apps().join("requirements.txt")
}

/// A virtual environment of this interpreter with `tests/apps/requirements.txt`; made on first use.
pub fn venv(python: &Python) -> Option<PathBuf> {
    let (major, minor) = python.version;
    let name = format!("venv-{major}.{minor}-{:016x}", key(python));
    let made = directory(&name, |dir| make_venv(python, dir));
    or_skip(made.map_err(|reason| format!("no virtual environment: {reason}")))
}

/// The packages of `requirements.txt` as files, for Debian's Python on a machine without a network.
pub fn wheels() -> Option<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    let mut hasher = DefaultHasher::new();
    fs::read(requirements())
        .expect("tests/apps/requirements.txt is part of the project")
        .hash(&mut hasher);
    let made = directory(&format!("wheels-{:016x}", hasher.finish()), |dir| {
        let venv = dir.join("venv");
        run(clean(&system).args(["-m", "venv"]).arg(&venv))?;
        let mut command = clean(&venv.join("bin/pip"));
        command.args(["download", "--quiet", "--disable-pip-version-check"]);
        command.arg("--dest").arg(dir.join("files"));
        run(command.arg("--requirement").arg(requirements()))
    });
    let found = made.map(|dir| dir.join("files"));
    or_skip(found.map_err(|reason| format!("no packages for Python: {reason}")))
}

fn key(python: &Python) -> u64 {
    let mut hasher = DefaultHasher::new();
    python.path.hash(&mut hasher);
    fs::read(requirements())
        .expect("tests/apps/requirements.txt is part of the project")
        .hash(&mut hasher);
    hasher.finish()
}

fn make_venv(python: &Python, dir: &Path) -> Result<(), String> {
    // Debian puts the `ensurepip` of its Python into a package of its own.
    if run(clean(&python.path).args(["-c", "import ensurepip, venv"])).is_err() {
        let (major, minor) = python.version;
        install(&format!("python{major}.{minor}-venv"))?;
    }
    run(clean(&python.path).args(["-m", "venv"]).arg(dir))?;
    run(clean(&dir.join("bin/python3"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .arg("--requirement")
        .arg(requirements()))
}

/// An interpreter that has gunicorn, whose options are converted.
pub fn gunicorn(python: &Python) -> Option<PathBuf> {
    const VERSION: &str = "gunicorn==27.0.1";
    let (major, minor) = python.version;
    let name = format!("{VERSION}-{major}.{minor}");
    let made = directory(&name, |dir| {
        run(clean(&python.path).args(["-m", "venv"]).arg(dir))?;
        let mut pip = clean(&dir.join("bin/python3"));
        let words = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ];
        run(pip.args(words).arg(VERSION))
    });
    let made = or_skip(made.map_err(|reason| format!("no gunicorn: {reason}")));
    made.map(|dir| dir.join("bin/python3"))
}

/// What the Django site starts from: `db.sqlite3` with the tables and the administrator
/// (admin, "correct horse"), and the collected files in `static/`.
pub fn django_start(venv: &Path) -> Option<PathBuf> {
    let mut hasher = DefaultHasher::new();
    venv.hash(&mut hasher);
    hash_tree(&apps().join("django_site"), &mut hasher);
    let made = directory(&format!("django-{:016x}", hasher.finish()), |dir| {
        let mut command = clean(&venv.join("bin/python3"));
        command.args(["-B", "-m", "django_site.prepare"]);
        run(command.current_dir(apps()).env("UNDER_TEST_DIR", dir))
    });
    // This is the project's own code, so a failure is one: nothing is missing.
    Some(made.unwrap_or_else(|reason| panic!("cannot prepare the Django site: {reason}")))
}

fn hash_tree(dir: &Path, hasher: &mut DefaultHasher) {
    let entries = fs::read_dir(dir).expect("the site is part of the project");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if !path.ends_with("__pycache__") {
                hash_tree(&path, hasher);
            }
        } else {
            path.hash(hasher);
            fs::read(&path)
                .expect("a file of the site can be read")
                .hash(hasher);
        }
    }
}

// --- programs

/// A program, installed from this Debian package where that can be done.
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let made = once(package, || find(name).is_some(), || install(package));
    let found = made.and_then(|()| find(name).ok_or_else(|| format!("no {name} in {package}")));
    or_skip(found.map_err(|reason| format!("{name} is missing: {reason}")))
}

/// A file of a Debian package, installed where that can be done.
pub fn file(path: &str, package: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    let made = once(package, || path.is_file(), || install(package));
    or_skip(made.map_err(|reason| format!("{} is missing: {reason}", path.display())))?;
    Some(path)
}

/// On PATH, or where Debian keeps daemons, which is not on the PATH of a user.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn install(package: &str) -> Result<(), String> {
    let Some(apt) = find("apt-get") else {
        return Err(format!(
            "install {package} or what this system calls it (there is no apt-get)"
        ));
    };
    if !nix::unistd::geteuid().is_root() {
        return Err(format!(
            "install {package} (only root can: apt-get install {package})"
        ));
    }
    let get = |args: &[&str]| {
        let mut command = Command::new(&apt);
        command.args(["-y", "-o", "DPkg::Lock::Timeout=300"]);
        run(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let wanted = ["install", "--no-install-recommends", package];
    get(&wanted).or_else(|_| {
        get(&["update"])?; // the lists of packages may be old, or there may be none
        get(&wanted)
    })
}
