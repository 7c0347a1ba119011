//! Man pages: the parts that are made of the declarations of the settings are as they would be made
//! now, and `mandoc` has nothing to say about any page.

use crate::support::skip;
use rswsgi::config::{Kind, SETTINGS, Section, Setting, TakesEffect, show_duration, show_size};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PAGES: [&str; 4] = [
    "rswsgi.8",
    "rswsgi.toml.5",
    "rswsgictl.1",
    "rswsgi-control.7",
];
const RENEW: &str = "RSWSGI_RENEW_MANUAL";
/// Of a line of input; mandoc recommends 80.
const WIDTH: usize = 78;

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name)
}

/// Text of a declaration as input of mdoc(7): a line per sentence, wrapped.
fn text(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let word = escape(word);
        if column > 0 && column + 1 + word.len() > WIDTH {
            lines.push('\n');
            column = 0;
        }
        if column > 0 {
            lines.push(' ');
            column += 1;
        }
        if column == 0 && word.starts_with(['.', '\'']) {
            lines.push_str("\\&");
        }
        lines.push_str(&word);
        column += word.len();
        if word.ends_with(['.', ':']) && word.len() > 1 {
            lines.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        lines.push('\n');
    }
    lines
}

/// mandoc_char(7): what would be typeset as something else.
fn escape(word: &str) -> String {
    let mut escaped = String::new();
    for c in word.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '~' => escaped.push_str("\\(ti"),
            '^' => escaped.push_str("\\(ha"),
            '`' => escaped.push_str("\\(ga"),
            '-' if word.starts_with('-') || word.contains("--") => escaped.push_str("\\-"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// One argument of a macro.
fn argument(word: &str) -> String {
    let escaped = escape(word).replace('"', "\\(dq");
    match escaped.contains(' ') || escaped.is_empty() {
        true => format!("\"{escaped}\""),
        false => escaped,
    }
}

fn describe(setting: &Setting) -> String {
    let mut described = text(&format!("{}.", setting.help));
    described.push_str(&text(setting.long_help));
    described
}

fn separator(setting: &Setting) -> Option<&'static str> {
    match setting.kind {
        Kind::List { separator: ' ' } => Some("blanks"),
        Kind::List { separator: ',' } => Some("commas"),
        Kind::List { separator: ':' } => Some("colons"),
        Kind::List { separator: '\n' } => Some("line breaks"),
        Kind::List { separator } => panic!("{separator:?} has no name"),
        _ => None,
    }
}

fn variable(setting: &Setting) -> Option<String> {
    let mut line = format!(".Ev {}", setting.variable()?);
    if let Some(separator) = separator(setting) {
        let _ = write!(line, " , separated by {separator}");
    }
    Some(line)
}

fn by_section<'a>(
    settings: impl Iterator<Item = &'a Setting>,
    entry: impl Fn(&Setting) -> String,
) -> String {
    let mut made = String::new();
    let mut section: Option<Section> = None;
    for setting in settings {
        if section != Some(setting.section) {
            if section.replace(setting.section).is_some() {
                made.push_str(".El\n");
            }
            let title = setting.section.title();
            let _ = write!(made, ".Ss {title}\n.Bl -tag -width Ds\n");
        }
        made.push_str(&entry(setting));
    }
    made.push_str(".El\n");
    made
}

fn option(setting: &Setting) -> String {
    let mut entry = String::from(".It");
    if let Some(short) = setting.short {
        let _ = write!(entry, " Fl {short} ,");
    }
    let _ = write!(entry, " Fl -{}", setting.name);
    if !setting.value.is_empty() {
        let _ = write!(entry, " Ar {}", argument(setting.value));
    }
    entry.push('\n');
    entry.push_str(&describe(setting));
    let mut facts = Vec::new();
    if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
        facts.push(format!("Default:\n.Cm {}", argument(default)));
    }
    facts.extend(variable(setting).map(|variable| format!("Environment:\n{variable}")));
    if setting.takes_effect == TakesEffect::Restart {
        facts.push("Takes effect:\n.Em restart".to_owned());
    }
    if !facts.is_empty() {
        let _ = write!(entry, ".br\n{} .\n", facts.join(" .\n"));
    }
    entry
}

fn options() -> String {
    let options = SETTINGS.iter().filter(|setting| setting.name != "target");
    let mut made = by_section(options, option);
    // The last section is that of the actions, which these belong to.
    assert!(made.ends_with(".El\n"));
    made.truncate(made.len() - ".El\n".len());
    made.push_str(".It Fl h , Fl -help\nPrint help: a summary, or everything.\n");
    made.push_str(".It Fl V , Fl -version\nPrint the version.\n.El\n");
    made
}

/// The options that `rswsgi request` has beside those that are settings.
fn request() -> String {
    let [request, _] = rswsgi::config::subcommands();
    let mut made = String::new();
    let own = |arg: &&clap::Arg| arg.get_help_heading() == Some("Request");
    for arg in request.get_arguments().filter(own) {
        made.push_str(".It");
        if let Some(short) = arg.get_short() {
            let _ = write!(made, " Fl {short} ,");
        }
        let _ = write!(made, " Fl -{}", arg.get_long().expect("it has a name"));
        if let Some([value]) = arg
            .get_value_names()
            .filter(|_| arg.get_action().takes_values())
        {
            let _ = write!(made, " Ar {}", argument(value));
        }
        let help = arg.get_help().expect("it is described").to_string();
        made.push('\n');
        made.push_str(&text(&format!("{help}.")));
    }
    made
}

fn kind(setting: &Setting) -> String {
    let millis = |number: u64| show_duration(Duration::from_millis(number));
    let between = |low: String, high: Option<String>| match high {
        Some(high) => format!("{low} to {high}"),
        None => format!("{low} or more"),
    };
    // What is as large as a number can be is no limit that anybody would want to know.
    let limit =
        |high: u64, show: &dyn Fn(u64) -> String| (high < u64::MAX >> 1).then(|| show(high));
    match &setting.kind {
        Kind::Text => "text".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Switch => "switch".to_owned(),
        Kind::List { .. } => "list".to_owned(),
        Kind::Choice(choices) => format!("one of {}", choices.join(", ")),
        Kind::Number(range) => {
            let show = |number: u64| number.to_string();
            let range = between(show(*range.start()), limit(*range.end(), &show));
            format!("number, {range}")
        }
        Kind::Duration(range) => {
            let range = between(millis(*range.start()), limit(*range.end(), &millis));
            format!("duration, {range}")
        }
        Kind::Size(range) => {
            let range = between(show_size(*range.start()), limit(*range.end(), &show_size));
            format!("size, {range}")
        }
    }
}

fn in_files() -> impl Iterator<Item = &'static Setting> {
    let in_files = |setting: &&Setting| setting.section != Section::Actions;
    SETTINGS.iter().filter(in_files)
}

fn settings() -> String {
    let entry = |setting: &Setting| {
        let mut entry = format!(".It Ic {}\n{}", setting.name, describe(setting));
        let _ = write!(entry, ".br\nValue: {}.\n", kind(setting));
        let mut facts = Vec::new();
        if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
            facts.push(format!("Default:\n.Cm {}", argument(default)));
        }
        facts.extend(variable(setting).map(|variable| format!("Environment:\n{variable}")));
        facts.push(format!(
            "Takes effect:\n.Em {}",
            setting.takes_effect.name()
        ));
        let _ = writeln!(entry, "{} .", facts.join(" .\n"));
        entry
    };
    let mut made = by_section(in_files(), entry);
    made.push_str(".Sh SUMMARY\n");
    made.push_str(".Bl -column \"access-log-format\" \"combined\" \"restart\"\n");
    made.push_str(".It Sy Setting Ta Sy Default Ta Sy Takes effect\n");
    for setting in in_files() {
        let default = match setting.default {
            None | Some("") => "-".to_owned(),
            Some(default) => argument(default),
        };
        let effect = setting.takes_effect.name();
        let _ = writeln!(made, ".It Ic {} Ta {default} Ta {effect}", setting.name);
    }
    made.push_str(".El\n");
    made
}

/// The page with this between its marks.
fn renewed(old: &str, what: &str, made: &str) -> String {
    let (begin, end) = (
        format!(".\\\" generated: {what}\n"),
        ".\\\" end of generated\n",
    );
    let start = old.find(&begin).expect("the page has a place for it") + begin.len();
    let stop = old[start..].find(end).expect("the place has an end") + start;
    format!("{}{made}{}", &old[..start], &old[stop..])
}

#[track_caller]
fn is_fresh(name: &str, what: &str, made: &str) {
    let path = page(name);
    let old = fs::read_to_string(&path).expect("a page");
    let new = renewed(&old, what, made);
    if old == new {
        return;
    }
    if std::env::var_os(RENEW).is_some_and(|value| value == "1") {
        return fs::write(path, new).expect("the page can be written");
    }
    panic!("man/{name} is stale; renew it: {RENEW}=1 cargo test --test tests -- manual");
}

#[test]
fn the_options_are_those_that_are_declared() {
    is_fresh("rswsgi.8", "options", &options());
}

#[test]
fn the_options_of_request_are_its_own() {
    is_fresh("rswsgi.8", "request", &request());
}

#[test]
fn the_settings_are_those_that_are_declared() {
    is_fresh("rswsgi.toml.5", "settings", &settings());
}

#[test]
fn the_exit_statuses_and_signals_are_there() {
    let text = fs::read_to_string(page("rswsgi.8")).expect("a page");
    for status in [0, 1, 22, 64, 69, 70, 71, 77, 78] {
        assert!(text.contains(&format!("\n.It {status}\n")), "{status}");
    }
    for signal in ["TERM , QUIT", "INT", "HUP", "USR1", "USR2", "TTIN , TTOU"] {
        assert!(text.contains(&format!("\n.It {signal}\n")), "{signal}");
    }
}

#[test]
fn mandoc_finds_nothing_worth_mending() {
    if Command::new("mandoc")
        .arg("-Tascii")
        .arg("/dev/null")
        .output()
        .is_err()
    {
        return skip("there is no mandoc");
    }
    // Long lines are easier to mend; which other pages are installed is not our business.
    let accepted = [
        "input text line longer than 80 bytes",
        "referenced manual not found",
        "possible typo in section name: Sh PAGES",
        "outdated mandoc.db",
    ];
    for name in PAGES {
        let output = Command::new("mandoc")
            .args(["-Tlint"])
            .arg(page(name))
            .output();
        let output = output.expect("mandoc");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let is_bad = |line: &&str| !accepted.iter().any(|piece| line.contains(piece));
        let bad: Vec<&str> = said.lines().filter(is_bad).collect();
        assert!(bad.is_empty(), "{}", bad.join("\n"));
    }
}

#[test]
fn pages_refer_to_pages_that_there_are() {
    for name in PAGES {
        let text = fs::read_to_string(page(name)).expect("a page");
        for other in ["rswsgi", "rswsgictl", "rswsgi-control", "rswsgi.toml"] {
            let ours = PAGES
                .iter()
                .find_map(|page| page.strip_prefix(&format!("{other}.")));
            let section = ours.expect("one of ours");
            for wrong in (1..=8)
                .map(|number| number.to_string())
                .filter(|n| n != section)
            {
                let roff = other.replace('-', "\\-");
                assert!(
                    !text.contains(&format!(".Xr {other} {wrong}")),
                    "{name}: {other}({wrong})"
                );
                assert!(
                    !text.contains(&format!(".BR {roff} ({wrong})")),
                    "{name}: {other}({wrong})"
                );
            }
        }
    }
}

/// The tables for those who come from another server name options and verbs that exist.
#[test]
fn what_is_there_instead_of_options_of_others_exists() {
    let readme = include_str!("../README.md");
    let (_, section) = readme
        .split_once("\n## Coming from another server\n")
        .expect("the section is there");
    let (section, _) = section.split_once("\n## ").expect("it is not the last");
    let all = include_str!("../docs/migration.md");
    let lines = || section.lines().chain(all.lines());
    let help = Command::new(env!("CARGO_BIN_EXE_rswsgictl"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.expect("run rswsgictl").stdout).expect("text");
    let verbs: Vec<&str> = help
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut named = 0;
    for line in lines().filter(|line| line.starts_with("| ")) {
        let ours = line.trim_end_matches(" |").rsplit(" | ").next();
        let quoted = ours.expect("a cell").split('`').skip(1).step_by(2);
        for words in quoted.map(|text| text.split_whitespace().collect::<Vec<_>>()) {
            for word in &words {
                if let Some(name) = word.strip_prefix("--") {
                    let known = SETTINGS.iter().any(|setting| setting.name == name);
                    assert!(known, "there is no --{name}: {line}");
                    named += 1;
                }
            }
            if let ["rswsgictl", verb, ..] = words[..] {
                assert!(verbs.contains(&verb), "there is no {verb}: {line}");
                named += 1;
            }
        }
    }
    assert!(named > 60, "{named}");
}
