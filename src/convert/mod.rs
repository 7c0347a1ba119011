//! Configurations of gunicorn and uWSGI as configurations of rswsgi.
//!
//! Per server a table has a row for each of its options: the setting it becomes, or why none is needed, or
//! what comes nearest. Texts come in and a text goes out: nothing here opens a file or starts a process, so
//! whoever evaluates a configuration that is a program (`gunicorn.conf.py`) does that elsewhere.

#![forbid(unsafe_code)]

mod command;
mod draft;
pub mod gunicorn;
mod read;
pub mod uwsgi;

pub use command::{Command, parse as parse_command};
pub use draft::Draft;

use serde_json::Value;

/// One option as it was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub name: String,
    pub value: Value,
}

impl Given {
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Given {
        Given {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// What reads the value of an option as values of a setting of ours.
type Reader = fn(&Value) -> Result<Vec<String>, String>;

/// What an option becomes.
enum Becomes {
    Setting(&'static str, Reader),
    /// Looked at together with others.
    Together,
    /// It is always so, or the matter does not arise.
    Needless(&'static str),
    /// What comes nearest.
    Lost(&'static str),
}

/// One option of another server.
struct Row {
    /// Its name in files, then its other names and its flags. `x*` stands for every name with that start.
    names: &'static str,
    takes: Takes,
    becomes: Becomes,
}

/// Whether a flag is followed by a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Value,
    Nothing,
}

const fn row(names: &'static str, becomes: Becomes) -> Row {
    Row {
        names,
        takes: Takes::Value,
        becomes,
    }
}

/// An option that is on or off.
const fn switch(names: &'static str, becomes: Becomes) -> Row {
    Row {
        names,
        takes: Takes::Nothing,
        becomes,
    }
}

impl Row {
    fn name(&self) -> &'static str {
        self.names.split(' ').next().unwrap_or_default()
    }

    fn is_named(&self, name: &str) -> bool {
        self.names
            .split(' ')
            .any(|own| match own.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => own == name,
            })
    }
}

/// The row of an option, by any of its names.
fn find(table: &'static [Row], name: &str) -> Option<&'static Row> {
    // A whole name comes before a start.
    let whole = |row: &&Row| row.names.split(' ').any(|own| own == name);
    let rows = || table.iter();
    rows()
        .find(whole)
        .or_else(|| rows().find(|row| row.is_named(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn check(table: &'static [Row]) {
        let mut names = std::collections::BTreeSet::new();
        for row in table {
            for name in row.names.split(' ') {
                assert!(names.insert(name), "{name} stands there twice");
            }
            let (text, setting) = match row.becomes {
                Becomes::Setting(name, _) => ("", Some(name)),
                Becomes::Together => ("", None),
                Becomes::Needless(text) | Becomes::Lost(text) => (text, None),
            };
            let is_setting = |name| SETTINGS.iter().any(|setting| setting.name == name);
            assert!(setting.is_none_or(is_setting), "{setting:?}");
            assert!(!text.ends_with('.') && text.is_ascii(), "{text}");
        }
    }

    #[test]
    fn every_row_names_a_setting_of_ours_and_stands_there_once() {
        check(gunicorn::TABLE);
        check(uwsgi::TABLE);
    }

    /// Options that the texts of the tables recommend exist.
    #[test]
    fn what_is_recommended_exists() {
        for row in gunicorn::TABLE.iter().chain(uwsgi::TABLE) {
            let (Becomes::Needless(text) | Becomes::Lost(text)) = row.becomes else {
                continue;
            };
            for word in text.split([' ', ',', ':', ';', '(', ')', '=']) {
                let Some(flag) = word.strip_prefix("--") else {
                    continue;
                };
                let known = SETTINGS.iter().any(|setting| setting.name == flag);
                assert!(known, "{}: --{flag}", row.name());
            }
        }
    }
}
