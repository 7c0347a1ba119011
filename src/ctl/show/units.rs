//! Numbers for people, and texts that do nothing to a terminal.

/// Three digits or so: `34 µs`, `1.2 ms`, `20 s`, `5 min 2 s`, `3 h 20 min`, `4 d 2 h`.
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    match seconds {
        0.0 => "0 s".to_owned(),
        s if s < 0.000_999_5 => format!("{:.0} µs", s * 1e6),
        s if s < 0.009_95 => format!("{:.1} ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1} s"),
        s => long(s.round() as u64),
    }
}

fn long(s: u64) -> String {
    let parts = |big: u64, unit: &str, small: u64, less: &str| match small {
        0 => format!("{big} {unit}"),
        small => format!("{big} {unit} {small} {less}"),
    };
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => parts(s / 60, "min", s % 60, "s"),
        3_600..86_400 => parts(s / 3_600, "h", s % 3_600 / 60, "min"),
        _ => parts(s / 86_400, "d", s % 86_400 / 3_600, "h"),
    }
}

/// In at most six cells, for narrow columns: `34µs`, `1.2ms`, `20s`, `5m2s`, `3h20m`, `4d2h`.
pub fn short_seconds(value: f64) -> String {
    let text = seconds(value).replace("min", "m").replace(' ', "");
    match text.chars().count() {
        0..=6 => text,
        // `1000d3h`
        _ => text
            .split_inclusive(char::is_alphabetic)
            .next()
            .unwrap_or("?")
            .to_owned(),
    }
}

/// `0 B`, `34 KiB`, `1.2 GiB`.
pub fn bytes(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
    )
}

/// In at most five cells: `34M`, `1.2G`.
pub fn short_bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["", "K", "M", "G", "T", "P", "E"]).replace(' ', "")
}

/// In at most five cells: `999`, `12k`, `1.2M`.
pub fn short_count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"]).replace(' ', "")
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value, 0);
    // What would be rounded to a whole step belongs to the next unit.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", units[unit])
}

/// Of requests, per second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if !r.is_finite() => "?".to_owned(),
        r if r < 9.95 && r != 0.0 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}

/// One line in which nothing moves the cursor, rings, or turns the direction of writing.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe += "\\n",
            '\t' => safe += "\\t",
            '\r' => safe += "\\r",
            c if c.is_ascii_control() => safe += &format!("\\x{:02x}", u32::from(c)),
            c if c.is_control() || is_invisible(c) => safe += &c.escape_unicode().to_string(),
            c => safe.push(c),
        }
    }
    safe
}

/// Several lines, each of them escaped; tabs become spaces.
pub fn escape_lines(text: &str) -> String {
    let lines = text.lines().map(|line| escape(&line.replace('\t', "    ")));
    lines.collect::<Vec<_>>().join("\n")
}

/// Characters of format (Unicode `Cf`) that reorder or hide what stands around them, and the line
/// separators.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
