//! Rows become a Markdown table.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use crate::Options;
use crate::environment::Environment;
use crate::usage::Memory;

/// Workers of the second start time.
pub const MANY: u32 = 32;

/// All that is known of one server.
pub struct Row {
    name: &'static str,
    /// Of the whole tree, per number of workers.
    pub idle: Vec<Memory>,
    pub served: Vec<Memory>,
    pub start_one: Duration,
    pub start_many: Duration,
    /// Or why there is none.
    pub replacement: Result<Duration, String>,
    failure: Option<String>,
}

impl Row {
    pub fn new(name: &'static str) -> Row {
        Row {
            name,
            idle: Vec::new(),
            served: Vec::new(),
            start_one: Duration::ZERO,
            start_many: Duration::ZERO,
            replacement: Ok(Duration::ZERO),
            failure: None,
        }
    }

    pub fn failed(name: &'static str, reason: String) -> Row {
        Row {
            failure: Some(reason),
            ..Row::new(name)
        }
    }

    pub fn line(&self, workers: &[u32]) -> String {
        if let Some(reason) = &self.failure {
            return format!("| {} | {} |", self.name, reason.replace('|', "\\|"));
        }
        let mut text = format!("| {} | {} |", self.name, mib(self.served[0].proportional));
        for at in 1..workers.len() {
            let added = |all: &[Memory], of: fn(&Memory) -> u64| {
                let more = of(&all[at]).saturating_sub(of(&all[0]));
                mib(more / u64::from(workers[at] - workers[0]))
            };
            let _ = write!(text, " {} |", added(&self.served, |m| m.proportional));
            let _ = write!(text, " {} |", added(&self.served, |m| m.private));
            if at + 1 == workers.len() {
                let _ = write!(text, " {} |", added(&self.idle, |m| m.proportional));
            }
        }
        let millis = |time: Duration| time.as_millis();
        let _ = write!(
            text,
            " {} | {} | {} |",
            millis(self.start_one),
            millis(self.start_many),
            match &self.replacement {
                Ok(time) => millis(*time).to_string(),
                Err(reason) => format!("none: {}", reason.replace('|', "\\|")),
            }
        );
        text
    }
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

/// Where and how the figures below it were measured.
pub fn preamble(options: &Options, environment: &Environment) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let huge =
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    format!(
        "Project `{}`. Linux {}, transparent huge pages {}, CPython {}; each worker answered at least {} requests, \
         measured {} s later.\n",
        options.project.name,
        kernel.trim(),
        huge.trim(),
        environment.python_version,
        options.requests,
        options.pause.as_secs(),
    )
}

pub fn table(workers: &[u32], rows: &[Row]) -> String {
    let mut text = format!("| server | PSS of all with {} MiB |", workers[0]);
    for (at, count) in workers.iter().enumerate().skip(1) {
        let _ = write!(text, " PSS per added worker, {count} | private |");
        if at + 1 == workers.len() {
            let _ = write!(text, " idle, {count} |");
        }
    }
    let _ = write!(text, " start ms, 1 | start ms, {MANY} | replacement ms |");
    let columns = text.matches('|').count() - 2;
    let _ = writeln!(text, "\n|---|{}", "--:|".repeat(columns));
    for row in rows {
        let _ = writeln!(text, "{}", row.line(workers));
    }
    text
}
