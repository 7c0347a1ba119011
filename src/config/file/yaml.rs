//! YAML 1.2 (yaml.org) to entries.

#![forbid(unsafe_code)]

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use super::{Entries, Entry, Mistake, Value};

pub fn read(text: &str) -> Entries {
    let documents = MarkedYaml::load_from_str(text).map_err(|error| Mistake {
        line: error.marker().line(),
        reason: error.info().to_owned(),
    })?;
    if let [_, second, ..] = documents.as_slice() {
        return Err(mistake(second, "a second document"));
    }
    let Some(document) = documents.first() else {
        return Ok(Vec::new());
    };
    let settings = match &document.data {
        YamlData::Mapping(settings) => settings,
        YamlData::Value(Scalar::Null) => return Ok(Vec::new()),
        _ => return Err(mistake(document, "settings are written NAME: VALUE")),
    };
    settings
        .iter()
        .map(|(key, value)| {
            let name = scalar(key).ok_or_else(|| mistake(key, "a name is to be a text"))?;
            Ok(Entry {
                key: name,
                line: key.span.start.line(),
                value: read_value(value),
            })
        })
        .collect()
}

fn mistake(at: &MarkedYaml<'_>, reason: &str) -> Mistake {
    Mistake {
        line: at.span.start.line(),
        reason: reason.to_owned(),
    }
}

fn read_value(value: &MarkedYaml<'_>) -> Value {
    match &value.data {
        YamlData::Sequence(values) => {
            let texts: Option<Vec<String>> = values.iter().map(scalar).collect();
            texts.map_or(Value::Strange("a list in a list"), Value::Many)
        }
        YamlData::Mapping(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| Some((scalar(key)?, scalar(value)?)))
                .collect::<Option<_>>();
            pairs.map_or(Value::Strange("a mapping in a mapping"), Value::Pairs)
        }
        YamlData::Value(Scalar::Null) => Value::Strange("nothing"),
        _ => scalar(value).map_or(Value::Strange("this"), Value::One),
    }
}

fn scalar(value: &MarkedYaml<'_>) -> Option<String> {
    match &value.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(truth)) => Some(truth.to_string()),
        _ => None,
    }
}
