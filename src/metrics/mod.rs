//! The statistics as metrics: OpenMetrics text, or the older format of Prometheus, which differs in the
//! names of counters in `# TYPE` lines and in its end. Pure.
//!
//! The label `app` is on every metric of an app. There are no metrics per worker: their number would
//! change with each respawn.

#![forbid(unsafe_code)]

mod families;
mod text;

use crate::control::Stats;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    /// The text format 0.0.4.
    Prometheus,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The whole page.
pub fn render(stats: &Stats, format: Format) -> String {
    let mut page = text::Page::new(format);
    families::write(stats, &mut page);
    page.end()
}
