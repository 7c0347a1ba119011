//! TOML (toml.io) to entries.

#![forbid(unsafe_code)]

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Entries, Entry, Mistake, Value};

pub fn read(text: &str) -> Entries {
    let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
    let document = DeTable::parse(text).map_err(|error| Mistake {
        line: line_of(error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    })?;
    let mut entries: Vec<Entry> = document
        .get_ref()
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            line: line_of(key.span().start),
            value: read_value(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn read_value(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::Array(values) => {
            let texts: Option<Vec<String>> = values.iter().map(scalar).collect();
            texts.map_or(Value::Strange("a list in a list"), Value::Many)
        }
        DeValue::Table(table) => {
            let pairs = table
                .iter()
                .map(|(key, value)| Some((key.get_ref().to_string(), scalar(value)?)))
                .collect::<Option<_>>();
            pairs.map_or(Value::Strange("a table in a table"), Value::Pairs)
        }
        DeValue::Datetime(_) => Value::Strange("a date"),
        _ => scalar(value).map_or(Value::Strange("this"), Value::One),
    }
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(date) => Some(date.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
