//! Variables of the environment that look like settings and are none.

#![forbid(unsafe_code)]

use super::file::nearest;
use super::table::SETTINGS;

const PREFIX: &str = "RSWSGI_";

/// Those of this program that are no settings: the extension module, `rswsgictl`, the socket of the
/// journal, an upgrade.
const OTHERS: [&str; 4] = [
    "RSWSGI_MODULE",
    "RSWSGI_CONTROL",
    "RSWSGI_JOURNAL_SOCKET",
    "RSWSGI_HAND_OVER",
];

/// A warning for each of `names` that means nothing here. No mistake: an environment is inherited, and
/// another version of this program may know it. Values are not told, they may be secret.
pub fn unknown_variables<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_known = |name: &str| {
        let mut variables = SETTINGS.iter().filter_map(|setting| setting.variable());
        OTHERS.contains(&name) || variables.any(|variable| variable == name)
    };
    let mut unknown: Vec<&str> = names
        .filter(|name| name.starts_with(PREFIX) && !is_known(name))
        .collect();
    unknown.sort_unstable();
    unknown.into_iter().map(warning).collect()
}

fn warning(name: &str) -> String {
    let key = name[PREFIX.len()..].replace('_', "-").to_ascii_lowercase();
    let variable = nearest(&key).and_then(|setting| setting.variable());
    match variable {
        Some(variable) => {
            format!(
                "environment variable {name} is ignored: no setting has it; did you mean {variable}?"
            )
        }
        None => format!("environment variable {name} is ignored: no setting has it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_setting_and_is_none_is_told() {
        let names = [
            "RSWSGI_WROKERS",
            "RSWSGI_WORKERS",
            "RSWSGI_MODULE",
            "RSWSGI_CONTROL",
            "RSWSGI_JOURNAL_SOCKET",
            "RSWSGI_0",
            "PATH",
        ];
        assert_eq!(
            unknown_variables(names.into_iter()),
            [
                "environment variable RSWSGI_0 is ignored: no setting has it",
                "environment variable RSWSGI_WROKERS is ignored: no setting has it; did you mean RSWSGI_WORKERS?",
            ]
        );
    }
}
