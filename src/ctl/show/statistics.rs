//! `stats` for people: one paragraph per app, one line per subject.

use std::fmt::Write as _;
use std::path::Path;

use super::{Paint, bytes, escape, rate, seconds};
use crate::control::stats::{
    App, Distribution, Errors, Generation, Memory, Pool, Processes, Relay, Reload, Stats,
};

pub fn stats(stats: &Stats, control: &Path, paint: Paint) -> String {
    let server = &stats.server;
    let mut text = format!(
        "rswsgi {}, process {}, {}, up {}, {}\n",
        escape(&server.version),
        server.pid,
        escape(&server.state),
        seconds(server.uptime_seconds),
        escape(&control.to_string_lossy())
    );
    for app in &stats.apps {
        let _ = write!(text, "\n{}\n", paint.bold(&title(app)));
        for (name, line) in lines(app, paint) {
            let _ = writeln!(text, "  {name:<12}{line}");
        }
    }
    text
}

fn title(app: &App) -> String {
    let (name, target) = (escape(&app.name), escape(&app.target));
    match app.status.is_empty() {
        true => format!("{name} ({target})"),
        false => format!("{name} ({target}): {}", escape(&app.status)),
    }
}

fn lines(app: &App, paint: Paint) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    match app.generations.is_empty() {
        true if app.state == "at rest" => lines.push(("generation", "none: at rest".to_owned())),
        true => lines.push(("generation", paint.red("none"))),
        false => lines.extend(
            app.generations
                .iter()
                .map(|it| ("generation", generation(it))),
        ),
    }
    lines.extend(app.reload.iter().map(|it| ("reload", reload(it, paint))));
    lines.push(("pool", pool(&app.pool)));
    let of = &app.requests;
    lines.push((
        "requests",
        format!("{}, {} running", of.total, of.in_flight),
    ));
    lines.push((
        "responses",
        format!(
            "{} 2xx, {} 3xx, {} 4xx, {} 5xx",
            of.status_2xx, of.status_3xx, of.status_4xx, of.status_5xx
        ),
    ));
    let rates = &app.rates;
    lines.push((
        "rate",
        format!(
            "{}/s in the last second, {}/s in 1 min, {}/s in 5 min",
            rate(rates.per_second_1s),
            rate(rates.per_second_1m),
            rate(rates.per_second_5m)
        ),
    ));
    lines.push(("latency", distribution(&app.latency)));
    lines.push(("queue", distribution(&app.queue)));
    let connections = &app.connections;
    lines.push((
        "connections",
        format!(
            "{} open, {} accepted",
            connections.open, connections.accepted
        ),
    ));
    for listener in &app.listeners {
        let number = |number: Option<u32>| number.map_or("?".to_owned(), |n| n.to_string());
        let (waiting, limit) = (number(listener.backlog), number(listener.backlog_limit));
        let name = escape(&listener.name);
        lines.push(("listener", format!("{name}, {waiting} of {limit} waiting")));
    }
    lines.extend(relay(&app.relay).map(|text| ("relay", text)));
    let (received, sent) = (app.bytes.received_bytes, app.bytes.sent_bytes);
    lines.push((
        "traffic",
        format!("{} received, {} sent", bytes(received), bytes(sent)),
    ));
    lines.extend(app.memory.iter().map(|it| ("memory", memory(it))));
    lines.push(("errors", errors(&app.errors, paint)));
    lines.push(("processes", processes(&app.processes)));
    lines
}

fn generation(generation: &Generation) -> String {
    let python = match generation.python.is_empty() {
        true => String::new(),
        false => format!(", Python {}", escape(&generation.python)),
    };
    format!(
        "{} {}, {} workers, for {}, process {}{python}",
        generation.number,
        escape(&generation.stage),
        generation.workers,
        seconds(generation.age_seconds),
        generation.pid
    )
}

/// One line about the last reload, or the one under way.
pub fn reload(reload: &Reload, paint: Paint) -> String {
    let took = seconds(reload.took_seconds);
    if reload.result == "under way" {
        return format!("under way for {took}");
    }
    let ago = format!("{} ago, took {took}", seconds(reload.age_seconds));
    match &reload.error {
        Some(error) => paint.red(&format!("failed {ago}: {}", escape(error))),
        None => format!("{} {ago}", escape(&reload.result)),
    }
}

/// Nothing for an app whose connections have all stayed where they were.
fn relay(relay: &Relay) -> Option<String> {
    let causes = [
        (relay.busy, "from busy workers"),
        (relay.balance, "to idle ones"),
        (relay.drain, "from workers that left"),
        (relay.stuck, "from stuck ones"),
        (relay.full, "times full"),
        (relay.refused, "refused"),
    ];
    let mut text = format!("{} taken over", relay.taken);
    for (number, cause) in causes.iter().filter(|(number, _)| *number > 0) {
        let _ = write!(text, ", {number} {cause}");
    }
    if let Some(wait) = relay.wait.p99_seconds {
        let _ = write!(text, ", p99 {} on the way", seconds(wait));
    }
    let none = relay.taken == 0 && causes.iter().all(|(number, _)| *number == 0);
    (!none).then_some(text)
}

fn pool(pool: &Pool) -> String {
    let mut text = match pool.min == pool.max {
        true => format!("{} wanted", pool.target),
        false => format!("{} wanted of {} to {}", pool.target, pool.min, pool.max),
    };
    for (number, state) in [
        (pool.busy, "busy"),
        (pool.idle, "idle"),
        (pool.starting, "starting"),
        (pool.draining, "draining"),
    ] {
        if number > 0 {
            let _ = write!(text, ", {number} {state}");
        }
    }
    text
}

fn distribution(of: &Distribution) -> String {
    let parts = [
        ("p50", of.p50_seconds),
        ("p90", of.p90_seconds),
        ("p99", of.p99_seconds),
        ("max", of.max_seconds),
    ];
    let known = parts
        .iter()
        .filter_map(|(name, value)| Some((name, (*value)?)));
    let texts: Vec<_> = known
        .map(|(name, value)| format!("{name} {}", seconds(value)))
        .collect();
    match texts.is_empty() {
        true => "-".to_owned(),
        false => texts.join(", "),
    }
}

fn memory(memory: &Memory) -> String {
    format!(
        "{} in all, {} of it the master's; workers: {} unique, {} shared, {} written since the fork",
        bytes(memory.pss_bytes),
        bytes(memory.master_pss_bytes),
        bytes(memory.uss_bytes),
        bytes(memory.shared_bytes),
        bytes(memory.private_dirty_bytes)
    )
}

/// What occurred, with its number.
fn occurred<'a>(kinds: impl IntoIterator<Item = (u64, &'a str)>) -> Option<String> {
    let some = kinds.into_iter().filter(|(number, _)| *number > 0);
    let texts: Vec<_> = some
        .map(|(number, kind)| format!("{number} {kind}"))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn errors(errors: &Errors, paint: Paint) -> String {
    let refused: Vec<_> = errors
        .refused
        .iter()
        .map(|(reason, number)| (*number, format!("refused ({})", escape(reason))))
        .collect();
    let kinds = [
        (errors.exceptions, "exceptions"),
        (errors.soft_timeouts, "time-outs"),
        (errors.hard_timeouts, "workers killed as stuck"),
        (errors.crashes, "crashes"),
        (errors.start_failures, "failed starts"),
        (errors.master_crashes, "crashes of the master"),
        (errors.failed_reloads, "failed reloads"),
        (errors.broken_responses, "broken responses"),
        (errors.client_aborts, "left by the client"),
    ];
    let refused = refused
        .iter()
        .map(|(number, text)| (*number, text.as_str()));
    match occurred(kinds.into_iter().chain(refused)) {
        Some(text) => paint.red(&text),
        None => "none".to_owned(),
    }
}

fn processes(processes: &Processes) -> String {
    let kinds = [
        (processes.spawns, "workers forked"),
        (processes.recycled_requests, "replaced after --max-requests"),
        (processes.recycled_age, "at --max-age"),
        (processes.recycled_memory, "over --max-memory"),
        (processes.recycled_asked, "as asked"),
        (processes.retired, "retired"),
        (processes.reloads, "reloads"),
    ];
    occurred(kinds).unwrap_or_else(|| "none".to_owned())
}
