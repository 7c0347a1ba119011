//! The virtual environment the peers live in: made once from the chosen interpreter, completed by
//! every run. A package that cannot be installed is remembered with the reason, no more.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{run, scratch};

const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// Prints what identifies an interpreter, then where its shared library would be.
const IDENTIFY: &str = "import sys, sysconfig; print(sys.version.replace('\\n', ' '), sys.base_prefix); \
     print(sysconfig.get_config_var('LIBDIR')); print('%d.%d.%d' % sys.version_info[:3])";

/// Prints `name==version` for each installed package.
const LIST: &str = "from importlib.metadata import distributions as d\n\
     for p in d(): print(p.metadata['Name'] + '==' + p.version)";

pub struct Environment {
    directory: PathBuf,
    /// Where the interpreter's shared library is, for programs that link it without a path.
    pub library_directory: String,
    pub python_version: String,
    failures: HashMap<&'static str, String>,
}

impl Environment {
    /// One environment per version of Python; `only` names the packages that are needed, all without.
    pub fn prepare(python: &Path, only: Option<&[&str]>) -> Result<Environment, String> {
        let identity = output(Command::new(python).args(["-c", IDENTIFY]))?;
        let mut lines = identity.lines().skip(1).map(str::to_owned);
        let library_directory = lines.next().ok_or("the interpreter tells no LIBDIR")?;
        let python_version = lines.next().ok_or("the interpreter tells no version")?;
        let mut environment = Environment {
            directory: scratch(&format!("bench-venv-{python_version}")),
            library_directory,
            python_version,
            failures: HashMap::new(),
        };
        environment.create(python, &identity)?;
        environment.complete(only)?;
        Ok(environment)
    }

    pub fn tool(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }

    pub fn python(&self) -> PathBuf {
        self.tool("python")
    }

    /// Where programs that embed Python find the packages.
    pub fn site_packages(&self) -> PathBuf {
        let mut parts = self.python_version.split('.');
        let (major, minor) = (parts.next().unwrap_or("3"), parts.next().unwrap_or("0"));
        self.directory
            .join(format!("lib/python{major}.{minor}/site-packages"))
    }

    pub fn has(&self, package: &str) -> Result<(), String> {
        match self.failures.get(package) {
            Some(reason) => Err(format!("not installed: {reason}")),
            None => Ok(()),
        }
    }

    fn create(&self, python: &Path, identity: &str) -> Result<(), String> {
        let stamp = self.directory.join("made-from");
        if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == identity) {
            return Ok(());
        }
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)
                .map_err(|error| format!("cannot remove the old environment: {error}"))?;
        }
        eprintln!("making the virtual environment of the peers");
        output(
            Command::new(python)
                .args(["-m", "venv"])
                .arg(&self.directory),
        )?;
        fs::write(&stamp, identity).map_err(|error| format!("cannot write the stamp: {error}"))
    }

    fn complete(&mut self, only: Option<&[&str]>) -> Result<(), String> {
        let installed = output(Command::new(self.python()).args(["-c", LIST]))?;
        let installed: Vec<String> = installed.lines().map(normal).collect();
        for (package, requirement) in requirements() {
            let is_wanted = only.is_none_or(|only| only.contains(&package));
            if !is_wanted || installed.contains(&normal(requirement)) {
                continue;
            }
            eprintln!("installing {requirement}");
            let mut pip = Command::new(self.python());
            pip.args(["-m", "pip", "install", "--quiet"])
                .args(["--disable-pip-version-check", requirement]);
            let (status, printed) = run(&mut pip, Duration::from_secs(600))?;
            if !status.success() {
                self.failures.insert(package, reason(&printed));
            }
        }
        Ok(())
    }
}

/// The version a package is pinned to.
pub fn pinned(package: &str) -> Option<&'static str> {
    requirements()
        .find(|(name, _)| *name == package)
        .and_then(|(_, requirement)| Some(requirement.split_once("==")?.1))
}

fn requirements() -> impl Iterator<Item = (&'static str, &'static str)> {
    REQUIREMENTS
        .lines()
        .filter_map(|line| Some((line.split_once("==")?.0, line.trim())))
}

/// Package names are compared without case, `-` and `_` being the same.
fn normal(requirement: &str) -> String {
    requirement.to_ascii_lowercase().replace('_', "-")
}

/// Of all a failed installation prints, the first line that names a cause.
fn reason(printed: &str) -> String {
    let cause = printed
        .lines()
        .find(|line| line.contains("fatal error:") || line.contains("ERROR:"))
        .or_else(|| printed.lines().last());
    cause.unwrap_or("pip said nothing").trim().to_owned()
}

fn output(command: &mut Command) -> Result<String, String> {
    let (status, printed) = run(command, Duration::from_secs(120))?;
    if !status.success() {
        let name = command.get_program().to_string_lossy();
        return Err(format!("{name} ended with {status}: {}", printed.trim()));
    }
    Ok(printed)
}
