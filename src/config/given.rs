//! The settings as they were asked for, for whoever wants to see what is in force.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::layers::Layers;
use super::target::without_arguments;

/// One setting and where its value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub name: String,
    /// As written; empty when nobody named it and it has no default.
    pub values: Vec<String>,
    /// `default`, `--workers`, `RSWSGI_WORKERS`, `/etc/shop.toml:3`.
    pub source: Option<String>,
}

/// What the environment of an application holds is often secret: only its names are kept.
const PAIRS: &str = "env";
/// May hold a call whose arguments are as secret.
const CALLS: [&str; 2] = ["target", "app"];

pub(super) fn given(layers: &Layers) -> Vec<Given> {
    let given = layers.in_force().into_iter().map(|in_force| {
        let values = in_force.values;
        Given {
            name: in_force.setting.name.into(),
            values: match in_force.setting.name {
                PAIRS => values.iter().map(|pair| hidden(pair)).collect(),
                name if CALLS.contains(&name) => {
                    values.iter().map(|call| without_arguments(call)).collect()
                }
                _ => values,
            },
            source: in_force.origin,
        }
    });
    given.collect()
}

fn hidden(pair: &str) -> String {
    let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
    format!("{name}=...")
}

#[cfg(test)]
mod tests {
    use super::without_arguments;
    use crate::config::{Invocation, SETTINGS, Section, parse};
    use std::ffi::OsString;

    #[test]
    fn arguments_of_a_call_are_not_shown() {
        for (target, shown) in [
            ("shop", "shop"),
            ("shop.wsgi:application", "shop.wsgi:application"),
            ("shop:create()", "shop:create()"),
            ("shop:create(\"secret\", key=1)", "shop:create(...)"),
            ("create((1, 2))", "create(...)"),
        ] {
            assert_eq!(without_arguments(target), shown);
        }
    }

    #[test]
    fn every_setting_is_shown_with_its_source_and_no_secret() {
        let arguments = ["rswsgi", "a", "--env", "PASSWORD=x=y", "--workers", "2"];
        let env = |name: &str| (name == "RSWSGI_BACKLOG").then(|| OsString::from("7"));
        let settings = match parse(arguments.map(OsString::from).into_iter(), env).unwrap() {
            Invocation::Serve(settings) => settings,
            other => panic!("{other:?}"),
        };
        let find = |name: &str| {
            let given = settings.given.iter().find(|given| given.name == name);
            let given = given.unwrap_or_else(|| panic!("{name} is not there"));
            (
                given.values.join(" "),
                given.source.clone().unwrap_or_default(),
            )
        };
        let pair = |value: &str, source: &str| (value.to_owned(), source.to_owned());
        assert_eq!(find("workers"), pair("2", "--workers"));
        assert_eq!(find("backlog"), pair("7", "RSWSGI_BACKLOG"));
        assert_eq!(find("keep-alive"), pair("75s", "default"));
        assert_eq!(find("python"), pair("", ""));
        assert_eq!(find("env"), pair("PASSWORD=...", "--env"));
        let actions = SETTINGS.iter().filter(|s| s.section == Section::Actions);
        assert_eq!(settings.given.len(), SETTINGS.len() - actions.count());
    }
}
