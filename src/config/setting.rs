//! How a setting is declared. One [`Setting`] feeds the command line, the environment, `--help` and
//! whatever else lists settings; `table.rs` holds the declarations.

#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::time::Duration;

use super::value;

/// One setting, declared once.
#[derive(Debug)]
pub struct Setting {
    /// The long flag without its dashes; also the key in a configuration file.
    pub name: &'static str,
    pub short: Option<char>,
    /// What stands for the value in help, `""` for a switch.
    pub value: &'static str,
    pub kind: Kind,
    pub section: Section,
    /// The text that is read when no layer names the setting.
    pub default: Option<&'static str>,
    pub environment: Environment,
    pub scope: Scope,
    pub takes_effect: TakesEffect,
    /// One line, without a full stop.
    pub help: &'static str,
    /// Sentences: what the one line leaves open.
    pub long_help: &'static str,
}

/// The shape of a value.
#[derive(Debug)]
pub enum Kind {
    /// Read by code of its own: an address, a target.
    Text,
    Path,
    Number(RangeInclusive<u64>),
    /// Limits in milliseconds.
    Duration(RangeInclusive<u64>),
    /// Limits in bytes.
    Size(RangeInclusive<u64>),
    Choice(&'static [&'static str]),
    /// May be given several times; in one environment variable the values stand between separators.
    List {
        separator: char,
    },
    Switch,
}

/// Headings of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Application,
    Privileges,
    Process,
    Hosting,
    Listening,
    Workers,
    Requests,
    Development,
    Control,
    Logs,
    Actions,
}

impl Section {
    pub fn title(self) -> &'static str {
        match self {
            Section::Application => "Application",
            Section::Privileges => "Privileges",
            Section::Process => "Process",
            Section::Hosting => "Hosting many apps",
            Section::Listening => "Listening",
            Section::Workers => "Workers",
            Section::Requests => "Requests and responses",
            Section::Development => "Development",
            Section::Control => "Control",
            Section::Logs => "Logs",
            Section::Actions => "Actions",
        }
    }
}

/// Whether the setting has an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// `RSWSGI_` and the name in capitals.
    Derived,
    None,
}

/// Where a setting may stand when one server has many apps (`--apps-dir`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the file of an app; in the host file it is the default for all of them.
    App,
    /// The same, but not in a file that belongs to the user of the app.
    Admin,
    /// Of the server as a whole: not in the file of an app.
    Host,
}

/// What it takes for a changed value to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesEffect {
    /// At once, in the running generation.
    Live,
    /// In the next generation.
    Reload,
    /// When the supervisor is started again.
    Restart,
}

impl TakesEffect {
    pub fn name(self) -> &'static str {
        match self {
            TakesEffect::Live => "live",
            TakesEffect::Reload => "reload",
            TakesEffect::Restart => "restart",
        }
    }
}

/// A value that could be read without code of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(u64),
    Duration(Duration),
    Size(u64),
    Switch(bool),
}

impl Setting {
    /// `RSWSGI_HEAD_TIMEOUT` for `head-timeout`.
    pub fn variable(&self) -> Option<String> {
        match self.environment {
            Environment::Derived => {
                let name = self.name.replace('-', "_").to_ascii_uppercase();
                Some(format!("RSWSGI_{name}"))
            }
            Environment::None => None,
        }
    }
}

impl Kind {
    pub fn read(&self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Text | Kind::List { .. } => Ok(Value::Text(text.to_owned())),
            Kind::Path if text.is_empty() => Err("the path is empty".to_owned()),
            Kind::Path => Ok(Value::Text(text.to_owned())),
            Kind::Number(limits) => {
                let number = value::number(text)?;
                within(text, number, limits, |number| number.to_string())?;
                Ok(Value::Number(number))
            }
            Kind::Duration(limits) => {
                let duration = value::duration(text)?;
                let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                within(text, milliseconds, limits, |milliseconds| {
                    value::show_duration(Duration::from_millis(milliseconds))
                })?;
                Ok(Value::Duration(duration))
            }
            Kind::Size(limits) => {
                let size = value::size(text)?;
                within(text, size, limits, value::show_size)?;
                Ok(Value::Size(size))
            }
            Kind::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(choices) => Err(format!("{text:?} is not one of {}", choices.join(", "))),
            Kind::Switch => match text {
                "1" | "true" | "yes" | "on" => Ok(Value::Switch(true)),
                "0" | "false" | "no" | "off" => Ok(Value::Switch(false)),
                _ => Err(format!("{text:?} is neither yes nor no")),
            },
        }
    }
}

fn within(
    text: &str,
    value: u64,
    limits: &RangeInclusive<u64>,
    show: impl Fn(u64) -> String,
) -> Result<(), String> {
    if limits.contains(&value) {
        return Ok(());
    }
    let (low, high) = (show(*limits.start()), show(*limits.end()));
    Err(format!("{text:?} is not between {low} and {high}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_in_the_unit_of_the_setting() {
        for (kind, text, reason) in [
            (Kind::Number(1..=8), "9", "\"9\" is not between 1 and 8"),
            (
                Kind::Duration(100..=60_000),
                "2m",
                "\"2m\" is not between 100ms and 1m",
            ),
            (
                Kind::Size(1024..=2048),
                "1",
                "\"1\" is not between 1k and 2k",
            ),
        ] {
            assert_eq!(kind.read(text), Err(reason.to_owned()));
        }
    }

    #[test]
    fn both_ends_of_a_range_belong_to_it() {
        let kind = Kind::Number(1..=8);
        assert_eq!(kind.read("1"), Ok(Value::Number(1)));
        assert_eq!(kind.read("8"), Ok(Value::Number(8)));
        assert!(kind.read("0").is_err());
    }

    #[test]
    fn a_choice_names_the_others() {
        let kind = Kind::Choice(&["drop", "keep"]);
        assert_eq!(kind.read("keep"), Ok(Value::Text("keep".to_owned())));
        assert_eq!(
            kind.read("x"),
            Err("\"x\" is not one of drop, keep".to_owned())
        );
    }

    #[test]
    fn a_switch_reads_yes_and_no() {
        assert_eq!(Kind::Switch.read("1"), Ok(Value::Switch(true)));
        assert_eq!(Kind::Switch.read("no"), Ok(Value::Switch(false)));
        assert!(Kind::Switch.read("maybe").is_err());
    }

    #[test]
    fn an_empty_path_is_a_mistake() {
        assert!(Kind::Path.read("").is_err());
    }
}
