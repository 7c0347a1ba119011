//! What uWSGI reads: INI, YAML, JSON; placeholders and the magic words of its paths.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::Value;

use super::TABLE;
use crate::convert::{Given, find};

/// The file, and what its values may refer to.
pub struct Source<'a> {
    /// Absolute, for `%d`, `%p`, `%n` and the like.
    pub path: &'a str,
    /// Of the environment, for `$(NAME)`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// For `%k`.
    pub cpus: usize,
    /// For `%h`.
    pub host: &'a str,
}

/// The section `[uwsgi]`. Without one it is not a configuration of uWSGI.
pub fn read_ini(text: &str, source: &Source<'_>) -> Result<Vec<Given>, String> {
    let mut pairs = Vec::new();
    let (mut inside, mut found) = (false, false);
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').trim() == "uwsgi";
            found |= inside;
            continue;
        }
        if inside {
            let (key, value) = line.split_once('=').unwrap_or((line, "true"));
            pairs.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    match found {
        true => Ok(expand(pairs, source)),
        false => Err("it has no section [uwsgi]".into()),
    }
}

pub fn read_json(text: &str, source: &Source<'_>) -> Result<Vec<Given>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Some(Value::Object(fields)) = value.get("uwsgi") else {
        return Err("it has no object \"uwsgi\"".into());
    };
    let mut pairs = Vec::new();
    for (key, value) in fields {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = super::one(value).unwrap_or_else(|_| value.to_string());
            pairs.push((key.clone(), text));
        }
    }
    Ok(expand(pairs, source))
}

pub fn read_yaml(text: &str, source: &Source<'_>) -> Result<Vec<Given>, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    let settings = documents
        .first()
        .and_then(|document| document.as_mapping_get("uwsgi"))
        .and_then(Yaml::as_mapping)
        .ok_or("it has no mapping \"uwsgi\"")?;
    let mut pairs = Vec::new();
    for (key, value) in settings {
        let (Some(key), values) = (scalar(key), value) else {
            continue;
        };
        match values.as_sequence() {
            Some(values) => {
                pairs.extend(
                    values
                        .iter()
                        .filter_map(|v| Some((key.clone(), scalar(v)?))),
                );
            }
            None => pairs.extend(scalar(values).map(|value| (key, value))),
        }
    }
    Ok(expand(pairs, source))
}

fn scalar(value: &Yaml<'_>) -> Option<String> {
    match value {
        Yaml::Value(Scalar::String(text)) => Some(text.to_string()),
        Yaml::Value(Scalar::Integer(number)) => Some(number.to_string()),
        Yaml::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        Yaml::Value(Scalar::Boolean(truth)) => Some(truth.to_string()),
        Yaml::Value(Scalar::Null) => Some("true".into()),
        Yaml::Representation(text, ..) => Some(text.to_string()),
        _ => None,
    }
}

/// Fills in what values refer to. A name that is no option and that another value refers to is a
/// placeholder.
fn expand(pairs: Vec<(String, String)>, source: &Source<'_>) -> Vec<Given> {
    let mut defined: BTreeMap<String, String> = BTreeMap::new();
    let mut options = Vec::new();
    let referred: Vec<String> = pairs.iter().map(|(_, value)| value.clone()).collect();
    for (key, value) in pairs {
        let value = fill_in(&value, &defined, source);
        let placeholder = match key.as_str() {
            "set-placeholder" | "set-ph" | "set" => value
                .split_once('=')
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())),
            key if find(TABLE, &key.replace('_', "-")).is_none() => {
                let reference = format!("%({key})");
                let is_referred = referred.iter().any(|text| text.contains(&reference));
                is_referred.then(|| (key.to_owned(), value.clone()))
            }
            _ => None,
        };
        match placeholder {
            Some((name, value)) => {
                defined.insert(name, value);
            }
            None => {
                defined.insert(key.clone(), value.clone());
                options.push(Given::new(key, value));
            }
        }
    }
    options
}

/// `%(name)`, `$(NAME)` and the magic words. What is not known stays as it is.
fn fill_in(text: &str, defined: &BTreeMap<String, String>, source: &Source<'_>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['%', '$']) {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest[1..].strip_prefix('(').and_then(|r| r.split_once(')'));
        let value = match (rest.as_bytes()[0], reference) {
            (b'%', Some((name, after))) => defined.get(name).cloned().map(|value| (value, after)),
            (_, Some((name, after))) => (source.env)(name).map(|value| (value, after)),
            (b'%', None) => {
                let mut chars = rest[1..].chars();
                let word = chars.next();
                word.and_then(|word| magic(word, source))
                    .map(|value| (value, chars.as_str()))
            }
            _ => None,
        };
        match value {
            Some((value, after)) => {
                filled.push_str(&value);
                rest = after;
            }
            None => {
                filled.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// The words that stand for a part of the path of the file, or for something of the machine.
fn magic(word: char, source: &Source<'_>) -> Option<String> {
    let (directory, name) = source.path.rsplit_once('/').unwrap_or((".", source.path));
    Some(match word {
        'd' => format!("{directory}/"),
        'p' => source.path.to_owned(),
        's' => name.to_owned(),
        'n' => name
            .rsplit_once('.')
            .map_or(name, |(stem, _)| stem)
            .to_owned(),
        'e' => name.rsplit_once('.').map_or("", |(_, end)| end).to_owned(),
        'c' => directory.rsplit('/').next().unwrap_or_default().to_owned(),
        'x' => "uwsgi".to_owned(),
        'h' => source.host.to_owned(),
        'k' => source.cpus.to_string(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}
