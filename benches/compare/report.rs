//! Samples become medians, medians become a table.

use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::Options;
use crate::environment::{Environment, pinned};
use crate::limit;
use crate::load::{CONNECTIONS, Load, Slow, Workload};
use crate::probe::Manners;
use crate::process::Cpus;
use crate::servers::{FLOOR, RSWSGI, Server};

/// From this ratio of the dearest round to the cheapest on, a row tells both.
const UNSTEADY: f64 = 1.25;

pub struct Sample {
    pub load: Load,
    /// Microseconds.
    pub cpu_per_request: f64,
    /// KiB.
    pub proportional_set: u64,
    pub manners: Manners,
}

/// All that is known of one server under one workload.
pub struct Outcome {
    pub server: &'static Server,
    samples: Vec<Sample>,
    failure: Option<String>,
}

impl Outcome {
    pub fn new(server: &'static Server) -> Outcome {
        Outcome {
            server,
            samples: Vec::new(),
            failure: None,
        }
    }

    /// A server that failed once is not tried again, so that it costs no time in every round.
    pub fn works(&self) -> bool {
        self.failure.is_none()
    }

    pub fn add(&mut self, sample: Result<Sample, String>) {
        match sample {
            Ok(sample) => self.samples.push(sample),
            Err(reason) => self.failure = Some(reason),
        }
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() % 2 {
            _ if values.is_empty() => f64::NAN,
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        }
    }

    fn cpu(&self) -> f64 {
        self.median(|sample| sample.cpu_per_request)
    }

    fn title(&self) -> String {
        let version = match self.server.is_ours() {
            true => Some(env!("CARGO_PKG_VERSION")),
            false => self.server.package.and_then(pinned),
        };
        match version {
            Some(version) => format!("{} {version}", self.server.name),
            None => self.server.name.to_owned(),
        }
    }

    /// What a reader must know to compare the row with others.
    fn remarks(&self, workload: &Workload) -> String {
        let mut remarks = Vec::new();
        match self.samples.first().map(|sample| sample.manners) {
            Some(Manners::Closes) if !workload.closes() => remarks.push("no keep-alive".into()),
            Some(Manners::IgnoresClose) => remarks.push("keeps the connection".into()),
            Some(Manners::KeepsOne) => remarks.push("one connection per worker".into()),
            _ => {}
        }
        let lost: u64 = self.samples.iter().map(|sample| sample.load.lost).sum();
        // Clients count the end of a response without length as an error of the connection.
        if lost > 0 && remarks.is_empty() {
            remarks.push(format!("{lost} requests lost"));
        }
        let cpu = self.samples.iter().map(|sample| sample.cpu_per_request);
        let (least, most) = (
            cpu.clone().fold(f64::MAX, f64::min),
            cpu.fold(0.0, f64::max),
        );
        if most > least * UNSTEADY {
            remarks.push(format!("CPU {}-{} µs", short(least), short(most)));
        }
        match remarks.is_empty() {
            true => String::new(),
            false => format!(" ({})", remarks.join(", ")),
        }
    }
}

/// Where and how the figures below it were measured.
pub fn preamble(options: &Options, environment: &Environment, cpus: &Cpus) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{count} CPUs ({model}), Linux {}, CPython {}. Server on CPU {}, load generator on CPU {}; \
         {} worker(s); median of {} round(s) of {} s.\n",
        kernel.trim(),
        environment.python_version,
        cpus.server,
        cpus.load,
        options.workers,
        options.rounds,
        options.seconds,
    )
}

pub fn progress(sample: &Result<Sample, String>) -> String {
    match sample {
        Ok(sample) => format!(
            "{:.0} req/s, {:.1} µs",
            sample.load.per_second, sample.cpu_per_request
        ),
        Err(reason) => format!("fails: {reason}"),
    }
}

/// One workload as a Markdown table, failures last.
pub fn table(workload: &Workload, outcomes: &[Outcome]) -> String {
    match &workload.slow {
        None => by_cost(workload, outcomes),
        Some(slow) => by_throughput(workload, slow, outcomes),
    }
}

/// Beside what that many servers could do, most requests per second first.
fn by_throughput(workload: &Workload, slow: &Slow, outcomes: &[Outcome]) -> String {
    let workers = workload.workers.unwrap_or(1);
    let mut text = format!(
        "### {} (`{}`, {workers} workers)\n\n\
         | server | req/s | ÷ limit of {workers} | p50 | p99 | CPU µs/request | PSS MiB |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
        workload.title, workload.name
    );
    let base = limit::of(workers, CONNECTIONS, slow).per_second;
    for (servers, who) in [
        (CONNECTIONS, "a server per client"),
        (workers, "as many servers"),
    ] {
        let limit = limit::of(servers, CONNECTIONS, slow);
        let (p50, p99) = (limit.p50.as_secs_f64(), limit.p99.as_secs_f64());
        let (rate, ratio) = (limit.per_second, limit.per_second / base);
        let _ = writeln!(
            text,
            "| *limit, {who}* | {rate:.0} | {ratio:.2} | {} | {} | | |",
            time(p50),
            time(p99),
        );
    }
    let (mut working, failed): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.works());
    let rate = |outcome: &Outcome| outcome.median(|sample| sample.load.per_second);
    working.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
    for outcome in working {
        let _ = writeln!(
            text,
            "| {}{} | {:.0} | {:.2} | {} | {} | {} | {:.1} |",
            outcome.title(),
            outcome.remarks(workload),
            rate(outcome),
            rate(outcome) / base,
            time(outcome.median(|sample| sample.load.p50.as_secs_f64())),
            time(outcome.median(|sample| sample.load.p99.as_secs_f64())),
            short(outcome.cpu()),
            outcome.median(|sample| sample.proportional_set as f64) / 1024.0,
        );
    }
    text + &failures(&failed)
}

fn failures(failed: &[&Outcome]) -> String {
    let mut text = String::new();
    for outcome in failed {
        let reason = outcome.failure.as_deref().unwrap_or_default();
        let reason = reason.replace('|', "\\|");
        let _ = writeln!(text, "| {} | fails: {reason} | | | | | |", outcome.title());
    }
    text
}

/// Cheapest request first.
fn by_cost(workload: &Workload, outcomes: &[Outcome]) -> String {
    let named = |name| {
        outcomes
            .iter()
            .find(|outcome: &&Outcome| outcome.works() && outcome.server.name == name)
    };
    let base = named(RSWSGI).or_else(|| named(FLOOR));
    let (base_name, base_cpu) = base.map_or(("-", f64::NAN), |outcome| {
        (outcome.server.name, outcome.cpu())
    });
    let mut text = format!(
        "### {} (`{}`)\n\n\
         | server | req/s | CPU µs/request | CPU ÷ {base_name} | p50 | p99 | PSS MiB |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
        workload.title, workload.name
    );
    let (mut working, failed): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|outcome| outcome.works());
    working.sort_by(|a, b| a.cpu().total_cmp(&b.cpu()));
    for outcome in working {
        let cpu = outcome.cpu();
        let ratio = cpu / base_cpu;
        let _ = writeln!(
            text,
            "| {}{} | {:.0} | {} | {} | {} | {} | {:.1} |",
            outcome.title(),
            outcome.remarks(workload),
            outcome.median(|sample| sample.load.per_second),
            short(cpu),
            match ratio.is_nan() {
                true => "-".to_owned(),
                false => format!("{ratio:.2}"),
            },
            time(outcome.median(|sample| sample.load.p50.as_secs_f64())),
            time(outcome.median(|sample| sample.load.p99.as_secs_f64())),
            outcome.median(|sample| sample.proportional_set as f64) / 1024.0,
        );
    }
    text + &failures(&failed)
}

fn short(value: f64) -> String {
    match value < 100.0 {
        true => format!("{value:.1}"),
        false => format!("{value:.0}"),
    }
}

fn time(seconds: f64) -> String {
    match Duration::from_secs_f64(seconds) {
        time if time < Duration::from_millis(1) => format!("{:.0} µs", seconds * 1e6),
        _ => format!("{} ms", short(seconds * 1e3)),
    }
}
