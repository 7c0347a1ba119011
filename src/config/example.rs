//! The commented configuration file that `--print-config` writes.

#![forbid(unsafe_code)]

use std::fmt::Write;

use super::layers::InForce;
use super::setting::{Kind, Section, Setting};

const WIDTH: usize = 96;

/// TOML: what differs from the defaults is set, everything else stands in comments.
pub(super) fn write(settings: &[InForce]) -> String {
    let mut text = String::from(
        "# Configuration of rswsgi, to be named by --config. Durations are written 500ms, 30s, 5m or 1h,\n\
         # sizes 512, 8k, 1m or 1g. A setting behind '#' shows its default; one in capitals has none.\n",
    );
    let mut section: Option<Section> = None;
    for in_force in settings {
        let setting = in_force.setting;
        // Other spellings of the target; a file needs one.
        if matches!(setting.name, "module" | "app") && in_force.values.is_empty() {
            continue;
        }
        if section.replace(setting.section) != Some(setting.section) {
            let _ = write!(text, "\n## {}\n", setting.section.title());
        }
        text.push('\n');
        let help = match setting.long_help {
            "" => format!("{}.", setting.help),
            more => format!("{}. {more}", setting.help),
        };
        for line in wrap(&help) {
            let _ = writeln!(text, "# {line}");
        }
        let is_set = in_force.origin.as_deref().is_some_and(|o| o != "default");
        if is_set && let Some(origin) = &in_force.origin {
            let _ = writeln!(text, "# (from {origin})");
        }
        let comment = if is_set { "" } else { "# " };
        let _ = writeln!(text, "{comment}{} = {}", setting.name, value(in_force));
    }
    text
}

/// One setting with these values.
pub fn write_line(setting: &'static Setting, values: &[String]) -> String {
    if setting.name == "env" {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            format!("\n{} = {}", quote(name), quote(value))
        };
        let pairs: String = values.iter().map(pair).collect();
        return format!("[env]{pairs}");
    }
    let in_force = InForce {
        setting,
        values: values.to_vec(),
        origin: None,
    };
    format!("{} = {}", setting.name, value(&in_force))
}

fn value(in_force: &InForce) -> String {
    let kind = &in_force.setting.kind;
    let one = |text: &str| match kind {
        Kind::Number(_) if text.bytes().all(|b| b.is_ascii_digit()) => text.to_owned(),
        Kind::Switch => matches!(text, "1" | "true" | "yes" | "on").to_string(),
        _ => quote(text),
    };
    match kind {
        Kind::List { .. } if in_force.values.is_empty() => {
            format!("[{}]", quote(in_force.setting.value))
        }
        Kind::List { .. } => {
            let texts: Vec<String> = in_force.values.iter().map(|text| one(text)).collect();
            format!("[{}]", texts.join(", "))
        }
        Kind::Switch => one(in_force.values.last().map_or("no", String::as_str)),
        _ => match in_force.values.last() {
            Some(text) => one(text),
            None => quote(in_force.setting.value),
        },
    }
}

/// A basic string of TOML.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("one from the start");
        if !last.is_empty() && last.len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
            continue;
        }
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
    }
    lines
}
