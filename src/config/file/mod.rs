//! A configuration file, TOML or YAML by its extension, as layers of texts.
//!
//! Its keys are the names of the settings. `include = "conf.d"` adds the files of a directory, each a
//! layer above the file that includes it, in the order of their names. Relative paths in a file start
//! in the directory of the file.

#![forbid(unsafe_code)]

mod toml;
mod yaml;

use std::io;
use std::path::{Path, PathBuf};

use super::layers::{Layer, Source, Written};
use super::setting::{Kind, Scope, Section, Setting};
use super::table::SETTINGS;
use crate::error::{Error, Exit, Result};

/// Names the directory with further files.
const INCLUDE: &str = "include";

/// The largest file; one that is named by mistake is not read into memory.
const LARGEST: u64 = 1 << 20;

/// One key of a file.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    key: String,
    line: usize,
    value: Value,
}

/// A value as written: what it means, the declaration of its setting knows.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    One(String),
    Many(Vec<String>),
    Pairs(Vec<(String, String)>),
    /// Something that no setting is, such as a date.
    Strange(&'static str),
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    line: usize,
    reason: String,
}

type Entries = Result<Vec<Entry>, Mistake>;

/// Whose settings the file holds, as one layer or, with an include, several: the lowest first.
pub(super) fn layers(path: &Path) -> Result<Vec<Layer>> {
    let (layer, include) = read(path)?;
    let mut layers = vec![layer];
    if let Some((directory, line)) = include {
        let directory = base(path).join(directory);
        layers[0].includes = Some(directory.clone());
        let included = list(&directory).map_err(|error| {
            let doing = format!(
                "{}:{line}: cannot include {}",
                path.display(),
                directory.display()
            );
            config(Error::io(doing, &error))
        })?;
        for file in included {
            match read(&file)? {
                (layer, None) => layers.push(layer),
                (_, Some((_, line))) => {
                    let text = format!(
                        "{}:{line}: a file that is included cannot include others",
                        file.display()
                    );
                    return Err(Error::new(Exit::Config, text));
                }
            }
        }
    }
    Ok(layers)
}

/// The settings of one of many apps: those of the server as a whole are mistakes there.
pub(super) fn app(path: &Path) -> Result<Layer> {
    check_app(path, read(path)?, &[Scope::App, Scope::Admin])
}

/// The same for one that belongs to a user, who may say less.
pub(super) fn app_of_user(path: &Path, text: &str) -> Result<Layer> {
    check_app(path, read_text(path, text)?, &[Scope::App])
}

fn check_app(path: &Path, (layer, include): (Layer, Include), may: &[Scope]) -> Result<Layer> {
    let refuse = |line: usize, text: String| {
        let text = format!("{}:{line}: {text}", path.display());
        Err(Error::new(Exit::Config, text))
    };
    if let Some((_, line)) = include {
        return refuse(line, "the file of an app cannot include others".into());
    }
    let scope = |name: &str| {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        setting.map_or(Scope::Host, |setting| setting.scope)
    };
    match layer
        .values
        .iter()
        .find(|(name, _)| !may.contains(&scope(name)))
    {
        Some((name, given)) if scope(name) == Scope::Host => refuse(
            given.line,
            format!("{name} is a setting of the server as a whole, not of an app"),
        ),
        Some((name, given)) => refuse(
            given.line,
            format!("{name} is for the administrator of the server to say, not for a user"),
        ),
        None => Ok(layer),
    }
}

/// Whatever keeps a configuration from being read, it is the configuration that cannot be loaded.
fn config(error: Error) -> Error {
    Error::new(Exit::Config, error.to_string())
}

type Include = Option<(String, usize)>;

fn read(path: &Path) -> Result<(Layer, Include)> {
    parser(path)?;
    let text = text(path).map_err(|error| {
        config(Error::io(
            format_args!("cannot read the configuration {}", path.display()),
            &error,
        ))
    })?;
    read_text(path, &text)
}

fn read_text(path: &Path, text: &str) -> Result<(Layer, Include)> {
    let parse = parser(path)?;
    let placed = |mistake: Mistake| {
        let text = format!("{}:{}: {}", path.display(), mistake.line, mistake.reason);
        Error::new(Exit::Config, text)
    };
    let entries = parse(text).map_err(placed)?;
    layer(path, entries).map_err(placed)
}

fn text(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    match file.take(LARGEST + 1).read_to_string(&mut text)? as u64 {
        0..=LARGEST => Ok(text),
        _ => Err(io::Error::other("it is larger than 1 MiB")),
    }
}

fn parser(path: &Path) -> Result<fn(&str) -> Entries> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Ok(toml::read),
        Some("yaml" | "yml") => Ok(yaml::read),
        _ => {
            let text = format!(
                "cannot read the configuration {}: its name ends in neither .toml nor .yaml",
                path.display()
            );
            Err(Error::new(Exit::Config, text))
        }
    }
}

/// The configuration files of a directory, in the order of their names. Hidden files and those with
/// other endings (editors leave such) are passed over.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && parser(&path).is_ok() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn base(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Checks the keys, and brings the values into the form that all layers have.
fn layer(path: &Path, entries: Vec<Entry>) -> Result<(Layer, Include), Mistake> {
    let mut layer = Layer::new(Source::File(path.to_owned()));
    layer.directory = Some(base(path).to_owned());
    let mut include = None;
    for Entry { key, line, value } in entries {
        let mistake = |reason: String| Err(Mistake { line, reason });
        if key == INCLUDE {
            match value {
                Value::One(directory) if !directory.is_empty() => include = Some((directory, line)),
                _ => return mistake("include: is to be the name of a directory".into()),
            }
            continue;
        }
        let Some(setting) = SETTINGS.iter().find(|s| s.name == key && in_files(s)) else {
            return mistake(unknown(&key));
        };
        let texts = match (value, &setting.kind) {
            (Value::Strange(what), _) => return mistake(format!("{key}: {what} is no value")),
            (Value::One(text), _) => vec![text],
            (Value::Many(texts), Kind::List { .. }) => texts,
            (Value::Pairs(pairs), Kind::List { .. }) if key == "env" => pairs
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            _ => return mistake(format!("{key}: is to be a single value")),
        };
        let given = Written { texts, line };
        if layer.values.insert(setting.name, given).is_some() {
            return mistake(format!("{key}: is given twice"));
        }
    }
    Ok((layer, include))
}

/// An action (`--check`) is asked for, not configured.
pub(super) fn in_files(setting: &Setting) -> bool {
    setting.section != Section::Actions
}

/// The setting that somebody may have meant.
pub(super) fn nearest(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .filter(|setting| in_files(setting))
        .map(|setting| (strsim::jaro_winkler(name, setting.name), setting))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8)
        .map(|(_, setting)| setting)
}

fn unknown(key: &str) -> String {
    let dashed = key.replace('_', "-").to_ascii_lowercase();
    match nearest(&dashed) {
        Some(Setting { name, .. }) => {
            format!("unknown setting {key:?}; did you mean {name:?}?")
        }
        _ => format!("unknown setting {key:?}; rswsgi --help lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(toml: &str, yaml: &str) -> Vec<(&'static str, Vec<String>, usize)> {
        let read = |path: &str, entries: Entries| {
            let (layer, _) = layer(Path::new(path), entries.unwrap()).unwrap();
            layer
                .values
                .into_iter()
                .map(|(name, given)| (name, given.texts, given.line))
                .collect::<Vec<_>>()
        };
        let found = read("/a.toml", super::toml::read(toml));
        assert_eq!(found, read("/a.yaml", super::yaml::read(yaml)));
        found
    }

    fn mistake(text: &str) -> String {
        let entries = super::toml::read(text);
        let found = entries.and_then(|entries| layer(Path::new("/a.toml"), entries));
        let mistake = found.expect_err(text);
        format!("{}: {}", mistake.line, mistake.reason)
    }

    #[test]
    fn both_languages_say_the_same() {
        let found = both(
            "target = 'shop.wsgi'\nworkers = 4\nrequest-timeout = \"30s\"\nimmortal = true\n\
             bind = ['unix:/run/a.sock', '[::1]:80']\nsys-path = 'lib'\n[env]\nA = 'b'\nN = 1\n",
            "target: shop.wsgi\nworkers: 4\nrequest-timeout: 30s\nimmortal: true\n\
             bind: ['unix:/run/a.sock', '[::1]:80']\nsys-path: lib\nenv:\n  A: b\n  N: 1\n",
        );
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            found,
            [
                ("bind", owned(&["unix:/run/a.sock", "[::1]:80"]), 5),
                ("env", owned(&["A=b", "N=1"]), 7),
                ("immortal", owned(&["true"]), 4),
                ("request-timeout", owned(&["30s"]), 3),
                ("sys-path", owned(&["lib"]), 6),
                ("target", owned(&["shop.wsgi"]), 1),
                ("workers", owned(&["4"]), 2),
            ]
        );
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(both("", ""), []);
        assert_eq!(both("# nothing\n", "---\n# nothing\n"), []);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, reason) in [
            (
                "\nworker = 4",
                "2: unknown setting \"worker\"; did you mean \"workers\"?",
            ),
            (
                "max_requests = 4",
                "1: unknown setting \"max_requests\"; did you mean \"max-requests\"?",
            ),
            (
                "zzz = 4",
                "1: unknown setting \"zzz\"; rswsgi --help lists them",
            ),
            (
                "check = true",
                "1: unknown setting \"check\"; rswsgi --help lists them",
            ),
            ("workers = [1, 2]", "1: workers: is to be a single value"),
            ("[workers]\nmin = 1", "1: workers: is to be a single value"),
            ("bind = [[1]]", "1: bind: a list in a list is no value"),
            ("max-age = 1979-05-27", "1: max-age: a date is no value"),
            (
                "include = ['a']",
                "1: include: is to be the name of a directory",
            ),
        ] {
            assert_eq!(mistake(text), reason);
        }
        for text in ["workers", "a = \n", "\n= 1", "workers = 1\nworkers = 2"] {
            assert!(
                mistake(text).starts_with(|c: char| c.is_ascii_digit()),
                "{text}"
            );
        }
    }

    #[test]
    fn yaml_that_is_no_mapping_of_settings_is_refused() {
        for (text, line) in [
            ("- a\n", 1),
            ("workers\n", 1),
            ("workers: 1\nworkers: 2\n", 2),
            ("bind: [a\n", 2),
            ("workers:\n", 1),
            ("a: 1\n---\nb: 2\n", 3),
            ("? [a]\n: b\n", 1),
        ] {
            let found =
                super::yaml::read(text).and_then(|entries| layer(Path::new("/a.yaml"), entries));
            let mistake = found.expect_err(text);
            assert_eq!(mistake.line, line, "{text}{}", mistake.reason);
        }
    }
}
