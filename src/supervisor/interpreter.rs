//! Which Python a generation runs in, which extension module it loads, and how it is started.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::privileges;
use crate::config::InterpreterSettings;
use crate::error::{Error, Exit, Result};
use crate::link::VERSION;
use crate::net::LISTEN_VARIABLES;
use crate::sys::privileges::Identity;

/// What the interpreter of a master executes.
const BOOT: &str = include_str!("boot.py");

/// Variables that are for the supervisor alone, beside those of `net::LISTEN_VARIABLES`: an
/// application that saw them would act on them.
const PRIVATE: [&str; 5] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "FDSTORE",
    super::hand_over::VARIABLE,
];

/// Who finds out that something is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// This process, at once.
    Here,
    /// The child that is to execute it: what belongs to somebody else may be on a file system that does not
    /// answer.
    InTheChild,
}

/// The command that becomes a master; `channel` is the descriptor it is to find.
pub fn command(
    settings: &InterpreterSettings,
    identity: Option<&Identity>,
    channel: i32,
    look: Look,
) -> Result<Command> {
    let python = interpreter(settings, look)?;
    let module = module();
    let mut command = Command::new(&python);
    command.arg("-c").arg(BOOT);
    command.arg(module.unwrap_or_default());
    command.arg(channel.to_string()).arg(VERSION);
    if let (Some(directory), Look::Here) = (&settings.chdir, look) {
        if !directory.is_dir() {
            return Err(no_directory(directory));
        }
        // The interpreter would be blamed. Whether another user may enter shows later.
        let entered = match identity {
            None => nix::unistd::access(directory, nix::unistd::AccessFlags::X_OK),
            Some(_) => Ok(()),
        };
        entered.map_err(|errno| {
            Error::os(
                format_args!("cannot enter --chdir {}", directory.display()),
                errno,
            )
        })?;
    }
    for name in PRIVATE.iter().chain(&LISTEN_VARIABLES) {
        command.env_remove(name);
    }
    if let Some(identity) = identity {
        privileges::environment(&mut command, identity);
    }
    command.envs(settings.env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// `--python`, `--venv`, beside this program, `$VIRTUAL_ENV`, PATH: the first that is there.
pub(super) fn interpreter(settings: &InterpreterSettings, look: Look) -> Result<PathBuf> {
    if let Some(python) = &settings.python {
        let is_path = python.components().count() > 1;
        return match look {
            Look::InTheChild if is_path => Ok(python.clone()),
            _ => on_path(python).ok_or_else(|| no_program(settings)),
        };
    }
    if let Some(venv) = &settings.venv {
        let python = venv.join("bin/python");
        if look == Look::InTheChild {
            return Ok(python);
        }
        return match python.try_exists() {
            Ok(true) => Ok(python),
            Ok(false) => Err(no_program(settings)),
            Err(error) => Err(Error::io(
                format_args!("cannot look into --venv {}", venv.display()),
                &error,
            )),
        };
    }
    let beside = beside_us().map(|directory| directory.join("python"));
    let active = std::env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("bin/python"));
    [beside, active]
        .into_iter()
        .flatten()
        .find(|python| python.exists())
        .or_else(|| on_path(Path::new("python3")))
        .ok_or_else(|| {
            let message = "there is no python3 on PATH; name one with --python or --venv";
            Error::new(Exit::Config, message)
        })
}

pub(super) fn no_directory(directory: &Path) -> Error {
    let message = format!("--chdir {} is not a directory", directory.display());
    Error::new(Exit::Config, message)
}

/// Of those that are named.
pub(super) fn no_program(settings: &InterpreterSettings) -> Error {
    let named = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
    let message = match &settings.python {
        Some(python) => format!("--python {}: there is no such program", python.display()),
        None => format!(
            "--venv {} is not a virtual environment: it has no bin/python",
            named(&settings.venv).display()
        ),
    };
    Error::new(Exit::Config, message)
}

/// `lib/python3.11/site-packages/rswsgi.abi3.so`: it serves every interpreter, not only that one's.
fn in_site_packages(prefix: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(prefix.join("lib")).ok()?.flatten();
    let pythons = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(b"python3")
    });
    pythons
        .map(|python| python.path().join("site-packages/rswsgi.abi3.so"))
        .find(|path| path.exists())
}

fn on_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.exists().then(|| program.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

fn beside_us() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

/// The extension module: `$RSWSGI_MODULE`, beside this program or in `deps/` beside it (where cargo
/// leaves it), `<prefix>/lib/rswsgi/`, or where pip has put it together with this program.
/// `None`: the interpreter has to find it by itself.
pub fn module() -> Option<OsString> {
    if let Some(named) = std::env::var_os("RSWSGI_MODULE") {
        return Some(named);
    }
    const FILE: &str = "librswsgi.so";
    let directory = beside_us()?;
    let age = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).ok();
    // Of the two that cargo makes, the younger: `cargo test` renews only the one in deps/.
    let built = [directory.join(FILE), directory.join("deps").join(FILE)];
    let newest = built
        .into_iter()
        .filter(|path| path.exists())
        .max_by_key(age);
    let installed = || Some(directory.parent()?.join("lib/rswsgi").join(FILE));
    newest
        .or_else(|| installed().filter(|path| path.exists()))
        .or_else(|| in_site_packages(directory.parent()?))
        .map(PathBuf::into_os_string)
}
