//! Replies about the apps of a server: which there are, and the story of their starts.

use serde::{Deserialize, Serialize};

/// The reply to `apps`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AppList {
    /// One entry per app, also for files of which there is none.
    pub apps: Vec<AppEntry>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppEntry {
    /// Its name.
    pub app: String,
    /// `serving`, `at rest` (no process; the next connection starts it), `waiting` (for its turn to start),
    /// `starting`, `reloading`, `failing` (it did not come up and is tried again), `stopped`, `leaving` or
    /// `disabled` (it cannot be served with the file it has).
    pub state: String,
    /// Who it runs as; `null` for the user of the server.
    pub user: Option<String>,
    /// Masters and workers it has now.
    pub processes: u32,
    /// Its generation that serves.
    pub generation: Option<u64>,
    /// Time since the last request, while it serves and runs none.
    pub idle_seconds: Option<f64>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Connections that were answered 503 because it could not be started.
    pub turned_away: u64,
    /// What it is not isolated by, although `isolation` asks for it.
    pub lacks: Vec<String>,
    /// Why it is disabled or failing, or what is wrong with its file although it serves.
    pub reason: Option<String>,
}

/// The reply to `logs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogTail {
    /// One entry per app.
    pub apps: Vec<AppLog>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppLog {
    /// Its name.
    pub app: String,
    /// The last lines that its processes have written, 16 KiB at most.
    pub lines: Vec<String>,
}

/// The reply to `why`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// One entry per app.
    pub apps: Vec<AppStory>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppStory {
    /// Its name.
    pub app: String,
    /// As in `apps`.
    pub state: String,
    /// As in `apps`.
    pub reason: Option<String>,
    /// Its last starts, the latest first.
    pub starts: Vec<Start>,
}

/// One generation on its way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Number of the generation.
    pub generation: u64,
    /// `start`, `connection` (somebody connected), `reload` or `restart` (in the place of one that was lost).
    pub cause: String,
    /// Time since it was asked for.
    pub age_seconds: f64,
    /// `starting`, `served`, `failed`, `given up` (for a later one) or `lost` (its master ended although it served).
    pub result: String,
    /// How long it waited for its turn.
    pub waited_seconds: f64,
    /// How long the import took.
    pub imported_seconds: Option<f64>,
    /// From the start of its interpreter to the moment it served, or failed.
    pub took_seconds: Option<f64>,
    /// Why it failed or was lost, in one line.
    pub error: Option<String>,
    /// The Python traceback, of the latest failure only.
    pub traceback: Option<String>,
    /// How long the next try was put off.
    pub back_off_seconds: Option<f64>,
}
