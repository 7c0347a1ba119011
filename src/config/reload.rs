//! What a reload may change, and what takes a restart.

#![forbid(unsafe_code)]

use serde_json::{Map, Value};

use super::given::Given;
use super::setting::TakesEffect;
use super::settings::Settings;
use super::table::SETTINGS;
use crate::error::{Error, Exit, Result};

impl Settings {
    /// `newer` without the changes that take effect at a restart only, and the names of the settings
    /// they were made to.
    pub fn reloaded(&self, newer: Settings) -> Result<(Settings, Vec<&'static str>)> {
        let failed =
            |error| Error::new(Exit::Internal, format!("cannot compare settings: {error}"));
        let current: Map<String, Value> = serde_json::to_value(self)
            .and_then(serde_json::from_value)
            .map_err(failed)?;
        let mut merged: Map<String, Value> = serde_json::to_value(newer)
            .and_then(serde_json::from_value)
            .map_err(failed)?;
        let mut ignored = Vec::new();
        for setting in SETTINGS {
            let key = setting.name.replace('-', "_");
            if setting.takes_effect == TakesEffect::Restart
                && let (Some(before), Some(after)) = (current.get(&key), merged.get_mut(&key))
                && before != after
            {
                after.clone_from(before);
                ignored.push(setting.name);
            }
        }
        let mut merged: Settings = serde_json::from_value(Value::Object(merged)).map_err(failed)?;
        let kept = |given: &&Given| ignored.contains(&given.name.as_str());
        for before in self.given.iter().filter(kept) {
            if let Some(after) = merged.given.iter_mut().find(|g| g.name == before.name) {
                after.clone_from(before);
            }
        }
        Ok((merged, ignored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Invocation, parse};
    use std::ffi::OsString;

    fn settings(arguments: &[&str]) -> Settings {
        let arguments = ["rswsgi"].iter().chain(arguments).map(OsString::from);
        match parse(arguments, |_| None).unwrap() {
            Invocation::Serve(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_setting_that_takes_a_restart_is_a_field_of_its_own() {
        let fields = serde_json::to_value(settings(&["a"])).unwrap();
        for setting in SETTINGS {
            let restart = setting.takes_effect == TakesEffect::Restart;
            let field = fields.get(setting.name.replace('-', "_"));
            assert!(!restart || field.is_some(), "--{}", setting.name);
        }
    }

    #[test]
    fn changes_that_take_a_restart_are_named_and_left_out() {
        let current = settings(&["shop", "--bind", "[::1]:1", "--workers", "2"]);
        let newer = settings(&[
            "other",
            "--bind",
            "[::1]:2",
            "--backlog",
            "7",
            "--workers",
            "3",
            "--start-timeout",
            "5s",
        ]);
        let (merged, ignored) = current.reloaded(newer.clone()).unwrap();
        assert_eq!(ignored, ["name", "bind", "backlog"]);
        let expected = Settings {
            name: current.name.clone(),
            bind: current.bind.clone(),
            backlog: current.backlog,
            given: merged.given.clone(),
            ..newer
        };
        assert_eq!(merged, expected);
        let shown = |name: &str| {
            let given = merged.given.iter().find(|given| given.name == name);
            given.unwrap().values.join(" ")
        };
        assert_eq!(shown("bind"), "[::1]:1");
        assert_eq!(shown("workers"), "3");
    }

    #[test]
    fn an_unchanged_configuration_needs_nothing() {
        let current = settings(&["shop", "--env", "A=b", "--workers", "auto"]);
        let (merged, ignored) = current.reloaded(current.clone()).unwrap();
        assert_eq!(merged, current);
        assert!(ignored.is_empty());
    }
}
