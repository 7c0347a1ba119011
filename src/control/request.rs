//! Requests: one JSON object, `{"v":1,"do":"stats"}`, with arguments beside `do`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Kind, Refused, VERSION};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The app it is about; all of them without.
    pub app: Option<String>,
    pub verb: Verb,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Whether a server is there, and which. No arguments. Reply: [`super::Ping`].
    Ping,
    /// What it is doing and what it has done. No arguments. Reply: [`super::Stats`].
    Stats,
    /// Start the next generation. No arguments. The reply comes when the reload has ended:
    /// [`super::Reloaded`], or an error of kind `failed` with reason and traceback.
    Reload,
    /// `how`: `graceful` (default) or `now`. The reply, [`super::Stopping`], comes at once; the
    /// connection ends when the server does.
    Stop(HowToStop),
    /// `by`: so many workers more or, below zero, fewer; or `to`: so many. A fixed pool is resized, an
    /// elastic one gets another minimum. Holds until the next reload. Reply: [`super::Scaled`].
    Scale(Resize),
    /// Replace live workers as planned, at most a quarter of the pool at a time. `worker`: only the
    /// one in this slot. The reply, [`super::Recycled`], comes at once.
    Recycle { worker: Option<u32> },
    /// Open the log files anew. No arguments. Reply: `{"ok":true}`.
    Reopen,
    /// The Python stacks of all threads of workers, now. `worker`: only of the one in this slot; or
    /// `busy`: true for those that run a request. Reply: [`super::Trace`].
    Trace(Workers),
    /// The settings in force. No arguments. Reply: [`super::Config`].
    Config,
    /// The apps there are, and which cannot be served. No arguments. Reply: [`super::AppList`].
    Apps,
    /// The story of the last starts. No arguments. Reply: [`super::Why`].
    Why,
    /// The last lines of the log of an app. No arguments. Reply: [`super::LogTail`].
    Logs,
    /// `level`: the new one; without, nothing is changed. With `app` it is that of one of many apps, which
    /// otherwise logs as much as the server. Reply: [`super::Level`].
    LogLevel { level: Option<String> },
}

/// How a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HowToStop {
    /// What runs is finished, for at most `--graceful-timeout`.
    #[default]
    Graceful,
    Now,
}

/// Another size of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    By(i32),
    To(u32),
}

/// Which workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workers {
    All,
    /// Those that run a request.
    Busy,
    /// The one in this slot.
    One(u32),
}

impl Verb {
    /// As it is written in `do`.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Ping => "ping",
            Verb::Stats => "stats",
            Verb::Reload => "reload",
            Verb::Stop(_) => "stop",
            Verb::Scale(_) => "scale",
            Verb::Recycle { .. } => "recycle",
            Verb::Reopen => "reopen",
            Verb::Trace(_) => "trace",
            Verb::Config => "config",
            Verb::Apps => "apps",
            Verb::Why => "why",
            Verb::Logs => "logs",
            Verb::LogLevel { .. } => "log-level",
        }
    }

    /// What the user of an app may ask for about it (`--control-users`).
    pub fn is_for_users(&self) -> bool {
        match self {
            Verb::Scale(_) | Verb::Recycle { .. } | Verb::Reopen => false,
            Verb::Reload | Verb::Stop(_) | Verb::LogLevel { .. } => true,
            _ => self.only_reads(),
        }
    }

    /// Whether it leaves the server as it is: what members of `--control-group` may ask for.
    pub fn only_reads(&self) -> bool {
        match self {
            Verb::Ping
            | Verb::Stats
            | Verb::Trace(_)
            | Verb::Config
            | Verb::Apps
            | Verb::Why
            | Verb::Logs => true,
            Verb::LogLevel { level } => level.is_none(),
            Verb::Reload | Verb::Stop(_) | Verb::Scale(_) | Verb::Recycle { .. } | Verb::Reopen => {
                false
            }
        }
    }
}

/// Every verb, for messages and completions.
pub const VERBS: [&str; 13] = [
    "ping",
    "stats",
    "reload",
    "stop",
    "scale",
    "recycle",
    "reopen",
    "trace",
    "config",
    "apps",
    "why",
    "logs",
    "log-level",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopArguments {
    #[serde(default)]
    how: HowToStop,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleArguments {
    by: Option<i32>,
    to: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecycleArguments {
    worker: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceArguments {
    worker: Option<u32>,
    #[serde(default)]
    busy: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelArguments {
    level: Option<String>,
}

impl Request {
    /// Reads one line.
    ///
    /// # Errors
    /// Of the kinds `malformed`, `version`, `unknown-verb` and `bad-argument`, to be sent as they are.
    pub fn read(line: &[u8]) -> Result<Request, Refused> {
        let refuse = |kind, text: String| Err(Refused::new(kind, text));
        let mut fields: Map<String, Value> = match serde_json::from_slice(line) {
            Ok(fields) => fields,
            Err(error) => {
                let text = format!("a request is one JSON object in one line: {error}");
                return refuse(Kind::Malformed, text);
            }
        };
        match fields.remove("v") {
            Some(Value::Number(v)) if v.as_u64() == Some(VERSION.into()) => {}
            Some(v) => {
                let text = format!("version {} is not spoken here, {VERSION} is", cut(&v));
                return refuse(Kind::Version, text);
            }
            None => return refuse(Kind::Version, format!("\"v\":{VERSION} is missing")),
        }
        let app = match fields.remove("app") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return refuse(Kind::BadArgument, "\"app\" is to be a text".into()),
        };
        let verb = match fields.remove("do") {
            Some(Value::String(verb)) => read_verb(&verb, fields)?,
            Some(_) => return refuse(Kind::Malformed, "\"do\" is to be a text".into()),
            None => return refuse(Kind::Malformed, "\"do\" is missing".into()),
        };
        Ok(Request { app, verb })
    }

    /// The line that [`Request::read`] reads, with its line break.
    pub fn write(&self) -> String {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.into(), value);
        put("v", VERSION.into());
        put("do", self.verb.name().into());
        if let Some(app) = &self.app {
            put("app", app.as_str().into());
        }
        match &self.verb {
            Verb::Stop(HowToStop::Now) => put("how", "now".into()),
            Verb::Scale(Resize::By(by)) => put("by", (*by).into()),
            Verb::Scale(Resize::To(to)) => put("to", (*to).into()),
            Verb::Recycle { worker: Some(slot) } | Verb::Trace(Workers::One(slot)) => {
                put("worker", (*slot).into())
            }
            Verb::Trace(Workers::Busy) => put("busy", true.into()),
            Verb::LogLevel { level: Some(level) } => put("level", level.as_str().into()),
            _ => None,
        };
        Value::Object(fields).to_string() + "\n"
    }
}

fn read_verb(verb: &str, fields: Map<String, Value>) -> Result<Verb, Refused> {
    let verb = match verb {
        "ping" => arguments::<Nothing>(verb, fields).map(|_| Verb::Ping)?,
        "stats" => arguments::<Nothing>(verb, fields).map(|_| Verb::Stats)?,
        "reload" => arguments::<Nothing>(verb, fields).map(|_| Verb::Reload)?,
        "reopen" => arguments::<Nothing>(verb, fields).map(|_| Verb::Reopen)?,
        "apps" => arguments::<Nothing>(verb, fields).map(|_| Verb::Apps)?,
        "why" => arguments::<Nothing>(verb, fields).map(|_| Verb::Why)?,
        "logs" => arguments::<Nothing>(verb, fields).map(|_| Verb::Logs)?,
        "config" => arguments::<Nothing>(verb, fields).map(|_| Verb::Config)?,
        "stop" => Verb::Stop(arguments::<StopArguments>(verb, fields)?.how),
        "scale" => match arguments(verb, fields)? {
            ScaleArguments {
                by: Some(by),
                to: None,
            } => Verb::Scale(Resize::By(by)),
            ScaleArguments {
                by: None,
                to: Some(to),
            } => Verb::Scale(Resize::To(to)),
            _ => {
                let text = "scale takes either \"by\" or \"to\"";
                return Err(Refused::new(Kind::BadArgument, text));
            }
        },
        "recycle" => {
            let RecycleArguments { worker } = arguments(verb, fields)?;
            Verb::Recycle { worker }
        }
        "trace" => match arguments(verb, fields)? {
            TraceArguments {
                worker: Some(slot),
                busy: false,
            } => Verb::Trace(Workers::One(slot)),
            TraceArguments {
                worker: None,
                busy: true,
            } => Verb::Trace(Workers::Busy),
            TraceArguments {
                worker: None,
                busy: false,
            } => Verb::Trace(Workers::All),
            _ => {
                let text = "trace takes either \"worker\" or \"busy\"";
                return Err(Refused::new(Kind::BadArgument, text));
            }
        },
        "log-level" => {
            let LevelArguments { level } = arguments(verb, fields)?;
            Verb::LogLevel { level }
        }
        _ => {
            let shown = cut(&Value::from(verb));
            let text = format!("{shown} is no verb; they are {}", VERBS.join(" "));
            return Err(Refused::new(Kind::UnknownVerb, text));
        }
    };
    Ok(verb)
}

fn arguments<T: DeserializeOwned>(verb: &str, fields: Map<String, Value>) -> Result<T, Refused> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| {
        let text: String = error.to_string().chars().take(SHOWN).collect();
        Refused::new(Kind::BadArgument, format!("{verb}: {text}"))
    })
}

/// Characters of a request that an answer repeats.
const SHOWN: usize = 200;

fn cut(value: &Value) -> String {
    value.to_string().chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb(line: &str) -> Result<Verb, Kind> {
        Request::read(line.as_bytes())
            .map(|request| request.verb)
            .map_err(|refused| refused.kind)
    }

    #[test]
    fn every_verb_is_read_and_reads_back() {
        for (line, expected) in [
            (r#"{"v":1,"do":"ping"}"#, Verb::Ping),
            (r#" { "do":"stats", "v":1 } "#, Verb::Stats),
            (r#"{"v":1,"do":"reload"}"#, Verb::Reload),
            (r#"{"v":1,"do":"stop"}"#, Verb::Stop(HowToStop::Graceful)),
            (
                r#"{"v":1,"do":"stop","how":"now"}"#,
                Verb::Stop(HowToStop::Now),
            ),
            (
                r#"{"v":1,"do":"scale","by":-2}"#,
                Verb::Scale(Resize::By(-2)),
            ),
            (r#"{"v":1,"do":"scale","to":4}"#, Verb::Scale(Resize::To(4))),
            (r#"{"v":1,"do":"recycle"}"#, Verb::Recycle { worker: None }),
            (
                r#"{"v":1,"do":"recycle","worker":3}"#,
                Verb::Recycle { worker: Some(3) },
            ),
            (r#"{"v":1,"do":"reopen"}"#, Verb::Reopen),
            (r#"{"v":1,"do":"trace"}"#, Verb::Trace(Workers::All)),
            (
                r#"{"v":1,"do":"trace","busy":true}"#,
                Verb::Trace(Workers::Busy),
            ),
            (
                r#"{"v":1,"do":"trace","worker":0}"#,
                Verb::Trace(Workers::One(0)),
            ),
            (r#"{"v":1,"do":"config"}"#, Verb::Config),
            (r#"{"v":1,"do":"apps"}"#, Verb::Apps),
            (r#"{"v":1,"do":"why"}"#, Verb::Why),
            (r#"{"v":1,"do":"logs"}"#, Verb::Logs),
            (
                r#"{"v":1,"do":"log-level"}"#,
                Verb::LogLevel { level: None },
            ),
            (
                r#"{"v":1,"do":"log-level","level":"debug"}"#,
                Verb::LogLevel {
                    level: Some("debug".into()),
                },
            ),
        ] {
            assert_eq!(verb(line).as_ref(), Ok(&expected), "{line}");
            assert!(VERBS.contains(&expected.name()));
            let app = Some("shop".to_owned());
            let request = Request {
                app,
                verb: expected,
            };
            let written = request.write();
            assert_eq!(Request::read(written.as_bytes()), Ok(request), "{written}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, kind) in [
            ("", Kind::Malformed),
            ("{", Kind::Malformed),
            ("[]", Kind::Malformed),
            ("\u{0}", Kind::Malformed),
            (r#"{"v":1}"#, Kind::Malformed),
            (r#"{"v":1,"do":7}"#, Kind::Malformed),
            (r#"{"v":1,"do":"ping"} {}"#, Kind::Malformed),
            (r#"{"do":"ping"}"#, Kind::Version),
            (r#"{"v":2,"do":"ping"}"#, Kind::Version),
            (r#"{"v":"1","do":"ping"}"#, Kind::Version),
            (r#"{"v":1,"do":"PING"}"#, Kind::UnknownVerb),
            (r#"{"v":1,"do":"ping","x":1}"#, Kind::BadArgument),
            (r#"{"v":1,"do":"ping","app":1}"#, Kind::BadArgument),
            (r#"{"v":1,"do":"stop","how":"later"}"#, Kind::BadArgument),
            (r#"{"v":1,"do":"scale"}"#, Kind::BadArgument),
            (r#"{"v":1,"do":"scale","by":1,"to":1}"#, Kind::BadArgument),
            (r#"{"v":1,"do":"scale","to":-1}"#, Kind::BadArgument),
            (r#"{"v":1,"do":"scale","by":1e99}"#, Kind::BadArgument),
            (
                r#"{"v":1,"do":"trace","worker":1,"busy":true}"#,
                Kind::BadArgument,
            ),
        ] {
            assert_eq!(verb(line), Err(kind), "{line}");
        }
    }

    #[test]
    fn an_answer_repeats_only_a_little_of_the_question() {
        let long = "x".repeat(60_000);
        let line = format!(r#"{{"v":1,"do":"{long}"}}"#);
        let refused = Request::read(line.as_bytes()).unwrap_err();
        assert!(refused.error.len() < 500);
        let line = format!(r#"{{"v":1,"do":"ping","{long}":1}}"#);
        let refused = Request::read(line.as_bytes()).unwrap_err();
        assert!(refused.error.len() < 500);
        let nested = format!(r#"{{"v":{}1"#, "[".repeat(60_000));
        assert!(Request::read(nested.as_bytes()).is_err());
    }
}
