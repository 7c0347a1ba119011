//! The configuration that is written, as far as it has come.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::read::show;
use super::{Becomes, Row};
use crate::config::{SETTINGS, Setting, accepts, write_line};

const WIDTH: usize = 96;

/// What will be written.
#[derive(Debug, Default)]
pub struct Draft {
    /// Whose configuration it was.
    server: &'static str,
    settings: BTreeMap<&'static str, Entry>,
    /// Options without an equivalent: the option, and what comes nearest.
    lost: Vec<(String, String)>,
    needless: Vec<(String, String)>,
    remarks: Vec<String>,
}

#[derive(Debug, Default)]
struct Entry {
    texts: Vec<String>,
    /// The options it comes from.
    from: Vec<String>,
    remarks: Vec<String>,
}

impl Draft {
    pub fn new(server: &'static str) -> Draft {
        Draft {
            server,
            ..Draft::default()
        }
    }

    /// A value that replaces what is there.
    pub fn set(&mut self, setting: &'static str, texts: Vec<String>, from: &str) {
        let entry = self.settings.entry(setting).or_default();
        entry.texts = texts;
        entry.from.push(from.into());
    }

    /// Further values of a list.
    pub fn add(&mut self, setting: &'static str, texts: Vec<String>, from: &str) {
        let entry = self.settings.entry(setting).or_default();
        entry.texts.extend(texts);
        entry.from.push(from.into());
    }

    pub fn get(&self, setting: &str) -> Option<&[String]> {
        self.settings.get(setting).map(|entry| &*entry.texts)
    }

    /// Something to be known about a setting.
    pub fn remark(&mut self, setting: &'static str, text: impl Into<String>) {
        if let Some(entry) = self.settings.get_mut(setting) {
            entry.remarks.push(text.into());
        }
    }

    /// Something to be known about all of it.
    pub fn note(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    pub fn lose(&mut self, option: &str, value: &Value, reason: impl Into<String>) {
        let option = format!("{option} = {}", show(value));
        self.lost.push((option, reason.into()));
    }

    pub fn needless(&mut self, option: &str, reason: &str) {
        self.needless.push((option.into(), reason.into()));
    }

    /// Does what the row of an option says. False for one that is looked at together with others.
    pub(super) fn take(&mut self, row: &'static Row, option: &str, value: &Value) -> bool {
        match row.becomes {
            Becomes::Setting(setting, read) => match read(value) {
                Ok(texts) => self.set(setting, texts, option),
                Err(reason) => self.lose(option, value, reason),
            },
            Becomes::Together => return false,
            Becomes::Needless(reason) => self.needless(option, reason),
            Becomes::Lost(reason) => self.lose(option, value, reason),
        }
        true
    }

    /// The options that have no equivalent.
    pub fn lost(&self) -> impl Iterator<Item = &str> {
        self.lost.iter().map(|(option, _)| option.as_str())
    }

    /// Values that rswsgi does not take are options without an equivalent.
    fn check(&mut self) {
        for setting in SETTINGS {
            let Some(entry) = self.settings.get_mut(setting.name) else {
                continue;
            };
            let from = entry.from.join(", ");
            // A configuration file has no variables.
            let (variable, plain): (Vec<_>, Vec<_>) =
                entry.texts.drain(..).partition(|text| text.contains('$'));
            for text in variable {
                let reason = format!(
                    "a configuration file has no variables; on the command line: {}",
                    flag(setting, &text)
                );
                self.lost.push((format!("{from} = {text}"), reason));
            }
            entry.texts = plain;
            if entry.texts.is_empty() {
                self.settings.remove(setting.name);
            } else if let Err(reason) = accepts(setting.name, &entry.texts) {
                let option = format!("{from} = {}", entry.texts.join(", "));
                self.lost.push((option, reason));
                self.settings.remove(setting.name);
            }
        }
    }

    /// TOML. `source` names what was converted.
    pub fn write(&mut self, source: &str) -> String {
        self.check();
        let mut text = format!(
            "# Configuration of rswsgi, converted from that of {}: {source}\n",
            self.server
        );
        comment(&mut text, "# ", &summary(self.lost.len()));
        if !self.settings.contains_key("target") && !self.settings.contains_key("module") {
            let example =
                "the application is not named in it: rswsgi --config FILE myapp.wsgi:application";
            comment(&mut text, "# ", example);
        }
        for remark in &self.remarks {
            comment(&mut text, "# ", remark);
        }
        // A table ends the part of a TOML file that has no heading.
        let (tables, plain): (Vec<_>, Vec<_>) = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting, self.settings.get(setting.name)?)))
            .partition(|(setting, _)| setting.name == "env");
        for (setting, entry) in plain.into_iter().chain(tables) {
            text.push('\n');
            comment(&mut text, "# ", &entry.from.join(", "));
            for remark in &entry.remarks {
                comment(&mut text, "# ", remark);
            }
            let _ = writeln!(text, "{}", write_line(setting, &entry.texts));
        }
        for (title, options) in [
            ("Without an equivalent:", &self.lost),
            ("Not needed:", &self.needless),
        ] {
            if options.is_empty() {
                continue;
            }
            let _ = write!(text, "\n# {title}\n");
            for (option, reason) in options {
                let option = option.replace(char::is_control, " ");
                let _ = writeln!(text, "#   {option}");
                comment(&mut text, "#     ", reason);
            }
        }
        text
    }
}

fn flag(setting: &Setting, text: &str) -> String {
    match setting.name {
        "target" => text.into(),
        name => format!("--{name} {text}"),
    }
}

pub fn summary(lost: usize) -> String {
    match lost {
        0 => "every option has an equivalent or needs none".into(),
        1 => "1 option has no equivalent, it is listed at the end".into(),
        lost => format!("{lost} options have no equivalent, they are listed at the end"),
    }
}

fn comment(text: &mut String, prefix: &str, words: &str) {
    // TOML has no control characters in comments.
    let words = words.replace(char::is_control, " ");
    let mut line = prefix.to_owned();
    for word in words.split_whitespace() {
        if line.len() > prefix.len() && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = prefix.to_owned();
        }
        if line.len() > prefix.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
