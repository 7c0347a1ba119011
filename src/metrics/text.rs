//! The text format: families with their `# HELP` and `# TYPE`, samples with their labels.

use std::fmt::Write;

use super::Format;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

pub struct Page {
    format: Format,
    text: String,
    /// Of the family that is being written.
    name: &'static str,
}

impl Page {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
            name: "",
        }
    }

    /// Begins a family; the name of a counter ends in `_total`.
    pub fn family(&mut self, name: &'static str, kind: Type, help: &str) {
        self.name = name;
        // In OpenMetrics `_total` belongs to the sample, not to the family.
        let family = match self.format {
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Format::Prometheus => name,
        };
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {family} {help}"));
        self.line(format_args!("# TYPE {family} {kind}"));
    }

    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.suffixed("", labels, value);
    }

    /// A sample of a histogram: `_bucket`, `_sum`, `_count`.
    pub fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let name = self.name;
        let labels = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        self.line(format_args!("{name}{suffix}{{{labels}}} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    pub fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_as_each_format_wants() {
        let page = |format| {
            let mut page = Page::new(format);
            page.family("a_total", Type::Counter, "How many.");
            page.sample(&[("app", "x\"\\\n"), ("b", "c")], 3.0);
            page.end()
        };
        assert_eq!(
            page(Format::Prometheus),
            "# HELP a_total How many.\n# TYPE a_total counter\n\
             a_total{app=\"x\\\"\\\\\\n\",b=\"c\"} 3\n"
        );
        assert_eq!(
            page(Format::OpenMetrics),
            "# HELP a How many.\n# TYPE a counter\n\
             a_total{app=\"x\\\"\\\\\\n\",b=\"c\"} 3\n# EOF\n"
        );
    }
}
