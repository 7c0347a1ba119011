//! Values of other servers as texts of ours.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde_json::Value;

use crate::config::show_duration;

pub type Read = Result<Vec<String>, String>;

/// A text, or a number as one.
pub fn one(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Array(values) if values.len() == 1 => one(&values[0]),
        Value::Array(_) => Err("several values where one is expected".into()),
        Value::Null => Err("no value".into()),
        Value::Object(_) => Err("it is not a plain value".into()),
    }
}

pub fn text(value: &Value) -> Read {
    one(value).map(|text| vec![text])
}

/// One, or several in a list.
pub fn list(value: &Value) -> Read {
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        other => text(other),
    }
}

/// One text with commas, or several in a list.
pub fn commas(value: &Value) -> Read {
    let texts = list(value)?;
    let parts = texts.iter().flat_map(|text| text.split(','));
    Ok(parts
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect())
}

/// For a switch that is on.
pub fn yes(_: &Value) -> Read {
    Ok(vec!["yes".into()])
}

/// As both servers read what is on or off.
pub fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => matches!(
            text.trim().to_ascii_lowercase().as_str(),
            "true" | "1" | "yes" | "on" | "enable"
        ),
        _ => false,
    }
}

pub fn whole(value: &Value) -> Result<u64, String> {
    let text = one(value)?;
    text.trim()
        .parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

pub fn number(value: &Value) -> Read {
    whole(value).map(|number| vec![number.to_string()])
}

/// Seconds, maybe with a fraction.
pub fn seconds(value: &Value) -> Read {
    let text = one(value)?;
    let seconds = text.trim().parse().ok();
    let duration = seconds.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    match duration {
        Some(duration) => {
            let millis = Duration::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX));
            Ok(vec![show_duration(millis)])
        }
        None => Err(format!("{text:?} is not a number of seconds")),
    }
}

/// A number of mebibytes.
pub fn mebibytes(value: &Value) -> Read {
    whole(value).map(|number| vec![format!("{number}m")])
}

/// The permissions that are taken away, in octal: gunicorn also takes a number.
pub fn octal(value: &Value) -> Result<u32, String> {
    let bad = |text: &str| format!("{text:?} is not a number in octal");
    match value {
        Value::Number(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| bad(&number.to_string())),
        other => {
            let text = one(other)?;
            let digits = text.trim_start_matches("0o");
            u32::from_str_radix(digits, 8).map_err(|_| bad(&text))
        }
    }
}

pub fn umask(value: &Value) -> Read {
    octal(value).map(|mask| vec![format!("{mask:03o}")])
}

/// For a comment: short, on one line.
pub fn show(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::Object(fields) if fields.contains_key(super::gunicorn::CALLABLE) => {
            "a function".into()
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_read_from_files_and_from_command_lines() {
        assert_eq!(seconds(&json!(30)), Ok(vec!["30s".into()]));
        assert_eq!(seconds(&json!("120")), Ok(vec!["2m".into()]));
        assert_eq!(seconds(&json!(0.5)), Ok(vec!["500ms".into()]));
        assert!(seconds(&json!("-1")).is_err() && seconds(&json!("x")).is_err());
        assert!(seconds(&json!(1e300)).is_err());
        assert_eq!(umask(&json!(0o22)), Ok(vec!["022".into()]));
        assert_eq!(umask(&json!("0o027")), Ok(vec!["027".into()]));
        assert_eq!(commas(&json!("a, b,")), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(list(&json!(["a", 1])), Ok(vec!["a".into(), "1".into()]));
        assert!(is_on(&json!("true")) && is_on(&json!(1)) && !is_on(&json!("0")));
    }

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        let shown = show(&json!("ä\n".repeat(100)));
        assert!(
            shown.chars().count() < 70 && !shown.contains('\n'),
            "{shown}"
        );
        assert_eq!(
            show(&json!({ super::super::gunicorn::CALLABLE: "f" })),
            "a function"
        );
    }
}
