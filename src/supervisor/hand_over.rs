//! What a supervisor tells the program that replaces it in the same process (SIGUSR2): JSON in a
//! memory file, found by an environment variable. Descriptors stay open under their numbers.
//!
//! The reader may be of a later or an earlier version. [`FORMAT`] changes when it could misunderstand;
//! fields it does not know are skipped. Settings travel as the writer knew them: a reader that cannot
//! read them reads the configuration instead.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::Purpose;
use super::orphans::Company;
use super::output::OutputState;
use super::pid_file::HandedPidFile;
use super::record::{Birth, LastReload, Tally};
use super::verbosity::Verbosity;
use super::was::HandedBroker;
use crate::error::{Error, Exit, Result};
use crate::net::HandedListener;
use crate::sys::clock::Nanos;
use crate::sys::fd;

/// Names the descriptors; for this program only, never for an application.
pub const VARIABLE: &str = "RSWSGI_HAND_OVER";
const FORMAT: u32 = 1;
/// More than the state of any server.
const LARGEST: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub struct HandOver {
    format: u32,
    /// Of the writer, for the log.
    pub version: String,
    /// Where the program was started from, which may have another file now.
    pub program: PathBuf,
    pub apps: Vec<AppState>,
    #[serde(default)]
    pub birth: Option<Birth>,
    /// Control socket and metrics listeners.
    #[serde(default)]
    pub doors: Vec<HandedDoor>,
    #[serde(default)]
    pub pid_file: Option<HandedPidFile>,
    /// Children that are not the server's.
    #[serde(default)]
    pub foreign: BTreeSet<i32>,
    #[serde(default)]
    pub company: Company,
}

/// A listener of the supervisor's own.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedDoor {
    pub purpose: Purpose,
    pub listener: HandedListener,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct AppState {
    pub settings: Value,
    pub listeners: Vec<HandedListener>,
    pub generations: Vec<GenerationState>,
    /// Number of the next generation.
    pub next: u64,
    pub restart_at: Option<Nanos>,
    #[serde(default)]
    pub is_resting: bool,
    pub totals: BTreeMap<String, u64>,
    #[serde(default)]
    pub tally: Tally,
    #[serde(default)]
    pub reload: Option<LastReload>,
    #[serde(default)]
    pub relay: Option<RelayState>,
    #[serde(default)]
    pub was: HandedBroker,
    #[serde(default)]
    pub verbosity: Verbosity,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct GenerationState {
    pub number: u64,
    pub started: Nanos,
    pub stage: HandedStage,
    pub pid: i32,
    pub pidfd: RawFd,
    pub channel: RawFd,
    pub is_silent: bool,
    pub scoreboard: RawFd,
    /// The form of the scoreboard.
    pub layout: String,
    pub python: String,
    /// What its workers have done so far, for a program that cannot read the scoreboard.
    #[serde(default)]
    pub totals: BTreeMap<String, u64>,
    #[serde(default)]
    pub output: Option<OutputState>,
    /// It passes connections on by the relay of its app.
    #[serde(default)]
    pub relays: bool,
    /// What it is not isolated by.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// The relay of an app. A program that speaks another format makes one of its own.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RelayState {
    pub format: u8,
    pub ends: [RawFd; 2],
}

/// A generation that starts is never handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandedStage {
    Serving,
    Leaving { until: Nanos },
}

/// What this program was executed for, beside its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// To say on the channel `reply` whether it could take over.
    Check { state: RawFd, reply: RawFd },
    /// To go on where the program `before` left off.
    TakeOver { state: RawFd, before: RawFd },
    /// The same, by the program before itself: the new one could not.
    Return { state: RawFd, before: RawFd },
}

impl Task {
    pub fn read(variable: &str) -> Option<Task> {
        let mut words = variable.split(' ');
        let kind = words.next()?;
        let mut number = || words.next()?.parse::<RawFd>().ok();
        let (state, other) = (number()?, number()?);
        match kind {
            "check" => Some(Task::Check {
                state,
                reply: other,
            }),
            "take-over" => Some(Task::TakeOver {
                state,
                before: other,
            }),
            "return" => Some(Task::Return {
                state,
                before: other,
            }),
            _ => None,
        }
    }

    pub fn write(self) -> String {
        match self {
            Task::Check { state, reply } => format!("check {state} {reply}"),
            Task::TakeOver { state, before } => format!("take-over {state} {before}"),
            Task::Return { state, before } => format!("return {state} {before}"),
        }
    }
}

impl HandOver {
    pub fn new(version: &str, program: PathBuf, apps: Vec<AppState>) -> Self {
        Self {
            format: FORMAT,
            version: version.into(),
            program,
            apps,
            birth: None,
            doors: Vec::new(),
            pid_file: None,
            foreign: BTreeSet::new(),
            company: Company::Alone,
        }
    }

    /// Every descriptor that is handed over.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let listeners = |app: &AppState| -> Vec<RawFd> {
            app.listeners.iter().map(|handed| handed.spec.fd).collect()
        };
        let generations = |app: &AppState| -> Vec<RawFd> {
            let own = |g: &GenerationState| {
                let output = g.output.iter().flat_map(OutputState::descriptors);
                let own = [g.pidfd, g.channel, g.scoreboard].into_iter();
                own.chain(output).collect::<Vec<_>>()
            };
            app.generations.iter().flat_map(own).collect()
        };
        let relay = |app: &AppState| app.relay.into_iter().flat_map(|relay| relay.ends);
        let was = |app: &AppState| app.was.descriptors().collect::<Vec<_>>();
        let all = |app| {
            let listeners = listeners(app).into_iter();
            listeners
                .chain(generations(app))
                .chain(relay(app))
                .chain(was(app))
        };
        let doors = self.doors.iter().map(|door| door.listener.spec.fd);
        let pid_file = self.pid_file.iter().flat_map(HandedPidFile::descriptors);
        let own = doors.chain(pid_file);
        self.apps.iter().flat_map(all).chain(own).collect()
    }

    /// A memory file with the state.
    pub fn write(&self) -> io::Result<OwnedFd> {
        let fd = memfd_create(c"rswsgi hand-over", MFdFlags::MFD_CLOEXEC)?;
        let mut file = File::from(fd);
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(file.into())
    }

    /// Reads the state without taking anything over.
    pub fn read(state: RawFd) -> Result<HandOver> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::new(Exit::Internal, format!("unreadable state: {error}"))
        };
        let file = File::from(fd::duplicate(state).map_err(|error| unreadable(&error))?);
        let length = file.metadata().map_err(|error| unreadable(&error))?.len();
        if length > LARGEST {
            return Err(unreadable(&format_args!("{length} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        // At a place of its own: the writer may have to read it again.
        file.read_exact_at(&mut bytes, 0)
            .map_err(|error| unreadable(&error))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(unreadable(&format_args!("its format is {format}"))),
            None => return Err(unreadable(&"it has no format")),
        }
        serde_json::from_value(value).map_err(|error| unreadable(&error))
    }
}

/// Duplicates what was inherited; the original stays as it is until [`release`].
pub fn take(number: RawFd, what: &str) -> Result<OwnedFd> {
    if !fd::is_inheritable(number) {
        let message = format!("descriptor {number}, {what}, was not handed over");
        return Err(Error::new(Exit::Internal, message));
    }
    fd::duplicate(number).map_err(|error| {
        let doing = format_args!("cannot take over descriptor {number}, {what}");
        Error::io(doing, &error)
    })
}

/// Closes what was inherited, once all of it is taken over.
pub fn release(numbers: &[RawFd]) {
    for number in numbers {
        drop(fd::claim(*number));
    }
}

/// For descriptors that this process owns.
pub fn number(fd: &impl std::os::fd::AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state() -> Value {
        json!({
            "format": 1, "version": "9.9", "program": "/bin/rswsgi", "of a later version": [],
            "apps": [{
                "settings": {"whatever": 1}, "next": 4, "restart_at": null, "totals": {"requests": 1},
                "listeners": [{
                    "spec": {"fd": 3, "kind": {"tcp": {"addr": "127.0.0.1:80"}}, "name": "x"},
                    "file": null
                }],
                "generations": [{
                    "number": 3, "started": 7, "stage": {"leaving": {"until": 9}}, "pid": 5, "pidfd": 6,
                    "channel": 7, "is_silent": false, "scoreboard": 8, "layout": "", "python": "3.11"
                }]
            }]
        })
    }

    fn file(bytes: &[u8]) -> OwnedFd {
        let fd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        file.into()
    }

    #[test]
    fn a_state_is_read_again_and_again() {
        let written = file(state().to_string().as_bytes());
        let read = HandOver::read(written.as_raw_fd()).unwrap();
        assert_eq!(read.descriptors(), [3, 6, 7, 8]);
        let again = read.write().unwrap();
        for _ in 0..2 {
            let again = HandOver::read(again.as_raw_fd()).unwrap();
            assert_eq!(again.apps[0].generations[0].number, 3);
            assert_eq!(again.version, "9.9");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let mut other = state();
        other["format"] = json!(2);
        let mut incomplete = state();
        incomplete["apps"][0]["next"] = json!("four");
        for (bytes, reason) in [
            (other.to_string().as_bytes(), "its format is 2"),
            (incomplete.to_string().as_bytes(), "invalid type"),
            (b"{}", "it has no format"),
            (b"", "EOF"),
        ] {
            let error = HandOver::read(file(bytes).as_raw_fd()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(HandOver::read(-1).is_err());
    }

    #[test]
    fn a_task_is_read_as_it_was_written() {
        for task in [
            Task::Check { state: 3, reply: 4 },
            Task::TakeOver {
                state: 3,
                before: 4,
            },
            Task::Return {
                state: 3,
                before: 4,
            },
        ] {
            assert_eq!(Task::read(&task.write()), Some(task));
        }
        for strange in ["", "check", "check 3", "take-over x 3", "else 3 4"] {
            assert_eq!(Task::read(strange), None, "{strange}");
        }
    }

    #[test]
    fn what_was_not_inherited_is_not_taken() {
        let own = file(b"");
        assert!(take(own.as_raw_fd(), "a file").is_err());
        let inherited = nix::unistd::dup(&own).unwrap();
        take(inherited.as_raw_fd(), "a file").unwrap();
        assert!(fd::is_inheritable(inherited.as_raw_fd()));
    }
}
