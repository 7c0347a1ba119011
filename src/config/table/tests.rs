//! What every declaration has to hold to.

use super::*;
use std::collections::BTreeSet;

#[test]
fn names_flags_and_variables_are_unique() {
    let count = SETTINGS.len();
    let names: BTreeSet<_> = SETTINGS.iter().map(|s| s.name).collect();
    assert_eq!(names.len(), count);
    let variables: Vec<_> = SETTINGS.iter().filter_map(Setting::variable).collect();
    assert_eq!(
        variables.iter().collect::<BTreeSet<_>>().len(),
        variables.len()
    );
    let shorts: Vec<_> = SETTINGS.iter().filter_map(|s| s.short).collect();
    assert_eq!(shorts.iter().collect::<BTreeSet<_>>().len(), shorts.len());
    assert!(!names.contains("help") && !names.contains("version"));
}

#[test]
fn names_are_lower_case_words_joined_by_dashes() {
    for Setting { name, .. } in SETTINGS {
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
        assert!(name.split('-').all(word), "{name}");
    }
}

#[test]
fn no_variable_is_used_for_something_else() {
    for setting in SETTINGS {
        let variable = setting.variable().unwrap_or_default();
        assert!(!["RSWSGI_MODULE", "RSWSGI_UNDER_TEST"].contains(&variable.as_str()));
    }
}

#[test]
fn defaults_are_values_of_their_kind() {
    for setting in SETTINGS {
        if let Some(default) = setting.default {
            assert!(setting.kind.read(default).is_ok(), "{}", setting.name);
        }
        let alternative = matches!(setting.kind, List { .. } | Switch);
        assert!(
            !alternative || setting.default.is_none(),
            "{}",
            setting.name
        );
    }
}

#[test]
fn help_is_one_line_of_ascii_without_a_full_stop() {
    for Setting { name, help, .. } in SETTINGS {
        assert!(
            !help.is_empty() && help.len() <= 75,
            "{name}: {}",
            help.len()
        );
        assert!(help.is_ascii() && !help.contains('\n'), "{name}");
        assert!(!help.ends_with(['.', ' ']), "{name}");
        assert!(help.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
    }
}

#[test]
fn long_help_is_sentences() {
    for Setting {
        name, long_help, ..
    } in SETTINGS
    {
        assert!(long_help.is_ascii() && !long_help.contains("  "), "{name}");
        assert!(long_help.is_empty() || long_help.ends_with('.'), "{name}");
    }
}

#[test]
fn the_default_that_depends_on_systemd_is_shown_too() {
    assert!(setting("bind").help.contains(crate::config::DEFAULT_BIND));
}

#[test]
fn exactly_the_switches_have_no_value() {
    for setting in SETTINGS {
        let switch = matches!(setting.kind, Switch);
        assert_eq!(setting.value.is_empty(), switch, "{}", setting.name);
    }
}

#[test]
fn choices_are_named_in_the_help() {
    for setting in SETTINGS {
        if let Choice(choices) = setting.kind {
            for choice in choices {
                assert!(setting.help.contains(choice), "{}: {choice}", setting.name);
            }
        }
    }
}
