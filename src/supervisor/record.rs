//! What the supervisor remembers of the past beside what workers count. It outlives an upgrade.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::generation::Failure;
use crate::schedule::Number;
use crate::sys::clock::{self, Nanos};

/// When the server was started; an upgrade does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    pub monotonic: Nanos,
    /// Nanoseconds since 1970.
    pub unix: Nanos,
}

impl Birth {
    pub fn now() -> Self {
        Self {
            monotonic: clock::now(),
            unix: clock::unix_nanos(),
        }
    }
}

/// Since the server was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Reloads that ended well.
    pub reloads: u64,
    pub failed_reloads: u64,
    /// Masters that ended although they were to serve.
    pub master_crashes: u64,
}

/// The last reload, or the one under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    pub asked: Nanos,
    pub ended: Option<Ended>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Nanos,
    pub result: Result<Number, Failure>,
}

impl LastReload {
    pub fn begin(now: Nanos) -> Self {
        Self {
            asked: now,
            ended: None,
        }
    }

    pub fn is_under_way(&self) -> bool {
        self.ended.is_none()
    }

    pub fn succeeded(self, number: Number, now: Nanos) -> Self {
        self.end(Ok(number), now)
    }

    /// `text`: the reason in its first line, the traceback in those that follow.
    pub fn failed(self, text: &str, now: Nanos) -> Self {
        let (reason, traceback) = text.split_once('\n').unwrap_or((text, ""));
        let failure = Failure {
            reason: reason.into(),
            traceback: traceback.into(),
        };
        self.end(Err(failure), now)
    }

    fn end(self, result: Result<Number, Failure>, now: Nanos) -> Self {
        Self {
            ended: Some(Ended { at: now, result }),
            ..self
        }
    }
}
