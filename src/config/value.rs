//! The texts of values: numbers, durations, sizes. Pure functions from text to value or to the
//! reason why not; who named the value (`--backlog`, `RSWSGI_BACKLOG`) is added by the caller.

#![forbid(unsafe_code)]

use std::time::Duration;

/// `17`; digits only, so that `+17`, `1_7` and ` 17` are mistakes rather than guesses.
pub fn number(text: &str) -> Result<u64, String> {
    digits(text).ok_or_else(|| format!("{text:?} is not a number"))
}

/// `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (count, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    digits(count)
        .filter(|_| milliseconds != 0)
        .and_then(|count| count.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a duration such as 500ms, 30s, 5m or 1h"))
}

/// `512`, `8k`, `1m`, `1g`; bytes, in binary multiples, in either case.
pub fn size(text: &str) -> Result<u64, String> {
    let (count, unit) = split(text);
    let bytes = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => 0,
    };
    digits(count)
        .filter(|_| bytes != 0)
        .and_then(|count| count.checked_mul(bytes))
        .ok_or_else(|| format!("{text:?} is not a size such as 512, 8k, 1m or 1g"))
}

/// The text [`duration`] reads back, in the largest unit that divides it.
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0".to_owned(),
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1_000 == 0 => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}

/// The text [`size`] reads back, in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        n if n % (1 << 30) == 0 => format!("{}g", n >> 30),
        n if n % (1 << 20) == 0 => format!("{}m", n >> 20),
        n if n % (1 << 10) == 0 => format!("{}k", n >> 10),
        n => n.to_string(),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(number("0"), Ok(0));
        assert_eq!(number("2048"), Ok(2048));
        for bad in ["", "+1", "-1", "1_000", " 1", "1 ", "1.0", "0x10", "one"] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
        assert!(number("18446744073709551616").is_err());
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("30", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn rejects_what_is_not_a_duration() {
        for bad in [
            "", "s", "ms", "1d", "1.5s", "-1s", "+1s", "1 s", "s1", "1S", "1mss",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert!(duration("18446744073709551615h").is_err());
    }

    #[test]
    fn sizes_are_binary_multiples() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("8k", 8192),
            ("8K", 8192),
            ("1m", 1 << 20),
            ("256M", 256 << 20),
            ("2g", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn rejects_what_is_not_a_size() {
        for bad in ["", "k", "8kb", "8KiB", "1.5m", "-1", "1t", "8 k"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
        assert!(size("18446744073709551615k").is_err());
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for milliseconds in [0, 1, 500, 1000, 1500, 60_000, 90_000, 3_600_000] {
            let value = Duration::from_millis(milliseconds);
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 3 << 29, 5 << 30] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_size(256 << 20), "256m");
    }
}
