//! Replies: one JSON object in one line, `{"ok":true,...}` or `{"ok":false,"kind":...,"error":...}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::hosting::{AppList, LogTail, Why};
use super::stats::{Process, Stats};

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    Ping(Ping),
    Stats(Box<Stats>),
    Reloaded(Reloaded),
    Stopping(Stopping),
    Scaled(Scaled),
    Recycled(Recycled),
    Reopened {},
    Trace(Trace),
    Config(Config),
    Level(Level),
    Apps(AppList),
    Why(Why),
    Logs(LogTail),
    #[serde(skip)]
    Refused(Refused),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What a program can tell errors apart by.
    pub kind: Kind,
    /// One sentence for people.
    pub error: String,
    /// The Python traceback, when there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceback: String,
}

/// What a client can tell errors apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Not one JSON object in one line, or no HTTP.
    Malformed,
    /// Over 64 KiB; the connection is closed.
    TooLong,
    /// `v` is missing or another version.
    Version,
    UnknownVerb,
    /// An argument is missing, unknown, or of the wrong type or range.
    BadArgument,
    /// The user who asks may not; the connection is closed when it is nobody who may do anything.
    NoPermission,
    NoSuchApp,
    NoSuchWorker,
    /// Not now: the server stops, or nothing serves.
    Unavailable,
    /// It was tried: the reason is in `error` and `traceback`.
    Failed,
    /// No answer of the master in time, or no request of the client; in the latter case the
    /// connection is closed.
    TimedOut,
    /// Too many clients; the connection is closed.
    Busy,
}

impl Refused {
    pub fn new(kind: Kind, error: impl Into<String>) -> Self {
        Self {
            kind,
            error: error.into(),
            traceback: String::new(),
        }
    }

    /// Also for one that whoever asks may not know of.
    pub fn no_such_app(name: Option<&str>) -> Self {
        let error = match name {
            Some(name) => {
                format!("there is no app {name:?}; rswsgictl list shows the apps of each server")
            }
            None => "there is no app".to_owned(),
        };
        Self::new(Kind::NoSuchApp, error)
    }
}

/// The reply to `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Version of the structure of the statistics.
    pub schema: u32,
    /// The process that was asked.
    pub server: Process,
    /// The names of the apps.
    pub apps: Vec<String>,
}

/// The reply to `reload`: every app that was asked for serves with a new generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// One entry per app.
    pub reloaded: Vec<ReloadedApp>,
    /// Apps whose files are new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Apps whose files are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadedApp {
    /// Its name.
    pub app: String,
    /// The number of the generation that serves now.
    pub generation: u64,
    /// From the request to the moment the new generation served.
    pub took_seconds: f64,
}

/// The reply to `stop`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stopping {
    /// `graceful` or `now`.
    pub stopping: super::HowToStop,
    /// The app, when it is not the whole server that stops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

/// The reply to `scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    /// One entry per app.
    pub scaled: Vec<ScaledApp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaledApp {
    /// Its name.
    pub app: String,
    /// Fewest workers from now on.
    pub min: u32,
    /// Most workers from now on.
    pub max: u32,
}

/// The reply to `recycle`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recycled {
    /// Workers that are being replaced.
    pub recycling: u32,
}

/// The reply to `trace`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// One entry per worker.
    pub stacks: Vec<Stack>,
}

/// The Python stacks of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// Name of the app.
    pub app: String,
    /// Number of the generation.
    pub generation: u64,
    /// Of the worker.
    pub slot: u32,
    /// Process number of the worker.
    pub pid: i32,
    /// As in the statistics.
    pub state: String,
    /// The request line, while a request runs.
    pub request: Option<String>,
    /// How long that request has been running.
    pub request_age_seconds: Option<f64>,
    /// The stacks of all threads as faulthandler prints them, the innermost call first.
    pub stack: String,
    /// Why there is no stack, or not all of it.
    pub error: Option<String>,
}

/// The reply to `config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// One entry per app.
    pub apps: Vec<AppConfig>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppConfig {
    /// Its name.
    pub app: String,
    /// All settings, in the order of `--help`.
    pub settings: Vec<SettingInForce>,
}

/// One setting as the generation that serves has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingInForce {
    /// As on the command line, without its dashes.
    pub name: String,
    /// As it was given, several for a repeatable setting, none for one that is not set. Of
    /// `env` only the names are shown: `KEY=...`.
    pub values: Vec<String>,
    /// `default`, `--workers`, `RSWSGI_WORKERS`, `/etc/shop.toml:3`.
    pub source: Option<String>,
    /// `live`, `reload`, `restart`: what it takes for a change to count.
    pub takes_effect: String,
}

/// The reply to `log-level`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The level in force.
    pub level: String,
}

#[derive(Serialize)]
struct Line<'a, T> {
    ok: bool,
    #[serde(flatten)]
    body: &'a T,
}

impl Reply {
    /// The line, with its line break.
    pub fn write(&self) -> Vec<u8> {
        let mut line = match self {
            Reply::Refused(body) => serde_json::to_vec(&Line { ok: false, body }),
            body => serde_json::to_vec(&Line { ok: true, body }),
        }
        .expect("all keys are texts and every number is one JSON knows");
        line.push(b'\n');
        line
    }
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        Reply::Refused(refused)
    }
}

/// Reads a reply line as the client that knows what it asked for.
///
/// # Errors
/// What the server refused, or `malformed` for a line that is no such reply.
pub fn read_reply<T: DeserializeOwned>(line: &[u8]) -> Result<T, Refused> {
    #[derive(Deserialize)]
    struct Verdict {
        ok: bool,
    }
    let malformed = |error: serde_json::Error| {
        let text = format!("unreadable reply: {error}");
        Refused::new(Kind::Malformed, text)
    };
    let Verdict { ok } = serde_json::from_slice(line).map_err(malformed)?;
    match ok {
        true => serde_json::from_slice(line).map_err(malformed),
        false => Err(serde_json::from_slice(line).map_err(malformed)?),
    }
}

#[cfg(test)]
mod tests {
    use super::super::HowToStop;
    use super::*;

    fn line(reply: impl Into<Reply>) -> String {
        String::from_utf8(reply.into().write()).unwrap()
    }

    #[test]
    fn replies_are_one_line_each() {
        let refused = Refused {
            kind: Kind::NoSuchWorker,
            error: "a\nb".into(),
            traceback: "T\n".into(),
        };
        assert_eq!(
            line(refused),
            "{\"ok\":false,\"kind\":\"no-such-worker\",\"error\":\"a\\nb\",\"traceback\":\"T\\n\"}\n"
        );
        assert_eq!(line(Reply::Reopened {}), "{\"ok\":true}\n");
        let stopping = HowToStop::Now;
        assert_eq!(
            line(Reply::Stopping(Stopping {
                stopping,
                app: None
            })),
            "{\"ok\":true,\"stopping\":\"now\"}\n"
        );
        let scaled = vec![ScaledApp {
            app: "shop".into(),
            min: 1,
            max: 2,
        }];
        assert_eq!(
            line(Reply::Scaled(Scaled { scaled })),
            "{\"ok\":true,\"scaled\":[{\"app\":\"shop\",\"min\":1,\"max\":2}]}\n"
        );
        let level = "info".into();
        assert_eq!(
            line(Reply::Level(Level { level })),
            "{\"ok\":true,\"level\":\"info\"}\n"
        );
        assert_eq!(
            line(Reply::Recycled(Recycled { recycling: 2 })),
            "{\"ok\":true,\"recycling\":2}\n"
        );
    }

    #[test]
    fn a_client_reads_what_it_asked_for_or_why_not() {
        let scaled: Scaled =
            read_reply(b"{\"ok\":true,\"scaled\":[],\"of a later version\":1}\n").unwrap();
        assert!(scaled.scaled.is_empty());
        let refused = Refused::new(Kind::Unavailable, "nothing serves");
        let again = read_reply::<Scaled>(line(refused.clone()).as_bytes());
        assert_eq!(again, Err(refused));
        for strange in ["", "{}", "[]", "{\"ok\":true}", "{\"ok\":false}"] {
            let error = read_reply::<Scaled>(strange.as_bytes()).unwrap_err();
            assert_eq!(error.kind, Kind::Malformed, "{strange}");
        }
    }
}
