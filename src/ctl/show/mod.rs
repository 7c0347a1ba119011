//! What the server answers, in the form for people: sentences and aligned tables.
//!
//! Pure: replies in, text out. Everything that came from outside passes [`escape`].

mod apps;
mod statistics;
mod table;
mod units;

use std::time::Duration;

use serde::Serialize;

use crate::control::stats::{Request, Stats, Worker};
use crate::control::{Config, Level, Ping, Recycled, Reloaded, Scaled, Trace};

pub use apps::{apps, logs, why};
pub use statistics::{reload, stats};
use table::Table;
pub use units::{
    bytes, escape, escape_lines, rate, seconds, short_bytes, short_count, short_seconds,
};

/// Whether attributes of the terminal are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    None,
    Ansi,
}

impl Paint {
    fn attribute(self, code: &str, text: &str) -> String {
        match self {
            Paint::None => text.to_owned(),
            Paint::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    pub fn bold(self, text: &str) -> String {
        self.attribute("1", text)
    }

    pub fn red(self, text: &str) -> String {
        self.attribute("31", text)
    }
}

/// A request that is running.
#[derive(Debug, Clone, Serialize)]
pub struct Running<'a> {
    pub app: &'a str,
    pub slot: u32,
    pub generation: u64,
    pub pid: i32,
    pub state: &'a str,
    #[serde(flatten)]
    pub request: &'a Request,
}

/// Those that have been running for so many seconds, the oldest first.
pub fn running(stats: &Stats, older: f64) -> Vec<Running<'_>> {
    let workers = stats.apps.iter().flat_map(|app| {
        let of = move |worker| (app.name.as_str(), worker);
        app.workers.iter().map(of)
    });
    let mut running: Vec<_> = workers
        .filter_map(|(app, worker): (&str, &Worker)| {
            Some(Running {
                app,
                slot: worker.slot,
                generation: worker.generation,
                pid: worker.pid,
                state: &worker.state,
                request: worker.request.as_ref()?,
            })
        })
        .filter(|running| running.request.age_seconds >= older)
        .collect();
    running.sort_by(|a, b| b.request.age_seconds.total_cmp(&a.request.age_seconds));
    running
}

pub fn requests(running: &[Running<'_>], paint: Paint) -> String {
    if running.is_empty() {
        return "no request is running for so long\n".to_owned();
    }
    let mut table = Table::new(&["AGE", "APP", "WORKER", "PROCESS", "PEER", "REQUEST"]);
    table.right(&[0, 2, 3]);
    for one in running {
        table.row([
            seconds(one.request.age_seconds),
            escape(one.app),
            one.slot.to_string(),
            one.pid.to_string(),
            escape(one.request.peer.as_deref().unwrap_or("-")),
            line(one.request),
        ]);
    }
    table.text(paint)
}

/// `GET /slow`
pub fn line(request: &Request) -> String {
    format!("{} {}", escape(&request.method), escape(&request.path))
}

/// A worker and its app.
#[derive(Debug, Clone, Serialize)]
pub struct Member<'a> {
    pub app: &'a str,
    #[serde(flatten)]
    pub worker: &'a Worker,
}

pub fn crew(stats: &Stats) -> Vec<Member<'_>> {
    let members = stats.apps.iter().flat_map(|app| {
        let of = move |worker| Member {
            app: &app.name,
            worker,
        };
        app.workers.iter().map(of)
    });
    members.collect()
}

pub fn workers(crew: &[Member<'_>], paint: Paint) -> String {
    let mut table = Table::new(&[
        "APP", "WORKER", "GEN", "PROCESS", "STATE", "AGE", "REQUESTS", "CONNS", "PSS", "UNIQUE",
        "REQUEST",
    ]);
    table.right(&[1, 2, 3, 5, 6, 7, 8, 9]);
    for Member { app, worker } in crew {
        let size = |size: Option<u64>| size.map_or("-".to_owned(), bytes);
        table.row([
            escape(app),
            worker.slot.to_string(),
            worker.generation.to_string(),
            worker.pid.to_string(),
            escape(&worker.state),
            seconds(worker.age_seconds),
            worker.requests.to_string(),
            worker.connections.to_string(),
            size(worker.pss_bytes),
            size(worker.uss_bytes),
            worker.request.as_ref().map(running_for).unwrap_or_default(),
        ]);
    }
    table.text(paint)
}

/// `GET /slow for 2.1 s`
fn running_for(request: &Request) -> String {
    format!("{} for {}", line(request), seconds(request.age_seconds))
}

/// A server that was found.
#[derive(Debug, Serialize)]
pub struct Server<'a> {
    pub control: String,
    #[serde(flatten)]
    pub ping: &'a Ping,
}

pub fn servers(servers: &[Server<'_>], paint: Paint) -> String {
    let mut table = Table::new(&["CONTROL", "PROCESS", "VERSION", "STATE", "UP", "APPS"]);
    table.right(&[1, 4]);
    for Server { control, ping } in servers {
        table.row([
            escape(control),
            ping.server.pid.to_string(),
            escape(&ping.server.version),
            escape(&ping.server.state),
            seconds(ping.server.uptime_seconds),
            escape(&ping.apps.join(", ")),
        ]);
    }
    table.text(paint)
}

pub fn ping(ping: &Ping) -> String {
    let server = &ping.server;
    format!(
        "rswsgi {}, process {}, {}, up {}; {}\n",
        escape(&server.version),
        server.pid,
        escape(&server.state),
        seconds(server.uptime_seconds),
        match ping.apps.as_slice() {
            [] => "no app".to_owned(),
            [app] => format!("app {}", escape(app)),
            apps => format!("apps {}", escape(&apps.join(", "))),
        }
    )
}

pub fn waited(ping: &Ping, word: &str, took: Duration) -> String {
    let (pid, took) = (ping.server.pid, seconds(took.as_secs_f64()));
    format!("process {pid} {word}, after {took}\n")
}

pub fn stopped(took: Duration) -> String {
    format!("stopped, after {}\n", seconds(took.as_secs_f64()))
}

pub fn reloaded(reply: &Reloaded) -> String {
    let lines = reply.reloaded.iter().map(|one| {
        let (app, took) = (escape(&one.app), seconds(one.took_seconds));
        format!(
            "{app}: generation {} serves, after {took}\n",
            one.generation
        )
    });
    let list = |what: &str, apps: &[String]| {
        let lines = apps.iter().map(|app| format!("{}: {what}\n", escape(app)));
        lines.collect::<String>()
    };
    let mut text: String = lines.collect();
    text += &list("new", &reply.added);
    text += &list("removed", &reply.removed);
    if text.is_empty() {
        text += "nothing has changed\n";
    }
    text
}

pub fn scaled(reply: &Scaled) -> String {
    let lines = reply.scaled.iter().map(|one| {
        let app = escape(&one.app);
        match one.min == one.max {
            true => format!("{app}: {}\n", workers_of(one.max)),
            false => format!("{app}: {} to {}\n", one.min, workers_of(one.max)),
        }
    });
    lines.collect()
}

fn workers_of(number: u32) -> String {
    match number {
        1 => "1 worker".to_owned(),
        number => format!("{number} workers"),
    }
}

pub fn recycled(reply: &Recycled) -> String {
    match reply.recycling {
        1 => "1 worker is being replaced\n".to_owned(),
        number => format!("{number} workers are being replaced\n"),
    }
}

pub fn level(reply: &Level) -> String {
    format!("{}\n", escape(&reply.level))
}

pub fn trace(reply: &Trace, paint: Paint) -> String {
    if reply.stacks.is_empty() {
        return "no such worker now\n".to_owned();
    }
    let mut stacks: Vec<_> = reply.stacks.iter().collect();
    stacks.sort_by_key(|stack| (&stack.app, stack.generation, stack.slot));
    let mut text = String::new();
    for stack in stacks {
        if !text.is_empty() {
            text.push('\n');
        }
        let mut head = format!(
            "worker {} [{} gen {}] process {}, {}",
            stack.slot,
            escape(&stack.app),
            stack.generation,
            stack.pid,
            escape(&stack.state)
        );
        if let Some(request) = &stack.request {
            head += &format!(", {}", escape(request));
        }
        if let Some(age) = stack.request_age_seconds {
            head += &format!(" for {}", seconds(age));
        }
        text += &paint.bold(&head);
        text.push('\n');
        for line in escape_lines(&stack.stack).lines() {
            text += &format!("  {line}\n");
        }
        if let Some(error) = &stack.error {
            text += &format!("  {}\n", paint.red(&escape(error)));
        }
    }
    text
}

pub fn config(reply: &Config, paint: Paint) -> String {
    let mut text = String::new();
    for app in &reply.apps {
        if reply.apps.len() > 1 {
            text += &format!("{}\n", paint.bold(&escape(&app.app)));
        }
        let mut table = Table::new(&["SETTING", "FROM", "TAKES", "VALUE"]);
        for setting in &app.settings {
            let values: Vec<_> = setting.values.iter().map(|value| quoted(value)).collect();
            table.row([
                escape(&setting.name),
                escape(setting.source.as_deref().unwrap_or("-")),
                escape(&setting.takes_effect),
                match values.is_empty() {
                    true => "-".to_owned(),
                    false => values.join(" "),
                },
            ]);
        }
        text += &table.text(paint);
    }
    text
}

/// A value that cannot be overlooked or taken for several.
fn quoted(value: &str) -> String {
    match value.is_empty() || value.contains(' ') {
        true => format!("\"{}\"", escape(value)),
        false => escape(value),
    }
}

#[cfg(test)]
mod tests;
