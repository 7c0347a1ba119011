//! YAML 1.2 (yaml.org) to entries.

#![forbid(unsafe_code)]

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use saphyr_parser::{Event, Parser};

use super::{Entries, Entry, Mistake, Value};

/// Lists in lists, more than any setting has: each is a call within a call for whoever builds them.
const DEEPEST: u32 = 64;

pub fn read(text: &str) -> Entries {
    check_depth(text)?;
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

/// The text may be of somebody who wants no settings, but the end of the server: a line of `- - - -` is deep.
fn check_depth(text: &str) -> Result<(), Mistake> {
    let mut depth = 0_u32;
    for event in Parser::new_from_str(text) {
        // What is wrong otherwise is said by whoever reads it.
        let Ok((event, span)) = event else { break };
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(Mistake {
                line: span.start.line(),
                reason: "lists in lists, too many of them".into(),
            });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_without_end_is_a_mistake() {
        let many = 30_000;
        for text in [
            format!("x:\n{}\n", "- ".repeat(many)),
            "- ".repeat(many),
            "? ".repeat(many),
            "- ? ".repeat(many),
            "? - ".repeat(many),
            "- - a:\n".repeat(many),
            format!("a:\n{}", ": - ".repeat(many)),
            format!("a: {}", "[".repeat(many)),
            format!("a: {}", "{a: ".repeat(many)),
            (0..300).fold(String::new(), |text, deep| {
                text + &" ".repeat(deep) + "a:\n"
            }),
        ] {
            let start: String = text.chars().take(20).collect();
            assert!(read(&text).is_err(), "{start:?}");
        }
        assert!(read("a: [1, 2]\nb:\n- 1\n- 2\n").is_ok());
    }
}
