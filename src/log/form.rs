//! Entries as text: for people, or as JSON.

#![forbid(unsafe_code)]

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Level;

/// One entry, which may have several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub time: SystemTime,
    pub level: Level,
    pub who: String,
    pub pid: u32,
    /// Without an end of line.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    Text,
    Json,
}

impl Entry {
    /// The app it speaks of: `shop` of `worker 2 [shop gen 3]`.
    pub fn app(&self) -> Option<&str> {
        let (_, rest) = self.who.split_once('[')?;
        rest.split_once(" gen ").map(|(app, _)| app)
    }

    /// What the application itself has printed, a line each: it has no time and no level.
    pub fn is_output(&self) -> bool {
        self.who.starts_with("output ")
    }
}

/// Text of somebody who is not trusted, for a log that others read: what follows a line is set in, so that it
/// cannot be taken for an entry, and no control character reaches a terminal.
pub fn foreign(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => shown.push_str("\n  "),
            '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// With an end of line.
pub fn line(form: Form, entry: &Entry) -> String {
    match form {
        Form::Text if entry.is_output() => format!("{}\n", entry.text),
        Form::Text => {
            let time = humantime::format_rfc3339_millis(entry.time);
            let Entry { who, text, .. } = entry;
            format!("{time} rswsgi: {who}: {}: {text}\n", entry.level.name())
        }
        Form::Json => json(entry),
    }
}

fn json(entry: &Entry) -> String {
    #[derive(Serialize)]
    struct Object<'a> {
        time: String,
        level: &'a str,
        who: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        app: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        message: &'a str,
    }
    let object = Object {
        time: humantime::format_rfc3339_millis(entry.time).to_string(),
        level: entry.level.name(),
        who: &entry.who,
        app: entry.app(),
        pid: Some(entry.pid).filter(|pid| *pid > 0),
        message: &entry.text,
    };
    let mut text = serde_json::to_string(&object).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    pub fn entry(text: &str) -> Entry {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            level: Level::Warning,
            who: "worker 2 [shop gen 3]".into(),
            pid: 77,
            text: text.into(),
        }
    }

    #[test]
    fn text_is_for_people() {
        assert_eq!(
            line(Form::Text, &entry("one\ntwo")),
            "1970-01-01T00:00:01.500Z rswsgi: worker 2 [shop gen 3]: warning: one\ntwo\n"
        );
        let printed = Entry {
            who: "output [shop gen 3]".into(),
            ..entry("as it was")
        };
        assert_eq!(line(Form::Text, &printed), "as it was\n");
    }

    #[test]
    fn json_is_one_line_whatever_the_text() {
        let text = line(Form::Json, &entry("one\n\"two\"\u{1b}\u{0}"));
        assert_eq!(text.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["message"], "one\n\"two\"\u{1b}\u{0}");
        assert_eq!(object["level"], "warning");
        assert_eq!(object["app"], "shop");
        assert_eq!(object["pid"], 77);
        assert_eq!(object["time"], "1970-01-01T00:00:01.500Z");
    }
}
